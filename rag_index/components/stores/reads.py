"""The points of one collection, as any store reads them. Each store adds the requests of its
engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, ClassVar

from rag_index.components.stores.points import (
    COMMIT_MARK_ID,
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
    NAMED,
    NO_WORDS,
    SPARSE,
    Conditions,
    VectorQuery,
    WordCounts,
    WordPlaces,
)
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, StoredPoint
from rag_index.core.documents.vectors import SparseVector

SEARCH_EF = 400
"""Candidates that a search of an HNSW index keeps. The engine's own 100 finds 96% of the ten
nearest short texts in 200,000 points (static embeddings, 256-d). 400 finds 99%, in 0.5 to 1.2 ms a
search instead of 0.3 to 0.5."""

MAX_PLACES = 100
"""Points of one search for words in `find_words`."""
LOOK_UPS_AT_ONCE = 50
"""Look-ups of one request, which together may take as long as the store's timeout. A search has
fewer. Chosen; nothing depends on it."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """A search for the `limit` best points by the dense or the sparse vector."""

    vector: list[float] | SparseVector
    limit: int
    which: Any = None
    """The engine's filter for the points; None for all."""
    corpus: Any = None
    """The engine's filter for the points among which words are counted; None for all."""
    exact: bool = False
    payload: bool = True
    words: bool = False
    """Whether the points are returned with their sparse vectors."""
    among: tuple[LookUp, ...] = ()
    """If given, only the points found by these are compared."""


class PointReader(ABC):
    """The points of one collection: one unnamed cosine vector each, and a payload.

    If the collection has sparse vectors, each point also has one (`SPARSE`). A search multiplies
    its values by the inverse document frequency in the collection, or in a part of it.

    Every call raises StoreUnavailable for transient faults, and StoreBusy, StoreRefused or
    StoreError for others. Empty lists of ids or keys do nothing and are not an error. All calls are
    thread-safe.
    """

    ids_at_once: ClassVar[int]
    keys_at_once: ClassVar[int]

    def __init__(self, name: str) -> None:
        self.name = name
        """The name of the collection, or an alias of it."""

    # Of the collection

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return the present metadata. Raises StoreError if there is no such collection."""

    @abstractmethod
    def dimension(self) -> int:
        """Return the dimension of the vectors."""

    @abstractmethod
    def commit_mark(self) -> CommitMark:
        """Return the commit mark that `PointCollection.set_commit_mark` wrote; number 0 if there is
        none."""

    @abstractmethod
    def indexed(self) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""

    def prepare(self) -> None:  # noqa: B027 - most stores have nothing to do
        """Load the collection, so that the next call waits for nothing."""

    def seen_commits(self) -> int | None:
        """Return the number of the last commit whose points every call has seen; None if they saw
        all."""
        return None

    # Of its points

    def count(self, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            return self._count(None)
        return sum(map(self._count, self._key_filters(keys)))

    def retrieve(
        self, ids: Sequence[str], *, vectors: bool = False, conditions: Conditions = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions, in any order."""
        check_ids(ids)
        found: list[Any] = []
        wanted = payload_filter(conditions)
        for some in parts(ids, self.ids_at_once):
            # Only a scroll takes ids and conditions.
            if wanted:
                which = self._filter({"must": [{"has_id": some}, wanted]})
                records, _ = self._page(which, limit=len(some), vectors=vectors)
            else:
                records = self._get(some, vectors=vectors)
            found += records
        return list(map(stored_point, found))

    def scroll(
        self, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions in order of their id, with one page in memory
        at a time."""
        which = self._filter(payload_filter(conditions))
        return self._scroll(which, vectors=vectors, page=page)

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points, best first, with score (cosine, -1 to 1). It takes one
        request.

        If the query also has a sparse vector, return the `limit` nearest points, the `limit` best
        by words, and those found by the names in the query, each once, with the cosine and the
        sparse vector. Points without a vector come last: they are `by_words`, with the lowest score
        of the others. If the query has only a sparse vector, return the best by words, with the
        score of the words.
        """
        look_ups = self._look_ups(query)
        return _points_of(look_ups, self._look_up(look_ups)) if look_ups else []

    def search_all(self, queries: Sequence[VectorQuery]) -> list[list[StoredPoint]]:
        """Return what `search` returns for each of these queries, with many of them in one
        request."""
        look_ups_of = [self._look_ups(query) for query in queries]
        every = list(chain.from_iterable(look_ups_of))
        found: list[Sequence[Any]] = []
        for some in parts(every, LOOK_UPS_AT_ONCE):
            found += self._look_up(some)
        answers = iter(found)
        results: list[list[StoredPoint]] = []
        for look_ups in look_ups_of:
            of_query = list(islice(answers, len(look_ups)))
            results.append(_points_of(look_ups, of_query))
        return results

    def _look_ups(self, query: VectorQuery) -> list[LookUp]:
        """Return the look-ups of a query; none for one without a vector and without words."""
        wanted = payload_filter(query.conditions)
        by_words = self._word_look_ups(query, wanted)
        if query.vector is None:
            return by_words
        near = LookUp(
            unit_query(query.vector, self._query_dimension(), self.name),
            query.limit,
            self._filter(wanted),
            exact=query.exact,
            payload=query.payload,
        )
        if not by_words:
            return [near]
        # The engine compares all points that any of these find with the vector, and drops those
        # that have none. There are such points while an index is first filled by words. Another
        # look-up of the same request finds them by their words.
        among = (near, *by_words)
        limit = sum(look_up.limit for look_up in among)
        every = replace(near, limit=limit, words=True, among=among)
        must = [wanted] if wanted else []
        no_vector: Json = {"must": must, "must_not": [{"has_vector": ""}]}
        unfilled = [replace(look_up, which=self._filter(no_vector)) for look_up in by_words]
        return [every, *unfilled]

    def _word_look_ups(self, query: VectorQuery, wanted: Json | None) -> list[LookUp]:
        """Return the look-ups by the words of a query, and by each of its names."""
        limits: list[tuple[SparseVector, int]] = []
        if query.sparse:
            limits.append((query.sparse, query.limit))
        limits += [(name, NAMED) for name in query.names]
        corpus = self._filter(payload_filter(query.corpus))
        found: list[LookUp] = []
        for words, limit in limits:
            which = self._filter(wanted)
            found.append(LookUp(words, limit, which, corpus, payload=query.payload, words=True))
        return found

    def word_counts(self, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        """Return how many points that meet the conditions have each word, computed from the inverse
        document frequency. It costs a small search for each word.

        A server before 1.19 counts among all points, but returns 0 for a word without a point that
        meets the conditions. A collection without sparse vectors has no words.
        """
        points = self._points_with_words()
        wanted = payload_filter(conditions)
        if points is None or not words:
            return NO_WORDS
        if wanted and self._counts_corpus():
            points = self._count(self._filter({"must": [wanted, {"has_vector": SPARSE}]}))
        best = self._having([[word] for word in words], 1, conditions)
        having: dict[int, int] = {}
        for word, found in zip(words, best, strict=True):
            having[word] = count_having(points, word, found)
        return WordCounts(points, having)

    def find_words(self, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        """Return those of these words that points have which meet the conditions, each with the ids
        of 100 points, or of all. It costs a search or two, for any number of words."""
        places = WordPlaces()
        if self._points_with_words() is None:
            return places
        left = set(words)
        # The best points have the rare words. The next search looks for the words they lack.
        while left:
            [found] = self._having([sorted(left)], MAX_PLACES, conditions)
            new = WordPlaces()
            for point in found:
                of_point = point.sparse.indices if point.sparse else ()
                for word in left.intersection(of_point):
                    new.setdefault(word, []).append(point.id)
            places |= new
            left -= new.keys()
            # No further point has any of the words.
            if len(found) < MAX_PLACES or not new:
                break
        return places

    def facet(self, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field, the
        `limit` most frequent, the most frequent first.

        A point with a list of values counts for each. Raises StoreError if the field has no keyword
        index.
        """
        which = self._filter(payload_filter(conditions))
        found = self._facet(payload_path(field), limit, which)
        return {str(hit.value): hit.count for hit in found}

    # What the engine does

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
    def _page(
        self, which: Any, *, limit: int, offset: Any = None, vectors: bool
    ) -> tuple[Sequence[Any], Any]:
        """Return a page of the points that meet a filter in order of their ids, and where the next
        one begins."""

    @abstractmethod
    def _look_up(self, wanted: Sequence[LookUp]) -> Sequence[Sequence[Any]]:
        """Return the points that each of these finds, best first."""

    @abstractmethod
    def _facet(self, path: str, limit: int, which: Any) -> Sequence[Any]:
        """Return the most frequent values of a field, with their counts."""

    @abstractmethod
    def _points_with_words(self) -> int | None:
        """Return how many points there are; None if they cannot have sparse vectors."""

    def _query_dimension(self) -> int | None:
        """Return the dimension that a query must have; None if the engine decides whether it
        fits."""
        return None

    def _counts_corpus(self) -> bool:
        """Return whether the engine can count words among the points of a filter."""
        return True

    # Parts of the calls above

    def _key_filters(self, keys: Sequence[str], *others: Json) -> Iterator[Any]:
        """Yield filters that together name each document key once, each with these other
        conditions."""
        distinct = list(dict.fromkeys(keys))
        for some in parts(distinct, self.keys_at_once):
            of_keys = match_any(f"{RESERVED_KEY}.key", some)
            yield self._filter({"must": [of_keys, *others]})

    def _scroll(self, which: Any, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        offset = None
        while True:
            records, offset = self._page(which, limit=page, offset=offset, vectors=vectors)
            for record in records:
                # A server keeps the commit mark in a point.
                if record.id != COMMIT_MARK_ID:
                    yield stored_point(record)
            if offset is None:
                return

    def _having(
        self, asked: Sequence[list[int]], limit: int, conditions: Conditions
    ) -> list[list[StoredPoint]]:
        """Return for each list of words the best points that have any of them, with their sparse
        vectors. One request has all lists, so that the points of a filter are counted once."""
        which = self._filter(payload_filter(conditions))
        wanted: list[LookUp] = []
        for words in asked:
            vector = SparseVector(tuple(words), (1.0,) * len(words))
            wanted.append(LookUp(vector, limit, which, corpus=which, payload=False, words=True))
        return [_distinct([found]) for found in self._look_up(wanted)]


def _distinct(lists: Sequence[Sequence[Any]]) -> list[StoredPoint]:
    """Return the points of several lists, each point once, in the order of its first place."""
    found = dict[str, StoredPoint]()
    for records in lists:
        for record in records:
            point = stored_point(record, record.score)
            found.setdefault(point.id, point)
    return list(found.values())


def _points_of(look_ups: Sequence[LookUp], found: Sequence[Sequence[Any]]) -> list[StoredPoint]:
    """Return the points of a query.

    Args:
        look_ups: Those of `PointReader._look_ups`.
        found: What each of them has found.
    """
    is_hybrid = len(look_ups) > 0 and len(look_ups[0].among) > 0
    # By meaning, or by words and names
    if not is_hybrid:
        return _distinct(found)
    # The first look-up has the points with vectors, and the others those without.
    points = _distinct(found[:1])
    without = _distinct(found[1:])
    lowest = min([point.score for point in points], default=0.0)
    for point in without:
        point.score = lowest
        point.by_words = True
    return points + without
