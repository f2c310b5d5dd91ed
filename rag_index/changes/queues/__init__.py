"""The table in which triggers note changes, its feed, and the triggers, for each kind of database.

One table of a project holds the changes of all watched tables. Writers only append to it, in their own transactions.
The watch reads rows and later deletes exactly these, so the order of commits does not matter: a position by number or
time would miss what commits late.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes.rows import Probe, ReceivedRows, RowChange, Setup, Step
from rag_index.changes.watched_tables import object_name
from rag_index.documents.positions import Position
from rag_index.errors import SettingsError, SourceError
from rag_index.sources.engine import limited, open_read_only, open_writable, source_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

    from rag_index.changes.rows import WatchedTable

__all__ = ["SETUP", "Queue", "QueueFeed", "QueuedRow", "open_queue"]

SETUP = "run the SQL that `rag-index watch --setup` prints"
VERSION = 1
"""Belongs to the names of triggers; a change of what they do makes new names, so that `check` notices old ones."""
FIRST_ROWS = "It tells the watch to compare everything once: nobody knows what changed before the triggers."
"""The reason for the rows that a setup writes."""

TIMEOUT = 600.0
PROBE_SECONDS = 0.2
"""The time between two looks whether the queue has rows, and after a reading that found some: many readings of a few
rows would take the processor from the batch that is being indexed."""
UNREAD_SECONDS = 600.0
"""How old the first row may be before that is said."""
MAX_COUNT = 1_000_000
"""Where counting the rows of a queue ends."""


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


class Queue(ABC):
    """The queue of one project in one kind of database."""

    kinds: ClassVar[tuple[str, ...]] = ("insert", "update", "delete")
    """The triggers of each table."""
    costs: ClassVar[tuple[str, ...]]
    """What they cost the source; a sentence each."""
    schema: ClassVar[str] = ""
    """What comes before the queue's name in statements."""
    no_rows: Sequence[Any] = (0,)
    """Tokens of rows that do not exist, to try whether `delete` is allowed."""

    def __init__(self, tables: Sequence[WatchedTable], project: str) -> None:
        self._watched = list(tables)
        self._by_name = {str(table): table for table in tables}
        self._project = project
        self._name = object_name(project)
        self._queue = f"{self.schema}{self._name}"
        self.has_changes = f"SELECT 1 FROM {self._queue} LIMIT 1"
        """A statement that returns a row if anything waits; cheap enough to be repeated all the time."""

    @abstractmethod
    def setup(self, connection: Connection) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""

    @abstractmethod
    def read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return rows of the queue, at most `limit`."""

    def before(self, connection: Connection) -> Any:  # noqa: B027 - not all databases need it
        """Return what `through` needs from before the rows were read."""

    @abstractmethod
    def through(self, before: Any, rows: Sequence[QueuedRow]) -> str:
        """Return the position up to which these rows, which are all, and earlier ones have every change.

        It is "" if only the time of the look is known.
        """

    @abstractmethod
    def delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows in one transaction, and no others."""

    def problems(self, connection: Connection) -> dict[WatchedTable, SettingsError]:
        """Return why changes of some of the tables are not noted. Raises SettingsError if that is so for all."""
        self._check_queue(connection)
        found: dict[WatchedTable, SettingsError] = {}
        for table in self._watched:
            try:
                if not self._has_triggers(connection, table):
                    reason = f"table {table} has no triggers, or they do not fit the settings, or were switched off"
                    found[table] = SettingsError(f"{reason}; {SETUP} again")
            except SettingsError as error:
                found[table] = error
        return found

    def count(self, connection: Connection, limit: int) -> int:
        """Return how many rows wait; counting ends at `limit`."""
        statement = f"SELECT count(*) FROM (SELECT 1 FROM {self._queue} LIMIT {limit:d}) AS waiting"
        return int(connection.scalar(sa.text(statement)) or 0)

    @abstractmethod
    def _check_queue(self, connection: Connection) -> None:
        """Raise SettingsError if there is no queue, or none that can be used."""

    @abstractmethod
    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        """Return whether a table has its triggers. Raises SettingsError if it cannot have any."""

    def _names(self, table: WatchedTable) -> dict[str, str]:
        """Return a trigger's name for each kind. It depends on everything that the trigger does with the table."""
        used = None if table.used is None else sorted(table.used)
        does = json.dumps([VERSION, table.schema, table.name, table.columns, used])
        digest = hashlib.sha256(does.encode()).hexdigest()[:8]
        return {kind: object_name(self._project, digest, kind) for kind in self.kinds}

    def _setup(self, steps: Iterable[Step], removal: Iterable[str], position: str) -> Setup:
        title = f"rag-index: follow changes by triggers (queue {self._queue})"
        return Setup(title, self.costs, tuple(steps), tuple(map(Step, removal)), position)


def require_columns(table: WatchedTable, there: Iterable[str]) -> None:
    """Raise SettingsError if the table lacks a column that the settings name."""
    for column in sorted({*table.columns, *(table.used or ())}.difference(there)):
        raise SettingsError(f"table {str(table)!r} has no column {column!r}, which the settings name")


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


class QueueFeed:
    """The changes that triggers noted. Rows are read without a lock, and deleted after they were acknowledged."""

    def __init__(
        self,
        url: URL,
        tables: Sequence[WatchedTable],
        project: str,
        *,
        timeout: float = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._timeout = timeout
        self._clock = clock
        self._engine = open_read_only(url)
        self._writer = open_writable(url)
        self._queue = open_queue(self._engine.dialect.name, tables, project)
        self._probe = Probe(self._engine)
        self._version: Any = None
        self._rest_until = 0.0

    def check(self) -> Mapping[WatchedTable, SettingsError]:
        """Check triggers and rights; return why changes of some tables are not seen."""
        with self._connect(self._engine) as connection:
            problems = self._queue.problems(connection)
        try:
            with self._connect(self._writer) as connection:
                self._queue.delete(connection, self._queue.no_rows)
        except SourceError as error:
            raise SettingsError(f"rows of the queue cannot be deleted: {error}; {SETUP}") from error
        return problems

    def warnings(self) -> list[str]:
        """Return a warning if nobody has read the queue for long."""
        with self._connect(self._engine) as connection:
            age = max((time.time() - row.changed_at for row in self._queue.read(connection, 1)), default=0.0)
            if age <= UNREAD_SECONDS:
                return []
            count = self._queue.count(connection, MAX_COUNT)
        more = " or more" if count >= MAX_COUNT else ""
        remedy = "start `rag-index watch`, or remove the triggers as `rag-index watch --setup` says"
        return [f"the queue of changes has {count:,}{more} rows, the first {age / 3600:.1f} hours old: {remedy}"]

    def receive(self, limit: int) -> ReceivedRows:
        """Return the changes of at most `limit` rows of the queue, without waiting for any."""
        looked_at = time.time()
        with self._connect(self._engine) as connection:
            before = self._queue.before(connection)
            rows = self._queue.read(connection, limit)
        more = len(rows) >= limit
        self._rest_until = self._clock() + PROBE_SECONDS if rows else 0.0
        through = None if more else Position(looked_at, self._queue.through(before, rows), "queue")
        changes = [
            RowChange(row.table, dict(zip(row.table.columns, row.values, strict=True)), row.changed_at)
            for row in rows
            if row.table is not None and row.values is not None
        ]
        overflow = {row.table for row in rows if row.table is not None and row.values is None}
        tokens = [row.token for row in rows]
        return ReceivedRows(changes, tokens, more, sorted(overflow, key=str), through=through)

    def acknowledge(self, received: ReceivedRows) -> None:
        """Delete exactly the rows that were received."""
        if received.position:
            with self._connect(self._writer) as connection:
                self._queue.delete(connection, received.position)
            if self._engine.dialect.name == "sqlite":  # hold the file open for writing no longer than needed
                self._writer.dispose()

    def wait(self, seconds: float) -> None:
        """Return after this many seconds, or when the queue has rows, or when the file of SQLite has changed."""
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            rest = self._rest_until - self._clock()
            if rest <= 0 and self._probe.finds(self._look):
                return
            time.sleep(min(left, rest if rest > 0 else PROBE_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._probe.close()
        self._engine.dispose()
        self._writer.dispose()

    def _look(self, cursor: Any) -> bool:
        """Return whether there may be rows."""
        if self._engine.dialect.name == "sqlite":
            return self._file_changed(cursor)
        cursor.execute(self._queue.has_changes)
        return cursor.fetchone() is not None

    def _file_changed(self, cursor: Any) -> bool:
        """Return whether another connection has written the file since the last look of this one."""
        before = self._version
        self._version = (cursor.connection, cursor.execute("PRAGMA data_version").fetchone()[0])
        return bool(self._version != before)

    @contextmanager
    def _connect(self, engine: Engine) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours."""
        try:
            with engine.connect() as connection, limited(connection, self._timeout, "the queue of changes"):
                yield connection
        except exc.SQLAlchemyError as error:
            raise source_error(error, self._url, "the queue of changes") from error
