"""Publish: verify the collection against the ledger, let readers see it, and build its search index if that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from rag_index.indexing import search_index
from rag_index.orchestration.opaque import Opaque
from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.scan import Scan


def publish(scan: Scan) -> None:
    """Verify the collection, and let readers see a rebuilt one."""
    with scan.run.stopwatch.stage("publish"):
        _publish(Opaque(scan))


@task(name="verify and publish", task_run_name="verify and publish", **RETRIED)
def _publish(scan: Opaque[Scan]) -> None:
    """Verify the counts; of a rebuild also a sample and the guards, then move the alias."""
    scan.value.publish()


def build_search_index(scan: Scan) -> None:
    """Build the search index if `[store] hnsw` and the size of the collection ask for it."""
    run, collection = scan.run, scan.collection
    if search_index.search_index_due(run.store, collection.name, collection.dimension, run.settings.store.hnsw):
        with run.stopwatch.stage("search index"):
            _build_search_index(Opaque(scan))


@task(name="build search index", task_run_name="build search index")
def _build_search_index(scan: Opaque[Scan]) -> None:
    """Build the search index. A failure costs searches time and nothing else, so the run continues."""
    search_index.build_search_index(scan.value.run, scan.value.collection, get_run_logger())
