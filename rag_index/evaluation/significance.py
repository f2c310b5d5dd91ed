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
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LEVEL", "chance_of_loss", "needed_queries", "smallest_loss"]

LEVEL = 0.05
"""A loss that chance explains no more often than this counts as real."""
LEAST_WORSE = math.ceil(-math.log2(LEVEL))
"""So many queries must get worse, and none better, before coins explain it too seldom: half to the fifth is 0.03."""
THROWS = 100_000
"""How often the signs are thrown; a p-value of 0.05 is then off by 0.001 or so."""
EPSILON = 1e-9
"""Sums that differ by less are equal: they are sums of floats in another order."""
SEED = 2007


def chance_of_loss(differences: Sequence[float]) -> float:
    """Return how probable a mean at most as high as this one is if nothing was lost: the p-value, from 0 to 1.

    `differences` has the measure of each query after the change minus that before. The seed is fixed, so the same
    differences give the same value.
    """
    values = np.asarray(differences, dtype=np.float64)
    observed = float(values.sum())
    sizes, counts = np.unique(np.abs(values[values != 0]), return_counts=True)
    random = np.random.default_rng(SEED)
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
