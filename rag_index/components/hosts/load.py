"""How much a host is given at a time: twice as much, as long as it answers more by it.

The first lever is the number of requests under way, the second the size of a request. Whether more of one pays is
measured while the host works: the characters that it answers in a second, before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rag_index.core.documents.batches import HOST, REQUESTS, SIZE

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

    name: str
    now: float
    most: float
    least: float


@dataclass(slots=True)
class Load:
    """What one host gets at a time, and what that taught.

    A lever that stands at its most because the settings say so is tried at half for a moment instead, which tells
    whether more than the settings allow would pay (`held_back`).
    """

    requests: Lever
    size: Lever
    """How many times as large as usual a request is."""
    held_back: str = ""
    """The lever that a host should get more of than it may; HOST if more at a time is not answered faster."""
    _untried: list[Lever] = field(default_factory=list)
    _before: tuple[float, float] | None = None
    """The rate and the value of the lever before it was changed."""
    _changed: float = 0.0
    _since: float | None = None
    _answers: int = 0
    _chars: int = 0
    _seconds: float = 0.0

    def __post_init__(self) -> None:
        self._untried = [self.requests, self.size]

    @classmethod
    def of(cls, requests: int | None, *, growth: int = 1, texts: int = 64, sharing: int = 1) -> Load:
        """Return the load to begin with, for a host that `sharing` processes use.

        `requests` fixes their number. Requests usually have `texts` texts, and may become `growth` times as large.
        """
        most = requests or max(FIRST_REQUESTS, MAX_REQUESTS // sharing)
        return cls(Lever(REQUESTS, requests or FIRST_REQUESTS, most, 1.0), Lever(SIZE, 1.0, growth, 1.0 / texts))

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
        if self._before is None:
            if lever.now < lever.most and seconds > MAX_SECONDS:
                self.held_back = HOST
                self.end()
            elif lever.now < lever.most:
                self._change(lever, rate, 2 * lever.now)
            elif lever.now / 2 < lever.least:
                self._next(lever.name)
            else:
                self._change(lever, rate, lever.now / 2)
            return
        (before, value), self._before = self._before, None
        more = lever.now > value
        pays = rate >= GAIN * before if more else before >= GAIN * rate
        if more and pays and lever.now < lever.most:
            self._judge(rate, seconds, now)
        elif more:
            lever.now = lever.now if pays or (lever is self.requests and seconds < SHORT_SECONDS) else value
            self._next(HOST)
        else:
            lever.now = value
            self._next(lever.name if pays else HOST)

    def _change(self, lever: Lever, rate: float, value: float) -> None:
        self._before, lever.now = (rate, lever.now), min(value, lever.most)

    def _next(self, held_back: str) -> None:
        del self._untried[0]
        self.held_back = held_back if self.held_back in ("", HOST) else self.held_back
