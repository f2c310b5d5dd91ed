"""One collection of the embedded store: a shard folder of qdrant-edge, opened when first needed.

Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of 768 dimensions). So
work is split into short calls, made one at a time under the collection's own lock, and other threads run in between.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import qdrant_edge as e

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.errors import PointsRefused, RagIndexError, StoreError, StoreMismatch
from rag_index.stores import SPARSE
from rag_index.stores.conditions import payload_filter, payload_path, unquoted
from rag_index.stores.edge.errors import store_error
from rag_index.stores.edge.filter import EdgeDialect
from rag_index.stores.edge.folder import require_space
from rag_index.stores.edge.payload_index import payload_kind
from rag_index.stores.edge.points import engine_points, engine_sparse
from rag_index.stores.edge.search_index import build_index
from rag_index.stores.hybrid import LookUp, hybrid_points
from rag_index.stores.points import SEARCH_EF, check_ids, engine_ids, stored_point, unit_query, unit_vectors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.sparse import SparseVector
    from rag_index.stores import Condition

__all__ = ["EdgeCollection"]

BATCH_POINTS = 500
"""Points per call of the engine, which bounds how long other threads stand still."""
KEYS_PER_FILTER = 10_000
FLUSH_POINTS = 10_000
"""Points written between flushes; more would make the next open slow."""
MAX_SCANNED_KB = 10_000
"""Vectors up to this size are scanned without a search index (the engine's own threshold)."""


class EdgeCollection:
    """The points of one collection. Safe to use from several threads; raises the errors of the Store protocol."""

    def __init__(self, name: str, folder: Path, dimension: int, *, min_free: int, sparse: bool = False) -> None:
        self.name = name
        self.dimension = dimension
        self.sparse = sparse
        self._folder = folder
        self._min_free = min_free
        self._lock = threading.Lock()
        self._shard: e.EdgeShard | None = None
        self._unflushed = 0
        self._closed = False

    def create(self) -> None:
        """Create the folder, which must not exist.

        There is no index on key and chunk number, as a server has: it would be in memory and grow with the points.
        """
        require_space(self._folder.parent, self._min_free)
        vectors = e.EdgeVectorParams(size=self.dimension, distance=e.Distance.Cosine)
        sparse = {SPARSE: e.EdgeSparseVectorParams(modifier=e.Modifier.Idf)} if self.sparse else None
        with self._lock, self._engine_errors():
            self._shard = e.EdgeShard.create(str(self._folder), e.EdgeConfig(vectors=vectors, sparse_vectors=sparse))
            self._shard.flush()

    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes; None removes one. One of the same kind is kept, one of another kind is replaced."""
        kinds = {payload_path(field): payload_kind(field, kind) if kind else None for field, kind in fields.items()}
        with self._open() as shard:
            existing = {unquoted(field): info.data_type for field, info in shard.info().payload_schema.items()}
        for field, kind in kinds.items():
            before = existing.get(unquoted(field))
            if before is not None and before != kind:
                self._write([(e.UpdateOperation.delete_field_index(field), 0)])
            if kind is not None and before != kind:
                self._write([(e.UpdateOperation.create_field_index(field, kind), 0)])
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
                raise PointsRefused(f"payload of point {point_id} cannot be stored: {exc}", (point_id,)) from exc
        missing: list[str] = []
        for start in range(0, len(operations), BATCH_POINTS):
            require_space(self._folder, self._min_free)
            with self._open() as shard:
                for point_id, operation in operations[start : start + BATCH_POINTS]:
                    try:
                        shard.update(operation)
                    except Exception as exc:
                        if not str(exc).startswith("No point with id"):
                            raise
                        missing.append(point_id)
                self._flush_if_due(shard, BATCH_POINTS)
        if missing:
            raise StoreMismatch(
                f"{len(missing)} points that should be in {self.name} are missing, the first is {missing[0]}: "
                "run `rag-index doctor`"
            )

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
        for condition in _key_conditions(list(first)):
            for point in self._scroll(e.Filter(must=[condition]), vectors=False, page=1000):
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= first[ours["key"]]:
                    found.append(point.id)
        self.delete_points(found)

    def flush(self) -> None:
        """Write everything to disk, so that it survives a power cut."""
        with self._lock:
            if self._shard is not None and not self._closed:
                with self._engine_errors():
                    self._shard.flush()
                self._unflushed = 0

    def count(self, keys: Sequence[str] | None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            with self._open() as shard:
                return int(shard.count(e.CountRequest(exact=True)))
        total = 0
        for condition in _key_conditions(keys):
            with self._open() as shard:
                total += int(shard.count(e.CountRequest(exact=True, filter=e.Filter(must=[condition]))))
        return total

    def count_sparse(self) -> int:
        """Return the exact number of points that have a sparse vector."""
        if not self.sparse:
            return 0
        with self._open() as shard:
            return int(shard.count(e.CountRequest(exact=True, filter=e.Filter(must=[e.HasVectorCondition(SPARSE)]))))

    def retrieve(self, ids: Sequence[str], *, vectors: bool, conditions: Sequence[Condition] = ()) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        check_ids(ids)
        found: list[StoredPoint] = []
        for start in range(0, len(ids), BATCH_POINTS):
            some = ids[start : start + BATCH_POINTS]
            if conditions:
                found += self._scroll(_conditions_filter(conditions, some), vectors=vectors, page=len(some))
                continue
            with self._open() as shard:
                found += map(stored_point, shard.retrieve(list(some), True, vectors))
        return found

    def scroll(self, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        """Return all points in order of their id."""
        return self._scroll(None, vectors=vectors, page=page)

    def _scroll(self, which: e.Filter | None, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        offset: e.PointId | None = None
        while True:
            request = e.ScrollRequest(offset=offset, limit=page, filter=which, with_payload=True, with_vector=vectors)
            with self._open() as shard:
                records, offset = shard.scroll(request)
            yield from map(stored_point, records)
            if offset is None:
                return

    def search(
        self, vector: NDArray[np.float32], *, limit: int, conditions: Sequence[Condition], exact: bool
    ) -> list[StoredPoint]:
        """Return the nearest points, best first."""
        query = e.Query.Nearest(unit_query(vector, self.dimension, self.name))
        return self._query(query, limit, _conditions_filter(conditions), exact=exact)

    def search_hybrid(
        self,
        vector: NDArray[np.float32],
        sparse: SparseVector,
        *,
        limit: int,
        conditions: Sequence[Condition],
        exact: bool,
    ) -> list[StoredPoint]:
        """Return the best points by either vector, with both scores."""
        if not (self.sparse and sparse):
            return self.search(vector, limit=limit, conditions=conditions, exact=exact)
        near = e.Query.Nearest(unit_query(vector, self.dimension, self.name))
        words = e.Query.Nearest(engine_sparse(sparse), using=SPARSE)
        query_filter = _conditions_filter(conditions)

        def look_up(wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
            return [
                self._query(
                    words if one.sparse else near,
                    one.limit,
                    e.Filter(must=[e.HasIdCondition(set(one.ids))]) if one.ids else query_filter,
                    exact=exact or bool(one.ids),
                    payload=not one.ids,
                )
                for one in wanted
            ]

        return hybrid_points(look_up, limit)

    def _query(
        self, query: e.Query, limit: int, query_filter: e.Filter | None, *, exact: bool, payload: bool = True
    ) -> list[StoredPoint]:
        request = e.QueryRequest(
            limit=limit,
            query=query,
            filter=query_filter,
            params=e.SearchParams(hnsw_ef=SEARCH_EF, exact=exact),
            with_payload=payload,
        )
        with self._open() as shard:
            return [stored_point(point, point.score) for point in shard.query(request)]

    def indexed(self) -> bool:
        """Return False if more vectors lack a search index than a search should scan."""
        with self._open() as shard:
            info = shard.info()
        indexed = info.indexed_vectors_count - self.count_sparse()  # sparse vectors are always indexed
        unindexed = max(0, info.points_count - indexed)
        return bool(unindexed * self.dimension * 4 <= MAX_SCANNED_KB * 1024)

    def optimize(self, *, inherit: int) -> None:
        """Build the search index in a child process, which inherits the file descriptor `inherit`.

        The shard is closed in this process meanwhile, and other calls on this collection wait.
        """
        with self._lock:
            self._check_open()
            self._close_shard()
            size = sum(file.stat().st_blocks * 512 for file in self._folder.rglob("*") if file.is_file())
            require_space(self._folder, self._min_free + 2 * size)
            build_index(self._folder, self.name, inherit=inherit)

    def close(self) -> None:
        """Flush and close the shard."""
        with self._lock:
            self._closed = True
            self._close_shard()

    @contextmanager
    def _open(self) -> Iterator[e.EdgeShard]:
        with self._lock, self._engine_errors():
            self._check_open()
            if self._shard is None:
                self._shard = e.EdgeShard.load(str(self._folder))
            yield self._shard

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"collection {self.name} was closed or dropped")

    def _close_shard(self) -> None:
        shard, self._shard, self._unflushed = self._shard, None, 0
        if shard is not None:
            with self._engine_errors():
                shard.flush()
                shard.close()

    def _write(self, operations: Sequence[tuple[e.UpdateOperation, int]], space: int = 0) -> None:
        for operation, points in operations:
            require_space(self._folder, self._min_free + space)
            with self._open() as shard:
                shard.update(operation)
                self._flush_if_due(shard, points)

    def _flush_if_due(self, shard: e.EdgeShard, points: int) -> None:
        self._unflushed += points
        if self._unflushed >= FLUSH_POINTS:
            shard.flush()
            self._unflushed = 0

    @contextmanager
    def _engine_errors(self) -> Iterator[None]:
        """Turn the engine's bare exceptions and panics into errors of ours."""
        try:
            yield
        except RagIndexError:
            raise
        except BaseException as exc:
            if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
                raise
            raise store_error(str(exc), self.name, self._folder) from exc


def _key_conditions(keys: Sequence[str]) -> list[e.FieldCondition]:
    """Return conditions that together name each key once."""
    unique = list(dict.fromkeys(keys))
    starts = range(0, len(unique), KEYS_PER_FILTER)
    field = f"{RESERVED_KEY}.key"
    return [e.FieldCondition(field, match=e.MatchAny(unique[start : start + KEYS_PER_FILTER])) for start in starts]


def _conditions_filter(conditions: Sequence[Condition], ids: Sequence[str] = ()) -> e.Filter | None:
    """Return a filter for points that meet all conditions, of these ids if there are any."""
    found = cast("e.Filter | None", payload_filter(conditions, EdgeDialect()))
    if not ids or found is None:
        return found
    return e.Filter(must=[e.HasIdCondition(set(ids)), found])
