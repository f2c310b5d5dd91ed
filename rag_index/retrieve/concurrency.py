"""How the calls of a Retriever share threads, work, time and the store, so that an index that hangs delays no other."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from rag_index.errors import SearchTimedOut, StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Sequence

    from rag_index.stores import StoreReader

P = ParamSpec("P")
T = TypeVar("T")
CLOSED = "the retriever is closed"
POLL = 0.1


class Bulkhead:
    """Threads that are divided evenly among the names: `width` in total, but at least one for each name.

    A name whose calls hang keeps its own threads and takes no others. Its next calls wait without a thread; one that is
    cancelled leaves nothing behind.
    """

    def __init__(self, names: Sequence[str], width: int) -> None:
        share = max(1, width // max(1, len(names)))
        self._threads = ThreadPoolExecutor(share * max(1, len(names)), "rag-index-search")
        self._queues = {name: _Queue(share) for name in names}

    def submit(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in one of this name's threads. Raises StoreError once closed."""
        queue = self._queues[name]
        future: Future[T] = Future()
        try:
            if queue.add(future, partial(call, *args, **kwargs)):
                self._threads.submit(queue.work)
        except RuntimeError as exc:
            raise StoreError(CLOSED) from exc
        return future

    def close(self) -> None:
        """Start no more calls; those already running finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for queue in self._queues.values():
            queue.close()


class _Queue:
    """The calls of one name, of which at most `share` run at a time."""

    def __init__(self, share: int) -> None:
        self._lock = threading.Lock()
        self._free = share
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._closed = False

    def add(self, future: Future[Any], call: Callable[[], Any]) -> bool:
        """Add a call, and return whether a thread must be started for it. Raises RuntimeError once closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            self._waiting[future] = call
            starts = self._free > 0
            self._free -= starts
        future.add_done_callback(self._forget)
        return starts

    def work(self) -> None:
        """Run the calls that wait, until there are none."""
        while (taken := self._take()) is not None:
            future, call = taken
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - whoever waits has it
                future.set_exception(exc)
            else:
                future.set_result(result)
            del taken, future, call

    def close(self) -> None:
        """Cancel the calls that wait."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def _take(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            future = next(iter(self._waiting))
            return future, self._waiting.pop(future)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(future, None)


async def result_of(future: Future[T]) -> T:
    """Wait for a thread's future in whichever event loop this runs. Cancelling the wait cancels a future not begun.

    `asyncio.wrap_future` does the same, but logs an error if the loop is closed before the thread is done.
    """
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrived.set)

    future.add_done_callback(wake)
    try:
        await arrived.wait()
    except asyncio.CancelledError:
        future.cancel()
        raise
    if future.cancelled():
        raise StoreError(CLOSED)
    return future.result()


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


class BackgroundLoop:
    """An event loop that starts with the first call and serves any number of threads.

    Code that itself runs in an event loop may wait too; its own loop stands still meanwhile.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing: asyncio.Event

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the coroutine's result; an interrupt of the waiting thread cancels it.

        Raises StoreError if the loop is closed meanwhile.
        """
        with self._lock:
            if self._loop is None:
                started: Future[asyncio.AbstractEventLoop] = Future()
                serve = self._serve(started)
                threading.Thread(target=asyncio.run, args=(serve,), name="rag-index-search", daemon=True).start()
                self._loop = started.result()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise StoreError(CLOSED) from None
        finally:
            future.cancel()

    def close(self) -> None:
        """Cancel the coroutines that still run, and end the thread."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(self._closing.set)

    async def _serve(self, started: Future[asyncio.AbstractEventLoop]) -> None:
        """Keep the loop running until it is closed; `asyncio.run` then cancels what still runs."""
        self._closing = asyncio.Event()
        started.set_result(asyncio.get_running_loop())
        await self._closing.wait()


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener, self._wait, self._idle, self._clock = opener, wait, idle, clock
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._store: StoreReader | None = None
        self._borrowers = 0
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the store is open now."""
        return self._store is not None

    @contextmanager
    def borrow(self) -> Iterator[StoreReader]:
        """Lend the store for the time of the block. Raises StoreBusy, and whatever opening a store raises."""
        store = self._acquire()
        try:
            yield store
        finally:
            with self._changed:
                self._borrowers -= 1
                self._used_at = self._clock()

    def close(self) -> None:
        """Close the store for good; calls already running finish. A second call does nothing."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            self._close_store()

    def _acquire(self) -> StoreReader:
        deadline = self._clock() + self._wait
        while True:
            with self._changed:
                if self._closing.is_set():
                    raise StoreError(CLOSED)
                try:
                    store = self._open_if_needed()
                except StoreBusy:
                    if self._clock() >= deadline:
                        raise
                else:
                    self._borrowers += 1
                    return store
            self._closing.wait(POLL)

    def _open_if_needed(self) -> StoreReader:
        if self._store is None:
            self._store = self._opener()
            self._used_at = self._clock()
            if self._idle is not None:
                threading.Thread(target=self._close_when_idle, name="rag-index-idle", daemon=True).start()
        return self._store

    def _close_when_idle(self) -> None:
        """Close the store once nobody has borrowed it for long enough. One thread does so while it is open."""
        idle = self._idle or 0.0
        with self._changed:
            while self._store is not None and not self._closing.is_set():
                left = self._used_at + idle - self._clock() if self._borrowers == 0 else idle
                if self._borrowers == 0 and left <= 0:
                    self._close_store()
                    return
                self._changed.wait(max(left, 0.001))

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
