"""Index one collection: a run whose steps (fetch, embed on the workers, upsert, delete, publish) are tasks."""

from __future__ import annotations

from contextlib import closing, nullcontext

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import TagsContext

from rag_index.core.machine import collect_seldom
from rag_index.core.reports.outcome import RunReport, failed_to_start
from rag_index.core.settings import run_settings
from rag_index.errors import RagIndexError
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.orchestration.cluster import run_workers, task_runner
from rag_index.orchestration.hooks import SearchHooks
from rag_index.orchestration.reporting import (
    OWN_END,
    current_run,
    end_died,
    end_state,
    failed_rows,
    flow_run_id,
    report_state,
    shown_record,
)
from rag_index.orchestration.stopping import stoppable
from rag_index.orchestration.task_steps import TaskSteps
from tasks.policies import only_our_errors


@flow(
    name="index-collection",
    flow_run_name="index {index}",
    task_runner=task_runner(),
    **OWN_END,
)
def index_collection(index: str, config: str | None = None, options: RunOptions | None = None) -> State[RunReport]:
    """Bring one index up to date with its source.

        prefect deployment run index-collection/index-collection -p index=comments

    Args:
        index: The name of an index in the settings file.
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above it.
        options: What to do differently from the settings, such as {"full": true} or {"workers": 2}.
    """
    try:
        options = options or RunOptions()
        settings, whole = run_settings(config, **options.in_settings()), current_run()
        record, checks = shown_record(settings, index, whole), whole.checks if whole else None
        hooks = SearchHooks(settings, settings.index(index), options)
        with only_our_errors("the run"), stoppable() as stop:
            with (
                collect_seldom(),
                TagsContext(current_tags=set()),  # a tagged task asks the server for a slot, and would wait for it
                run_workers(settings) as workers,
                open_index(settings, index, options, run_id=flow_run_id()) as opened,
                whole.says_outages_of(record.progress) if whole else nullcontext(),
                closing(TaskSteps(settings, record, workers)) as steps,
            ):
                end_died(opened.lease)
                target = run_index(opened, steps, record, hooks=hooks, checks=checks)
                failed = failed_rows(opened, target)
            state = end_state(settings, record, target, failed, whole)
        return stop.state or state
    except RagIndexError as error:
        return report_state(RunReport([failed_to_start(index, error)]))
