"""How long searches take: count, mean and percentiles of each stage and index, in memory that does not grow.

Times are counted in buckets whose bounds grow by 2 percent, so that a percentile is accurate to 1 percent, however
many searches there were.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, SummaryMetricFamily
from prometheus_client.registry import Collector

MIN_SECONDS = 1e-6
"""Shorter times are all in the first bucket."""
MAX_SECONDS = 1e5
"""Longer times count as this long."""
GROWTH = math.log(1.02)
STAGES = ("embed", "fuse", "total")
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """The times of one stage or index, in milliseconds."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class MetricsSnapshot(Collector):
    """The measurements of a Retriever so far.

    `stages` has embed, fuse, rerank (if there is a reranker) and total; `indexes` the response times of each index;
    `errors` how often each index failed to answer. `vectors_asked` counts the query vectors that searches needed,
    `vectors_made` those of them that had to be embedded.
    """

    stages: Mapping[str, StageMetrics]
    indexes: Mapping[str, StageMetrics]
    errors: Mapping[str, int]
    vectors_asked: int
    vectors_made: int

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index search --repeat N --json` prints as `metrics`."""
        return {
            **{name: _rounded(stage) for name, stage in self.stages.items()},
            "indexes": {name: _rounded(stage) for name, stage in self.indexes.items()},
            "errors": dict(self.errors),
            "query_vectors": {"asked": self.vectors_asked, "made": self.vectors_made},
        }

    def to_prometheus(self) -> str:
        """Return the snapshot in Prometheus' text format 0.0.4: two summaries (in seconds) and three counters."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry).decode()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as prometheus_client takes them, whose own Summary has no quantiles."""
        yield _summary("rag_index_search_seconds", "Time of a search stage.", "stage", self.stages)
        yield _summary("rag_index_search_index_seconds", "Response time of an index.", "index", self.indexes)
        failed = "Searches that an index failed to answer."
        errors = CounterMetricFamily("rag_index_search_errors", failed, labels=["index"])
        for index, count in self.errors.items():
            errors.add_metric([index], count)
        yield errors
        needed, embedded = "Query vectors that searches needed.", "Query vectors that had to be embedded."
        yield CounterMetricFamily("rag_index_query_vectors", needed, value=self.vectors_asked)
        yield CounterMetricFamily("rag_index_query_embeds", embedded, value=self.vectors_made)


class Metrics:
    """The recorder of a Retriever's times. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Set all counts and times to zero."""
        with self._lock:
            self._stages = {name: _Histogram() for name in STAGES}
            self._indexes: dict[str, _Histogram] = {}
            self._errors: Counter[str] = Counter()
            self._vectors_asked = self._vectors_made = 0

    def add_search(self, stages: Mapping[str, float]) -> None:
        """Record the seconds that the stages of one search took: embed, fuse, rerank (if it was done) and total."""
        with self._lock:
            for name, seconds in stages.items():
                self._stages.setdefault(name, _Histogram()).add(seconds)

    def add_answers(self, indexes: Mapping[str, float | None]) -> None:
        """Record the response time of each index that one search asked, None for an index that failed to answer."""
        with self._lock:
            for name, seconds in indexes.items():
                if seconds is None:
                    self._errors[name] += 1
                else:
                    self._indexes.setdefault(name, _Histogram()).add(seconds)

    def count_vector(self, *, made: bool) -> None:
        """Count a query vector that a search needed, and whether it has to be embedded."""
        with self._lock:
            self._vectors_asked += 1
            self._vectors_made += made

    def snapshot(self) -> MetricsSnapshot:
        """Return all measurements so far."""
        with self._lock:
            return MetricsSnapshot(
                {name: times.summary() for name, times in self._stages.items()},
                {name: times.summary() for name, times in sorted(self._indexes.items())},
                dict(sorted(self._errors.items())),
                vectors_asked=self._vectors_asked,
                vectors_made=self._vectors_made,
            )


class _Histogram:
    """A histogram of seconds."""

    __slots__ = ("_buckets", "_longest", "_shortest", "_sum")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._sum = 0.0
        self._shortest, self._longest = math.inf, 0.0

    def add(self, seconds: float) -> None:
        seconds = min(max(seconds, 0.0), MAX_SECONDS)
        self._buckets[int(math.log(max(seconds, MIN_SECONDS) / MIN_SECONDS) / GROWTH)] += 1
        self._sum += seconds
        self._shortest, self._longest = min(self._shortest, seconds), max(self._longest, seconds)

    def summary(self) -> StageMetrics:
        count = self._buckets.total()
        if not count:
            return StageMetrics()
        buckets = sorted(self._buckets)
        seen, found = list(accumulate(self._buckets[bucket] for bucket in buckets)), []
        for quantile in QUANTILES:  # by nearest rank: the shortest time that this share of all does not exceed
            bucket = buckets[bisect_left(seen, math.ceil(quantile * count))]
            middle = MIN_SECONDS * math.exp((bucket + 0.5) * GROWTH)
            found.append(1000 * min(max(middle, self._shortest), self._longest))
        return StageMetrics(count, 1000 * self._sum / count, *found)


def _rounded(stage: StageMetrics) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(stage).items()}


def _summary(metric: str, help_text: str, label: str, stages: Mapping[str, StageMetrics]) -> SummaryMetricFamily:
    family = SummaryMetricFamily(metric, help_text, labels=[label])
    for name, stage in stages.items():
        for quantile, milliseconds in zip(QUANTILES, (stage.p50_ms, stage.p95_ms, stage.p99_ms), strict=True):
            family.add_sample(metric, {label: name, "quantile": str(quantile)}, milliseconds / 1000)
        family.add_metric([name], stage.count, stage.count * stage.mean_ms / 1000)
    return family
