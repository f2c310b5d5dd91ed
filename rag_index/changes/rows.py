"""Changes of rows: the tables that are watched, what their rows mean, and what the feeds of a database share."""

from __future__ import annotations

import hashlib
import re
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import exc

from rag_index.changes import DocumentChange, Received
from rag_index.documents.keys import document_id, encode_key
from rag_index.errors import SettingsError, SourceError
from rag_index.sources.engine import limited, open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection, Engine

    from rag_index.ledger.records import Position

SETUP = "run the SQL that `rag-index watch --setup` prints"
MAX_NAME = 60
"""PostgreSQL cuts names at 63 bytes, and MariaDB refuses more than 64."""
TIMEOUT = 600.0
PROBE_SECONDS = 0.2
"""The time between two looks whether anything has changed, which cost the source next to nothing."""


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

    def require(self, kind: str | None, columns: Iterable[str]) -> None:
        """Raise SettingsError if the source has no such table: it has a `kind` (None: nothing) with these columns."""
        if kind is None:
            raise SettingsError(f"there is no table {str(self)!r} in the source whose changes could be followed")
        if kind != "table":
            raise SettingsError(
                f"{str(self)!r} is a {kind}, whose changes cannot be followed: name its tables in depends_on"
            )
        for column in sorted({*self.columns, *(self.used or ())}.difference(columns)):
            raise SettingsError(f"table {str(self)!r} has no column {column!r}, which the settings name")


@dataclass(frozen=True, slots=True)
class RowChange:
    """A row that was inserted, updated or deleted.

    An update that changes one of `table.columns` gives two of these: the values before, and the values after.
    """

    table: WatchedTable
    values: tuple[Any, ...]
    """The values of `table.columns`, of the type that the driver gives when it reads these."""
    changed_at: float
    """The time of the change, in seconds since 1970 by the clock of the source."""


@dataclass(frozen=True, slots=True)
class ReceivedRows:
    """What a feed of rows gave at once: `Received` before it is known which documents show these rows."""

    changes: Sequence[RowChange]
    position: Any = None
    more: bool = False
    overflow: Iterable[WatchedTable] = ()
    """Tables whose changes the feed cannot name, such as after TRUNCATE or when it has just been set up."""
    through: Position | None = None


@dataclass(frozen=True, slots=True)
class RowRoute:
    """What rows of a table mean for the documents of one index."""

    index: str
    table: str
    """The name of the table, with its schema unless that is the default one."""
    keys: tuple[str, ...]
    """The columns of the table whose values make the document id, or the value of `column`."""
    column: str | None = None
    """The column of the index to look up; None if the values of `keys` are the document's key."""


@dataclass(eq=False)
class RowFeed(ABC):
    """Follows rows of a database's tables, and tells which documents show them, as a `ChangeFeed`.

    A row of an index's own table is the document of its key. For a row of a table in `depends_on`, the documents that
    show it have the same value in `column`. If that column is the key, the value is the id. Otherwise it becomes a
    look-up.
    """

    url: URL
    tables: Sequence[WatchedTable]
    project: str
    routes: Sequence[RowRoute] = ()
    timeout: float = field(default=TIMEOUT, kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    _probe: Connection | None = field(default=None, init=False)
    """A connection that looks again and again, without a transaction that would stay open."""
    _rest_until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.name = object_name(self.project)
        self._routes: dict[str, list[RowRoute]] = {}
        for route in self.routes:
            self._routes.setdefault(route.table, []).append(route)
        self._engine = open_read_only(self.url)

    @abstractmethod
    def problems(self) -> dict[WatchedTable, SettingsError]:
        """Return why changes of some of the tables are not seen.

        Raises SourceUnavailable, SourceError, or SettingsError if none is seen."""

    @abstractmethod
    def warnings(self) -> list[str]:
        """Return what may become a problem, a sentence each, such as changes that nobody takes."""

    @abstractmethod
    def rows(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any."""

    @abstractmethod
    def acknowledge(self, received: Received | ReceivedRows) -> None:
        """Let the source forget these changes. Raises SourceUnavailable or SourceError."""

    @abstractmethod
    def _look(self, connection: Connection) -> bool:
        """Return whether there may be changes."""

    def check(self) -> dict[str, SettingsError]:
        """Check that the feed is set up; return why changes of some indexes are not seen."""
        return {name: error for table, error in self.problems().items() for name in self.indexes([table])}

    def indexes(self, tables: Iterable[WatchedTable] | None = None) -> list[str]:
        """Return the names of the indexes that show rows of these tables, by default of any."""
        names = self._routes if tables is None else map(str, tables)
        return sorted({route.index for name in names for route in self._routes.get(name, ())})

    def receive(self, limit: int) -> Received:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any."""
        return self.route(self.rows(limit))

    def route(self, rows: ReceivedRows) -> Received:
        """Return what these rows mean."""
        changes, overflow = [], set(self.indexes(rows.overflow))
        for row in rows.changes:
            values = dict(zip(row.table.columns, row.values, strict=True))
            for route in self._routes.get(str(row.table), ()):
                parts = [values[key] for key in route.keys]
                if None in parts:  # a document has a whole key, and NULL joins with nothing
                    continue
                try:
                    key = encode_key(parts)
                except SourceError:  # a value of a type that no key has
                    overflow.add(route.index)
                    continue
                sought = document_id(key) if route.column is None else key
                changes.append(DocumentChange(route.index, sought, row.changed_at, route.column))
        through = dict.fromkeys(self.indexes(), rows.through) if rows.through is not None else {}
        return Received(changes, rows.position, rows.more, sorted(overflow), through)

    def wait(self, seconds: float) -> None:
        """Return after this many seconds, or when there may be changes."""
        until = self.clock() + seconds
        while (left := until - self.clock()) > 0:
            if self.clock() >= self._rest_until:
                try:
                    if self._probe is None:
                        self._probe = self._engine.execution_options(isolation_level="AUTOCOMMIT").connect()
                    if self._look(self._probe):
                        return
                except exc.SQLAlchemyError:  # `rows` says so
                    self._close_probe()
                    return
            time.sleep(min(left, PROBE_SECONDS))

    def close(self) -> None:
        """Close the connections."""
        self._close_probe()
        self._engine.dispose()

    def _close_probe(self) -> None:
        if self._probe is not None:
            with suppress(exc.SQLAlchemyError):
                self._probe.invalidate()
                self._probe.close()
        self._probe = None

    @contextmanager
    def _connect(self, what: str, engine: Engine | None = None) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours; `what` names what is read."""
        with (
            errors_as_ours(self.url, what),
            (engine or self._engine).connect() as connection,
            limited(connection, self.timeout, what),
        ):
            yield connection


class Step(NamedTuple):
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
    costs: str
    """What it costs the source and those who write to it, in lines."""
    steps: Sequence[Step]
    removal: Sequence[Step]
    position: str = ""
    """The statement by which an application learns the position of what it has committed."""

    def script(self) -> str:
        """Return all of it as SQL. The removal is commented out."""
        lines = [f"-- {self.title}", "--", "-- What it costs:", *(f"--   {line}" for line in self.costs.splitlines())]
        for step in self.steps:
            lines += ["", *step.lines()]
        if self.position:
            lines += ["", "-- After its commit, an application learns by this up to where an answer has to reach:"]
            lines += [f"--   {self.position};"]
        lines += ["", "-- To remove all of it:"]
        lines += [f"--   {line}" for step in self.removal for line in step.lines()]
        return "\n".join(lines) + "\n"


@contextmanager
def errors_as_ours(url: URL, what: str) -> Iterator[None]:
    """Raise errors of the database as SourceUnavailable or SourceError; `what` names what is read."""
    try:
        yield
    except exc.SQLAlchemyError as error:
        raise source_error(error, url, what) from error


@contextmanager
def connected(url: URL, what: str) -> Iterator[Connection]:
    """Yield a connection to a source that cannot write, for the time of the block. Raises as `errors_as_ours`."""
    engine = open_read_only(url)
    try:
        with errors_as_ours(url, what), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def quoted(name: str, mark: str = '"') -> str:
    """Return a name for a statement."""
    return mark + name.replace(mark, mark * 2) + mark


def object_name(project: str, *parts: str) -> str:
    """Return a name of this project, which says whose it is and begins with `rag_index_`.

    It has only lower-case letters, digits and `_`, as the name of a slot must. Whatever is lost by that comes back as a
    digest at its end, so that names of different projects differ.
    """
    whole = "_".join(["rag_index", project, *parts])
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: MAX_NAME - 9].rstrip('_')}_{digest}"
