"""The steps of a run as tasks of the flow that makes them: see `IndexRun.execute` for their order.

Fetch, health checks, delete and publish are here; what runs on workers is in `tasks.embed`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from rag_index.indexing.step_retries import RETRY_SECONDS, patience
from rag_index.indexing.steps import begin_run
from rag_index.orchestration.cluster import count_workers
from rag_index.orchestration.task_policy import RETRIED, Opaque, transient_for
from tasks.embed import embed_mapped, upsert_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.documents.batches import Shard, WrittenShard
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.scan import Scan
    from rag_index.sources import Source, SourcePage

T = TypeVar("T")


@task(name="fetch", task_run_name="fetch up to {rows} rows", **RETRIED)
def fetch_page(source: Source, cursor: Any, rows: int) -> SourcePage:
    """Return the page after `cursor`. A retry reads the same rows again, which is harmless."""
    return source.page(cursor, rows)


@task(
    name="check", task_run_name="check {service}", retry_delay_seconds=RETRY_SECONDS, retry_jitter_factor=0.3,
    cache_policy=NO_CACHE, persist_result=False,
)  # fmt: skip
def check_service(service: str, ask: Opaque[Callable[[], Any]]) -> Any:
    """Return the answer of a service.

    Each question has a time limit of its own: that of the database's driver, of the survey of hosts, of the store's
    requests, or of the connection to the cluster. Jitter, so that runs on many machines ask apart.
    """
    return ask.value()


def check(service: str, ask: Callable[[], T], min_retries: int, *, wait: float) -> T:
    """Return the answer of a service, which is waited for `wait` seconds."""
    retries, seconds = patience(wait, min_retries=min_retries)
    policy: dict[str, Any] = {"retries": retries, "retry_condition_fn": transient_for(seconds)}
    answer: Any = check_service.with_options(**policy)(service, Opaque(ask))
    return answer  # type: ignore[no-any-return]


@task(name="delete gone", task_run_name="delete gone", **RETRIED)
def delete_gone(scan: Opaque[Scan]) -> None:
    """Delete documents that the source no longer has, unless `delete_guard` refuses.

    In the store first, then in the ledger; a retry continues where it stopped.
    """
    scan.value.delete_gone()


@task(name="verify and publish", task_run_name="verify and publish", **RETRIED)
def publish(scan: Opaque[Scan]) -> None:
    """Verify the counts; of a rebuild also a sample and the guards, then move the alias."""
    scan.value.publish()


@task(name="build search index", task_run_name="build search index")
def build_search_index(scan: Opaque[Scan]) -> None:
    """Build the search index. A failure costs searches time and nothing else, so the run continues."""
    scan.value.build_search_index(get_run_logger())


class TaskSteps:
    """Each step is a task, which has retries and time limits and is seen in Prefect."""

    def begin(self, run: IndexRun) -> Scan | None:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the scan."""
        ask = partial(check, wait=run.settings.run.wait)
        parallel = run.settings.parallel
        if parallel.address and not parallel.serial:
            return begin_run(run, ask, workers=partial(ask, "workers", partial(count_workers, parallel), 1))
        return begin_run(run, ask)

    def fetch(self, run: IndexRun, cursor: Any, rows: int) -> SourcePage:
        """Return the page of the source after the cursor."""
        return fetch_page(run.source, cursor, rows)

    def write(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[WrittenShard]:
        """Embed the shards on the workers, upsert them there or here, and yield them as they are done."""
        run = scan.run
        for shard in embed_mapped(scan, shards):
            if isinstance(shard, Opaque):
                with run.stopwatch.stage("upsert"):
                    written = upsert_shard(run.store, scan.collection.name, shard, scan.label(shard.value.number))
                yield written
            else:  # a worker has written it
                yield shard

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has."""
        delete_gone(Opaque(scan))

    def publish(self, scan: Scan) -> None:
        """Verify the collection, let readers see a rebuilt one, and build its search index if that pays."""
        publish(Opaque(scan))
        if scan.search_index_due:
            build_search_index(Opaque(scan))
