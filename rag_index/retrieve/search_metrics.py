"""How long searches take: what `/metrics` tells, and how often and how long each stage and index was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

STAGES = ("embed", "fuse", "total")
BUCKETS = tuple(float(f"{size}e{power}") for power in range(-4, 2) for size in (1, 1.5, 2, 3, 5, 7))
"""The bounds of the times that are counted together, in seconds."""


@dataclass(frozen=True, slots=True)
class StageMetrics:
    """How often a stage or an index was asked, and its mean time in milliseconds."""

    count: int = 0
    mean_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class MetricsSnapshot:
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
    prometheus: str
    """All of it in Prometheus' text format 0.0.4: two histograms (in seconds) and three counters."""

    def to_prometheus(self) -> str:
        """Return the text that Prometheus reads."""
        return self.prometheus


class Metrics:
    """The recorder of a Retriever's times. Safe to use from any thread."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._stages, self._indexes = (
            Histogram(f"rag_index_search_{name}", text, [label], buckets=BUCKETS, registry=registry)
            for name, text, label in (
                ("seconds", "Time of a search stage.", "stage"),
                ("index_seconds", "Response time of an index.", "index"),
            )
        )
        for stage in STAGES:
            self._stages.labels(stage)
        failed = "Searches that an index failed to answer."
        self._errors = Counter("rag_index_search_errors", failed, ["index"], registry=registry)
        self._asked, self._made = (
            Counter(f"rag_index_query_{name}", text, registry=registry)
            for name, text in (
                ("vectors", "Query vectors that searches needed."),
                ("embeds", "Query vectors that had to be embedded."),
            )
        )

    def add_search(self, stages: Mapping[str, float]) -> None:
        """Record the seconds that the stages of one search took, those that it had."""
        for name, seconds in stages.items():
            self._stages.labels(name).observe(seconds)

    def add_answers(self, indexes: Mapping[str, float | None]) -> None:
        """Record the response time of each index that one search asked, None for an index that failed to answer."""
        for name, seconds in indexes.items():
            if seconds is None:
                self._errors.labels(name).inc()
            else:
                self._indexes.labels(name).observe(seconds)

    def count_vector(self, *, made: bool) -> None:
        """Count a query vector that a search needed, and whether it has to be embedded."""
        self._asked.inc()
        self._made.inc(made)

    def snapshot(self) -> MetricsSnapshot:
        """Return all measurements so far."""
        errors = {index: int(count) for index, count in _by_label(self._errors, "_total")}
        asked, made = (int(_by_label(one, "_total")[0][1]) for one in (self._asked, self._made))
        text = generate_latest(self._registry).decode()
        return MetricsSnapshot(_stages(self._stages), _stages(self._indexes), errors, asked, made, text)


def _stages(times: Histogram) -> dict[str, StageMetrics]:
    """Return the times by stage or index."""
    sums = dict(_by_label(times, "_sum"))
    return {
        name: StageMetrics(int(count), 1000 * sums[name] / count if count else 0.0)
        for name, count in _by_label(times, "_count")
    }


def _by_label(metric: Counter | Histogram, kind: str) -> list[tuple[str, float]]:
    found = next(iter(metric.collect()))
    return [("".join(one.labels.values()), one.value) for one in found.samples if one.name == found.name + kind]
