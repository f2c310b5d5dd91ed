"""Deferral of signals until a short piece of work is complete.

A signal raises its exception between any two lines, including lines of libraries. Inside a database transaction that
leaves a connection that is neither usable nor closed, blocks all other writers, and cannot be mended by any `finally`.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Handle a SIGINT or SIGTERM that arrives inside the block at its end. Use it for work of milliseconds.

    Only the main thread is ever interrupted; in other threads this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}
    ended = False

    def remember(number: int, frame: FrameType | None) -> None:
        if ended:  # still installed: the other signal arrived while handlers were being restored
            before[number](number, frame)
        else:
            received.append((number, frame))

    try:
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler  # first, since `remember` may be called as soon as it is installed
                signal.signal(number, remember)
        yield
    finally:
        try:
            for replaced, handler in before.items():
                if signal.getsignal(replaced) is remember:
                    signal.signal(replaced, handler)
        finally:
            ended = True
        for received_number, frame in received:
            before[received_number](received_number, frame)
