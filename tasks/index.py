"""The tasks of a run: each is a policy (retries, delays, a time limit where it ends something) around one call.

    check > fetch > embed > upsert > delete gone > verify and publish > erase

The flow `index-collection` runs them, in the order of `rag_index.etl.run`; `tasks.steps` says what waits for what. If
there is much to do, `embed` and `upsert` run on the Dask workers of the flow's task runner, and `upsert` takes the
future of `embed`, so that vectors go from the worker that made them to the store.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from prefect import task
from prefect.assets import materialize
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Crashed
from prefect.tasks import exponential_backoff

from rag_index.core.machine import JITTER, Policy, tries_left
from rag_index.core.reports.outcome import count_of
from rag_index.errors import ProcessDied, TransientError
from rag_index.etl.embed import NO_MEMORY, embed, process_died
from rag_index.etl.plain import answer
from rag_index.etl.steps import CHECK, DELETE, EMBED, ERASE, FETCH, PUBLISH, SEARCH_INDEX, UPSERT
from rag_index.orchestration.assets import note_published
from rag_index.orchestration.worker import embed_in_worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State, TaskRun
    from prefect.tasks import Task

    from rag_index.care.doctor.collection_state import Diagnosis
    from rag_index.components.sources import Source, SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.core.settings import Settings
    from rag_index.etl.commit import Destination
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.run import IndexRun
    from rag_index.orchestration.worker import WorkerDestination

T = TypeVar("T")


class Opaque(Generic[T]):
    """A value that Prefect must not look into: it searches lists, dictionaries and dataclasses for futures."""

    __slots__ = ("__weakref__", "value")  # Prefect knows results again by weak references

    def __init__(self, value: T) -> None:
        self.value = value


def options_of(policy: Policy) -> dict[str, Any]:
    """Return the options of a task with this policy."""
    return {
        "retries": policy.retries,
        "retry_delay_seconds": exponential_backoff(1) if policy.delay is None else policy.delay,
        "retry_jitter_factor": JITTER,
        "retry_condition_fn": partial(may_be_tried, policy, _deadline(policy)),
        "timeout_seconds": policy.limit,
        "cache_policy": NO_CACHE,  # hashing what a task is given costs more than the task
        "persist_result": False,
    }


def _deadline(policy: Policy) -> float | None:
    return None if policy.within is None else time.monotonic() + policy.within


def may_be_tried(policy: Policy, deadline: float | None, task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task that failed is tried again, and log why."""
    logger, error = get_run_logger(), error_of(state)
    left = tries_left(policy, error, run.run_count)
    if deadline is not None and time.monotonic() >= deadline:
        logger.error("not tried again, because its time is used up: %s", error)
        return False
    if left:
        logger.warning("transient, trying again (tries left: %d): %s", left, error)
    else:
        transient = isinstance(error, TransientError)
        kind = "transient, but tried or waited for too long" if transient else "terminal, not tried again"
        logger.error("%s: %s: %s", kind, type(error).__name__, error)
    return left > 0


def error_of(state: State[Any]) -> BaseException | None:
    """Return the exception that a failed state carries, None if it carries none."""
    data = getattr(state.data, "result", state.data)
    return data if isinstance(data, BaseException) else None


@task(name="check", task_run_name="check {service}", **options_of(CHECK))
def check(service: str, ask: Opaque[Callable[[], T]]) -> Opaque[T]:
    """Check that a service that the run needs (source, store, embedder, …) can be used, and return its answer.

    The embedder embeds one text, and tells its model and digest. If a service is down, it is asked again for as long as
    `[run] wait` says.
    """
    return Opaque(ask.value())


@task(name="fetch", task_run_name="fetch {index} {page}", **options_of(FETCH))
def fetch_page(index: str, page: int, source: Opaque[Source], cursor: Opaque[Any], rows: int) -> Opaque[SourcePage]:
    """Read a page of the source: the next `rows` documents after the cursor. A retry reads the same ones."""
    read = source.value.page(cursor.value, rows)
    get_run_logger().info("%s read", count_of(len(read.documents), "document"))
    return Opaque(read)


@task(name="embed", task_run_name="embed {index} {number}", **options_of(EMBED))
def embed_shard(index: str, number: int, job: Opaque[EmbedJob]) -> Opaque[EmbeddedShard]:
    """Chunk and embed the documents of a shard: on a Dask worker, or in the flow's process if there is little.

    Requests to servers have a time limit. If all servers are down, the task waits for `[embedder] wait_for_recovery`. A
    worker that hangs ends itself.
    """
    try:
        embedded = embed_in_worker(job.value)
    except MemoryError:
        return _no_memory(job.value.shard)  # type: ignore[return-value]
    _log_embedded(job.value, embedded)
    return Opaque(embedded)


@task(name="embed alone", task_run_name="embed {index} {number} alone", **options_of(EMBED))
def embed_suspect(index: str, number: int, job: Opaque[EmbedJob], child: Opaque[Executor]) -> Opaque[EmbeddedShard]:
    """Embed documents that may kill the process that embeds them, in a child of the flow's process.

    If the child dies, the task ends as Crashed, and the documents are tried in parts until the one at fault is found.
    """
    try:
        embedded = answer(child.value.submit(embed, job.value, limited=True), job.value)
    except ProcessDied as error:
        return Crashed(message=str(error))  # type: ignore[return-value]
    _log_embedded(job.value, embedded)
    return Opaque(embedded)


@task(name="upsert", task_run_name="upsert {index} {number}", **options_of(UPSERT))
def upsert_shard(
    index: str, number: int, embedded: Opaque[EmbeddedShard], to: Opaque[Destination | WorkerDestination]
) -> Opaque[WrittenShard]:
    """Write the points of a shard to Qdrant, and return what the ledger needs once they are durable.

    If the store is a server, the worker that embedded the shard writes it; otherwise the flow's process does.
    """
    try:
        written = to.value.write(embedded.value)
    except MemoryError:
        return _no_memory(embedded.value)  # type: ignore[return-value]
    get_run_logger().info("%d points written in %.1f s", sum(written.chunk_counts), written.write_seconds)
    return Opaque(written)


@task(name="delete gone", task_run_name="delete gone", **options_of(DELETE))
def delete_gone(index: str, run: Opaque[IndexRun], delete: Opaque[Callable[[IndexRun], str]]) -> None:
    """Delete what the source no longer has, unless the delete guard holds it back."""
    get_run_logger().info("%s", delete.value(run.value))


@materialize(
    "qdrant://alias", by="rag-index", name="verify and publish", task_run_name="verify and publish",
    **options_of(PUBLISH),
)  # fmt: skip
def publish(index: str, run: Opaque[IndexRun], publish: Opaque[Callable[[IndexRun], str]]) -> None:
    """Check that the store holds what the ledger says; after a rebuild also a sample, then move the alias.

    What it makes is an asset of Prefect, `qdrant://ALIAS`, with the table as its source.
    """
    get_run_logger().info("%s", publish.value(run.value))
    note_published(run.value)


@task(name="erase", task_run_name="erase", **options_of(ERASE))
def erase(index: str, run: Opaque[IndexRun], erase: Opaque[Callable[[IndexRun], str]]) -> None:
    """Erase what was deleted or changed from the files of the store (`[store] erase`)."""
    get_run_logger().info("%s", erase.value(run.value))


@task(name="build search index", task_run_name="build search index", **options_of(SEARCH_INDEX))
def build_search_index(index: str, run: Opaque[IndexRun], build: Opaque[Callable[[IndexRun], str]]) -> None:
    """Build the search index (HNSW) of a large embedded collection. The run is complete already.

    It takes as long as it takes: a call of Qdrant's that only the end of the process ends.
    """
    get_run_logger().info("%s", build.value(run.value))


@task(name="examine", task_run_name="examine {index}", **options_of(CHECK))
def examine_index(settings: Settings, index: str) -> Diagnosis:
    """Return everything that is wrong with an index. Nothing is changed, so a retry is harmless."""
    from rag_index.care.doctor.checkup import examine  # workers need none of what it imports

    return examine(settings, [index])


def _no_memory(shard: Shard | EmbeddedShard) -> State[Any]:
    """Return the state of a task whose process had no more memory: its documents are tried alone."""
    return Crashed(message=str(process_died(shard, NO_MEMORY)))


def _log_embedded(job: EmbedJob, embedded: EmbeddedShard) -> None:
    stats, failed = embedded.stats, sum(failure.kind == "failed" for failure in embedded.failures)
    get_run_logger().info(
        "%s of pages %s: %d texts embedded, %d duplicates, %d reused, %s failed, in %.1f s",
        count_of(len(job.shard.documents), "document"), ", ".join(map(str, job.shard.pages)) or "-",
        stats.texts, stats.repeated, stats.reused, count_of(failed, "document"), stats.seconds,
    )  # fmt: skip
