"""The steps of a run as tasks of its flow run: where each is carried out, and what it waits for.

`tasks.etl.TASKS` has the task of each step. Fetch, checks and the steps after the last page are
tasks in the flow's process. `embed` runs on a Dask worker. `upsert` runs on the same worker if the
store is a server, so that vectors do not pass through the flow; otherwise in the flow's process. If
a worker dies, Dask raises KilledWorker, and the shard raises ProcessDied, after which `etl.window`
tries its documents alone.

A task waits (`wait_for`) for the fetch of its shard's pages. The steps after the last page wait for
all upserts, and for one another.
"""

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

from rag_index.core.machine import in_thread
from rag_index.core.machine.child import Process
from rag_index.core.machine.resources import memory_per_worker
from rag_index.core.recovery import SERVICES, Outage, outages, retry_step
from rag_index.errors import NoWorkers, ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.etl.deletes import delete_gone
from rag_index.etl.embed import close_process_embedder, embed, process_died_error
from rag_index.etl.erase import erase_after
from rag_index.etl.fetch import fetch_page
from rag_index.etl.publish import build_search_index, publish
from rag_index.etl.steps import Steps
from rag_index.etl.upsert import WorkerDestination
from rag_index.orchestration.cluster import NO_MEMORY_LIMIT, count_workers, import_dask
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
UNREPORTED_SECONDS = 5.0
"""Seconds for which Prefect's server is asked at the end to record the states of tasks. Chosen;
nothing depends on it."""
START_SECONDS = 120
"""Seconds for which a benchmark waits for its workers. Chosen; nothing depends on it."""


class TaskSteps(Steps):
    """Carries out the steps of one run as tasks of its flow run.

    Shards are embedded on the workers of the flow's task runner, which start with the first shard.
    The workers also write points to a server. Points for an embedded store are written by this
    process, since only one may write it.
    """

    def __init__(self, settings: Settings, record: RunRecord, workers: Workers) -> None:
        self._settings, self._record, self._workers = settings, record, workers
        self._is_serial = settings.parallel.serial
        """Whether this process embeds."""
        self.wait = settings.run.wait or settings.run.wait_for_recovery
        self.recovery = settings.run.wait_for_recovery
        self.workers = 1 if self._is_serial else workers.count
        self.has_shared_workers = bool(settings.parallel.address) and not self._is_serial
        memory = memory_per_worker(settings.parallel, NO_MEMORY_LIMIT)
        self._alone = Process(memory, outages)
        """The child that embeds suspects."""
        self._fetched: dict[int, State[Any]] = {}
        """The state of the fetch of each page."""
        self._written: list[State[Any]] = []
        """The states of all upserts."""
        self._ended: list[State[Any]] = []
        """The state of the last step after the shards; empty before the first one."""
        self._unreported: list[tuple[UUID, State[Any]]] = []
        """States of tasks that Prefect's server does not know yet."""
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
        # One after the other, and the first of them after all upserts.
        if step in AFTER_THE_SHARDS:
            self._note_deaths()
            before = self._ended or self._written
        # A published collection is an asset of Prefect.
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
        # The policy of its task has no retries.
        return self.call_for(0.0, step, opened, *args, **kwargs)

    def count_workers(self, wait: float) -> int:
        # If Dask cannot be imported, the first shard reports it.
        with suppress(NoWorkers):
            count = retry_step(partial(count_workers, self._settings.parallel), wait)
            self.workers = max(1, count)
        return self.workers

    # Page by page

    def start(self) -> None:
        if not (self._is_serial or self._settings.parallel.address):
            self._workers.start()

    def warm_up(self, job: EmbedJob) -> None:
        client = self._connected()
        if client is None:
            embed(job)
            return
        client.wait_for_workers(self.workers, timeout=START_SECONDS)
        submitted = [
            client.submit(embed, job, workers=[address], pure=False)
            for address in client.nthreads()
        ]
        client.gather(submitted)

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
        # A cluster that the run has not started may grow with its work.
        if self._settings.parallel.address and self._liveness.threads:
            self.workers = self._liveness.threads

    def _sent(self) -> list[Outage]:
        """Return the outages that the workers and the child have sent last."""
        workers = self._liveness.outages if self._liveness else []
        return [*workers, *(self._alone.last_state or ())]

    def close(self) -> None:
        SERVICES.exclude(self._sent)
        if self._unreported:
            self._report_states()
        if self._to is not None:
            self._to.close()
        self._alone.shutdown()
        close_process_embedder()

    def _report_states(self) -> None:
        """Report the final states of tasks that Prefect would show as pending or running for ever.

        These are upserts of shards that were not embedded, and tasks whose worker died. The server
        may know the task run only a moment later, so it is asked again.
        """
        deadline = time.monotonic() + UNREPORTED_SECONDS
        with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
            while self._unreported and time.monotonic() < deadline:
                unknown = []
                for run, state in self._unreported:
                    try:
                        client.set_task_run_state(run, state, force=True)
                    except UNANSWERED:
                        unknown.append((run, state))
                        time.sleep(0.2)
                self._unreported = unknown

    # Shards

    def _connected(self) -> Client | None:
        """Return the client of the workers, which start now. None if this process embeds."""
        if self._is_serial or self._client is not None:
            return self._client
        try:
            with self._record.stopwatch.stage("workers"):
                self._client = flow_client()
        except NoWorkers as error:
            self._continue_in_process(str(error))
        except OSError as error:
            self._continue_in_process(
                f"the Dask scheduler does not answer ({type(error).__name__})"
            )
        else:
            # It imports Dask, which may be impossible.
            from rag_index.orchestration.liveness import Liveness

            self._liveness = Liveness(self._client, self._record)
            self.has_started_workers = True
        return self._client

    def _continue_in_process(self, why: str) -> None:
        """Embed in this process from now on: a late run is better than a failed one."""
        self._is_serial, self.workers = True, 1
        self._record.outcome.say(f"it was indexed in one process: {why}")
        self._record.progress.say("no workers, continuing in one process")

    def _pages(self, job: EmbedJob) -> list[State[Any]]:
        return [self._fetched[page] for page in job.shard.pages if page in self._fetched]

    def _write_on_workers(self, job: EmbedJob, to: Destination) -> Future[WrittenShard]:
        import dask

        # The overloads of these tasks have no `wait_for`.
        embed_task: Any = tasks.embed_shard
        upsert: Any = tasks.upsert_shard
        # Workers of a cluster of the run embed as many shards at a time as they have of this
        # resource; their other threads write.
        has_own_cluster = not self._settings.parallel.address
        limited = dask.annotate(resources={"embed": 1}) if has_own_cluster else nullcontext()
        with limited:
            embedded = embed_task.submit(job, wait_for=self._pages(job))
        # The embedded store: this process writes it.
        if to.epoch is None:
            self._to = to
            write = partial(upsert, embedded, to, return_state=True)
            return in_thread(partial(self._upsert_in_process, job, write, embedded, to), "upsert")
        # A server: the worker writes.
        of_worker = WorkerDestination(
            self._settings.store, to.collection, to.epoch, self._settings.run.wait_for_recovery
        )
        return self._follow(job, embedded, upsert.submit(embedded, of_worker))

    def _upsert(self, embedded: State[Any], to: Destination) -> WrittenShard:
        """Write a shard that this process or its child embedded."""
        shard = _result(embedded)
        with to.turn():
            state = tasks.upsert_shard(shard, to, return_state=True)
            written: WrittenShard = _result(state)
        self._written.append(_bare(state))
        return written

    def _upsert_in_process(
        self,
        job: EmbedJob,
        upsert: Callable[[], State[Any]],
        embedded: PrefectDaskFuture[Any],
        to: Destination,
    ) -> WrittenShard:
        """Write a shard in this process that a worker embeds. This waits in a thread of its own,
        which gets the vectors."""
        try:
            # This waits. The result of a state would hide one task in another.
            embedded.result(raise_on_failure=False)
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
        """Return a future of the standard library for an upsert on a worker. The vectors stay
        there."""
        written: Future[WrittenShard] = Future()

        def end() -> None:
            try:
                state = upserted.wrapped_future.result()
                # Nothing was embedded: this raises the error of `embed`.
                if state.is_pending():
                    not_begun: State[Any] = Cancelled(message=NOT_BEGUN)
                    self._unreported.append((upserted.task_run_id, not_begun))
                    _result(embedded.wrapped_future.result())
                written.set_result(_result(state))
                self._written.append(_bare(state))
            except BaseException as error:  # noqa: BLE001 - the future raises it
                written.set_exception(self._ours(error, job, embedded.task_run_id))
            finally:
                embedded.wrapped_future.release()
                upserted.wrapped_future.release()

        # The context has Prefect's settings, with the address of its server.
        context = contextvars.copy_context()
        upserted.add_done_callback(lambda _: context.run(end))
        return written

    def _ours(self, error: BaseException, job: EmbedJob, embed_run: UUID) -> BaseException:
        """Return the error of ours for an error of Dask's. A task whose worker died is reported to
        Prefect."""
        from distributed.scheduler import KilledWorker

        # The worker died under the shard: it ran out of memory, or crashed.
        if isinstance(error, KilledWorker):
            crash = process_died_error(job.shard, "the worker died (out of memory, or a crash)")
            state: State[Any] = Crashed(message=str(crash))
            try:
                with impatient(), get_client(sync_client=True) as client:
                    client.set_task_run_state(embed_run, state, force=True)
            except UNANSWERED:
                # It is reported at the end.
                self._unreported.append((embed_run, state))
            return crash
        # An error of ours, or a Ctrl-C.
        if isinstance(error, RagIndexError) or not isinstance(error, Exception):
            return error
        # The connection to the scheduler is lost.
        if isinstance(error, CancelledError | OSError):
            address = self._settings.parallel.address
            gone = f"the Dask scheduler at {address} is gone" if address else "the workers are gone"
            return TerminalError(
                f"{gone} ({described(error)}); what is committed is kept: run again"
            )
        return TerminalError(f"a worker failed at a shard: {described(error)}")


def flow_client() -> Client:
    """Return the client of this flow run's task runner, which starts its cluster. Raises as
    `Workers.cluster`."""
    import_dask()
    runner: Any = FlowRunContext.get().task_runner  # type: ignore[union-attr]
    client: Client = runner.client
    return client


def _bare(state: State[Any]) -> State[Any]:
    """Return a state with the same task run, for `wait_for`, and without its result."""
    details = StateDetails(task_run_id=state.state_details.task_run_id)
    return Completed(data=True, state_details=details)


def _result(state: State[Any]) -> Any:
    """Return the result of a task. Raises the error of its last attempt."""
    if state.is_completed():
        return state.result(raise_on_failure=False)
    kind = ProcessDied if state.is_crashed() else RuntimeError
    error = error_of(state) or kind(state.message or state.name)
    if isinstance(error, TimeoutError):
        raise TransientError(f"{error}; what is committed is kept") from error
    raise error
