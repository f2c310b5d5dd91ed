"""One server as a pool sees it: how much it gets, whether it works, and how long it rests.

A failure lets it rest for 0.25 s, and twice as long after each further one, up to 30 s, or as long as
the server asks for. A timeout halves the number of its requests for good.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index import errors
from rag_index.core.recovery import jittered

if TYPE_CHECKING:
    from rag_index.components.hosts.endpoint import Endpoint

FIRST_REST = 0.25
"""Seconds of rest after a failure; doubled after each further one."""
MAX_REST = 30.0
"""Seconds of rest at most. Chosen; nothing depends on it."""
MAX_DOUBLINGS = 10
"""After this many doublings the rest is the longest one."""
CAPACITY_STEP = 0.1
"""Number of concurrent requests that each success gives back to a host whose capacity was
halved. Chosen; nothing depends on it."""


@dataclass(slots=True, eq=False)
class Host:
    """The state of one server, as one pool sees it."""

    endpoint: Endpoint
    requests: int
    """Number of concurrent requests that it gets while it works."""
    in_flight: int = 0
    busy_since: float = 0.0
    is_alone: bool = False
    """Whether a suspect batch is in flight. Nothing else is sent then, so that a failure can have no
    other reason."""
    is_checked: bool = False
    """Whether its model is being compared, or it is embedding a plain text."""
    is_well: bool = False
    """Whether it has embedded a plain text since something failed there."""
    shown_well_at: float = -math.inf
    """The time at which it got the plain text that it has just embedded, or an item that was sent
    alone. Minus infinity once it gets anything else."""
    compared_at: float = -math.inf
    failures: int = 0
    """Its failures since it was well. With any, it gets only a check."""
    last_failure_at: float = -math.inf
    slowed_at: float = -math.inf
    rests_until: float = -math.inf
    error: Exception | None = None
    max_items: int = sys.maxsize
    """The number of items of a request at most, by its refusals and timeouts."""
    capacity: float = field(init=False)
    """Number of concurrent requests that it gets at present: fewer for a while after a rate
    limit."""

    def __post_init__(self) -> None:
        self.capacity = self.requests

    @property
    def url(self) -> str:
        return self.endpoint.url

    @property
    def has_room(self) -> bool:
        """Whether it can get one more request."""
        most = max(1, int(self.capacity))
        return self.in_flight < most

    def may_be_asked(self, now: float) -> bool:
        """Return whether it neither rests, nor is being checked, nor works on a suspect batch."""
        if self.is_checked or self.is_alone:
            return False
        return self.rests_until <= now

    def works(self, now: float) -> bool:
        """Return whether it has embedded a plain text and may get a request now, however many it
        has."""
        return self.is_well and self.may_be_asked(now)

    def record_success(self) -> None:
        """Raise the capacity of a host that a rate limit has halved."""
        raised = self.capacity + CAPACITY_STEP
        self.capacity = min(self.requests, raised)

    def record_well(self, started: float, now: float) -> None:
        """Record that it has embedded a plain text, which was sent at `started`."""
        self.is_well = True
        self.failures = 0
        self.error = None
        self.shown_well_at = started
        self.compared_at = now

    def record_failure(self, error: errors.RagIndexError, started: float, now: float) -> None:
        """Let it rest, because a request that was sent at `started` failed."""
        self.is_well, self.error = False, error
        pause: float | None = None
        if isinstance(error, errors.RateLimited):
            # 429 with Retry-After: 20.
            pause = error.retry_after
            if pause is not None:
                self.rests_until = max(self.rests_until, now + pause)
            self._slow_down(started, now)
        # Requests that were in flight together count once.
        if started < self.last_failure_at:
            return
        self.failures += 1
        self.last_failure_at = now
        if pause is None:
            doublings = min(self.failures - 1, MAX_DOUBLINGS)
            rest = min(FIRST_REST * 2.0**doublings, MAX_REST)
            self.rests_until = max(self.rests_until, now + jittered(rest))

    def record_timeout(self, started: float, now: float, items: int) -> None:
        """Halve the number of requests for good, because a request of `items` items, sent at
        `started`, timed out. A slow server would let others time out for ever."""
        gets_only_one = self.requests == 1
        if not self._slow_down(started, now):
            return
        self.requests = max(1, self.requests // 2)
        self.capacity = min(self.capacity, self.requests)
        # Fewer requests are impossible, so that one gets half the items.
        if gets_only_one:
            half = min(self.max_items, items) // 2
            self.max_items = max(1, half)

    def _slow_down(self, started: float, now: float) -> bool:
        """Halve the capacity, because a request sent at `started` was too much. Requests in flight
        together count once. Return whether this one counts."""
        if started <= self.slowed_at:
            return False
        self.capacity = max(1.0, self.capacity / 2)
        self.slowed_at = now
        return True
