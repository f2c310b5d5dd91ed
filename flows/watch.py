"""Watch: follow changes of the source until the run is stopped. Each batch with work is a flow run of its own."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from prefect import flow

from flows.index_changes import index_changes
from rag_index.orchestration.reporting import run_name
from rag_index.orchestration.stopping import stoppable
from rag_index.orchestration.watch_runs import FlowRunner, watch_state
from rag_index.settings import run_settings
from rag_index.status.metrics_file import try_to_write_metrics
from rag_index.watch.loop import Stop, stopped_by_signals
from rag_index.watch.plain import open_watch

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


@flow(name="watch", flow_run_name=run_name)
def watch(config: str | None = None, indexes: list[str] | None = None, once: bool = False) -> State[bool]:
    """Have changes of the source indexed within seconds.

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above it.
        indexes: Names of indexes; by default all.
        once: Index what has changed until now, and end.
    """
    settings, flag, caught_up = run_settings(config), Stop(), False
    with (
        stoppable(may_complete=True) as stop,
        stopped_by_signals(flag),  # it ends after its batch: a command's watch completes, a deployed one may be put off
        closing(FlowRunner(settings, flag, index_changes)) as runner,
        open_watch(settings, indexes, runner, flag, changed=lambda: try_to_write_metrics(settings)) as opened,
    ):
        caught_up = opened.run(once=once)
    return stop.state or watch_state(caught_up)
