"""Measures of a ranked list against the documents that are relevant, and what chance explains of a difference.

Recall, MRR and nDCG are those of trec_eval. nDCG is that of Järvelin and Kekäläinen (Cumulated
gain-based evaluation of IR techniques, ACM TOIS 20, 2002) with the grade as gain and the logarithm to base 2 of
rank + 1 as discount. MRR is the mean over all queries of 1 / rank of the first relevant document; for one query it is
that value.

Whether a search got worse, or only looks like it, is told by Fisher's paired randomisation test, which Smucker, Allan
and Carterette recommend for information retrieval (A Comparison of Statistical Significance Tests for Information
Retrieval Evaluation, CIKM 2007). Two rankings are asked the same queries. If they were equally good, the difference of
each query could as well have the other sign. So the test asks how often a mean at least as low as the observed one
comes about if a coin decides every sign. It assumes nothing about how the differences are distributed, which suits
recall, where most of them are 0. It is one-sided, since only a loss is of interest here.

Signs that are turned take twice their sum from the total. So a mean is as low as the observed one if the differences
that were turned sum to 0 or more, and each query has its own coins. Then the result can only fall if any difference
falls, and a query that did not change leaves it as it is.

An interval is that of the percentile bootstrap (Efron and Tibshirani: An Introduction to the Bootstrap, 1993, ch. 13):
the queries are drawn again and again, with replacement, and 95% of the means lie within it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Document = TypeVar("Document", bound="Hashable")

METRIC_NAMES = {"recall": "recall", "mrr": "MRR", "ndcg": "nDCG"}
MAX_CUTOFF = 1000
_METRIC = re.compile(r"\s*(?P<name>[^@]+?)\s*@\s*(?P<cutoff>\d{1,6})\s*")

LEVEL = 0.05
"""A loss that chance explains no more often than this counts as real."""
POWER = 0.9
THROWS = 20_000
"""How often the coins are thrown, a multiple of 8; a p-value of 0.05 is then off by 0.0015 or so."""

EPSILON = 1e-9
"""Sums that differ by less are equal: they are sums of floats in another order."""

RANDOMISATION_SEED = 2007
SAMPLES = 2000
SEED = 20_250_101
"""Fixed, so that the same values give the same interval."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of the best `cutoff` hits, such as recall@10. A greater value is better; the best is 1."""

    name: str
    cutoff: int

    def __str__(self) -> str:
        return f"{self.name}@{self.cutoff}"


def parse_metric(text: str) -> Metric:
    """Return the metric of a name such as `recall@10`, `MRR@10` or `nDCG@10`, in upper or lower case.

    Raises SettingsError if there is no such metric.
    """
    found = _METRIC.fullmatch(text)
    if not found:
        raise SettingsError(f"metric {text!r} needs a number of hits: write it as recall@10, MRR@10 or nDCG@10")
    cutoff, name = int(found["cutoff"]), found["name"]
    if not 1 <= cutoff <= MAX_CUTOFF:
        raise SettingsError(f"metric {text!r} looks at {cutoff:,} hits, and a search returns 1 to {MAX_CUTOFF:,}")
    ours = METRIC_NAMES.get(name.lower())
    if ours is None:
        raise SettingsError(f"metric {text!r} is not one of {', '.join(f'{one}@k' for one in METRIC_NAMES.values())}")
    return Metric(ours, cutoff)


def measure(metric: Metric, ranked: Sequence[Document], grades: Mapping[Document, int]) -> float:
    """Return the measure of a ranked list, best first, that has each document once.

    `grades` has the relevant documents, at least one, each with a grade above 0.
    """
    gains: list[int] = [grades.get(document, 0) for document in ranked[: metric.cutoff]]
    match metric.name:
        case "recall":
            return sum(gain > 0 for gain in gains) / len(grades)
        case "MRR":
            return next((1 / rank for rank, gain in enumerate(gains, 1) if gain > 0), 0.0)
        case _:
            ideal = sorted(grades.values(), reverse=True)[: metric.cutoff]
            return _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))


def chance_of_loss(differences: Sequence[float]) -> float:
    """Return how probable a mean at most as high as this one is if nothing was lost: the p-value, from 0 to 1.

    `differences` has the measure of each query after the change minus that before. The seed is fixed, so the same
    differences give the same value.
    """
    random = np.random.default_rng(RANDOMISATION_SEED)
    turned = np.zeros(THROWS)
    for difference in differences:
        coins = random.bytes(THROWS // 8)
        if difference:
            turned += difference * np.unpackbits(np.frombuffer(coins, np.uint8))
    as_low = int(np.count_nonzero(turned >= -EPSILON))
    return (as_low + 1) / (THROWS + 1)  # the observed signs are one of the throws (Phipson and Smyth, 2010)


def needed_queries(loss: float, *, level: float = LEVEL, lost: float = 1.0, squares: float = 0.0) -> int | None:
    """Return how many queries notice this loss of whole answers with `POWER`; None if no number can, because it is 0.

    `lost` is what a lost answer takes from its query's measure, and `squares` the mean square of the differences that
    are there without any loss. The usual formula for a mean, in which the loss itself adds to the variance.
    """
    if loss <= 0 or lost <= 0:
        return None
    normal = NormalDist()
    deviations = normal.inv_cdf(1 - level) + normal.inv_cdf(POWER)
    return math.ceil(deviations**2 * (squares + loss * lost**2) / (loss * lost) ** 2 - EPSILON)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and the 95% interval around it."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return the mean of these values, one for each query, and its interval. There must be at least one value."""
    given = np.asarray(values, dtype=np.float64)
    random, size = np.random.default_rng(SEED), len(given)
    means = [given[random.integers(0, size, size)].mean() for _ in range(SAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(*(round(float(one), 9) for one in (given.mean(), low, high)))
