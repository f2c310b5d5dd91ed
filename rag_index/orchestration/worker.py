"""What a worker process holds open, what it does with a shard, and what it tells the run."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING, Any

from distributed import Client, get_worker, secede
from distributed.core import Status
from distributed.threadpoolexecutor import thread_state

from rag_index.documents.batches import DocumentBatch, EmbeddedShard, Shard, WrittenShard
from rag_index.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.indexing.commit import write_shard
from rag_index.indexing.embed import EmbedJob
from rag_index.machine import collect_seldom, end_process_after
from rag_index.orchestration.cluster import run_workers
from rag_index.outages import Outage, outages
from rag_index.reports.outcome import count_of
from rag_index.reports.progress import LOGGERS, LogNotes
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.indexing.step_retries import Call
    from rag_index.settings import EmbedderSettings, StoreSettings
    from rag_index.stores.protocol import Store
    from rag_index.tuning.benchmark import Bench

START_SECONDS = 120
TOPIC, LOG_TOPIC = "rag-index-status", "rag-index"
INTERVAL_SECONDS = 1.0


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
            _forward()
        worker = current_worker()
        name = worker and worker.name  # it differs between the workers of a cluster, so that they spread over hosts
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


def embed_on_worker(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed a shard. A worker that takes far too long ends itself: the shard is then run again."""
    with end_process_after(job.timeout), collect_seldom():
        return job.embed(process_embedder(job))


def write_on_worker(settings: StoreSettings, collection: str, shard: EmbeddedShard, epoch: int) -> WrittenShard:
    """Write a shard's points from the worker that has them, so that vectors never pass through the run's process.

    The worker embeds its next shard meanwhile: a server's acknowledgements take time, and none of the processor's.
    """
    begin_next()
    with process_store(settings) as store:
        return write_shard(store, collection, shard, epoch=epoch)


def begin_next() -> None:
    """Let this worker begin its next task beside the one that calls, which is going to wait for a server.

    The calling thread leaves the worker's pool until its task ends. A second call, as in a retry, does nothing, and
    neither does a call outside a worker. How many tasks can wait at once is up to who submits them.
    """
    if current_worker() is not None and thread_state.proceed:
        secede()


def _forward() -> None:
    """Send this worker's status and log lines to the run from now on. It does nothing outside a worker."""
    if (worker := current_worker()) is None:
        return
    handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)

    def send_status() -> None:
        last: tuple[int, tuple[Outage, ...]] = (0, ())
        while worker.status not in (Status.closing, Status.closed):
            time.sleep(INTERVAL_SECONDS)
            in_flight = _Process.embedder.stats.in_flight if _Process.embedder else 0
            if (now := (in_flight, outages())) != last:
                last = now
                found = [list(astuple(outage)) for outage in now[1]]
                worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})

    threading.Thread(target=send_status, daemon=True, name="status").start()


def current_worker() -> Any:
    """Return the Dask worker that this runs in (`distributed.Worker`), or None outside a worker."""
    try:
        return get_worker()
    except ValueError:
        return None


def measure_workers(
    bench: Bench,
    workers: int,
    identity: EmbedderIdentity,
    run_id: str,
    call: Call,
    *,
    client: Callable[[], Client] | None = None,
) -> None:
    """Embed and write a sample with so many workers, as a run does. They have their model before the clock starts."""
    name = count_of(workers, "worker")
    with run_workers(bench.with_workers(workers)) as given, bench.scan(name, workers, identity, run_id) as scan:
        given.start(workers)
        found = (client or given.client)()
        found.wait_for_workers(workers, timeout=START_SECONDS)
        nothing = Shard(bench.index.name, 0, DocumentBatch.empty(), 0)
        job = EmbedJob(nothing, scan.chunker, bench.settings.embedder, scan.identity, workers=workers)
        found.gather([found.submit(_load, job, workers=[one], pure=False) for one in found.nthreads()])
        bench.measure(scan, name, call, grow=partial(given.grow, client=client, at_once=True))


def _load(job: EmbedJob) -> None:
    process_embedder(job).embed_documents(["start up"])
