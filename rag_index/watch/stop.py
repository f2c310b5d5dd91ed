"""How a watch is told to end."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOK_SECONDS = 0.1


class Stop:
    """A flag that a signal's handler may set. An `Event` must not be set there: the thread may hold its lock."""

    def __init__(self) -> None:
        self._is_set = False

    def set(self) -> None:
        """Tell the watch to end."""
        self._is_set = True

    def is_set(self) -> bool:
        """Return whether the watch was told to end."""
        return self._is_set

    def wait(self, seconds: float, *, until: threading.Event | None = None) -> bool:
        """Wait this many seconds, until the flag is set or the event `until` is, and return whether the flag is."""
        end = time.monotonic() + seconds
        while not self._is_set and (left := end - time.monotonic()) > 0:
            if until is None:
                time.sleep(min(LOOK_SECONDS, left))
            elif until.wait(min(LOOK_SECONDS, left)):
                break
        return self._is_set


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Set `stop` at SIGTERM and Ctrl-C, so that the watch ends after the batch that is under way."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # otherwise it is ignored on purpose
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
