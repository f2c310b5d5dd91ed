"""Reading points of a Qdrant server: by id, page by page, by vector, by conditions, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.documents.commits import CommitMark
from rag_index.stores import SPARSE, WordCounts, WordPlaces
from rag_index.stores.conditions import payload_filter, payload_path
from rag_index.stores.points import (
    MARK_ID,
    MAX_PLACES,
    SEARCH_EF,
    LookUp,
    check_ids,
    count_having,
    hybrid_points,
    stored_point,
    unit_query,
    words_in,
)
from rag_index.stores.server.requests import Requests, has_sparse

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from qdrant_client import QdrantClient

    from rag_index.settings import ServerSettings
    from rag_index.stores import Condition, VectorQuery
    from rag_index.stores.server.requests import Limits

T = TypeVar("T")
MAX_IDS = 1000
"""Ids or keys per request."""


def search_params(settings: ServerSettings, limits: Limits, *, exact: bool) -> models.SearchParams:
    """Return how the server searches. An exact search reads the vectors themselves, whatever is compressed."""
    compressed = models.QuantizationSearchParams(
        rescore=settings.rescore, oversampling=min(settings.oversampling, limits.oversampling)
    )
    return models.SearchParams(
        hnsw_ef=min(SEARCH_EF, limits.hnsw_ef),
        exact=exact,
        quantization=compressed if settings.quantized and not exact else None,
    )


def meeting(
    client: QdrantClient, *, name: str, ids: Sequence[str], wanted: models.Filter, vectors: bool, limits: Limits
) -> list[models.Record]:
    """Return those of the points with these ids that meet a filter, with payload: only a scroll can ask for both."""
    found: list[models.Record] = []
    for some in id_batches(ids, min(limits.values, limits.page)):
        which = models.Filter(must=[_has_id(some), wanted])
        found += client.scroll(name, which, limit=len(some), with_payload=True, with_vectors=vectors)[0]
    return found


@dataclass(frozen=True, slots=True)
class Search:
    """A search by both vectors of a collection, or by the dense one alone."""

    near: list[float]
    words: models.SparseVector | None
    query_filter: models.Filter | None
    exact: bool
    payload: bool
    settings: ServerSettings

    def look_up(
        self, client: QdrantClient, name: str, wanted: Sequence[LookUp], limits: Limits
    ) -> list[list[models.ScoredPoint]]:
        """Return the points of each look-up, best first: of all in one request, if the limits allow that.

        Otherwise each further request leaves out what is found already. Pages by offset would not do: where scores tie,
        the server orders points differently for each page, and a point is on two pages or on none.
        """
        found: list[dict[models.ExtendedPointId, models.ScoredPoint]] = [{} for _ in wanted]
        due = [(number, request) for number, one in enumerate(wanted) for request in self._first(one, limits)]
        while due:
            answers = client.query_batch_points(name, [request for _, request in due])
            more: list[tuple[int, models.QueryRequest]] = []
            for (number, request), answer in zip(due, answers, strict=True):
                one, points = wanted[number], found[number]
                points.update((point.id, point) for point in answer.points)
                left = one.limit - len(points)
                if not one.ids and left > 0 and len(answer.points) == request.limit:
                    rest = {"limit": min(limits.page, left), "filter": self._without(points, limits)}
                    more.append((number, request.model_copy(update=rest)))
            due = more
        return [list(points.values()) for points in found]

    def _first(self, wanted: LookUp, limits: Limits) -> Iterator[models.QueryRequest]:
        """Yield the first searches of a look-up: for the best points, or for parts of its ids."""
        params = search_params(self.settings, limits, exact=self.exact and not wanted.sparse)
        search = models.QueryRequest(
            query=self.words if wanted.sparse else self.near,
            using=SPARSE if wanted.sparse else None,
            filter=self.query_filter,
            params=params.model_copy(update={"quantization": None}) if wanted.sparse else params,
            with_payload=self.payload and not wanted.ids,
            limit=min(limits.page, wanted.limit),
        )
        if not wanted.ids:
            yield search
            return
        for ids in id_batches(wanted.ids, min(limits.values, limits.page)):
            which = models.Filter(must=[_has_id(ids)])
            yield search.model_copy(update={"limit": len(ids), "filter": which})

    def _without(self, points: Iterable[models.ExtendedPointId], limits: Limits) -> models.Filter:
        """Return the search's filter for all but these points."""
        parts = [_has_id(ids) for ids in id_batches(list(points), limits.values)]
        must: Any = [self.query_filter] if self.query_filter else None
        return models.Filter(must=must, must_not=parts)


def _has_id(ids: Sequence[models.ExtendedPointId]) -> Any:
    return models.HasIdCondition(has_id=list[Any](ids))


def id_batches(items: Sequence[T], most: int = MAX_IDS) -> Iterator[Sequence[T]]:
    """Yield ids or keys in parts that one request may have, of at most `most`."""
    size = min(most, MAX_IDS)
    return (items[start : start + size] for start in range(0, len(items), size))


ServerCondition: TypeAlias = "models.Condition"


class _ServerDialect:
    """A maker of the client's conditions and filters."""

    def keywords(self, field: str, values: list[str]) -> ServerCondition:
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))

    def truth(self, field: str, value: bool) -> ServerCondition:
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))

    def integers(self, field: str, values: list[int]) -> ServerCondition:
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))

    def numbers(self, field: str, bounds: Mapping[str, float]) -> ServerCondition:
        return models.FieldCondition(key=field, range=models.Range(**bounds))

    def times(self, field: str, bounds: Mapping[str, datetime]) -> ServerCondition:
        return models.FieldCondition(key=field, range=models.DatetimeRange(**bounds))

    def empty(self, field: str) -> ServerCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))

    def group(
        self, must: list[ServerCondition], should: list[ServerCondition], must_not: list[ServerCondition]
    ) -> ServerCondition:
        return models.Filter(must=must or None, should=should or None, must_not=must_not or None)


def key_filter(keys: Sequence[str], from_chunk: int = 0) -> models.Filter:
    """Return a filter for the points of these document keys, from the given chunk number on."""
    dialect = _ServerDialect()
    chunks = [dialect.numbers(f"{RESERVED_KEY}.chunk", {"gte": from_chunk})] if from_chunk else []
    return models.Filter(must=[dialect.keywords(f"{RESERVED_KEY}.key", list(keys)), *chunks])


class Reads(Requests):
    """Reads of a server's collections, in as many requests as its limits need."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            return self._count(name, None) - len(self._retrieve(name, [MARK_ID], False))
        unique = list(dict.fromkeys(keys))

        def count(limits: Limits) -> int:
            return sum(self._count(name, key_filter(batch)) for batch in id_batches(unique, limits.values))

        return self._within_limits(name, count)

    def seen_commits(self, name: str) -> int | None:
        """Return None: a server shows what it has acknowledged."""
        return None

    def commit_mark(self, name: str) -> CommitMark:
        """Return the mark of the last commit."""
        return CommitMark.parse(next((p.payload[RESERVED_KEY] for p in self._retrieve(name, [MARK_ID], False)), None))

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        check_ids(ids)
        if conditions:
            wanted: Any = payload_filter(conditions, _ServerDialect())
            ask = partial(meeting, name=name, ids=ids, wanted=wanted, vectors=vectors)
            found = self._within_limits(name, lambda limits: self._ask(lambda client: ask(client, limits=limits)))
            return list(map(stored_point, found))

        def retrieve(limits: Limits) -> list[StoredPoint]:
            batches = id_batches(ids, limits.ids)
            return [point for batch in batches for point in self._retrieve(name, list(batch), vectors)]

        return self._within_limits(name, retrieve)

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, with one page in memory at a time."""
        wanted = cast("models.Filter | None", payload_filter(conditions, _ServerDialect()))
        offset: models.ExtendedPointId | None = None
        while True:
            ask = partial(self._page, name, offset, page, vectors, wanted)
            records, offset = self._within_limits(name, ask)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    def search(self, name: str, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points, and the best by sparse vector, in as many requests as the limits need."""
        sparse, wanted = query.sparse, cast("models.Filter | None", payload_filter(query.conditions, _ServerDialect()))
        search = Search(
            unit_query(query.vector, None, name),
            models.SparseVector(indices=list(sparse.indices), values=list(sparse.values)) if sparse else None,
            wanted,
            exact=query.exact,
            payload=query.payload or not sparse,
            settings=self._settings,
        )

        def look_up(limits: Limits, wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
            found = self._ask(lambda client: search.look_up(client, name, wanted, limits))
            return [[stored_point(point, point.score) for point in points] for points in found]

        if sparse:
            return self._within_limits(name, lambda limits: hybrid_points(partial(look_up, limits), query.limit))
        nearest = [LookUp(sparse=False, limit=query.limit)]
        return self._within_limits(name, lambda limits: look_up(limits, nearest))[0]

    def word_counts(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordCounts:
        """Return about how many points have each word, asked for in one request."""
        info = self._info(name)
        if not words or not has_sparse(info):
            return WordCounts(0, {})
        points = info.points_count or 0
        found = self._having(name, [[word] for word in words], 1, conditions)
        return WordCounts(
            points, {word: count_having(points, word, one) for word, one in zip(words, found, strict=True)}
        )

    def find_words(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, with their ids."""
        if not has_sparse(self._info(name)):
            return {}

        def count(limits: Limits) -> WordPlaces:
            most = min(MAX_PLACES, limits.page)
            return words_in(lambda some: self._having(name, [some], most, conditions)[0], words, most)

        return self._within_limits(name, count)

    def _having(
        self, name: str, asked: Sequence[list[int]], limit: int, conditions: Sequence[Condition]
    ) -> list[list[StoredPoint]]:
        """Return for each list the best points that have any of its words, with their sparse vectors."""
        search = models.QueryRequest(
            using=SPARSE,
            filter=cast("models.Filter | None", payload_filter(conditions, _ServerDialect())),
            limit=limit,
            with_vector=[SPARSE],
        )
        words = [models.SparseVector(indices=some, values=[1.0] * len(some)) for some in asked]
        requests = [search.model_copy(update={"query": one}) for one in words]
        answers = self._ask(lambda client: client.query_batch_points(name, requests))
        return [[stored_point(point, point.score) for point in answer.points] for answer in answers]

    def facet(self, name: str, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field."""
        wanted: Any = payload_filter(conditions, _ServerDialect())
        found = self._ask(lambda client: client.facet(name, payload_path(field), facet_filter=wanted, limit=limit))
        return {str(hit.value): hit.count for hit in found.hits}

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""
        return self._sparse_count(name) if has_sparse(self._info(name)) else 0

    def _retrieve(self, name: str, ids: list[str], vectors: bool) -> list[StoredPoint]:
        records = self._ask(lambda client: client.retrieve(name, ids, with_payload=True, with_vectors=vectors))
        return [stored_point(record) for record in records]

    def _page(
        self,
        name: str,
        offset: models.ExtendedPointId | None,
        page: int,
        vectors: bool,
        wanted: models.Filter | None,
        limits: Limits,
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        limit = min(page, limits.page)
        options: dict[str, Any] = {"scroll_filter": wanted, "with_payload": True, "with_vectors": vectors}
        return cast(
            "tuple[list[models.Record], models.ExtendedPointId | None]",
            self._ask(lambda client: client.scroll(name, offset=offset, limit=limit, **options)),
        )
