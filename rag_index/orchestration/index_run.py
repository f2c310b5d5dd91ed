"""What the run of one index needs in its flow run, opened in order: workers, then source, ledger,
lease and store, then tasks."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prefect.context import TagsContext

from rag_index.core.machine import collect_seldom
from rag_index.etl.opened import open_index
from rag_index.orchestration.cluster import run_workers
from rag_index.orchestration.hooks import SearchHooks
from rag_index.orchestration.reporting import (
    current_multi_run,
    end_crashed_run,
    flow_run_id,
    shown_record,
)
from rag_index.orchestration.task_steps import TaskSteps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Settings
    from rag_index.etl.checks import ServiceChecks
    from rag_index.etl.opened import Opened, RunOptions


@dataclass(frozen=True, slots=True)
class IndexRun:
    """The arguments of `etl.run.run_index`, in a flow run."""

    opened: Opened
    steps: TaskSteps
    record: RunRecord
    hooks: SearchHooks
    checks: ServiceChecks | None
    """The checks of the run over several indexes that this one is a part of. None if it is a run of
    its own."""


@contextmanager
def open_index_run(settings: Settings, index: str, options: RunOptions) -> Iterator[IndexRun]:
    """Open a run of an index whose steps are tasks of this flow run. It is closed with the block.

    Raises as `open_index`, and SettingsError if the golden file of a gate cannot be used.
    """
    parent = current_multi_run()
    record = shown_record(settings, index, parent)
    hooks = SearchHooks(settings, settings.index(index), options)
    with ExitStack() as stack:
        stack.enter_context(collect_seldom())
        # A tagged task requests a slot from Prefect's server, and would wait for it.
        stack.enter_context(TagsContext(current_tags=set()))
        workers = stack.enter_context(run_workers(settings))
        opened = stack.enter_context(open_index(settings, index, options, run_id=flow_run_id()))
        if parent is not None:
            stack.enter_context(parent.log_outages_of(record.progress))
        steps = stack.enter_context(closing(TaskSteps(settings, record, workers)))
        end_crashed_run(opened.lease)
        yield IndexRun(opened, steps, record, hooks, parent.checks if parent else None)
