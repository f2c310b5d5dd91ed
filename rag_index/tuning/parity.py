"""Whether two collections hold the same: ids, vectors, and who is whose neighbour."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Parity", "Vectors", "parity"]

NEIGHBOURS = 10
MAX_ASKED = 500
"""Points whose neighbours are compared."""
TIE = 1e-5
"""Similarities that differ by less are equal: which of two equal neighbours is found says nothing."""


@dataclass(frozen=True, slots=True)
class Vectors:
    """Point ids, and unit vectors of shape (len(ids), dimension), float32."""

    ids: list[str]
    matrix: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Parity:
    """How alike two sets of points are."""

    same_ids: bool
    largest_difference: float
    """Between any two numbers of a point's two vectors, of the points that both have."""
    recall: float
    """Share of the ten nearest neighbours in one set that are as near in the other (0 to 1)."""


def parity(first: Vectors, second: Vectors) -> Parity:
    """Compare two sets of points; the order in which they come does not matter."""
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
    """Neighbours that `other` finds count where, by `one`, none of them is further than the tenth."""
    count = min(NEIGHBOURS, len(one) - 1)
    if count < 1:
        return 1.0
    found = asked = 0
    for row in range(0, len(one), max(1, len(one) // MAX_ASKED)):
        true, seen = one @ one[row], other @ other[row]
        true[row] = seen[row] = -np.inf
        limit = np.partition(true, -count)[-count]
        nearest = np.argpartition(seen, -count)[-count:]
        found += int((true[nearest] >= limit - TIE).sum())
        asked += count
    return found / asked
