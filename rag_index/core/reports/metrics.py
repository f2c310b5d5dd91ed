"""Metrics of a run: the seconds of each stage and the work of the workers, and sentences about
them."""

from __future__ import annotations

import time
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rag_index.core.reports.outcome import IndexOutcome, count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.core.settings import EmbedderSettings

STAGES = (
    "start",
    "fetch",
    "diff",
    "words",
    "workers",
    "submit",
    "wait",
    "embed",
    "upsert",
    "commit",
    "delete",
    "publish",
    "gate",
    "erase",
    "search index",
    "other",
)
"""The stages of the flow's process, in order; together they are the complete run.

`start` is everything before the first page (checks, the choice of the collection), `words` the pass
that first writes documents by their words, `workers` the start of workers, `wait` the waiting for
them, and `embed` embedding in the flow's own process. `gate` runs golden queries and calibrates
scores on collections. `other` has the rest.
"""

# Shares from which the advice names a cause. Chosen; only the advice depends on them.
MIN_BUSY = 0.85
"""The share of the time in which workers are busy that makes them the bottleneck."""
MAX_RETRIED = 0.05
"""The share of the requests that may be repeated."""
LARGE_SHARE = 0.5
"""The share of the time that makes a stage the bottleneck."""
SMALL_RUN = 10.0
"""Seconds. The times of a shorter run show little."""
SHORT_STAGE = 0.05
"""Seconds. A shorter stage is not listed."""
MAX_WORSE = 20
"""Worse queries of a gate that are listed; --json has all."""
_FASTER_QDRANT = "a faster disk or more processors for Qdrant would help"
FASTER_OLLAMA = (
    "more at a time is not faster, since Ollama embeds one text after another: a server that"
    ' batches (kind = "openai": vLLM, TEI, Infinity) makes far more of a GPU, or one more server on'
    " another machine; `rag-index benchmark`, with and without `num_thread = 1`, measures threads"
)


class Stopwatch:
    """The seconds spent in each stage. Time in a nested stage does not count for the outer one."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._stack: list[str] = []
        self._began = clock()
        self._since = self._began

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time in the block to the stage `name`."""
        self._count_elapsed()
        self._stack.append(name)
        try:
            yield
        finally:
            self._count_elapsed()
            self._stack.pop()

    def stages(self) -> dict[str, float]:
        """Return the seconds of each stage that took place, in the order of `STAGES`. Time outside
        all stages is `other`."""
        self.count_rest("other")
        return {name: self.seconds[name] for name in STAGES if name in self.seconds}

    def count_rest(self, name: str) -> None:
        """Add all time so far that no stage has to the stage `name`."""
        self._count_elapsed()
        elapsed = self._since - self._began
        counted = sum(self.seconds.values())
        self.seconds[name] += max(0.0, elapsed - counted)

    def _count_elapsed(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def advice(outcome: IndexOutcome, embedder: EmbedderSettings, *, on_server: bool = False) -> str:
    """Return a sentence that names the bottleneck of the run, and the setting or machine that would
    change it. `on_server` is true if the store is a server already."""
    if not outcome.shards:
        return "nothing had to be embedded"
    work = outcome.work
    # An overloaded embedding server.
    if work.retries > work.requests * MAX_RETRIED:
        return (
            f"{work.retries} of {work.requests} requests had to be repeated, {work.rate_limited}"
            " because a server asked for a pause: lower requests_in_flight or the number of"
            " workers, and check the embedder's log"
        )
    # A generating model that writes a context for each chunk.
    if work.contexts_made and work.chunk_seconds > LARGE_SHARE * work.seconds:
        return (
            f"writing contexts took {work.chunk_seconds / work.seconds:.0%} of the workers' time: a"
            " smaller model, more hosts, or more slots (OLLAMA_NUM_PARALLEL) with a higher"
            " concurrency would help"
        )
    busy = f"workers busy {outcome.utilisation:.0%}"
    # Idle workers that wrote longer than they embedded: the store.
    written_by_workers = work.write_seconds - outcome.stages.get("upsert", 0.0)
    if outcome.utilisation < MIN_BUSY and written_by_workers > max(work.seconds, SMALL_RUN):
        return (
            f"{busy}, because they waited for the store: writing took {written_by_workers:.0f} s,"
            f" embedding {work.seconds:.0f} s; {_FASTER_QDRANT}"
        )
    waited = outcome.stages.get("wait", 0.0) - outcome.outage_seconds
    flow_waited = waited > LARGE_SHARE * (outcome.seconds - outcome.outage_seconds)
    is_small = outcome.seconds < SMALL_RUN
    # Busy workers, or a flow that waits for them most of the time.
    if outcome.utilisation >= MIN_BUSY or (flow_waited and not is_small):
        return f"{busy}{_advice_on_workers(outcome, embedder)}"
    if is_small:
        return f"{busy}: the run was too small for a cluster to matter"
    # Idle workers: the flow's own process.
    return f"{busy}, {_advice_on_flow(outcome, on_server=on_server)}"


def _advice_on_workers(outcome: IndexOutcome, embedder: EmbedderSettings) -> str:
    chunking = 1 - outcome.work.embed_seconds / max(outcome.work.seconds, 1e-9)
    if outcome.work.embed_seconds and chunking > LARGE_SHARE:
        return (
            f", {chunking:.0%} of that on chunking, not embedding: more processors and workers"
            " would help"
        )
    if embedder.on_servers:
        servers = count_of(len(embedder.hosts), "embedding server")
        return f", {servers}{_advice_on_servers(outcome, embedder)}"
    return ": the embedder is the bottleneck; more processors and workers would help"


def _advice_on_servers(outcome: IndexOutcome, embedder: EmbedderSettings) -> str:
    asked = outcome.work.asked_seconds
    available = outcome.working_seconds * len(embedder.hosts)
    share = 1.0
    measured = ""
    # Without any time of requests, the servers count as busy.
    if asked:
        if available > 0:
            share = min(1.0, asked / available)
        per_request = asked / outcome.work.requests
        measured = f", asked for {share:.0%} of the time, {per_request:.2g} s a request"
    if share < MIN_BUSY:
        return (
            f"{measured}: more workers, or more requests at once (requests_in_flight), would keep"
            " it at work"
        )
    if embedder.kind == "ollama":
        return f"{measured}: {FASTER_OLLAMA}"
    more = "one more, on another GPU or machine, would help (hosts)"
    # The number in the settings may be too low.
    if embedder.requests_in_flight != "auto":
        more = f"more requests at once (requests_in_flight), or {more}"
    return f"{measured}: {more}"


def _advice_on_flow(outcome: IndexOutcome, *, on_server: bool) -> str:
    available = max(outcome.seconds - outcome.outage_seconds, 1e-9)
    stages = {name: seconds for name, seconds in outcome.stages.items() if name != "wait"}
    shares = {name: min(1.0, seconds / available) for name, seconds in stages.items()}
    longest = max(shares, key=lambda name: shares[name])
    share = f"{shares[longest]:.0%}"
    if longest == "fetch":
        return f"reading the source took {share}: an index on the key column would help"
    if longest == "diff":
        return f"comparing with the ledger took {share}: put it on a faster disk"
    if longest == "submit":
        return (
            f"submit took {share} of the time: larger shards (parallel.shard_documents) would help"
        )
    if longest == "upsert" and on_server:
        return f"writing took {share}: {_FASTER_QDRANT}"
    if longest == "upsert":
        return f"writing took {share}: a Qdrant server would take it from all workers at once"
    if longest == "commit":
        return f"writing the ledger took {share}: put it on a faster disk"
    return f"{longest} took {share} of the time"


def report_lines(run: dict[str, Any]) -> list[str]:
    """Return a report for people: the message of the run, the result of its gate, and where its
    time went. `run` is the report in the ledger, which has less if the run has not ended, or failed
    before it read anything."""
    messages = [run.get("message"), run.get("missed", {}).get("message")]
    lines = [message for message in messages if message]
    lines += _gate_lines(run.get("gate"))
    if "metrics" not in run:
        return lines
    metrics = IndexOutcome("").metrics() | run["metrics"]
    if run["state"] != "failed" or metrics["documents"]:
        lines += _work_lines(metrics)
        lines.append(run["advice"])
    return lines


def _gate_lines(gate: dict[str, Any] | None) -> Iterator[str]:
    if not gate:
        return
    means = f"{gate['before']:.3f} before, {gate['after']:.3f} now"
    changed = f"{len(gate['worse']):,} worse, {gate['better']:,} better"
    yield f"{gate['metric']} of {gate['queries']:,} golden queries: {means}; {changed}"
    for query in gate["worse"][:MAX_WORSE]:
        lost = f", lost {', '.join(query['lost'])}" if query["lost"] else ""
        yield f"  {query['before']:.3f} → {query['after']:.3f}  {query['query']}{lost}"
    more = len(gate["worse"]) - MAX_WORSE
    if more > 0:
        yield f"  and {more:,} more, which --json prints"


def _work_lines(metrics: dict[str, Any]) -> Iterator[str]:
    stages = []
    for stage, seconds in metrics["stages"].items():
        if seconds >= SHORT_STAGE:
            stages.append(f"{stage} {seconds:.1f} s")
    listed = ", ".join(stages) or "no stage took long"
    yield f"{metrics['documents']:,} documents in {metrics['seconds']:.1f} s: {listed}"
    if metrics["outage_seconds"] >= 1:
        yield (
            f"for {metrics['outage_seconds']:.0f} s of that a service did not answer, which counts"
            " for no rate"
        )
    # A worker may have two shards at a time, so their sum may exceed its time.
    shards = f"shards took {metrics['worker_seconds']:.1f} s in all"
    yield f"workers ({metrics['workers']}) busy {metrics['utilisation']:.0%}; {shards}"
