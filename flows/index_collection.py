"""Index one collection: fetch, embed on the workers, upsert, delete what is gone, verify, publish."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow

from rag_index.errors import RagIndexError
from rag_index.indexing.run import RunOptions, open_run
from rag_index.machine.garbage import collect_seldom
from rag_index.orchestration.cluster import OwnWorkers
from rag_index.orchestration.signals import stoppable
from rag_index.orchestration.states import failed_to_start, flow_run_id, report_state, shown
from rag_index.reports.outcome import RunReport
from rag_index.settings import run_settings
from tasks.delete import delete_gone
from tasks.fetch import pages
from tasks.health import check_context, check_embedder, check_source, check_store, check_workers
from tasks.publish import build_search_index, verify_and_publish
from tasks.shards import embed_mapped, upsert

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

__all__ = ["index_collection"]


@flow(name="index-collection", flow_run_name="index {index}", task_runner=OwnWorkers())
def index_collection(
    index: str,
    config: str | None = None,
    workers: int | None = None,
    shard_documents: int | None = None,
    serial: bool = False,
    full: bool = False,
    allow_deletes: bool = False,
    retry_failed: bool = False,
    wait: float | None = None,
) -> State[RunReport]:
    """Bring one index up to date with its source.

    Args:
        index: The name of an index in the settings file.
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above.
        workers: Dask worker processes; by default as the settings say.
        shard_documents: Documents a shard; by default as the settings say.
        serial: Embed in one process, with no Dask cluster.
        full: Build the index anew beside the old one, and show it when it is verified.
        allow_deletes: Delete however many documents the source has no more.
        retry_failed: Try documents again that failed too often.
        wait: Seconds to wait for services that are down at the start.
    """
    try:
        settings = run_settings(config, workers=workers, shard_documents=shard_documents, serial=serial, wait=wait)
        options = RunOptions(full=full, allow_deletes=allow_deletes, retry_failed=retry_failed)
        with stoppable(), collect_seldom(), open_run(settings, index, options, run_id=flow_run_id()) as run:
            with shown(run):
                check_source(run)
                check_store(run)
                check_workers(run)
                check_context(run)
                run.begin(check_embedder(run))
                for shard in embed_mapped(run, run.shards(pages(run))):
                    upsert(run, shard)
                delete_gone(run)
                verify_and_publish(run)
                build_search_index(run)
            return report_state(RunReport([run.outcome], run.outcome.seconds))
    except RagIndexError as error:
        return report_state(RunReport([failed_to_start(index, error)]))
