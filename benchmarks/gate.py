"""What the gate of a rebuild catches and what it lets through. README.md quotes the results.

    python benchmarks/gate.py [--repeat 100]

It rebuilds an index of Python's docstrings again and again, with max_loss 0.02 and with 0, from a
source that did not change: each rebuild must go live. The 300 golden queries are the summaries of
documents that are indexed by their bodies. Then more and more of the documents that queries look
for lose their text.
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

sys.path.insert(0, str(Path(__file__).parents[1]))


from rag_index.core.reports.progress import RunRecord
from rag_index.core.settings import load_settings
from rag_index.etl.changed import serially
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.first_run.samples import pydocs
from rag_index.orchestration.hooks import SearchHooks

if TYPE_CHECKING:
    from rag_index.core.reports.outcome import IndexOutcome

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
                f"max_loss {max_loss:g}, nothing lost: {live} of {arguments.repeat} rebuilds went"
                f" live (recall@10 {found:.3f}, {seconds:.1f} s each)"
            )
        (folder / "rag-index.toml").write_text(SETTINGS.format(max_loss=0.02))
        for lost in (3, 6, 9, 15):
            lose(folder, names[:lost])
            outcome = run(folder)
            gate = outcome.gate
            print(
                f"max_loss 0.02, {lost} of {QUERIES} documents lost their text: recall@10"
                f" {gate.before:.3f} -> {gate.after:.3f}, {len(gate.worse)} worse, {gate.better}"
                f" better: {'went live' if gate.passed else 'stopped'}"
            )
            lose(folder, [])
            run(folder, allow_loss=True)


def write_source(folder: Path) -> list[str]:
    """Write the documents and the golden file; return the names of documents that a query finds
    among the first ten."""
    pydocs.write(folder / "pydocs.db")
    with closing(sqlite3.connect(folder / "pydocs.db")) as db, db:
        union = " UNION ".join(
            f'SELECT name, summary, body FROM "{table}"' for table in pydocs.TABLES
        )
        every = f"SELECT * FROM ({union}) WHERE length(body) >= 40 GROUP BY summary ORDER BY name"
        chosen = random.Random(1).sample(db.execute(every).fetchall(), DOCUMENTS)
        for table in ("entry", "whole"):
            db.execute(f"CREATE TABLE {table} (name TEXT PRIMARY KEY, summary TEXT, body TEXT)")
            db.executemany(f"INSERT INTO {table} VALUES (?, ?, ?)", chosen)
    asked = [(name, summary) for name, summary, _ in chosen[:QUERIES]]
    print(
        f"{DOCUMENTS:,} docstrings, indexed by their bodies; {QUERIES} of them are searched by"
        " their summaries"
    )
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
        db.execute(
            "UPDATE entry SET body = '-' WHERE name IN (SELECT value FROM json_each(?))", [lost]
        )


def run(folder: Path, *, allow_loss: bool = False) -> IndexOutcome:
    """Rebuild the index without Prefect and Dask: the steps of the flow in this process."""
    settings = load_settings(folder / "rag-index.toml")
    options, record = RunOptions(full=True, allow_loss=allow_loss), RunRecord("docstrings")
    hooks = SearchHooks(settings, settings.index("docstrings"), options)
    with (
        open_index(settings, "docstrings", options, run_id=str(uuid.uuid4())) as opened,
        closing(LocalSteps(serially(settings))) as steps,
    ):
        run_index(opened, steps, record, hooks=hooks)
    return record.outcome


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeat", type=int, default=100)
    rebuilds(parser.parse_args())


if __name__ == "__main__":
    main()
