"""Delete: what the source no longer has, once all of it was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.orchestration.opaque import Opaque
from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.scan import Scan


def delete_gone(scan: Scan) -> None:
    """Delete documents of the index that the source no longer has, unless `delete_guard` refuses."""
    with scan.run.stopwatch.stage("delete"):
        _delete_gone(Opaque(scan))


@task(name="delete gone", task_run_name="delete gone", **RETRIED)
def _delete_gone(scan: Opaque[Scan]) -> None:
    """Delete in the store first, then in the ledger; a retry continues where it stopped."""
    scan.value.delete_gone()
