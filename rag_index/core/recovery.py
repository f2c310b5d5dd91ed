"""How often a step of a run is tried, how long it waits for an unavailable service, and which
services are unavailable now. Tasks of Prefect use these numbers in their decorators, and local
steps use the same.

Three layers retry, each for its own time:

1. An attempt: `HostPool` and `Link.ask` retry a call to an embedder or to Qdrant, at another host
   or over a new connection, for their `patience`. That is `PATIENCE` in processes that embed, and
   `[run] wait_for_recovery` for the store of the run's own process.
2. A step: if its attempt failed with a TransientError, `retry_step` starts another one, for a task
   of Prefect `may_try_again` decides that. `retryable_for` sets for how many seconds after the
   service failed first: `[run] wait_for_recovery`, and `--wait` for the checks before a run.
3. A run: entering `IndexLease` waits for the lease of a watch's run or of a check-up. A run that
   failed is not retried. The next run continues from its last commit.
"""

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
RETRIES = 10_000
"""Retries of a step at most, because Prefect needs a number. `DELAYS` make them 40 hours, more than
anybody sets as `wait_for_recovery`, which is what ends them."""
RETRIES_WITHOUT_LIMIT = 50
"""Retries of an error for which nobody set a time. `DELAYS` make them 12 minutes. Chosen."""
DELAYS = [1.0, 2.0, 4.0, 8.0, 15.0]
"""Seconds before each further try; the last one repeats."""
JITTER = 0.2
"""The largest random change of a pause, as a share of it. Chosen; nothing depends on it."""
PATIENCE = 10.0
"""Seconds for which one attempt retries by itself, at another host or over a new connection, before
the step waits. Chosen."""
logger = logging.getLogger("rag_index.indexing")
SILENCE_SECONDS = 5.0
"""Seconds after which a call without an answer counts as an outage, unless its caller sets another
limit. Chosen."""
GIVEN_UP_SECONDS = 20.0
"""Seconds between two calls that belong to one outage: a caller that gave up tries again after a
pause, of 15 s plus jitter at most."""
AT_WORK = "it is still at work on a request"


def jittered(seconds: float) -> float:
    """Return the pause plus or minus a fifth at random, so that callers that failed together do not
    retry together."""
    factor = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
    return seconds * factor


@contextmanager
def retryable_for(seconds: float) -> Iterator[None]:
    """Set, on a TransientError that leaves the block, for how many seconds its step is retried
    (`TransientError.wait`), unless that is set already."""
    try:
        yield
    except TransientError as error:
        error.wait = seconds if error.wait is None else error.wait
        raise


def may_try_again(error: BaseException | None, tries: int, first: float) -> bool:
    """Return whether a step is tried again after `tries` attempts, the last of which ended with
    `error`. The step must be harmless to repeat.

    It is retried for `error.wait` seconds after its service failed first. `first` is when the step
    itself failed first (`time.time`); it counts if the service's time is unknown.
    """
    return not _why_last(error, tries, first)


def _why_last(error: BaseException | None, tries: int, first: float) -> str:
    """Return why an attempt is the last one; empty if the step is tried again."""
    if not isinstance(error, TransientError):
        return "terminal"
    # A query that took all of its time gets one retry.
    if isinstance(error, SourceTimedOut):
        allowed = 1
    elif error.wait is None:
        allowed = RETRIES_WITHOUT_LIMIT
    else:
        allowed = RETRIES
    if tries > allowed:
        return "tried often enough"
    next_try = time.time() + (error.retry_after or 0.0)
    if next_try >= _deadline(error, first):
        return "waited for too long"
    return ""


def retry_message(error: BaseException | None, tries: int, first: float) -> str:
    """Return the log line about a failed attempt: its number, its error, and whether the step is
    tried again."""
    why_last = _why_last(error, tries, first)
    if why_last or not isinstance(error, TransientError):
        named = f"{type(error).__name__}: {error}"
        return f"try {tries} failed, and is the last ({why_last}): {named}"
    deadline = _deadline(error, first)
    if deadline == math.inf:
        return f"try {tries} failed, trying again: {error}"
    until = time.strftime("%H:%M:%S", time.localtime(deadline))
    return f"try {tries} failed, trying again until {until}: {error}"


def retry_step(step: Callable[[], T], seconds: float) -> T:
    """Return the result of `step`, which must be harmless to repeat. Retries it after transient
    errors, for `seconds` after its service failed first."""
    first = 0.0
    tries = 0
    while True:
        tries += 1
        try:
            with retryable_for(seconds):
                return step()
        except TransientError as error:
            first = first or time.time()
            if not may_try_again(error, tries, first):
                raise
            logger.warning("%s", retry_message(error, tries, first))
        # The last delay repeats.
        delay = DELAYS[min(tries, len(DELAYS)) - 1]
        time.sleep(jittered(delay))


@dataclass(slots=True)
class Downtime:
    """The seconds of a block in which a service did not answer and was retried."""

    seconds: float = 0.0


_DOWNTIME: ContextVar[Downtime | None] = ContextVar("the downtime of a block", default=None)
"""A context variable, because the measured block is far above the retries; event loops and threads
get a copy."""


@contextmanager
def downtime() -> Iterator[Downtime]:
    """Measure the downtime of the services that the block calls, so that rates can leave it out."""
    measured = Downtime()
    token = _DOWNTIME.set(measured)
    try:
        yield measured
    finally:
        _DOWNTIME.reset(token)


def add_downtime(seconds: float) -> None:
    """Add seconds in which a service did not answer to the enclosing block of `downtime`, if there
    is one."""
    measured = _DOWNTIME.get()
    if measured is not None:
        measured.seconds += seconds


def _deadline(error: TransientError, first: float) -> float:
    """Return the time until which a retry is worthwhile; infinity if nobody set a limit."""
    if error.wait is None:
        return math.inf
    first_error_at = first if error.since is None else error.since
    return first_error_at + error.wait


@dataclass(frozen=True, slots=True)
class Outage:
    """A service that has not answered for some seconds."""

    service: str
    since: float
    """Wall clock (`time.time`), because processes share no other."""
    reason: str = ""
    """The service's last error; empty if it is silent."""
    answered: bool = False
    """Whether the last error is an answer of the service, such as a request for a pause."""
    is_slow: bool = False
    """Whether the service requests a pause or works on a request. This is its pace and counts for
    rates."""

    def sentence(self, wait: float = 0.0) -> str:
        """Return which service is unavailable, since when, for how many seconds the caller waits at
        most (0 if unknown), and why."""
        since = f"since {time.strftime('%H:%M:%S', time.localtime(self.since))}"
        if wait:
            limit = f"{wait:.0f} s" if wait < 120 else f"{wait / 60:.0f} min"
            since += f", for at most {limit}"
        # As "waiting for Qdrant since 14:02:10: it asks for a pause"
        if self.answered:
            return f"waiting for {self.service} {since}: {self.reason}"
        # As "Qdrant does not answer, waiting since 14:02:10: connection refused"
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.service} does not answer, waiting {since}{reason}"


def longest_first(outages: Iterable[Outage]) -> list[Outage]:
    """Return the longest outage of each service, the longest first."""
    first: dict[str, Outage] = {}
    for outage in sorted(outages, key=lambda outage: outage.since):
        first.setdefault(outage.service, outage)
    return list(first.values())


class ServiceState:
    """A service that this process calls, by its name, and whether it answers. Thread-safe."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._calls = 0
        """Calls in progress."""
        self._left = -math.inf
        """When the last call ended."""
        self._patience = SILENCE_SECONDS
        self.record_answer()

    def call_started(self, patience: float) -> None:
        """Record the start of a call. It continues the outage of an earlier call that gave up less
        than `GIVEN_UP_SECONDS` ago."""
        if self._is_over():
            self.record_answer()
        self._patience = patience
        self._calls += 1

    def call_ended(self) -> None:
        """Record the end of a call."""
        self._calls -= 1
        self._left = self._clock()

    def record_answer(self) -> None:
        """Record an answer of the service. Its silence is measured from now on."""
        self._silent_since = self._clock()
        self._since = time.time()
        self._reason = ""
        self._answered = False
        self._is_slow = False
        self.first_error_at: float | None = None
        """When the service failed first, by the wall clock (`time.time`); None if it has answered
        since."""

    def record_error(
        self, reason: object, *, answered: bool = False, asks_pause: bool = False
    ) -> None:
        """Record the service's last error, whether it is an answer, and whether that answer
        requests a pause."""
        self._reason = redacted(str(reason))
        self._answered = answered
        self._is_slow = asks_pause
        self.first_error_at = self.first_error_at or time.time()

    @property
    def is_quiet(self) -> bool:
        """Whether the service was silent for half of its patience. The caller then checks whether
        it is at work."""
        is_silent = self._reason in ("", AT_WORK)
        return is_silent and self._clock() - self._silent_since >= self._patience / 2

    def at_work(self, answers: bool) -> None:
        """Record whether the silent service answers other requests, so that it is slow and not
        unavailable."""
        self._reason = AT_WORK if answers else ""
        self._answered = answers
        self._is_slow = answers

    def outage(self) -> Outage | None:
        """Return the outage of this service; None if it is available. It has one once it is silent
        for its patience, or for `SILENCE_SECONDS` after an error."""
        if self._is_over():
            return None
        patience = self._patience
        if self.first_error_at:
            patience = min(patience, SILENCE_SECONDS)
        # Between two calls of one outage, silence lasts until the end of the former.
        until = self._clock() if self._calls else self._left
        if until - self._silent_since < patience:
            return None
        return Outage(self._name, self._since, self._reason, self._answered, self._is_slow)

    def _is_over(self) -> bool:
        """Return whether no call is in progress, and none gave up within `GIVEN_UP_SECONDS`."""
        if self._calls:
            return False
        return self.first_error_at is None or self._clock() - self._left >= GIVEN_UP_SECONDS


class Services:
    """The services that the processes of a run call. Thread-safe.

    Each process has one. Its `outages` are all that progress, Prefect's page and the log show.
    Child processes and workers have their own, send their outages to the run's process at each
    change, and are included there.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._known: dict[str, ServiceState] = {}
        self._received: list[Callable[[], Iterable[Outage]]] = []
        """What returns the outages that other processes have sent."""

    @contextmanager
    def asking(self, name: str, *, patience: float = SILENCE_SECONDS) -> Iterator[ServiceState]:
        """Record, during the block, a call to a service that has to answer within `patience`
        seconds.

        If the block raises, the outage goes on, and the next block for this service continues it. A
        TransientError that leaves the block gets the time at which the service failed first
        (`since`).
        """
        with self._lock:
            service = self._known.setdefault(name, ServiceState(name, self._clock))
            service.call_started(patience)
        try:
            yield service
            service.record_answer()
        except TransientError as error:
            if service.first_error_at is None:
                service.record_error(error)
            error.since = service.first_error_at
            raise
        finally:
            with self._lock:
                service.call_ended()

    def outages(self) -> tuple[Outage, ...]:
        """Return the services that do not answer now, each once, the longest outage first."""
        found: list[Outage] = []
        for service in list(self._known.values()):
            outage = service.outage()
            if outage is not None:
                found.append(outage)
        for received in list(self._received):
            found.extend(received())
        return tuple(longest_first(found))

    def include(self, received: Callable[[], Iterable[Outage]]) -> None:
        """Include the outages of other processes, which `received` returns."""
        with self._lock:
            self._received.append(received)

    def exclude(self, received: Callable[[], Iterable[Outage]]) -> None:
        """Undo `include`."""
        with self._lock, suppress(ValueError):
            self._received.remove(received)


SERVICES = Services()
"""The only global: a watcher must see each call of the process, in any object and thread."""


def asking(name: str, *, patience: float = SILENCE_SECONDS) -> AbstractContextManager[ServiceState]:
    """Record a call of this process during the block, as `Services.asking` does."""
    return SERVICES.asking(name, patience=patience)


def outages() -> tuple[Outage, ...]:
    """Return the services that do not answer the calling process. This is a function, because it is
    pickled by its name. A method of `SERVICES` would carry a copy of the object into a child
    process and report that copy."""
    return SERVICES.outages()
