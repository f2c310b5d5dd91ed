"""Estimates how long a host takes for a batch, from a fixed cost and a cost per character.

Both costs come from a least-squares fit in which older answers weigh less (Young 1984, recursive estimation with a
forgetting factor). With a cost per character alone, a host whose first request held a short text would seem slow.
"""

from __future__ import annotations

from dataclasses import dataclass

FORGETTING_FACTOR = 0.8
"""The weight of an answer relative to the next one."""
MAX_EXTRAPOLATION = 4.0
"""Batches more than this many times larger than any answered batch get no estimate."""
MIN_SPREAD = 0.1
"""Minimum spread of the batch sizes, relative to their mean, to tell the two costs apart."""


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
