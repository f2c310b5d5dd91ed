"""The table in which triggers note changes, and its feed; what differs between databases is in a module for each. One
table of a project holds the changes of all watched tables. Writers only append to it, in their own transactions. The
watch reads rows and later deletes exactly these, so the order of commits does not matter: a position by number or time
would miss what commits late."""

from __future__ import annotations

import hashlib
import json
import time
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import sqlalchemy as sa

from rag_index.components.ledger.tables import Position
from rag_index.components.sources.engine import open_writable
from rag_index.core.settings.sections import WATCH_QUEUES
from rag_index.errors import SettingsError, SourceError
from rag_index.watch.changes.rows import (
    CHANGES_PROBE_SECONDS,
    SETUP,
    ReceivedRows,
    RowChange,
    RowFeed,
    Setup,
    Step,
    WatchedTable,
    literal,
    object_name,
)

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

    from rag_index.components.ledger import Ledger
    from rag_index.watch.changes import Received

__all__ = ["QueueFeed", "QueuedRow", "open_queue", "queue_kind"]

QUEUE_COSTS = """\
Each insert, delete, and update of a column that documents show adds a row to the queue, in the writer's own
transaction. `benchmarks/watch_writers.py` measures it; benchmarks/README.md has figures.
The queue grows while no watch runs; `rag-index doctor` tells.
Columns that a trigger names can be renamed or dropped only after the trigger: remove, change, set up again.
"""
TRIGGER_VERSION = 4
"""Belongs to the names of triggers; a change of what they do makes new names, so that `check` notices old ones."""
THE_QUEUE = "the queue of changes"
UNREAD_SECONDS = 600.0
"""How old the first row may be before that is said."""


class QueuedRow(NamedTuple):
    """A row of the queue."""

    token: Any
    """What `_delete` needs."""
    source: str
    values: tuple[Any, ...] | None
    """The values of the table's watched columns; None: the whole table may have changed, or is gone."""
    changed_at: float
    mark: str
    """What tells this row from every other that the queue may ever have; begins with what `marked` looks for, and @."""


@dataclass(eq=False)
class QueueFeed(RowFeed):
    """The changes that triggers noted. Rows are read without a lock, and deleted after they were acknowledged. Without
    a ledger, a feed cannot tell whether this is the queue that was read before."""

    ledger: Ledger | None = field(default=None, kw_only=True)

    kinds: ClassVar[tuple[str, ...]] = ("insert", "update", "delete")
    """The triggers of each table."""
    unseen: ClassVar[str] = ""
    """What they do not see, and what else concerns this kind of database, in lines."""
    schema: ClassVar[str | None] = None
    """The schema of the queue; None: that of the connection."""
    begin: ClassVar[tuple[Step, ...]] = ()
    """What precedes the steps of a setup; if there is any, COMMIT ends them."""
    last: ClassVar[tuple[Step, ...]] = ()
    """What ends the removal."""
    first_number: ClassVar[str] = ""
    """Where rows have numbers, the first of a new queue: none of an earlier queue may come again."""
    digits: ClassVar[int] = 6
    """How many decimals of a second the time of a change has."""
    marked: ClassVar[str] = "id = :first"
    """The condition for the row whose mark begins with `first`."""
    no_row: ClassVar[Any] = 0
    """The token of a row that does not exist, to try whether rows may be deleted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._writer = open_writable(self.url).execution_options(isolation_level="AUTOCOMMIT")
        self._by_name = {str(table): table for table in self.tables}
        self._typed: dict[str, list[Any]] = {}
        self._slot, self._latest = f"queue {self.name}", 0.0
        self._marked: str | None = None

    @property
    def named(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def _put(self) -> str:
        """Return how each statement begins that adds to the queue: by that, triggers of any version are known."""
        return f"INSERT INTO {self.named} ("

    # What differs between databases

    @abstractmethod
    def _old(self, connection: Connection) -> Iterable[str]:
        """Return the statements that drop what this project made, what is there and what is made now."""

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

    def _end(self, connection: Connection) -> str:
        """Return the position up to which the rows that are read next, if they are all, have every change. It is "" if
        only the time of the look is known. Here it is the last number. An application gets its number after its commit.
        If it is a lower one, these rows or earlier ones have all that the application committed."""
        return str(connection.scalar(sa.text(f"SELECT max(id) FROM {self.name}")) or "")

    @abstractmethod
    def _read(self, connection: Connection, limit: int, where: str = "", **given: Any) -> list[QueuedRow]:
        """Return rows of the queue, at most `limit`, for which a condition holds."""

    @abstractmethod
    def _delete(self, connection: Connection, tokens: Sequence[Any]) -> None:
        """Delete these rows by one statement, and no others."""

    @staticmethod
    def _order(row: QueuedRow) -> Any:
        """Return what is higher for a newer row."""
        return row.token

    def _rights(self, connection: Connection) -> Iterable[Step]:
        """Return what lets the user who reads the source empty the queue."""
        return ()

    # What they share

    def setup(self) -> Setup:
        """Return the SQL that makes table and triggers. Raises SettingsError if a table cannot be followed."""
        queue = self.named
        with self._connect(THE_QUEUE) as connection:
            old = [Step(sql) for sql in dict.fromkeys(self._old(connection))]
            triggers = [step for table in self.tables for step in self._triggers(connection, table)]
            rights = list(self._rights(connection))
        columns = "id, source" if self.first_number else "source"
        numbers = [f"{self.first_number} + {n}, " if self.first_number else "" for n in range(len(self.tables))]
        names = [literal(str(table), self.url.get_backend_name()) for table in self.tables]
        rows = [f"({number}{name})" for number, name in zip(numbers, names, strict=True)]
        steps = [
            *self.begin,
            *old,
            Step(f"DROP TABLE IF EXISTS {queue}"),
            Step(self._create(), "The queue. A row without a key means that all of a table changed."),
            *triggers,
            *rights,
            Step(
                f"INSERT INTO {queue} ({columns}) VALUES {', '.join(rows)}",
                "It tells the watch to compare everything once, because changes before the triggers are unknown.",
            ),
            *([Step("COMMIT")] if self.begin else []),
        ]
        removal = [*old, Step(f"DROP TABLE {queue}"), *self.last]
        title = f"rag-index: follow changes by triggers (queue {queue})"
        return Setup(title, f"{QUEUE_COSTS}{self.unseen}", steps, removal, self._position())

    def problems(self) -> dict[WatchedTable, SettingsError]:
        found: dict[WatchedTable, SettingsError] = {}
        with self._connect(THE_QUEUE) as connection:
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
            with self._connect(THE_QUEUE, self._writer) as connection:
                self._delete(connection, [self.no_row])
        except SourceError as error:
            raise SettingsError(f"rows of the queue cannot be deleted: {error}; {SETUP}") from error
        return found

    def warnings(self) -> list[str]:
        with self._connect(THE_QUEUE) as connection:
            unread = [row.changed_at for row in self._read(connection, 2) if row.mark != self._mark()]
        age = max((time.time() - changed_at for changed_at in unread[:1]), default=0.0)
        remedy = "start `rag-index watch`, or remove the triggers as `rag-index watch --setup` says"
        said = f"the queue of changes has not been read for {age / 3600:.1f} hours: {remedy}"
        return [said] if age > UNREAD_SECONDS else []

    def rows(self, limit: int) -> ReceivedRows:
        """Return the changes of at most `limit` rows of the queue, without waiting for any.

        The newest row that was acknowledged is still in the queue. If it is not, this is not the queue that was read:
        it was made again, or is an older copy.
        """
        looked_at, mark = time.time(), self._mark()
        with self._connect(THE_QUEUE) as connection:
            end = self._end(connection)
            read = [row for row in self._read(connection, limit + 2) if row.mark != mark]
            kept = self._kept(connection, mark)
        more, given, overflow = len(read) > limit, read[:limit], set[WatchedTable]()
        # many readings of a few rows would take the processor from the batch that is being indexed
        self._rest_until = self.clock() + CHANGES_PROBE_SECONDS if given else 0.0
        if is_lost := not kept and mark != "":
            overflow, self._latest = set(self.tables), 0.0
        self._latest = max([self._latest, *(row.changed_at for row in (*kept, *given))])
        if end and self.first_number:
            end = self._place(int(end), self._latest)
        through = None if more else Position(looked_at, end, "queue")
        changes = []
        for row in given:
            table = self._by_name.get(row.source)
            if table is not None and row.values is not None and len(row.values) == len(table.columns):
                changes.append(RowChange(table, row.values, row.changed_at))
            elif table is not None:  # also of a row that triggers of other settings noted
                overflow.add(table)
        if not given and not is_lost:
            return ReceivedRows([], None, more, overflow, through)
        newest = max((*kept, *given), key=self._order, default=None)
        done = [row.token for row in (*kept, *given) if row is not newest]
        return ReceivedRows(changes, (newest.mark if newest else "", done), more, overflow, through)

    def acknowledge(self, received: Received | ReceivedRows) -> None:
        """Delete exactly the rows that were received, but the newest one, which the ledger knows by its mark."""
        if received.position is None:
            return
        mark, done = received.position
        if self.ledger is not None:
            self.ledger.remember_slot(self._slot, mark)
        if done:
            with self._connect(THE_QUEUE, self._writer) as connection:
                self._delete(connection, done)
            if self._engine.dialect.name == "sqlite":  # hold the file open for writing no longer than needed
                self._writer.dispose()
        self._marked = mark

    def close(self) -> None:
        super().close()
        self._writer.dispose()

    def _look(self, connection: Connection) -> bool:
        first = (self._mark() or "").partition("@")[0]
        condition, given = (f" WHERE NOT {self.marked}", {"first": first}) if first else ("", {})
        return connection.execute(sa.text(f"SELECT 1 FROM {self.named}{condition} LIMIT 1"), given).first() is not None

    def _mark(self) -> str | None:
        """Return the mark of the newest row that was acknowledged; "" if there was none, None if that is unknown."""
        if self._marked is None:
            self._marked = "" if self.ledger is None else self.ledger.slot_position(self._slot)
        return self._marked

    def _kept(self, connection: Connection, mark: str | None) -> list[QueuedRow]:
        found = self._read(connection, 100, f"WHERE {self.marked}", first=mark.partition("@")[0]) if mark else []
        return [row for row in found if row.mark == mark][:1]

    def _place(self, number: int, changed_at: float) -> str:
        """Return a position: a number alone would not tell an abandoned history from one that was put back."""
        return f"{number}@{changed_at:.{self.digits}f}"

    def _watched_types(self, connection: Connection, source: str) -> list[Any] | None:
        table = self._by_name.get(source)
        if table is not None and source not in self._typed:
            with suppress(SettingsError):
                types = self._types(connection, table)
                self._typed[source] = [types[name] for name in table.columns]
        return self._typed.get(source)

    def _names(self, table: WatchedTable) -> dict[str, str]:
        used = None if table.used is None else sorted(table.used)
        does = json.dumps([TRIGGER_VERSION, table.schema, table.name, table.columns, used])
        digest = hashlib.sha256(does.encode()).hexdigest()[:8]
        return {kind: object_name(self.project, digest, kind) for kind in self.kinds}


def queue_kind(url: URL) -> type[QueueFeed]:
    """Return the kind of queue for the database of a URL: the settings have checked that there is one."""
    kind: type[QueueFeed] = resolve_name(f"{__name__}.{WATCH_QUEUES[url.get_backend_name()]}")
    return kind


def open_queue(url: URL, *given: Any, **named: Any) -> QueueFeed:
    """Return the feed of the queue in the database of a URL; the other arguments are those of `QueueFeed`."""
    return queue_kind(url)(url, *given, **named)
