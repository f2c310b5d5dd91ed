"""The projects that the benchmarks search: the service desk, texts to ask it, and the command
line."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import servicedesk
from rag_index.components.stores import open_store
from rag_index.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index import Retriever

PROGRAM = [sys.executable, "-c", "from rag_index.cli import main; main()"]
FIVE = ("comments", "descriptions", "solutions", "titles", "worklogs")
"""The indexes of the service desk."""


@contextmanager
def service_desk(documents: int, folder: Path | None) -> Iterator[Path]:
    """Yield the settings file of an indexed service desk."""
    with ExitStack() as stack:
        where = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        config = where / "rag-index.toml"
        if not config.exists():
            where.mkdir(parents=True, exist_ok=True)
            servicedesk.write(where / "desk.db", documents=documents)
            config.write_text(servicedesk.scaffold("desk.db"))
        started = time.perf_counter()
        program(config, "index-all", "--json")
        print(
            f"\nservice desk in {where}, indexed (or checked) in"
            f" {time.perf_counter() - started:.0f} s"
        )
        yield config


def build_indexes(config: Path) -> float:
    """Build the missing search indexes of the five collections, and return the seconds that it
    took."""
    settings, started = load_settings(config), time.perf_counter()
    with closing(open_store(settings.store)) as store:
        for name in map(settings.alias, FIVE):
            if not store.points(name).indexed():
                store.points(name).optimize()
    return time.perf_counter() - started


def program(config: Path, *arguments: str) -> dict[str, Any]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("PREFECT_", "RAG_INDEX_"))
    }
    done = subprocess.run(
        [*PROGRAM, "--config", str(config), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed: {done.stdout}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def desk_queries(count: int) -> list[str]:
    """Return distinct texts as users write them: titles and sentences from another service desk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "other.db"
        servicedesk.write(path, documents=max(200, count * 6), seed=4711)
        with closing(sqlite3.connect(path)) as db:
            rows = db.execute(
                "SELECT title FROM title UNION SELECT symptom FROM solution"
            ).fetchall()
    texts = sorted({" ".join((text or "").split())[:200] for (text,) in rows} - {""})
    random.Random(1).shuffle(texts)
    return texts[:count]


def search_seconds(
    retriever: Retriever, query: str, indexes: list[str] | None, **options: Any
) -> float:
    started = time.perf_counter()
    result = retriever.search_sync(query, indexes=indexes, **options)
    seconds = time.perf_counter() - started
    if result.errors:
        sys.exit(f"not all indexes answered: {result.errors}")
    return seconds
