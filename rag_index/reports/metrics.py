"""Metrics of a run: the seconds of each stage, the work of workers and hosts, and what would make it faster."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.documents.batches import ShardStats
    from rag_index.settings import EmbedderSettings, ParallelSettings

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

MIN_BUSY = 0.85
"""Utilisation from which the workers are the bottleneck."""
MAX_RATE_LIMITED = 0.05
"""Share of requests that may be answered by asking for a pause."""
MAX_RETRIED = 0.1
"""Share of requests that may have to be repeated."""
MAX_SPLIT = 0.1
"""Share of requests that may be for parts of batches that were refused."""
AT_BOUND = 0.9
"""Share of `max_shard_documents` from which this bound, not `shard_seconds`, decides how large shards are."""
LARGE_SHARE = 0.5
"""Share of the time from which one stage dominates a run."""
MAX_UNEVEN = 0.25
"""Idle time next to the busiest worker, relative to the time of all workers, from which the work was uneven."""
SMALL_RUN = 10.0
"""Seconds. A shorter run says little about what to change."""
HIGH_LOAD = 1.5
"""Load per processor from which other programs slow down an Ollama server on this machine."""


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


def advice(
    metrics: RunMetrics, embedder: EmbedderSettings, parallel: ParallelSettings, *, on_server: bool = False
) -> str:
    """Return one sentence that names the bottleneck of the run and the setting or machine that would change it.

    `on_server` says that the store is a server already.
    """
    if not metrics.shards:
        return "nothing had to be embedded"
    if metrics.rate_limited > metrics.requests * MAX_RATE_LIMITED:
        return (
            f"{metrics.rate_limited} of {metrics.requests} requests were told to wait: lower requests_in_flight "
            "or the number of workers"
        )
    if metrics.retries > metrics.requests * MAX_RETRIED:
        return f"{metrics.retries} of {metrics.requests} requests had to be repeated: check the embedder's log"
    if metrics.splits > metrics.requests * MAX_SPLIT:
        return (
            f"{metrics.splits} of {metrics.requests} requests were for parts of batches that were refused because of a "
            "text: a smaller chunk_chars avoids texts that are too long, `rag-index failed` lists texts that were not "
            "embedded"
        )
    if metrics.contexts_made and metrics.chunk_seconds > LARGE_SHARE * metrics.worker_seconds:
        return (
            f"writing contexts took {metrics.chunk_seconds / metrics.worker_seconds:.0%} of the workers' time: "
            "a smaller model, more hosts, or more slots (OLLAMA_NUM_PARALLEL) with a higher concurrency would help"
        )
    written = metrics.write_seconds - metrics.stages.get("upsert", 0.0)  # by workers
    if metrics.utilisation < MIN_BUSY and written > max(metrics.worker_seconds, SMALL_RUN):
        return (
            f"workers busy {metrics.utilisation:.0%}, because they waited for the store: writing took {written:.0f} s, "
            f"embedding {metrics.worker_seconds:.0f} s; a faster disk or more processors for Qdrant would help, and "
            "`bulk` of [store.server] the first load"
        )
    flow_waited = metrics.stages.get("wait", 0.0) > LARGE_SHARE * metrics.seconds
    if metrics.utilisation >= MIN_BUSY or (flow_waited and metrics.seconds >= SMALL_RUN and not _is_uneven(metrics)):
        return f"workers busy {metrics.utilisation:.0%}{_advice_on_workers(metrics, embedder)}"
    if metrics.seconds < SMALL_RUN:
        return f"workers busy {metrics.utilisation:.0%}: the run was too small for a cluster to matter"
    return f"workers busy {metrics.utilisation:.0%}, {_advice_on_flow(metrics, parallel, on_server=on_server)}"


def _is_uneven(metrics: RunMetrics) -> bool:
    """Return whether one worker had so much more to do that the others were idle for long."""
    busiest = max(metrics.by_worker.values(), default=0.0)
    return metrics.workers * busiest - metrics.worker_seconds > MAX_UNEVEN * metrics.worker_seconds


def _advice_on_workers(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    """Return advice for a run whose workers are the bottleneck."""
    chunking = 1 - metrics.embed_seconds / max(metrics.worker_seconds, 1e-9)
    if metrics.embed_seconds and chunking > LARGE_SHARE:
        return f", {chunking:.0%} of that on chunking, not embedding: more processors and workers would help"
    if not embedder.on_servers and embedder.kind != "sentence-transformers":
        return ": the embedder is the bottleneck; more processors and workers would help"
    if embedder.kind == "sentence-transformers":
        return ": the model is the bottleneck; a GPU (device), or more processors and workers, would help"
    if threads := _advice_on_threads(metrics, embedder):
        return threads
    ollama = "Ollama" if embedder.kind == "ollama" else "embedding"
    if len(embedder.hosts) == 1:
        tried = "; `rag-index tune --local-servers` tries it" if embedder.kind == "ollama" else ""
        return f", one {ollama} server: a second one may help (hosts){tried}"
    return (
        f", {len(embedder.hosts)} {ollama} servers: more servers, on more machines or GPUs, would help; "
        "`rag-index tune` measures it"
    )


def _advice_on_threads(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    """Return advice on num_thread if Ollama's own choice of threads slows it down, "" if not.

    By default Ollama uses as many threads as the machine has processors, and each step waits for the slowest of them.
    If anything else runs on the machine, one of them is always slow.
    """
    local_hosts = len(embedder.local_hosts)
    if embedder.kind != "ollama" or not local_hosts or embedder.num_thread is not None:
        return ""
    remedy = "num_thread = 1 is several times faster in this case; `rag-index tune` finds the best value"
    if local_hosts > 1:
        return (
            f", {local_hosts} Ollama servers on this machine, each with as many threads as it has processors: {remedy}"
        )
    if metrics.load is not None and metrics.load > HIGH_LOAD * metrics.processors:
        processors = f"{metrics.processors} processor{'s' if metrics.processors > 1 else ''}"
        return f", with other programs beside Ollama (load {metrics.load:.1f} on {processors}): {remedy}"
    return ""


def _shard_setting(metrics: RunMetrics, parallel: ParallelSettings) -> str:
    """Return the setting that decided how large the run's shards were."""
    mean = metrics.shard_documents / max(1, metrics.shards)
    if parallel.shard_documents != "auto":
        return "parallel.shard_documents"
    if mean >= AT_BOUND * parallel.max_shard_documents:
        return "parallel.max_shard_documents"
    if parallel.min_shard_documents > 1 and mean <= parallel.min_shard_documents:
        return "parallel.min_shard_documents"
    return "parallel.shard_seconds"


def _advice_on_flow(metrics: RunMetrics, parallel: ParallelSettings, *, on_server: bool) -> str:
    """Return advice for a run whose workers waited for a stage of the flow's process, or for each other."""
    seconds = max(metrics.seconds, 1e-9)
    waited = metrics.stages.get("wait", 0.0) / seconds
    if waited > LARGE_SHARE:
        return (
            f"and the flow waited {waited:.0%} of the time for some of them while others had nothing left to do: "
            f"smaller shards ({_shard_setting(metrics, parallel)}) would help"
        )
    longest = max((name for name in metrics.stages if name != "wait"), key=lambda name: metrics.stages[name])
    share = f"{metrics.stages[longest] / seconds:.0%}"
    server = (
        "a faster disk or more processors for Qdrant would help, and `bulk` of [store.server] the first load"
        if on_server
        else "a Qdrant server accepts vectors directly from the workers"
    )
    sentences = {
        "fetch": f"reading the source took {share}: an index on the key column or larger page_rows would help",
        "diff": f"comparing with the ledger took {share} and most documents had not changed: digest avoids it",
        "submit": f"submit took {share} of the time: larger shards ({_shard_setting(metrics, parallel)}) would help",
        "search index": f'building the search index took {share}: hnsw = "never" leaves it to `rag-index optimize`',
        "upsert": f"writing took {share}: {server}",
        "commit": f"writing the ledger took {share}: put it on a faster disk",
    }
    return sentences.get(longest, f"{longest} took {share} of the time")
