"""Metrics of a run: the seconds of each stage, and the work of workers and hosts."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.documents.batches import ShardStats

STAGES = (
    "start", "fetch", "diff", "workers", "submit", "wait", "embed", "upsert", "commit", "delete", "publish",
    "gate", "search index", "other",
)  # fmt: skip
"""The stages of the flow's process, in order; together they are the whole run.

`start` is everything before the first page (checks, the choice of the collection), `workers` the start of workers, and
`wait` the waiting for them. `embed` is embedding in the flow's own process. `gate` is what it asks
collections: golden queries, and what their scores mean. `other` is what no stage is named for.
"""


SUMMED = (
    "sent_bytes", "embed_seconds", "texts", "repeated", "reused", "requests", "retries", "splits", "rate_limited",
    "chars", "chunk_seconds", "contexts_made", "contexts_cached", "contexts_missing",
)  # fmt: skip
"""What a run has of all its shards together."""
FLOAT_BYTES = 4


@dataclass(slots=True)
class RunMetrics:
    """The metrics of one run of one index, in wall seconds. `stages` divides up the time of the flow's process.

    `ShardStats` says what the fields that `SUMMED` names are.
    """

    documents: int = 0
    seconds: float = 0.0
    workers: int = 1
    stages: dict[str, float] = field(default_factory=dict)
    worker_seconds: float = 0.0
    """Seconds that the workers spent on chunking and embedding, summed over workers."""
    idle_seconds: float = 0.0
    """Seconds from the first shard to the end in which workers had nothing to do, summed over workers."""
    embed_seconds: float = 0.0
    chunk_seconds: float = 0.0
    write_seconds: float = 0.0
    """Seconds spent on writing points to the store, in the flow or summed over workers."""
    first_shard_after: float | None = None
    """Seconds until the first shard was submitted."""
    shards: int = 0
    shard_documents: int = 0
    """Documents in all shards."""
    chunks: int = 0
    texts: int = 0
    repeated: int = 0
    reused: int = 0
    requests: int = 0
    retries: int = 0
    splits: int = 0
    rate_limited: int = 0
    chars: int = 0
    read_bytes: int = 0
    """Bytes of text and payload that were read from the source."""
    sent_bytes: int = 0
    vector_bytes: int = 0
    """Bytes of the vectors that were written to the store."""
    contexts_made: int = 0
    contexts_cached: int = 0
    contexts_missing: int = 0
    by_worker: dict[str, float] = field(default_factory=dict)
    """Busy seconds of each worker, which is named by host name and process id."""
    by_host: dict[str, float] = field(default_factory=dict)
    """Seconds in which a request was running, by host of the embedder, summed over workers."""
    load: float | None = None
    """Load average of the flow's machine over the last minute of the run."""
    processors: int = 1
    """Number of processors of the flow's machine."""
    symbols: dict[str, int] = field(default_factory=dict)
    peak_memory: int = 0
    """The largest resident size of any worker's process, in bytes."""

    @property
    def speed_up(self) -> float:
        """How many times longer a single worker would have taken from the first shard to the end.

        It is computed from the workers' busy seconds, and 0 if nothing had to be embedded.
        """
        elapsed = self.seconds - (self.first_shard_after or 0.0)
        return self.worker_seconds / elapsed if elapsed > 0 and self.shards else 0.0

    @property
    def utilisation(self) -> float:
        """The share (0 to 1) of the time from the first shard to the end in which the workers were busy."""
        return min(1.0, self.worker_seconds / self._available) if self._available > 0 and self.shards else 0.0

    @property
    def _available(self) -> float:
        """The seconds from the first shard to the end, summed over workers."""
        return (self.seconds - (self.first_shard_after or 0.0)) * self.workers

    def end(self, seconds: float, stopwatch: Stopwatch) -> None:
        """Record the run's time, and how it divides into stages."""
        stopwatch.count_rest("other")
        self.seconds = seconds
        self.stages = {name: stopwatch.seconds[name] for name in STAGES if name in stopwatch.seconds}
        self.idle_seconds = max(0.0, self._available - self.worker_seconds) if self.shards else 0.0

    def to_json(self) -> dict[str, Any]:
        """Return all metrics, utilisation and speed-up included, with seconds rounded to milliseconds."""
        values = asdict(self)
        values["utilisation"] = self.utilisation
        values["speed_up"] = self.speed_up
        return {name: _rounded_floats(value) for name, value in values.items()}

    def add(
        self, stats: ShardStats, *, documents: int, chunks: int, dimension: int, write_seconds: float = 0.0
    ) -> None:
        """Add the numbers of a shard that a worker has finished."""
        self.shards += 1
        self.shard_documents += documents
        self.vector_bytes += chunks * dimension * FLOAT_BYTES
        self.chunks += chunks
        self.write_seconds += write_seconds
        self.worker_seconds += stats.seconds
        for name in SUMMED:
            setattr(self, name, getattr(self, name) + getattr(stats, name))
        self.peak_memory = max(self.peak_memory, stats.peak_memory)
        busy = {stats.worker: stats.seconds}
        sums: tuple[tuple[Any, Any], ...] = (
            (self.symbols, stats.symbols), (self.by_host, stats.host_seconds), (self.by_worker, busy),
        )  # fmt: skip
        for of_run, of_shard in sums:
            for name, number in of_shard.items():
                of_run[name] = of_run.get(name, 0) + number


class Stopwatch:
    """The seconds spent in each stage. If stages are nested, time in the inner one does not count for the outer one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._stack: list[str] = []
        self._began = self._since = clock()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time in the block for the stage `name`."""
        self._count_elapsed()
        self._stack.append(name)
        try:
            yield
        finally:
            self._count_elapsed()
            self._stack.pop()

    def count_rest(self, name: str) -> None:
        """Count for the stage `name` all time so far that no stage has."""
        self._count_elapsed()
        self.seconds[name] += max(0.0, self._since - self._began - sum(self.seconds.values()))

    def _count_elapsed(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def _rounded_floats(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: _rounded_floats(inner) for key, inner in value.items()}
    return value
