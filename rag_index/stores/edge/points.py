"""Points as qdrant-edge takes and gives them."""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import qdrant_edge as e

from rag_index.errors import PointsRefused
from rag_index.stores import SPARSE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.vectors import SparseVector

STEP = 500
"""Vectors turned into lists at a time."""
NO_WORDS: tuple[list[int], list[float]] = ([], [])


def engine_sparse(vector: SparseVector) -> e.SparseVector:
    """Return a sparse vector as the engine takes it."""
    return e.SparseVector(list(vector.indices), list(vector.values))


def engine_points(points: PointBatch, vectors: NDArray[np.float32]) -> list[e.Point]:
    """Return points with these vectors (as `unit_vectors` gives them). Raises PointsRefused for bad payloads."""
    built: list[e.Point] = []
    bad: list[str] = []
    reason: Exception | None = None
    sparse = points.sparse.lists() if points.sparse is not None else repeat(NO_WORDS, len(points))
    rows = (row for start in range(0, len(points), STEP) for row in vectors[start : start + STEP].tolist())
    for point_id, row, (indices, values), payload in zip(points.ids, rows, sparse, points.payloads, strict=True):
        try:
            vector = {"": row, SPARSE: e.SparseVector(indices, values)} if indices else row
            built.append(e.Point(point_id, vector, payload))
        except (TypeError, ValueError, OverflowError) as exc:
            bad.append(point_id)
            reason = reason or exc
    if bad:
        what = f"payloads of {len(bad)} points cannot be stored"
        raise PointsRefused(f"{what}, the first is {bad[0]}: {reason}", tuple(bad))
    return built
