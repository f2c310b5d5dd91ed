"""Single-flight: equal calls in flight are joined, and event loops wait for the threads that run them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

T = TypeVar("T")

CLOSED = "the retriever is closed"


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
