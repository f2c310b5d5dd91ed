"""The monitor of a run's workers: what a person sees, and what ends a run that has nobody left to wait for."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from rag_index.errors import TransientError
from rag_index.orchestration.cluster import current_worker, flow_client
from rag_index.outages import Outage, outages
from rag_index.reports.displays import LOGGERS, LogNotes, captured_logs

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager
    from types import TracebackType

    from rag_index.indexing.run import IndexRun
    from rag_index.reports.progress import Progress

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""

GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""
TOPIC = "rag-index-status"
INTERVAL_SECONDS = 1.0
LOG_TOPIC = "rag-index"


class Liveness:
    """A regular check that the flow's cluster has workers. Where there is no cluster it checks nothing."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._checked = self._seen = clock()
        self.workers: frozenset[str] | None = None
        """The addresses of the workers at the last check; None while they are not known."""

    def check(self) -> None:
        """Check for workers, if the last check is old enough. Call it while no result comes.

        Raises:
            TransientError: there has been no worker for three minutes.
        """
        now = self._clock()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > GONE_SECONDS / 2:  # nobody checked in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        self.workers = _workers()
        if self.workers is None or self.workers:
            self._seen = now
        elif now - self._seen >= GONE_SECONDS:
            raise TransientError(
                f"there has been no worker process for {now - self._seen:.0f} s, and none is starting; what is "
                "committed is kept: check that there is memory for workers, or that those of [parallel] address run, "
                "then run again"
            )


def _workers() -> frozenset[str] | None:
    """Return the addresses of the cluster's workers; None if there is no cluster to ask."""
    client = flow_client()
    if client is None:
        return None
    try:
        return frozenset(client.nthreads())
    except (OSError, TimeoutError):  # a lost connection cancels what is in flight, which ends the waiting
        return None


def forward_status(in_flight: Callable[[], int]) -> None:
    """Send this worker's status to the flow from now on. Call it once; outside a worker it does nothing."""
    worker = current_worker()
    if worker is None:
        return
    threading.Thread(target=_send, args=(worker, in_flight), daemon=True, name="status").start()


def subscribe_status(progress: Progress) -> None:
    """Give the status of all workers to the progress, from another thread. Starts the cluster."""
    client = flow_client()
    if client is None:
        return

    def receive(event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        progress.set_process(status["worker"], requests=status["requests"], outages=found)

    client.subscribe_topic(TOPIC, receive)


def _send(worker: Any, in_flight: Callable[[], int]) -> None:
    last: tuple[int, tuple[Outage, ...]] = (0, ())
    while worker.status not in (Status.closing, Status.closed):
        time.sleep(INTERVAL_SECONDS)
        if (now := (in_flight(), outages())) != last:
            last = now
            found = [list(astuple(outage)) for outage in now[1]]
            worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})


def forward_logs() -> None:
    """Forward what a worker logs to Dask's event log. Call it once; outside a worker it does nothing."""
    worker = current_worker()
    if worker is None:
        return
    handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)


def subscribe_logs(say: Callable[[str], None]) -> None:
    """Give what workers log to `say`, which is called from another thread. Starts the cluster."""
    client = flow_client()
    if client is not None:
        client.subscribe_topic(LOG_TOPIC, lambda event: say(str(event[1])))


class Monitor:
    """Progress, liveness and status of workers, and their log lines, for the time of a `with` block."""

    def __init__(self, run: IndexRun) -> None:
        self._run = run
        self._liveness = Liveness()
        self._subscribed = run.settings.parallel.serial
        self._stack = ExitStack()

    def __enter__(self) -> Monitor:
        self._stack.enter_context(captured_logs(self._run.progress.note_later))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def subscribe(self) -> None:
        """Listen to the workers, the first time that it is called. Starts the cluster, and raises NoWorkers."""
        if not self._subscribed:
            with self._run.stopwatch.stage("workers"):
                subscribe_logs(self._run.progress.note_later)
                subscribe_status(self._run.progress)
            self._subscribed = True

    def waiting(self) -> AbstractContextManager[None]:
        """Count the time within the block as waiting for workers."""
        return self._run.stopwatch.stage("wait")

    def tick(self) -> None:
        """Show progress and check for workers, while no result comes. Raises as `Liveness.check`."""
        self._run.progress.tick()
        self._liveness.check()
        if (workers := self._liveness.workers) is not None:
            self._run.progress.keep_workers(workers)

    def in_flight(self, shards: int) -> None:
        """Take note of how many shards are submitted and not done."""
        self._run.progress.under_way(shards, self._run.metrics.workers)
