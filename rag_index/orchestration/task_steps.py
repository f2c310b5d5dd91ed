"""The steps of a run as tasks of the flow run that makes them: which task does which, where, and
what it waits for."""

from __future__ import annotations

import contextvars
import time
from concurrent.futures import CancelledError, Future
from contextlib import nullcontext, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from prefect import get_client
from prefect.client.schemas.objects import StateDetails
from prefect.context import FlowRunContext
from prefect.states import Cancelled, Completed, Crashed

from rag_index.core.machine import Process, in_thread
from rag_index.core.machine.resources import memory_per_worker
from rag_index.core.recovery import SERVICES, Outage, outages, with_retries
from rag_index.errors import NoWorkers, ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.etl.deletes import delete_gone
from rag_index.etl.embed import close_process_embedder, embed, process_died
from rag_index.etl.erase import erase_after
from rag_index.etl.fetch import fetch_page
from rag_index.etl.publish import build_search_index, publish
from rag_index.etl.steps import Steps
from rag_index.etl.upsert import WorkerDestination
from rag_index.orchestration.cluster import count_workers, import_dask
from rag_index.orchestration.prefect_api import impatient
from rag_index.orchestration.reporting import UNANSWERED
from rag_index.quotes import described
from tasks import etl as tasks
from tasks.assets import collection_asset, source_asset
from tasks.policies import error_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from distributed import Client
    from prefect.client.schemas.objects import State
    from prefect_dask.task_runners import PrefectDaskFuture

    from rag_index.core.documents.batches import WrittenShard
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Settings
    from rag_index.etl.embed import EmbedJob
    from rag_index.etl.opened import Opened
    from rag_index.etl.upsert import Destination
    from rag_index.orchestration.cluster import Workers
    from rag_index.orchestration.liveness import Liveness

P = ParamSpec("P")
T = TypeVar("T")
AFTER_THE_SHARDS = (delete_gone, publish, erase_after, build_search_index)
"""Steps whose tasks wait for all shards of the run, and for one another."""
NOT_BEGUN = "not begun, since nothing was embedded"
UNTOLD_SECONDS = 5.0


class TaskSteps(Steps):
    """Carries out the steps of one run as tasks of its flow run.

    Shards are embedded on the workers of the flow's task runner, which start with the first one.
    Points for a server are written there as well; those for an embedded store by this process,
    which alone may.
    """

    def __init__(self, settings: Settings, record: RunRecord, workers: Workers) -> None:
        self._settings, self._record, self._workers = settings, record, workers
        self._here = settings.parallel.serial
        self.wait = settings.run.wait or settings.run.wait_for_recovery
        self.recovery = settings.run.wait_for_recovery
        self.workers = 1 if self._here else workers.count
        self.has_shared_workers = bool(settings.parallel.address) and not self._here
        self._alone = Process(memory_per_worker(settings.parallel, 0), outages)  # 0: no limit
        self._fetched: dict[int, State[Any]] = {}
        self._written: list[State[Any]] = []
        self._ended: list[State[Any]] = []
        self._untold: list[tuple[UUID, State[Any]]] = []
        self._liveness: Liveness | None = None
        self._client: Client | None = None
        self._to: Destination | None = None
        SERVICES.include(self._sent)

    def call_for(
        self,
        wait: float,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        task: Any = tasks.TASKS[step]
        before: list[State[Any]] = []
        if (
            step in AFTER_THE_SHARDS
        ):  # one after the other, and the first of them after all that was written
            self._note_deaths()
            before = self._ended or self._written
        if step is publish:
            made = collection_asset(opened.settings, opened.index)
            source = source_asset(opened.settings, opened.index)
            task = task.with_options(assets=[made], asset_deps=[source])
        state = task(opened, *args, **kwargs, wait=wait, wait_for=before, return_state=True)
        result: T = _result(state)
        if step in AFTER_THE_SHARDS:
            self._ended = [_bare(state)]
        if step is fetch_page:
            number: Any = args[0]
            self._fetched[number] = _bare(state)
        return result

    def call_once(
        self,
        step: Callable[Concatenate[Opened, P], T],
        opened: Opened,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        return self.call_for(0.0, step, opened, *args, **kwargs)  # the task has no retries

    def count_workers(self, wait: float) -> int:
        with suppress(NoWorkers):  # the first shard reports it
            self.workers = max(
                1, with_retries(partial(count_workers, self._settings.parallel), wait)
            )
        return self.workers

    # Page by page

    def start(self) -> None:
        if not (self._here or self._settings.parallel.address):
            self._workers.start()

    def warm_up(self, job: EmbedJob) -> None:
        if (client := self._connected()) is None:
            embed(job)
            return
        client.wait_for_workers(self.workers, timeout=120)
        at = client.nthreads()
        client.gather([client.submit(embed, job, workers=[one], pure=False) for one in at])

    def write(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        if self._connected() is not None:
            return self._write_on_workers(job, to)
        embedded = tasks.embed_shard(job, wait_for=self._pages(job), return_state=True)
        written: Future[WrittenShard] = Future()
        try:
            written.set_result(self._upsert(embedded, to))
        except RagIndexError as error:
            written.set_exception(error)
        return written

    def write_alone(self, job: EmbedJob, to: Destination) -> WrittenShard:
        state = tasks.embed_suspect(job, self._alone, wait_for=self._pages(job), return_state=True)
        return self._upsert(state, to)

    # What watches the workers

    def _note_deaths(self) -> None:
        """Record the workers that died, once all shards are done."""
        if self._liveness is not None and not self._ended:
            with suppress(OSError):
                self._liveness.note_deaths()

    def tick(self) -> None:
        if self._liveness is None:
            return
        self._liveness.tick()
        if (
            self._settings.parallel.address and self._liveness.threads
        ):  # a cluster may grow with its work
            self.workers = self._liveness.threads

    def _sent(self) -> list[Outage]:
        """Return the outages that the workers and the child have sent last."""
        workers = self._liveness.outages if self._liveness else []
        return [*workers, *(self._alone.last_state or ())]

    def close(self) -> None:
        SERVICES.exclude(self._sent)
        if self._untold:
            self._tell()
        if self._to is not None:
            self._to.close()
        self._alone.shutdown()
        close_process_embedder()

    def _tell(self) -> None:
        """Tell Prefect how tasks ended that it would show as pending or running for ever: the
        upserts of what was not embedded, and tasks whose worker died. Its server knows them a
        moment later, and a busy one is asked again."""
        deadline = time.monotonic() + UNTOLD_SECONDS
        with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
            while self._untold and time.monotonic() < deadline:
                unknown = []
                for run, state in self._untold:
                    try:
                        client.set_task_run_state(run, state, force=True)
                    except UNANSWERED:
                        unknown.append((run, state))
                        time.sleep(0.2)
                self._untold = unknown

    # Shards

    def _connected(self) -> Client | None:
        """Return the client of the workers, which start now; None if this process embeds, since
        they do not start."""
        if self._here or self._client is not None:
            return self._client
        try:
            with self._record.stopwatch.stage("workers"):
                self._client = flow_client()
        except NoWorkers as error:
            self._embed_here(str(error))
        except OSError as error:
            self._embed_here(f"the Dask scheduler does not answer ({type(error).__name__})")
        else:
            from rag_index.orchestration.liveness import (
                Liveness,
            )  # it imports Dask, which may be impossible

            self._liveness = Liveness(self._client, self._record)
            self.has_started_workers = True
        return self._client

    def _embed_here(self, why: str) -> None:  # late is better than not at all
        self._here, self.workers = True, 1
        self._record.outcome.say(f"it was indexed in one process: {why}")
        self._record.progress.say("no workers, continuing in one process")

    def _pages(self, job: EmbedJob) -> list[State[Any]]:
        return [self._fetched[page] for page in job.shard.pages if page in self._fetched]

    def _write_on_workers(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        import dask

        own = not self._settings.parallel.address
        embed_task: Any = tasks.embed_shard  # its overloads know no `wait_for`
        upsert: Any = tasks.upsert_shard
        with dask.annotate(resources={"embed": 1}) if own else nullcontext():
            embedded = embed_task.submit(job, wait_for=self._pages(job))
        if to.epoch is None:
            self._to = to
            write = partial(upsert, embedded, to, return_state=True)
            return in_thread(partial(self._upsert_here, job, write, embedded, to), "upsert")
        there = WorkerDestination(
            self._settings.store, to.collection, to.epoch, self._settings.run.wait_for_recovery
        )
        return self._follow(job, embedded, upsert.submit(embedded, there))

    def _upsert(self, embedded: State[Any], to: Destination) -> WrittenShard:
        """Write what was embedded in this process, or in a child of it."""
        shard = _result(embedded)
        with to.turn():
            state = tasks.upsert_shard(shard, to, return_state=True)
            written: WrittenShard = _result(state)
        self._written.append(_bare(state))
        return written

    def _upsert_here(
        self,
        job: EmbedJob,
        upsert: Callable[[], State[Any]],
        embedded: PrefectDaskFuture[Any],
        to: Destination,
    ) -> WrittenShard:
        """Write what a worker embeds, in this process. This waits in a thread of its own, which
        gets the vectors."""
        try:
            embedded.result(
                raise_on_failure=False
            )  # which waits; that of a state would hide one task in another
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
        """Return a future of the standard library for an upsert on the workers. Vectors do not come
        here."""
        written: Future[WrittenShard] = Future()

        def settle() -> None:
            try:
                state = upserted.wrapped_future.result()
                if state.is_pending():  # nothing was embedded
                    self._untold.append((upserted.task_run_id, Cancelled(message=NOT_BEGUN)))
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
        """Return the error of ours that one of Dask means, once Prefect knows of a task whose
        worker died."""
        from distributed.scheduler import KilledWorker

        if isinstance(error, KilledWorker):
            died = process_died(job.shard, "the worker died (out of memory, or a crash)")
            state: State[Any] = Crashed(message=str(died))
            try:
                with impatient(), get_client(sync_client=True) as client:
                    client.set_task_run_state(embed_run, state, force=True)
            except UNANSWERED:
                self._untold.append((embed_run, state))  # at the end, if it is known by then
            return died
        if isinstance(error, RagIndexError) or not isinstance(error, Exception):
            return error
        if isinstance(error, CancelledError | OSError):  # distributed's own
            address = self._settings.parallel.address
            gone = f"the Dask scheduler at {address} is gone" if address else "the workers are gone"
            return TerminalError(
                f"{gone} ({described(error)}); what is committed is kept: run again"
            )
        return TerminalError(f"a worker failed at a shard: {described(error)}")


def flow_client() -> Client:
    """Return the client that the task runner of this flow run has. Starts its cluster, and raises
    as that does."""
    import_dask()
    runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]
    client: Client = runner.client
    return client


def _bare(state: State[Any]) -> State[Any]:
    """Return a state that names its task run, for `wait_for`, and holds no result."""
    return Completed(
        data=True, state_details=StateDetails(task_run_id=state.state_details.task_run_id)
    )


def _result(state: State[Any]) -> Any:
    """Return what a task returned. Raises what it raised at last."""
    if not state.is_completed():
        kind = ProcessDied if state.is_crashed() else RuntimeError
        error = error_of(state) or kind(state.message or state.name)
        if isinstance(error, TimeoutError):
            raise TransientError(f"{error}; what is committed is kept") from error
        raise error
    return state.result(raise_on_failure=False)
