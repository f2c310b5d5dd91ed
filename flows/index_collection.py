"""Index one collection: a run whose steps (fetch, embed on the workers, upsert, delete, publish) are tasks."""

from __future__ import annotations

from contextlib import closing

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.context import TagsContext

from rag_index.core.machine import collect_seldom
from rag_index.core.reports.outcome import RunReport, failed_to_start
from rag_index.core.reports.progress import captured_logs
from rag_index.core.settings import run_settings
from rag_index.errors import RagIndexError
from rag_index.etl.run import RunOptions, execute, open_run
from rag_index.orchestration.cluster import run_workers, task_runner
from rag_index.orchestration.reporting import OWN_END, RunEnd, current_run, flow_run_id, report_state
from rag_index.orchestration.stopping import stoppable
from rag_index.search.evaluation.gate import SearchHooks
from tasks.steps import AsTasks


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
        checks = whole.checks if whole else None
        with stoppable() as stop:
            with (
                collect_seldom(),
                TagsContext(current_tags=set()),  # a tagged task asks the server for a slot, and would wait for it
                run_workers(settings) as workers,
                open_run(settings, index, options, run_id=flow_run_id(), hooks=SearchHooks, checks=checks) as run,
                captured_logs(run.progress.note_later),
            ):
                end = RunEnd(run, whole)
                with closing(AsTasks(run, workers)) as steps:
                    execute(run, steps)
                end.note()
            state = end.state()
        return stop.state or state
    except RagIndexError as error:
        return report_state(RunReport([failed_to_start(index, error)]))
