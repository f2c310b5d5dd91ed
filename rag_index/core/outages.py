"""Services that this process waits for. A caller says whom it asks; the progress of the run says who does not answer.

    with asking("Qdrant at http://127.0.0.1:6333") as call:
        …                       # one call, with all its retries; `call.failed(error)` after each that failed

Entering and leaving the block costs microseconds. A block that takes longer than its patience is an outage until it
ends; after an error, five seconds are enough. The flow's process and each worker look at their own calls once a second
(`reports.progress`, `orchestration.window`), so a caller that is blocked in a library is seen too.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.errors import TransientError
from rag_index.redaction import redacted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

SILENCE_SECONDS = 5.0
"""Seconds after which a call without an answer is an outage, unless the caller knows better."""
GIVEN_UP_SECONDS = 20.0
"""Seconds between two calls that belong to one outage: a caller that gave up tries again after a pause."""


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


AT_WORK = "it is still at work on a request"


class Call:
    """A call that is under way."""

    def __init__(self, service: str, patience: float, clock: Callable[[], float]) -> None:
        self._service = service
        self._clock = clock
        self._patience = patience
        self._silent_since, self._since = clock(), time.time()
        self._reason, self._answered = "", False
        self.failed_at: float | None = None
        """When the service failed first, by the machine's clock (`time.time`); None if it has answered since."""

    def resume(self, earlier: Call) -> None:
        """Continue the outage of an earlier call, which gave up."""
        self._silent_since, self._since = earlier._silent_since, earlier._since
        self._reason, self._answered, self.failed_at = earlier._reason, earlier._answered, earlier.failed_at

    def answered(self, patience: float | None = None) -> None:
        """Take note that the service has answered; the block may then be silent for `patience` seconds again."""
        if patience is not None:
            self._patience = patience
        self._silent_since, self._since = self._clock(), time.time()
        self._reason, self._answered, self.failed_at = "", False, None

    @property
    def quiet(self) -> bool:
        """Whether nothing was heard of the service for half of the patience: time to find out whether it is at work."""
        is_silent = self._reason in ("", AT_WORK)
        return is_silent and self._clock() - self._silent_since >= self._patience / 2

    def at_work(self, answers: bool) -> None:
        """Take note of whether the service answers others meanwhile, so that it is not away."""
        self._reason, self._answered = (AT_WORK, True) if answers else ("", False)

    def failed(self, reason: object, *, answered: bool = False) -> None:
        """Take note of the service's last error, and of whether it is an answer."""
        self._reason, self._answered = redacted(str(reason)), answered
        self.failed_at = self.failed_at or time.time()

    def outage(self, now: float | None = None) -> Outage | None:
        """Return the outage that this call has met, if it has waited for long enough by `now`."""
        patience = min(self._patience, SILENCE_SECONDS) if self.failed_at else self._patience
        if (self._clock() if now is None else now) - self._silent_since < patience:
            return None
        return Outage(self._service, self._since, self._reason, self._answered)


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

asking = _CALLS.asking
outages = _CALLS.outages
