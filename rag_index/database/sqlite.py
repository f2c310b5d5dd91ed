"""Pragmas of a SQLite connection, set where other processes may set theirs at the same moment."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

LOCKED_SECONDS = 30.0
RETRY_SECONDS = 0.05


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set `busy_timeout` and then each pragma on a connection of the driver.

    Two processes that switch a new file to `journal_mode=WAL` at once exclude each other, and SQLite does not wait
    there, whatever `busy_timeout` says (its documentation of sqlite3_busy_handler). So this retries for half a minute.

    Raises:
        sqlite3.OperationalError: SQLite refuses a pragma, or the file is still locked after that time.
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
