"""Reading points of a Qdrant server: by id, page by page, by vector, by conditions, and counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY, CommitMark, StoredPoint
from rag_index.stores import SPARSE
from rag_index.stores.conditions import match_any, payload_filter, payload_path
from rag_index.stores.points import (
    MARK_ID,
    MAX_PLACES,
    SEARCH_EF,
    LookUp,
    best_points,
    check_ids,
    count_having,
    parts,
    stored_point,
    unit_query,
    words_in,
)
from rag_index.stores.protocol import NO_WORDS, Conditions, VectorQuery, WordCounts, WordPlaces
from rag_index.stores.server.link import Limits, Requests, has_sparse, within_limits

OVERSAMPLING = 2.0
"""How many times more candidates than wanted are looked up among compressed vectors before they are scored."""
MAX_IDS = 1000
"""Ids or keys per request."""


def filter_of(conditions: Conditions) -> models.Filter | None:
    """Return a filter for points that meet all conditions, None if there are none."""
    found = payload_filter(conditions)
    return None if found is None else models.Filter.model_validate(found)


def key_filter(keys: Sequence[str], from_chunk: int = 0) -> models.Filter:
    """Return a filter for the points of these document keys, from the given chunk number on."""
    chunks = [{"key": f"{RESERVED_KEY}.chunk", "range": {"gte": from_chunk}}] if from_chunk else []
    return models.Filter.model_validate({"must": [match_any(f"{RESERVED_KEY}.key", keys), *chunks]})


def _has_id(ids: Sequence[models.ExtendedPointId]) -> Any:
    return models.HasIdCondition(has_id=list[Any](ids))


class Reads(Requests):
    """Reads of a server's collections, in as many requests as its limits need."""

    @within_limits
    def count(self, limits: Limits, name: str, *, keys: Sequence[str] | None = None) -> int:
        if keys is None:
            return self._count(name, None) - len(self._retrieve(name, [MARK_ID], vectors=False))
        unique = list(dict.fromkeys(keys))
        return sum(self._count(name, key_filter(some)) for some in parts(unique, min(MAX_IDS, limits.values)))

    def count_sparse(self, name: str) -> int:
        return self._sparse_count(name, self._info(name))

    def seen_commits(self, name: str) -> int | None:
        return None

    def commit_mark(self, name: str) -> CommitMark:
        found = self._retrieve(name, [MARK_ID], vectors=False)
        return CommitMark.parse(found[0].payload[RESERVED_KEY] if found else None)

    @within_limits
    def retrieve(
        self,
        limits: Limits,
        name: str,
        ids: Sequence[str],
        *,
        vectors: bool = False,
        conditions: Conditions = (),
    ) -> list[StoredPoint]:
        check_ids(ids)
        wanted: Any = filter_of(conditions)
        if wanted is None:
            batches = parts(ids, min(MAX_IDS, limits.ids))
            return [point for some in batches for point in self._retrieve(name, some, vectors=vectors)]
        found: list[StoredPoint] = []  # only a scroll can ask for ids and conditions
        for some in parts(ids, min(MAX_IDS, limits.values, limits.page)):
            which = models.Filter(must=[_has_id(some), wanted])
            found += map(stored_point, self._scroll(name, which, limit=len(some), with_vectors=vectors)[0])
        return found

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()
    ) -> Iterator[StoredPoint]:
        offset, wanted = None, filter_of(conditions)
        while True:
            records, offset = self._page(name, wanted, limit=page, offset=offset, with_vectors=vectors)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    @within_limits
    def search(self, limits: Limits, name: str, query: VectorQuery) -> list[StoredPoint]:
        near, words = unit_query(query.vector, None, name), query.sparse
        which = filter_of(query.conditions)
        params = models.SearchParams(hnsw_ef=min(SEARCH_EF, limits.hnsw_ef), exact=query.exact)
        if self._settings.quantized and not query.exact:  # an exact search reads the vectors themselves
            params.quantization = models.QuantizationSearchParams(
                rescore=True, oversampling=min(OVERSAMPLING, limits.oversampling)
            )
        dense = models.QueryRequest(query=near, filter=which, params=params, with_payload=query.payload or not words)
        sparse = dense.model_copy(
            update={
                "query": words and models.SparseVector(indices=list(words.indices), values=list(words.values)),
                "using": SPARSE,
                "params": params.model_copy(update={"quantization": None, "exact": False}),
            }
        )

        def look_up(wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
            found = self._look_up(name, [(one, sparse if one.sparse else dense) for one in wanted], limits)
            return [[stored_point(point, point.score) for point in points] for points in found]

        return best_points(look_up, query.limit, hybrid=bool(words))

    def _look_up(
        self, name: str, wanted: Sequence[tuple[LookUp, models.QueryRequest]], limits: Limits
    ) -> list[Iterable[models.ScoredPoint]]:
        """Return the points of each look-up, best first: of all in one request, if the limits allow that.

        Otherwise each further request leaves out what is found already. Pages by offset would not do: where scores tie,
        the server orders points differently for each page, and a point is on two pages or on none.
        """
        found: list[dict[models.ExtendedPointId, models.ScoredPoint]] = [{} for _ in wanted]
        due = []
        for number, (one, request) in enumerate(wanted):
            if not one.ids:
                due.append((number, request.model_copy(update={"limit": min(limits.page, one.limit)})))
            for some in parts(one.ids, min(MAX_IDS, limits.values, limits.page)):
                which = models.Filter(must=[_has_id(some)])
                changes = {"limit": len(some), "filter": which, "with_payload": False}
                due.append((number, request.model_copy(update=changes)))
        while due:
            answers = self._query(name, [request for _, request in due])
            asked, due = due, []
            for (number, request), points in zip(asked, answers, strict=True):
                one, first = wanted[number]
                found[number].update((point.id, point) for point in points)
                left = one.limit - len(found[number])
                if not one.ids and left > 0 and len(points) == request.limit:
                    have = [_has_id(some) for some in parts(list(found[number]), min(MAX_IDS, limits.values))]
                    rest: Any = models.Filter(must=[first.filter] if first.filter else None, must_not=have)
                    due.append((number, request.model_copy(update={"limit": min(limits.page, left), "filter": rest})))
        return [points.values() for points in found]

    def word_counts(self, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        info = self._info(name)
        if not words or not has_sparse(info):
            return NO_WORDS
        points = info.points_count or 0
        found = self._having(name, [[word] for word in words], 1, conditions)
        return WordCounts(
            points, {word: count_having(points, word, one) for word, one in zip(words, found, strict=True)}
        )

    @within_limits
    def find_words(self, limits: Limits, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        some, most = words if has_sparse(self._info(name)) else (), min(MAX_PLACES, limits.page)
        return words_in(lambda left: self._having(name, [left], most, conditions)[0], some, most)

    def _having(
        self, name: str, asked: Sequence[list[int]], limit: int, conditions: Conditions
    ) -> list[list[StoredPoint]]:
        """Return for each list the best points that have any of its words, with their sparse vectors."""
        make = partial(models.QueryRequest, using=SPARSE, filter=filter_of(conditions), limit=limit)
        words = [models.SparseVector(indices=some, values=[1.0] * len(some)) for some in asked]
        answers = self._query(name, [make(query=one, with_vector=[SPARSE]) for one in words])
        return [[stored_point(point, point.score) for point in points] for points in answers]

    def facet(self, name: str, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        wanted: Any = filter_of(conditions)
        found = self._ask(lambda client: client.facet(name, payload_path(field), facet_filter=wanted, limit=limit))
        return {str(hit.value): hit.count for hit in found.hits}

    def _query(self, name: str, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        return [one.points for one in self._ask(lambda client: client.query_batch_points(name, list(requests)))]

    def _retrieve(self, name: str, ids: Sequence[str], *, vectors: bool) -> list[StoredPoint]:
        return [*map(stored_point, self._ask(lambda client: client.retrieve(name, ids, with_vectors=vectors)))]

    @within_limits
    def _page(self, limits: Limits, name: str, /, wanted: Any, *, limit: int, **options: Any) -> Any:
        return self._scroll(name, wanted, limit=min(limit, limits.page), **options)

    def _scroll(self, name: str, wanted: models.Filter | None, **options: Any) -> tuple[list[models.Record], Any]:
        return self._ask(lambda client: client.scroll(name, wanted, **options))
