"""Index one collection: a run whose steps (fetch, embed, upsert, delete, publish) are tasks."""

from __future__ import annotations

from prefect import flow
from prefect.client.schemas.objects import State

from rag_index.core.reports.outcome import RunReport, failed_to_start
from rag_index.core.settings import run_settings
from rag_index.errors import RagIndexError
from rag_index.etl.opened import RunOptions
from rag_index.etl.run import run_index
from rag_index.orchestration.cluster import task_runner
from rag_index.orchestration.index_run import open_index_run
from rag_index.orchestration.reporting import OWN_END, end_state, failed_document_rows, report_state
from rag_index.orchestration.stopping import stoppable
from tasks.policies import only_our_errors


@flow(
    name="index-collection",
    flow_run_name="index {index}",
    task_runner=task_runner(),
    **OWN_END,
)
def index_collection(
    index: str, config: str | None = None, options: RunOptions | None = None
) -> State[RunReport]:
    """Bring one index up to date with its source.

        prefect deployment run index-collection/index-collection -p index=comments

    Args:
        index: The name of an index in the settings file.
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's
            folder or above it.
        options: What to do differently from the settings, such as {"full": true} or {"workers": 2}.
    """
    options = options or RunOptions()
    try:
        settings = run_settings(config, **options.in_settings())
        with only_our_errors("the run"), stoppable() as stop:
            with open_index_run(settings, index, options) as run:
                target = run_index(
                    run.opened, run.steps, run.record, hooks=run.hooks, checks=run.checks
                )
                failed_documents = failed_document_rows(run.opened, target)
            # The index is free for other runs while this one waits for Prefect's server.
            state = end_state(settings, run.record, target, failed_documents)
        return stop.state or state
    except RagIndexError as error:
        # The run has no record yet, such as with a mistake in the settings.
        outcome = failed_to_start(index, error)
        return report_state(RunReport([outcome]))
