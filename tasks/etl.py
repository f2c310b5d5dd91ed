"""The tasks of a run. Each is one step under one policy: how often and how long it is tried.

    check > fetch > (write words) > embed > upsert > delete gone > verify and publish > erase

`rag_index.etl.run` calls the steps in this order, and `orchestration.task_steps` calls their tasks
and decides what waits for what. `embed` and `upsert` run on the Dask workers of the flow's task
runner, and `upsert` takes the future of `embed`, so that vectors go from the worker that made them
to the store.

Prefect searches the arguments of a task for futures, element by element in lists, dictionaries,
dataclasses and pydantic models. A large argument is a plain class or one of attrs, which Prefect
does not search: a shard takes 2 s instead of 7.
"""

from __future__ import annotations

import inspect
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.assets import materialize
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Crashed

from rag_index.core.recovery import DELAYS, JITTER, RETRIES, retryable_for
from rag_index.core.reports.outcome import count_of
from rag_index.errors import ProcessDied, ShardHalved
from rag_index.etl import checks, words_first
from rag_index.etl import deletes as deleting
from rag_index.etl import erase as erasing
from rag_index.etl import fetch as fetching
from rag_index.etl import publish as publishing
from rag_index.etl.embed import NO_MEMORY, embed, process_died_error
from rag_index.etl.local_steps import embedded_by
from rag_index.etl.steps import sentence_of
from tasks.assets import note_published
from tasks.policies import may_be_tried, only_our_errors, only_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from prefect.client.schemas.objects import State
    from prefect.tasks import Task

    from rag_index.core.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan
    from rag_index.etl.upsert import Destination, WorkerDestination


def policy(name: str, *, run_name: str = "", is_retried: bool = True) -> dict[str, Any]:
    """Return the options of a task: the policy that all steps of a run share.

    A step is harmless to repeat, so it is tried up to `RETRIES` times more, after `DELAYS` seconds
    each and some jitter, as long as its error is transient and its waiting time is not over
    (`may_be_tried`). Hashing the arguments of a task costs more than the task, so no result is
    cached.
    """
    return {
        "name": name,
        "task_run_name": run_name or name,
        "retries": RETRIES if is_retried else 0,
        "retry_delay_seconds": DELAYS,
        "retry_jitter_factor": JITTER,
        "retry_condition_fn": may_be_tried,
        "cache_policy": NO_CACHE,
        "persist_result": False,
    }


def task_of(
    step: Callable[..., Any],
    name: str,
    *,
    run_name: str = "",
    is_retried: bool = True,
    make_task: Callable[..., Any] = task,
) -> Task[..., Any]:
    """Return the task of a step: the step under the policy, with its docstring.

    The task has one argument more. `wait` is the number of seconds for which the step is tried
    again after its service failed first.

    Example:
        state = check_store(opened, wait=1800.0, return_state=True)
    """

    @wraps(step)
    def carry_out(*args: Any, wait: float, **kwargs: Any) -> Any:
        with only_our_errors(name), retryable_for(wait):
            result = step(*args, **kwargs)
        sentence = sentence_of(result)
        if sentence:
            get_run_logger().info("%s", sentence)
        return result

    # Prefect binds the arguments of a task by its signature, which `wraps` has from the step.
    signature = inspect.signature(step)
    wait_argument = inspect.Parameter("wait", inspect.Parameter.KEYWORD_ONLY)
    arguments = [*signature.parameters.values(), wait_argument]
    carry_out.__signature__ = signature.replace(parameters=arguments)  # type: ignore[attr-defined]
    options = policy(name, run_name=run_name, is_retried=is_retried)
    made: Task[..., Any] = make_task(**options)(carry_out)
    return made


def _publish(
    opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool
) -> str:
    """Check that the store holds what the ledger has; after a rebuild also a sample, then move the
    alias.

    The published collection is an asset of Prefect, `qdrant://ALIAS`, with the table as its source.
    """
    sentence = publishing.publish(opened, scan, record, hooks, all_deleted=all_deleted)
    note_published(opened, scan.target, record)
    return sentence


# At the start: check the services

check_source = task_of(checks.check_source, "check source")
check_store = task_of(checks.check_store, "check store")
check_parts = task_of(checks.check_parts, "check parts")
check_context = task_of(checks.check_context, "check context")
check_embedder = task_of(checks.check_embedder, "check embedder")

# Page by page; embed and upsert stand below, because they cross processes

fetch_page = task_of(fetching.fetch_page, "fetch", run_name="fetch {opened.index.name} {number}")

# Once, in a first run with a slow embedder. It is not retried, but each of its pages and writes is.

write_words = task_of(words_first.write_words, "write words", is_retried=False)

# After the last page

delete_gone = task_of(deleting.delete_gone, "delete gone")
publish = task_of(
    _publish, "verify and publish", make_task=partial(materialize, "qdrant://alias", by="rag-index")
)
erase = task_of(erasing.erase_after, "erase")

# After the run, which is complete already. Not retried: the next run builds what is missing. It has
# no time limit: a call of Qdrant's that only the end of the process ends.

build_search_index = task_of(publishing.build_search_index, "build search index", is_retried=False)

TASKS: dict[Callable[..., Any], Task[..., Any]] = {
    checks.check_source: check_source,
    checks.check_store: check_store,
    checks.check_parts: check_parts,
    checks.check_context: check_context,
    checks.check_embedder: check_embedder,
    fetching.fetch_page: fetch_page,
    words_first.write_words: write_words,
    deleting.delete_gone: delete_gone,
    publishing.publish: publish,
    erasing.erase_after: erase,
    publishing.build_search_index: build_search_index,
}
"""The task of each step that a run calls."""


@task(**policy("embed", run_name="embed {job.shard.index} {job.shard.number}"))
@only_ours("embed")
def embed_shard(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed the documents of a shard, on a Dask worker.

    A request ends after `[embedder] timeout`, and a worker that hangs ends itself (`Shard.limit`).
    A retry begins with the health check: Ollama's version, its model, a plain text.
    """
    try:
        embedded = embed(job)
    except MemoryError:
        return _no_memory(job.shard)  # type: ignore[return-value]
    except ShardHalved as error:
        # Its server went away twice under it. The halves of the shard come next.
        return Cancelled(name="Halved", message=str(error), data=error)  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(**policy("embed alone", run_name="embed {job.shard.index} {job.shard.number} alone"))
@only_ours("embed alone")
def embed_suspect(job: EmbedJob, child: Executor) -> EmbeddedShard:
    """Embed documents that may kill the process that embeds them, in a child of the flow's process.

    If the child dies, the task ends as Crashed, and the documents are tried in parts until the one
    at fault is found.
    """
    try:
        future = child.submit(embed, job, limited=True)
        embedded = embedded_by(future, job)
    except ProcessDied as error:
        return Crashed(message=str(error))  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(**policy("upsert", run_name="upsert {embedded.index} {embedded.number}"))
@only_ours("upsert")
def upsert_shard(embedded: EmbeddedShard, to: Destination | WorkerDestination) -> WrittenShard:
    """Write the points of a shard to Qdrant, and return the rows for the ledger once they are
    durable.

    If the store is a server, the worker that embedded the shard writes it; otherwise the flow's
    process does. A request ends after `[store] timeout`. A retry begins with the health check:
    Qdrant's `/readyz`.
    """
    try:
        with retryable_for(to.wait):
            written = to.write(embedded)
    except MemoryError:
        return _no_memory(embedded)  # type: ignore[return-value]
    points = sum(written.chunk_counts)
    get_run_logger().info("%d points written in %.1f s", points, written.work.write_seconds)
    return written


def _no_memory(shard: Shard | EmbeddedShard) -> State[Any]:
    """Return the state of a task whose process had no memory left. Its documents are tried
    alone."""
    error = process_died_error(shard, NO_MEMORY)
    return Crashed(message=str(error))


def _log_embedded(job: EmbedJob, embedded: EmbeddedShard) -> EmbeddedShard | State[EmbeddedShard]:
    """Log an embedded shard, and return what its task returns.

    If documents failed, that is a state with a name of its own, which the graph and the list of
    tasks show.
    """
    work = embedded.work
    failed = sum(failure.kind == "failed" for failure in embedded.failures)
    failed_text = count_of(failed, "document")
    documents_text = count_of(len(job.shard.documents), "document")
    pages_text = ", ".join(map(str, job.shard.pages)) or "-"
    get_run_logger().info(
        "%s of pages %s: %d texts embedded, %d reused, %s failed, in %.1f s",
        documents_text,
        pages_text,
        work.texts,
        work.reused,
        failed_text,
        work.seconds,
    )
    if not failed:
        return embedded
    return Completed(name="Partial", message=f"{failed_text} failed", data=embedded)
