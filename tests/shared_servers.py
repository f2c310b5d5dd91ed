"""Servers that several files of tests share, in one process: each starts with the first test that
needs it, and ends with the last of its group (`tests/conftest.py`)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Generic, TypeVar

T = TypeVar("T")

_SHARED: list[SharedServer] = []
"""Those of this process."""


class SharedServer(Generic[T]):
    """A server that `start` runs for the time of a block. It starts and ends several times, if
    tests ask for it again. Leaving a `with` block ends it."""

    def __init__(self, start: Callable[[], AbstractContextManager[T]]) -> None:
        self._start = start
        self._ends = ExitStack()
        self._running: T | None = None

    def __enter__(self) -> SharedServer[T]:
        _SHARED.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        _SHARED.remove(self)
        self.end()

    def running(self) -> T:
        """Return what `start` yields, after a start if it does not run."""
        if self._running is None:
            self._running = self._ends.enter_context(self._start())
        return self._running

    def end(self) -> None:
        """End the server. A second call does nothing."""
        self._running = None
        self._ends.close()


def end_shared_servers() -> None:
    """End those that run in this process."""
    for server in _SHARED:
        server.end()
