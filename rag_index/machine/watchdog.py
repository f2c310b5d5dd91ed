"""A watchdog that ends a process which hangs."""

from __future__ import annotations

import faulthandler
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def end_process_after(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, whatever it hangs in. None is no limit."""
    if seconds is None:
        yield
        return
    faulthandler.dump_traceback_later(seconds, exit=True)  # its thread needs no interpreter, which may be what hangs
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process so far; infinite if there is no such process."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return float("inf")
    return float(times.user + times.system)


class Patience:
    """The wait for a process that is starting.

    It ends when the process has used `busy` seconds of processor time, far more than a start needs. It also ends when
    the process used less than one of them in the last `idle` seconds of the clock, and so waits for something itself.
    """

    def __init__(
        self, used: Callable[[], float], *, busy: float, idle: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._used, self._clock = used, clock
        self._busy, self._idle = busy, idle
        self._seen, self._since = used(), clock()

    def exhausted(self) -> str:
        """Return why waiting any longer is of no use, in words that follow the process's name, or an empty text."""
        used, now = self._used(), self._clock()
        if used >= self._busy:
            return f"is silent after {self._busy:g} s of processor time"
        if used >= self._seen + 1:
            self._seen, self._since = used, now
        return f"is silent, and has done nothing for {self._idle:g} s" if now - self._since >= self._idle else ""
