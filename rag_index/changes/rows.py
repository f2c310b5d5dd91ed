"""Changes of rows, as the feeds of a database give them, and the tables that they watch.

`watched_tables` says which tables an index needs, and turns changes of their rows into changes of documents.
Here is also what such feeds share: the look whether something changed, and the SQL by which a source is set up.
"""

from __future__ import annotations

from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.engine import Engine

    from rag_index.documents.positions import Position
    from rag_index.errors import SettingsError


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table whose changes are followed. Each table of the source occurs once, whatever indexes need it."""

    name: str
    """The name of a table, which is never a view."""
    schema: str | None
    """Its schema; None: the default one."""
    columns: tuple[str, ...]
    """The columns whose values tell which documents show a row, sorted."""
    used: frozenset[str] | None = None
    """The columns whose update matters (`columns` among them); None: all."""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was inserted, updated or deleted.

    An update that changes one of `table.columns` gives two of these: the values before, and the values after.
    """

    table: WatchedTable
    values: Mapping[str, Any]
    """The value of each of `table.columns`, of the type that the driver gives when it reads that column."""
    changed_at: float
    """The time of the change, in seconds since 1970 by the clock of the source."""


@dataclass(frozen=True, slots=True)
class ReceivedRows:
    """What a feed of rows gave at once: `Received` before it is known which documents show these rows."""

    changes: Sequence[RowChange]
    """In any order; a row may occur several times."""
    position: Any = None
    """What `acknowledge` needs."""
    more: bool = False
    """Whether the feed has more to give right now."""
    overflow: Sequence[WatchedTable] = field(default=())
    """Tables whose changes the feed cannot name, such as after TRUNCATE or when it has just been set up."""
    behind: bool = False
    """Whether a change committed before this call may still be missing."""
    through: Position | None = None
    """Up to where this and what was given before has every change of all tables, if that is known."""


class RowFeed(Protocol):
    """Tells which rows of watched tables changed, as `ChangeFeed` tells which documents did. Used by one thread."""

    def check(self) -> Mapping[WatchedTable, SettingsError]:
        """Return why changes of some of the tables are not seen.

        Raises SourceUnavailable, or SettingsError if none is seen."""

    def warnings(self) -> list[str]:
        """Return what may become a problem, a sentence each, such as changes that nobody takes.

        Raises SourceUnavailable or SourceError.
        """

    def receive(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any.

        Raises SourceUnavailable or SourceError."""

    def acknowledge(self, received: ReceivedRows) -> None:
        """Let the source forget these changes. Raises SourceUnavailable or SourceError."""

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds. Raises nothing."""

    def close(self) -> None:
        """Close connections."""


class Probe:
    """A connection that looks again and again whether there may be changes, and keeps no transaction open."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: Any = None

    def finds(self, look: Callable[[Any], bool]) -> bool:
        """Return what `look` returns of a cursor; True if the database does not answer, so that `receive` says so."""
        try:
            if self._connection is None:
                self._connection = self._engine.raw_connection()
                if self._engine.dialect.name == "postgresql":
                    self._connection.driver_connection.autocommit = True
            with closing(self._connection.cursor()) as cursor:
                found = look(cursor)
            if self._engine.dialect.name != "postgresql":
                self._connection.rollback()  # the next look needs a new snapshot
            return found
        except Exception:  # noqa: BLE001 - whatever it is, `receive` finds it too
            self.close()
            return True

    def close(self) -> None:
        """Close the connection. The next look opens another."""
        if self._connection is not None:
            with suppress(Exception):
                self._connection.invalidate()
        self._connection = None


@dataclass(frozen=True, slots=True)
class Step:
    """A statement without its semicolon, and the reason for it. One of the two may be empty."""

    sql: str
    reason: str = ""

    def lines(self) -> list[str]:
        """Return both as SQL."""
        return [*([f"-- {self.reason}"] if self.reason else []), *(f"{self.sql};".splitlines() if self.sql else [])]


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run so that a source tells its changes, and how to get rid of it."""

    title: str
    costs: tuple[str, ...]
    """What it costs the source and those who write to it; a sentence each."""
    steps: tuple[Step, ...]
    removal: tuple[Step, ...]
    position: str = ""
    """The statement by which an application learns the position of what it has committed."""

    def script(self) -> str:
        """Return all of it as SQL. The removal is commented out."""
        lines = [f"-- {self.title}", "--", "-- What it costs:"]
        lines += [f"--   {line}" for line in self.costs]
        for step in self.steps:
            lines += ["", *step.lines()]
        if self.position:
            lines += ["", "-- After its commit, an application learns by this up to where an answer has to reach:"]
            lines += [f"--   {self.position};"]
        lines += ["", "-- To remove all of it:"]
        lines += [f"--   {line}" for step in self.removal for line in step.lines()]
        return "\n".join(lines) + "\n"
