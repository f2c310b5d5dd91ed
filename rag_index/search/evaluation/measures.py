"""Measures of a ranked list against the relevant documents, and intervals of their means.

Recall, MRR and nDCG are those of trec_eval. nDCG is that of Järvelin and Kekäläinen (Cumulated
gain-based evaluation of IR techniques, ACM TOIS 20, 2002) with the grade as gain and the logarithm
to base 2 of rank + 1 as discount. MRR is the mean over all queries of 1 / rank of the first
relevant document; for one query it is that value.

An interval is that of the percentile bootstrap (Efron and Tibshirani: An Introduction to the
Bootstrap, 1993, ch. 13): queries are drawn with replacement, many times, and 95% of the means lie
within it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Document = TypeVar("Document", bound="Hashable")

METRIC_NAMES = {"recall": "recall", "mrr": "MRR", "ndcg": "nDCG"}
MAX_CUTOFF = 1000
"""The most hits of a search."""
_METRIC = re.compile(r"\s*(?P<name>[^@]+?)\s*@\s*(?P<cutoff>\d{1,6})\s*")

SAMPLES = 2000
"""Draws of the bootstrap. Chosen; nothing else depends on it."""
SEED = 20_250_101
"""Fixed, so that the same values give the same interval."""
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Metric:
    """A measure of the best `cutoff` hits, such as recall@10. A greater value is better; the best
    is 1."""

    name: str
    cutoff: int

    def __str__(self) -> str:
        return f"{self.name}@{self.cutoff}"


def parse_metric(text: str) -> Metric:
    """Return the metric of a name such as `recall@10`, `MRR@10` or `nDCG@10`. Its case is ignored.

    Raises SettingsError if there is no such metric.
    """
    found = _METRIC.fullmatch(text)
    if not found:
        raise SettingsError(
            f"metric {text!r} needs a number of hits: write it as recall@10, MRR@10 or nDCG@10"
        )
    cutoff = int(found["cutoff"])
    if not 1 <= cutoff <= MAX_CUTOFF:
        raise SettingsError(
            f"metric {text!r} looks at {cutoff:,} hits, and a search returns 1 to {MAX_CUTOFF:,}"
        )
    name = METRIC_NAMES.get(found["name"].lower())
    if name is None:
        known = ", ".join(f"{name}@k" for name in METRIC_NAMES.values())
        raise SettingsError(f"metric {text!r} is not one of {known}")
    return Metric(name, cutoff)


def measure(metric: Metric, ranked: Sequence[Document], grades: Mapping[Document, int]) -> float:
    """Return the value of a metric for a ranked list, from 0 to 1.

    Args:
        ranked: The hits, best first, each document once.
        grades: The relevant documents, at least one, each with a grade above 0.
    """
    gains = [grades.get(document, 0) for document in ranked[: metric.cutoff]]
    if metric.name == "recall":
        found = sum(gain > 0 for gain in gains)
        return found / len(grades)
    # 1 for a relevant document at rank 1, 1/2 for the first at rank 2.
    if metric.name == "MRR":
        return next((1 / rank for rank, gain in enumerate(gains, 1) if gain > 0), 0.0)
    # nDCG: the discounted gains as a share of those of the best order.
    ideal = sorted(grades.values(), reverse=True)[: metric.cutoff]
    return _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    """Return the discounted cumulated gain of grades in the order of their ranks."""
    discounted = (gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
    return sum(discounted)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and the 95% interval around it."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return the mean of at least one value, and its interval, each to 9 digits."""
    given = np.asarray(values, dtype=np.float64)
    size = len(given)
    random = np.random.default_rng(SEED)
    means = [given[random.integers(0, size, size)].mean() for _ in range(SAMPLES)]
    outside = 1 - CONFIDENCE
    low, high = np.quantile(means, [outside / 2, (1 + CONFIDENCE) / 2])
    return Estimate(round(float(given.mean()), 9), round(float(low), 9), round(float(high), 9))
