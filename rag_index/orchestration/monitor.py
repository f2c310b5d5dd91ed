"""The monitor of a run's workers: what a person sees, and what ends a run that has nobody left to wait for."""

from __future__ import annotations

import threading
import time
from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from distributed.core import Status

from rag_index.errors import TransientError
from rag_index.orchestration.cluster import current_worker, flow_client
from rag_index.outages import Outage, outages
from rag_index.reports.displays import LOGGERS, LogNotes

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from rag_index.indexing.run import IndexRun
    from rag_index.reports.progress import Progress

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""

GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""
TOPIC = "rag-index-status"
INTERVAL_SECONDS = 1.0
LOG_TOPIC = "rag-index"


def _workers() -> frozenset[str] | None:
    """Return the addresses of the cluster's workers; None if there is no cluster to ask."""
    client = flow_client()
    if client is None:
        return None
    try:
        return frozenset(client.nthreads())
    except (OSError, TimeoutError):  # a lost connection cancels what is in flight, which ends the waiting
        return None


def forward(in_flight: Callable[[], int]) -> None:
    """Send this worker's status and log lines to the flow from now on. Call it once; it does nothing elsewhere."""
    worker = current_worker()
    if worker is None:
        return
    handler = LogNotes(lambda line: worker.log_event(LOG_TOPIC, line))
    for logger in LOGGERS:
        logger.addHandler(handler)
    threading.Thread(target=_send_status, args=(worker, in_flight), daemon=True, name="status").start()


def _send_status(worker: Any, in_flight: Callable[[], int]) -> None:
    last: tuple[int, tuple[Outage, ...]] = (0, ())
    while worker.status not in (Status.closing, Status.closed):
        time.sleep(INTERVAL_SECONDS)
        if (now := (in_flight(), outages())) != last:
            last = now
            found = [list(astuple(outage)) for outage in now[1]]
            worker.log_event(TOPIC, {"worker": worker.address, "requests": now[0], "outages": found})


def _subscribe(progress: Progress) -> None:
    """Give status and log lines of all workers to the progress, from another thread. Starts the cluster."""
    client = flow_client()
    if client is None:
        return

    def receive(event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        progress.set_process(status["worker"], requests=status["requests"], outages=found)

    client.subscribe_topic(LOG_TOPIC, lambda event: progress.note_later(str(event[1])))
    client.subscribe_topic(TOPIC, receive)


class Monitor:
    """Progress, liveness and status of the workers of a run."""

    def __init__(self, run: IndexRun, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._progress, self._stopwatch, self._metrics = run.progress, run.stopwatch, run.metrics
        self._clock = clock
        self._checked = self._seen = clock()
        self._subscribed = run.settings.parallel.serial

    def subscribe(self) -> None:
        """Listen to the workers, the first time that it is called. Starts the cluster, and raises NoWorkers."""
        if not self._subscribed:
            with self._stopwatch.stage("workers"):
                _subscribe(self._progress)
            self._subscribed = True

    def waiting(self) -> AbstractContextManager[None]:
        """Count the time within the block as waiting for workers."""
        return self._stopwatch.stage("wait")

    def tick(self) -> None:
        """Show progress, and check for workers if the last check is old enough. Call it while no result comes.

        Raises:
            TransientError: there has been no worker for three minutes. Where there is no cluster, nothing is checked.
        """
        self._progress.tick()
        now = self._clock()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > GONE_SECONDS / 2:  # nobody checked in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        workers = _workers()
        if workers is not None:
            self._progress.keep_workers(workers)
        if workers is None or workers:
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
