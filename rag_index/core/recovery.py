"""How often a step of a run is tried, and how long it waits for a service that is away. Tasks of Prefect name these
numbers in their decorators, and a plain run retries by the same."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rag_index.errors import SourceTimedOut, TransientError

T = TypeVar("T")
RETRIES = 50
DELAYS = [1.0, 2.0, 4.0, 8.0, 15.0]
"""Seconds before each further try; the last one repeats."""
PATIENCE = 10.0
"""Seconds for which a try asks again by itself, at another host or over a new connection. Then the step waits."""
logger = logging.getLogger("rag_index.indexing")


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Say of a TransientError that leaves the block for how long another try is worth it."""
    try:
        yield
    except TransientError as error:
        error.wait = seconds if error.wait is None else error.wait
        raise


def may_try_again(error: BaseException | None, tries: int, first: float) -> bool:
    """Return whether a step, which is harmless to repeat, is tried again after this many tries, the last of which ended
    with `error`: until so long after its service failed first, or the step did (`first`) if nobody knows that. A query
    that took all of its time gets one more try."""
    if not isinstance(error, TransientError) or tries > (1 if isinstance(error, SourceTimedOut) else RETRIES):
        return False
    return time.time() + (error.retry_after or 0.0) < _deadline(error, first)


def said_of_try(error: BaseException | None, tries: int, first: float) -> str:
    """Return the line that says which try failed, and what becomes of the step."""
    if not isinstance(error, TransientError):
        return f"try {tries} failed, and is the last (terminal): {type(error).__name__}: {error}"
    if not may_try_again(error, tries, first):
        return f"try {tries} failed, and is the last (waited for too long): {type(error).__name__}: {error}"
    until = _deadline(error, first)
    clock = "" if until == math.inf else f" until {time.strftime('%H:%M:%S', time.localtime(until))}"
    return f"try {tries} failed, trying again{clock}: {error}"


def with_retries(call: Callable[[], T], wait: float) -> T:
    """Return what `call` returns, which is harmless to repeat. Tries it again after transient errors, for `wait`
    seconds after its service failed first."""
    first, tries = 0.0, 0
    while True:
        tries += 1
        try:
            with waiting(wait):
                return call()
        except TransientError as error:
            first = first or time.time()
            if not may_try_again(error, tries, first):
                raise
            logger.warning("%s", said_of_try(error, tries, first))
        time.sleep(DELAYS[min(tries, len(DELAYS)) - 1])


def _deadline(error: TransientError, first: float) -> float:
    return math.inf if error.wait is None else (first if error.since is None else error.since) + error.wait
