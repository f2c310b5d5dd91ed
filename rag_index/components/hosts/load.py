"""How much a host is given at a time: twice as much, as long as it answers more by it.

The first lever is the number of requests under way, the second the size of a request. Whether more of one pays is
measured while the host works: the characters that it answers in a second, before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field

GAIN = 1.15
"""How much faster a host must be with twice as much, for that to pay."""
MIN_ANSWERS = 6
"""Answers after which a rate counts, or twice as many as there are requests under way."""
FULL = 0.75
"""The share of the allowed requests that must have been under way, on average, for a rate to count."""
MAX_SECONDS = 2.0
"""A host that takes longer for a request computes all the time: it gets no more, or requests would time out."""
SHORT_SECONDS = 1.0
"""A host that answers in less keeps the last requests that did not pay: it has work while this process is busy."""
FIRST_REQUESTS, MAX_REQUESTS = 2, 32


@dataclass(slots=True)
class Lever:
    """One thing that a host may get more of: `now` of it, at most `most`."""

    now: float
    most: float


@dataclass(slots=True)
class Load:
    """What one host gets at a time, and what that taught."""

    requests: Lever
    size: Lever
    """How many times as large as usual a request is."""
    _untried: list[Lever] = field(default_factory=list)
    _before: tuple[float, float] | None = None
    """The rate and the value of the lever before it was changed."""
    _changed: float = 0.0
    _since: float | None = None
    _answers: int = 0
    _chars: int = 0
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self._untried = [lever for lever in (self.requests, self.size) if lever.now < lever.most]

    @classmethod
    def of(cls, requests: int | None, *, growth: int = 1, sharing: int = 1) -> Load:
        """Return the load to begin with, for a host that `sharing` processes use.

        `requests` fixes their number. A request may become `growth` times as large as usual.
        """
        most = requests or max(FIRST_REQUESTS, MAX_REQUESTS // sharing)
        return cls(Lever(requests or FIRST_REQUESTS, most), Lever(1.0, growth))

    def end(self) -> None:
        """Try no more: the host has enough."""
        self._untried.clear()

    def answered(self, chars: int, started: float, now: float) -> None:
        """Take note of an answer for this number of characters, to a request that was sent at `started`."""
        if not self._untried or started < self._changed:
            return
        if self._since is None:
            self._since, self._answers, self._chars, self._seconds = now, 0, 0, 0.0
            return
        self._answers += 1
        self._chars += chars
        self._seconds += now - started
        if self._answers < max(MIN_ANSWERS, 2 * self.requests.now):
            return
        elapsed, since = now - self._since, self._since
        self._since = None
        if now > since and self._seconds >= FULL * self.requests.now * elapsed:
            self._judge(self._chars / elapsed, self._seconds / self._answers, now)

    def _judge(self, rate: float, seconds: float, now: float) -> None:
        """Decide by the rate at the present load what the next one is."""
        lever, self._changed = self._untried[0], now
        if self._before is not None:
            (before, value), self._before = self._before, None
            pays = rate >= GAIN * before
            if not pays or lever.now >= lever.most:
                lever.now = lever.now if pays or (lever is self.requests and seconds < SHORT_SECONDS) else value
                del self._untried[0]
                return
        if seconds > MAX_SECONDS:
            self.end()
        else:
            self._before, lever.now = (rate, lever.now), min(2 * lever.now, lever.most)
