"""The lever that would help a run most, in one sentence: from its figures, and said with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.reports.metrics import RunMetrics
    from rag_index.settings import EmbedderSettings

__all__ = ["advice"]

BUSY = 0.85
MAX_LIMITED = 0.05
MAX_RETRIED = 0.1
LARGE_PART = 0.5
UNEVEN = 0.25
SMALL_RUN = 10.0
"""Seconds below which a run says little about levers."""
CROWDED = 1.5
"""Load a processor from which other programs are in the way of an Ollama server on this machine."""
_HERE = re.compile(r"https?://(127\.|localhost\b|\[::1\])")


def advice(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    """One sentence: what the run waited for, and the setting or the machine that would change it."""
    if not metrics.shards:
        return "nothing had to be embedded"
    if metrics.rate_limited > metrics.requests * MAX_LIMITED:
        return (
            f"{metrics.rate_limited} of {metrics.requests} requests were told to wait: fewer requests_in_flight "
            "or workers would lose less time"
        )
    if metrics.retries > metrics.requests * MAX_RETRIED:
        return f"{metrics.retries} of {metrics.requests} requests had to be repeated: look at the embedder's log"
    if metrics.contexts_made and metrics.chunk_seconds > LARGE_PART * metrics.worker_seconds:
        return (
            f"writing contexts took {metrics.chunk_seconds / metrics.worker_seconds:.0%} of the workers' time: "
            "a smaller model, more hosts, or more slots (OLLAMA_NUM_PARALLEL) with a higher concurrency would help"
        )
    waited = metrics.stages.get("wait", 0.0) > LARGE_PART * metrics.seconds
    if metrics.utilisation >= BUSY or (waited and metrics.seconds >= SMALL_RUN and not _uneven(metrics)):
        return f"workers busy {metrics.utilisation:.0%}{_of_workers(metrics, embedder)}"
    if metrics.seconds < SMALL_RUN:
        return f"workers busy {metrics.utilisation:.0%}: the work was too small for a cluster to matter"
    return f"workers busy {metrics.utilisation:.0%}, {_of_the_flow(metrics)}"


def _uneven(metrics: RunMetrics) -> bool:
    """Whether a worker had much more to do than others, which were idle meanwhile."""
    busiest = max(metrics.by_worker.values(), default=0.0)
    return metrics.workers * busiest - metrics.worker_seconds > UNEVEN * metrics.worker_seconds


def _of_workers(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    """Workers are what there is to wait for: what of their work, and what makes it less."""
    chunking = 1 - metrics.embed_seconds / max(metrics.worker_seconds, 1e-9)
    if metrics.embed_seconds and chunking > LARGE_PART:
        return f", {chunking:.0%} of that with chunking, not embedding: more processors and workers would help"
    if embedder.kind == "local":
        return ": the embedder is what there is to wait for; more processors and workers would help"
    if embedder.kind == "sentence-transformers":
        return ": the model is what there is to wait for; a GPU (device), or more processors and workers, would help"
    if crowd := _crowd(metrics, embedder):
        return crowd
    if len(embedder.hosts) == 1:
        return ", one Ollama server: a second one may help (hosts); `rag-index tune --local-servers` tries it"
    return (
        f", {len(embedder.hosts)} Ollama servers: more servers, on more machines or GPUs, would help; "
        "`rag-index tune` measures"
    )


def _crowd(metrics: RunMetrics, embedder: EmbedderSettings) -> str:
    """Where Ollama's own choice of threads is in its own way: with as many threads as processors, each waits for the
    slowest, and one of them is always the slowest where anything else runs."""
    here = sum(bool(_HERE.match(host)) for host in embedder.hosts)
    if not here or embedder.num_thread is not None:
        return ""
    remedy = "num_thread = 1 is several times faster then; `rag-index tune` finds what is best"
    if here > 1:
        return f", {here} Ollama servers on this machine with as many threads each as it has processors: {remedy}"
    if metrics.load is not None and metrics.load > CROWDED * metrics.processors:
        there = f"{metrics.processors} processor{'s' if metrics.processors > 1 else ''}"
        return f", with other programs beside Ollama (load {metrics.load:.1f} on {there}): {remedy}"
    return ""


def _of_the_flow(metrics: RunMetrics) -> str:
    """Workers waited: for which stage of the flow's process."""
    whole = max(metrics.seconds, 1e-9)
    waited = metrics.stages.get("wait", 0.0) / whole
    if waited > LARGE_PART:
        return (
            f"and the flow waited {waited:.0%} of the time for some of them, while others had nothing left to do; "
            "smaller shards (parallel.shard_seconds) would help"
        )
    busiest = max((name for name in metrics.stages if name != "wait"), key=lambda name: metrics.stages[name])
    share = f"{metrics.stages[busiest] / whole:.0%}"
    said = {
        "fetch": f"reading the source took {share}: an index on the key column would help, or larger page_rows",
        "diff": f"comparing with the ledger took {share}: most documents had not changed; changed_since spares that",
        "upsert": f"writing took {share}: a Qdrant server takes vectors from the workers directly",
        "commit": f"writing the ledger took {share}: put it on a faster disk",
    }
    larger = f"{busiest} took {share} of the time: larger shards (parallel.shard_seconds) would help"
    return said.get(busiest, larger)
