"""One collection of the embedded store that this process may write: a shard folder of qdrant-edge.

The first write claims the folder. If another process searches it, that write goes to a copy (`WriteClaim`).
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.documents.batches import RESERVED_KEY
from rag_index.errors import RagIndexError, StoreBusy, StoreError
from rag_index.stores import SPARSE
from rag_index.stores.conditions import index_changes
from rag_index.stores.edge.collection_reader import BATCH_POINTS, CollectionReader, engine_points, key_conditions
from rag_index.stores.edge.folder import engine_errors, folder_errors, require_space
from rag_index.stores.edge.shard_files import allocated_bytes, write_mark
from rag_index.stores.points import check_ids, engine_ids, require_payloads, require_present, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.commits import CommitMark
    from rag_index.stores.edge.shard_files import WriteClaim

BUILD_INDEX = """\
import sys
import qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
PAUSE_SECONDS = 1.0
"""How long a pause waits for a call that is under way."""
FLUSH_POINTS = 10_000
"""Points written between flushes; more would make the next open slow."""


def build_index(folder: Path, name: str, *, inherit: int) -> None:
    """Build the search index of a shard that is closed. The child inherits the file descriptor `inherit`.

    Raises StoreError if the child fails.
    """
    command = [sys.executable, "-P", "-c", BUILD_INDEX, str(folder)]
    child = subprocess.run(command, capture_output=True, text=True, errors="replace", pass_fds=[inherit], check=False)
    if child.returncode:
        reason = (child.stderr.strip().splitlines() or [f"ended by signal {-child.returncode}"])[-1]
        raise StoreError(
            f"the search index of {name} was not built ({reason}), and searches work without it: "
            "check free memory and disk space, then run `rag-index` again"
        )


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
    with engine_errors(folder.name, folder):
        shard = e.EdgeShard.create(str(folder), config)
        shard.flush()
        shard.close()


class EdgeCollection(CollectionReader):
    """The points of one collection. Safe to use from several threads; raises the errors of the Store protocol."""

    def __init__(self, name: str, claim: WriteClaim, dimension: int, *, min_free: int, sparse: bool = False) -> None:
        super().__init__(name, claim.folder, dimension, sparse=sparse)
        self._claim = claim
        self._min_free = min_free
        self._unflushed = 0
        self.lost = ""
        """Why nothing may be written any more."""

    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes; None removes one. One of the same kind is kept, one of another kind is replaced."""
        with self._open() as shard:
            there = {path: info.data_type for path, info in shard.info().payload_schema.items()}
        change = e.UpdateOperation
        for path, kind in index_changes(fields, there, lambda kind: getattr(e.PayloadSchemaType, kind.capitalize())):
            self._write([(change.create_field_index(path, kind) if kind else change.delete_field_index(path), 0)])
        self.flush()

    def upsert(self, points: PointBatch) -> None:
        """Write points. All are checked and converted before the first reaches the engine."""
        vectors = unit_vectors(points, self.dimension, self.name, sparse=self.sparse)
        built = engine_points(points, vectors)
        batches = [built[start : start + BATCH_POINTS] for start in range(0, len(built), BATCH_POINTS)]
        self._write([(e.UpdateOperation.upsert_points(batch), len(batch)) for batch in batches], vectors.nbytes * 3)

    def update_payloads(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace payloads. Raises StoreMismatch for ids that do not exist, once all others are written."""
        check_ids([point_id for point_id, _ in payloads])
        operations: list[tuple[str, e.UpdateOperation]] = []
        for point_id, payload in payloads:
            try:
                operations.append((point_id, e.UpdateOperation.overwrite_payload([point_id], payload)))
            except (TypeError, ValueError, OverflowError) as exc:
                require_payloads([(point_id, exc)])
        missing: list[str] = []
        for start in range(0, len(operations), BATCH_POINTS):
            require_space(self._folder, self._min_free)
            with self._open_to_write() as shard:
                for point_id, operation in operations[start : start + BATCH_POINTS]:
                    try:
                        shard.update(operation)
                    except Exception as exc:
                        if not str(exc).startswith("No point with id"):
                            raise
                        missing.append(point_id)
                self._flush_if_due(shard, BATCH_POINTS)
        require_present(missing, self.name)

    def delete_points(self, ids: Sequence[str]) -> None:
        """Delete points by id."""
        found = engine_ids(ids)
        starts = range(0, len(found), BATCH_POINTS)
        batches: list[list[e.PointId]] = [list(found[start : start + BATCH_POINTS]) for start in starts]
        self._write([(e.UpdateOperation.delete_points(batch), len(batch)) for batch in batches])

    def delete_chunks(self, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on.

        All of them are found first, in one pass: without an index, every filter reads every payload.
        """
        found: list[str] = []
        for condition in key_conditions(list(first)):
            for point in self._scroll(e.Filter(must=[condition]), vectors=False, page=1000):
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= first[ours["key"]]:
                    found.append(point.id)
        self.delete_points(found)

    def set_commit_mark(self, mark: CommitMark) -> None:
        """Write the mark into the folder with all writes."""
        with self._lock, folder_errors(self._folder):
            self._check_open()
            write_mark(self._folder, mark)

    def flush(self) -> None:
        """Write everything to disk, so that it survives a power cut."""
        with self._lock:
            if self._shard is not None and not self._closed:
                with engine_errors(self.name, self._folder):
                    self._shard.flush()
                self._unflushed = 0

    def optimize(self, *, inherit: int) -> None:
        """Build the search index in a child process, which inherits the file descriptor `inherit`.

        It builds in a copy, so that other processes can search meanwhile. The shard is closed in this process, and
        other calls on this collection wait.
        """
        with self._lock:
            self._check_open()
            self._close_shard()
            if self._claim.in_place:
                self._claim.publish()
            if not self._claim.held:
                self._move_to_copy()
            require_space(self._folder, self._min_free + 2 * allocated_bytes(self._folder))
            build_index(self._folder, self.name, inherit=inherit)

    def prepare(self) -> None:
        """Copy a folder that readers have a view of before it is loaded: a batch writes, and else loads it twice."""
        with self._lock:
            if self._claim.viewed:
                self._move_to_copy()

    def complete(self) -> None:
        """Complete what a killed writer wrote: loading the shard repeats what its log has. Raises StoreError."""
        with self._open_to_write() as shard:
            shard.flush()

    def let_readers_in(self) -> None:
        """Let readers have the folder if it is written in place; if they take it, the next write goes to a copy."""
        with self._lock:
            self._end_in_place()

    @contextmanager
    def paused(self) -> Iterator[bool]:
        """Keep all calls waiting for the time of the block. Yield False if that is not possible now.

        A folder that is written in place is given back. A copy stays claimed: only this process knows that it is made.
        """
        if not self._lock.acquire(timeout=PAUSE_SECONDS):
            yield False
            return
        try:
            self._end_in_place()
            yield not self._claim.in_place
        finally:
            self._lock.release()

    def _end_in_place(self) -> None:
        if self._closed or not self._claim.in_place:
            return
        with suppress(RagIndexError), engine_errors(self.name, self._folder):
            self._loaded().flush()
            self._unflushed = 0
            self._claim.publish()

    def close(self) -> None:
        """Flush and close the shard, and let readers have what was written."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._close_shard()
                self._claim.publish()
            finally:
                self._claim.release()

    def abandon(self) -> None:
        """Close the shard of a collection that the catalog no longer has, or whose folder is `lost`."""
        with self._lock:
            self._closed = True
            try:
                self._close_shard()
            finally:
                self._claim.release()

    def _check_open(self) -> None:
        if self.lost:
            raise StoreBusy(self.lost)
        super()._check_open()

    @contextmanager
    def _open_to_write(self) -> Iterator[e.EdgeShard]:
        """Open the shard in a folder that no other process searches. Work under way in this process has ended."""
        with self._lock, engine_errors(self.name, self._folder):
            shard = self._loaded()
            if not (self._claim.held or self._claim.take_in_place()):
                self._close_shard()
                self._move_to_copy()
                shard = self._loaded()
            yield shard

    def _move_to_copy(self) -> None:
        self._claim.move_to_copy()
        self._folder = self._claim.folder

    def _write(self, operations: Sequence[tuple[e.UpdateOperation, int]], space: int = 0) -> None:
        for operation, points in operations:
            require_space(self._folder, self._min_free + space)
            with self._open_to_write() as shard:
                shard.update(operation)
                self._flush_if_due(shard, points)

    def _flush_if_due(self, shard: e.EdgeShard, points: int) -> None:
        self._unflushed += points
        if self._unflushed >= FLUSH_POINTS:
            shard.flush()
            self._unflushed = 0
