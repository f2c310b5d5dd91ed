"""The tasks of a run: each is a policy (retries, delays, a time limit where it ends something) around one call.

    check > fetch > embed > upsert > delete gone > verify and publish > erase

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
from prefect.states import Completed, Crashed

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import identify
from rag_index.core.reports.outcome import count_of
from rag_index.errors import ProcessDied
from rag_index.etl import deletes
from rag_index.etl import publish as publishing
from rag_index.etl.embed import NO_MEMORY, embed, process_died
from rag_index.etl.erase import erase_after
from rag_index.etl.plain import answer
from rag_index.etl.steps import CHECK, DELETE, EMBED, ERASE, FETCH, PUBLISH, SEARCH_INDEX, UPSERT
from tasks.assets import note_published
from tasks.policies import options_of

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from prefect.client.schemas.objects import State

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import Source, SourcePage
    from rag_index.core.documents.batches import EmbeddedShard, Shard, WrittenShard
    from rag_index.core.reports.record import RunRecord
    from rag_index.core.settings import EmbedderSettings
    from rag_index.etl.commit import Destination, WorkerDestination
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan


@task(name="check source", task_run_name="check source", **options_of(CHECK))
def check_source(source: Source) -> None:
    """Check that the source can be read, and that the tables and columns of the settings exist there."""
    source.check()


@task(name="check store", task_run_name="check store", **options_of(CHECK))
def check_store(opened: Opened) -> None:
    """Check that Qdrant answers."""
    opened.store.collections()


@task(name="check parts", task_run_name="check parts", **options_of(CHECK))
def check_parts(opened: Opened) -> dict[str, int]:
    """Count the rows of each part: if too many are lost, nothing is written."""
    return deletes.count_parts_of(opened)


@task(name="check context", task_run_name="check context", **options_of(CHECK))
def check_context(opened: Opened) -> Chunker:
    """Check the model that writes contexts of chunks, and return the chunker that has it."""
    return open_chunker(opened.settings, opened.index)


@task(name="check embedder", task_run_name="check embedder", **options_of(CHECK))
def check_embedder(embedder: EmbedderSettings) -> EmbedderIdentity:
    """Embed one text, and return the model, its digest and its dimension."""
    return identify(embedder)


@task(name="fetch", task_run_name="fetch {index} {page}", **options_of(FETCH))
def fetch_page(source: Source, index: str, page: int, cursor: Any, rows: int) -> SourcePage:
    """Read a page of the source: the next `rows` documents after the cursor. A retry reads the same ones."""
    read = source.page(cursor, rows)
    get_run_logger().info("%s read", count_of(len(read.documents), "document"))
    return read


@task(name="embed", task_run_name="embed {job.shard.index} {job.shard.number}", **options_of(EMBED))
def embed_shard(job: EmbedJob) -> EmbeddedShard:
    """Chunk and embed the documents of a shard, on a Dask worker.

    Requests to servers have a time limit. If all servers are down, the task waits for `[embedder] wait_for_recovery`. A
    worker that hangs ends itself.
    """
    try:
        embedded = embed(job)
    except MemoryError:
        return _no_memory(job.shard)  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(name="embed alone", task_run_name="embed {job.shard.index} {job.shard.number} alone", **options_of(EMBED))
def embed_suspect(job: EmbedJob, child: Executor) -> EmbeddedShard:
    """Embed documents that may kill the process that embeds them, in a child of the flow's process.

    If the child dies, the task ends as Crashed, and the documents are tried in parts until the one at fault is found.
    """
    try:
        embedded = answer(child.submit(embed, job, limited=True), job)
    except ProcessDied as error:
        return Crashed(message=str(error))  # type: ignore[return-value]
    return _log_embedded(job, embedded)  # type: ignore[return-value]


@task(name="upsert", task_run_name="upsert {embedded.index} {embedded.number}", **options_of(UPSERT))
def upsert_shard(embedded: EmbeddedShard, to: Destination | WorkerDestination) -> WrittenShard:
    """Write the points of a shard to Qdrant, and return what the ledger needs once they are durable.

    If the store is a server, the worker that embedded the shard writes it; otherwise the flow's process does.
    """
    try:
        written = to.write(embedded)
    except MemoryError:
        return _no_memory(embedded)  # type: ignore[return-value]
    get_run_logger().info("%d points written in %.1f s", sum(written.chunk_counts), written.write_seconds)
    return written


@task(name="delete gone", task_run_name="delete gone", **options_of(DELETE))
def delete_gone(opened: Opened, scan: Scan, record: RunRecord) -> Deleted:
    """Delete what the source no longer has, unless the delete guard holds it back."""
    deleted = deletes.delete_gone(opened, scan, record)
    get_run_logger().info("%s", deleted.sentence)
    return deleted


@materialize(
    "qdrant://alias", by="rag-index", name="verify and publish", task_run_name="verify and publish",
    **options_of(PUBLISH),
)  # fmt: skip
def publish(opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None, *, all_deleted: bool) -> str:
    """Check that the store holds what the ledger says; after a rebuild also a sample, then move the alias.

    What it makes is an asset of Prefect, `qdrant://ALIAS`, with the table as its source.
    """
    said = publishing.publish(opened, scan, record, hooks, all_deleted=all_deleted)
    get_run_logger().info("%s", said)
    note_published(opened, scan.target, record)
    return said


@task(name="erase", task_run_name="erase", **options_of(ERASE))
def erase(opened: Opened, record: RunRecord) -> str:
    """Erase what was deleted or changed from the files of the store (`[store] erase`)."""
    said = erase_after(opened, record)
    get_run_logger().info("%s", said)
    return said


@task(name="build search index", task_run_name="build search index", **options_of(SEARCH_INDEX))
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
        "%s of pages %s: %d texts embedded, %d duplicates, %d reused, %s failed, in %.1f s",
        count_of(len(job.shard.documents), "document"), ", ".join(map(str, job.shard.pages)) or "-",
        stats.texts, stats.repeated, stats.reused, count_of(failed, "document"), stats.seconds,
    )  # fmt: skip
    if not failed:
        return embedded
    return Completed(name="Partial", message=f"{count_of(failed, 'document')} failed", data=embedded)
