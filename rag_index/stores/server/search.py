"""A search on a Qdrant server, in as many pages as its limits need."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qdrant_client import models

from rag_index.stores.points import SEARCH_EF

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

    from rag_index.stores.server.limits import Limits

__all__ = ["nearest"]


def nearest(
    client: QdrantClient,
    name: str,
    query: list[float],
    *,
    limit: int,
    query_filter: models.Filter | None,
    exact: bool,
    limits: Limits,
) -> list[models.ScoredPoint]:
    """Return the points nearest to a query, best first."""
    parameters = models.SearchParams(hnsw_ef=min(SEARCH_EF, limits.hnsw_ef), exact=exact)
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
