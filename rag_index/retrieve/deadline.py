"""The time that a search has, and waiting within it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import SearchTimedOut

if TYPE_CHECKING:
    from collections.abc import Awaitable

T = TypeVar("T")


class Countdown:
    """The indexes that have not answered yet."""

    def __init__(self, number: int) -> None:
        self._left, self._none_left = number, asyncio.Event()

    def count(self) -> None:
        """Count an answer."""
        self._left -= 1
        if not self._left:
            self._none_left.set()

    async def done_within(self, seconds: float) -> bool:
        """Wait for the others; return False if they take longer."""
        try:
            async with asyncio.timeout(seconds):
                await self._none_left.wait()
        except TimeoutError:
            return False
        return True


class Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set it."""

    def __init__(self, seconds: float, *, extra: float = 0.0) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds + extra

    @classmethod
    def until(cls, at: float, seconds: float) -> Deadline:
        """Return the deadline at a moment that a time limit set before."""
        deadline = cls(seconds)
        deadline.at = at
        return deadline

    def capped(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and one in `seconds` from now."""
        own = Deadline(seconds)
        return own if own.at < self.at else self

    def later(self, seconds: float) -> Deadline:
        """Return the deadline moved by so many seconds, which do not count."""
        moved = Deadline(self.seconds)
        moved.at = self.at + seconds
        return moved

    async def wait_for(self, work: Awaitable[T], during: str = "") -> T:
        """Return the result of the work. Raises SearchTimedOut if the deadline passes first."""
        try:
            async with asyncio.timeout(self.at - time.monotonic()):
                return await work
        except TimeoutError:
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}") from None
