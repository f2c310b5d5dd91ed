"""Parity of two collections: the same ids, the same vectors, the same nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.stores import Store

__all__ = ["Parity", "Vectors", "parity", "stored_vectors"]

NEIGHBOURS = 10
MAX_QUERIES = 500
"""About how many points have their neighbours compared."""
TIE = 1e-5
"""Similarities that differ by less count as equal, so it does not matter which of two equal neighbours is found."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Point ids, and unit vectors of shape (len(ids), dimension), float32."""

    ids: list[str]
    matrix: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """The result of comparing two sets of points."""

    same_ids: bool
    largest_difference: float
    """Between the two vectors of a point, in any component, over the points that are in both sets."""
    recall: float
    """Share of the ten nearest neighbours in the second set that are as near in the first, 0 to 1."""


def parity(first: Vectors, second: Vectors) -> Parity:
    """Compare two sets of points, in any order."""
    rows = {point: row for row, point in enumerate(second.ids)}
    shared = [(row, rows[point]) for row, point in enumerate(first.ids) if point in rows]
    same = len(shared) == len(first.ids) == len(second.ids)
    if not shared:
        return Parity(same, 0.0, 1.0 if same else 0.0)
    one = first.matrix[[row for row, _ in shared]]
    other = second.matrix[[row for _, row in shared]]
    if one.shape != other.shape:
        return Parity(same, float("inf"), 0.0)
    return Parity(same, float(np.abs(one - other).max()), _recall(one, other))


def _recall(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the share of neighbours found by `other` that are no further away, by `one`, than its tenth neighbour."""
    count = min(NEIGHBOURS, len(one) - 1)
    if count < 1:
        return 1.0
    hits = total = 0
    for row in range(0, len(one), max(1, len(one) // MAX_QUERIES)):
        expected, actual = one @ one[row], other @ other[row]
        expected[row] = actual[row] = -np.inf
        limit = np.partition(expected, -count)[-count]
        nearest = np.argpartition(actual, -count)[-count:]
        hits += int((expected[nearest] >= limit - TIE).sum())
        total += count
    return hits / total


def stored_vectors(store: Store, collection: str) -> Vectors:
    """Return all points of a collection."""
    points = list(store.scroll(collection, vectors=True))
    return Vectors([point.id for point in points], np.array([point.vector for point in points], dtype=np.float32))
