"""Where a run's time went: busy seconds of each stage, and what workers and hosts did."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.documents.batches import ShardStats

__all__ = ["RunMetrics", "Stopwatch"]

STAGES = ("fetch", "diff", "submit", "wait", "upsert", "commit", "delete", "publish")
"""Stages of the flow's process, in their order; `wait` is waiting for workers."""


@dataclass(slots=True)
class RunMetrics:
    """What one run of one index took. Seconds are wall seconds; `stages` add up to what the flow's process did."""

    documents: int = 0
    seconds: float = 0.0
    workers: int = 1
    stages: dict[str, float] = field(default_factory=dict)
    worker_seconds: float = 0.0
    """Seconds in which workers chunked and embedded, summed over workers."""
    embed_seconds: float = 0.0
    """Of these, seconds in which an embedding was under way."""
    chunk_seconds: float = 0.0
    """Of `worker_seconds`, those of cutting, and of writing contexts."""
    first_shard_after: float | None = None
    """Seconds until the first shard was submitted."""
    shards: int = 0
    chunks: int = 0
    texts: int = 0
    repeated: int = 0
    """Chunks that shared the vector of an equal text of their shard."""
    reused: int = 0
    """Chunks whose vector was there from before."""
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    chars: int = 0
    contexts_made: int = 0
    """Chunks whose context a model wrote in this run."""
    contexts_cached: int = 0
    """Chunks whose context had been written before."""
    contexts_missing: int = 0
    """Chunks that are indexed without a context, since none could be had."""
    by_worker: dict[str, float] = field(default_factory=dict)
    """Busy seconds of each worker: host and process id."""
    by_host: dict[str, float] = field(default_factory=dict)
    """Seconds in which a worker had a request under way at a host of the embedder, summed over workers."""
    load: float | None = None
    """Load average of the last minute of the flow's machine, as the run ended, and its processors."""
    processors: int = 1
    symbols: dict[str, int] = field(default_factory=dict)
    """Symbols found in source code, by kind."""
    peak_memory: int = 0
    """Bytes that a worker's process had resident at most."""

    @property
    def speed_up(self) -> float:
        """How many times longer one process would have taken from the first shard to the end, by the workers' busy
        seconds; 0 where there was nothing to embed."""
        there = self.seconds - (self.first_shard_after or 0.0)
        return self.worker_seconds / there if there > 0 and self.shards else 0.0

    @property
    def utilisation(self) -> float:
        """Share of the time from the first shard to the end in which workers were busy, 0 to 1."""
        there = (self.seconds - (self.first_shard_after or 0.0)) * self.workers
        return min(1.0, self.worker_seconds / there) if there > 0 and self.shards else 0.0

    def to_json(self) -> dict[str, Any]:
        """All figures, rounded to milliseconds, with utilisation and advice left to the reader of the whole."""
        values = asdict(self)
        values["utilisation"] = self.utilisation
        values["speed_up"] = self.speed_up
        return {name: _rounded(value) for name, value in values.items()}

    def add(self, stats: ShardStats, chunks: int) -> None:
        """A shard came back from a worker."""
        self.shards += 1
        self.chunks += chunks
        self.worker_seconds += stats.seconds
        self.embed_seconds += stats.embed_seconds
        self.texts += stats.texts
        self.repeated += stats.repeated
        self.reused += stats.reused
        self.requests += stats.requests
        self.retries += stats.retries
        self.rate_limited += stats.rate_limited
        self.chars += stats.chars
        self.chunk_seconds += stats.chunk_seconds
        self.contexts_made += stats.contexts_made
        self.contexts_cached += stats.contexts_cached
        self.contexts_missing += stats.contexts_missing
        for kind, count in stats.symbols.items():
            self.symbols[kind] = self.symbols.get(kind, 0) + count
        self.peak_memory = max(self.peak_memory, stats.peak_memory)
        for host, seconds in stats.host_seconds.items():
            self.by_host[host] = self.by_host.get(host, 0.0) + seconds
        self.by_worker[stats.worker] = self.by_worker.get(stats.worker, 0.0) + stats.seconds


class Stopwatch:
    """Busy seconds by stage. Stages may lie within each other: the inner one's time is not the outer one's."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._stack: list[str] = []
        self._since = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time within the block belongs to `name`."""
        self._charge()
        self._stack.append(name)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()

    def _charge(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return value
