"""Searching an embedded store while another process writes it. README.md quotes the results.

    python benchmarks/together.py [--points 100000] [--dimension 256] [--changed 1000] [--folder
    DIR]

Prints what a view costs, how long searches take alone, beside a writing process, and in a process
that writes itself, and how soon a search finds what was written.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from rag_index.components.stores.edge.folder import allocated_bytes
from rag_index.components.stores.edge.reader import EdgeReader
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = "bench"
TEXT = "The printer on floor two is offline since the last update of its driver. " * 4
BATCH = 5000


def points(rows: range, dimension: int, note: str = "") -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in rows]
    vectors = (
        np.random.default_rng(rows.start).normal(size=(len(rows), dimension)).astype(np.float32)
    )
    ours = [{"key": str(n), "document_id": str(n), "chunk": 0, "text": TEXT} for n in rows]
    return PointBatch(ids, vectors, [{RESERVED_KEY: own, "note": note} for own in ours])


def write(store: EdgeStore, count: int, dimension: int, note: str = "") -> float:
    """Write points in batches; return how long the first one took."""
    first = 0.0
    for start in range(0, count, BATCH):
        batch = points(range(start, min(start + BATCH, count)), dimension, note)
        began = time.perf_counter()
        store.points(NAME).upsert(batch)
        first = first or time.perf_counter() - began
    return first


class Searches:
    """A thread that searches again and again, and how long each search took, in milliseconds."""

    def __init__(self, store: EdgeReader | EdgeStore, dimension: int) -> None:
        self._store, self._queries = (
            store,
            np.random.default_rng(1).normal(size=(100, dimension)).astype(np.float32),
        )
        self._stop = threading.Event()
        self.took: list[float] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Searches:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(0.02):
            began = time.perf_counter()
            self._store.points(NAME).search(VectorQuery(self._queries[len(self.took) % 100], 10))
            self.took.append(1000 * (time.perf_counter() - began))


def say(what: str, took: Sequence[float]) -> None:
    p50, p95 = np.percentile(took, [50, 95])
    print(
        f"searches {what:34} p50 {p50:6.1f} ms, p95 {p95:6.1f} ms, slowest {max(took):6.0f} ms"
        f" ({len(took):,})"
    )


def write_elsewhere(path: Path, count: int, dimension: int, said: Any, asked: Any) -> None:
    """Change points of the store, as the process of a run does."""
    with closing(EdgeStore(path)) as store:
        said.put(write(store, count, dimension, "changed"))
        asked.get()
    said.put(time.time())


def measure(path: Path, total: int, dimension: int, changed: int) -> None:
    with closing(EdgeStore(path)) as store:
        store.create(NAME, dimension, {})
        write(store, total, dimension)
    size = allocated_bytes(path / "collections")
    print(
        f"{total:,} points of {dimension} dimensions, {size / 1e6:,.0f} MB on disk,"
        f" {psutil.cpu_count()} processors"
    )
    with closing(EdgeReader(path)) as reader:
        began = time.perf_counter()
        reader.points(NAME).count()
        view = sum(
            f.stat().st_blocks * 512
            for f in (path / "readers").rglob("*")
            if f.stat().st_nlink == 1
        )
        print(f"a view: {time.perf_counter() - began:.2f} s, {view / 1e6:.1f} MB of its own")
        with Searches(reader, dimension) as alone:
            time.sleep(5)
        say("alone", alone.took)
        before = private_megabytes()
        beside(path, reader, dimension, changed)
        print(
            f"private memory of the process that searches: {before:.0f} MB before,"
            f" {private_megabytes():.0f} MB after"
        )
    with closing(EdgeStore(path)) as store, Searches(store, dimension) as within:
        began = time.perf_counter()
        while time.perf_counter() - began < 5:
            write(store, BATCH, dimension, "again")
    say("in the process that writes", within.took)


def beside(path: Path, reader: EdgeReader, dimension: int, changed: int) -> None:
    """Search while another process changes points, and wait until they are found."""
    context = multiprocessing.get_context("spawn")
    said, asked = context.Queue(), context.Queue()
    process = context.Process(target=write_elsewhere, args=(path, changed, dimension, said, asked))
    with Searches(reader, dimension) as searches:
        process.start()
        first = said.get()
        most = allocated_bytes(path / "collections")
        time.sleep(1)
        asked.put("close")
        closed = said.get()
        ids = points(range(1), dimension).ids
        while reader.points(NAME).retrieve(ids)[0].payload["note"] != "changed":
            time.sleep(0.005)
        found = time.time() - closed
    process.join()
    say("beside a process that writes", searches.took)
    print(f"the first write, with its copy: {first:.2f} s, {most / 1e6:,.0f} MB on disk")
    print(f"a search finds what was written {found:.2f} s after the end")
    time.sleep(1)
    print(f"then {allocated_bytes(path / 'collections') / 1e6:,.0f} MB on disk")


def private_megabytes() -> float:
    return float(psutil.Process().memory_full_info().uss / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=256)
    parser.add_argument("--changed", type=int, default=1000)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        measure(Path(folder) / "store", given.points, given.dimension, given.changed)


if __name__ == "__main__":
    main()
