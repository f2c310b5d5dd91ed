"""How the calls of a Retriever share time and the store, and wait for threads."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import SearchTimedOut, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from concurrent.futures import Future

    from rag_index.stores import StoreReader

T = TypeVar("T")
CLOSED = "the retriever is closed"


async def result_of(future: Future[T]) -> T:
    """Wait for a thread's future in whichever event loop this runs. Cancelling the wait cancels a future not begun."""
    try:
        return await asyncio.wrap_future(future)
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if future.cancelled() and task is not None and not task.cancelling():  # the threads were closed
            raise StoreError(CLOSED) from None
        raise


@dataclass(slots=True)
class Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set it."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline in so many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.at - time.monotonic()

    async def wait_for(self, work: Awaitable[T], during: str = "") -> T:
        """Return the result of the work. Raises SearchTimedOut if the deadline passes first."""
        try:
            async with asyncio.timeout(self.left):
                return await work
        except TimeoutError:
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}") from None


class StoreHolder:
    """One store, lent to several threads. One that nobody borrows for `idle` seconds is closed (None: never)."""

    def __init__(self, opener: Callable[[], StoreReader], *, idle: float | None = None) -> None:
        self._opener, self._idle = opener, idle
        self._changed = threading.Condition()
        self._store: StoreReader | None = None
        self._borrowers = 0
        self._used_at = 0.0
        self._closed = False

    @contextmanager
    def borrow(self) -> Iterator[StoreReader]:
        """Lend the store for the time of the block. Raises whatever opening a store raises."""
        with self._changed:
            if self._closed:
                raise StoreError(CLOSED)
            if self._store is None:
                self._store = self._opener()
                if self._idle is not None:
                    idling = threading.Thread(target=self._close_when_idle, args=(self._idle,), daemon=True)
                    idling.start()
            store = self._store
            self._borrowers += 1
        try:
            yield store
        finally:
            with self._changed:
                self._borrowers -= 1
                self._used_at = time.monotonic()

    def close(self) -> None:
        """Close the store for good; calls already running finish. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._close_store()

    def _close_when_idle(self, idle: float) -> None:
        """Close the store once nobody has borrowed it for long enough. One thread does so while it is open."""
        with self._changed:
            while self._store is not None:
                left = idle if self._borrowers else self._used_at + idle - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                else:
                    self._close_store()

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
