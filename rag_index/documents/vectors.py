"""Checks that a vector must pass before it is used: finite, not all zero, of the right dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def usable_rows(matrix: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return, for a matrix of shape (n, dimension), which rows are finite and not all zero, as shape (n,)."""
    return np.asarray(np.isfinite(matrix).all(axis=1) & matrix.any(axis=1), dtype=np.bool_)


def broken_reason(vector: NDArray[np.float32], dimension: int | None) -> str | None:
    """Return why a vector cannot be right, as words that follow "a vector of"; None if nothing is wrong with it."""
    if dimension is not None and vector.shape != (dimension,):
        return f"{vector.size} dimensions instead of {dimension}"
    if not np.isfinite(vector).all():
        return "values that are not finite"
    return None if vector.any() else "nothing but zeros"
