"""The points of one collection, as any store reads them. Stores add the requests that each engine
takes."""

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
"""Candidates that a search of an HNSW index keeps. The engine's own 100 finds 96 % of the ten
nearest short texts in 200,000 points (static embeddings, 256-d). 400 finds 99 %, in 0.5 to 1.2 ms a
search instead of 0.3 to 0.5."""

MAX_PLACES = 100
"""Points that are looked at to see which words there are."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """A search for the `limit` best points by one of the two vectors."""

    vector: list[float] | SparseVector
    limit: int
    which: Any = None
    """The engine's filter for the points; None for all."""
    corpus: Any = None
    """The engine's filter for the points among which words are counted; None for all."""
    exact: bool = False
    payload: bool = True
    words: bool = False
    """Whether the points come with their sparse vectors."""
    among: tuple[LookUp, ...] = ()
    """If given, only the points that these find are compared."""


class PointReader(ABC):
    """The points of one collection: one unnamed cosine vector each, and a payload.

    A collection made for it has a sparse vector (`SPARSE`) with each point too, whose values a
    search multiplies by the inverse document frequency in the collection, or in a part of it.

    Every call raises StoreUnavailable for faults that may pass, and StoreBusy, StoreRefused or
    StoreError for others. Empty lists of ids or keys do nothing and are not an error. All calls may
    be made from several threads.
    """

    ids_at_once: ClassVar[int]
    keys_at_once: ClassVar[int]

    def __init__(self, name: str) -> None:
        self.name = name
        """The name of the collection, or an alias of it."""

    # Of the collection

    @abstractmethod
    def metadata(self) -> dict[str, Any]:
        """Return the metadata as it is now. Raises StoreError if there is no such collection."""

    @abstractmethod
    def dimension(self) -> int:
        """Return the dimension of the vectors."""

    @abstractmethod
    def commit_mark(self) -> CommitMark:
        """Return the mark of the last commit, as `PointCollection.set_commit_mark` wrote it; or a
        mark of no commit."""

    @abstractmethod
    def indexed(self) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""

    def prepare(self) -> None:  # noqa: B027 - most stores have nothing to do
        """Make the next call wait for nothing: the embedded store loads the collection."""

    def seen_commits(self) -> int | None:
        """Return the number of the last commit of which all calls have seen the points; None if
        they saw all."""
        return None

    # Of its points

    def count(self, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        return self._count(None) if keys is None else sum(map(self._count, self._key_filters(keys)))

    def retrieve(
        self, ids: Sequence[str], *, vectors: bool = False, conditions: Conditions = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions, in any order."""
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

    def scroll(
        self, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions in order of their id, with one page in memory
        at a time."""
        which = self._filter(payload_filter(conditions))
        return self._scroll(which, vectors=vectors, page=page)

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points, best first, with score (cosine, -1 to 1).

        With a sparse vector, too, return the `limit` nearest points, the `limit` best by words and
        what the names in the query find, each once, with the cosine and the sparse vector, which
        says what words a point has. Those without a vector come last: they are `by_words`, and as
        far away as the farthest of the others. With a sparse vector alone, return the best by
        words, whose score is that of the words. One request asks for all that.
        """
        which, corpus = payload_filter(query.conditions), self._filter(payload_filter(query.corpus))
        by_words = [LookUp(query.sparse, query.limit, corpus=corpus)] if query.sparse else []
        by_words += [LookUp(name, NAMED, corpus=corpus) for name in query.names]
        by_words = [
            replace(one, payload=query.payload, words=True, which=self._filter(which))
            for one in by_words
        ]
        if query.vector is None:
            return _distinct(self._look_up(by_words)) if by_words else []
        vector = unit_query(query.vector, self._query_dimension(), self.name)
        near = LookUp(
            vector, query.limit, self._filter(which), exact=query.exact, payload=query.payload
        )
        if not by_words:
            return _distinct(self._look_up([near]))
        # The engine compares all that any of these find with the vector, and drops points that have
        # none. Such points are there while an index is filled by words first: they are looked up by
        # their words in the same request.
        every = replace(
            near,
            limit=sum(one.limit for one in (near, *by_words)),
            words=True,
            among=(near, *by_words),
        )
        without_vector: Json = {"must": [which] if which else [], "must_not": [{"has_vector": ""}]}
        unfilled = [replace(one, which=self._filter(without_vector)) for one in by_words]
        found, *worded = self._look_up([every, *unfilled])
        points, without = _distinct([found]), _distinct(worded)
        lowest = min([point.score for point in points], default=0.0)
        for point in without:
            point.score, point.by_words = lowest, True
        return points + without

    def word_counts(self, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        """Return how many points that meet the conditions have each word, as the inverse document
        frequency tells.

        A server before 1.19 counts all points, but 0 for a word that none has which meets the
        conditions. It costs a small search for each word. A collection without sparse vectors has
        no words.
        """
        points, which = self._points_with_words(), payload_filter(conditions)
        if points is None or not words:
            return NO_WORDS
        if which and self._counts_corpus():
            points = self._count(self._filter({"must": [which, {"has_vector": SPARSE}]}))
        found = zip(words, self._having([[word] for word in words], 1, conditions), strict=True)
        return WordCounts(points, {word: count_having(points, word, one) for word, one in found})

    def find_words(self, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, each with the ids of
        100 points, or of all.

        It costs a search or two, however many words are asked for.
        """
        left, places = set(words if self._points_with_words() is not None else ()), WordPlaces()
        while (
            left
        ):  # rare words come first, so those that the points so far do not have are asked for again
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

    def facet(self, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field, the
        `limit` most frequent.

        The most frequent comes first. A point with a list of values counts for each. Raises
        StoreError if the field has no keyword index.
        """
        found = self._facet(payload_path(field), limit, self._filter(payload_filter(conditions)))
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
        for some in parts(list(dict.fromkeys(keys)), self.keys_at_once):
            yield self._filter({"must": [match_any(f"{RESERVED_KEY}.key", some), *others]})

    def _scroll(self, which: Any, *, vectors: bool, page: int) -> Iterator[StoredPoint]:
        offset = None
        while True:
            records, offset = self._page(which, limit=page, offset=offset, vectors=vectors)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    def _having(
        self, asked: Sequence[list[int]], limit: int, conditions: Conditions
    ) -> list[list[StoredPoint]]:
        """Return for each list the best points that have any of its words, with their sparse
        vectors. All are asked in one call, which counts the points of a filter once."""
        which = self._filter(payload_filter(conditions))
        words = [SparseVector(tuple(some), (1.0,) * len(some)) for some in asked]
        wanted = [
            LookUp(one, limit, which, corpus=which, payload=False, words=True) for one in words
        ]
        return [_distinct([found]) for found in self._look_up(wanted)]


def _distinct(lists: Sequence[Sequence[Any]]) -> list[StoredPoint]:
    """Return the points of some lists, each point once."""
    found = dict[str, StoredPoint]()
    for records in lists:
        for record in records:
            point = stored_point(record, record.score)
            found.setdefault(point.id, point)
    return list(found.values())
