"""Watch: follow changes of the source until the run is stopped. Each batch with work is a flow run of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from prefect import flow
from prefect.client.schemas.objects import State

from rag_index.care.index_status import try_to_write_metrics
from rag_index.core.reports.outcome import IndexOutcome, RunReport
from rag_index.core.settings import run_settings
from rag_index.orchestration.reporting import OWN_END, report_state, run_name
from rag_index.orchestration.stopping import FlowRunner, failing, stoppable, watch_state
from rag_index.watch import follow
from rag_index.watch.loop import Stop, stopped_by_signals


@flow(name="index-changes", flow_run_name="{index}: {changes} changes", validate_parameters=False, **OWN_END)
def index_changes(index: str, changes: int, batch: Callable[[], IndexOutcome]) -> State[RunReport]:
    """Index the documents in the ledger's inbox, and those that include one of the changed rows.

    Args:
        index: The name of the index.
        changes: How many changes wait in the inbox. A large number is split over several batches.
        batch: The call that indexes them.
    """
    outcome = batch()
    return report_state(RunReport([outcome], outcome.seconds))


@flow(name="watch", flow_run_name=run_name, **OWN_END)
def watch(config: str | None = None, indexes: list[str] | None = None, once: bool = False) -> State[bool]:
    """Follow changes of the source and index them within seconds, until the run is cancelled.

        prefect deployment run watch/watch

    Args:
        config: The settings file; by default RAG_INDEX_CONFIG, or rag-index.toml in the worker's folder or above it.
        indexes: Names of indexes; by default all.
        once: Whether to index what has changed until now, and end.
    """
    flag, caught_up = Stop(), False
    with stoppable() as stop, failing(stop), stopped_by_signals(flag):  # it ends after its batch
        caught_up = follow(
            partial(run_settings, config), indexes, lambda settings: FlowRunner(settings, flag, index_changes), flag,
            once=once, changed=try_to_write_metrics,
        )  # fmt: skip
    return stop.state or watch_state(caught_up, stopped=flag.is_set())
