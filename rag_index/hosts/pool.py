"""The hosts of an embedder: which of them is asked next, and which is left alone for how long.

Plain state, told of every outcome and given the time: it neither waits nor sends.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.hosts.pace import Pace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rag_index.hosts.endpoint import Endpoint

__all__ = ["Clock", "Host", "Pool"]

FAILURES = 3
"""In a row, until a host rests."""
FIRST_PAUSE = 0.1
"""Seconds after a first failure; doubled after the second."""
FIRST_REST = 1.0
LONGEST_REST = 30.0
RISE = 0.1
"""Requests at once that a success gives back to a host which asked for fewer."""


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that a test can bring its own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def spread(self, seconds: float) -> float:
        """These seconds, a fifth more or less: what failed together should not come back together."""
        return seconds * (0.8 + 0.4 * self.chance())


@dataclass(slots=True, eq=False)
class Host:
    """One host as one embedder sees it.

    It is *admitted* once its model was compared and a text embedded, and must be again after each failure. It is
    *down* after three failures in a row; then a single question goes to it whenever a rest is over.
    """

    endpoint: Endpoint
    most: int
    in_flight: int = 0
    busy_since: float = 0.0
    """Since when a request is under way, where one is."""
    alone: bool = False
    """A batch that failed before is under way: nothing else is sent, so that its outcome is its own."""
    asking: bool = False
    admitted_at: float | None = None
    checked_at: float = -math.inf
    failures: int = 0
    failed_at: float = -math.inf
    limits: int = 0
    limited_at: float = -math.inf
    slowed_at: float = -math.inf
    not_before: float = -math.inf
    error: Exception | None = None
    room: float = field(init=False)
    """Requests at once that it takes at present."""
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.room = float(self.most)

    @property
    def url(self) -> str:
        """Where it is."""
        return self.endpoint.url

    @property
    def down(self) -> bool:
        """Whether it failed so often in a row that it gets no more work for now."""
        return self.failures >= FAILURES

    def resting(self, now: float) -> bool:
        """Whether others must do its work: it is down, or asked for a pause that is not over."""
        return self.down or (self.limits > 0 and self.not_before > now)

    def free(self, now: float) -> int:
        """Requests that it would take now."""
        ready = self.admitted_at is not None and not self.asking and not self.alone and self.not_before <= now
        return max(1, int(self.room)) - self.in_flight if ready and not self.down else 0

    def admitted(self, now: float) -> None:
        """Its model was compared and a text embedded."""
        self.admitted_at = self.checked_at = now
        self.failures = 0
        self.error = None

    def doubted(self) -> None:
        """It has to prove itself before it gets more work."""
        self.admitted_at = None

    def succeeded(self, chars: int, seconds: float) -> None:
        """It answered a batch well."""
        self.failures = self.limits = 0
        self.error = None
        self.room = min(float(self.most), self.room + RISE)
        self.pace.learn(chars, seconds)

    def failed(self, error: Exception, started: float, clock: Clock) -> None:
        """A request that began at `started` failed. Requests under way together count as one failure."""
        self.doubted()
        if started <= self.failed_at:
            return
        self.failures += 1
        self.failed_at, self.error = clock.now(), error
        rests = self.failures - FAILURES
        pause = FIRST_PAUSE * 2 ** (self.failures - 1) if rests < 0 else FIRST_REST * 2 ** min(rests, 10)
        self.not_before = max(self.not_before, self.failed_at + clock.spread(min(pause, LONGEST_REST)))

    def slowed(self, started: float, now: float) -> None:
        """A request that began at `started` ran out of time, perhaps for waiting behind others: it gets half as many
        at once. Requests under way together count as one."""
        if started > self.slowed_at:
            self.room = max(1.0, self.room / 2)
            self.slowed_at = now

    def limited(self, error: Exception, asked: float | None, started: float, clock: Clock) -> None:
        """It asked for a pause of so many seconds, or of none in particular: it gets that, and half the requests."""
        if started > self.limited_at:
            self.room = max(1.0, self.room / 2)
            self.limits += 1
        self.limited_at, self.error = clock.now(), error
        pause = min(FIRST_REST * 2 ** min(self.limits - 1, 10), LONGEST_REST) if asked is None else asked
        self.not_before = max(self.not_before, self.limited_at + (clock.spread(pause) if asked is None else pause))


class Pool:
    """All hosts, and the share of them that this embedder uses while they are well.

    With H hosts and W workers, worker `home` has the hosts home, home + W, home + 2W, … (or home modulo H, where
    workers are as many or more), and each of these gets up to `in_flight` requests at once. So every host is used,
    none has more waiting than it needs, and within a share the faster host takes more. The others stand in while the
    whole share rests.
    """

    def __init__(self, endpoints: Sequence[Endpoint], *, home: int, workers: int, in_flight: int) -> None:
        count = len(endpoints)
        share = [home % count] if workers >= count else list(range(home % workers, count, workers))
        turn = home // workers % len(share)
        share = share[turn:] + share[:turn]
        others = [number % count for number in range(share[0], share[0] + count) if number % count not in share]
        hosts = [Host(endpoint, in_flight) for endpoint in endpoints]
        self.own = [hosts[number] for number in share]
        self.hosts = self.own + [hosts[number] for number in others]
        self._most = in_flight * len(share)
        self.dry_since: float | None = None
        """Since when no host takes texts; None while some host does."""

    def in_use(self, now: float) -> list[Host]:
        """The hosts that get work now: of the own share, or else of all, those that do not rest."""
        return [host for host in self.own if not host.resting(now)] or [
            host for host in self.hosts if not host.resting(now)
        ]

    def to_ask(self, now: float) -> list[Host]:
        """Hosts to be asked now whether they are well: those in use that are not admitted, and those down whose rest
        is over, of the own share or, where no host is left, of all."""
        used = self.in_use(now)
        wanted = {*used, *self.own} if used else {*self.hosts}
        return [
            host
            for host in self.hosts
            if host in wanted
            and host.admitted_at is None
            and not host.asking
            and host.in_flight == 0
            and host.not_before <= now
        ]

    def pick(self, now: float, *, chars: int, waiting: int, alone: bool = False) -> Host | None:
        """The host for a batch of so many characters, of `waiting` that wait in all; None while there is none.

        A slow host is passed over where the others would be through with all that waits, before it is through with
        this one batch. `alone`: only a host with nothing under way.
        """
        used = self.in_use(now)
        room = self._most - sum(host.in_flight for host in self.hosts)
        free = [host for host in used if host.free(now) > 0 and not (alone and host.in_flight)]
        if room <= 0:
            return None
        for host in sorted(free, key=lambda host: host.in_flight):
            if not _others_are_sooner(host, used, now, chars, waiting):
                return host
        return None

    def wake_at(self, now: float) -> float | None:
        """When next a pause or a rest ends; None where nothing but answers are waited for."""
        return min((host.not_before for host in self.hosts if host.not_before > now), default=None)

    def dry(self, now: float) -> bool:
        """Whether every host rests."""
        return all(host.resting(now) for host in self.hosts)


def _others_are_sooner(host: Host, used: Sequence[Host], now: float, chars: int, waiting: int) -> bool:
    """Whether it pays to leave a batch to the faster hosts, which are busy now."""
    others = [
        (seconds, max(1, int(other.room)))
        for other in used
        if other is not host and other.admitted_at is not None and other.not_before <= now
        if (seconds := other.pace.seconds(chars))
    ]
    alone = host.pace.seconds(chars)
    if not others or not alone:
        return False
    drained = waiting / max(1, chars) / sum(room / seconds for seconds, room in others)
    last = min(seconds for seconds, _ in others)
    return alone > 2 * (drained + last)
