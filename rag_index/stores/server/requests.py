"""What every request to a server shares: how it is made, what a collection allows it, and how points are counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from qdrant_client import models

from rag_index.errors import PointsRefused, StoreMismatch, StoreRefused
from rag_index.stores import SPARSE

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import QdrantClient

    from rag_index.settings import ServerSettings
    from rag_index.stores.server.link import Link

T = TypeVar("T")
NO_LIMIT = 2**31
DEFAULT_THRESHOLD = 10_000
"""Kilobytes of vectors that are scanned without a search index, if the server does not name its own threshold."""


class Requests:
    """The requests that every part of the store makes. They write no points, so none is at fault if one is refused."""

    def __init__(self, link: Link, settings: ServerSettings) -> None:
        self._link = link
        self._settings = settings
        self._known_limits: dict[str, Limits] = {}

    def _ask(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what `ask` returns. Raises as `Link.call`, but StoreRefused in place of PointsRefused."""
        try:
            return self._link.call(ask)
        except PointsRefused as exc:
            raise StoreRefused(str(exc)) from exc

    def _within_limits(self, name: str, ask: Callable[[Limits], T]) -> T:
        """Return what `ask` returns, called with the limits of a collection that are known: at first none, as few have.

        If it is refused, the limits are read, and it is called again. Raises StoreRefused if they are not the reason.
        """
        known = self._known_limits.get(name, UNLIMITED)
        try:
            return ask(known)
        except StoreRefused:
            limits = Limits.of(self._info(name))
            if limits == known:
                raise
            self._known_limits[name] = limits
            return ask(limits)

    def names(self) -> set[str]:
        """Return the names of all collections."""
        return {found.name for found in self._ask(lambda client: client.get_collections()).collections}

    def _info(self, name: str) -> models.CollectionInfo:
        """Return what the server says of a collection or alias."""
        return self._ask(lambda client: client.get_collection(name))

    def _update(self, name: str, **changes: Any) -> None:
        """Change a collection's configuration or metadata."""
        self._ask(lambda client: client.update_collection(name, **changes))

    def _count(self, name: str, count_filter: models.Filter | None, *, exact: bool = True) -> int:
        """Return the number of points that meet a filter."""
        return self._ask(lambda client: client.count(name, count_filter=count_filter, exact=exact)).count

    def _sparse_count(self, name: str, *, exact: bool = True) -> int:
        """Return the number of points that have a sparse vector."""
        condition: Any = models.HasVectorCondition(has_vector=SPARSE)
        return self._count(name, models.Filter(must=[condition]), exact=exact)


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for."""

    page: int = NO_LIMIT
    """Points that a scroll or a search may return."""
    values: int = NO_LIMIT
    """Values of one condition of a filter."""
    ids: int = NO_LIMIT
    """Points that may be read by their ids: each is a read for the rate limit."""
    writes: int = NO_LIMIT
    """Points that may be written: each is a write for the rate limit."""
    hnsw_ef: int = NO_LIMIT
    oversampling: float = NO_LIMIT

    @classmethod
    def of(cls, info: models.CollectionInfo) -> Limits:
        """Return the limits of a collection."""
        strict = info.config.strict_mode_config
        if strict is None or not strict.enabled:
            return UNLIMITED
        return cls(
            page=strict.max_query_limit or NO_LIMIT,
            values=strict.condition_max_size or NO_LIMIT,
            ids=strict.read_rate_limit or NO_LIMIT,
            writes=min(strict.upsert_max_batchsize or NO_LIMIT, strict.write_rate_limit or NO_LIMIT),
            hnsw_ef=strict.search_max_hnsw_ef or NO_LIMIT,
            oversampling=strict.search_max_oversampling or NO_LIMIT,
        )


UNLIMITED = Limits()


def vector_params(name: str, info: models.CollectionInfo) -> models.VectorParams:
    """Return what the dense vectors are. Raises StoreMismatch if they have names, which rag-index gives none."""
    found = info.config.params.vectors
    if not isinstance(found, models.VectorParams):
        raise StoreMismatch(f"collection {name} has named vectors: rag-index did not make it; use another project name")
    return found


def has_sparse(info: models.CollectionInfo) -> bool:
    """Return whether points of the collection can have sparse vectors."""
    return SPARSE in (info.config.params.sparse_vectors or {})


def is_indexed(name: str, info: models.CollectionInfo, sparse: int) -> bool:
    """Return False if the server is still building, or a search scans more vectors than it should.

    `sparse` is the number of sparse vectors, which the server counts among the indexed ones.
    """
    threshold = info.config.optimizer_config.indexing_threshold
    if threshold == 0:  # the search index is turned off
        return True
    unindexed = (info.points_count or 0) - indexed_points(info, sparse)
    scanned = unindexed * vector_params(name, info).size * 4
    allowed = (threshold or DEFAULT_THRESHOLD) * 1024 * max(1, info.segments_count)
    return info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.GREY) and scanned <= allowed


def indexed_points(info: models.CollectionInfo, sparse: int) -> int:
    """Return how many points the search index has. `sparse` is as for `is_indexed`."""
    return min(info.points_count or 0, max(0, (info.indexed_vectors_count or 0) - sparse))
