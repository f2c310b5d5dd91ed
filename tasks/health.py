"""Are the services there: the source readable, the embedder embedding, the store answering, the workers alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from rag_index.embedders import EmbedderIdentity, open_embedder
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.retries import is_transient

if TYPE_CHECKING:
    from rag_index.indexing.run import IndexRun

__all__ = ["check_context", "check_embedder", "check_source", "check_store", "check_workers"]

RETRY_SECONDS = 5.0
_ONCE: dict[str, Any] = {"retry_condition_fn": is_transient, "cache_policy": NO_CACHE, "persist_result": False}


@task(name="check source", task_run_name="check source", **_ONCE)
def _check_source(run: IndexRun) -> None:
    run.source.check()


@task(name="check embedder", task_run_name="check embedder", **_ONCE)
def _check_embedder(run: IndexRun) -> EmbedderIdentity:
    embedder = open_embedder(run.settings.embedder.model_copy(update={"wait_for_recovery": 0.0}))
    try:
        return embedder.identity()
    finally:
        embedder.close()


@task(name="check store", task_run_name="check store", **_ONCE)
def _check_store(run: IndexRun) -> None:
    run.store.collections()


@task(name="check context", task_run_name="check context", **_ONCE)
def _check_context(run: IndexRun) -> str:
    return run.chunker.fingerprint


@task(name="check workers", task_run_name="check workers", **_ONCE)
def _check_workers(run: IndexRun) -> int:
    return count_workers(run.settings.parallel)


def check_source(run: IndexRun) -> None:
    """See that source and settings fit; waits `[run] wait` seconds for a database that is down."""
    _check_source.with_options(**_patience(run))(run)


def check_embedder(run: IndexRun) -> EmbedderIdentity:
    """What the embedder is, by a real embed; waits `[run] wait` seconds for servers that are down."""
    return _check_embedder.with_options(**_patience(run))(run)


def check_store(run: IndexRun) -> None:
    """See that the store answers; waits `[run] wait` seconds for a server that is down."""
    _check_store.with_options(**_patience(run, at_least=0))(run)  # a store waits some seconds by itself


def check_context(run: IndexRun) -> None:
    """Where a model writes contexts: see that it is there and writes; waits `[run] wait` seconds for its servers."""
    if run.index.context is not None:
        _check_context.with_options(**_patience(run))(run)


def check_workers(run: IndexRun) -> None:
    """Where the Dask cluster is not the run's own: see that it has workers, with the versions that the flow has."""
    if run.settings.parallel.address and not run.settings.parallel.serial:
        run.workers = run.metrics.workers = _check_workers.with_options(**_patience(run))(run)


def _patience(run: IndexRun, *, at_least: int = 1) -> dict[str, Any]:
    return {"retries": at_least + int(run.settings.run.wait / RETRY_SECONDS), "retry_delay_seconds": RETRY_SECONDS}
