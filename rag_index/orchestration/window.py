"""A bounded window of submitted items, and the monitor of the workers that have them.

Items are never submitted all at once, so that memory and the Prefect server stay flat.
"""

from __future__ import annotations

import threading
import time
from dataclasses import astuple
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distributed.core import Status
from distributed.scheduler import KilledWorker
from prefect.logging import get_run_logger

from rag_index.errors import ProcessDied, RagIndexError, TerminalError, TransientError
from rag_index.orchestration.cluster import current_worker, flow_client
from rag_index.orchestration.task_policy import error_of
from rag_index.outages import Outage, outages
from rag_index.reports.progress import LOGGERS, LogNotes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from prefect.futures import PrefectWrappedFuture

    from rag_index.indexing.run import IndexRun

Item = TypeVar("Item")
Result = TypeVar("Result")
TICK_SECONDS = 1.0
CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""
TOPIC, LOG_TOPIC = "rag-index-status", "rag-index"
INTERVAL_SECONDS = 1.0


def forward(in_flight: Callable[[], int]) -> None:
    """Send this worker's status and log lines to the flow from now on. Call it once; it does nothing elsewhere."""
    if (worker := current_worker()) is None:
        return
    handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)

    def send_status() -> None:
        last: tuple[int, tuple[Outage, ...]] = (0, ())
        while worker.status not in (Status.closing, Status.closed):
            time.sleep(INTERVAL_SECONDS)
            if (now := (in_flight(), outages())) != last:
                last = now
                found = [list(astuple(outage)) for outage in now[1]]
                worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})

    threading.Thread(target=send_status, daemon=True, name="status").start()


class Monitor:
    """Progress, liveness and status of the workers of a run."""

    def __init__(self, run: IndexRun, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._stopwatch, self._metrics = run.progress, run.stopwatch, run.metrics
        self._clock = clock
        self._checked = self._seen = clock()
        self._subscribed = False

    def subscribe(self) -> None:
        """Listen to the workers, the first time that it is called. Starts the cluster, and raises NoWorkers."""
        if self._subscribed:
            return
        with self._stopwatch.stage("workers"):
            client = flow_client()
        client.subscribe_topic(LOG_TOPIC, lambda event: self._progress.note_later(str(event[1])))
        client.subscribe_topic(TOPIC, self._receive)
        self._subscribed = True

    def _receive(self, event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        self._progress.set_process(status["worker"], requests=status["requests"], outages=found)

    def waiting(self) -> AbstractContextManager[None]:
        """Count the time within the block as waiting for workers."""
        return self._stopwatch.stage("wait")

    def tick(self) -> None:
        """Show progress, and check for workers if the last check is old enough. Call it while no result comes.

        Raises:
            TransientError: there has been no worker for three minutes.
        """
        self._progress.tick()
        now = self._clock()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > GONE_SECONDS / 2:  # nobody checked in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        try:
            workers = frozenset(flow_client().nthreads())
        except (OSError, TimeoutError):  # a lost connection cancels what is in flight, which ends the waiting
            self._seen = now
            return
        self._progress.keep_workers(workers)
        if workers:
            self._seen = now
        elif now - self._seen >= GONE_SECONDS:
            raise TransientError(
                f"there has been no worker process for {now - self._seen:.0f} s, and none is starting; what is "
                "committed is kept: check that there is memory for workers, or that those of [parallel] address run, "
                "then run again"
            )

    def in_flight(self, shards: int) -> None:
        """Take note of how many shards are submitted and not done."""
        self._progress.under_way(shards, self._metrics.workers)


def shards_per_worker(*, embedded: bool) -> int:
    """Return how many shards are in flight for each worker: one that it embeds, and one that waits for it.

    If workers write to a server there is a third, which waits for the server to acknowledge its points.
    """
    return 2 if embedded else 3


class Window(Generic[Item, Result]):
    """Keeps at most `size` items submitted, and yields results as they come, in any order.

    When an item fails, the results of the others are still yielded; then the first error is raised, so that done work
    is never thrown away. Items whose workers die again and again are collected in `died`. The watcher is told how many
    items are in flight, and of each second without a result; what it raises then ends the waiting.
    """

    def __init__(self, submit: Callable[[Item], PrefectWrappedFuture[Any, Any]], size: int, watcher: Monitor) -> None:
        self._submit, self._size, self._watcher = submit, size, watcher
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._in_flight: dict[Any, Item] = {}
        self._error: RagIndexError | None = None
        self.died: list[Item] = []

    def put(self, item: Item) -> Iterator[Result]:
        """Submit an item. While the window is full, yield results, and one more after submitting.

        The caller needs time for each result, so it gets at most one here: workers must not run out of items.
        """
        yield from self._results(self._size - 1)
        wrapped = self._submit(item).wrapped_future
        self._in_flight[wrapped] = item
        self._watcher.in_flight(len(self._in_flight))
        wrapped.add_done_callback(self._done.put)
        if not self._done.empty():
            yield from self._next()

    def drain(self) -> Iterator[Result]:
        """Yield the results of all items that are in flight."""
        yield from self._results(0)

    def run_alone(self, item: Item) -> Result:
        """Submit an item with nothing beside it, and return its result. Raises ProcessDied if the workers die again."""
        self.died = []
        results = [*self.put(item), *self.drain()]
        if self.died:
            raise ProcessDied("workers died under a shard")
        return results[0]

    def _results(self, limit: int) -> Iterator[Result]:
        """Yield results until at most `limit` items are in flight, or all of them once one has failed."""
        while len(self._in_flight) > (0 if self._error else limit):
            yield from self._next()
        if self._error is not None:
            raise self._error

    def _next(self) -> Iterator[Result]:
        """Yield the next result, or nothing after a second or for an item that has none."""
        try:
            with self._watcher.waiting():
                wrapped = self._done.get(timeout=TICK_SECONDS)
        except Empty:
            self._watcher.tick()
            return
        item = self._in_flight.pop(wrapped)
        self._watcher.in_flight(len(self._in_flight))
        try:
            result: Result = _result(wrapped)
        except KilledWorker as error:
            get_run_logger().warning("workers died under a shard, whose documents are tried apart: %s", error)
            self.died.append(item)
        except RagIndexError as error:
            self._error = self._error or error
        else:
            yield result


def _result(wrapped: Any) -> Any:
    """Return what the task returned. Asking for the future's state alone would hide a task whose workers all died."""
    try:
        state = wrapped.result()
    except KilledWorker:
        raise
    except Exception as exc:  # CancelledError, a lost connection: distributed's own
        raise TerminalError(f"the workers are gone ({type(exc).__name__}: {exc}); run again") from exc
    finally:
        wrapped.release()
    error = error_of(state)
    if isinstance(error, RagIndexError):
        raise error
    try:
        return state.result()
    except Exception as exc:
        raise TerminalError(f"a task ended with an unexpected {type(exc).__name__}: {exc}") from exc
