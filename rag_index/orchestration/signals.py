"""Signals that end a run, and that no library between may lose.

A signal raises an exception wherever the program is, and code in between may take it for an error of its own: Prefect's
TerminationSignal within a serializer comes out as an error of serialization, after which the run would go on.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["stoppable", "terminable"]

LATER = 0.02
"""Seconds until a signal comes again that came where its exception would be lost."""
UNRAISABLE = {"__del__", "_gc_callback"}
"""Functions that Python calls by itself: of a destructor, of distributed's watch over the garbage collector."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Within a flow: what a SIGTERM raises ends the block, whatever became of it on its way here.

    The handler stays Prefect's own, or Prefect would not take a cancelled run for cancelled: Python notes each signal
    by `signal.set_wakeup_fd` as well.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # no signal comes here
        return
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        came = False
        try:
            try:
                yield
            finally:
                signal.set_wakeup_fd(before, warn_on_full_buffer=False)
                came = _noted(here, before)
        except Exception:
            if not came:
                raise
    handler = signal.getsignal(signal.SIGTERM)
    if came and callable(handler):
        handler(signal.SIGTERM, None)


def _noted(numbers: socket.socket, also: int) -> bool:
    """Whether SIGTERM is among the noted signals; whoever noted them before is told, too."""
    try:
        found = numbers.recv(4096)
    except BlockingIOError:
        return False
    if also >= 0:
        with suppress(OSError):
            os.write(also, found)
    return signal.SIGTERM in found


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the block alike, by KeyboardInterrupt, so that workers and server are stopped."""
    interrupt = signal.default_int_handler
    handlers = {signal.SIGTERM: interrupt}
    if signal.getsignal(signal.SIGINT) is interrupt:  # else it is to be ignored
        handlers[signal.SIGINT] = interrupt
    with _heeded(handlers):
        yield


def _is_swallowed(frame: FrameType | None) -> bool:
    """Whether Python would only print what is raised here and go on."""
    while frame is not None:
        if frame.f_code.co_name in UNRAISABLE:
            return True
        frame = frame.f_back
    return False


@contextmanager
def _heeded(handlers: dict[signal.Signals, Any]) -> Iterator[None]:
    """These handlers, each of which raises; once more at the end of the block, if one was called and nothing came."""
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if _is_swallowed(frame):
            again = threading.Timer(LATER, signal.pthread_kill, (threading.main_thread().ident, number))
            again.daemon = True
            again.start()
            return
        came.append(number)
        handlers[signal.Signals(number)](number, frame)

    before = {number: signal.signal(number, note) for number in handlers}
    try:
        yield
    except Exception:
        if not came:
            raise
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
    if came:
        handlers[signal.Signals(came[0])](came[0], None)
