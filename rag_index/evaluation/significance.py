"""Whether a search got worse, or only looks like it: the paired randomisation test of two rankings.

Both are asked the same queries, and each query gives a difference of its measure. If the rankings were equally good,
each difference could as well have the other sign. So the test asks how often a mean at least as low as the observed one
comes about if a coin decides every sign. This is Fisher's randomisation test, which Smucker, Allan and Carterette
recommend for information retrieval (A Comparison of Statistical Significance Tests for Information Retrieval
Evaluation, CIKM 2007). It assumes nothing about how the differences are distributed, which suits recall, where most of
them are 0.

It is one-sided, since only a loss is of interest here, at the level 0.05. The hypothesis is that nothing was lost, and
not that as much as is allowed was lost: of 300 queries, nine lost answers (3 points) are far from chance (p = 0.002),
but cannot be told from six (2 points) with any confidence. How much may be lost is decided by the measured loss.

An interval is that of the percentile bootstrap (Efron and Tibshirani: An Introduction to the Bootstrap, 1993, ch. 13):
the queries are drawn again and again, with replacement, and 95% of the means lie within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEVEL = 0.05
"""A loss that chance explains no more often than this counts as real."""

LEAST_WORSE = math.ceil(-math.log2(LEVEL))
"""So many queries must get worse, and none better, before coins explain it too seldom: half to the fifth is 0.03."""

THROWS = 100_000
"""How often the signs are thrown; a p-value of 0.05 is then off by 0.001 or so."""

EPSILON = 1e-9
"""Sums that differ by less are equal: they are sums of floats in another order."""

RANDOMISATION_SEED = 2007
SAMPLES = 2000
SEED = 20_250_101
"""Fixed, so that the same values give the same interval."""
CONFIDENCE = 0.95
BLOCK = 2_000_000
"""Draws held in memory at once."""


def chance_of_loss(differences: Sequence[float]) -> float:
    """Return how probable a mean at most as high as this one is if nothing was lost: the p-value, from 0 to 1.

    `differences` has the measure of each query after the change minus that before. The seed is fixed, so the same
    differences give the same value.
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = float(values.sum())
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    random = np.random.default_rng(RANDOMISATION_SEED)
    sums = np.zeros(THROWS)
    for size, count in zip(sizes, counts, strict=True):  # the sum of `count` coins that each win or lose `size`
        sums += size * (2.0 * random.binomial(count, 0.5, THROWS) - count)
    as_low = int(np.count_nonzero(sums <= observed + EPSILON))
    return (as_low + 1) / (THROWS + 1)  # the observed signs are one of the throws (Phipson and Smyth, 2010)


def smallest_loss(queries: int) -> float | None:
    """Return the smallest loss of whole answers that this many queries can tell from chance; None if there is none."""
    return LEAST_WORSE / queries if queries >= LEAST_WORSE else None


def needed_queries(loss: float) -> int | None:
    """Return how many queries can tell this loss of whole answers from chance; None if no number can."""
    return math.ceil(LEAST_WORSE / loss - EPSILON) if loss > 0 else None


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
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(given.mean()), float(low), float(high))
