"""How many requests a caller may make: a bucket of tokens each, which fills at a steady rate."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cachetools import LRUCache

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_CALLERS = 10_000
"""Callers that are remembered at most; the one that has been silent for longest is forgotten first."""
BURST_SECONDS = 2.0
"""A caller that was silent may at once make as many requests as in this time."""


class RateLimit:
    """A limit of `rate` requests a second for each caller, on average; 0 is no limit."""

    def __init__(self, rate: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._clock = rate, clock
        self._burst = max(1.0, rate * BURST_SECONDS)
        self._buckets: LRUCache[str, tuple[float, float]] = LRUCache(MAX_CALLERS)

    def wait(self, caller: str) -> float:
        """Count a request. Return 0, or the seconds after which the caller may come back; then it is not counted."""
        if not self._rate:
            return 0.0
        now = self._clock()
        left, at = self._buckets.get(caller, (self._burst, now))
        left = min(self._burst, left + (now - at) * self._rate)
        if left < 1:
            self._buckets[caller] = (left, now)
            return (1 - left) / self._rate
        self._buckets[caller] = (left - 1, now)
        return 0.0
