"""How either store reads the points of a collection, above the requests that each engine takes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from rag_index.components.stores.points import (
    MARK_ID,
    Json,
    check_ids,
    count_having,
    match_any,
    parts,
    payload_filter,
    payload_path,
    stored_point,
    unit_query,
)
from rag_index.components.stores.queries import (
    NO_WORDS,
    SPARSE,
    Conditions,
    VectorQuery,
    WordCounts,
    WordPlaces,
)
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.documents.vectors import SparseVector

SEARCH_EF = 400
"""Candidates that a search of an HNSW index keeps. The engine's own 100 finds 96 % of the ten nearest short texts in
200,000 points (static embeddings, 256-d). 400 finds 99 %, in 0.5 to 1.2 ms a search instead of 0.3 to 0.5."""

MAX_PLACES = 100
"""Points that are looked at to see which words there are."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """A search for the `limit` best points by one of the two vectors."""

    vector: list[float] | SparseVector
    limit: int
    which: Any = None
    """The engine's filter for the points; None for all."""
    ids: tuple[str, ...] = ()
    """If given, the scores of these points alone are wanted."""
    corpus: Any = None
    """The engine's filter for the points among which words are counted; None for all."""
    exact: bool = False
    payload: bool = True
    words: bool = False
    """Whether the points come with their sparse vectors."""


class PointReads(ABC):
    """The points of one collection, as the Store protocol reads them. Subclasses ask the engine."""

    ids_at_once: ClassVar[int]
    keys_at_once: ClassVar[int]

    def __init__(self, name: str, dimension: int | None = None) -> None:
        """Without `dimension`, the engine decides whether a query fits."""
        self.name = name
        self._dimension = dimension

    @abstractmethod
    def _filter(self, wanted: Json | None) -> Any:
        """Return a filter as the engine takes it; None for none."""

    @abstractmethod
    def _count(self, which: Any) -> int:
        """Count the points that meet a filter, exactly."""

    @abstractmethod
    def _get(self, ids: Sequence[str], *, vectors: bool) -> Sequence[Any]:
        """Return those of these points that exist."""

    @abstractmethod
    def _page(self, which: Any, *, limit: int, offset: Any = None, vectors: bool) -> tuple[Sequence[Any], Any]:
        """Return a page of the points that meet a filter in order of their ids, and where the next one begins."""

    @abstractmethod
    def _look_up(self, wanted: Sequence[LookUp]) -> Sequence[Sequence[Any]]:
        """Return the points that each of these finds, best first."""

    @abstractmethod
    def _facet(self, path: str, limit: int, which: Any) -> Sequence[Any]:
        """Return the most frequent values of a field, with their counts."""

    @abstractmethod
    def _points_with_words(self) -> int | None:
        """Return how many points there are; None if they cannot have sparse vectors."""

    def _counts_corpus(self) -> bool:
        """Return whether the engine can count words among the points of a filter."""
        return True

    def count(self, *, keys: Sequence[str] | None = None) -> int:
        return self._count(None) if keys is None else sum(map(self._count, self._key_filters(keys)))

    def _key_filters(self, keys: Sequence[str], *others: Json) -> Iterator[Any]:
        """Yield filters that together name each document key once, each with these other conditions."""
        for some in parts(list(dict.fromkeys(keys)), self.keys_at_once):
            yield self._filter({"must": [match_any(f"{RESERVED_KEY}.key", some), *others]})

    def retrieve(self, ids: Sequence[str], *, vectors: bool = False, conditions: Conditions = ()) -> list[StoredPoint]:
        check_ids(ids)
        found: list[Any] = []
        meeting = payload_filter(conditions)
        for some in parts(ids, self.ids_at_once):
            if meeting:  # only a scroll can ask for ids and conditions
                which = self._filter({"must": [{"has_id": some}, meeting]})
                found += self._page(which, limit=len(some), vectors=vectors)[0]
            else:
                found += self._get(some, vectors=vectors)
        return [*map(stored_point, found)]

    def scroll(self, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()) -> Iterator[StoredPoint]:
        return self._scroll(self._filter(payload_filter(conditions)), vectors=vectors, page=page)

    def _scroll(self, which: Any, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        offset = None
        while True:
            records, offset = self._page(which, limit=page, offset=offset, vectors=vectors)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        vector = unit_query(query.vector, self._dimension, self.name)
        which, payload = self._filter(payload_filter(query.conditions)), query.payload or not query.sparse
        nearest = LookUp(vector, query.limit, which, exact=query.exact, payload=payload)
        if not query.sparse:
            return self._find([nearest])[0]
        corpus = self._filter(payload_filter(query.corpus))
        return self._hybrid(nearest, replace(nearest, vector=query.sparse, corpus=corpus))

    def _hybrid(self, by_vector: LookUp, by_words: LookUp) -> list[StoredPoint]:
        """Return the best points by either vector, each once, with both scores. Those without a vector are found by
        their words, and are as far from the query as the farthest of the others."""
        near, worded = self._find([by_vector, by_words])
        cosines = {point.id: point.score for point in near}
        bm25 = {point.id: point.score for point in worded}
        wanted: list[tuple[dict[str, float], LookUp]] = []
        if len(worded) == by_words.limit and (ids := tuple(cosines.keys() - bm25.keys())):  # fewer: no other has words
            wanted.append((bm25, replace(by_words, limit=len(ids), ids=ids, payload=False)))
        if ids := tuple(bm25.keys() - cosines.keys()):
            wanted.append((cosines, replace(by_vector, limit=len(ids), ids=ids, payload=False)))
        found = self._find([look_up for _, look_up in wanted]) if wanted else []
        for (scores, _), points in zip(wanted, found, strict=True):
            scores.update((point.id, point.score) for point in points)
        candidates, lowest = {point.id: point for point in (*near, *worded)}, min(cosines.values(), default=0.0)
        for point in candidates.values():
            point.score, point.bm25 = cosines.get(point.id, lowest), bm25.get(point.id, 0.0)
            point.by_words = point.id not in cosines  # or deleted in between
        return list(candidates.values())

    def _find(self, wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
        return [[stored_point(point, point.score) for point in points] for points in self._look_up(wanted)]

    def word_counts(self, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        points, which = self._points_with_words(), payload_filter(conditions)
        if points is None or not words:
            return NO_WORDS
        if which and self._counts_corpus():
            points = self._count(self._filter({"must": [which, {"has_vector": SPARSE}]}))
        found = zip(words, self._having([[word] for word in words], 1, conditions), strict=True)
        return WordCounts(points, {word: count_having(points, word, one) for word, one in found})

    def find_words(self, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        left, places = set(words if self._points_with_words() is not None else ()), WordPlaces()
        while left:  # rare words come first, so those that the points so far do not have are asked for again
            [found] = self._having([sorted(left)], MAX_PLACES, conditions)
            new = WordPlaces()
            for point in found:
                for word in left.intersection(point.sparse.indices if point.sparse else ()):
                    new.setdefault(word, []).append(point.id)
            places |= new
            left -= new.keys()
            if len(found) < MAX_PLACES or not new:
                break
        return places

    def _having(self, asked: Sequence[list[int]], limit: int, conditions: Conditions) -> list[list[StoredPoint]]:
        """Return for each list the best points that have any of its words, with their sparse vectors. All are asked in
        one call, which counts the points of a filter once."""
        which = self._filter(payload_filter(conditions))
        words = [SparseVector(tuple(some), (1.0,) * len(some)) for some in asked]
        return self._find([LookUp(one, limit, which, corpus=which, payload=False, words=True) for one in words])

    def facet(self, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        found = self._facet(payload_path(field), limit, self._filter(payload_filter(conditions)))
        return {str(hit.value): hit.count for hit in found}
