"""How the calls of a Retriever share threads, work, time and the store, so that an index that hangs delays no other."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar

from rag_index.errors import SearchTimedOut, StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence

    from rag_index.stores import StoreReader

P = ParamSpec("P")
T = TypeVar("T")
CLOSED = "the retriever is closed"
POLL = 0.1


class Bulkhead:
    """Threads that are divided evenly among the names: `width` in total, but at least one for each name.

    A name whose calls hang keeps its own threads and takes no others. Its next calls wait without a thread; one that is
    cancelled meanwhile never begins.
    """

    def __init__(self, names: Sequence[str], width: int) -> None:
        share = max(1, width // max(1, len(names)))
        self._threads = {name: ThreadPoolExecutor(share, f"rag-index-{name}") for name in names}

    def submit(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in one of this name's threads. Raises StoreError once closed."""
        try:
            return self._threads[name].submit(call, *args, **kwargs)
        except RuntimeError as exc:
            raise StoreError(CLOSED) from exc

    def close(self) -> None:
        """Start no more calls; those already running finish."""
        for threads in self._threads.values():
            threads.shutdown(wait=False, cancel_futures=True)


async def result_of(future: Future[T]) -> T:
    """Wait for a thread's future in whichever event loop this runs. Cancelling the wait cancels a future not begun.

    `asyncio.wrap_future` does the same, but logs an error if the loop is closed before the thread is done.
    """
    arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.add_done_callback(lambda _: wake(arrived))
    try:
        await arrived
    except asyncio.CancelledError:
        future.cancel()
        raise
    if future.cancelled():
        raise StoreError(CLOSED)
    return future.result()


def wake(waiter: asyncio.Future[None]) -> None:
    """Let whoever waits in another thread's event loop go on, if they still do."""
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        waiter.get_loop().call_soon_threadsafe(_resolve, waiter)


def _resolve(arrived: asyncio.Future[None]) -> None:
    if not arrived.done():
        arrived.set_result(None)


@dataclass(slots=True)
class _Call(Generic[T]):
    future: Future[T]
    waiters: int = 0


class SingleFlight(Generic[T]):
    """A register of calls in flight: whoever asks first starts the call, and all who ask meanwhile share its result.

    Safe to use from any thread and event loop. A call that has not begun when its last waiter leaves is cancelled.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._calls: dict[Hashable, _Call[T]] = {}

    def join(self, key: Hashable, start: Callable[[], Future[T]]) -> Future[T]:
        """Return a future of the caller's own for the call in flight under this key, or for the one `start` begins."""
        with self._lock:
            call = self._calls.get(key)
            if call is None:
                call = self._calls[key] = _Call(start())
                call.future.add_done_callback(lambda _: self._remove(key, call))
            call.waiters += 1
        own: Future[T] = Future()
        own.add_done_callback(lambda _: self._leave(call))
        call.future.add_done_callback(lambda done: _copy_result(done, own))
        return own

    def _remove(self, key: Hashable, call: _Call[T]) -> None:
        with self._lock:
            if self._calls.get(key) is call:
                del self._calls[key]

    def _leave(self, call: _Call[T]) -> None:
        with self._lock:
            call.waiters -= 1
            if call.waiters == 0:
                call.future.cancel()


def _copy_result(done: Future[T], own: Future[T]) -> None:
    if not own.set_running_or_notify_cancel():
        return
    if done.cancelled():
        own.set_exception(StoreError(CLOSED))
    elif (error := done.exception()) is not None:
        own.set_exception(error)
    else:
        own.set_result(done.result())


class Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set it.

    By default that is so many seconds from now.
    """

    def __init__(self, seconds: float, at: float | None = None) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds if at is None else at

    def capped(self, seconds: float) -> Deadline:
        """Return the earlier of this deadline and one in `seconds` from now."""
        return min(self, Deadline(seconds), key=lambda deadline: deadline.at)

    def later(self, seconds: float) -> Deadline:
        """Return the deadline moved by so many seconds, which do not count."""
        return Deadline(self.seconds, self.at + seconds)

    async def wait_for(self, work: Awaitable[T], during: str = "") -> T:
        """Return the result of the work. Raises SearchTimedOut if the deadline passes first."""
        try:
            async with asyncio.timeout(self.at - time.monotonic()):
                return await work
        except TimeoutError:
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}") from None


class StoreHolder:
    """One store, lent to several threads.

    If opening raises StoreBusy, borrowing tries again for up to `wait` seconds. A store that nobody borrows for `idle`
    seconds is closed (None: never). `close` also ends the waiting.
    """

    def __init__(
        self,
        opener: Callable[[], StoreReader],
        *,
        wait: float = 0.0,
        idle: float | None = None,
    ) -> None:
        self._opener, self._wait, self._idle = opener, wait, idle
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._store: StoreReader | None = None
        self._borrowers = 0
        self._used_at = 0.0

    @contextmanager
    def borrow(self) -> Iterator[StoreReader]:
        """Lend the store for the time of the block. Raises StoreBusy, and whatever opening a store raises."""
        store = self._acquire()
        try:
            yield store
        finally:
            with self._changed:
                self._borrowers -= 1
                self._used_at = time.monotonic()

    def close(self) -> None:
        """Close the store for good; calls already running finish. A second call does nothing."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            self._close_store()

    def _acquire(self) -> StoreReader:
        deadline = time.monotonic() + self._wait
        while True:
            with self._changed:
                if self._closing.is_set():
                    raise StoreError(CLOSED)
                try:
                    store = self._open_if_needed()
                except StoreBusy:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    self._borrowers += 1
                    return store
            self._closing.wait(POLL)

    def _open_if_needed(self) -> StoreReader:
        if self._store is None:
            self._store = self._opener()
            self._used_at = time.monotonic()
            if self._idle is not None:
                threading.Thread(target=self._close_when_idle, name="rag-index-idle", daemon=True).start()
        return self._store

    def _close_when_idle(self) -> None:
        """Close the store once nobody has borrowed it for long enough. One thread does so while it is open."""
        idle = self._idle or 0.0
        with self._changed:
            while self._store is not None and not self._closing.is_set():
                left = self._used_at + idle - time.monotonic() if self._borrowers == 0 else idle
                if self._borrowers == 0 and left <= 0:
                    self._close_store()
                    return
                self._changed.wait(max(left, 0.001))

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
