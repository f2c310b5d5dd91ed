"""How long a host takes for a batch: a fixed cost and a cost a character, learnt from what it answered.

By least squares in which each answer weighs less than the next one (Young 1984, recursive estimation with a forgetting
factor). A cost a character alone would take a host for slow that was first asked with a short text.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Pace"]

MEMORY = 0.8
"""What an answer weighs beside the next one."""
REACH = 4.0
"""Nothing is said of batches that are so many times larger than any that was answered."""
ALIKE = 0.1
"""Sizes whose spread is this small a part of their mean do not tell the two costs apart."""


@dataclass(slots=True)
class Pace:
    """Of one host."""

    _weight: float = 0.0
    _chars: float = 0.0
    _seconds: float = 0.0
    _squares: float = 0.0
    _products: float = 0.0
    _largest: int = 0

    def learn(self, chars: int, seconds: float) -> None:
        """It answered a batch of so many characters after so many seconds."""
        self._weight = MEMORY * self._weight + 1
        self._chars = MEMORY * self._chars + chars
        self._seconds = MEMORY * self._seconds + seconds
        self._squares = MEMORY * self._squares + chars * chars
        self._products = MEMORY * self._products + chars * seconds
        self._largest = max(self._largest, chars)

    def seconds(self, chars: int) -> float | None:
        """What a batch of so many characters will take, above 0; None where nobody knows."""
        if not self._weight or chars > REACH * self._largest:
            return None
        mean, took = self._chars / self._weight, self._seconds / self._weight
        spread = self._squares / self._weight - mean * mean
        each = most = took / max(mean, 1.0)
        if spread > (ALIKE * mean) ** 2:
            each = min(max((self._products / self._weight - mean * took) / spread, 0.0), most)
        return max(took - each * mean, 0.0) + each * chars or None
