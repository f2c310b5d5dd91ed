"""Points as qdrant-edge takes and gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.errors import PointsRefused
from rag_index.stores import SPARSE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.sparse import SparseVector

__all__ = ["engine_points", "engine_sparse"]

STEP = 500
"""Vectors turned into lists at a time."""


def engine_sparse(vector: SparseVector) -> e.SparseVector:
    """Return a sparse vector as the engine takes it."""
    return e.SparseVector(list(vector.indices), list(vector.values))


def engine_points(points: PointBatch, vectors: NDArray[np.float32]) -> list[e.Point]:
    """Return points with these vectors (as `unit_vectors` gives them). Raises PointsRefused for bad payloads."""
    built: list[e.Point] = []
    bad: list[str] = []
    reason: Exception | None = None
    for start in range(0, len(points), STEP):
        for i, vector in enumerate(vectors[start : start + STEP].tolist(), start):
            try:
                built.append(e.Point(points.ids[i], _named(vector, points, i), points.payloads[i]))
            except (TypeError, ValueError, OverflowError) as exc:
                bad.append(points.ids[i])
                reason = reason or exc
    if bad:
        what = f"payloads of {len(bad)} points cannot be stored"
        raise PointsRefused(f"{what}, the first is {bad[0]}: {reason}", tuple(bad))
    return built


def _named(vector: list[float], points: PointBatch, row: int) -> Any:
    """Return the vectors of a point: the dense one alone, or both by name."""
    sparse = points.sparse.row(row) if points.sparse is not None else None
    if not sparse:
        return vector
    return {"": vector, SPARSE: engine_sparse(sparse)}
