"""The mean of a measure over queries, and how far another set of such queries could have moved it.

The interval is that of the percentile bootstrap (Efron and Tibshirani: An Introduction to the Bootstrap, 1993, ch. 13):
the queries are drawn again and again, with replacement, and 95% of the means lie within it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Estimate", "estimate"]

SAMPLES = 2000
SEED = 20_250_101
"""Fixed, so that the same values give the same interval."""
LEVEL = 0.95
BLOCK = 2_000_000
"""Draws held in memory at once."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and the 95% interval around it."""

    mean: float
    low: float
    high: float

    def to_json(self) -> dict[str, float]:
        """Return the object that `rag-index evaluate --json` prints."""
        return {"mean": round(self.mean, 6), "low": round(self.low, 6), "high": round(self.high, 6)}


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return the mean of these values, one for each query, and its interval. There must be at least one value."""
    given = np.asarray(values, dtype=np.float64)
    random = np.random.default_rng(SEED)
    rows = max(1, BLOCK // len(given))
    means = np.concatenate(
        [
            given[random.integers(0, len(given), (min(rows, SAMPLES - first), len(given)))].mean(axis=1)
            for first in range(0, SAMPLES, rows)
        ]
    )
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(given.mean()), float(low), float(high))
