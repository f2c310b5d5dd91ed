"""An event loop in a thread of its own, for callers that have none, or one of their own."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["EventLoopThread"]

T = TypeVar("T")


class EventLoopThread:
    """Runs coroutines for any thread, with a running loop or without; the thread begins with the first of them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether the thread is there."""
        return self._loop is not None

    def run(self, work: Coroutine[None, None, T]) -> T:
        """Run to its end; an interrupt in the caller's thread cancels the work."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_serve, args=(self._loop,), name=self._name, daemon=True).start()
            future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """End the thread; the next `run` begins another."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None


def _serve(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()
