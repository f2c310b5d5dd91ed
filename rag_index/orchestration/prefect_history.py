"""What Prefect's temporary server keeps of old runs, which nobody can look at once that server has ended.

Prefect's own vacuum of flow runs does not run in a temporary server, and that of events seldom gets to it in time.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILE_NAME = "prefect.db"
DAY = 86_400.0
BUSY_SECONDS = 1.0
"""How long to wait for another run's server. What is not deleted now is deleted by the next run."""
MAX_ROWS = 2_000
"""Rows of a table that one run deletes, so that it ends at once. A night's run adds far fewer."""
DELETES = (
    "DELETE FROM log WHERE id IN (SELECT id FROM log WHERE timestamp < :old LIMIT :most)",
    "DELETE FROM artifact WHERE id IN (SELECT id FROM artifact WHERE updated < :old LIMIT :most)",
    "DELETE FROM flow_run WHERE id IN (SELECT id FROM flow_run WHERE end_time < :old LIMIT :most)",
    "DELETE FROM flow_run WHERE id IN (SELECT id FROM flow_run WHERE end_time IS NULL AND updated < :dead LIMIT :most)",
    "DELETE FROM event_resources WHERE id IN (SELECT id FROM event_resources WHERE occurred < :old LIMIT :most)",
    "DELETE FROM events WHERE id IN (SELECT id FROM events WHERE occurred < :old LIMIT :most)",
)
"""Task runs and states go with their flow run. One that was killed has no end, and may be a long one that lives."""
ABANDONED_DAYS = 30.0

log = logging.getLogger("rag_index.orchestration")


def prune_history(home: Path, keep_days: float, *, clock: Callable[[], float] = time.time) -> int:
    """Delete runs that ended more than `keep_days` ago; return how many rows were named. It raises nothing.

    Each table is a transaction, so a death in the middle leaves the rest to the next run.
    """
    file = home / FILE_NAME
    if not file.is_file():
        return 0
    now, days = clock(), {"old": keep_days, "dead": keep_days + ABANDONED_DAYS}
    times = {name: datetime.fromtimestamp(max(0.0, now - kept * DAY), UTC) for name, kept in days.items()}
    values = {name: at.strftime("%Y-%m-%d %H:%M:%S.%f") for name, at in times.items()}
    deleted = 0
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA foreign_keys=ON")
            for statement in DELETES:
                with connection:
                    deleted += connection.execute(statement, {**values, "most": MAX_ROWS}).rowcount
    except sqlite3.Error as error:
        log.debug("%s was not pruned: %s", file, error)
    return deleted
