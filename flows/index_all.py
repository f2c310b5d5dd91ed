"""Index everything: one cluster of workers, a subflow for each index, one report."""

from __future__ import annotations

import time

from prefect import flow, tags
from prefect.client.schemas.objects import State

from flows.index_collection import index_collection
from rag_index.core.reports.outcome import RunReport, failed_to_start
from rag_index.core.settings import run_settings
from rag_index.errors import IndexLocked, RagIndexError
from rag_index.etl.opened import RunOptions
from rag_index.orchestration.cluster import run_workers
from rag_index.orchestration.reporting import (
    OWN_END,
    multi_index_run,
    only_run,
    report_state,
    run_name,
    run_subflow,
    superfluous_state,
)
from rag_index.orchestration.stopping import stoppable
from tasks.policies import only_our_errors


@flow(name="index-all", flow_run_name=run_name, **OWN_END)
def index_all(
    config: str | None = None,
    indexes: list[str] | None = None,
    options: RunOptions | None = None,
) -> State[RunReport]:
    """Bring all indexes up to date with their source, one after another.

    An index that fails does not stop the others.

        prefect deployment run index-all/index-all -p options='{"full": true}'

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's
            folder or above it.
        indexes: Names of indexes; by default all.
        options: What to do differently from the settings, such as {"full": true} or {"workers": 2}.
    """
    started = time.monotonic()
    options = options or RunOptions()
    report = RunReport()
    # What the report names if the settings cannot be read.
    names = indexes or ["all"]
    try:
        settings = run_settings(config, **options.in_settings())
        project = settings.project
        wait = settings.run.wait or settings.run.wait_for_recovery
        chosen = settings.named(indexes)
        names = [index.name for index in chosen]
        with only_our_errors("the run"), stoppable() as stop:
            with (
                only_run(settings),
                run_workers(settings),
                multi_index_run(project, len(chosen), wait) as run,
            ):
                for name in names:
                    with tags(project, name):
                        state = run_subflow(index_collection, name, str(settings.path), options)
                    outcome = run.outcome_of(state, name)
                    report.indexes.append(outcome)
                    # The run was cancelled, and with it the other indexes.
                    if state.is_cancelled():
                        break
            report.seconds = time.monotonic() - started
            run.end(report, state)
        return stop.state or report_state(report)
    except IndexLocked as error:
        # Two other runs of all indexes: one is under way, and one waits and will do this work.
        return superfluous_state(error)
    except RagIndexError as error:
        # The run over all indexes failed itself, such as with a mistake in the settings.
        outcomes = [failed_to_start(name, error) for name in names]
        return report_state(RunReport(outcomes))


# Processes that Dask spawns import this module, too: they must not run the flow.
if __name__ == "__main__":
    from rag_index.orchestration.launch import run_flow

    raise SystemExit(run_flow(index_all))
