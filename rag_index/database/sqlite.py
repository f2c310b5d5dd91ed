"""SQLite's settings of a connection, set where other processes may set theirs in the same moment."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["set_pragmas"]

LOCKED_SECONDS = 30.0
AGAIN_SECONDS = 0.05


def set_pragmas(connection: Any, pragmas: Sequence[str]) -> None:
    """Set each, after `busy_timeout`, on a connection of the driver.

    Two that change a new file to `journal_mode=WAL` at once exclude each other, and SQLite does not wait there whatever
    `busy_timeout` says (its documentation of sqlite3_busy_handler): it is tried again for half a minute.

    Raises:
        sqlite3.OperationalError: what SQLite says, at once or, where the file is locked, after that time.
    """
    until = time.monotonic() + LOCKED_SECONDS
    cursor = connection.cursor()
    for pragma in (f"busy_timeout={LOCKED_SECONDS * 1000:.0f}", *pragmas):
        while True:
            try:
                cursor.execute(f"PRAGMA {pragma}")
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(AGAIN_SECONDS)
    cursor.close()
