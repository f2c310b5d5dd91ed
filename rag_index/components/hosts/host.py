"""One server as a pool sees it: how much it gets, whether it is well, and how long it rests."""

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
CAPACITY_STEP = 0.1
"""Number of concurrent requests that each success gives back to a host whose capacity was
halved."""


@dataclass(slots=True, eq=False)
class Host:
    """The state of one server, as one pool sees it."""

    endpoint: Endpoint
    requests: int
    """Number of concurrent requests that it gets while it is well."""
    in_flight: int = 0
    busy_since: float = 0.0
    is_alone: bool = False
    """Whether a suspect batch is in flight. Nothing else is sent then, so that the outcome is its
    own."""
    is_checked: bool = False
    """Whether its model is being compared, or it is embedding a plain text."""
    is_well: bool = False
    """Whether it has embedded a plain text since something failed there."""
    shown_well_at: float = -math.inf
    """When it got the plain text that it has just embedded, or an item that was alone and is as
    good; minus infinity once it gets anything else."""
    compared_at: float = -math.inf
    failures: int = 0
    """Its failures since it was well. With any, it gets nothing but a check."""
    failed_at: float = -math.inf
    slowed_at: float = -math.inf
    rests_until: float = -math.inf
    error: Exception | None = None
    max_items: int = sys.maxsize
    """The number of items that it takes in one request, as its refusals and timeouts show."""
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
        return self.in_flight < max(1, int(self.capacity))

    def may_be_asked(self, now: float) -> bool:
        """Return whether it neither rests, nor is being checked, nor works on a suspect batch."""
        return not self.is_checked and not self.is_alone and self.rests_until <= now

    def works(self, now: float) -> bool:
        """Return whether it has embedded a plain text and can be asked something now, however much
        it has to do."""
        return self.is_well and self.may_be_asked(now)

    def record_success(self) -> None:
        self.capacity = min(self.requests, self.capacity + CAPACITY_STEP)

    def record_well(self, started: float, now: float) -> None:
        """Record a plain text that it was asked for at `started` and has embedded."""
        self.is_well, self.failures, self.error = True, 0, None
        self.shown_well_at, self.compared_at = started, now

    def record_failure(self, error: errors.RagIndexError, started: float, now: float) -> None:
        """Let it rest, because a request that was sent at `started` failed. Requests in flight
        together count once."""
        self.is_well, self.error = False, error
        asked = error.retry_after if isinstance(error, errors.RateLimited) else None
        if asked is not None:
            self.rests_until = max(self.rests_until, now + asked)
        if isinstance(error, errors.RateLimited):
            self._slow_down(started, now)
        if started < self.failed_at:
            return
        self.failures += 1
        self.failed_at = now
        if asked is None:
            rest = min(FIRST_REST * 2.0 ** min(self.failures - 1, 10), MAX_REST)
            self.rests_until = max(self.rests_until, now + jittered(rest))

    def record_timeout(self, started: float, now: float, items: int) -> None:
        """Halve the number of requests for good, because one of so many items, sent at `started`,
        timed out: a slow server would let others time out for ever. A server that gets one request
        at a time gets half the items."""
        only_one = self.requests == 1
        if not self._slow_down(started, now):
            return
        self.requests = max(1, self.requests // 2)
        self.capacity = min(self.capacity, self.requests)
        if only_one:
            self.max_items = max(1, min(self.max_items, items) // 2)

    def _slow_down(self, started: float, now: float) -> bool:
        """Halve the capacity, because a request sent at `started` was too much. Requests in flight
        together count once. Return whether this one counts."""
        if started <= self.slowed_at:
            return False
        self.capacity = max(1.0, self.capacity / 2)
        self.slowed_at = now
        return True
