"""The steps of a run as tasks of the flow run that makes them: which task does which, where, and what it waits for."""

from __future__ import annotations

import contextvars
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
from prefect import get_client
from prefect.client.schemas.objects import StateDetails
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.states import Completed, Crashed

from rag_index.core.machine import in_thread
from rag_index.core.machine.executors import Process
from rag_index.core.machine.resources import memory_per_worker
from rag_index.core.reports.progress import ProcessState
from rag_index.errors import NoWorkers, ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.etl.embed import close_process_embedder, process_died, process_state
from rag_index.etl.steps import BUSY, Ending, Steps
from rag_index.orchestration.assets import collection_asset, source_asset
from rag_index.orchestration.cluster import count_workers, import_dask
from rag_index.orchestration.prefect_api import impatient
from rag_index.orchestration.worker import WorkerDestination, embed_in_worker
from tasks import index as tasks
from tasks.index import Opaque, error_of, options_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from distributed import Client
    from prefect.client.schemas.objects import State
    from prefect_dask.task_runners import PrefectDaskFuture

    from rag_index.components.sources import SourcePage
    from rag_index.core.documents.batches import WrittenShard
    from rag_index.core.machine import Policy
    from rag_index.core.settings import Settings
    from rag_index.etl.commit import Destination
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.run import IndexRun
    from rag_index.orchestration.cluster import Workers
    from rag_index.orchestration.liveness import Liveness

T = TypeVar("T")
ENDINGS: dict[str, Any] = {
    one.name: one for one in (tasks.delete_gone, tasks.publish, tasks.erase, tasks.build_search_index)
}


class AsTasks(Steps):
    """Carries out the steps of one run as tasks of its flow run.

    Two full shards or more are embedded on the workers of the flow's task runner, which start then. Points for a server
    are written there as well; those for an embedded store by this process, which alone may.
    """

    def __init__(self, run: IndexRun, workers: Workers) -> None:
        self._run, self._workers = run, workers
        settings: Settings = run.settings
        self._here = settings.parallel.serial
        self.workers = 1 if self._here else workers.count
        self._on_servers = settings.embedder.on_servers and not settings.parallel.address
        if settings.parallel.address and not self._here:
            self.count_workers = self._count_workers
        self._alone = Process(memory_per_worker(settings.parallel, 0), process_state)  # 0: no limit
        self._fetched: dict[int, State[Any]] = {}
        self._written: list[State[Any]] = []
        self._ended: list[State[Any]] = []
        self._liveness: Liveness | None = None
        self._client: Client | None = None
        self._to: Destination | None = None

    def _count_workers(self) -> int:
        with suppress(NoWorkers):  # a start says so
            self.workers = max(1, count_workers(self._run.settings.parallel))
        return self.workers

    def check(self, service: str, ask: Callable[[], T], policy: Policy) -> T:
        asked = tasks.check.with_options(**options_of(policy))
        found: T = _result(asked(service, Opaque(ask), return_state=True))
        return found

    def fetch(self, run: IndexRun, number: int, cursor: object, rows: int) -> SourcePage:
        name = run.index.name
        state = tasks.fetch_page(name, number, Opaque(run.source), Opaque(cursor), rows, return_state=True)
        page: SourcePage = _result(state)
        self._fetched[number] = _bare(state)
        return page

    def prepare(self) -> None:
        if not (self._here or self._run.settings.parallel.address):
            self._workers.start()

    def start(self) -> str:
        self.started = True
        if self._here:
            return ""
        try:
            self._client = flow_client()
        except NoWorkers as error:
            self._here, self.workers = True, 1
            return str(error)
        except OSError as error:
            self._here, self.workers = True, 1
            return f"the Dask scheduler does not answer ({type(error).__name__})"
        from rag_index.orchestration.liveness import Liveness  # it imports Dask, which may be impossible

        self._set_size()
        self._liveness = Liveness(self._client, self._run.progress)
        return ""

    def _set_size(self) -> None:
        self.size = (2 if self._run.store.embedded else 3) * self.workers + self._on_servers * self.workers

    def observe(self, written: WrittenShard) -> None:
        self.tick()
        if self._client is not None and self._on_servers and written.stats.process_load >= BUSY:
            self.workers = self._workers.grow()
            self._set_size()

    def warm_up(self, job: EmbedJob) -> None:
        if why := self.start():
            raise NoWorkers(why)
        if self._client is None:
            embed_in_worker(job)
        else:
            self._client.wait_for_workers(self.workers, timeout=120)
            at = self._client.nthreads()
            self._client.gather([self._client.submit(embed_in_worker, job, workers=[one], pure=False) for one in at])

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        if self._client is not None:
            return self._write_on_workers(job, to)
        embedded = tasks.embed_shard(*_named(job), Opaque(job), wait_for=self._pages(job), return_state=True)
        written: Future[WrittenShard] = Future()
        try:
            written.set_result(self._upsert(job, embedded, to))
        except RagIndexError as error:
            written.set_exception(error)
        return written

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        child = Opaque(self._alone)
        state = tasks.embed_suspect(*_named(job), Opaque(job), child, wait_for=self._pages(job), return_state=True)
        return self._upsert(job, state, to)

    def end(self, ending: Ending, run: IndexRun, do: Callable[[IndexRun], str]) -> None:
        after, ends = self._ended or self._written, ENDINGS[ending]  # each after the one before
        if ends is tasks.publish:
            made, source = collection_asset(run.settings, run.index), source_asset(run.settings, run.index)
            ends = ends.with_options(assets=[made], asset_deps=[source])
        state = ends(run.index.name, Opaque(run), Opaque(do), wait_for=after, return_state=True)
        _result(state)
        self._ended = [_bare(state)]

    def tick(self) -> None:
        if self._liveness is None:
            return
        self._liveness.tick()
        if self._run.settings.parallel.address and self._liveness.threads:  # a cluster may grow with its work
            self.workers = self._liveness.threads
            self._set_size()

    def states(self) -> dict[str, ProcessState]:
        return {"child": self._alone.told or ProcessState()}

    def close(self) -> None:
        if self._to is not None:
            self._to.close()
        self._alone.shutdown()
        close_process_embedder()

    def _pages(self, job: EmbedJob) -> list[State[Any]]:
        return [self._fetched[page] for page in job.shard.pages if page in self._fetched]

    def _write_on_workers(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        import dask

        own, named = not self._run.settings.parallel.address, _named(job)
        job = replace(job, workers=1) if self._on_servers else job  # each of few processes asks all hosts
        embed: Any = tasks.embed_shard  # its overloads know no `wait_for`
        upsert: Any = tasks.upsert_shard
        with dask.annotate(resources={"embed": 1}) if own else nullcontext():
            embedded = embed.submit(*named, Opaque(job), wait_for=self._pages(job))
        if to.epoch is None:
            self._to = to
            write = partial(upsert, *named, embedded, Opaque(to), return_state=True)
            return in_thread(partial(self._upsert_here, job, write, embedded, to), "upsert")
        there = WorkerDestination(self._run.settings.store, to.collection, to.epoch)
        return self._follow(job, embedded, upsert.submit(*named, embedded, Opaque(there)))

    def _upsert(self, job: EmbedJob, embedded: State[Any], to: Destination) -> WrittenShard:
        """Write what was embedded in this process, or in a child of it."""
        _result(embedded)
        shard = embedded.result(raise_on_failure=False)
        with to.turn():
            state = tasks.upsert_shard(*_named(job), shard, Opaque(to), return_state=True)
            written: WrittenShard = _result(state)
        self._written.append(_bare(state))
        return written

    def _upsert_here(
        self, job: EmbedJob, upsert: Callable[[], State[Any]], embedded: PrefectDaskFuture[Any], to: Destination
    ) -> WrittenShard:
        """Write what a worker embeds, in this process. This waits in a thread of its own, which gets the vectors."""
        try:
            embedded.result(raise_on_failure=False)  # which waits; that of a state would hide one task in another
            if not embedded.state.is_completed():
                _result(embedded.state)
            with to.turn():
                state = upsert()
                written: WrittenShard = _result(state)
        except BaseException as error:
            raise self._ours(error, job, embedded.task_run_id) from error
        finally:
            embedded.wrapped_future.release()
        self._written.append(_bare(state))
        return written

    def _follow(
        self, job: EmbedJob, embedded: PrefectDaskFuture[Any], upserted: PrefectDaskFuture[Any]
    ) -> Future[WrittenShard]:
        """Return a future of the standard library for an upsert on the workers. Vectors do not come here."""
        written: Future[WrittenShard] = Future()

        def settle() -> None:
            try:
                state = upserted.wrapped_future.result()
                if not state.is_completed() and error_of(state) is None:  # it could not begin
                    _result(embedded.wrapped_future.result())
                written.set_result(_result(state))
                self._written.append(_bare(state))
            except BaseException as error:  # noqa: BLE001 - the future raises it
                written.set_exception(self._ours(error, job, embedded.task_run_id))
            finally:
                embedded.wrapped_future.release()
                upserted.wrapped_future.release()

        context = contextvars.copy_context()  # it has the settings, with the address of the server
        upserted.add_done_callback(lambda _: context.run(settle))
        return written

    def _ours(self, error: BaseException, job: EmbedJob, embed_run: UUID) -> BaseException:
        """Return the error of ours that one of Dask means, once Prefect knows of a task whose worker died."""
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            died = process_died(job.shard, "the worker died (out of memory, or a crash)")
            with suppress(httpx.HTTPError, PrefectException), impatient(), get_client(sync_client=True) as client:
                client.set_task_run_state(embed_run, Crashed(message=str(died)), force=True)
            return died
        if isinstance(error, RagIndexError) or not isinstance(error, Exception):
            return error
        if isinstance(error, CancelledError | OSError):  # distributed's own
            address = self._run.settings.parallel.address
            gone = f"the Dask scheduler at {address} is gone" if address else "the workers are gone"
            return TerminalError(f"{gone} ({type(error).__name__}: {error}); what is committed is kept: run again")
        return TerminalError(f"a worker failed at a shard: {type(error).__name__}: {error}")


def flow_client() -> Client:
    """Return the client that the task runner of this flow run has. Starts its cluster, and raises as that does."""
    import_dask()
    runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]
    client: Client = runner.client
    return client


def _named(job: EmbedJob) -> tuple[str, int]:
    return job.shard.index, job.shard.number


def _bare(state: State[Any]) -> State[Any]:
    """Return a state that names its task run, for `wait_for`, and holds no result."""
    return Completed(data=True, state_details=StateDetails(task_run_id=state.state_details.task_run_id))


def _result(state: State[Any]) -> Any:
    """Return what a task returned. Raises what it raised at last."""
    if not state.is_completed():
        kind = ProcessDied if state.is_crashed() else RuntimeError
        error = error_of(state) or kind(state.message or state.name)
        if isinstance(error, TimeoutError):
            raise TransientError(f"{error}; what is committed is kept") from error
        raise error
    found = state.result(raise_on_failure=False)
    return found.value if isinstance(found, Opaque) else found
