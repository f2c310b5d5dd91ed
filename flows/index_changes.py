"""Index changes: one batch of a watch, which is a flow run of its own so that its work and its failure are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow

from rag_index.orchestration.reporting import report_state
from rag_index.reports.outcome import RunReport

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag_index.orchestration.task_policy import Opaque
    from rag_index.orchestration.watch_runs import Batch


@flow(name="index-changes", flow_run_name="{index}: {changes} changes", validate_parameters=False)
def index_changes(index: str, changes: int, batch: Opaque[Batch]) -> State[RunReport]:
    """Bring documents up to date that are in the ledger's inbox, or that show what is there.

    Args:
        index: The name of the index.
        changes: How many changes wait in the inbox; the batch may leave some of many to the next one.
        batch: The batch itself; it keeps what became of it.
    """
    outcome = batch.value.run(index)
    return report_state(RunReport([outcome], outcome.seconds))
