"""Upsert: an embedded shard into the store; from the flow's process where the store is embedded, else from a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.indexing import points
from rag_index.orchestration.retries import RETRIED
from rag_index.stores import open_store

if TYPE_CHECKING:
    from rag_index.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.orchestration.opaque import Opaque
    from rag_index.settings import StoreSettings
    from rag_index.stores import Store

__all__ = ["upsert_from_worker", "upsert_shard"]


@task(name="upsert", task_run_name="upsert {label}", **RETRIED)
def upsert_shard(store: Store, collection: str, shard: Opaque[EmbeddedShard], label: str) -> WrittenShard:
    """Write a shard's points from this process. Point ids are deterministic: a retry writes the same."""
    return points.write_shard(store, collection, shard.value)


@task(name="upsert", task_run_name="upsert {label}", **RETRIED)
def upsert_from_worker(
    settings: Opaque[StoreSettings], collection: str, shard: Opaque[EmbeddedShard], label: str, epoch: int
) -> WrittenShard:
    """Write a shard's points from the worker that has them, so that vectors never pass through the flow."""
    store = open_store(settings.value)
    try:
        return points.write_shard(store, collection, shard.value, epoch=epoch)
    finally:
        store.close()
