"""What an erasure costs, by the number of points: seconds and bytes.

    python benchmarks/erasing.py 10000 100000 python benchmarks/erasing.py 10000 100000 --server
    http://127.0.0.1:6333 --folder /var/lib/qdrant

Points are made up (256 dimensions, texts of about 300 characters), since an erasure does not embed.
One in a hundred is changed before it. Bytes are those of the store's files: before, while both
collections are there, and after.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path

from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.components.stores import open_store
from rag_index.core.settings import load_settings, run_settings
from rag_index.etl.erase import erase
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.launch import run_locally

SETTINGS = """\
project = "erasing{points}"
[source]
url = "sqlite:///source.db"
[store]
{store}
[[indexes]]
name = "notes"
table = "note"
key = "id"
text = ["body"]
"""
WORDS = [
    "printer",
    "network",
    "password",
    "invoice",
    "keyboard",
    "server",
    "monitor",
    "license",
    "update",
    "account",
]


def bytes_of(folder: Path) -> int:
    """Return the room that the files of a folder take on the disk."""
    files = (Path(place, name) for place, _, names in os.walk(folder) for name in names)
    return sum(path.stat().st_blocks * 512 for path in files if path.exists())


def measure(points: int, server: str | None, folder: Path | None) -> str:
    """Index so many points, change one in a hundred, and return a line about an erasure."""
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        config = here / "rag-index.toml"
        config.write_text(
            SETTINGS.format(points=points, store=f'url = "{server}"' if server else "")
        )
        with closing(sqlite3.connect(here / "source.db")) as db, db:
            db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT)")
            words = (" ".join(WORDS[(i * k) % 10] for k in range(40)) for i in range(points))
            db.executemany(
                "INSERT INTO note VALUES (?, ?)",
                ((i, f"{text} {i}") for i, text in enumerate(words)),
            )
        settings = run_settings(config, serial=True)
        run_locally(settings, settings.indexes, RunOptions())
        with closing(sqlite3.connect(here / "source.db")) as db, db:
            db.execute("UPDATE note SET body = body || ' changed' WHERE id % 100 = 0")
        run_locally(settings, settings.indexes, RunOptions())
        settings = load_settings(config)
        files = folder or settings.store.path
        before, began, used = bytes_of(files), time.perf_counter(), time.process_time()
        with (
            closing(Ledger(settings.ledger_url)) as ledger,
            IndexLease(ledger, settings.alias("notes"), "erasing") as lease,
            closing(open_store(settings.store)) as store,
        ):
            erased = erase(settings, settings.index("notes"), ledger, store, lease)
        seconds, processor, after = (
            time.perf_counter() - began,
            time.process_time() - used,
            bytes_of(files),
        )
        with closing(open_store(settings.store)) as store:
            for collection in store.collections():
                if collection.startswith(settings.alias("notes")):
                    store.drop(collection)
    assert erased is not None
    return (
        f"{erased.points:>9,} points, {erased.documents:>6,} changed: {seconds:6.1f} s"
        f" ({processor:6.1f} s of this process), {before / 1e6:8.1f} MB before, {after / 1e6:8.1f}"
        " MB after"
    )


def main() -> None:
    """Print a line for each number of points."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("points", type=int, nargs="+")
    parser.add_argument("--server", metavar="URL")
    parser.add_argument("--folder", type=Path, help="the server's storage, for its bytes")
    given = parser.parse_args()
    for points in given.points:
        print(measure(points, given.server, given.folder), flush=True)


if __name__ == "__main__":
    main()
