"""Changes of rows: the tables that are watched, what their rows mean, and what the feeds of a database share:
also statements for a person to run, and how names and texts are written in them."""

from __future__ import annotations

import hashlib
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.components.sources.engine import errors_as_ours, limited, open_read_only
from rag_index.components.sources.source_tables import (
    SourceTable,
    as_known,
    relations_read,
    single_select,
    source_tables,
    tables_read,
    used_columns,
)
from rag_index.core.documents.keys import document_id, encode_key
from rag_index.core.settings.index import SQL
from rag_index.errors import SettingsError, SourceError, printable
from rag_index.watch.changes import DocumentChange, Received

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection, Engine

    from rag_index.components.ledger.tables import Position
    from rag_index.core.settings import IndexSettings, Settings

MAX_OBJECT_NAME = 60
"""PostgreSQL cuts names at 63 bytes, and MariaDB refuses more than 64."""


class Step(NamedTuple):
    """A statement without its semicolon, and the reason for it. One of the two may be empty."""

    sql: str
    reason: str = ""

    def script(self) -> str:
        """Return both as SQL."""
        return (comment(self.reason) if self.reason else "") + (f"{self.sql};\n" if self.sql else "")


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
        costs = "".join(f"  {line}\n" for line in self.costs.splitlines())
        parts = [comment(f"{self.title}\n\nWhat it costs:\n{costs}"), *(step.script() for step in self.steps)]
        if self.position:
            said = "After its commit, an application learns by this up to where an answer has to reach:"
            parts.append(comment(f"{said}\n  {self.position};"))
        removal = "".join(step.script() for step in self.removal)  # a name may have lines of its own
        parts.append("".join(f"--   {line}\n" for line in removal[:-1].split("\n")))
        return "\n".join([*parts[:-1], f"-- To remove all of it:\n{parts[-1]}"])


def quoted(name: str, mark: str = '"') -> str:
    """Return a name for a statement. Raises SettingsError for one that no client passes on as it is."""
    if "\r" in name:
        raise SettingsError(f"the name {name!a} has a carriage return, which files of SQL do not keep: rename it")
    return mark + name.replace(mark, mark * 2) + mark


def literal(value: str, backend: str) -> str:
    """Return a text for a statement, which means the same however a session reads a backslash."""
    if "\\" in value and backend in ("mysql", "mariadb"):
        return f"_utf8mb4 X'{value.encode().hex()}'"
    escaped, double = value.replace("'", "''"), value.replace("'", "''").replace("\\", "\\\\")
    return f"E'{double}'" if "\\" in value and backend == "postgresql" else f"'{escaped}'"


def body(sql: str) -> str:
    """Return the body of a function for PostgreSQL, in dollars that do not occur in it."""
    mark = next(f"${'_' * number}$" for number in count() if f"${'_' * number}$" not in sql)
    return f"{mark}\n{sql}\n{mark}"


def comment(text: str) -> str:
    """Return a text as lines of a comment, whatever names it shows."""
    return "".join(f"-- {printable(line)}".rstrip() + "\n" for line in text.splitlines() or [""])


def object_name(project: str, *parts: str) -> str:
    """Return a name of this project, which says whose it is and begins with `rag_index_`. It has only lower-case
    letters, digits and `_`, as the name of a slot must. Whatever is lost by that comes back as a digest at its end, so
    that names of different projects differ."""
    whole = "_".join(["rag_index", project, *parts])
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_OBJECT_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: MAX_OBJECT_NAME - 9].rstrip('_')}_{digest}"


DEFINITIONS = {
    "postgresql": """
        WITH t AS (
            SELECT c.oid AS id, c.* FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE c.relname = :name AND
                  CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
        )
        SELECT a.attname, id, a.attnum, a.atttypid, a.atttypmod, a.xmin::text, pg_get_expr(d.adbin, d.adrelid),
               array(SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = a.atttypid ORDER BY e.enumsortorder)
        FROM t JOIN pg_attribute a ON a.attrelid = id AND a.attnum > 0 AND NOT a.attisdropped
        LEFT JOIN pg_attrdef d ON d.adrelid = id AND d.adnum = a.attnum
        UNION ALL
        SELECT NULL, id, NULL, p.oid, relforcerowsecurity::int, p.xmin::text, NULL, NULL
        FROM t LEFT JOIN pg_policy p ON p.polrelid = id WHERE relrowsecurity
        UNION ALL
        SELECT NULL, c.oid, NULL, c.relfilenode, NULL, NULL, NULL, NULL
        FROM t, pg_partition_tree(id) p JOIN pg_class c ON c.oid = p.relid WHERE t.relkind = 'p'
        ORDER BY 2, 3, 4""",
    "sqlite": """
        SELECT NULL, type, name, rootpage, sql FROM sqlite_master
        WHERE tbl_name = :name COLLATE NOCASE AND type IN ('table', 'trigger') ORDER BY type, name""",
    "mysql": """
        SELECT c.COLUMN_NAME, t.CREATE_TIME, c.COLUMN_TYPE, c.COLLATION_NAME, c.COLUMN_DEFAULT, c.GENERATION_EXPRESSION
        FROM information_schema.COLUMNS c JOIN information_schema.TABLES t USING (TABLE_SCHEMA, TABLE_NAME)
        WHERE c.TABLE_SCHEMA = COALESCE(:schema, DATABASE()) AND c.TABLE_NAME = :name ORDER BY c.ORDINAL_POSITION""",
}
"""What a table is: for each column its name and what changes whenever a statement makes other values of it without
writing rows. Rows without a name concern the whole table. `xmin` of a column is the transaction that last altered it;
a partition that was emptied has another file, and a policy decides which rows there are."""
SETUP = "run the SQL that `rag-index watch --setup` prints"
TIMEOUT = 600.0
CHANGES_PROBE_SECONDS = 0.2
"""The time between two looks whether anything has changed, which cost the source next to nothing."""


@dataclass(frozen=True, slots=True)
class WatchedTable:
    """A table whose changes are followed. Each table of the source occurs once, whatever indexes need it."""

    name: str
    """The name of a table, which is never a view."""
    schema: str | None
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
    """A row that was inserted, updated or deleted; two of them, before and after, if `table.columns` were updated."""

    table: WatchedTable
    values: tuple[Any, ...]
    """The values of `table.columns`, of the type that the driver gives when it reads these."""
    changed_at: float


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
    """Follows rows of a database's tables, and tells which documents show them, as a `ChangeFeed`. A row of an index's
    own table is the document of its key. For a row of a table in `depends_on`, the documents that show it have the same
    value in `column`. If that column is the key, the value is the id. Otherwise it becomes a look-up."""

    url: URL
    tables: Sequence[WatchedTable]
    project: str
    routes: Sequence[RowRoute] = ()
    timeout: float = field(default=TIMEOUT, kw_only=True)
    clock: Callable[[], float] = field(default=time.monotonic, kw_only=True)
    _rest_until: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self.name = object_name(self.project)
        self._routes: dict[str, list[RowRoute]] = {}
        for route in self.routes:
            self._routes.setdefault(route.table, []).append(route)
        self._engine = open_read_only(self.url)

    @abstractmethod
    def problems(self) -> dict[WatchedTable, SettingsError]:
        """Return why changes of some of the tables are not seen. Raises SourceUnavailable, SourceError, or
        SettingsError if none is seen."""

    @abstractmethod
    def warnings(self) -> list[str]:
        """Return what may become a problem, a sentence each, such as changes that no watch takes."""

    @abstractmethod
    def rows(self, limit: int) -> ReceivedRows:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any."""

    @abstractmethod
    def acknowledge(self, received: Received | ReceivedRows) -> None:
        pass

    @abstractmethod
    def _look(self, connection: Connection) -> bool:
        """Return whether there may be changes."""

    def check(self) -> dict[str, SettingsError]:
        return {name: error for table, error in self.problems().items() for name in self.indexes([table])}

    def indexes(self, tables: Iterable[WatchedTable] | None = None) -> list[str]:
        names = self._routes if tables is None else map(str, tables)
        return sorted({route.index for name in names for route in self._routes.get(name, ())})

    def receive(self, limit: int) -> Received:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any. What the tables are is
        read last: a claim must not reach beyond a statement that altered one."""
        received = self.route(self.rows(limit))
        if not (received.changes or received.overflow or received.through):
            return received
        definitions: dict[str, str] = {}
        with self._connect("the definition of the watched tables") as connection:
            for table in sorted(self.tables, key=str):
                found = definition(connection, [table])
                for index in self.indexes([table]):
                    definitions[index] = f"{definitions.get(index, '')} {found}".lstrip()
        return replace(received, definitions=definitions)

    def route(self, rows: ReceivedRows) -> Received:
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
        until, looking = self.clock() + seconds, self._engine.execution_options(isolation_level="AUTOCOMMIT")
        with suppress(exc.SQLAlchemyError), looking.connect() as connection:  # `rows` says what is wrong
            while (left := until - self.clock()) > 0:
                if self.clock() >= self._rest_until and self._look(connection):
                    return
                time.sleep(min(left, CHANGES_PROBE_SECONDS))

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def _connect(self, what: str, engine: Engine | None = None) -> Iterator[Connection]:
        """Yield a connection, and raise its errors as ours; `what` names what is read."""
        with (
            errors_as_ours(self.url, what),
            (engine or self._engine).connect() as connection,
            limited(connection, self.timeout, what),
        ):
            yield connection


@contextmanager
def connected(url: URL, what: str) -> Iterator[Connection]:
    """Yield a connection to a source that cannot write, for the time of the block. Raises as `errors_as_ours`."""
    engine = open_read_only(url)
    try:
        with errors_as_ours(url, what), engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def definition(connection: Connection, tables: Iterable[WatchedTable]) -> str:
    """Return a digest of what tables are: each itself, and the names, types and defaults of the columns that are used.
    It changes with each statement that makes other values without writing rows, as triggers and logs understand
    that."""
    backend, digest = connection.dialect.name, hashlib.sha256()
    statement = sa.text(DEFINITIONS["mysql" if backend == "mariadb" else backend])
    for table in tables:
        wanted = None if table.used is None else {None, *table.used, *table.columns}
        rows = connection.execute(statement, {"schema": table.schema, "name": table.name}).fetchall()
        said = [tuple(map(str, row)) for row in rows if wanted is None or row[0] in wanted]
        digest.update(repr((str(table), said)).encode())
    return digest.hexdigest()[:16]


CLOCK = re.compile(
    r"\b(now|curdate|curtime|sysdate|getdate|utc_timestamp|utc_date|unix_timestamp|random|rand)\s*\("
    r"|\b(current_date|current_time|current_timestamp|localtimestamp)\b"
    r"|\b(date|time|datetime|julianday|strftime)\s*\(([^()]*,)?\s*'now'",
    re.IGNORECASE,
)
"""What makes a query give something else although no row has changed."""

NAME_PATTERN = r'(?:"[^"]+"|`[^`]+`|\w+)'
PAIRS_QUERY = re.compile(
    rf"\s*SELECT\s+(?:DISTINCT\s+)?(?P<columns>.+?)\s+FROM\s+(?:(?P<schema>{NAME_PATTERN})\.)?(?P<table>{NAME_PATTERN})"
    rf"(?:\s+(?:AS\s+)?(?P<alias>{NAME_PATTERN}))??"
    r"(?P<rest>\s*,.*|\s+(?:JOIN|INNER|LEFT|CROSS|NATURAL|WHERE|GROUP|ORDER|LIMIT)\b.*)?\s*",
    re.IGNORECASE | re.DOTALL,
)
"""A query of pairs that says plainly which table has the keys: the first one that it reads."""

COLUMN = re.compile(
    rf"\s*(?:(?P<table>{NAME_PATTERN})\.)?(?P<name>{NAME_PATTERN})(?:\s+(?:AS\s+)?{NAME_PATTERN})?\s*", re.IGNORECASE
)
Name = tuple[str | None, str]
"""A table, by its schema (None: the default one) and name."""


@dataclass(slots=True)
class TablePlan:
    """The tables to watch, and what their rows mean."""

    tables: list[WatchedTable] = field(default_factory=list)
    routes: list[RowRoute] = field(default_factory=list)
    unwatched: dict[str, str] = field(default_factory=dict)
    """Why an index cannot be watched by its tables, by its name."""
    blind: dict[str, list[str]] = field(default_factory=dict)
    """What is not seen of an index, by its name, such as tables of a query that are not watched."""

    @property
    def notes(self) -> list[str]:
        return [f"index {name}: {one}: the next run finds that" for name, some in self.blind.items() for one in some]

    def add(self, index: str, table: Name, keys: Sequence[str], column: str | None, used: Iterable[str] | None) -> None:
        """Add what rows of a table mean for an index. Of a table, `used` are the columns whose update matters."""
        schema, name = table
        new = WatchedTable(name, schema, tuple(sorted(keys)), None if used is None else frozenset({*used, *keys}))
        self.routes.append(RowRoute(index, str(new), tuple(keys), column))
        for number, old in enumerate(self.tables):
            if str(old) == str(new):
                columns = tuple(sorted({*old.columns, *new.columns}))
                both = None if old.used is None or new.used is None else old.used | new.used
                self.tables[number] = WatchedTable(name, schema, columns, both)
                return
        self.tables = sorted([*self.tables, new], key=str)


def plan_tables(settings: Settings, indexes: Sequence[IndexSettings]) -> TablePlan:
    """Return the tables to watch for those of the indexes that are of kind sql. Whether they exist is what a feed
    checks. Raises SourceUnavailable, SourceError and SettingsError."""
    plan = TablePlan()
    with connected(settings.source_url, "the tables of the source") as connection:
        inspector = sa.inspect(connection)
        for index in indexes:
            if index.kind == SQL:
                _IndexTables(connection, inspector, index).add_to(plan)
    return plan


class _IndexTables:
    """The tables that an index reads."""

    def __init__(self, connection: Connection, inspector: sa.Inspector, index: IndexSettings) -> None:
        self._connection, self._inspector, self._index = connection, inspector, index

    def add_to(self, plan: TablePlan) -> None:
        """Add the tables whose changes concern documents, or the reason why that cannot be known."""
        index = self._index
        own = None if index.table is None else self._name(index.db_schema, index.table)
        if not index.depends_on and (own is None or self._is_view(own)):
            what = "query" if own is None else f"view {index.table}"
            plan.unwatched[index.name] = (
                f"list the tables that its {what} reads in depends_on, so that a change of them can be followed"
            )
            return
        watched = {entry.table.rpartition(".")[2] for entry in index.depends_on}
        for table in source_tables(index):
            name = self._name(table.schema, table.table)
            if not self._is_view(name):  # its tables are named, if depends_on does not list them
                plan.add(index.name, name, table.keys, table.look_up, self._used_columns(table))
                watched.add(name[1])
        for entry in index.depends_on:
            schema, _, named = entry.table.rpartition(".")
            column = None if index.key_columns == [entry.column] else entry.column
            plan.add(index.name, self._name(schema or None, named), [entry.key], column, None)
        if index.access_query is not None and (pairs := self._table_of_pairs(index)) is not None:
            plan.add(index.name, *pairs, None, None)
            watched.add(pairs[0][1])
        if blind := list(self._blind(watched)):
            plan.blind[index.name] = blind

    def _blind(self, watched: set[str]) -> Iterator[str]:
        index = self._index
        reads = tables_read(self._connection, relations_read(index.model_dump(by_alias=True)))
        if forgotten := sorted(reads - watched):
            yield f"depends_on does not list {', '.join(forgotten)}, from which documents or their groups are read"
        for entry in index.depends_on:
            if entry.column not in (*index.payload, *index.key_columns):
                yield (
                    f"column {entry.column!r} of depends_on is not in payload, so a document stays that the join no "
                    f"longer gives after a change of {entry.table}"
                )
        asked = " ".join(filter(None, [index.query, *[one for table in source_tables(index) for one in table.where]]))
        if now := CLOCK.search(asked):
            yield f"its query asks for the time ({now[0]}), so documents change without a change of a row"

    def _name(self, schema: str | None, table: str) -> Name:
        return None if schema == self._inspector.default_schema_name else schema, table

    def _table_of_pairs(self, index: IndexSettings) -> tuple[Name, tuple[str, ...]] | None:
        """Return the table whose rows are pairs of key and group, and its columns that have the key. None if the query
        does not say it plainly: a wrong table would look as if nothing changed."""
        found = PAIRS_QUERY.fullmatch(str(single_select(str(index.access_query), index.name)))
        rest = (found and found["rest"]) or ""
        if found is None or re.search(r"\b(UNION|INTERSECT|EXCEPT)\b", rest, re.IGNORECASE):
            return None
        if found["columns"].count("(") != found["columns"].count(")"):  # the table is that of a query within it
            return None
        joins = rest.lstrip().startswith(",") or re.search(r"\bJOIN\b", rest, re.IGNORECASE)
        parts = found["columns"].split(",")[: len(index.key_columns)]
        columns = [column for part in parts if (column := COLUMN.fullmatch(part)) is not None]
        own = {_plain(found["alias"] or found["table"])}
        if len(columns) < len(index.key_columns) or any(
            _plain(c["table"]) not in own if c["table"] else joins for c in columns
        ):
            return None
        schema = _plain(found["schema"]) if found["schema"] else None
        table = as_known(_plain(found["table"]), self._inspector.get_table_names(schema=schema))
        there = [c["name"] for c in self._inspector.get_columns(table, schema=schema)] if table else []
        keys = [known for c in columns if (known := as_known(_plain(c["name"]), there)) is not None]
        return (self._name(schema, table), tuple(keys)) if table and len(keys) == len(columns) else None

    def _used_columns(self, table: SourceTable) -> set[str]:
        """Return the columns of a table whose update matters, those that its conditions name among them."""
        used = used_columns(self._index, table)
        if table.where:
            there = [column["name"] for column in self._inspector.get_columns(table.table, schema=table.schema)]
            conditions = " ".join(table.where)
            used |= {name for name in there if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", conditions, re.IGNORECASE)}
        return used

    def _is_view(self, name: Name) -> bool:
        schema, table = name
        found = self._inspector.get_view_names(schema=schema)
        if self._connection.dialect.name == "postgresql":
            found = [*found, *self._inspector.get_materialized_view_names(schema=schema)]
        return table in found


def _plain(name: str) -> str:
    return name[1:-1] if name[0] in '"`' else name
