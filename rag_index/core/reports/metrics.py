"""Metrics of a run: the seconds of each stage, the work of the workers; and in words what they say."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.core.documents.batches import ShardStats, WrittenShard
from rag_index.core.reports.outcome import count_of, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.core.settings import EmbedderSettings

STAGES = (
    "start", "fetch", "diff", "words", "workers", "submit", "wait", "embed", "upsert", "commit", "delete", "publish",
    "gate", "erase", "search index", "other",
)  # fmt: skip
"""The stages of the flow's process, in order; together they are the whole run. `start` is everything before the first
page (checks, the choice of the collection), `workers` the start of workers, and `wait` the waiting for them. `words` is
the pass that writes documents by their words first, and `embed` embedding in the flow's own process. `gate` is what it
asks collections: golden queries, and what their scores mean. `other` is what no stage is named for."""

# Shares from which the advice names a cause
MIN_BUSY = 0.85  # of the time, workers: then they are the bottleneck
MAX_RETRIED = 0.05  # of the requests, repeated
LARGE_SHARE = 0.5  # of the time, one stage
SMALL_RUN = 10.0
"""Seconds. A shorter run says little about what to change."""

SHORT_STAGE = 0.05
MAX_WORSE = 20
_FASTER_QDRANT = "a faster disk or more processors for Qdrant would help"
FASTER_OLLAMA = (
    "more at a time is not faster, since Ollama embeds one text after another: a server that batches "
    '(kind = "openai": vLLM, TEI, Infinity) makes far more of a GPU, or one more server on another machine; '
    "`rag-index benchmark`, with and without `num_thread = 1`, measures threads"
)


@dataclass(slots=True)
class RunMetrics:
    """The metrics of one run of one index, in wall seconds. `stages` divides up the time of the flow's process."""

    documents: int = 0
    seconds: float = 0.0
    workers: int = 1
    workers_died: int = 0
    """Dask workers that died while the run used them, for whatever reason."""
    stages: dict[str, float] = field(default_factory=dict)
    work: ShardStats = field(default_factory=ShardStats)
    """The sum over all shards, that is, over all workers."""
    write_seconds: float = 0.0
    """Seconds spent on writing points to the store, in the flow or summed over workers."""
    first_shard_after: float | None = None
    outage_seconds: float = 0.0
    """Seconds since the first shard in which a service did not answer."""
    shards: int = 0
    chunks: int = 0

    @property
    def working_seconds(self) -> float:
        """The seconds from the first shard to the end in which all services answered."""
        return self.seconds - (self.first_shard_after or 0.0) - self.outage_seconds

    @property
    def utilisation(self) -> float:
        """The share (0 to 1) of the working seconds in which the workers were busy."""
        available = self.working_seconds * self.workers
        return min(1.0, self.work.seconds / available) if available > 0 and self.shards else 0.0

    def end(self, seconds: float, stopwatch: Stopwatch) -> None:
        """Record the run's time, and how it divides into stages."""
        stopwatch.count_rest("other")
        self.seconds = seconds
        self.stages = {name: stopwatch.seconds[name] for name in STAGES if name in stopwatch.seconds}

    def to_json(self) -> dict[str, Any]:
        """Return all metrics, with the utilisation, and seconds rounded to milliseconds."""
        values = asdict(self)
        work = values.pop("work")
        work["worker_seconds"] = work.pop("seconds")
        return dict(rounded({**values, **work, "utilisation": self.utilisation}, 3))

    def add(self, written: WrittenShard) -> None:
        """Add the numbers of a shard that a worker has finished."""
        self.shards += 1
        self.chunks += sum(written.chunk_counts)
        self.write_seconds += written.write_seconds
        self.work = self.work.plus(written.stats)


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


def advice(metrics: RunMetrics, embedder: EmbedderSettings, *, on_server: bool = False) -> str:
    """Return one sentence that names the bottleneck of the run and the setting or machine that would change it.
    `on_server` says that the store is a server already."""
    if not metrics.shards:
        return "nothing had to be embedded"
    work = metrics.work
    busy = f"workers busy {metrics.utilisation:.0%}"
    if work.retries > work.requests * MAX_RETRIED:
        return (
            f"{work.retries} of {work.requests} requests had to be repeated, {work.rate_limited} because a server "
            "asked for a pause: lower requests_in_flight or the number of workers, and check the embedder's log"
        )
    if work.contexts_made and work.chunk_seconds > LARGE_SHARE * work.seconds:
        return (
            f"writing contexts took {work.chunk_seconds / work.seconds:.0%} of the workers' time: "
            "a smaller model, more hosts, or more slots (OLLAMA_NUM_PARALLEL) with a higher concurrency would help"
        )
    written = metrics.write_seconds - metrics.stages.get("upsert", 0.0)  # by workers
    if metrics.utilisation < MIN_BUSY and written > max(work.seconds, SMALL_RUN):
        return (
            f"{busy}, because they waited for the store: writing took {written:.0f} s, embedding "
            f"{work.seconds:.0f} s; {_FASTER_QDRANT}"
        )
    waited = metrics.stages.get("wait", 0.0) - metrics.outage_seconds
    flow_waited = waited > LARGE_SHARE * (metrics.seconds - metrics.outage_seconds)
    if metrics.utilisation >= MIN_BUSY or (flow_waited and metrics.seconds >= SMALL_RUN):
        return f"{busy}{_advice_on_workers(metrics, embedder)}"
    if metrics.seconds < SMALL_RUN:
        return f"{busy}: the run was too small for a cluster to matter"
    return f"{busy}, {_advice_on_flow(metrics, on_server=on_server)}"


def _advice_on_workers(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    chunking = 1 - metrics.work.embed_seconds / max(metrics.work.seconds, 1e-9)
    if metrics.work.embed_seconds and chunking > LARGE_SHARE:
        return f", {chunking:.0%} of that on chunking, not embedding: more processors and workers would help"
    if embedder.on_servers:
        return f", {count_of(len(embedder.hosts), 'embedding server')}{_advice_on_servers(metrics, embedder)}"
    return ": the embedder is the bottleneck; more processors and workers would help"


def _advice_on_servers(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    asked = metrics.work.asked_seconds
    available = metrics.working_seconds * len(embedder.hosts)
    share = min(1.0, asked / available) if asked and available > 0 else 1.0
    measured = f", asked for {share:.0%} of the time, {asked / metrics.work.requests:.2g} s a request" if asked else ""
    if share < MIN_BUSY:
        return f"{measured}: more workers, or more requests at once (requests_in_flight), would keep it at work"
    if embedder.kind == "ollama":
        return f"{measured}: {FASTER_OLLAMA}"
    fewer = "more requests at once (requests_in_flight), or " if embedder.requests_in_flight != "auto" else ""
    return f"{measured}: {fewer}one more, on another GPU or machine, would help (hosts)"


def _advice_on_flow(metrics: RunMetrics, *, on_server: bool) -> str:
    whole = max(metrics.seconds - metrics.outage_seconds, 1e-9)
    shares = {name: min(1.0, seconds / whole) for name, seconds in metrics.stages.items()}
    shares.pop("wait", None)
    longest = max(shares, key=lambda name: shares[name])
    share = f"{shares[longest]:.0%}"
    server = _FASTER_QDRANT if on_server else "a Qdrant server would take it from all workers at once"
    sentences = {
        "fetch": f"reading the source took {share}: an index on the key column would help",
        "diff": f"comparing with the ledger took {share}: put it on a faster disk",
        "submit": f"submit took {share} of the time: larger shards (parallel.shard_documents) would help",
        "upsert": f"writing took {share}: {server}",
        "commit": f"writing the ledger took {share}: put it on a faster disk",
    }
    return sentences.get(longest, f"{longest} took {share} of the time")


def report_lines(run: dict[str, Any]) -> list[str]:
    """Return what there is to say of a run: its message, what its gate found, and where its time went. `run` is the
    report that the ledger keeps: of a run that has not ended, or failed before it read anything, there is less."""
    lines = [*filter(None, [run.get("message"), run.get("missed", {}).get("message")]), *_gate_lines(run.get("gate"))]
    metrics = RunMetrics().to_json() | run.get("metrics", {})
    if "metrics" in run and (run["state"] != "failed" or metrics["documents"]):
        lines += _work_lines(metrics)
        lines.append(run["advice"])
    return lines


def _gate_lines(gate: dict[str, Any] | None) -> Iterator[str]:
    if not gate:
        return
    means = f"{gate['before']:.3f} before, {gate['after']:.3f} now"
    changed = f"{len(gate['worse']):,} worse, {gate['better']:,} better"
    yield f"{gate['metric']} of {gate['queries']:,} golden queries: {means}; {changed}"
    for one in gate["worse"][:MAX_WORSE]:
        lost = f", lost {', '.join(one['lost'])}" if one["lost"] else ""
        yield f"  {one['before']:.3f} → {one['after']:.3f}  {one['query']}{lost}"
    if (more := len(gate["worse"]) - MAX_WORSE) > 0:
        yield f"  and {more:,} more, which --json prints"


def _work_lines(metrics: dict[str, Any]) -> Iterator[str]:
    stages = ", ".join(
        f"{stage} {seconds:.1f} s" for stage, seconds in metrics["stages"].items() if seconds >= SHORT_STAGE
    )
    yield f"{metrics['documents']:,} documents in {metrics['seconds']:.1f} s: {stages or 'no stage took long'}"
    if metrics["outage_seconds"] >= 1:
        yield f"for {metrics['outage_seconds']:.0f} s of that a service did not answer, which counts for no rate"
    shards = f"shards took {metrics['worker_seconds']:.1f} s in all"  # a worker may have two at a time
    yield f"workers ({metrics['workers']}) busy {metrics['utilisation']:.0%}; {shards}"
