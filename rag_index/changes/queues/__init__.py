"""The table in which triggers note changes, and its feed; what differs between databases is in a module for each.

One table of a project holds the changes of all watched tables. Writers only append to it, in their own transactions.
The watch reads rows and later deletes exactly these, so the order of commits does not matter: a position by number or
time would miss what commits late.
"""

from __future__ import annotations

import hashlib
import json
import time
from abc import abstractmethod
from contextlib import suppress
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import sqlalchemy as sa

from rag_index.changes.rows import PROBE_SECONDS, SETUP, ReceivedRows, RowChange, RowFeed, Setup, Step, object_name
from rag_index.errors import SettingsError, SourceError
from rag_index.ledger.records import Position
from rag_index.settings.sections import QUEUES
from rag_index.sources.engine import open_writable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.changes import Received
    from rag_index.changes.rows import WatchedTable

__all__ = ["QueueFeed", "QueuedRow", "open_queue", "queue_kind"]

COSTS = """\
Each insert, delete, and update of a column that documents show adds a row to the queue, in the writer's own
transaction. `benchmarks/watch_writers.py` measures it; docs/performance.md has figures.
The queue grows while no watch runs; `rag-index doctor` tells.
Columns that a trigger names can be renamed or dropped only after the trigger: remove, change, set up again.
"""
VERSION = 2
"""Belongs to the names of triggers; a change of what they do makes new names, so that `check` notices old ones."""
WHAT = "the queue of changes"
UNREAD_SECONDS = 600.0
"""How old the first row may be before that is said."""


class QueuedRow(NamedTuple):
    """A row of the queue."""

    token: Any
    """What `_delete` needs."""
    source: str
    """The name of the table."""
    values: tuple[Any, ...] | None
    """The values of the table's watched columns; None: the whole table may have changed, or is gone."""
    changed_at: float


class QueueFeed(RowFeed):
    """The changes that triggers noted. Rows are read without a lock, and deleted after they were acknowledged."""

    kinds: ClassVar[tuple[str, ...]] = ("insert", "update", "delete")
    """The triggers of each table."""
    unseen: ClassVar[str] = ""
    """What they do not see, and what else concerns this kind of database, in lines."""
    schema: ClassVar[str | None] = None
    """The schema of the queue; None: that of the connection."""
    begin: ClassVar[tuple[Step, ...]] = ()
    """What precedes the steps of a setup; if there is any, COMMIT ends them."""
    first_number: ClassVar[str] = ""
    """Where rows have numbers, the first of a new queue: none of an earlier queue may come again."""
    no_row: ClassVar[Any] = 0
    """The token of a row that does not exist, to try whether rows may be deleted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._writer = open_writable(self.url).execution_options(isolation_level="AUTOCOMMIT")
        self._by_name = {str(table): table for table in self.tables}
        self._typed: dict[str, list[Any]] = {}
        self._has_rows = sa.text(f"SELECT 1 FROM {self.named} LIMIT 1")

    @property
    def named(self) -> str:
        """Return the name of the queue for statements."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    # What differs between databases

    @abstractmethod
    def _old(self, connection: Connection) -> Iterable[str]:
        """Return the statements that drop triggers of this project, those that are there and those that are made."""

    @abstractmethod
    def _create(self) -> str:
        """Return the statement that makes the queue: a row has `source`, `changed_at`, and a key or none."""

    @abstractmethod
    def _types(self, connection: Connection, table: WatchedTable) -> dict[str, Any]:
        """Return the type of each column of a table. Raises SettingsError if the table cannot be followed."""

    @abstractmethod
    def _triggers(self, connection: Connection, table: WatchedTable) -> Iterator[Step]:
        """Yield what makes the triggers of a table. Raises SettingsError if it cannot be followed."""

    @abstractmethod
    def _has_triggers(self, connection: Connection, table: WatchedTable) -> bool:
        """Return whether a table has its triggers. Raises SettingsError if it cannot have any."""

    @abstractmethod
    def _position(self) -> str:
        """Return the statement by which an application learns the position of what it has committed."""

    @abstractmethod
    def _end(self, connection: Connection) -> str:
        """Return the position up to which the rows that are read next, if they are all, have every change.

        It is "" if only the time of the look is known.
        """

    @abstractmethod
    def _read(self, connection: Connection, limit: int) -> list[QueuedRow]:
        """Return rows of the queue, at most `limit`."""

    @abstractmethod
    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows by one statement, and no others."""

    def _rights(self, connection: Connection) -> Iterable[Step]:
        """Return what lets the user who reads the source empty the queue."""
        return ()

    # What they share

    def setup(self) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""
        queue = self.named
        with self._connect(WHAT) as connection:
            old = [Step(sql) for sql in dict.fromkeys(self._old(connection))]
            triggers = [step for table in self.tables for step in self._triggers(connection, table)]
            rights = list(self._rights(connection))
        columns = "id, source" if self.first_number else "source"
        numbers = [f"{self.first_number} + {n}, " if self.first_number else "" for n in range(len(self.tables))]
        rows = [f"({number}{text(str(table))})" for number, table in zip(numbers, self.tables, strict=True)]
        steps = [
            *self.begin,
            *old,
            Step(f"DROP TABLE IF EXISTS {queue}"),
            Step(self._create(), "The queue. A row without a key means that all of a table changed."),
            *triggers,
            *rights,
            Step(
                f"INSERT INTO {queue} ({columns}) VALUES {', '.join(rows)}",
                "It tells the watch to compare everything once: nobody knows what changed before the triggers.",
            ),
            *([Step("COMMIT")] if self.begin else []),
        ]
        removal = [*old, Step(f"DROP TABLE {queue}"), *([Step(f"DROP SCHEMA {self.schema}")] if self.schema else [])]
        title = f"rag-index: follow changes by triggers (queue {queue})"
        return Setup(title, f"{COSTS}{self.unseen}", steps, removal, self._position())

    def problems(self) -> dict[WatchedTable, SettingsError]:
        """Check triggers and rights; return why changes of some tables are not seen."""
        found: dict[WatchedTable, SettingsError] = {}
        with self._connect(WHAT) as connection:
            if not sa.inspect(connection).has_table(self.name, schema=self.schema):
                raise SettingsError(f"the source has no queue {self.named}; {SETUP}")
            for table in self.tables:
                try:
                    if not self._has_triggers(connection, table):
                        reason = "has no triggers, or they do not fit the settings, or were switched off"
                        raise SettingsError(f"table {table} {reason}; {SETUP} again")
                except SettingsError as error:
                    found[table] = error
        try:
            with self._connect(WHAT, self._writer) as connection:
                self._delete(connection, [self.no_row])
        except SourceError as error:
            raise SettingsError(f"rows of the queue cannot be deleted: {error}; {SETUP}") from error
        return found

    def warnings(self) -> list[str]:
        """Return a warning if nobody has read the queue for long."""
        with self._connect(WHAT) as connection:
            age = max((time.time() - row.changed_at for row in self._read(connection, 1)), default=0.0)
        remedy = "start `rag-index watch`, or remove the triggers as `rag-index watch --setup` says"
        said = f"nobody has read the queue of changes for {age / 3600:.1f} hours: {remedy}"
        return [said] if age > UNREAD_SECONDS else []

    def rows(self, limit: int) -> ReceivedRows:
        """Return the changes of at most `limit` rows of the queue, without waiting for any."""
        looked_at = time.time()
        with self._connect(WHAT) as connection:
            end = self._end(connection)
            read = self._read(connection, limit + 1)
        more, given = len(read) > limit, read[:limit]
        # many readings of a few rows would take the processor from the batch that is being indexed
        self._rest_until = self.clock() + PROBE_SECONDS if given else 0.0
        through = None if more else Position(looked_at, end, "queue")
        changes, overflow = [], set()
        for row in given:
            table = self._by_name.get(row.source)
            if table is not None and row.values is not None and len(row.values) == len(table.columns):
                changes.append(RowChange(table, row.values, row.changed_at))
            elif table is not None:  # also of a row that triggers of other settings noted
                overflow.add(table)
        return ReceivedRows(changes, [row.token for row in given], more, overflow, through)

    def acknowledge(self, received: Received | ReceivedRows) -> None:
        """Delete exactly the rows that were received."""
        if received.position:
            with self._connect(WHAT, self._writer) as connection:
                self._delete(connection, received.position)
            if self._engine.dialect.name == "sqlite":  # hold the file open for writing no longer than needed
                self._writer.dispose()

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._writer.dispose()

    def _look(self, connection: Connection) -> bool:
        return connection.execute(self._has_rows).first() is not None

    def _watched_types(self, connection: Connection, source: str) -> list[Any] | None:
        """Return the types of a table's watched columns; None if the table is gone, or not watched any more."""
        table = self._by_name.get(source)
        if table is not None and source not in self._typed:
            with suppress(SettingsError):
                types = self._types(connection, table)
                self._typed[source] = [types[name] for name in table.columns]
        return self._typed.get(source)

    def _names(self, table: WatchedTable) -> dict[str, str]:
        """Return a trigger's name for each kind. It depends on everything that the trigger does with the table."""
        used = None if table.used is None else sorted(table.used)
        does = json.dumps([VERSION, table.schema, table.name, table.columns, used])
        digest = hashlib.sha256(does.encode()).hexdigest()[:8]
        return {kind: object_name(self.project, digest, kind) for kind in self.kinds}


def text(value: str) -> str:
    """Return a text for a statement. A backslash, which MariaDB would interpret, is none of a table's name."""
    return "'" + value.replace("'", "''") + "'"


def queue_kind(url: URL) -> type[QueueFeed]:
    """Return the kind of queue for the database of a URL: the settings have checked that there is one."""
    kind: type[QueueFeed] = resolve_name(f"{__name__}.{QUEUES[url.get_backend_name()]}")
    return kind


def open_queue(url: URL, *given: Any, **named: Any) -> QueueFeed:
    """Return the feed of the queue in the database of a URL; the other arguments are those of `QueueFeed`."""
    return queue_kind(url)(url, *given, **named)
