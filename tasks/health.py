"""Health checks: the source is readable, the embedder embeds, the store answers, the workers have our versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from rag_index.embedders import EmbedderIdentity, identify
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.retries import transient_for
from rag_index.orchestration.service_checks import RETRY_SECONDS, current_checks, patience
from rag_index.settings.index import SQL

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.indexing.run import IndexRun

_CHECK: dict[str, Any] = {"retry_jitter_factor": 0.3, "cache_policy": NO_CACHE, "persist_result": False}
"""The policy of all checks. Each has a time limit of its own: that of the database's driver, of the survey of hosts,
of the store's requests, or of the connection to the cluster. Jitter, so that runs on many machines ask apart."""


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
    if run.scan is not None:  # as for the other services: a run that was handed over has found them in order
        return
    sql = run.index.kind == SQL
    current_checks().check(
        "source" if sql else ("source", run.index.name), lambda: _check_source.with_options(**_patience(run))(run)
    )


def check_embedder(run: IndexRun) -> EmbedderIdentity:
    """Return what the embedder is, by a real embed; wait `[run] wait` seconds for servers that are down."""
    if run.scan is not None:
        return run.scan.identity
    return current_checks().remember("embedder", lambda: _check_embedder.with_options(**_patience(run))(run))


def check_store(run: IndexRun) -> None:
    """Check that the store answers; wait `[run] wait` seconds for a server that is down."""
    if run.scan is not None:
        return
    policy = _patience(run, min_retries=0)  # a store waits some seconds by itself
    current_checks().check("store", lambda: _check_store.with_options(**policy)(run))


def check_chunker(run: IndexRun) -> Chunker:
    """Return the chunker; if a model writes contexts, check that it does, and wait for its servers as for others."""
    if run.scan is not None:
        return run.scan.chunker
    if run.index.context is None:
        return run.open_chunker()
    service = ("context", run.index.context.model, *(run.index.context.hosts or []))
    return current_checks().check(service, lambda: _check_chunker.with_options(**_patience(run))(run))


def check_workers(run: IndexRun) -> int:
    """Return the number of workers; check an existing cluster for workers that have the versions of the flow."""
    if run.settings.parallel.address and not run.settings.parallel.serial:
        return _check_workers.with_options(**_patience(run))(run)
    return run.own_workers()


def _patience(run: IndexRun, *, min_retries: int = 1) -> dict[str, Any]:
    retries, seconds = patience(run.settings.run.wait, min_retries=min_retries)
    return {
        "retries": retries,
        "retry_delay_seconds": RETRY_SECONDS,
        "retry_condition_fn": transient_for(seconds),
    }
