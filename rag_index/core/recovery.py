"""How often a step of a run is tried, and how long it waits for a service that is away. Tasks of
Prefect name these numbers in their decorators, and a plain run retries by the same."""

from __future__ import annotations

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import SourceTimedOut, TransientError
from rag_index.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextlib import AbstractContextManager

T = TypeVar("T")
RETRIES = 50
DELAYS = [1.0, 2.0, 4.0, 8.0, 15.0]
"""Seconds before each further try; the last one repeats."""
JITTER = 0.2
"""The share of a pause by which it is longer or shorter, at random."""
PATIENCE = 10.0
"""Seconds for which a try asks again by itself, at another host or over a new connection. Then the
step waits."""
logger = logging.getLogger("rag_index.indexing")
SILENCE_SECONDS = 5.0
"""Seconds after which a call without an answer is an outage, unless the caller knows better."""
GIVEN_UP_SECONDS = 20.0
"""Seconds between two calls that belong to one outage: a caller that gave up tries again after a
pause."""
AT_WORK = "it is still at work on a request"


def jittered(seconds: float) -> float:
    """Return a pause plus or minus a fifth at random, so that those who failed together do not try
    again together."""
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret


@contextmanager
def waiting(seconds: float) -> Iterator[None]:
    """Say of a TransientError that leaves the block for how long another try is worth it."""
    try:
        yield
    except TransientError as error:
        error.wait = seconds if error.wait is None else error.wait
        raise


def may_try_again(error: BaseException | None, tries: int, first: float) -> bool:
    """Return whether a step, which is harmless to repeat, is tried again after this many tries, the
    last of which ended with `error`: until so long after its service failed first, or the step did
    (`first`) if nobody knows that. A query that took all of its time gets one more try."""
    if not isinstance(error, TransientError) or tries > (
        1 if isinstance(error, SourceTimedOut) else RETRIES
    ):
        return False
    return time.time() + (error.retry_after or 0.0) < _deadline(error, first)


def said_of_try(error: BaseException | None, tries: int, first: float) -> str:
    """Return the line that says which try failed, and what becomes of the step."""
    if not isinstance(error, TransientError):
        return f"try {tries} failed, and is the last (terminal): {type(error).__name__}: {error}"
    if not may_try_again(error, tries, first):
        return (
            f"try {tries} failed, and is the last (waited for too long): {type(error).__name__}:"
            f" {error}"
        )
    until = _deadline(error, first)
    clock = (
        "" if until == math.inf else f" until {time.strftime('%H:%M:%S', time.localtime(until))}"
    )
    return f"try {tries} failed, trying again{clock}: {error}"


def with_retries(call: Callable[[], T], wait: float) -> T:
    """Return what `call` returns, which is harmless to repeat. Tries it again after transient
    errors, for `wait` seconds after its service failed first."""
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
        time.sleep(jittered(DELAYS[min(tries, len(DELAYS)) - 1]))


@dataclass(slots=True)
class Downtime:
    """The seconds of a block in which a service did not answer, and was asked again."""

    seconds: float = 0.0


_DOWNTIME: ContextVar[Downtime | None] = ContextVar("the downtime of a block", default=None)
"""A variable, because what is measured lies far above what asks again; event loops and threads are
given a copy."""


@contextmanager
def downtime() -> Iterator[Downtime]:
    """Measure the downtime of services that are asked in the block: it says nothing of how fast
    they work."""
    measured = Downtime()
    token = _DOWNTIME.set(measured)
    try:
        yield measured
    finally:
        _DOWNTIME.reset(token)


def add_downtime(seconds: float) -> None:
    """Count seconds in which a service did not answer for the block of `downtime` that asks it, if
    there is one."""
    measured = _DOWNTIME.get()
    if measured is not None:
        measured.seconds += seconds


def _deadline(error: TransientError, first: float) -> float:
    return (
        math.inf
        if error.wait is None
        else (first if error.since is None else error.since) + error.wait
    )


@dataclass(frozen=True, slots=True)
class Outage:
    """A service that has not answered for a while."""

    service: str
    since: float
    """The time of the machine's clock (`time.time`), because processes share no other."""
    reason: str = ""
    """The last error of the service; empty if it is silent."""
    answered: bool = False
    """Whether the last error is an answer of the service, such as one that asks for a pause."""
    is_slow: bool = False
    """Whether the service asks for a pause or is at work on a request: that is its pace, and counts
    for rates."""

    def sentence(self, wait: float = 0.0) -> str:
        """Return who is waited for, since when, for how many seconds at most (0 if nobody knows),
        and why."""
        since = f"since {time.strftime('%H:%M:%S', time.localtime(self.since))}"
        if wait:
            since += f", for at most {f'{wait:.0f} s' if wait < 120 else f'{wait / 60:.0f} min'}"
        if self.answered:
            return f"waiting for {self.service} {since}: {self.reason}"
        return (
            f"{self.service} does not answer, waiting"
            f" {since}{f': {self.reason}' if self.reason else ''}"
        )


def longest_first(outages: Iterable[Outage]) -> list[Outage]:
    """Return the outage of each service that is silent longest, the longest first."""
    first: dict[str, Outage] = {}
    for outage in sorted(outages, key=lambda outage: outage.since):
        first.setdefault(outage.service, outage)
    return list(first.values())


class Service:
    """A service that this process asks, by its name, and whether it answers. Any thread may use
    it."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name, self._clock = name, clock
        self._calls = 0
        """How many calls are under way."""
        self._left = -math.inf
        """When the last one ended."""
        self._patience = SILENCE_SECONDS
        self.answered()

    def begin(self, patience: float) -> None:
        """Begin a call. It belongs to the outage of an earlier one, if that gave up a short while
        ago."""
        if self._is_over():
            self.answered()
        self._patience = patience
        self._calls += 1

    def end(self) -> None:
        """End a call."""
        self._calls -= 1
        self._left = self._clock()

    def answered(self) -> None:
        """Record that the service has answered; it may then be silent for a while again."""
        self._silent_since, self._since = self._clock(), time.time()
        self._reason, self._answered, self._is_slow = "", False, False
        self.failed_at: float | None = None
        """When the service failed first, by the machine's clock (`time.time`); None if it has
        answered since."""

    def failed(self, reason: object, *, answered: bool = False, asks_pause: bool = False) -> None:
        """Record the service's last error, whether it is an answer, and whether that asks for a
        pause."""
        self._reason, self._answered, self._is_slow = redacted(str(reason)), answered, asks_pause
        self.failed_at = self.failed_at or time.time()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing was heard of the service for half of its patience: time to find out
        whether it is at work."""
        is_silent = self._reason in ("", AT_WORK)
        return is_silent and self._clock() - self._silent_since >= self._patience / 2

    def at_work(self, answers: bool) -> None:
        """Record whether the service answers others meanwhile, so that it is not unavailable."""
        self._reason, self._answered = (AT_WORK, True) if answers else ("", False)
        self._is_slow = answers

    def outage(self) -> Outage | None:
        """Return the outage of this service, if it has been silent for long enough, or has failed
        for a moment."""
        patience = min(self._patience, SILENCE_SECONDS) if self.failed_at else self._patience
        until = self._clock() if self._calls else self._left
        if self._is_over() or until - self._silent_since < patience:
            return None
        return Outage(self._name, self._since, self._reason, self._answered, self._is_slow)

    def _is_over(self) -> bool:
        """Return whether no call is under way, and the last one did not just give up."""
        if self._calls:
            return False
        return self.failed_at is None or self._clock() - self._left >= GIVEN_UP_SECONDS


class Services:
    """The services that the processes of a run ask. Any thread may use it.

    Each process has one: `outages` of it is all that progress, Prefect's page and the log show.
    Children and workers have their own, send the outages there to the run's process whenever they
    change, and are included here.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._known: dict[str, Service] = {}
        self._received: list[Callable[[], Iterable[Outage]]] = []
        """What returns the outages that other processes have sent."""

    @contextmanager
    def asking(self, name: str, *, patience: float = SILENCE_SECONDS) -> Iterator[Service]:
        """Record for the time of the block that a service is asked, and has to answer within
        `patience` seconds. An outage in which the block raises goes on, and the next block for this
        service continues it. A TransientError that leaves the block carries since when the service
        fails."""
        with self._lock:
            service = self._known.setdefault(name, Service(name, self._clock))
            service.begin(patience)
        try:
            yield service
            service.answered()
        except TransientError as error:
            if service.failed_at is None:
                service.failed(error)
            error.since = service.failed_at
            raise
        finally:
            with self._lock:
                service.end()

    def outages(self) -> tuple[Outage, ...]:
        """Return the services that do not answer now, each once, the longest silent first."""
        own = [service.outage() for service in list(self._known.values())]
        sent = [outage for received in list(self._received) for outage in received()]
        return tuple(longest_first([*(outage for outage in own if outage is not None), *sent]))

    def include(self, received: Callable[[], Iterable[Outage]]) -> None:
        """Include the outages of other processes, which `received` returns as far as they have sent
        them."""
        with self._lock:
            self._received.append(received)

    def exclude(self, received: Callable[[], Iterable[Outage]]) -> None:
        """Leave out again what was included."""
        with self._lock, suppress(ValueError):
            self._received.remove(received)


SERVICES = Services()
"""The only global: a watcher must see every call of the process, in whatever object and thread it
is made."""


def asking(name: str, *, patience: float = SILENCE_SECONDS) -> AbstractContextManager[Service]:
    """Record a call of this process for the time of a block, as `Services.asking` does."""
    return SERVICES.asking(name, patience=patience)


def outages() -> tuple[Outage, ...]:
    """Return the services that do not answer the process that calls this. A function, which is
    pickled by its name: a method of `SERVICES` would take a copy of it along to a child process,
    and report that."""
    return SERVICES.outages()
