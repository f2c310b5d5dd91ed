"""How long searches take: what `/metrics` tells, and how often and how long each stage and index was asked."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Histogram

STAGES = ("embed", "fuse", "total")
BUCKETS = tuple(float(f"{size}e{power}") for power in range(-4, 2) for size in (1, 1.5, 2, 3, 5, 7))
"""The bounds of the times that are counted together, in seconds."""


class Metrics:
    """The recorder of a Retriever's times. Safe to use from any thread."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        timed, counted = partial(Histogram, buckets=BUCKETS, registry=registry), partial(Counter, registry=registry)
        self._stages = timed("rag_index_search_seconds", "Time of a search stage.", ["stage"])
        for stage in STAGES:
            self._stages.labels(stage)
        self._indexes = timed("rag_index_search_index_seconds", "Response time of an index.", ["index"])
        self._errors = counted("rag_index_search_errors", "Searches that an index failed to answer.", ["index"])
        self._asked = counted("rag_index_query_vectors", "Query vectors that searches needed.")
        self._made = counted("rag_index_query_embeds", "Query vectors that had to be embedded.")

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
