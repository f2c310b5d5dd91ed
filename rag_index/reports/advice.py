"""The lever that would help a run most, in one sentence: from its figures, and said with them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.reports.metrics import Figures
    from rag_index.settings import EmbedderSettings

__all__ = ["advice"]

BUSY = 0.85
MOST_LIMITED = 0.05
MOST_RETRIED = 0.1
LARGE_PART = 0.5
UNEVEN = 0.25
SMALL_RUN = 10.0
"""Seconds below which a run says little about levers."""
CROWDED = 1.5
"""Load a processor from which other programs are in the way of an Ollama server on this machine."""
_HERE = re.compile(r"https?://(127\.|localhost\b|\[::1\])")


def advice(figures: Figures, embedder: EmbedderSettings) -> str:
    """One sentence: what the run waited for, and the setting or the machine that would change it."""
    if not figures.shards:
        return "nothing had to be embedded"
    if figures.rate_limited > figures.requests * MOST_LIMITED:
        return (
            f"{figures.rate_limited} of {figures.requests} requests were told to wait: fewer requests_in_flight "
            "or workers would lose less time"
        )
    if figures.retries > figures.requests * MOST_RETRIED:
        return f"{figures.retries} of {figures.requests} requests had to be repeated: look at the embedder's log"
    if figures.contexts_made and figures.cut_seconds > LARGE_PART * figures.worker_seconds:
        return (
            f"writing contexts took {figures.cut_seconds / figures.worker_seconds:.0%} of the workers' time: a smaller "
            "model, more hosts, or more slots there (OLLAMA_NUM_PARALLEL) with a higher concurrency would help"
        )
    waited = figures.stages.get("wait", 0.0) > LARGE_PART * figures.seconds
    if figures.utilisation >= BUSY or (waited and figures.seconds >= SMALL_RUN and not _uneven(figures)):
        return f"workers busy {figures.utilisation:.0%}{_of_workers(figures, embedder)}"
    if figures.seconds < SMALL_RUN:
        return f"workers busy {figures.utilisation:.0%}: the work was too small for a cluster to matter"
    return f"workers busy {figures.utilisation:.0%}, {_of_the_flow(figures)}"


def _uneven(figures: Figures) -> bool:
    """Whether a worker had much more to do than others, which were idle meanwhile."""
    busiest = max(figures.by_worker.values(), default=0.0)
    return figures.workers * busiest - figures.worker_seconds > UNEVEN * figures.worker_seconds


def _of_workers(figures: Figures, embedder: EmbedderSettings) -> str:
    """Workers are what there is to wait for: what of their work, and what makes it less."""
    cutting = 1 - figures.embed_seconds / max(figures.worker_seconds, 1e-9)
    if figures.embed_seconds and cutting > LARGE_PART:
        return (
            f", {cutting:.0%} of that not with embedding but with cutting texts: more processors and workers would help"
        )
    if embedder.kind == "local":
        return ": the embedder is what there is to wait for; more processors and workers would help"
    if embedder.kind == "sentence-transformers":
        return ": the model is what there is to wait for; a GPU (device), or more processors and workers, would help"
    if crowd := _crowd(figures, embedder):
        return crowd
    if len(embedder.hosts) == 1:
        return ", one Ollama server: a second one may help (hosts); `rag-index tune --local-servers` tries it"
    return (
        f", {len(embedder.hosts)} Ollama servers: more servers, on more machines or GPUs, would help; "
        "`rag-index tune` measures"
    )


def _crowd(figures: Figures, embedder: EmbedderSettings) -> str:
    """Where Ollama's own choice of threads is in its own way: with as many threads as processors, each waits for the
    slowest, and one of them is always the slowest where anything else runs."""
    here = sum(bool(_HERE.match(host)) for host in embedder.hosts)
    if not here or embedder.num_thread is not None:
        return ""
    remedy = "num_thread = 1 is several times faster then; `rag-index tune` finds what is best"
    if here > 1:
        return f", {here} Ollama servers on this machine with as many threads each as it has processors: {remedy}"
    if figures.load is not None and figures.load > CROWDED * figures.processors:
        there = f"{figures.processors} processor{'s' if figures.processors > 1 else ''}"
        return f", with other programs beside Ollama (load {figures.load:.1f} on {there}): {remedy}"
    return ""


def _of_the_flow(figures: Figures) -> str:
    """Workers waited: for which stage of the flow's process."""
    whole = max(figures.seconds, 1e-9)
    waited = figures.stages.get("wait", 0.0) / whole
    if waited > LARGE_PART:
        return (
            f"and the flow waited {waited:.0%} of the time for some of them, while others had nothing left to do; "
            "smaller shards (parallel.shard_seconds) would help"
        )
    busiest = max((name for name in figures.stages if name != "wait"), key=lambda name: figures.stages[name])
    share = f"{figures.stages[busiest] / whole:.0%}"
    said = {
        "fetch": f"reading the source took {share}: an index on the key column would help, or larger page_rows",
        "plan": f"comparing with the ledger took {share}: most documents had not changed; changed_since spares that",
        "upsert": f"writing took {share}: a Qdrant server takes vectors from the workers directly",
        "settle": f"writing the ledger took {share}: put it on a faster disk",
    }
    larger = f"{busiest} took {share} of the time: larger shards (parallel.shard_seconds) would help"
    return said.get(busiest, larger)
