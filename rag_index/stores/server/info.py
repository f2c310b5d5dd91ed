"""What a server says of a collection."""

from __future__ import annotations

from qdrant_client import models

from rag_index.errors import StoreMismatch
from rag_index.stores import SPARSE

DEFAULT_THRESHOLD = 10_000
"""Kilobytes of vectors that are scanned without a search index, if the server does not name its own threshold."""


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
