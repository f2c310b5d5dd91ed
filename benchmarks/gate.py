"""What the gate of a rebuild catches and what it lets through. docs/performance.md quotes the results.

    python benchmarks/gate.py rebuilds [--repeat 100]     whole rebuilds of Python's docstrings, asked 300 known items
    python benchmarks/gate.py chance [--repeat 2000]      simulated rebuilds in which answers change back and forth

`rebuilds` first rebuilds an index again and again, with max_loss 0.02 and with 0, from a source that did not change:
each rebuild must go live. Then more and more of the documents that queries look for lose their text.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import sys
import tempfile
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.embedders import open_embedder
from rag_index.evaluation.gate import judge
from rag_index.evaluation.golden import GoldenQuery
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.steps import Here
from rag_index.samples import pydocs
from rag_index.settings import GateSettings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.reports.outcome import IndexOutcome
    from rag_index.sources import Source, SourcePage

DOCUMENTS, QUERIES = 1000, 300
SETTINGS = """\
project = "gate"
[source]
url = "sqlite:///pydocs.db"
[[indexes]]
name = "docstrings"
table = "entry"
key = "name"
text = "body"
[indexes.gate]
queries = "golden.jsonl"
max_loss = {max_loss}
"""
FOUND, LOST = ("right",), ("other",)


def rebuilds(arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = write_source(folder)
        for max_loss in (0.02, 0.0):
            (folder / "rag-index.toml").write_text(SETTINGS.format(max_loss=max_loss))
            began = time.perf_counter()
            outcomes = [run(folder) for _ in range(arguments.repeat + 1)][1:]
            live = sum(one.state == "completed" for one in outcomes)
            seconds = (time.perf_counter() - began) / (arguments.repeat + 1)
            found = max(one.gate.before for one in outcomes if one.gate)
            print(
                f"max_loss {max_loss:g}, nothing lost: {live} of {arguments.repeat} rebuilds went live "
                f"(recall@10 {found:.3f}, {seconds:.1f} s each)"
            )
        (folder / "rag-index.toml").write_text(SETTINGS.format(max_loss=0.02))
        for lost in (3, 6, 9, 15):
            lose(folder, names[:lost])
            outcome = run(folder)
            gate = outcome.gate
            print(
                f"max_loss 0.02, {lost} of {QUERIES} documents lost their text: recall@10 {gate.before:.3f} -> "
                f"{gate.after:.3f}, {len(gate.worse)} worse, {gate.better} better, p = {gate.p:.4f}: "
                f"{'went live' if outcome.state == 'completed' else 'stopped'}"
            )
            lose(folder, [])
            run(folder, allow_loss=True)


def write_source(folder: Path) -> list[str]:
    """Write the documents and the golden file; return the names of documents that a query finds among the first ten."""
    pydocs.write(folder / "pydocs.db")
    with closing(sqlite3.connect(folder / "pydocs.db")) as db, db:
        union = " UNION ".join(f'SELECT name, summary, body FROM "{table}"' for table in pydocs.TABLES)
        every = f"SELECT * FROM ({union}) WHERE length(body) >= 40 GROUP BY summary ORDER BY name"
        chosen = random.Random(1).sample(db.execute(every).fetchall(), DOCUMENTS)
        for table in ("entry", "whole"):
            db.execute(f"CREATE TABLE {table} (name TEXT PRIMARY KEY, summary TEXT, body TEXT)")
            db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", chosen)
    asked = [(name, summary) for name, summary, _ in chosen[:QUERIES]]
    print(f"{DOCUMENTS:,} docstrings, indexed by their bodies; {QUERIES} of them are searched by their summaries")
    queries = [{"query": summary, "relevant": [name]} for name, summary in asked]
    (folder / "golden.jsonl").write_text("".join(f"{json.dumps(query)}\n" for query in queries))
    (folder / "rag-index.toml").write_text(SETTINGS.format(max_loss=0.02))
    run(folder)
    return found_documents(folder, asked)


def found_documents(folder: Path, items: list[tuple[str, str]]) -> list[str]:
    from rag_index import Retriever

    with Retriever.from_settings(folder / "rag-index.toml") as retriever:
        return [
            name
            for name, summary in items
            if name in {hit.document_id for hit in retriever.search_sync(summary, limit=10).hits}
        ]


def lose(folder: Path, names: list[str]) -> None:
    """Let these documents lose their text, and give all others theirs."""
    with closing(sqlite3.connect(folder / "pydocs.db")) as db, db:
        db.execute("UPDATE entry SET body = (SELECT body FROM whole WHERE whole.name = entry.name)")
        lost = json.dumps(names)
        db.execute("UPDATE entry SET body = '-' WHERE name IN (SELECT value FROM json_each(?))", [lost])


def run(folder: Path, *, allow_loss: bool = False) -> IndexOutcome:
    """Rebuild the index without Prefect and Dask: the steps of the flow in this process."""
    settings = load_settings(folder / "rag-index.toml")
    options = RunOptions(full=True, allow_loss=allow_loss)
    with (
        open_run(settings, "docstrings", options, run_id=str(uuid.uuid4())) as opened,
        closing(open_embedder(settings.embedder)) as embedder,
    ):
        scan = opened.begin(embedder.identity(), opened.open_chunker(), workers=1)
        scan.index(pages(opened.source), Here(embedder))
        scan.delete_gone()
        scan.publish()
        return opened.finish()


def pages(source: Source) -> Iterator[SourcePage]:
    cursor = None
    while True:
        page = source.page(cursor, 2000)
        yield page
        cursor = page.cursor
        if cursor is None:
            return


def chance(arguments: argparse.Namespace) -> None:
    """Print how often simulated rebuilds are stopped. A changed answer is found in one of the two collections only."""
    gate = GateSettings(queries="golden.jsonl", max_loss=0.02)
    golden = [GoldenQuery(f"query {number}", {"right": 1}) for number in range(QUERIES)]
    print(
        f"{QUERIES} queries, max_loss 0.02, {arguments.repeat:,} simulated rebuilds a cell: the share that is stopped"
    )
    print("| answers that change by chance | nothing lost | 3 points lost | 5 points lost |")
    print("|---:|---:|---:|---:|")
    random_numbers = np.random.default_rng(1)
    for churn in (0.0, 0.01, 0.02, 0.05, 0.1):
        cells = []
        for lost in (0, 9, 15):
            verdicts: dict[tuple[int, int], bool] = {}
            stopped = 0
            for _ in range(arguments.repeat):
                changed = random_numbers.binomial(QUERIES, churn)
                worse = random_numbers.binomial(changed, 0.5)
                counts = (worse + lost, changed - worse)
                if counts not in verdicts:
                    verdicts[counts] = judge(gate, golden, *rankings(*counts)).passed
                stopped += not verdicts[counts]
            cells.append(f"{stopped / arguments.repeat:.2%}")
        print(f"| {churn:.0%} | {' | '.join(cells)} |")


def rankings(worse: int, better: int) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    same = [FOUND] * (QUERIES - worse - better)
    return [FOUND] * worse + [LOST] * better + same, [LOST] * worse + [FOUND] * better + same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, call, repeat in (("rebuilds", rebuilds, 100), ("chance", chance, 2000)):
        command = commands.add_parser(name)
        command.set_defaults(run=call)
        command.add_argument("--repeat", type=int, default=repeat)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
