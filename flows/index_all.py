"""Index everything: one cluster of workers, a subflow for each index, one report."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from prefect import flow

from flows.index_collection import index_collection
from rag_index.errors import IndexLocked, RagIndexError
from rag_index.indexing.step_retries import shared_checks
from rag_index.orchestration.api_server import light_clients
from rag_index.orchestration.cluster import run_workers
from rag_index.orchestration.reporting import (
    only_run,
    outcome_of,
    report_state,
    run_name,
    run_subflow,
    superfluous_state,
    whole_run,
)
from rag_index.orchestration.stopping import stoppable
from rag_index.reports.outcome import RunReport, failed_to_start
from rag_index.settings import run_settings

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="index-all", flow_run_name=run_name)
def index_all(
    config: str | None = None,
    indexes: list[str] | None = None,
    workers: int | None = None,
    shard_documents: int | None = None,
    serial: bool = False,
    full: bool = False,
    allow_deletes: bool = False,
    allow_loss: bool = False,
    retry_failed: bool = False,
    wait: float | None = None,
) -> State[RunReport]:
    """Bring all indexes up to date with their source; one that fails does not stop the others.

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above it.
        indexes: Names of indexes; by default all.
        workers: Dask worker processes; by default as the settings say.
        shard_documents: Documents per shard; by default as the settings say.
        serial: Embed in one process, without a Dask cluster.
        full: Rebuild each index beside the live one, and publish it once it is verified.
        allow_deletes: Delete what the source no longer has, however many documents that is.
        allow_loss: Publish rebuilt collections without asking their gates.
        retry_failed: Try failed documents again, however often they were tried.
        wait: Seconds to wait for services that are down at the start.
    """
    started = time.monotonic()
    settings = run_settings(config, workers=workers, shard_documents=shard_documents, serial=serial, wait=wait)
    report, chosen = RunReport(), settings.named(indexes)
    same = (workers, shard_documents, serial, full, allow_deletes, allow_loss, retry_failed, wait)
    try:
        with stoppable() as stop:
            with (
                only_run(settings),
                light_clients(settings),
                run_workers(settings),
                shared_checks(settings.run.wait),
                whole_run(settings.project, len(chosen)) as whole,
            ):
                for index in chosen:
                    state = run_subflow(index_collection, index.name, str(settings.path), *same)
                    report.indexes.append(outcome_of(state, index.name))
                    if state.is_cancelled():
                        break
            report.seconds = time.monotonic() - started
            whole.end(report, state)
        return stop.state or report_state(report)
    except IndexLocked as error:
        return superfluous_state(error)
    except RagIndexError as error:
        return report_state(RunReport([failed_to_start(index.name, error) for index in chosen]))
