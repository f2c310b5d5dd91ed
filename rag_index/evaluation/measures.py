"""Measures of one ranked list against the documents that are relevant: recall, precision, success, MRR and nDCG.

They are those of trec_eval. nDCG is that of Järvelin and Kekäläinen (Cumulated gain-based evaluation of IR techniques,
ACM TOIS 20, 2002) with the grade as gain and the logarithm to base 2 of rank + 1 as discount. MRR is the mean over all
queries of 1 / rank of the first relevant document; for one query it is that value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from rag_index.errors import SettingsError

Document = TypeVar("Document", bound="Hashable")

NAMES = {"recall": "recall", "precision": "precision", "success": "success", "mrr": "MRR", "ndcg": "nDCG"}
SYNONYMS = {"r": "recall", "p": "precision", "rr": "mrr"}
"""The names that ir-measures and trec_eval have for some of them."""
MAX_CUTOFF = 1000
"""The most hits that one search returns."""
_METRIC = re.compile(r"\s*(?P<name>[^@]+?)\s*@\s*(?P<cutoff>\d{1,6})\s*")


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
    lower = name.lower()
    ours = NAMES.get(SYNONYMS.get(lower, lower))
    if ours is None:
        raise SettingsError(f"metric {text!r} is not one of {', '.join(f'{one}@k' for one in NAMES.values())}")
    return Metric(ours, cutoff)


def measure(
    metric: Metric | str, ranked: Sequence[Document], relevant: Mapping[Document, int] | Collection[Document]
) -> float:
    """Return the measure of a ranked list, best first, that has each document once.

    `relevant` has the relevant documents, at least one, or the grade of each. Raises SettingsError for an unknown
    metric, and ValueError if nothing is relevant, since no list could be right.
    """
    metric = parse_metric(metric) if isinstance(metric, str) else metric
    grades = relevant if isinstance(relevant, Mapping) else dict.fromkeys(relevant, 1)
    grades = {document: grade for document, grade in grades.items() if grade > 0}
    if not grades:
        raise ValueError("no document is relevant, so nothing can be measured")
    gains: list[int] = [grades.get(document, 0) for document in ranked[: metric.cutoff]]
    match metric.name:
        case "recall":
            return sum(gain > 0 for gain in gains) / len(grades)
        case "precision":
            return sum(gain > 0 for gain in gains) / metric.cutoff
        case "success":
            return float(any(gains))
        case "MRR":
            return next((1 / rank for rank, gain in enumerate(gains, 1) if gain > 0), 0.0)
        case _:
            ideal = sorted(grades.values(), reverse=True)[: metric.cutoff]
            return _discounted(gains) / _discounted(ideal)


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
