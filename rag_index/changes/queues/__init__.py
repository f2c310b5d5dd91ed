"""The table in which triggers note changes, and the triggers, for each kind of database.

One table of a project holds the changes of all watched tables. Writers only append to it, in their own transactions.
The watch reads rows and later deletes exactly these, so the order of commits does not matter: a position by number or
time would miss what commits late.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.changes.tables import object_name
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import Setup, WatchedTable

__all__ = ["SETUP", "Queue", "QueuedRow", "open_queue", "trigger_names"]

SETUP = "run the SQL that `rag-index watch --setup` prints"
VERSION = 1
"""Belongs to the names of triggers; a change of what they do makes new names, so that `check` notices old ones."""


@dataclass(frozen=True, slots=True)
class QueuedRow:
    """A row of the queue."""

    token: Any
    """What `delete` needs."""
    table: WatchedTable | None
    """None if the table is not watched any more."""
    values: tuple[Any, ...] | None
    """The values of the table's watched columns; None: the whole table may have changed, or is gone."""
    changed_at: float


class Queue(Protocol):
    """The queue of one project in one kind of database."""

    def __init__(self, tables: Sequence[WatchedTable], project: str) -> None: ...

    has_changes: str
    """A statement that returns a row if anything waits; cheap enough to be repeated all the time."""

    no_rows: Sequence[Any]
    """Tokens of rows that do not exist, to try whether `delete` is allowed."""

    def setup(self, connection: Connection) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""

    def problems(self, connection: Connection) -> dict[WatchedTable, SettingsError]:
        """Return why changes of some of the tables are not noted. Raises SettingsError if that is so for all."""

    def read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return rows of the queue, at most `limit`."""

    def delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows in one transaction, and no others."""

    def count(self, connection: Connection, limit: int) -> int:
        """Return how many rows wait; counting ends at `limit`."""


def open_queue(dialect: str, tables: Sequence[WatchedTable], project: str) -> Queue:
    """Return the queue for a dialect of SQLAlchemy.

    Raises:
        SettingsError: there are no triggers for this kind of database.
    """
    from rag_index.changes.queues.mariadb import MariadbQueue
    from rag_index.changes.queues.postgres import PostgresQueue
    from rag_index.changes.queues.sqlite import SqliteQueue

    kinds: dict[str, type[Queue]] = {
        "postgresql": PostgresQueue,
        "mysql": MariadbQueue,
        "mariadb": MariadbQueue,
        "sqlite": SqliteQueue,
    }
    kind = kinds.get(dialect)
    if kind is None:
        raise SettingsError(
            f'changes = "queue" needs PostgreSQL, MariaDB, MySQL or SQLite, and the source is {dialect}; use "poll"'
        )
    return kind(tables, project)


def trigger_names(project: str, table: WatchedTable, kinds: Sequence[str]) -> dict[str, str]:
    """Return a trigger's name for each kind. It depends on everything that the trigger does with the table."""
    used = None if table.used is None else sorted(table.used)
    does = json.dumps([VERSION, table.schema, table.name, table.columns, used])
    digest = hashlib.sha256(does.encode()).hexdigest()[:8]
    return {kind: object_name(project, digest, kind) for kind in kinds}
