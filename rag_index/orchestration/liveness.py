"""Whether there are workers left to wait for: a cluster without any would be waited for until the next night."""

from __future__ import annotations

import time

from rag_index.errors import TransientError
from rag_index.orchestration.client import flow_client

__all__ = ["Liveness"]

EVERY = 5.0
"""Seconds between two looks, which cost a message to the scheduler each."""
GONE_SECONDS = 180.0
"""How long there may be none: a worker that died is started again within seconds, on a busy machine within a minute."""


class Liveness:
    """Looks now and then whether the flow's cluster has workers. Nothing is looked for where there is no cluster."""

    def __init__(self) -> None:
        self._looked = self._seen = time.monotonic()

    def check(self) -> None:
        """To be called as time passes without a result.

        Raises:
            TransientError: there has been no worker for three minutes.
        """
        now = time.monotonic()
        if now - self._looked < EVERY:
            return
        if now - self._looked > GONE_SECONDS / 2:  # work was done in between, so nothing is known of that time
            self._seen = now
        self._looked = now
        if _workers():
            self._seen = now
        elif now - self._seen >= GONE_SECONDS:
            raise TransientError(
                f"there has been no worker process for {now - self._seen:.0f} s, and none is starting; what is done "
                "is kept: see that there is memory for them, or that those of [parallel] address run, then run again"
            )


def _workers() -> bool:
    """Whether there is one, or nobody to ask."""
    client = flow_client()
    if client is None:
        return True
    try:
        return bool(client.nthreads())
    except (OSError, TimeoutError):  # a lost connection cancels what is under way, and that ends the waiting
        return True
