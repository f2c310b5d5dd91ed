"""One index of many chunks in the embedded store: the time of a search, the CPU of both processes,
and the stages."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.local import prose
from benchmarks.searches.printing import line
from benchmarks.searches.project import program
from benchmarks.searches.sets import summaries
from rag_index import Retriever

if TYPE_CHECKING:
    import argparse

WARM_UP = 20


def make(folder: Path, documents: int) -> None:
    """Make a project of excerpts of prose, each with a time, and index it."""
    with prose(documents) as made:
        shutil.copy(made.folder / "pydocs.db", folder)
        settings = made.config.read_text()
    with closing(sqlite3.connect(folder / "pydocs.db")) as db:
        db.execute("ALTER TABLE excerpt ADD COLUMN written_at TEXT")
        db.execute("UPDATE excerpt SET written_at = datetime('now', '-' || (id % 1000) || ' days')")
        db.commit()
    plain = f'{settings}payload = ["written_at"]\n'
    (folder / "words.txt").write_text("fn, function\nargs, arguments\nregex, regular expression\n")
    extra = (
        'recency = {field = "written_at", half_life = "180d"}\n[retrieve]\nsynonyms = "words.txt"\n'
    )
    (folder / "all.toml").write_text(plain + extra)
    (folder / "rag-index.toml").write_text(plain)
    program(folder / "rag-index.toml", "index-all", "--json")


def one(arguments: argparse.Namespace) -> None:
    """Print medians of single searches, with recency and synonyms off and on."""
    queries = [query for query, _ in summaries(None).queries][: WARM_UP + arguments.queries]
    folder = arguments.folder or Path(os.environ.get("TMPDIR", "/tmp"), "rag-index-one")
    if not (folder / "rag-index.toml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, arguments.documents)
    for name, config in (("off", "rag-index.toml"), ("on", "all.toml")):
        with Retriever.from_settings(folder / config) as retriever:
            measure(retriever, queries, f"recency and synonyms {name}")


def measure(retriever: Retriever, queries: list[str], what: str) -> None:
    """Search with one query after the other, and print the medians."""
    clocks, stages = (time.perf_counter, time.process_time), defaultdict[str, list[float]](list)
    spent: list[list[float]] = []
    for number, query in enumerate(queries):
        before = [clock() for clock in clocks]
        found = retriever.search_sync(query, timeout=60)
        if number >= WARM_UP:
            spent.append([clock() - began for clock, began in zip(clocks, before, strict=True)])
            for stage, milliseconds in found.timings_ms.items():
                stages[stage].append(milliseconds)
    wall, cpu = (1000 * median(some) for some in zip(*spent, strict=True))
    line(what, f"{wall:.1f} ms, CPU {cpu:.1f} ms")
    line("  stages", ", ".join(f"{name} {median(some):.1f}" for name, some in stages.items()))
