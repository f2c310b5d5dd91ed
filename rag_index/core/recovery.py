"""How often a step of a run is tried, and how long it waits for a service that is away. Tasks of Prefect name these
numbers in their decorators, and a plain run retries by the same."""

from __future__ import annotations

import logging
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
    """Give a TransientError that leaves the block its deadline: so many seconds after its service failed first."""
    try:
        yield
    except TransientError as error:
        if error.deadline is None:
            error.deadline = (time.time() if error.since is None else error.since) + seconds
        raise


def may_try_again(error: BaseException | None, tries: int) -> bool:
    """Return whether a step, which is harmless to repeat, is tried again after this many tries, the last of which ended
    with `error`. A query that took all of its time gets one more try."""
    if not isinstance(error, TransientError) or tries > (1 if isinstance(error, SourceTimedOut) else RETRIES):
        return False
    return error.deadline is None or time.time() + error.pause < error.deadline


def said_of_try(error: BaseException | None, tries: int) -> str:
    """Return the line that says which try failed, and what becomes of the step."""
    if may_try_again(error, tries) and isinstance(error, TransientError):
        until = f" until {time.strftime('%H:%M:%S', time.localtime(error.deadline))}" if error.deadline else ""
        return f"try {tries} failed, trying again{until}: {error}"
    kind = "waited for too long" if isinstance(error, TransientError) else "terminal"
    return f"try {tries} failed, and is the last ({kind}): {type(error).__name__}: {error}"


def with_retries(call: Callable[[], T], wait: float) -> T:
    """Return what `call` returns, which is harmless to repeat. Tries it again after transient errors, for `wait`
    seconds after its service failed first."""
    tries, first = 0, 0.0
    while True:
        tries += 1
        try:
            with waiting(wait):
                return call()
        except TransientError as error:
            first = first or error.since or time.time()
            error.deadline = min(first + wait, error.deadline or first + wait)
            if not may_try_again(error, tries):
                raise
            logger.warning("%s", said_of_try(error, tries))
        time.sleep(DELAYS[min(tries, len(DELAYS)) - 1])
