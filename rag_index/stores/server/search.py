"""Searches and filtered reads on a Qdrant server, in as many requests as its limits need."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from rag_index.stores import SPARSE
from rag_index.stores.points import SEARCH_EF
from rag_index.stores.server.configuration import search_quantization

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qdrant_client import QdrantClient

    from rag_index.settings import ServerSettings
    from rag_index.stores.hybrid import LookUp
    from rag_index.stores.server.limits import Limits

MAX_IDS = 1000
"""Ids per request."""


def search_params(settings: ServerSettings, limits: Limits, *, exact: bool) -> models.SearchParams:
    """Return how the server searches. An exact search reads the vectors themselves, whatever is compressed."""
    return models.SearchParams(
        hnsw_ef=min(SEARCH_EF, limits.hnsw_ef),
        exact=exact,
        quantization=None if exact else search_quantization(settings, limits.oversampling),
    )


def nearest(
    client: QdrantClient,
    name: str,
    query: list[float],
    *,
    limit: int,
    query_filter: models.Filter | None,
    parameters: models.SearchParams,
    limits: Limits,
) -> list[models.ScoredPoint]:
    """Return the points nearest to a query, best first."""
    found: dict[object, models.ScoredPoint] = {}
    for offset in range(0, limit, min(limit, limits.page)):
        page = min(limits.page, limit - offset)
        points = client.query_points(
            name, query=query, limit=page, offset=offset or None,
            query_filter=query_filter, search_params=parameters, with_payload=True,
        ).points  # fmt: skip
        for point in points:
            found.setdefault(point.id, point)  # writes may move a point from one page to the next
        if len(points) < page:
            break
    return list(found.values())


def meeting(
    client: QdrantClient, *, name: str, ids: Sequence[str], wanted: models.Filter, vectors: bool, limits: Limits
) -> list[models.Record]:
    """Return those of the points with these ids that meet a filter, with payload: only a scroll can ask for both."""
    found: list[models.Record] = []
    size = min(MAX_IDS, limits.values, limits.page)
    for start in range(0, len(ids), size):
        some = list[Any](ids[start : start + size])
        has_id: Any = models.HasIdCondition(has_id=some)
        which = models.Filter(must=[has_id, wanted])
        found += client.scroll(name, which, limit=len(some), with_payload=True, with_vectors=vectors)[0]
    return found


@dataclass(frozen=True, slots=True)
class HybridSearch:
    """A search by both vectors of a collection."""

    near: list[float]
    words: models.SparseVector
    query_filter: models.Filter | None
    exact: bool
    payload: bool
    settings: ServerSettings

    def look_up(
        self, client: QdrantClient, name: str, wanted: Sequence[LookUp], limits: Limits
    ) -> list[list[models.ScoredPoint]]:
        """Return the points of each look-up, of all in one request."""
        requests = [(number, request) for number, one in enumerate(wanted) for request in self._requests(one, limits)]
        found: list[list[models.ScoredPoint]] = [[] for _ in wanted]
        answers = client.query_batch_points(name, [request for _, request in requests])
        for (number, _), answer in zip(requests, answers, strict=True):
            found[number] += answer.points
        return [list({point.id: point for point in points}.values()) for points in found]

    def _params(self, wanted: LookUp, limits: Limits) -> models.SearchParams:
        params = search_params(self.settings, limits, exact=self.exact and not wanted.sparse)
        return params.model_copy(update={"quantization": None}) if wanted.sparse else params

    def _requests(self, wanted: LookUp, limits: Limits) -> Iterator[models.QueryRequest]:
        """Yield the searches of a look-up: pages of the best points, or parts of its ids."""
        search = models.QueryRequest(
            query=self.words if wanted.sparse else self.near,
            using=SPARSE if wanted.sparse else None,
            filter=self.query_filter,
            params=self._params(wanted, limits),
            with_payload=self.payload and not wanted.ids,
        )
        if wanted.ids:
            size = min(limits.values, limits.page)
            for start in range(0, len(wanted.ids), size):
                ids = wanted.ids[start : start + size]
                has_id: Any = models.HasIdCondition(has_id=list[Any](ids))
                yield search.model_copy(update={"limit": len(ids), "filter": models.Filter(must=[has_id])})
            return
        for offset in range(0, wanted.limit, min(wanted.limit, limits.page)):
            page = min(limits.page, wanted.limit - offset)
            yield search.model_copy(update={"limit": page, "offset": offset or None})
