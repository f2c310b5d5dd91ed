"""The tasks of a run: each is a policy (how often it is tried, after which delays, and when no more) around one call.

    check > fetch > (write words) > embed > upsert > delete gone > verify and publish > erase

The flow `index-collection` runs them, in the order of `rag_index.etl.run`; `orchestration.task_steps` says what waits
for what. `embed` and `upsert` run on the Dask workers of the flow's task runner, and `upsert` takes the future of
`embed`, so that vectors go from the worker that made them to the store.

Prefect searches what a task is given for futures, element by element in lists, dictionaries, dataclasses and pydantic
models. So whatever is large here is a plain class or one of attrs, which it leaves alone: a shard takes 2 s, not 7.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.assets import materialize
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Crashed

from rag_index.components.chunking import open_chunker
from rag_index.core.recovery import DELAYS, JITTER, RETRIES, waiting
from rag_index.core.reports.outcome import count_of
from rag_index.errors import ProcessDied, ShardHalved
from rag_index.etl import deletes
from rag_index.etl import publish as publishing
from rag_index.etl.collection import identify_for
from rag_index.etl.embed import NO_MEMORY, embed, process_died
from rag_index.etl.erase import erase_after
from rag_index.etl.plain import answer, ask_store
from tasks.assets import note_published
from tasks.policies import UNCACHED, may_be_tried, only_ours

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from prefect.client.schemas.objects import State

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.commit import Destination, WorkerDestination
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan


@task(
    name="check source", task_run_name="check source",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("check source")
def check_source(opened: Opened, wait: float) -> None:
    """Check that the source can be read, and that the tables and columns of the settings exist there. All checks are
    tried again for `wait` seconds after the service failed first."""
    with waiting(wait):
        opened.source.check()


@task(
    name="check store", task_run_name="check store",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("check store")
def check_store(opened: Opened, wait: float) -> None:
    """Check that Qdrant answers."""
    with waiting(wait):
        ask_store(opened)


@task(
    name="check parts", task_run_name="check parts",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("check parts")
def check_parts(opened: Opened, wait: float) -> dict[str, int]:
    """Count the rows of each part: if too many are lost, nothing is written."""
    with waiting(wait):
        return deletes.count_parts_of(opened)


@task(
    name="check context", task_run_name="check context",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("check context")
def check_context(opened: Opened, wait: float) -> Chunker:
    """Check the model that writes contexts of chunks, and return the chunker that has it."""
    with waiting(wait):
        return open_chunker(opened.settings, opened.index)


@task(
    name="check embedder", task_run_name="check embedder",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("check embedder")
def check_embedder(opened: Opened, wait: float) -> EmbedderIdentity:
    """Embed one text, and return the model, its digest and its dimension."""
    with waiting(wait):
        return identify_for(opened)


@task(
    name="fetch", task_run_name="fetch {opened.index.name} {page}",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("fetch")
def fetch_page(opened: Opened, page: int, cursor: Any, rows: int) -> SourcePage:
    """Read a page of the source: the next `rows` documents after the cursor. A retry reads the same ones, and begins
    with a new connection. A query ends after `[source] timeout`."""
    with waiting(opened.settings.run.wait_for_recovery):
        read = opened.source.page(cursor, rows)
    get_run_logger().info("%s read", count_of(len(read.documents), "document"))
    return read


@task(
    name="embed", task_run_name="embed {job.shard.index} {job.shard.number}",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("embed")
def embed_shard(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed the documents of a shard, on a Dask worker.

    A request ends after `[embedder] timeout`, and a worker that hangs ends itself (`Shard.limit`). A further try begins
    with the health check: Ollama's version, its model, a plain text.
    """
    try:
        embedded = embed(job)
    except MemoryError:
        return _no_memory(job.shard)  # type: ignore[return-value]
    except ShardHalved as error:
        return Cancelled(name="Halved", message=str(error), data=error)  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(
    name="embed alone", task_run_name="embed {job.shard.index} {job.shard.number} alone",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("embed alone")
def embed_suspect(job: EmbedJob, child: Executor) -> EmbeddedShard:
    """Embed documents that may kill the process that embeds them, in a child of the flow's process.

    If the child dies, the task ends as Crashed, and the documents are tried in parts until the one at fault is found.
    """
    try:
        embedded = answer(child.submit(embed, job, limited=True), job)
    except ProcessDied as error:
        return Crashed(message=str(error))  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(
    name="upsert", task_run_name="upsert {embedded.index} {embedded.number}",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("upsert")
def upsert_shard(embedded: EmbeddedShard, to: Destination | WorkerDestination) -> WrittenShard:
    """Write the points of a shard to Qdrant, and return what the ledger needs once they are durable.

    If the store is a server, the worker that embedded the shard writes it; otherwise the flow's process does. A request
    ends after `[store] timeout`. A further try begins with the health check: Qdrant's `/readyz`.
    """
    try:
        with waiting(to.wait):
            written = to.write(embedded)
    except MemoryError:
        return _no_memory(embedded)  # type: ignore[return-value]
    get_run_logger().info("%d points written in %.1f s", sum(written.chunk_counts), written.write_seconds)
    return written


@task(name="write words", task_run_name="write words", retries=0, **UNCACHED)
@only_ours("write words")
def write_words(opened: Opened, write: Callable[[], str]) -> None:
    """Write all documents of a first run by their words, so that searches find them before they are embedded.

    Each page that it reads and each write is tried again as long as a fetch and an upsert are.
    """
    get_run_logger().info("%s", write())


@task(
    name="delete gone", task_run_name="delete gone",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("delete gone")
def delete_gone(opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
    """Delete what the source no longer has, unless the delete guard holds it back."""
    with waiting(opened.settings.run.wait_for_recovery):
        deleted = deletes.delete_gone(opened, scan, record)
    get_run_logger().info("%s", deleted.sentence)
    return deleted


@materialize(
    "qdrant://alias", by="rag-index", name="verify and publish", task_run_name="verify and publish",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("verify and publish")
def publish(opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool) -> str:
    """Check that the store holds what the ledger says; after a rebuild also a sample, then move the alias.

    What it makes is an asset of Prefect, `qdrant://ALIAS`, with the table as its source.
    """
    with waiting(opened.settings.run.wait_for_recovery):
        said = publishing.publish(opened, scan, record, hooks, all_deleted=all_deleted)
    get_run_logger().info("%s", said)
    note_published(opened, scan.target, record)
    return said


@task(
    name="erase", task_run_name="erase",
    retries=RETRIES, retry_delay_seconds=DELAYS, retry_jitter_factor=JITTER,
    retry_condition_fn=may_be_tried, **UNCACHED,
)  # fmt: skip
@only_ours("erase")
def erase(opened: Opened, record: RunRecord) -> str:
    """Erase what was deleted or changed from the files of the store (`[store] erase`)."""
    with waiting(opened.settings.run.wait_for_recovery):
        said = erase_after(opened, record)
    get_run_logger().info("%s", said)
    return said


@task(name="build search index", task_run_name="build search index", retries=0, **UNCACHED)
@only_ours("build search index")
def build_search_index(opened: Opened, name: str, record: RunRecord) -> str:
    """Build the search index (HNSW) of a large embedded collection. The run is complete already.

    It takes as long as it takes: a call of Qdrant's that only the end of the process ends.
    """
    said = publishing.build_search_index(opened, name, record)
    get_run_logger().info("%s", said)
    return said


def _no_memory(shard: Shard | EmbeddedShard) -> State[Any]:
    """Return the state of a task whose process had no more memory: its documents are tried alone."""
    return Crashed(message=str(process_died(shard, NO_MEMORY)))


def _log_embedded(job: EmbedJob, embedded: EmbeddedShard) -> EmbeddedShard | State[EmbeddedShard]:
    """Return what a task ends with: a state with a name of its own if documents failed, so that it is seen in the graph
    and in the list of tasks."""
    stats, failed = embedded.stats, sum(failure.kind == "failed" for failure in embedded.failures)
    get_run_logger().info(
        "%s of pages %s: %d texts embedded, %d reused, %s failed, in %.1f s",
        count_of(len(job.shard.documents), "document"), ", ".join(map(str, job.shard.pages)) or "-",
        stats.texts, stats.reused, count_of(failed, "document"), stats.seconds,
    )  # fmt: skip
    if not failed:
        return embedded
    return Completed(name="Partial", message=f"{count_of(failed, 'document')} failed", data=embedded)
