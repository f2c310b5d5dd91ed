"""Delete: what the source no longer has, once all of it was seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task

from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.scan import Scan
    from rag_index.orchestration.retries import Opaque


@task(name="delete gone", task_run_name="delete gone", **RETRIED)
def delete_gone(scan: Opaque[Scan]) -> None:
    """Delete documents that the source no longer has, unless `delete_guard` refuses.

    In the store first, then in the ledger; a retry continues where it stopped.
    """
    scan.value.delete_gone()
