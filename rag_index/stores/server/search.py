"""Searches and filtered reads on a Qdrant server, in as many requests as its limits need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from qdrant_client import models

from rag_index.stores import SPARSE
from rag_index.stores.points import SEARCH_EF
from rag_index.stores.server.configuration import search_quantization

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qdrant_client import QdrantClient

    from rag_index.settings import ServerSettings
    from rag_index.stores.hybrid import LookUp
    from rag_index.stores.server.limits import Limits

T = TypeVar("T")

MAX_IDS = 1000
"""Ids or keys per request."""


def search_params(settings: ServerSettings, limits: Limits, *, exact: bool) -> models.SearchParams:
    """Return how the server searches. An exact search reads the vectors themselves, whatever is compressed."""
    return models.SearchParams(
        hnsw_ef=min(SEARCH_EF, limits.hnsw_ef),
        exact=exact,
        quantization=None if exact else search_quantization(settings, limits.oversampling),
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
