"""Signals that end a run, kept from being lost in libraries.

A signal raises an exception wherever the program is, and code in between may take it for an error of its own: Prefect's
TerminationSignal inside a serializer becomes a serialization error, after which the run would continue.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

SIGTERM = bytes([signal.SIGTERM])
"""How Python reports it."""
OUTPUT = (1, 2)
"""Standard output and standard error."""


@contextmanager
def hold_sigterm(take: Callable[[], bool]) -> Iterator[None]:
    """Let a SIGTERM end the block of a flow, whatever became of its exception on the way here.

    Then `take` is asked whether it takes care of the end. If not, the handler of the signal is called again, and
    whoever listened before hears of the signal, as of all others.

    The handler stays Prefect's own, or Prefect would not see a cancelled run as cancelled: Python also reports each
    signal through `signal.set_wakeup_fd`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals only interrupt the main thread
        return
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        came = False
        handler = signal.getsignal(signal.SIGTERM)
        try:
            try:
                yield
            finally:
                signal.set_wakeup_fd(before, warn_on_full_buffer=False)
                came = _has_sigterm(here, before)
        except BaseException:
            if not came or not callable(handler):
                raise
    if came and not take() and callable(handler):
        _report(SIGTERM, before)
        handler(signal.SIGTERM, None)


def _has_sigterm(numbers: socket.socket, also: int) -> bool:
    """Return whether SIGTERM is among the reported signals, and pass the others on to whoever listened before."""
    try:
        found = numbers.recv(4096)
    except BlockingIOError:
        return False
    _report(found.replace(SIGTERM, b""), also)
    return SIGTERM in found


def _report(numbers: bytes, to: int) -> None:
    if to >= 0:
        with suppress(OSError):
            os.write(to, numbers)


def outlive_output() -> None:
    """Let this process go on once nobody reads what it prints, because Prefect's worker was killed.

    Its standard output and error are pipes of the worker then, and rich, with which Prefect prints logs, would end the
    process at the next line.
    """
    threading.Thread(target=_drop_output, daemon=True, name="output").start()


def _drop_output() -> None:
    broken = select.poll()
    for descriptor in OUTPUT:
        broken.register(descriptor, 0)  # reported alone: that the reader has gone
    broken.poll()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in OUTPUT:
        os.dup2(nowhere, descriptor)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, by KeyboardInterrupt, so that it leaves nothing behind.

    It is raised again at the end of the block if it was lost. A signal that is ignored on purpose (nohup) stays so.
    """
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
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
        raise KeyboardInterrupt
