"""Pragmas of a SQLite connection, set where other processes may set theirs at the same moment."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    import sqlalchemy as sa

LOCKED_SECONDS = 30.0
RETRY_SECONDS = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set `busy_timeout` and then each pragma on a connection of the driver.

    Two processes that switch a new file to `journal_mode=WAL` at once exclude each other, and SQLite does not wait
    there, whatever `busy_timeout` says (its documentation of sqlite3_busy_handler). So this retries for half a minute.
    Raises sqlite3.OperationalError if SQLite refuses a pragma, or the file is still locked after that time.
    """
    deadline = time.monotonic() + LOCKED_SECONDS
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={LOCKED_SECONDS * 1000:.0f}", *pragmas):
        while True:
            try:
                cursor.execute(f"PRAGMA {pragma}")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)
    cursor.close()


def insert_for(dialect: sa.Dialect) -> Callable[[sa.Table], Any]:
    """Return the `insert` of PostgreSQL or SQLite; its statements have `on_conflict_do_update` and `…_nothing`."""
    if dialect.name == "postgresql":  # importing a dialect takes 20 ms
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


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
    try:
        for number in SIGNALS:
            if callable(handler := signal.getsignal(number)):
                before[number] = handler
                signal.signal(number, lambda *one: received.append(one))
        yield
    finally:
        for replaced, handler in reversed(before.items()):  # SIGINT, whose handler raises, comes last
            signal.signal(replaced, handler)
        for received_number, frame in received:
            before[received_number](received_number, frame)
