"""Which errors are tried again, and how often: the same in the tasks of a flow and by the plain driver."""

from __future__ import annotations

import logging
import random
import time
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import SourceTimedOut, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_RETRIES = 3
MAX_TIMED_OUT = 1
"""How often a query is tried again that took all of its time."""
JITTER = 0.5
logger = logging.getLogger("rag_index.indexing")


def backoff(retry: int) -> float:
    """Return the seconds before a retry, of which 0 is the first: 1, 2, 4, … Retries are short: a step waits for them.

    >>> [backoff(retry) for retry in range(MAX_RETRIES)]
    [1.0, 2.0, 4.0]
    """
    return float(2**retry)


def tries_left(error: BaseException | None, tries: int, *, retries: int = MAX_RETRIES) -> int:
    """Return how often a step may be tried again after `tries` of which the last ended with `error`."""
    if not isinstance(error, TransientError):
        return 0
    return max(0, (MAX_TIMED_OUT if isinstance(error, SourceTimedOut) else retries) - tries + 1)


def with_retries(
    call: Callable[[], T],
    *,
    retries: int = MAX_RETRIES,
    delay: Callable[[int], float] = backoff,
    within: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what `call` returns, which is harmless to repeat: transient errors are tried again, terminal ones are not.

    `delay` gives the seconds before each retry, to which up to half is added so that runs on many machines ask apart.
    No retry begins later than `within` seconds from now.
    """
    deadline = None if within is None else time.monotonic() + within
    tries = 0
    while True:
        tries += 1
        try:
            return call()
        except TransientError as error:
            left = tries_left(error, tries, retries=retries)
            if not left or (deadline is not None and time.monotonic() >= deadline):
                raise
            logger.warning("transient, trying again (%d tries left): %s", left, error)
        sleep(delay(tries - 1) * (1 + JITTER * random.random()))  # noqa: S311 - not for secrets
