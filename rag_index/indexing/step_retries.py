"""Which errors are tried again, and how often: the same in the tasks of a flow and by the plain driver.

A run waits for each service once, and not once an index. One that answered is not asked again for the next index,
unless an index has failed since. The time that was spent on a service that does not answer is counted for the whole
run: once it is used up, each further index ends at once.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from rag_index.errors import EmbedderUnavailable, SourceTimedOut, TransientError

T = TypeVar("T")
MAX_RETRIES = 3
MAX_TIMED_OUT = 1
"""How often a query is tried again that took all of its time."""

RETRY_SECONDS = 5.0
QUICK_SECONDS = 15.0
"""How long a check that fails may have taken to be tried once more, in a run that is not to wait for services."""

MIN_SECONDS = 30.0
"""The time that a run may spend in all on a service that does not answer, even if it is not to wait for services."""

JITTER = 0.5
logger = logging.getLogger("rag_index.indexing")


def tries_left(error: BaseException | None, tries: int, *, retries: int = MAX_RETRIES) -> int:
    """Return how often a step may be tried again after `tries` of which the last ended with `error`."""
    if not isinstance(error, TransientError):
        return 0
    return max(0, (MAX_TIMED_OUT if isinstance(error, SourceTimedOut) else retries) - tries + 1)


def with_retries(
    call: Callable[[], T], *, retries: int = MAX_RETRIES, delay: float | None = None, within: float | None = None
) -> T:
    """Return what `call` returns, which is harmless to repeat: transient errors are tried again, terminal ones are not.

    Each retry waits for `delay` seconds, by default 1, 2, 4, …, and up to half as long again, so that runs on many
    machines ask apart. No retry begins later than `within` seconds from now.
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
            logger.warning("transient, trying again (tries left: %d): %s", left, error)
        seconds = 2.0 ** (tries - 1) if delay is None else delay
        time.sleep(seconds * (1 + JITTER * random.random()))  # noqa: S311 - not for secrets


class ServiceChecks:
    """The services of one run. `wait` is how long the run may wait for each of them at the start, in seconds."""

    def __init__(self, wait: float = 0.0, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(MIN_SECONDS, wait)
        self._clock = clock
        self._answers: dict[Hashable, Any] = {}
        self._spent: dict[Hashable, float] = {}
        self._given_up: dict[Hashable, str] = {}

    def check(self, service: Hashable, ask: Callable[[], T]) -> T:
        """Return what `ask` returns. Raises as it does, and at once if too much time was spent on this service."""
        if service in self._given_up:
            raise TransientError(self._given_up[service])
        began = self._clock()
        try:
            answer = ask()
        except TransientError as error:
            spent = self._spent[service] = self._spent.get(service, 0.0) + self._clock() - began
            if spent >= self._limit:
                self._given_up[service] = f"{error} (the run has waited {spent:.0f} s for it, and does not ask again)"
            raise
        self._spent.pop(service, None)
        return answer

    def remember(self, service: Hashable, ask: Callable[[], T]) -> T:
        """Return the answer that an earlier index got; without one, as `check`."""
        if service not in self._answers:
            self._answers[service] = self.check(service, ask)
        known: T = self._answers[service]
        return known

    def index_failed(self, error: Exception, *, embedder_only: bool) -> None:
        """Forget the answers, because a service may be the reason why an index failed.

        If the embedder answered at the start and went silent later, the index has waited for it as long as the run may:
        the rest fails at once. `embedder_only` says that no other service raises EmbedderUnavailable.
        """
        if embedder_only and isinstance(error, EmbedderUnavailable) and "embedder" in self._answers:
            self._given_up["embedder"] = f"{error} (the run has waited for it, and does not ask again)"
        self._answers.clear()


_SHARED: ContextVar[ServiceChecks | None] = ContextVar("service checks", default=None)


@contextmanager
def shared_checks(wait: float) -> Iterator[None]:
    """Let all indexes that are run within the block share what they learn about services."""
    token = _SHARED.set(ServiceChecks(wait))
    try:
        yield
    finally:
        _SHARED.reset(token)


def current_checks() -> ServiceChecks:
    """Return the checks of the run of several indexes that this is called in, or new ones."""
    return _SHARED.get() or ServiceChecks()


def patience(wait: float, *, min_retries: int = 1) -> tuple[int, float]:
    """Return how often a check may be tried again, and for how many seconds, in a run that may wait for services."""
    return min_retries + int(wait / RETRY_SECONDS), max(wait, QUICK_SECONDS)
