"""What a worker process holds open, and what it is given with each shard."""

from __future__ import annotations

from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from distributed import secede
from distributed.threadpoolexecutor import thread_state

from rag_index.documents.batches import DocumentBatch, Shard
from rag_index.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.indexing.embed import EmbedJob
from rag_index.machine import end_process_after
from rag_index.orchestration.cluster import current_worker, flow_client, worker_name
from rag_index.orchestration.window import forward
from rag_index.stores import Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.indexing.scan import Scan
    from rag_index.settings import EmbedderSettings, StoreSettings

START_SECONDS = 120


class _Process:
    """The one global: a model takes seconds and memory to load, so a process keeps its embedder.

    It keeps its connection to the store too, since opening one for each shard takes a tenth of a second.
    """

    made_for: tuple[EmbedderSettings, EmbedderIdentity] | None = None
    embedder: Embedder | None = None
    store: tuple[StoreSettings, Store] | None = None


def process_embedder(job: EmbedJob) -> Embedder:
    """Return this process's embedder, opened on first use and again when a job asks for another."""
    wanted = (job.embedder, job.identity)
    if _Process.embedder is None or _Process.made_for != wanted:
        if _Process.embedder is not None:
            _Process.embedder.close()
        else:
            forward(_requests_in_flight)
        name = worker_name()  # it differs between the workers of a cluster, so that they spread over hosts
        home = name if isinstance(name, int) else sum(map(ord, str(name or "")))
        _Process.embedder = open_embedder(job.embedder, home=home, workers=job.workers, expected=job.identity)
        _Process.made_for = wanted
    return _Process.embedder


@contextmanager
def process_store(settings: StoreSettings) -> Iterator[Store]:
    """Lend this process's store, opened on first use and again after an error. Other threads may have it as well."""
    kept = _Process.store
    if kept is None or kept[0] != settings:
        _Process.store = kept = (settings, open_store(settings))
    try:
        yield kept[1]
    except BaseException:
        if _Process.store is kept:
            _Process.store = None  # the server may speak another protocol now
        raise


def begin_next() -> None:
    """Let this worker begin its next task beside the one that calls, which is going to wait for a server.

    The calling thread leaves the worker's pool until its task ends. A second call, as in a retry, does nothing, and
    neither does a call outside a worker. How many tasks can wait at once is up to who submits them.
    """
    if current_worker() is not None and thread_state.proceed:
        secede()


def time_limit(seconds: float | None) -> AbstractContextManager[None]:
    """End this worker process if the block takes longer; a serial run has no process to end.

    The shard is then run again, as after any other death.
    """
    return end_process_after(None if worker_name() is None else seconds)


def _requests_in_flight() -> int:
    return _Process.embedder.stats.in_flight if _Process.embedder else 0


def warm_up(scan: Scan) -> None:
    """Start the cluster and load the embedder on each worker."""
    client = flow_client()
    workers = scan.run.metrics.workers
    client.wait_for_workers(workers, timeout=START_SECONDS)
    nothing = Shard(scan.run.index.name, 0, DocumentBatch.empty(), 0)
    job = EmbedJob(nothing, scan.chunker, scan.run.settings.embedder, scan.identity, workers=workers)
    client.gather([client.submit(_load, job, workers=[one], pure=False) for one in client.nthreads()])


def _load(job: EmbedJob) -> None:
    process_embedder(job).embed_documents(["start up"])
