"""Index one collection: a run whose steps (fetch, embed on the workers, upsert, delete, publish) are tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow
from prefect_dask.task_runners import DaskTaskRunner

from rag_index.errors import RagIndexError
from rag_index.indexing.run import RunOptions, open_run
from rag_index.machine import collect_seldom
from rag_index.orchestration.api_server import light_clients
from rag_index.orchestration.cluster import run_cluster
from rag_index.orchestration.reporting import RunEnd, flow_run_id, report_state
from rag_index.orchestration.stopping import stoppable
from rag_index.reports.outcome import RunReport, failed_to_start
from rag_index.settings import run_settings
from tasks.steps import TaskSteps

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(
    name="index-collection",
    flow_run_name="index {index}",
    task_runner=DaskTaskRunner(cluster_class=run_cluster),  # type: ignore[arg-type]  # its futures are too narrow
)
def index_collection(
    index: str,
    config: str | None = None,
    workers: int | None = None,
    shard_documents: int | None = None,
    serial: bool = False,
    full: bool = False,
    allow_deletes: bool = False,
    allow_loss: bool = False,
    retry_failed: bool = False,
    wait: float | None = None,
) -> State[RunReport]:
    """Bring one index up to date with its source.

    Args:
        index: The name of an index in the settings file.
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above it.
        workers: Dask worker processes; by default as the settings say.
        shard_documents: Documents per shard; by default as the settings say.
        serial: Embed in one process, without a Dask cluster.
        full: Rebuild the index beside the live one, and publish it once it is verified.
        allow_deletes: Delete what the source no longer has, however many documents that is.
        allow_loss: Publish rebuilt collections without asking their gates.
        retry_failed: Try failed documents again, however often they were tried.
        wait: Seconds to wait for services that are down at the start.
    """
    try:
        settings = run_settings(config, workers=workers, shard_documents=shard_documents, serial=serial, wait=wait)
        options = RunOptions(full=full, allow_deletes=allow_deletes, allow_loss=allow_loss, retry_failed=retry_failed)
        with stoppable() as stop:
            with (
                collect_seldom(),
                light_clients(settings),
                open_run(settings, index, options, run_id=flow_run_id()) as run,
            ):
                end = RunEnd(run)
                run.execute(TaskSteps())
                end.note()
            state = end.state()
        return stop.state or state
    except RagIndexError as error:
        return report_state(RunReport([failed_to_start(index, error)]))
