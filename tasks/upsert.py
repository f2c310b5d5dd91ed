"""Upsert: an embedded shard into the store; from the flow's process if the store is embedded, else from a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.indexing.points import write_shard
from rag_index.orchestration.retries import RETRIED, Opaque
from rag_index.orchestration.worker import begin_next, process_store

if TYPE_CHECKING:
    from rag_index.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.indexing.scan import Scan
    from rag_index.settings import StoreSettings
    from rag_index.stores import Store


def upsert(scan: Scan, shard: Opaque[EmbeddedShard] | WrittenShard) -> WrittenShard:
    """Write a shard's points, unless a worker has written them already."""
    if not isinstance(shard, Opaque):
        return shard
    run = scan.run
    with run.stopwatch.stage("upsert"):
        return upsert_shard(run.store, scan.collection.name, shard, scan.label(shard.value.number))


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
