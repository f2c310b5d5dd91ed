"""Publish: verify the collection against the ledger, let readers see it, and build its search index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.scan import Scan
    from rag_index.orchestration.retries import Opaque


@task(name="verify and publish", task_run_name="verify and publish", **RETRIED)
def publish(scan: Opaque[Scan]) -> None:
    """Verify the counts; of a rebuild also a sample and the guards, then move the alias."""
    scan.value.publish()


@task(name="build search index", task_run_name="build search index")
def build_search_index(scan: Opaque[Scan]) -> None:
    """Build the search index. A failure costs searches time and nothing else, so the run continues."""
    scan.value.build_search_index(get_run_logger())
