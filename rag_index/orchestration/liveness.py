"""Whether there are workers left to wait for: a run would wait for a cluster without any until the next night."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rag_index.errors import TransientError
from rag_index.orchestration.dask_client import flow_client

if TYPE_CHECKING:
    from collections.abc import Callable

CHECK_SECONDS = 5.0
"""Time between two checks, each of which costs a message to the scheduler."""
GONE_SECONDS = 180.0
"""How long there may be no worker: one that died is restarted within seconds, on a busy machine within a minute."""


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
