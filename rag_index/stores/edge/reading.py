"""What can be read of one collection of the embedded store: a shard folder of qdrant-edge, opened when first needed.

Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of 768 dimensions). So
work is split into short calls, made one at a time under the collection's own lock, and other threads run in between.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import qdrant_edge as e

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.errors import StoreError
from rag_index.stores import SPARSE
from rag_index.stores.conditions import payload_filter
from rag_index.stores.edge.errors import engine_errors
from rag_index.stores.edge.filter import EdgeDialect
from rag_index.stores.edge.points import engine_sparse
from rag_index.stores.hybrid import LookUp, hybrid_points
from rag_index.stores.points import SEARCH_EF, check_ids, stored_point, unit_query

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.vectors import SparseVector
    from rag_index.stores import Condition

BATCH_POINTS = 500
"""Points per call of the engine, which bounds how long other threads stand still."""
KEYS_PER_FILTER = 10_000
MAX_SCANNED_KB = 10_000
"""Vectors up to this size are scanned without a search index (the engine's own threshold)."""


class CollectionReader:
    """The points of one shard folder. Safe to use from several threads; raises the errors of the Store protocol."""

    def __init__(self, name: str, folder: Path, dimension: int, *, sparse: bool = False) -> None:
        self.name = name
        self.dimension = dimension
        self.sparse = sparse
        self._folder = folder
        self._lock = threading.Lock()
        self._shard: e.EdgeShard | None = None
        self._closed = False

    def load(self) -> None:
        """Open the shard now, so that no search has to."""
        with self._open():
            pass

    def count(self, keys: Sequence[str] | None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            with self._open() as shard:
                return int(shard.count(e.CountRequest(exact=True)))
        total = 0
        for condition in key_conditions(keys):
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

    def scroll(self, *, vectors: bool, page: int, conditions: Sequence[Condition] = ()) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions in order of their id."""
        return self._scroll(_conditions_filter(conditions), vectors=vectors, page=page)

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
        payload: bool,
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
                    payload=payload and not one.ids,
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

    def close(self) -> None:
        """Close the shard. Calls that come later raise StoreError."""
        with self._lock:
            self._closed = True
            self._close_shard()

    @contextmanager
    def _open(self) -> Iterator[e.EdgeShard]:
        with self._lock, engine_errors(self.name, self._folder):
            yield self._loaded()

    def _loaded(self) -> e.EdgeShard:
        self._check_open()
        if self._shard is None:
            self._shard = e.EdgeShard.load(str(self._folder))
        return self._shard

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"collection {self.name} was closed or dropped")

    def _close_shard(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            with engine_errors(self.name, self._folder):
                shard.flush()
                shard.close()


class UnwrittenCollection(CollectionReader):
    """A collection that has no points, because it was never written. Its folder is not opened."""

    def count(self, keys: Sequence[str] | None) -> int:
        """Return 0."""
        return 0

    def count_sparse(self) -> int:
        """Return 0."""
        return 0

    def retrieve(self, ids: Sequence[str], *, vectors: bool, conditions: Sequence[Condition] = ()) -> list[StoredPoint]:
        """Return nothing."""
        return []

    def indexed(self) -> bool:
        """Return True: there is nothing to scan."""
        return True

    def _scroll(self, which: e.Filter | None, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        return iter(())

    def _query(self, *_: Any, **__: Any) -> list[StoredPoint]:
        return []


def key_conditions(keys: Sequence[str]) -> list[e.FieldCondition]:
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
