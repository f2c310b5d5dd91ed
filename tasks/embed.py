"""Embed and upsert: a shard on a worker, by the one embedder of its process; mapped over all shards of a scan."""

from __future__ import annotations

import logging
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.logging import get_run_logger

from rag_index.documents.batches import EmbeddedShard, Shard, WrittenShard
from rag_index.documents.keys import document_id
from rag_index.errors import NoWorkers
from rag_index.indexing.commit import write_shard
from rag_index.indexing.embed import ChildEmbedder, EmbedJob, embed_in_child, quarantine
from rag_index.machine import collect_seldom
from rag_index.orchestration.task_policy import RETRIED, Opaque
from rag_index.orchestration.window import Monitor, Window, shards_per_worker
from rag_index.orchestration.worker import begin_next, process_embedder, process_store, time_limit
from rag_index.reports.progress import captured_logs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.indexing.scan import Scan
    from rag_index.settings import StoreSettings
    from rag_index.stores import Store

LOGGED_FAILURES = 20


@task(name="upsert", task_run_name="upsert {label}", **RETRIED)
def upsert_shard(store: Store, collection: str, shard: Opaque[EmbeddedShard], label: str) -> WrittenShard:
    """Write a shard's points from this process. Point ids are deterministic, so a retry writes the same points."""
    return write_shard(store, collection, shard.value)


@task(name="upsert", task_run_name="upsert {label}", **RETRIED)
def upsert_from_worker(
    settings: Opaque[StoreSettings], collection: str, shard: Opaque[EmbeddedShard], label: str, epoch: int
) -> WrittenShard:
    """Write a shard's points from the worker that has them, so that vectors never pass through the flow.

    The worker embeds its next shard meanwhile: a server's acknowledgements take time, and none of the processor's.
    """
    begin_next()
    with process_store(settings.value) as store:
        return write_shard(store, collection, shard.value, epoch=epoch)


@task(name="embed", task_run_name="embed {label}", **{**RETRIED, "retries": 1})
def embed_shard(job: Opaque[EmbedJob], label: str) -> Opaque[EmbeddedShard]:
    """Chunk and embed a shard.

    The embedder itself waits for servers, so one more try is enough here. Its own time limits end a request that hangs
    (`embedder.timeout`, `wait_for_recovery`): Prefect's cannot interrupt a call in a worker's thread.
    """
    logger, work = get_run_logger(), job.value
    keys = work.shard.documents.keys
    logger.info("%s: documents %s to %s (%d)", label, document_id(keys[0]), document_id(keys[-1]), len(keys))
    with time_limit(work.timeout), collect_seldom():
        embedded = work.embed(process_embedder(work))
    for failure in embedded.failures[:LOGGED_FAILURES]:
        logger.warning("document %s %s: %s", document_id(failure.key), failure.kind, failure.reason)
    return Opaque(embedded)


def embed_mapped(scan: Scan, shards: Iterable[Shard]) -> Iterator[Opaque[EmbeddedShard] | WrittenShard]:
    """Map the embed task over shards, a few of them in flight for each worker, and yield results as they come.

    If the store is a server, the upsert task is given the embed task's future, so what comes back is written already.
    In a serial run this process embeds everything. It also does, and the outcome says so, if no workers start, or if
    memory has room for no worker.
    """
    alone = scan.run.settings.parallel.serial or not scan.run.any_workers
    monitor = Monitor(scan.run)
    with captured_logs(scan.run.progress.note_later), closing(ChildEmbedder(scan.run.stopwatch)) as child:
        size = shards_per_worker(embedded=scan.run.store.embedded) * scan.run.metrics.workers
        window: Window[Shard, Any] = Window(partial(_submit, scan), size, monitor)
        try:
            for shard in shards:
                if not (alone or shard.in_process):
                    try:
                        monitor.subscribe()
                        yield from window.put(shard)
                        continue
                    except NoWorkers as error:  # late is better than not at all
                        alone, scan.run.metrics.workers = True, 1
                        scan.run.outcome.say(f"it was indexed in one process: {error}")
                        scan.run.progress.say("no workers, continuing in one process")
                yield from _embed_here(scan, shard, child)
        except Exception:  # for example from the source: shards in flight are still worth committing
            yield from _finish(window)
            raise
        yield from _finish(window)


def _finish(window: Window[Shard, Any]) -> Iterator[Any]:
    yield from window.drain()
    for shard in quarantine(window.died, window.run_alone):
        yield Opaque(shard) if isinstance(shard, EmbeddedShard) else shard


def _submit(scan: Scan, shard: Shard) -> Any:
    """Submit a shard to the workers and return its future: of the upsert if workers can write to the store."""
    run = scan.run
    with run.stopwatch.stage("submit"):
        scan.mark_pending(shard)
        label = scan.label(shard.number)
        embedded = embed_shard.submit(Opaque(scan.job(shard)), label)
        if run.store.embedded:
            return embedded
        submit_upsert: Any = upsert_from_worker.submit
        return submit_upsert(Opaque(run.settings.store), scan.collection.name, embedded, label, scan.epoch)


def _embed_here(scan: Scan, shard: Shard, child: ChildEmbedder) -> Iterator[Opaque[EmbeddedShard]]:
    """Embed a shard in the flow's process; one with suspects in a child, which may die."""
    scan.mark_pending(shard)
    if scan.is_suspect(shard):
        yield from map(Opaque, embed_in_child(scan, shard, child))
        return
    with scan.run.stopwatch.stage("embed"):
        embedded = embed_shard(Opaque(scan.job(shard)), scan.label(shard.number))
    yield embedded


def dask_setup(_worker: Any) -> None:
    """Keep Prefect from writing logs that it could not send to standard error. Dask calls this in each worker."""
    logging.raiseExceptions = False
