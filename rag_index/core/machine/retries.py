"""Retries: how often a call that is harmless to repeat is tried again after a transient error."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from rag_index.errors import SourceTimedOut, TransientError

T = TypeVar("T")
MAX_RETRIES = 3
MAX_TIMED_OUT = 1
"""How often a query is tried again that took all of its time."""
JITTER = 0.5
LONG = 24 * 3600.0
"""Seconds after which a task of a flow ends, if nothing below it has. Drivers and requests have limits of their own,
which end sooner and say more; this is for what has none, such as a file system that does not answer."""
logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a step, which is harmless to repeat, is tried again after a transient error."""

    retries: int = MAX_RETRIES
    delay: float | None = None
    """Seconds before each retry; by default 1, 2, 4, … They get up to half as long again."""
    within: float | None = None
    """The seconds after the start of the step in which a retry may begin."""
    limit: float | None = LONG
    """Seconds after which Prefect ends the step. It can in the main thread of a process alone."""
    waits_for: tuple[type[TransientError], ...] = ()
    """Errors that the step raises when it has waited as long as it may: another try would wait again."""


def tries_left(policy: Policy, error: BaseException | None, tries: int) -> int:
    """Return how often a step may be tried again after this many tries, the last of which ended with `error`."""
    if not isinstance(error, TransientError) or isinstance(error, policy.waits_for):
        return 0
    return max(0, (MAX_TIMED_OUT if isinstance(error, SourceTimedOut) else policy.retries) - tries + 1)


def with_retries(call: Callable[[], T], policy: Policy) -> T:
    """Return what `call` returns, which is harmless to repeat: transient errors are tried again, terminal ones are not.
    Each retry waits for up to half as long again as the policy says, so that runs on many machines ask apart."""
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return call()
        except TransientError as error:
            left = tries_left(policy, error, tries)
            if not left or (policy.within is not None and time.monotonic() - began >= policy.within):
                raise
            logger.warning("transient, trying again (tries left: %d): %s", left, error)
        seconds = 2.0 ** (tries - 1) if policy.delay is None else policy.delay
        time.sleep(seconds * (1 + JITTER * random.random()))  # noqa: S311 - not for secrets
