"""Metrics of a run: the seconds of each stage, the work of the workers; and in words what they
say."""

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
"""The stages of the flow's process, in order; together they are the whole run. `start` is
everything before the first page (checks, the choice of the collection), `workers` the start of
workers, and `wait` the waiting for them. `words` is the pass that writes documents by their words
first, and `embed` embedding in the flow's own process. `gate` is what it asks collections: golden
queries, and what their scores mean. `other` is what no stage is named for."""

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
    "more at a time is not faster, since Ollama embeds one text after another: a server that"
    ' batches (kind = "openai": vLLM, TEI, Infinity) makes far more of a GPU, or one more server on'
    " another machine; `rag-index benchmark`, with and without `num_thread = 1`, measures threads"
)


class Stopwatch:
    """The seconds spent in each stage. If stages are nested, time in the inner one does not count
    for the outer one."""

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

    def stages(self) -> dict[str, float]:
        """Return the seconds of each stage that there was, in the order of `STAGES`. What no stage
        has is `other`."""
        self.count_rest("other")
        return {name: self.seconds[name] for name in STAGES if name in self.seconds}

    def count_rest(self, name: str) -> None:
        """Count for the stage `name` all time so far that no stage has."""
        self._count_elapsed()
        self.seconds[name] += max(0.0, self._since - self._began - sum(self.seconds.values()))

    def _count_elapsed(self) -> None:
        now = self._clock()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def advice(outcome: IndexOutcome, embedder: EmbedderSettings, *, on_server: bool = False) -> str:
    """Return one sentence that names the bottleneck of the run and the setting or machine that
    would change it. `on_server` says that the store is a server already."""
    if not outcome.shards:
        return "nothing had to be embedded"
    work = outcome.work
    busy = f"workers busy {outcome.utilisation:.0%}"
    if work.retries > work.requests * MAX_RETRIED:
        return (
            f"{work.retries} of {work.requests} requests had to be repeated, {work.rate_limited}"
            " because a server asked for a pause: lower requests_in_flight or the number of"
            " workers, and check the embedder's log"
        )
    if work.contexts_made and work.chunk_seconds > LARGE_SHARE * work.seconds:
        return (
            f"writing contexts took {work.chunk_seconds / work.seconds:.0%} of the workers' time: a"
            " smaller model, more hosts, or more slots (OLLAMA_NUM_PARALLEL) with a higher"
            " concurrency would help"
        )
    written = outcome.work.write_seconds - outcome.stages.get("upsert", 0.0)  # by workers
    if outcome.utilisation < MIN_BUSY and written > max(work.seconds, SMALL_RUN):
        return (
            f"{busy}, because they waited for the store: writing took {written:.0f} s, embedding "
            f"{work.seconds:.0f} s; {_FASTER_QDRANT}"
        )
    waited = outcome.stages.get("wait", 0.0) - outcome.outage_seconds
    flow_waited = waited > LARGE_SHARE * (outcome.seconds - outcome.outage_seconds)
    if outcome.utilisation >= MIN_BUSY or (flow_waited and outcome.seconds >= SMALL_RUN):
        return f"{busy}{_advice_on_workers(outcome, embedder)}"
    if outcome.seconds < SMALL_RUN:
        return f"{busy}: the run was too small for a cluster to matter"
    return f"{busy}, {_advice_on_flow(outcome, on_server=on_server)}"


def _advice_on_workers(outcome: IndexOutcome, embedder: EmbedderSettings) -> str:
    chunking = 1 - outcome.work.embed_seconds / max(outcome.work.seconds, 1e-9)
    if outcome.work.embed_seconds and chunking > LARGE_SHARE:
        return (
            f", {chunking:.0%} of that on chunking, not embedding: more processors and workers"
            " would help"
        )
    if embedder.on_servers:
        return f", {count_of(len(embedder.hosts), 'embedding server')}{_advice_on_servers(outcome, embedder)}"
    return ": the embedder is the bottleneck; more processors and workers would help"


def _advice_on_servers(outcome: IndexOutcome, embedder: EmbedderSettings) -> str:
    asked = outcome.work.asked_seconds
    available = outcome.working_seconds * len(embedder.hosts)
    share = min(1.0, asked / available) if asked and available > 0 else 1.0
    measured = (
        f", asked for {share:.0%} of the time, {asked / outcome.work.requests:.2g} s a request"
        if asked
        else ""
    )
    if share < MIN_BUSY:
        return (
            f"{measured}: more workers, or more requests at once (requests_in_flight), would keep"
            " it at work"
        )
    if embedder.kind == "ollama":
        return f"{measured}: {FASTER_OLLAMA}"
    fewer = (
        "more requests at once (requests_in_flight), or "
        if embedder.requests_in_flight != "auto"
        else ""
    )
    return f"{measured}: {fewer}one more, on another GPU or machine, would help (hosts)"


def _advice_on_flow(outcome: IndexOutcome, *, on_server: bool) -> str:
    whole = max(outcome.seconds - outcome.outage_seconds, 1e-9)
    shares = {name: min(1.0, seconds / whole) for name, seconds in outcome.stages.items()}
    shares.pop("wait", None)
    longest = max(shares, key=lambda name: shares[name])
    share = f"{shares[longest]:.0%}"
    server = (
        _FASTER_QDRANT if on_server else "a Qdrant server would take it from all workers at once"
    )
    sentences = {
        "fetch": f"reading the source took {share}: an index on the key column would help",
        "diff": f"comparing with the ledger took {share}: put it on a faster disk",
        "submit": (
            f"submit took {share} of the time: larger shards (parallel.shard_documents) would help"
        ),
        "upsert": f"writing took {share}: {server}",
        "commit": f"writing the ledger took {share}: put it on a faster disk",
    }
    return sentences.get(longest, f"{longest} took {share} of the time")


def report_lines(run: dict[str, Any]) -> list[str]:
    """Return what there is to say of a run: its message, what its gate found, and where its time
    went. `run` is the report that the ledger keeps: of a run that has not ended, or failed before
    it read anything, there is less."""
    lines = [
        *filter(None, [run.get("message"), run.get("missed", {}).get("message")]),
        *_gate_lines(run.get("gate")),
    ]
    metrics = IndexOutcome("").metrics() | run.get("metrics", {})
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
        f"{stage} {seconds:.1f} s"
        for stage, seconds in metrics["stages"].items()
        if seconds >= SHORT_STAGE
    )
    yield (
        f"{metrics['documents']:,} documents in {metrics['seconds']:.1f} s:"
        f" {stages or 'no stage took long'}"
    )
    if metrics["outage_seconds"] >= 1:
        yield (
            f"for {metrics['outage_seconds']:.0f} s of that a service did not answer, which counts"
            " for no rate"
        )
    shards = (  # a worker may have two at a time
        f"shards took {metrics['worker_seconds']:.1f} s in all"
    )
    yield f"workers ({metrics['workers']}) busy {metrics['utilisation']:.0%}; {shards}"
