"""Index changes: one batch of a watch, which is a flow run of its own so that its work and its failure are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import flow

from rag_index.orchestration.states import report_state
from rag_index.reports.outcome import RunReport

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

    from rag_index.orchestration.opaque import Opaque
    from rag_index.orchestration.watch_runs import Batch

__all__ = ["index_changes"]


@flow(name="index-changes", flow_run_name="{index}: {documents} changes", validate_parameters=False)
def index_changes(index: str, documents: int, batch: Opaque[Batch]) -> State[RunReport]:
    """Bring the documents of a batch up to date, which are in the ledger's inbox.

    Args:
        index: The name of the index.
        documents: How many documents the batch has.
        batch: The batch itself; it keeps what became of it.
    """
    outcome = batch.value.run(index)
    return report_state(RunReport([outcome], outcome.seconds))
