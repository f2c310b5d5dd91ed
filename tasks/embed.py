"""Embed and upsert on workers, by the one embedder of each process; mapped over all shards of a scan."""

from __future__ import annotations

import logging
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.context import TaskRunContext
from prefect.logging import get_run_logger

from rag_index.documents.keys import document_id
from rag_index.indexing.step_retries import POLICIES
from rag_index.orchestration.task_policy import Opaque, policy_of
from rag_index.orchestration.worker import begin_next, embed_on_worker, write_on_worker

if TYPE_CHECKING:
    from rag_index.documents.batches import EmbeddedShard, WrittenShard
    from rag_index.indexing.embed import EmbedJob
    from rag_index.settings import StoreSettings

LOGGED_FAILURES = 20


@task(name="upsert", task_run_name="upsert {label}", **policy_of(POLICIES["upsert"]))
def upsert_from_worker(
    settings: Opaque[StoreSettings], collection: str, shard: Opaque[EmbeddedShard], label: str, epoch: int
) -> WrittenShard:
    """Write a shard's points from the worker that has them. Their ids are deterministic, so a retry writes the same."""
    context = copy_context()
    # The worker's next task inherits this context, and Prefect would take this task for the one that runs it.
    context.run(TaskRunContext.__var__.set, None)  # type: ignore[arg-type]
    context.run(begin_next)
    return write_on_worker(settings.value, collection, shard.value, epoch)


@task(name="embed", task_run_name="embed {label}", **policy_of(POLICIES["embed"]))
def embed_shard(job: Opaque[EmbedJob], label: str) -> Opaque[EmbeddedShard]:
    """Chunk and embed a shard. Its time limits end a request that hangs, and a worker that does."""
    logger, work = get_run_logger(), job.value
    keys = work.shard.documents.keys
    logger.info("%s: documents %s to %s (%d)", label, document_id(keys[0]), document_id(keys[-1]), len(keys))
    embedded = embed_on_worker(work)
    for failure in embedded.failures[:LOGGED_FAILURES]:
        logger.warning("document %s %s: %s", document_id(failure.key), failure.kind, failure.reason)
    return Opaque(embedded)


def dask_setup(_worker: Any) -> None:
    """Keep Prefect from writing logs that it could not send to standard error. Dask calls this in each worker."""
    logging.raiseExceptions = False
