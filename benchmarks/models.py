"""What searches find with each model, and what it costs. docs/models.md has its figures from here.

    python benchmarks/models.py [--collections DIR] [--model FOLDER|NAME] … [--tickets 600] [--seed
    3] [--folder DIR] python benchmarks/models.py --golden FILE [--config FILE] [--model
    FOLDER|NAME] …

Each model indexes the collections (benchmarks/searches/sets.py) and a generated desk
(benchmarks/searches/tickets.py), and is asked by `Retriever.search`, with default settings. Without
`--model` it is the built-in one, wordllama. With `--golden`, each model indexes your own documents
in a temporary folder and is asked your own queries as by `rag-index evaluate`. It prints a table
with a column for each model.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.finding import ask, build
from benchmarks.searches.project import PROGRAM, program
from benchmarks.searches.sets import SETS, JudgedSet
from benchmarks.searches.tickets import EXACT, JUDGING, Desk, foreign_queries, make_desk
from rag_index import Retriever
from rag_index.care.benchmark import settings_in
from rag_index.components.embedders import open_embedder
from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import EmbedderSettings, Settings, load_settings
from rag_index.etl.changed import serially
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.orchestration.hooks import SearchHooks
from rag_index.search.evaluation.evaluation import evaluate
from rag_index.search.evaluation.golden import GoldenQuery, read_golden
from rag_index.search.evaluation.measures import parse_metric

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = dict[str, str]

BUILT_IN = "wordllama"
COLLECTIONS = ("cranfield", "cisi")
MEASURED_SECONDS, TEXTS_AT_ONCE, CHARS = 2.0, 16, 400
"""The processor time for which a model embeds texts of at most so many characters, so many a
call."""

JOINED = """project = "joined"

[source]
url = "sqlite:///docs.db"

[[indexes]]
name = "desk"
table = "ticket"
key = "id"
text = ["title"]
title = "title"

[[indexes.parts]]
table = "remark"
on = "ticket_id"
key = "id"
text = "body"

"""

RUN_AND_PRINT_USE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
"""A small program between, since a process begins with the peak memory of the one that started
it."""


def embedder_of(model: str) -> EmbedderSettings:
    """Return the settings of a model: the built-in one, a folder, or a name of fastembed's list."""
    if model == BUILT_IN:
        return EmbedderSettings()
    place = Path(model).expanduser()
    return EmbedderSettings(
        kind="fastembed", model=str(place.resolve()) if place.is_dir() else model
    )


def as_toml(embedder: EmbedderSettings) -> str:
    return f'[embedder]\nkind = "{embedder.kind}"\nmodel = "{embedder.model}"\n'


def measure_collections(
    embedder: EmbedderSettings, sets: Sequence[JudgedSet], folder: Path, strange: Sequence[str]
) -> Row:
    """Return what the collections find, and how often each is told that nothing fits."""
    row: Row = {}
    for judged in sets:
        config = build(replace(judged, settings=as_toml(embedder)), folder / judged.name)
        found = ask(judged, config, strange)
        row[f"nDCG@10, {judged.name}"] = f"{found.measured[0]:.3f}"
        row[f'"nothing fits": queries of {judged.name}'] = percent(found.refused)
        row[f'"nothing fits": nonsense in {judged.name}'] = percent(found.told)
    return row


def measure_desk(embedder: EmbedderSettings, desk: Desk, folder: Path) -> Row:
    """Return how often the right tickets come first, how often nothing fits, and the time of a
    search."""
    config = build(
        JudgedSet("desk", desk.documents, [], settings=as_toml(embedder)), folder / "desk"
    )
    right: dict[str, list[bool]] = {}
    told: dict[str, list[bool]] = {}
    walls, processors = list[float](), list[float]()
    with Retriever.from_settings(config) as retriever:
        retriever.search_sync("warm up")
        for query in desk.queries:
            began, began_cpu = time.perf_counter(), time.process_time()
            result = retriever.search_sync(query.text)
            walls.append(time.perf_counter() - began)
            processors.append(time.process_time() - began_cpu)
            found = [hit.document_id for hit in result.hits]
            right.setdefault(query.kind, []).append(query.is_right(found))
            if query.kind == "nonsense":
                told.setdefault("nonsense", []).append(result.nothing_fits)
            elif found and found[0] in query.right:
                answered = (
                    "right first hits"
                    if query.kind in EXACT
                    else "questions with a right first hit"
                )
                told.setdefault(answered, []).append(result.nothing_fits)
    row = {f"right first, {kind}": percent(np.mean(right[kind])) for kind in (*EXACT, "question")}
    row |= {
        f'"nothing fits": {kind} on the desk': percent(np.mean(values))
        for kind, values in told.items()
    }
    row |= measure_command(config)
    row["a search: p50 of wall, mean of CPU (ms)"] = (
        f"{1000 * np.median(walls):.1f}, {1000 * np.mean(processors):.1f}"
    )
    return row


def measure_joined_desk(embedder: EmbedderSettings, desk: Desk, folder: Path) -> Row:
    """Return how often the right tickets come first, if what a ticket says is spread over rows of
    another table."""
    config = folder / "joined/rag-index.toml"
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(config.parent / "docs.db")) as db, db:
            db.execute("CREATE TABLE ticket (id TEXT PRIMARY KEY, title TEXT)")
            db.execute("CREATE TABLE remark (id INTEGER PRIMARY KEY, ticket_id TEXT, body TEXT)")
            db.execute("CREATE INDEX remark_of_ticket ON remark (ticket_id)")
            db.executemany(
                "INSERT INTO ticket VALUES (?, ?)", [document[:2] for document in desk.documents]
            )
            db.executemany("INSERT INTO remark (ticket_id, body) VALUES (?, ?)", desk.remarks)
        config.write_text(JOINED + as_toml(embedder))
        program(config, "index-all", "--json")
    right: dict[str, list[bool]] = {}
    with Retriever.from_settings(config) as retriever:
        for query in desk.queries:
            if query.kind in EXACT:
                found = [hit.document_id for hit in retriever.search_sync(query.text).hits]
                right.setdefault(query.kind, []).append(query.is_right(found))
    return {
        f"right first in joined tables, {kind}": percent(np.mean(right[kind])) for kind in EXACT
    }


def measure_command(config: Path) -> Row:
    """Return what one search on the command line costs, which loads the model."""
    search = [*PROGRAM, "--config", str(config), "search", "printer"]
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_PRINT_USE, *search],
        capture_output=True,
        text=True,
        check=True,
    )
    seconds, kilobytes = map(float, done.stdout.split())
    return {"`rag-index search`: CPU seconds, MB": f"{seconds:.2f}, {kilobytes / 1024:.0f}"}


def measure_rate(embedder: EmbedderSettings, texts: Sequence[str]) -> Row:
    """Return how many texts the model embeds in a second of processor time. Raises the error of a
    text."""
    with closing(open_embedder(embedder)) as opened:
        opened.embed_documents(texts[:1])
        embedded, place, began = 0, 0, time.process_time()
        while (spent := time.process_time() - began) < MEASURED_SECONDS:
            for entry in opened.embed_documents(texts[place : place + TEXTS_AT_ONCE]):
                if isinstance(entry, Exception):
                    raise entry
                embedded += 1
            place = (place + TEXTS_AT_ONCE) % len(texts)
    return {f"texts of at most {CHARS} characters a CPU second": f"{embedded / spent:,.0f}"}


def measure_golden(
    settings: Settings, embedder: EmbedderSettings, golden: Sequence[GoldenQuery]
) -> Row:
    """Return what golden queries find in the indexes that they name, or in the only one."""
    indexes = sorted({query.index or settings.indexes[0].name for query in golden})
    metrics = [parse_metric("nDCG@10"), parse_metric("recall@10")]
    row: Row = {}
    with tempfile.TemporaryDirectory() as folder:
        own = settings_in(Path(folder), settings).model_copy(update={"embedder": embedder})
        for name in indexes:
            index_all(own, name)
        evaluation = evaluate(own, golden, indexes, metrics, worst=0)
    for scope in evaluation.scopes:
        for metric, estimate in scope.ways[-1].metrics.items():
            row[f"{metric}, golden queries in {scope.index or 'all'}"] = f"{estimate.mean:.3f}"
    return row


def index_all(settings: Settings, name: str) -> None:
    """Index all documents of an index in this process, without Prefect and Dask."""
    options, record = RunOptions(), RunRecord(name)
    hooks = SearchHooks(settings, settings.index(name), options)
    with (
        open_index(settings, name, options, run_id=str(uuid.uuid4())) as opened,
        closing(LocalSteps(serially(settings))) as steps,
    ):
        run_index(opened, steps, record, hooks=hooks)
    if record.outcome.error:
        sys.exit(f"{name} cannot be indexed: {record.outcome.error}")


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def print_table(columns: dict[str, Row]) -> None:
    """Print a table in Markdown, with a column for each model."""
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for measured in dict.fromkeys(name for row in columns.values() for name in row):
        print(f"| {measured} | {' | '.join(row.get(measured, '–') for row in columns.values())} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--collections",
        type=Path,
        help="a folder of collections with docs.db, topics.tsv, qrels.txt",
    )
    parser.add_argument(
        "--model", action="append", help="a folder, a name of fastembed's list, or wordllama"
    )
    parser.add_argument(
        "--golden", type=Path, help="a file of golden queries, for the indexes of --config"
    )
    parser.add_argument("--config", type=Path, help="your settings file")
    parser.add_argument("--tickets", type=int, default=600)
    parser.add_argument("--seed", type=int, default=JUDGING)
    parser.add_argument("--folder", type=Path, help="where indexes are kept for the next time")
    arguments = parser.parse_args()
    desk, strange = (
        make_desk(arguments.tickets, arguments.seed),
        foreign_queries(arguments.seed % 2),
    )
    sets = [
        judged for name in COLLECTIONS if (judged := SETS[name](arguments.collections)) is not None
    ]
    texts = [text[:CHARS] for _, _, text in (sets[0] if sets else desk).documents if text]
    columns: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for model in arguments.model or [BUILT_IN]:
            name, embedder = Path(model).name, embedder_of(model)
            folder = (
                arguments.folder or Path(temporary)
            ) / f"{name}-{arguments.tickets}-{arguments.seed}"
            if arguments.golden:
                row = measure_golden(
                    load_settings(arguments.config), embedder, read_golden(arguments.golden)
                )
            else:
                row = measure_collections(embedder, sets, folder, strange)
                row |= measure_desk(embedder, desk, folder) | measure_joined_desk(
                    embedder, desk, folder
                )
            columns[name] = row | measure_rate(embedder, texts)
            print(f"{name} is measured", file=sys.stderr, flush=True)
    print_table(columns)
    print(f"load of the machine: {os.getloadavg()[1]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
