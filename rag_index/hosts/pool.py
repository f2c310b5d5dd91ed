"""The pool of hosts: it decides which host gets the next request, and which host rests for how long.

The pool is plain state. Callers report every outcome and pass in the time; the pool neither waits nor sends requests.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from rag_index.hosts.endpoint import Endpoint

FORGETTING_FACTOR = 0.8
"""The weight of an answer relative to the next one."""

MAX_EXTRAPOLATION = 4.0
"""Batches more than this many times larger than any answered batch get no estimate."""

MIN_SPREAD = 0.1
"""Minimum spread of the batch sizes, relative to their mean, to tell the two costs apart."""
MAX_FAILURES = 3
"""Failures in a row after which a host is down."""
FIRST_PAUSE = 0.1
"""Seconds of pause after the first failure; doubled after the second."""
FIRST_REST = 1.0
"""Seconds of rest when a host goes down; doubled after each further failure."""
MAX_REST = 30.0
MIN_SILENCE = 10.0
"""Seconds without an answer of any host that are nothing unusual."""
CAPACITY_STEP = 0.1
"""Number of concurrent requests that each success gives back to a host whose capacity was halved."""


@dataclass(slots=True)
class Pace:
    """The pace of one host."""

    _weight: float = 0.0
    _chars: float = 0.0
    _seconds: float = 0.0
    _squares: float = 0.0
    _products: float = 0.0
    _largest: int = 0

    def learn(self, chars: int, seconds: float) -> None:
        """Record that the host answered a batch of `chars` characters after `seconds` seconds."""
        self._weight = FORGETTING_FACTOR * self._weight + 1
        self._chars = FORGETTING_FACTOR * self._chars + chars
        self._seconds = FORGETTING_FACTOR * self._seconds + seconds
        self._squares = FORGETTING_FACTOR * self._squares + chars * chars
        self._products = FORGETTING_FACTOR * self._products + chars * seconds
        self._largest = max(self._largest, chars)

    def seconds(self, chars: int) -> float | None:
        """Return the estimated seconds (above 0) for a batch of `chars` characters; None without an estimate."""
        if not self._weight or chars > MAX_EXTRAPOLATION * self._largest:
            return None
        mean_chars, mean_seconds = self._chars / self._weight, self._seconds / self._weight
        variance = self._squares / self._weight - mean_chars * mean_chars
        per_char = max_per_char = mean_seconds / max(mean_chars, 1.0)
        if variance > (MIN_SPREAD * mean_chars) ** 2:
            slope = (self._products / self._weight - mean_chars * mean_seconds) / variance
            per_char = min(max(slope, 0.0), max_per_char)
        return max(mean_seconds - per_char * mean_chars, 0.0) + per_char * chars or None


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
    """The state of one host, as one embedder sees it.

    A host is *admitted* once its model has been compared and has embedded a plain text. Each failure revokes that. A
    host is *down* after three failures in a row; from then on it gets a single probe whenever its rest is over.
    """

    endpoint: Endpoint
    max_in_flight: int
    in_flight: int = 0
    busy_since: float = 0.0
    """The time since which requests are in flight, if any are."""
    alone: bool = False
    """Whether a batch that failed before is in flight. Nothing else is sent then, so that the outcome is its own."""
    being_probed: bool = False
    admitted_at: float | None = None
    checked_at: float = -math.inf
    failures: int = 0
    failed_at: float = -math.inf
    plain_failures: int = 0
    """Number of probes in which the host failed to embed a plain text."""
    rate_limits: int = 0
    limited_at: float = -math.inf
    slowed_at: float = -math.inf
    not_before: float = -math.inf
    error: Exception | None = None
    max_texts: int = sys.maxsize
    """The number of texts that the host takes in one request, as its refusals show."""
    capacity: float = field(init=False)
    """Number of concurrent requests that the host gets at present; at least 1 when rounded down."""
    pace: Pace = field(default_factory=Pace)

    def __post_init__(self) -> None:
        self.capacity = float(self.max_in_flight)

    @property
    def url(self) -> str:
        """The address of the host."""
        return self.endpoint.url

    @property
    def down(self) -> bool:
        """Whether the host failed so often in a row that it gets no work for now."""
        return self.failures >= MAX_FAILURES

    def resting(self, now: float) -> bool:
        """Return whether other hosts must do its work, because it is down or in a pause that it asked for."""
        return self.down or (self.rate_limits > 0 and self.not_before > now)

    def free_slots(self, now: float) -> int:
        """Return how many more requests the host can get now."""
        ready = self.admitted_at is not None and not self.being_probed and not self.alone and self.not_before <= now
        return max(1, int(self.capacity)) - self.in_flight if ready and not self.down else 0

    def admit(self, now: float) -> None:
        """Record that the model has been compared and has embedded a plain text."""
        self.admitted_at = self.checked_at = now
        self.failures = 0
        self.error = None

    def revoke_admission(self) -> None:
        """Require a probe before the host gets more work."""
        self.admitted_at = None

    def record_success(self, chars: int, seconds: float) -> None:
        """Record that the host answered a batch well."""
        self.failures = self.rate_limits = 0
        self.error = None
        self.capacity = min(float(self.max_in_flight), self.capacity + CAPACITY_STEP)
        self.pace.learn(chars, seconds)

    def record_failure(self, error: Exception, started: float, clock: Clock) -> None:
        """Record the failure of a request sent at `started`. Requests in flight together count as one failure."""
        self.revoke_admission()
        if started <= self.failed_at:
            return
        self.failures += 1
        self.failed_at, self.error = clock.now(), error
        rests = self.failures - MAX_FAILURES
        pause = FIRST_PAUSE * 2 ** (self.failures - 1) if rests < 0 else FIRST_REST * 2 ** min(rests, 10)
        self.not_before = max(self.not_before, self.failed_at + clock.jitter(min(pause, MAX_REST)))

    def put_aside(self, error: Exception, clock: Clock) -> None:
        """Take the host down at once, because it answers but cannot be used: it may have another model."""
        self.revoke_admission()
        self.failures = max(self.failures + 1, MAX_FAILURES)
        self.failed_at, self.error = clock.now(), error
        rest = min(FIRST_REST * 2 ** min(self.failures - MAX_FAILURES, 10), MAX_REST)
        self.not_before = max(self.not_before, self.failed_at + clock.jitter(rest))

    def record_timeout(self, started: float, now: float) -> None:
        """Halve the capacity, because a request sent at `started` timed out, perhaps while waiting behind others.

        Requests in flight together count once.
        """
        if started > self.slowed_at:
            self.capacity = max(1.0, self.capacity / 2)
            self.slowed_at = now

    def record_rate_limit(self, error: Exception, asked: float | None, started: float, clock: Clock) -> None:
        """Halve the capacity and pause the host, because it answered a request sent at `started` with a rate limit.

        `asked` is the pause that it asked for, in seconds. If that is None, the pause doubles from time to time.
        """
        if started > self.limited_at:
            self.capacity = max(1.0, self.capacity / 2)
            self.rate_limits += 1
        self.limited_at, self.error = clock.now(), error
        pause = min(FIRST_REST * 2 ** min(self.rate_limits - 1, 10), MAX_REST) if asked is None else asked
        self.not_before = max(self.not_before, self.limited_at + (clock.jitter(pause) if asked is None else pause))


class Pool:
    """All hosts, and the share of them that this embedder uses as long as they are well.

    With H hosts and W workers, the share of worker `home` is home, home + W, home + 2W, …. With at least as many
    workers as hosts it is home modulo H. Each host of the share gets up to `in_flight` requests at once. So every host
    is used, no host has a longer queue than it needs, and the faster hosts of a share do more of the work. The hosts
    outside the share are used only while the whole share rests.
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
        self._max_in_flight = in_flight * len(share)
        self.all_resting_since: float | None = None
        """The time since which no host accepts texts; None while some host does."""
        self._slowest = 0.0

    @property
    def name(self) -> str:
        """What to call the hosts in a message."""
        where = f"at {self.hosts[0].url}" if len(self.hosts) == 1 else f"(all {len(self.hosts)} hosts)"
        return f"{self.hosts[0].endpoint.service} {where}"

    @property
    def usual_silence(self) -> float:
        """The seconds for which none of the hosts may answer while all is well."""
        return max(MIN_SILENCE, 4 * self._slowest)

    def learn_silence(self, seconds: float) -> None:
        """Take note that an answer took this long."""
        self._slowest = max(seconds, 0.9 * self._slowest)

    def in_use(self, now: float) -> list[Host]:
        """Return the hosts that get work now: those of the share that do not rest, or else all that do not rest."""
        return [host for host in self.own if not host.resting(now)] or [
            host for host in self.hosts if not host.resting(now)
        ]

    def to_probe(self, now: float) -> list[Host]:
        """Return the hosts to probe now: hosts in use that are not admitted, and hosts whose rest is over.

        Of the resting hosts, only those of the share are probed, unless no host is left.
        """
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

    def pick(
        self,
        now: float,
        *,
        chars: int,
        waiting: int,
        alone: bool = False,
        avoid: Host | None = None,
        silent: Collection[Host] = (),
    ) -> Host | None:
        """Return the host for a batch of `chars` characters, or None if no host should get it now.

        `waiting` is the number of characters of all batches that wait, this one included. A slow host is passed over if
        the others would finish them all before it finishes this batch. With `alone`, only a host without requests in
        flight is chosen. `avoid` is chosen only if no other host is in use. No host is passed over for that one, which
        does not get the batch, or for one of the `silent` ones, which may not answer for long.
        """
        used = self.in_use(now)
        free_slots = self._max_in_flight - sum(host.in_flight for host in self.hosts)
        others = [host for host in used if host is not avoid] or used
        free = [host for host in others if host.free_slots(now) > 0 and not (alone and host.in_flight)]
        if free_slots <= 0:
            return None
        for host in sorted(free, key=lambda host: host.in_flight):
            if not _others_are_sooner(host, [one for one in others if one not in silent], now, chars, waiting):
                return host
        return None

    def wake_at(self, now: float) -> float | None:
        """Return when the next pause or rest ends; None if no host is in one."""
        return min((host.not_before for host in self.hosts if host.not_before > now), default=None)

    def all_resting(self, now: float) -> bool:
        """Return whether every host rests."""
        return all(host.resting(now) for host in self.hosts)


def _others_are_sooner(host: Host, used: Sequence[Host], now: float, chars: int, waiting: int) -> bool:
    """Return whether the faster hosts, which are busy now, would finish the batch sooner."""
    others = [
        (seconds, max(1, int(other.capacity)))
        for other in used
        if other is not host and other.admitted_at is not None and other.not_before <= now
        if (seconds := other.pace.seconds(chars))
    ]
    alone = host.pace.seconds(chars)
    if not others or not alone:
        return False
    queue_seconds = waiting / max(1, chars) / sum(capacity / seconds for seconds, capacity in others)
    fastest = min(seconds for seconds, _ in others)
    return alone > 2 * (queue_seconds + fastest)


@dataclass(slots=True)
class RequestStats:
    """The counts since an embedder was opened. For one call, take the difference of two copies."""

    requests: int = 0
    retries: int = 0
    """Requests that repeated an earlier one."""
    splits: int = 0
    """Requests for a part of a batch that was refused as a whole."""
    rate_limited: int = 0
    """Requests that a server answered by asking for a pause."""
    busy_seconds: float = 0.0
    """Seconds in which at least one request was running."""
    in_flight: int = 0
    """Requests running now."""
    host_seconds: dict[str, float] = field(default_factory=dict)
    """Seconds in which a request was running, by host; empty for an embedder without hosts."""
