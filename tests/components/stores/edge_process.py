"""Points for tests of the embedded store, and another process that uses it."""

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch

DIMENSION = 4
WIDE = 256
"""With a thousand vectors of this dimension the engine's large files are large enough to be
linked."""

PROCESS = """
import sys
from pathlib import Path
from rag_index.components.stores.edge.reader import EdgeReader
from rag_index.components.stores.edge.store import EdgeStore
from tests.components.stores.edge_process import WIDE, points
{before}
store = EdgeStore(Path(sys.argv[1]))
"""


class Process:
    """Another Python process that has the store open; `says` waits for its next line."""

    def __init__(self, path: Path, code: str, before: str = "") -> None:
        arguments = [sys.executable, "-c", PROCESS.format(before=before) + code, str(path)]
        self.popen = subprocess.Popen(
            arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self.popen.pid

    def says(self) -> str:
        return self.popen.stdout.readline().strip()

    def goes_on(self) -> None:
        self.popen.stdin.write("\n")
        self.popen.stdin.flush()

    def kill(self) -> str:
        """Kill with SIGKILL, and return the output that nobody has read yet."""
        if self.popen.stdout.closed:
            return ""
        self.popen.kill()
        rest = (
            self.popen.stdout.read()
        )  # communicate() would lose lines that a readline() has buffered
        self.popen.communicate()
        return rest


@contextmanager
def writer(path: Path, code: str, before: str = "") -> Iterator[Process]:
    """Yield a process that runs this code with `store`, and `before` without; kill it at the
    end."""
    process = Process(path, code, before)
    try:
        yield process
    finally:
        process.kill()


def points(rows: range, dimension: int = DIMENSION) -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in rows]
    vectors = (
        np.random.default_rng(rows.start).normal(size=(len(rows), dimension)).astype(np.float32)
    )
    return PointBatch(
        ids, vectors, [{RESERVED_KEY: {"key": str(n), "chunk": 0}, "n": n} for n in rows]
    )


def fill(path: Path, count: int = 1000, dimension: int = WIDE) -> None:
    """Make a collection of the points from 3 to `count`, live as `live`."""
    with closing(EdgeStore(path)) as store:
        store.create("c", dimension, {})
        store.points("c").upsert(points(range(count), dimension))
        store.points("c").delete_points(points(range(3)).ids)
        store.point_alias("live", "c")


def numbers(store) -> set[int]:
    return {point.payload["n"] for point in store.points("live").scroll()}
