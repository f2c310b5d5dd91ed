"""Signals wait until a short piece of work is whole.

A signal raises its exception between any two lines, those of libraries too. Within a database transaction that leaves
what no `finally` mends: a connection that is neither usable nor closed, and keeps all others from writing.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["interrupts_deferred"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """SIGINT and SIGTERM that come inside the block are handled at its end. For work of milliseconds.

    Only the main thread is ever interrupted; in others this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[tuple[int, FrameType | None]] = []
    before: dict[int, Any] = {}
    over = False

    def note(number: int, frame: FrameType | None) -> None:
        if over:  # left in place: the other signal came while handlers were put back
            before[number](number, frame)
        else:
            came.append((number, frame))

    try:
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler  # before it is replaced: `note` may be called at once
                signal.signal(number, note)
        yield
    finally:
        try:
            for replaced, handler in before.items():
                if signal.getsignal(replaced) is note:
                    signal.signal(replaced, handler)
        finally:
            over = True
        for caught, frame in came:
            before[caught](caught, frame)
