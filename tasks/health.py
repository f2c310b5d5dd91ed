"""Health checks: the source is readable, the embedder embeds, the store answers, the workers have our versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from rag_index.embedders import EmbedderIdentity, identify
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.retries import is_transient

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.indexing.run import IndexRun

__all__ = ["check_chunker", "check_embedder", "check_source", "check_store", "check_workers"]

RETRY_SECONDS = 5.0
_CHECK: dict[str, Any] = {"retry_condition_fn": is_transient, "cache_policy": NO_CACHE, "persist_result": False}


@task(name="check source", task_run_name="check source", **_CHECK)
def _check_source(run: IndexRun) -> None:
    run.source.check()


@task(name="check embedder", task_run_name="check embedder", **_CHECK)
def _check_embedder(run: IndexRun) -> EmbedderIdentity:
    return identify(run.settings.embedder)


@task(name="check store", task_run_name="check store", **_CHECK)
def _check_store(run: IndexRun) -> None:
    run.store.collections()


@task(name="check context", task_run_name="check context", **_CHECK)
def _check_chunker(run: IndexRun) -> Chunker:
    return run.open_chunker()


@task(name="check workers", task_run_name="check workers", **_CHECK)
def _check_workers(run: IndexRun) -> int:
    return count_workers(run.settings.parallel)


def check_source(run: IndexRun) -> None:
    """Check that source and settings fit; wait `[run] wait` seconds for a database that is down."""
    _check_source.with_options(**_patience(run))(run)


def check_embedder(run: IndexRun) -> EmbedderIdentity:
    """Return what the embedder is, by a real embed; wait `[run] wait` seconds for servers that are down."""
    return _check_embedder.with_options(**_patience(run))(run)


def check_store(run: IndexRun) -> None:
    """Check that the store answers; wait `[run] wait` seconds for a server that is down."""
    _check_store.with_options(**_patience(run, min_retries=0))(run)  # a store waits some seconds by itself


def check_chunker(run: IndexRun) -> Chunker:
    """Return the chunker; if a model writes contexts, check that it does, and wait for its servers as for others."""
    if run.index.context is None:
        return run.open_chunker()
    return _check_chunker.with_options(**_patience(run))(run)


def check_workers(run: IndexRun) -> int:
    """Return the number of workers; check an existing cluster for workers that have the versions of the flow."""
    if run.settings.parallel.address and not run.settings.parallel.serial:
        return _check_workers.with_options(**_patience(run))(run)
    return run.own_workers()


def _patience(run: IndexRun, *, min_retries: int = 1) -> dict[str, Any]:
    return {"retries": min_retries + int(run.settings.run.wait / RETRY_SECONDS), "retry_delay_seconds": RETRY_SECONDS}
