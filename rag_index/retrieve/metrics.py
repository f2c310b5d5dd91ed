"""How long searches take: count, mean and percentiles of each stage and index, in memory that does not grow.

Times are counted in buckets whose bounds grow by 2 percent, so that a percentile is right to 1 percent, however many
searches there were.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Metrics", "MetricsSnapshot", "StageMetrics"]

LEAST = 1e-6
"""Seconds: shorter times are all in the first bucket."""
MOST = 1e5
GROWTH = math.log(1.02)
STAGES = ("embed", "fuse", "total")
QUANTILES = (0.5, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """Times of one stage or index, in milliseconds."""

    count: int = 0
    mean_ms: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0

    def quantiles(self) -> Iterator[tuple[float, float]]:
        """(quantile, milliseconds)."""
        return zip(QUANTILES, (self.p50_ms, self.p95_ms, self.p99_ms), strict=True)


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
    """What a Retriever measured so far.

    `stages` has embed, fuse and total; `indexes` the answer times of each index; `errors` how often each index gave
    none; `vectors_asked` how many query vectors searches had, `vectors_made` how many of them had to be embedded.
    """

    stages: Mapping[str, StageMetrics]
    indexes: Mapping[str, StageMetrics]
    errors: Mapping[str, int]
    vectors_asked: int
    vectors_made: int

    def to_json(self) -> dict[str, Any]:
        """As `rag-index search --repeat N --json` prints it."""
        return {
            **{name: _rounded(stage) for name, stage in self.stages.items()},
            "indexes": {name: _rounded(stage) for name, stage in self.indexes.items()},
            "errors": dict(self.errors),
            "query_vectors": {"asked": self.vectors_asked, "made": self.vectors_made},
        }

    def to_prometheus(self) -> str:
        """Prometheus' text format, version 0.0.4: two summaries (seconds) and two counters."""
        lines = [
            "# HELP rag_index_search_seconds Time of a stage of searching.",
            "# TYPE rag_index_search_seconds summary",
        ]
        for name, stage in self.stages.items():
            lines += _summary("rag_index_search_seconds", "stage", name, stage)
        lines += [
            "# HELP rag_index_search_index_seconds Time until an index answered.",
            "# TYPE rag_index_search_index_seconds summary",
        ]
        for name, stage in self.indexes.items():
            lines += _summary("rag_index_search_index_seconds", "index", name, stage)
        lines += [
            "# HELP rag_index_search_errors_total Searches to which an index gave no answer.",
            "# TYPE rag_index_search_errors_total counter",
            *(f"rag_index_search_errors_total{{{_label('index', name)}}} {n}" for name, n in self.errors.items()),
            "# HELP rag_index_query_vectors_total Query vectors that searches had.",
            "# TYPE rag_index_query_vectors_total counter",
            f"rag_index_query_vectors_total {self.vectors_asked}",
            "# HELP rag_index_query_embeds_total Query vectors that had to be embedded.",
            "# TYPE rag_index_query_embeds_total counter",
            f"rag_index_query_embeds_total {self.vectors_made}",
        ]
        return "\n".join(lines) + "\n"


class Metrics:
    """Takes times from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def clear(self) -> None:
        """Count from zero."""
        with self._lock:
            self._stages = {name: _Times() for name in STAGES}
            self._indexes: dict[str, _Times] = {}
            self._errors: Counter[str] = Counter()
            self._vectors_asked = self._vectors_made = 0

    def search(self, stages: Mapping[str, float]) -> None:
        """A search was answered: seconds of embed, fuse and total."""
        with self._lock:
            for name, seconds in stages.items():
                self._stages[name].add(seconds)

    def answers(self, indexes: Mapping[str, float | None]) -> None:
        """Each index that was asked: seconds, None where it gave no answer."""
        with self._lock:
            for name, seconds in indexes.items():
                if seconds is None:
                    self._errors[name] += 1
                else:
                    self._indexes.setdefault(name, _Times()).add(seconds)

    def asked_vector(self) -> None:
        """A search had a query's vector."""
        with self._lock:
            self._vectors_asked += 1

    def made_vector(self) -> None:
        """A query was sent to its embedder."""
        with self._lock:
            self._vectors_made += 1

    def snapshot(self) -> MetricsSnapshot:
        """All so far."""
        with self._lock:
            return MetricsSnapshot(
                {name: times.summary() for name, times in self._stages.items()},
                {name: times.summary() for name, times in sorted(self._indexes.items())},
                dict(sorted(self._errors.items())),
                vectors_asked=self._vectors_asked,
                vectors_made=self._vectors_made,
            )


class _Times:
    """A histogram of seconds."""

    __slots__ = ("_buckets", "_longest", "_shortest", "_sum")

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self._sum = 0.0
        self._shortest, self._longest = math.inf, 0.0

    def add(self, seconds: float) -> None:
        seconds = min(max(seconds, 0.0), MOST)
        self._buckets[int(math.log(max(seconds, LEAST) / LEAST) / GROWTH)] += 1
        self._sum += seconds
        self._shortest, self._longest = min(self._shortest, seconds), max(self._longest, seconds)

    def summary(self) -> StageMetrics:
        count = self._buckets.total()
        if not count:
            return StageMetrics()
        p50, p95, p99 = (1000 * self._quantile(q, count) for q in QUANTILES)
        return StageMetrics(count, 1000 * self._sum / count, p50, p95, p99)

    def _quantile(self, quantile: float, count: int) -> float:
        """The nearest rank: the least time that at least this share of all does not exceed."""
        wanted, seen = math.ceil(quantile * count), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= wanted:
                middle = LEAST * math.exp((bucket + 0.5) * GROWTH)
                return min(max(middle, self._shortest), self._longest)
        return self._longest


def _rounded(stage: StageMetrics) -> dict[str, float]:
    return {name: round(value, 3) for name, value in asdict(stage).items()}


def _summary(metric: str, label: str, name: str, stage: StageMetrics) -> Iterator[str]:
    which = _label(label, name)
    for quantile, milliseconds in stage.quantiles():
        yield f'{metric}{{{which},quantile="{quantile}"}} {milliseconds / 1000:.9g}'
    yield f"{metric}_sum{{{which}}} {stage.count * stage.mean_ms / 1000:.9g}"
    yield f"{metric}_count{{{which}}} {stage.count}"


def _label(name: str, value: str) -> str:
    escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
    return f'{name}="{escaped}"'
