"""Publish: verify the collection against the ledger, let readers see it, build its search index where that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefect import task
from prefect.logging import get_run_logger

from rag_index.errors import StoreError
from rag_index.indexing.search_index import search_index_due
from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.indexing.run import IndexRun

__all__ = ["build_search_index", "verify_and_publish"]


@task(name="verify and publish", task_run_name="verify and publish", **RETRIED)
def verify_and_publish(run: IndexRun) -> None:
    """Counts must agree before an alias moves."""
    run.verify_and_publish()


def build_search_index(run: IndexRun) -> None:
    """Where `[store] hnsw` and the collection's size ask for it."""
    collection = run.collection
    if search_index_due(run.store, collection.name, collection.dimension, run.settings.store.hnsw):
        _build(run)


@task(name="build search index", task_run_name="build search index")
def _build(run: IndexRun) -> None:
    """What fails here costs searches time, and nothing else: the run goes on."""
    collection = run.collection
    try:
        with run.watch.stage("search index"):
            run.store.optimize(collection.name)
    except StoreError as error:
        get_run_logger().warning(
            "the search index of %s was not built (%s); searches scan until `rag-index optimize %s` builds it",
            collection.name, error, run.index.name,
        )  # fmt: skip
        return
    seconds = run.watch.seconds["search index"]
    get_run_logger().info("the search index of %s was built in %.1f s", collection.name, seconds)
