"""Measures of a ranked list against the documents that are relevant, and how sure their means are.

Recall, MRR and nDCG are those of trec_eval. nDCG is that of Järvelin and Kekäläinen (Cumulated
gain-based evaluation of IR techniques, ACM TOIS 20, 2002) with the grade as gain and the logarithm
to base 2 of rank + 1 as discount. MRR is the mean over all queries of 1 / rank of the first
relevant document; for one query it is that value.

An interval is that of the percentile bootstrap (Efron and Tibshirani: An Introduction to the
Bootstrap, 1993, ch. 13): the queries are drawn again and again, with replacement, and 95% of the
means lie within it.
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
_METRIC = re.compile(r"\s*(?P<name>[^@]+?)\s*@\s*(?P<cutoff>\d{1,6})\s*")

SAMPLES = 2000
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
    """Return the metric of a name such as `recall@10`, `MRR@10` or `nDCG@10`, in upper or lower
    case.

    Raises SettingsError if there is no such metric.
    """
    found = _METRIC.fullmatch(text)
    if not found:
        raise SettingsError(
            f"metric {text!r} needs a number of hits: write it as recall@10, MRR@10 or nDCG@10"
        )
    cutoff, name = int(found["cutoff"]), found["name"]
    if not 1 <= cutoff <= MAX_CUTOFF:
        raise SettingsError(
            f"metric {text!r} looks at {cutoff:,} hits, and a search returns 1 to {MAX_CUTOFF:,}"
        )
    ours = METRIC_NAMES.get(name.lower())
    if ours is None:
        raise SettingsError(
            f"metric {text!r} is not one of"
            f" {', '.join(f'{one}@k' for one in METRIC_NAMES.values())}"
        )
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and the 95% interval around it."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float] | NDArray[np.float64]) -> Estimate:
    """Return the mean of these values, one for each query, and its interval. There must be at least
    one value."""
    given = np.asarray(values, dtype=np.float64)
    random, size = np.random.default_rng(SEED), len(given)
    means = [given[random.integers(0, size, size)].mean() for _ in range(SAMPLES)]
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(*(round(float(one), 9) for one in (given.mean(), low, high)))
