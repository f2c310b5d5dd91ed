"""Delete: what the source has no more, once the whole of it was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.run import IndexRun

__all__ = ["delete_gone"]


@task(name="delete gone", task_run_name="delete gone", **RETRIED)
def delete_gone(run: IndexRun) -> None:
    """Store first, ledger after; a retry goes on where it stopped."""
    run.delete_gone()
