"""What the Dask workers of a run tell it: their log lines, what they wait for, and whether there are any."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rag_index.errors import TransientError
from rag_index.orchestration.worker import LOG_TOPIC, TOPIC, RunPlugin
from rag_index.outages import Outage

if TYPE_CHECKING:
    from collections.abc import Callable

    from distributed import Client

    from rag_index.reports.progress import Progress

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""


class Liveness:
    """Shows in the progress of a run what its workers tell, and ends the run if there are none for long."""

    def __init__(self, client: Client, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        self._client, self._progress, self._clock = client, progress, clock
        self._checked = self._seen = clock()
        client.register_plugin(RunPlugin())
        client.subscribe_topic(LOG_TOPIC, lambda event: progress.note_later(str(event[1])))
        client.subscribe_topic(TOPIC, self._receive)

    def _receive(self, event: Any) -> None:
        status = event[1]
        found = tuple(Outage(*fields) for fields in status["outages"])
        self._progress.set_process(status["worker"], requests=status["requests"], outages=found)

    def tick(self) -> None:
        """Check for workers if the last check is old enough.

        Raises:
            TransientError: there has been no worker for three minutes.
        """
        now = self._clock()
        if now - self._checked < CHECK_SECONDS:
            return
        if now - self._checked > GONE_SECONDS / 2:  # nobody checked in between, so nothing is known of that time
            self._seen = now
        self._checked = now
        try:
            workers = frozenset(self._client.nthreads())
        except OSError:  # a lost connection cancels what is in flight, which ends the waiting
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
