"""The pool of hosts: it decides which host gets the next request, and which host rests for how long. The pool is plain
state. Callers report every outcome and pass in the time; the pool neither waits nor sends requests."""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.components.hosts.endpoint import MIN_SILENCE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from rag_index.components.hosts.endpoint import Endpoint
    from rag_index.errors import RateLimited

MAX_FAILURES = 3
FIRST_REST = 1.0
"""Seconds of rest when a host goes down; doubled after each further failure, halved for each earlier one."""
MAX_REST = 30.0
CAPACITY_STEP = 0.1
"""Number of concurrent requests that each success gives back to a host whose capacity was halved."""


@dataclass(frozen=True, slots=True)
class Clock:
    """The sources of time and randomness, which tests replace."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.random

    def jitter(self, seconds: float) -> float:
        """Return the seconds plus or minus a fifth at random, so that clients that failed together retry apart."""
        return seconds * (0.8 + 0.4 * self.chance())


@dataclass(slots=True, eq=False)
class Host:
    """The state of one host, as one embedder sees it. A host is *admitted* once its model has been compared and has
    embedded a plain text. Each failure revokes that. A host is *down* after three failures in a row; from then on it
    gets a single probe whenever its rest is over."""

    endpoint: Endpoint
    requests: int
    """Number of concurrent requests that it gets while it is well."""
    in_flight: int = 0
    busy_since: float = 0.0
    alone: bool = False
    """Whether a batch that failed before is in flight. Nothing else is sent then, so that the outcome is its own."""
    being_probed: bool = False
    admitted_at: float | None = None
    checked_at: float = -math.inf
    plain_failed_at: float = -math.inf
    """When it failed at a plain text last, which clears the texts that failed there before."""
    failures: int = 0
    failed_at: float = -math.inf
    rate_limits: int = 0
    slowed_at: float = -math.inf
    not_before: float = -math.inf
    error: Exception | None = None
    max_texts: int = sys.maxsize
    """The number of texts that the host takes in one request, as its refusals show."""
    capacity: float = field(init=False)
    """Number of concurrent requests that it gets at present: fewer for a while after a rate limit."""

    def __post_init__(self) -> None:
        self.capacity = self.requests

    @property
    def url(self) -> str:
        return self.endpoint.url

    @property
    def down(self) -> bool:
        """Whether the host failed so often in a row that it gets no work for now."""
        return self.failures >= MAX_FAILURES

    def resting(self, now: float) -> bool:
        """Return whether other hosts must do its work, because it is down or in a pause that it asked for."""
        return self.down or (self.rate_limits > 0 and self.not_before > now)

    def answers(self, now: float) -> bool:
        """Return whether the host can be asked something now, however much it has to do."""
        ready = self.admitted_at is not None and not self.being_probed and not self.alone and self.not_before <= now
        return ready and not self.down

    @property
    def slots(self) -> int:
        return max(1, int(self.capacity))

    def free_slots(self, now: float) -> int:
        return self.slots - self.in_flight if self.answers(now) else 0

    def admit(self, now: float) -> None:
        self.admitted_at = self.checked_at = now
        self.failures = 0
        self.error = None

    def revoke_admission(self) -> None:
        """Require a probe before the host gets more work."""
        self.admitted_at = None

    def record_success(self) -> None:
        self.failures = self.rate_limits = 0
        self.error = None
        self.capacity = min(self.requests, self.capacity + CAPACITY_STEP)

    def record_failure(self, error: Exception, started: float, clock: Clock, *, at_once: bool = False) -> None:
        """Record the failure of a request sent at `started`. Requests in flight together count as one failure. With
        `at_once` the host is down: it answers, but cannot be used, such as one with another model."""
        self.revoke_admission()
        if started <= self.failed_at:
            return
        self.failures = max(self.failures + 1, MAX_FAILURES if at_once else 0)
        self.failed_at, self.error = clock.now(), error
        rest = min(FIRST_REST * 2.0 ** min(self.failures - MAX_FAILURES, 10), MAX_REST)
        self.not_before = max(self.not_before, self.failed_at + clock.jitter(rest))

    def slow_down(self, started: float, now: float) -> bool:
        """Halve the capacity, because a request sent at `started` was too much. Requests in flight together count
        once. Return whether this one counts."""
        if started <= self.slowed_at:
            return False
        self.capacity = max(1.0, self.capacity / 2)
        self.slowed_at = now
        return True

    def record_timeout(self, started: float, now: float, texts: int = 1) -> None:
        """Halve the number of requests for good, because one of this many texts, sent at `started`, timed out: a slow
        host would let others time out for ever. A host that gets one request at a time gets half the texts."""
        alone = self.requests == 1
        if self.slow_down(started, now):
            self.requests = max(1, self.requests // 2)
            self.capacity = min(self.capacity, self.requests)
            self.max_texts = max(1, min(self.max_texts, texts) // 2) if alone else self.max_texts

    def record_rate_limit(self, error: RateLimited, started: float, clock: Clock) -> None:
        """Slow the host down and pause it, because it answered a request sent at `started` with a rate limit. If it did
        not say for how long, the pause doubles from time to time."""
        now, self.error, asked = clock.now(), error, error.retry_after
        self.rate_limits += self.slow_down(started, now)
        if asked is None:
            asked = clock.jitter(min(FIRST_REST * 2 ** min(self.rate_limits - 1, 10), MAX_REST))
        self.not_before = max(self.not_before, now + asked)


class Pool:
    """All hosts, and the share of them that this embedder uses as long as they are well.

    With H hosts and W workers, the share of worker `home` is home, home + W, home + 2W, …. With at least as many
    workers as hosts it is home modulo H. Each host gets `in_flight` requests at once from all its workers together, and
    at least one from each. So every host is used, no host has a longer queue than it needs, and the faster hosts of a
    share do more of the work. The hosts outside the share are used only while the whole share rests. There are at most
    `in_all` requests at once, if given.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        *,
        home: int,
        workers: int,
        in_flight: int,
        in_all: int | None = None,
    ) -> None:
        count = len(endpoints)
        first = home % count
        order = [*range(first, count), *range(first)]
        share = [number for number in order if number % workers == home % workers] if workers < count else [first]
        sharing = max(1, len(range(first, workers, count)))
        requests = max(1, in_flight // sharing + (home // count < in_flight % sharing))
        hosts = [Host(endpoint, requests) for endpoint in endpoints]
        self.own = [hosts[number] for number in share]
        self.hosts = self.own + [hosts[number] for number in order if number not in share]
        self._max_in_flight = in_all or requests * len(self.own)
        self.wakers: list[Callable[[], None]] = []
        """What to call when a host may have room again, by the calls that share this pool, the earliest first."""
        self.all_resting_since: float | None = None
        """The time since which no host has answered well, and all rested; None while some host does."""
        self.failing_since: float | None = None
        """When the request was sent that failed first, with no other host at work; None if one has answered since."""
        self._slowest = 0.0

    @property
    def name(self) -> str:
        where = f"at {self.hosts[0].url}" if len(self.hosts) == 1 else f"(all {len(self.hosts)} hosts)"
        return f"{self.hosts[0].endpoint.service} {where}"

    def wake(self) -> None:
        for wake in self.wakers:
            wake()

    @property
    def usual_silence(self) -> float:
        """The seconds for which none of the hosts may answer while all is well."""
        return max(MIN_SILENCE, 4 * self._slowest)

    def learn_silence(self, seconds: float) -> None:
        self._slowest = max(seconds, 0.9 * self._slowest)

    def ask_again(self, now: float) -> None:
        """Let hosts that all rest be tried out now, but for the pauses that they asked for: a call begins."""
        for host in self.hosts if self.all_resting_since is not None else ():
            if not host.rate_limits:
                host.not_before = min(host.not_before, now)

    def in_use(self, now: float) -> list[Host]:
        """Return the hosts that get work now: those of the share that do not rest, or else all that do not rest."""
        return [host for host in self.own if not host.resting(now)] or [
            host for host in self.hosts if not host.resting(now)
        ]

    def to_probe(self, now: float) -> list[Host]:
        """Return the hosts to probe now: hosts in use that are not admitted, and hosts whose rest is over. Of the
        resting hosts, only those of the share are probed, unless no host is left."""
        used = self.in_use(now)
        wanted = {*used, *self.own} if used else {*self.hosts}
        return [
            host
            for host in self.hosts
            if host in wanted
            and host.admitted_at is None
            and not host.being_probed
            and host.in_flight == 0
            and host.not_before <= now
        ]

    def pick(self, now: float, *, alone: bool = False, avoid: Host | None = None) -> Host | None:
        """Return the host that has least to do, or None if no host can get a request now. With `alone`, only a host
        without requests in flight is chosen. `avoid` is chosen only if no other is in use."""
        if sum(host.in_flight for host in self.hosts) >= self._max_in_flight:
            return None
        used = self.in_use(now)
        used = [host for host in used if host is not avoid] or used
        free = [host for host in used if host.free_slots(now) > 0 and not (alone and host.in_flight)]
        return min(free, key=lambda host: host.in_flight, default=None)


@dataclass(slots=True)
class RequestStats:
    """The counts since an embedder was opened. For one call, take the difference of two copies."""

    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    """Requests that a server answered by asking for a pause."""
    busy_seconds: float = 0.0
    """Seconds in which at least one request was running."""
    asked_seconds: float = 0.0
    """The sum over hosts of the seconds in which one had a request."""
    waited_seconds: float = 0.0
    """Seconds that calls waited for those of other threads."""
