"""How often a step of a run is tried, and how long it waits for a service that is away. Tasks of Prefect name these
numbers in their decorators, and a plain run retries by the same."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
"""Seconds for which a try asks again by itself, at another host or over a new connection. Then the step waits."""
logger = logging.getLogger("rag_index.indexing")
SILENCE_SECONDS = 5.0
"""Seconds after which a call without an answer is an outage, unless the caller knows better."""
GIVEN_UP_SECONDS = 20.0
"""Seconds between two calls that belong to one outage: a caller that gave up tries again after a pause."""
AT_WORK = "it is still at work on a request"


def jittered(seconds: float) -> float:
    """Return a pause plus or minus a fifth at random, so that those who failed together do not try again together."""
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
        time.sleep(jittered(DELAYS[min(tries, len(DELAYS)) - 1]))


@dataclass(slots=True)
class Downtime:
    """The seconds of a block in which a service did not answer, and was asked again."""

    seconds: float = 0.0


_DOWNTIME: ContextVar[Downtime | None] = ContextVar("the downtime of a block", default=None)
"""A variable, because what is measured lies far above what asks again; event loops and threads are given a copy."""


@contextmanager
def downtime() -> Iterator[Downtime]:
    """Measure the downtime of services that are asked in the block: it says nothing of how fast they work."""
    measured = Downtime()
    token = _DOWNTIME.set(measured)
    try:
        yield measured
    finally:
        _DOWNTIME.reset(token)


def add_downtime(seconds: float) -> None:
    """Count seconds in which a service did not answer for the block of `downtime` that asks it, if there is one."""
    measured = _DOWNTIME.get()
    if measured is not None:
        measured.seconds += seconds


def _deadline(error: TransientError, first: float) -> float:
    return math.inf if error.wait is None else (first if error.since is None else error.since) + error.wait


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
    """Whether the service asks for a pause or is at work on a request: that is its pace, and counts for rates."""

    def sentence(self, wait: float = 0.0) -> str:
        """Return who is waited for, since when, for how many seconds at most (0 if nobody knows), and why."""
        since = f"since {time.strftime('%H:%M:%S', time.localtime(self.since))}"
        if wait:
            since += f", for at most {f'{wait:.0f} s' if wait < 120 else f'{wait / 60:.0f} min'}"
        if self.answered:
            return f"waiting for {self.service} {since}: {self.reason}"
        return f"{self.service} does not answer, waiting {since}{f': {self.reason}' if self.reason else ''}"


def longest_first(outages: Iterable[Outage]) -> list[Outage]:
    """Return the outage of each service that is silent longest, the longest first."""
    first: dict[str, Outage] = {}
    for outage in sorted(outages, key=lambda outage: outage.since):
        first.setdefault(outage.service, outage)
    return list(first.values())


class Call:
    """A call that is under way."""

    def __init__(self, service: str, patience: float, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._patience = patience
        self._silent_since, self._since = clock(), time.time()
        self._reason, self._answered, self._is_slow = "", False, False
        self.failed_at: float | None = None
        """When the service failed first, by the machine's clock (`time.time`); None if it has answered since."""

    def resume(self, earlier: Call) -> None:
        """Continue the outage of an earlier call, which gave up."""
        self._silent_since, self._since = earlier._silent_since, earlier._since
        self._reason, self._answered, self.failed_at = earlier._reason, earlier._answered, earlier.failed_at
        self._is_slow = earlier._is_slow

    def answered(self, patience: float | None = None) -> None:
        """Take note that the service has answered; the block may then be silent for `patience` seconds again."""
        if patience is not None:
            self._patience = patience
        self._silent_since, self._since = self._clock(), time.time()
        self._reason, self._answered, self.failed_at = "", False, None
        self._is_slow = False

    @property
    def quiet(self) -> bool:
        """Whether nothing was heard of the service for half of the patience: time to find out whether it is at work."""
        is_silent = self._reason in ("", AT_WORK)
        return is_silent and self._clock() - self._silent_since >= self._patience / 2

    def at_work(self, answers: bool) -> None:
        """Take note of whether the service answers others meanwhile, so that it is not away."""
        self._reason, self._answered = (AT_WORK, True) if answers else ("", False)
        self._is_slow = answers

    def failed(self, reason: object, *, answered: bool = False, asks_pause: bool = False) -> None:
        """Take note of the service's last error, of whether it is an answer, and whether that asks for a pause."""
        self._reason, self._answered, self._is_slow = redacted(str(reason)), answered, asks_pause
        self.failed_at = self.failed_at or time.time()

    def outage(self, now: float | None = None) -> Outage | None:
        """Return the outage that this call has met, if it has waited for long enough by `now`."""
        patience = min(self._patience, SILENCE_SECONDS) if self.failed_at else self._patience
        if (self._clock() if now is None else now) - self._silent_since < patience:
            return None
        return Outage(self._service, self._since, self._reason, self._answered, self._is_slow)


class Calls:
    """The calls of one process that are under way. Any thread may use it."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._under_way: dict[int, Call] = {}
        self._given_up: dict[str, tuple[float, Call]] = {}

    @contextmanager
    def asking(self, service: str, *, patience: float = SILENCE_SECONDS) -> Iterator[Call]:
        """Say for the time of the block that `service` is asked, and has to answer within `patience` seconds. An outage
        in which the block raises goes on, and the next block for this service continues it. A TransientError that
        leaves the block is told since when the service fails."""
        call = Call(service, patience, self._clock)
        if (earlier := self._paused().get(service)) is not None:
            call.resume(earlier[1])
        self._under_way[id(call)] = call
        try:
            yield call
        except Exception as error:
            if isinstance(error, TransientError):
                if call.failed_at is None:
                    call.failed(error)
                error.since = call.failed_at
            if call.failed_at is not None:
                self._given_up[service] = (self._clock(), call)
            raise
        else:
            self._given_up.pop(service, None)
        finally:
            del self._under_way[id(call)]

    def outages(self) -> tuple[Outage, ...]:
        """Return the services that do not answer now, each once, the longest silent first."""
        under_way = [call.outage() for call in list(self._under_way.values())]
        paused = [call.outage(at) for at, call in self._paused().values()]
        return tuple(longest_first(outage for outage in (*under_way, *paused) if outage is not None))

    def _paused(self) -> dict[str, tuple[float, Call]]:
        now = self._clock()
        return {service: ended for service, ended in list(self._given_up.items()) if now - ended[0] < GIVEN_UP_SECONDS}


_CALLS = Calls()
"""The only global: a watcher must see every call of the process, in whatever object and thread it is made."""


def asking(service: str, *, patience: float = SILENCE_SECONDS) -> AbstractContextManager[Call]:
    """Record a call of this process for the time of a block, as `Calls.asking` does."""
    return _CALLS.asking(service, patience=patience)


def outages() -> tuple[Outage, ...]:
    """Return the services that do not answer the process that calls this. A function, which is pickled by its name: a
    method of `_CALLS` would take a copy of its calls along to a child process, and report those."""
    return _CALLS.outages()
