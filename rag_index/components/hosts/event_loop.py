"""An event loop in a separate thread, for callers with or without a running loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from typing import Any, TypeVar

T = TypeVar("T")
NOTICE_SECONDS = 1.0
"""After this time Python looks for an interrupt that came just before it began to wait."""


class EventLoopThread:
    """A thread that runs coroutines for callers in any thread. It starts with the first coroutine.

    Code that itself runs in an event loop may wait too; its own loop stands still meanwhile.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether the thread has been started and not stopped."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and return its result. An interrupt in the caller's thread cancels it.

        Raises concurrent.futures.CancelledError if the thread is stopped meanwhile.
        """
        with self._starting:
            future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not future.done():
                wait([future], NOTICE_SECONDS)
            return future.result()
        finally:
            future.cancel()

    def call_soon(self, function: Callable[..., object], *args: object) -> None:
        """Have the thread call the function, and return at once."""
        with self._starting:
            self._started().call_soon_threadsafe(function, *args)

    def stop(self) -> None:
        """Cancel the coroutines that still run, and end the thread; the next `run` starts another."""
        with self._starting:
            loop, self._loop = self._loop, None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            self._loop = runner.get_loop()
            threading.Thread(target=_serve, args=(runner,), name=self._name, daemon=True).start()
        return self._loop


def _serve(runner: asyncio.Runner) -> None:
    with runner:
        runner.get_loop().run_forever()
