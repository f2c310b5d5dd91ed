"""Embed: a shard on a worker, by the one embedder of that process."""

from __future__ import annotations

import faulthandler
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.logging import get_run_logger

from rag_index.documents.keys import document_id
from rag_index.embedders import open_embedder
from rag_index.indexing import embed
from rag_index.machine.garbage import collect_seldom
from rag_index.orchestration.log_forwarding import forward_logs
from rag_index.orchestration.opaque import Opaque
from rag_index.orchestration.request_counts import forward_requests
from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import EmbeddedShard, Shard
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.settings import EmbedderSettings

__all__ = ["EmbedJob", "embed_shard"]


@dataclass(frozen=True, slots=True)
class EmbedJob:
    """A shard and how to embed it."""

    shard: Shard
    chunker: Chunker
    embedder: EmbedderSettings
    identity: EmbedderIdentity
    """What the model has to be."""
    workers: int
    known: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """Vectors that need not be made, by text as it is sent."""
    timeout: float | None = None
    """Seconds after which a worker's process that is still at it is ended."""


@task(name="embed", task_run_name="embed {label}", **{**RETRIED, "retries": 1})
def embed_shard(job: Opaque[EmbedJob], label: str) -> Opaque[EmbeddedShard]:
    """Chunk and embed a shard.

    The embedder waits for servers by itself, so that one more try is enough here. Its own time limits end a request
    that hangs (`embedder.timeout`, `wait_for_recovery`): Prefect's cannot interrupt a call in a worker's thread.
    """
    logger, work = get_run_logger(), job.value
    keys = work.shard.documents.keys
    logger.info("%s: documents %s to %s (%d)", label, document_id(keys[0]), document_id(keys[-1]), len(keys))
    with _time_limit(work.timeout), collect_seldom():
        embedded = embed.embed_shard(work.shard, work.chunker, process_embedder(work), known=work.known)
    for failure in embedded.failures[:20]:
        logger.warning("document %s failed: %s", document_id(failure.key), failure.reason)
    return Opaque(embedded)


@contextmanager
def _time_limit(seconds: float | None) -> Iterator[None]:
    """End a worker's process that takes longer, whatever it hangs in: the shard is then run again, as after any other
    death. A serial run has no process to end."""
    if seconds is None or _worker_name() is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True)  # its thread needs no interpreter, which may be what hangs
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Process:
    """The one global: a model takes seconds and memory to load, so that a process keeps its embedder."""

    made_for: tuple[EmbedderSettings, EmbedderIdentity] | None = None
    embedder: Embedder | None = None


def process_embedder(job: EmbedJob) -> Embedder:
    """This process's embedder, made on first use and again when a job asks for another."""
    wanted = (job.embedder, job.identity)
    if _Process.embedder is None or _Process.made_for != wanted:
        if _Process.embedder is not None:
            _Process.embedder.close()
        else:
            forward_logs()
            forward_requests(_in_flight)
        _Process.embedder = open_embedder(job.embedder, home=_home(), workers=job.workers, expected=job.identity)
        _Process.made_for = wanted
    return _Process.embedder


def _in_flight() -> int:
    """Requests that this process's embedder has under way."""
    return _Process.embedder.stats.in_flight if _Process.embedder else 0


def _home() -> int:
    """A number that differs between a cluster's workers, so that they spread over hosts."""
    name = _worker_name()
    if name is None:
        return 0
    return name if isinstance(name, int) else sum(map(ord, str(name)))


def _worker_name() -> Any:
    """What the Dask worker is called that this runs in; None in a serial run."""
    from distributed import get_worker

    try:
        return get_worker().name
    except ValueError:
        return None
