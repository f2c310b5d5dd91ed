"""Waiting in an event loop for what threads do: with a time limit, and for the same thing only once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import CancelledError, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable

__all__ = ["BackgroundLoop", "SingleFlight", "outcome"]

T = TypeVar("T")

CLOSED = "the retriever is closed"


async def outcome(future: Future[T]) -> T:
    """What a thread's future gives, in whichever loop this runs; when this is cancelled, the future is (if it waits).

    `asyncio.wrap_future` does the same, but complains when the loop is closed before the thread is done.
    """
    loop = asyncio.get_running_loop()
    arrived = asyncio.Event()

    def tell(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(arrived.set)

    future.add_done_callback(tell)
    try:
        await arrived.wait()
    except asyncio.CancelledError:
        future.cancel()
        raise
    if future.cancelled():
        raise StoreError(CLOSED)
    return future.result()


@dataclass(slots=True)
class _Flight(Generic[T]):
    work: Future[T]
    waiting: int = 0


class SingleFlight(Generic[T]):
    """Work that several ask for at the same time is done once, by whoever asks first; all have what comes of it.

    Safe from any thread and loop. Work that has not begun when the last one stops waiting for it is not begun.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._single_flight: dict[Hashable, _Flight[T]] = {}

    def join(self, key: Hashable, start: Callable[[], Future[T]]) -> Future[T]:
        """A future of one's own for the work under way with this key, or for what `start` begins."""
        with self._lock:
            flight = self._single_flight.get(key)
            if flight is None:
                flight = self._single_flight[key] = _Flight(start())
                flight.work.add_done_callback(lambda _: self._landed(key, flight))
            flight.waiting += 1
        own: Future[T] = Future()
        own.add_done_callback(lambda _: self._left(flight))
        flight.work.add_done_callback(lambda work: _copy(work, own))
        return own

    def _landed(self, key: Hashable, flight: _Flight[T]) -> None:
        with self._lock:
            if self._single_flight.get(key) is flight:
                del self._single_flight[key]

    def _left(self, flight: _Flight[T]) -> None:
        with self._lock:
            flight.waiting -= 1
            if flight.waiting == 0:
                flight.work.cancel()


def _copy(work: Future[T], own: Future[T]) -> None:
    if not own.set_running_or_notify_cancel():
        return
    if work.cancelled():
        own.set_exception(StoreError(CLOSED))
    elif (error := work.exception()) is not None:
        own.set_exception(error)
    else:
        own.set_result(work.result())


class BackgroundLoop:
    """An event loop in a thread of its own, so that a coroutine can be waited for from anywhere: from a thread, and
    from code that an event loop runs (which stands still meanwhile)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for the coroutine; an interrupt of the waiting thread cancels it."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name="rag-index-search", daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise StoreError(CLOSED) from None
        finally:
            future.cancel()

    def close(self) -> None:
        """End the thread; coroutines under way are cancelled."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(_cancel_all, loop)


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    loop.create_task(_stop_after(loop, tasks))


async def _stop_after(loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)
    loop.stop()


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
