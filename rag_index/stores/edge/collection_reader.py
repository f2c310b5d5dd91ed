"""What can be read of the embedded store, and of one collection: a shard folder of qdrant-edge, opened when needed.

Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of 768 dimensions). So
work is split into short calls, made one at a time under the collection's own lock, and other threads run in between.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from contextlib import contextmanager
from itertools import repeat
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import qdrant_edge as e

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.errors import StoreError
from rag_index.stores import SPARSE, WordCounts, WordPlaces
from rag_index.stores.conditions import payload_filter, payload_path
from rag_index.stores.edge.folder import engine_errors
from rag_index.stores.points import (
    MAX_PLACES,
    SEARCH_EF,
    LookUp,
    check_ids,
    count_having,
    hybrid_points,
    require_payloads,
    stored_point,
    unit_query,
    words_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.vectors import SparseVector
    from rag_index.stores import Condition, VectorQuery
    from rag_index.stores.edge.catalog import Catalog

EdgeCondition: TypeAlias = "e.ConditionType"
STEP = 500
"""Vectors turned into lists at a time."""
BATCH_POINTS = 500
"""Points per call of the engine, which bounds how long other threads stand still."""
KEYS_PER_FILTER = 10_000
MAX_SCANNED_KB = 10_000
"""Vectors up to this size are scanned without a search index (the engine's own threshold)."""


class _EdgeDialect:
    """A maker of the engine's conditions and filters."""

    def keywords(self, field: str, values: list[str]) -> EdgeCondition:
        return e.FieldCondition(field, match=e.MatchAny(values))

    def truth(self, field: str, value: bool) -> EdgeCondition:
        # The binding treats a Python bool as an integer, and a numpy bool as a boolean.
        return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(value))))

    def integers(self, field: str, values: list[int]) -> EdgeCondition:
        return e.FieldCondition(field, match=e.MatchAny(values))

    def numbers(self, field: str, bounds: Mapping[str, float]) -> EdgeCondition:
        return e.FieldCondition(field, range=e.RangeFloat(**bounds))

    def times(self, field: str, bounds: Mapping[str, datetime]) -> EdgeCondition:
        return e.FieldCondition(
            field, range=e.RangeDateTime(**{key: bound.isoformat() for key, bound in bounds.items()})
        )

    def empty(self, field: str) -> EdgeCondition:
        return e.IsEmptyCondition(field)

    def group(
        self, must: list[EdgeCondition], should: list[EdgeCondition], must_not: list[EdgeCondition]
    ) -> EdgeCondition:
        return e.Filter(must=must or None, should=should or None, must_not=must_not or None)


NO_WORDS: tuple[list[int], list[float]] = ([], [])


def engine_sparse(vector: SparseVector) -> e.SparseVector:
    """Return a sparse vector as the engine takes it."""
    return e.SparseVector(list(vector.indices), list(vector.values))


def engine_points(points: PointBatch, vectors: NDArray[np.float32]) -> list[e.Point]:
    """Return points with these vectors (as `unit_vectors` gives them). Raises PointsRefused for bad payloads."""
    built: list[e.Point] = []
    bad: list[tuple[str, Exception]] = []
    sparse = points.sparse.lists() if points.sparse is not None else repeat(NO_WORDS, len(points))
    rows = (row for start in range(0, len(points), STEP) for row in vectors[start : start + STEP].tolist())
    for point_id, row, (indices, values), payload in zip(points.ids, rows, sparse, points.payloads, strict=True):
        try:
            vector = {"": row, SPARSE: e.SparseVector(indices, values)} if indices else row
            built.append(e.Point(point_id, vector, payload))
        except (TypeError, ValueError, OverflowError) as exc:
            bad.append((point_id, exc))
    require_payloads(bad)
    return built


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

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points, best first; with a sparse vector, the best by either, with both scores."""
        near = e.Query.Nearest(unit_query(query.vector, self.dimension, self.name))
        query_filter = _conditions_filter(query.conditions)
        if not (self.sparse and query.sparse):
            return self._query(near, query.limit, query_filter, exact=query.exact)
        words = e.Query.Nearest(engine_sparse(query.sparse), using=SPARSE)

        def look_up(wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
            return [
                self._query(
                    words if one.sparse else near,
                    one.limit,
                    e.Filter(must=[e.HasIdCondition(set(one.ids))]) if one.ids else query_filter,
                    exact=query.exact or bool(one.ids),
                    payload=query.payload and not one.ids,
                )
                for one in wanted
            ]

        return hybrid_points(look_up, query.limit)

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

    def word_counts(self, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordCounts:
        """Return about how many points have each word, 0 if none has it that meets the conditions."""
        if not self.sparse:
            return WordCounts(0, {})
        with self._open() as shard:
            points = shard.info().points_count
        which = _conditions_filter(conditions)
        return WordCounts(points, {word: count_having(points, word, self._having([word], 1, which)) for word in words})

    def find_words(self, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, with their ids."""
        if not self.sparse:
            return {}
        which = _conditions_filter(conditions)
        return words_in(lambda some: self._having(some, MAX_PLACES, which), words, MAX_PLACES)

    def _having(self, words: list[int], limit: int, which: e.Filter | None) -> list[StoredPoint]:
        """Return the best points that have any of these words, with their sparse vectors."""
        query = e.Query.Nearest(e.SparseVector(words, [1.0] * len(words)), using=SPARSE)
        request = e.QueryRequest(limit=limit, query=query, filter=which, with_payload=False, with_vector=[SPARSE])
        with self._open() as shard:
            return [stored_point(point, point.score) for point in shard.query(request)]

    def facet(self, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field."""
        request = e.FacetRequest(payload_path(field), limit=limit, filter=_conditions_filter(conditions))
        with self._open() as shard:
            return {str(hit.value): hit.count for hit in shard.facet(request)}

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


class EdgeReads(ABC):
    """The reading part of the Store protocol. Subclasses say what they know of the catalog, and open collections."""

    embedded = True

    @abstractmethod
    def _known(self) -> Catalog:
        """Return the catalog, as new as need be. Raises StoreError if the store is closed."""

    @abstractmethod
    def _lend(self, name: str) -> AbstractContextManager[CollectionReader]:
        """Lend a collection or alias for the time of the block."""

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""
        return self._known().collections()

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection, None if there is none of this name."""
        return self._known().find(name)

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias."""
        return dict(self._known().entry(name).metadata)

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""
        return self._known().aliases()

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""
        return self._known().entry(name).dimension

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""
        return self._known().entry(name).sparse

    def prepare(self, name: str) -> None:
        """Open the newest state of a collection or alias, once a process that writes it lets go of it."""
        with self._lend(name):
            pass

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        with self._lend(name) as collection:
            return collection.count(keys)

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""
        with self._lend(name) as collection:
            return collection.count_sparse()

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        with self._lend(name) as collection:
            return collection.retrieve(ids, vectors=vectors, conditions=conditions)

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, with one page in memory at a time."""
        with self._lend(name) as collection:
            yield from collection.scroll(vectors=vectors, page=page, conditions=conditions)

    def search(self, name: str, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points, and the best by sparse vector."""
        with self._lend(name) as collection:
            return collection.search(query)

    def word_counts(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordCounts:
        """Return about how many points have each word."""
        with self._lend(name) as collection:
            return collection.word_counts(words, conditions)

    def find_words(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, with their ids."""
        with self._lend(name) as collection:
            return collection.find_words(words, conditions)

    def facet(self, name: str, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field."""
        with self._lend(name) as collection:
            return collection.facet(field, limit=limit, conditions=conditions)

    def indexed(self, name: str) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""
        with self._lend(name) as collection:
            return collection.indexed()


class _NoPoints:
    """A shard without points, whose folder is not opened."""

    points_count = 0

    def info(self) -> _NoPoints:
        return self

    def count(self, _: object) -> int:
        return 0

    def retrieve(self, *_: object) -> list[Any]:
        return []

    query = facet = retrieve

    def scroll(self, _: object) -> tuple[list[Any], None]:
        return [], None


class UnwrittenCollection(CollectionReader):
    """A collection that has no points, because it was never written."""

    def indexed(self) -> bool:
        """Return True: there is nothing to scan."""
        return True

    def _loaded(self) -> Any:
        return _NoPoints()


def key_conditions(keys: Sequence[str]) -> list[e.FieldCondition]:
    """Return conditions that together name each key once."""
    unique = list(dict.fromkeys(keys))
    starts = range(0, len(unique), KEYS_PER_FILTER)
    field = f"{RESERVED_KEY}.key"
    return [e.FieldCondition(field, match=e.MatchAny(unique[start : start + KEYS_PER_FILTER])) for start in starts]


def _conditions_filter(conditions: Sequence[Condition], ids: Sequence[str] = ()) -> e.Filter | None:
    """Return a filter for points that meet all conditions, of these ids if there are any."""
    found = cast("e.Filter | None", payload_filter(conditions, _EdgeDialect()))
    if not ids or found is None:
        return found
    return e.Filter(must=[e.HasIdCondition(set(ids)), found])
