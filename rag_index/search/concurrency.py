"""How the calls of a Retriever share time, threads and the store: callers take turns, whoever waits takes no place."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.errors import SearchBusy, SearchTimedOut, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from rag_index.components.stores.protocol import StoreReader

T = TypeVar("T")
CLOSED = "the retriever is closed"
QUIET_SECONDS, LOOK_SECONDS = 10.0, 0.1
"""How long a store must be idle before a writer gets it, and how often it is looked for one then."""
AT_ONCE = 16
"""Texts that are compared between two looks at the clock."""
SHARES = 4
"""One caller may have at most one place in this many."""


class Places:
    """How many calls of a service are under way, in all and for each caller. Those that only wait count apart."""

    def __init__(self, most: int) -> None:
        self._most, self._share = most, max(1, most // SHARES)
        self._working, self._waiting = Counter[str](), Counter[str]()

    @contextmanager
    def take(self, caller: str) -> Iterator[None]:
        """Hold a place for the time of the block, whose threads count as this caller's. Raises SearchBusy."""
        with self._hold(self._working, caller):
            before = PLACE.set((self, caller))
            try:
                yield
            finally:
                PLACE.reset(before)

    @contextmanager
    def wait(self, caller: str) -> Iterator[None]:
        """Give the caller's place to others for the time of the block. Raises SearchBusy if too many wait."""
        self._leave(self._working, caller)
        try:
            with self._hold(self._waiting, caller):
                yield
        finally:
            self._working[caller] += 1

    @contextmanager
    def _hold(self, places: Counter[str], caller: str) -> Iterator[None]:
        if places.total() >= self._most:
            raise SearchBusy("the service is busy; come back later")
        if places[caller] >= self._share:
            raise SearchBusy(f"the service is busy with {self._share} requests of this caller; come back later")
        places[caller] += 1
        try:
            yield
        finally:
            self._leave(places, caller)

    def _leave(self, places: Counter[str], caller: str) -> None:
        places[caller] -= 1
        if not places[caller]:
            del places[caller]


PLACE: ContextVar[tuple[Places, str] | None] = ContextVar("PLACE", default=None)
"""The place that a call has in a service, and its caller. A variable, since each step of a search needs it."""


@contextmanager
def only_waiting() -> Iterator[None]:
    """Take no place of a service for the time of the block."""
    if (place := PLACE.get()) is None:
        yield
    else:
        with place[0].wait(place[1]):
            yield


class FairThreads:
    """Threads for the calls of several callers, who take turns: however many calls one makes, others wait for one."""

    def __init__(self, width: int, name: str) -> None:
        self._threads = ThreadPoolExecutor(width, name)
        self._lock = threading.Lock()
        self._calls: dict[str, deque[tuple[Future[Any], Callable[[], Any]]]] = {}

    def submit(self, call: Callable[..., T], *args: Any) -> Future[T]:
        """Run a call when its caller's turn has come, unless its future is cancelled before. Raises StoreError."""
        place, future = PLACE.get(), Future[T]()
        with self._lock:
            self._calls.setdefault(place[1] if place else "", deque()).append((future, partial(call, *args)))
        try:
            self._threads.submit(self._run_next)
        except RuntimeError:
            raise StoreError(CLOSED) from None
        return future

    def close(self) -> None:
        """Start no more calls; those already running finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for future, _ in (one for calls in self._calls.values() for one in calls):
                future.cancel()

    def _run_next(self) -> None:
        with self._lock:
            caller = next(iter(self._calls))
            calls = self._calls.pop(caller)
            future, call = calls.popleft()
            if calls:
                self._calls[caller] = calls  # behind the others
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(call())
            except BaseException as exc:  # noqa: BLE001 - whoever waits has it
                future.set_exception(exc)


def in_time(items: Sequence[T], deadline: Deadline | None) -> Iterator[Sequence[T]]:
    """Yield the items, some at a time, in a thread that nothing else ends.

    Raises SearchTimedOut once the deadline has passed.
    """
    for start in range(0, len(items), AT_ONCE):
        if deadline is not None and deadline.left <= 0:
            raise SearchTimedOut(f"timed out after {deadline.seconds:g} s while texts were compared")
        yield items[start : start + AT_ONCE]


@dataclass(slots=True)
class Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set it."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that lies this many seconds ahead."""
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

    async def result_of(self, future: Future[T], during: str = "", *, patience: float = math.inf) -> T:
        """Return the result of a call in threads, in whichever event loop this runs.

        A call that has not begun when the wait ends is given up.
        Raises SearchBusy if it has not begun within its `patience` in seconds or by the deadline, SearchTimedOut if it
        is not done by then, and StoreError if the threads were closed.
        """
        waiting = asyncio.wrap_future(future)
        try:
            for seconds in (min(patience, max(0.0, self.left)), math.inf):
                await asyncio.wait({waiting}, timeout=min(seconds, self.left))
                if future.cancelled():
                    raise StoreError(CLOSED)
                if future.done():
                    return future.result()
                if future.cancel():
                    raise SearchBusy(f"the search has waited {seconds:.1f} s for its turn; come back later")
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}")
        finally:
            waiting.cancel()


class StoreHolder:
    """One store, lent to several threads. One that nobody borrows for `idle` seconds is closed (None: never).

    One that another process wants to write is closed after `QUIET_SECONDS`.
    """

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
                quiet = 0.0 if self._borrowers else time.monotonic() - self._used_at
                if quiet >= idle or (quiet >= QUIET_SECONDS and self._store.wanted()):
                    self._close_store()
                else:
                    self._changed.wait(min(idle - quiet, max(QUIET_SECONDS - quiet, LOOK_SECONDS)))

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
