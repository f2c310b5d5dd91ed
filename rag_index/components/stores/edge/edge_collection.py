"""One collection of the embedded store that this process alone may write: a shard folder of qdrant-edge."""

from __future__ import annotations

import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.components.stores.edge.collection_reader import OPERATION_POINTS, CollectionReader
from rag_index.components.stores.edge.folder import (
    LET_GO_SECONDS,
    UNFLUSHED,
    UNWRITTEN,
    FileLock,
    WriterLock,
    allocated_bytes,
    copy_shard,
    engine_errors,
    folder_errors,
    note_writing,
    require_space,
    write_mark,
)
from rag_index.components.stores.points import (
    check_ids,
    engine_ids,
    index_changes,
    parts,
    require_payloads,
    require_present,
    unit_vectors,
)
from rag_index.components.stores.queries import SPARSE
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, PointBatch
from rag_index.errors import StoreError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.components.stores.edge.folder import Catalog

BUILD_INDEX = """\
import sys
import qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
COPY_MARK = "~"
"""What follows the collection in the name of a copied folder. No collection's name contains it."""
FLUSH_POINTS = 20_000
"""Points written between flushes, unless the caller asks for one before; more would make the next open slow."""


def create_shard(folder: Path, dimension: int, *, sparse: bool, min_free: int) -> None:
    """Create a shard folder, which must not exist. Raises StoreError.

    There is no index on key and chunk number, as a server has: it would be in memory and grow with the points. The
    engine could do without its log, since the ledger waits for `flush`; but then a kill leaves points with the vector
    of a document's new text and the payload of its old one.

    Once the search index is built, ids and words are read from their files as they are needed. Otherwise every process
    that opens the shard would have all of them in memory.
    """
    require_space(folder.parent, min_free)
    vectors = e.EdgeVectorParams(size=dimension, distance=e.Distance.Cosine)
    cold = e.Memory.Cold
    words = {SPARSE: e.EdgeSparseVectorParams(modifier=e.Modifier.Idf, memory=cold)} if sparse else None
    config = e.EdgeConfig(vectors=vectors, sparse_vectors=words, id_tracker_memory=cold)
    with folder_errors(folder), engine_errors(folder.name, folder):
        shard = e.EdgeShard.create(str(folder), config)
        shard.flush()
        shard.close()
        (folder / UNWRITTEN).touch()


def engine_points(points: PointBatch, vectors: NDArray[np.float32] | None) -> list[e.Point]:
    """Return points with these vectors (as `unit_vectors` gives them). Raises PointsRefused for bad payloads."""
    built: list[e.Point] = []
    bad: list[tuple[str, Exception]] = []
    sparse = points.sparse.lists() if points.sparse is not None else repeat(([], []), len(points))
    # read by the engine in half the time that lists take to be made
    rows: Iterator[Any] = repeat(None, len(points)) if vectors is None else map(memoryview, vectors)
    for point_id, row, (indices, values), payload in zip(points.ids, rows, sparse, points.payloads, strict=True):
        try:
            words = {SPARSE: e.SparseVector(indices, values)} if indices else {}
            vector: Any = words if row is None else {"": row, **words} if words else row
            built.append(e.Point(point_id, vector, payload))
        except (TypeError, ValueError, OverflowError) as exc:
            bad.append((point_id, exc))
    require_payloads(bad)
    return built


class EdgeCollection(CollectionReader):
    """The points of one collection. Safe to use from several threads; raises the errors of the Store protocol.

    A folder is never written while a reader has a view of it, which is a shared lock on it. Without readers, this
    changes the folder in place, and keeps readers away from the first write until the next flush. Otherwise it changes
    a copy, which takes the folder's place when this is closed. The catalog always names the folder with all writes.

    `discard` deletes a folder that no process needs by its name any more.
    """

    def __init__(
        self, name: str, catalog: Catalog, lock: WriterLock, *, min_free: int, discard: Callable[[Path], None]
    ) -> None:
        entry = catalog.entry(name)
        super().__init__(name, catalog.folder(entry.newest), entry.dimension, sparse=entry.sparse)
        self._catalog, self._writer_lock = catalog, lock
        self._min_free, self._discard = min_free, discard
        self._copied = bool(entry.writing)
        """Whether the folder is a copy, perhaps of a writer that was killed, which no reader can have."""
        self._whole = False
        """Whether the folder could be loaded, or copied."""
        self._in_place = FileLock(self._folder)
        """Held from the first write in place until the next flush."""
        self._unflushed = 0

    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        with self._open() as shard:
            there = {path: info.data_type for path, info in shard.info().payload_schema.items()}
        change = e.UpdateOperation
        for path, kind in index_changes(fields, there, lambda kind: getattr(e.PayloadSchemaType, kind.capitalize())):
            self._write([(change.create_field_index(path, kind) if kind else change.delete_field_index(path), 0)])
        self.flush()

    def upsert(self, points: PointBatch) -> None:
        vectors = unit_vectors(points, self.dimension, self.name, sparse=self.sparse)
        batches, space = parts(engine_points(points, vectors), OPERATION_POINTS), 3 * getattr(vectors, "nbytes", 0)
        self._write([(e.UpdateOperation.upsert_points(list(some)), len(some)) for some in batches], space)

    def update_payloads(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        check_ids([point_id for point_id, _ in payloads])
        operations: list[tuple[str, e.UpdateOperation]] = []
        for point_id, payload in payloads:
            try:
                operations.append((point_id, e.UpdateOperation.overwrite_payload([point_id], payload)))
            except (TypeError, ValueError, OverflowError) as exc:
                require_payloads([(point_id, exc)])
        missing: list[str] = []
        for some in parts(operations, OPERATION_POINTS):
            require_space(self._folder.parent, self._min_free)
            with self._open_to_write(len(some)) as shard:
                for point_id, operation in some:
                    try:
                        shard.update(operation)
                    except Exception as exc:
                        if not str(exc).startswith("No point with id"):
                            raise
                        missing.append(point_id)
        require_present(missing, self.name)

    def delete_points(self, ids: Sequence[str]) -> None:
        batches = parts(engine_ids(ids), OPERATION_POINTS)
        self._write([(e.UpdateOperation.delete_points(list(some)), len(some)) for some in batches])

    def delete_chunks(self, first: Mapping[str, int]) -> None:
        found: list[str] = []  # all are found first, in one pass: without an index, every filter reads every payload
        for which in self._key_filters(list(first)):
            for point in self._scroll(which, vectors=False, page=1000):
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= first[ours["key"]]:
                    found.append(point.id)
        self.delete_points(found)

    def set_commit_mark(self, mark: CommitMark) -> None:
        with self._lock, folder_errors(self._folder):
            self._check_open()
            write_mark(self._folder, mark)

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def optimize(self) -> None:
        """Build the search index in a child process, which keeps the collection locked as long as it runs. It builds in
        a copy, so that other processes can search meanwhile. The shard is closed in this process, and other calls on
        this collection wait. Raises StoreError if the child fails."""
        with self._lock:
            self._check_open()
            self._close_shard()
            if not self._copied:
                self._move_to_copy()
            require_space(self._folder.parent, self._min_free + 2 * allocated_bytes(self._folder))
            command = [sys.executable, "-P", "-c", BUILD_INDEX, str(self._folder)]
            inherited = [self._writer_lock.descriptor]
            child = subprocess.run(
                command, capture_output=True, text=True, errors="replace", pass_fds=inherited, check=False
            )
            if child.returncode:
                reason = (child.stderr.strip().splitlines() or [f"ended by signal {-child.returncode}"])[-1]
                raise StoreError(
                    f"the search index of {self.name} was not built ({reason}), and searches work without it: "
                    "check free memory and disk space, then run `rag-index` again"
                )
            self._let_readers_in()

    def complete(self) -> None:
        """Complete what a killed writer wrote: loading the shard repeats what its log has. Raises StoreError."""
        with self._open_to_write():
            pass

    def close(self) -> None:
        """Flush and close the shard, and let readers have what was written."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._close_shard()
                self._hand_over()
            finally:
                self._release()

    def hand_over(self) -> None:
        """Let readers have what was written, while the shard stays open."""
        with self._lock:
            self._check_open()
            self._flush()
            self._hand_over()

    def _hand_over(self) -> None:
        if self._copied and self._whole:  # the copy takes the folder's place
            old = self._catalog.entry(self.name).folder
            self._catalog.set_folders(self.name, folder=self._folder.name, writing="")
            self._copied, self._in_place = False, FileLock(self._folder)
            self._discard(self._catalog.folder(old))

    def abandon(self) -> None:
        """Close the shard of a collection that the catalog no longer has, or that cannot be loaded."""
        with self._lock:
            self._closed = True
            try:
                super()._close_shard()
            finally:
                self._release()

    def _release(self) -> None:
        self._in_place.release()
        self._writer_lock.release()

    def _write(self, operations: Sequence[tuple[e.UpdateOperation, int]], space: int = 0) -> None:
        for operation, points in operations:
            require_space(self._folder.parent, self._min_free + space)
            with self._open_to_write(points) as shard:
                shard.update(operation)

    @contextmanager
    def _open_to_write(self, points: int = 0) -> Iterator[e.EdgeShard]:
        """Open the shard in a folder that no other process searches. Work under way in this process has ended."""
        with self._lock, engine_errors(self.name, self._folder):
            self._claim()
            yield self._loaded()
            self._unflushed += points
            if self._unflushed >= FLUSH_POINTS:
                self._flush()

    def _loaded(self) -> e.EdgeShard:
        shard = super()._loaded()
        self._whole = True
        return shard

    def _claim(self) -> None:
        if self._copied or self._in_place.held:
            return
        self._writer_lock.touch()
        if self._in_place.take(wait=LET_GO_SECONDS):
            note_writing(self._folder)
        else:
            self._close_shard()
            self._move_to_copy()

    def _move_to_copy(self) -> None:
        """Copy the folder, whose shard is closed; the copy is written from now on. Raises StoreError if the disk has no
        room for it."""
        source = self._folder
        target = self._catalog.folder(f"{self.name}{COPY_MARK}{uuid.uuid4().hex[:8]}")
        with folder_errors(source):
            require_space(source.parent, self._min_free + allocated_bytes(source))
            try:
                copy_shard(source, target)
                note_writing(target)
                self._catalog.set_folders(self.name, folder=source.name, writing=target.name)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
        self._folder, self._copied, self._whole = target, True, True

    def _flush(self) -> None:
        if self._shard is not None:
            with engine_errors(self.name, self._folder):
                self._shard.flush()
            self._let_readers_in()

    def _close_shard(self) -> None:
        if self._shard is not None:
            super()._close_shard()
            self._let_readers_in()

    def _let_readers_in(self) -> None:
        """Let readers have views of the folder: all that was written is flushed."""
        self._unflushed = 0
        with folder_errors(self._folder):
            (self._folder / UNFLUSHED).unlink(missing_ok=True)
        self._in_place.release()
