"""What a database holds, read in seconds: its tables with keys and foreign keys, and a bounded
sample of their rows."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects.mysql import BIT
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.types import _Binary

from rag_index.components.sources.engine import (
    errors_as_ours,
    limit_on_server,
    limited,
    open_read_only,
)
from rag_index.components.sources.policies import RowPolicies, read_policies
from rag_index.components.sources.source_tables import relation
from rag_index.components.sources.undecoded import Undecoded, readable
from rag_index.components.sources.value_text import value_sql
from rag_index.core.database import failure_of
from rag_index.errors import SourceTimedOut
from rag_index.first_run.schema.candidates import split_id
from rag_index.first_run.schema.columns import MAX_CHARS, Column
from rag_index.first_run.schema.tables import MAX_ROWS, Table, literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.first_run.schema.candidates import Kind
    from rag_index.first_run.schema.columns import Kind as ColumnKind

Progress = Callable[[int, int, str], object]
SAMPLED_ROWS, FEWEST_ROWS = 300, 60
MAX_SAMPLES = 60_000
"""All rows that are looked at: of many tables, fewer rows each."""
COUNTED_ROWS = 2_000
"""Rows of a larger table whose characters are counted."""
SECONDS = 5.0
"""How long one query may take. What takes longer is left out."""
MAX_COUNTED = 50
"""Values of a column that are counted: one with more says no state."""
MANY_COLUMNS = 100
"""Fewer rows are counted of a table with more columns: each question reads whole rows."""
CHECKED_VALUES = 60
"""Values of a column that are looked up in another table's key."""
_TOKEN = re.compile(r'\$visible\(((?:"(?:[^"]|"")*"|[^()"])+)\)')
SYSTEM_SCHEMAS = re.compile(r"information_schema|pg_.*|sys|mysql|performance_schema")


KINDS: tuple[tuple[Any, ColumnKind], ...] = (
    (sa.JSON | sa.ARRAY, "json"),
    (sa.Uuid, "id"),
    (TSVECTOR, "other"),
    (sa.String | sa.Enum, "text"),
    (sa.Boolean | BIT, "bool"),
    (sa.Numeric | sa.Integer, "number"),
    (sa.DateTime | sa.Date, "time"),
    (_Binary, "bytes"),
)
"""The kinds of types: the first that fits counts. `TSVECTOR` is a `String`, and no text."""


@dataclass(slots=True)
class DatabaseCatalog:
    """The tables of a database. Each question about its rows is asked once, over a new connection
    if need be."""

    tables: list[Table]
    views: list[str]
    connection: Connection
    url: URL
    policies: RowPolicies = field(default_factory=RowPolicies)
    notes: tuple[str, ...] = ()
    """What the user may not read, a sentence each with the right to ask for."""
    decided: dict[str, str] = field(default_factory=dict)
    """In SQL, which rows candidates show, by their ids: what stands for `$visible(ID)`."""
    read_columns: dict[Column, Column] = field(default_factory=dict)
    """What columns hold, which is found once."""
    _known: dict[Any, Any] = field(default_factory=dict)

    def _asked(self, sql: str, values: Sequence[Any] = (), *, is_raw: bool = False) -> Any:
        """Return the rows of a statement, as `_rows` does, from the database if it was not asked
        before."""
        question = (sql, *values)
        if question not in self._known:
            is_open = not self.connection.closed
            with nullcontext(self.connection) if is_open else _connected(self.url) as connection:
                self._known[question] = _try(connection, sql, values, is_raw=is_raw)
        return self._known[question]

    @property
    def is_mysql(self) -> bool:
        """Return whether it is one of MariaDB or MySQL."""
        return self.connection.dialect.name in ("mysql", "mariadb")

    def shows(self, table: Table, column: str, key: str, kind: Kind, values: Iterable[str]) -> str:
        """Return in SQL that a column, or a key of its JSON, has one of these values, as the
        settings have them."""
        sql = value_sql(self.connection.dialect)
        text = sql.text(table.columns[column].sql, split_id(key), kind=kind)
        return sql.is_any(text, values)

    def value_rows(
        self, table: Table, column: Column, key: str = "", kind: Kind = "value"
    ) -> list[tuple[str, int]]:
        """Return the values of a column, or of a key of its JSON, with their rows, the most common
        first.

        Of a large table, or of one with many columns, the first rows are counted. [] is returned
        for more than `MAX_COUNTED` values, and if the database cannot count them.
        """
        sql = value_sql(self.connection.dialect)
        limit = MAX_ROWS if len(table.columns) <= MANY_COLUMNS else 2 * SAMPLED_ROWS
        expression = sql.text(column.sql, split_id(key), kind=kind)
        grouped = _grouped(expression, table, limit)
        rows = self._asked(grouped, is_raw=True) or ()
        if len(rows) > MAX_COUNTED:
            return []
        share = max(1.0, table.rows / limit)
        found = []
        for value, count in rows:
            # bytes that are no text keep a mark: such a value has no name in the settings
            text = value.decode(errors="replace") if isinstance(value, bytes) else sql.read(value)
            found.append((text, round(int(count) * share)))
        return sorted(found, key=lambda value_rows: (-value_rows[1], value_rows[0]))

    def is_key(self, table: Table, names: Sequence[str]) -> bool:
        """Return whether columns are a key, though none is declared: first in the sample, then in
        all rows."""
        # a large table is not scanned
        if not table.counted:
            return False
        rows = table.rows_of(*names)
        is_key = len({*rows}) == len(rows) > 0 and not any(None in row for row in rows)
        if not is_key or table.is_whole:
            return is_key
        columns = [table.columns[name].sql for name in names]
        nulls = [f"{column} IS NULL" for column in columns]
        again = " OR ".join(["COUNT(*) > 1", *nulls])
        key = ", ".join(columns)
        rows = self._asked(f"SELECT 1 FROM {table.sql} GROUP BY {key} HAVING {again} LIMIT 1")
        return bool(rows == [])

    def chars(self, table: Table, names: Sequence[str]) -> dict[str, int]:
        """Return how many characters each column has: counted, or about if the table is large."""
        if not names:
            return {}
        sums: list[int] = []
        longest = 0
        cast = "CHAR" if self.is_mysql else "TEXT"
        lengths = []
        for column in map(table.columns.__getitem__, names):
            sampled = [*map(_length, column.given)]
            sums.append(sum(sampled))
            longest = max(longest, *sampled, 0)
            text = column.sql if column.kind == "bytes" else f"CAST({column.sql} AS {cast})"
            lengths.append(f"SUM(LENGTH({text}))")
        # the sample has all texts, uncut
        if table.is_whole and longest < MAX_CHARS:
            return dict(zip(names, sums, strict=True))
        limit = MAX_ROWS if table.counted else COUNTED_ROWS
        some = f"(SELECT * FROM {table.sql} LIMIT {limit}) AS first_rows"
        found = self._asked(f"SELECT {', '.join(lengths)} FROM {some}")
        if found:
            counted = found[0]
            rows = table.rows if table.counted else COUNTED_ROWS
        else:
            counted = sums
            rows = max(1, table.sampled)
        chars = [round(int(value or 0) * table.rows / rows) for value in counted]
        return dict(zip(names, chars, strict=True))

    def rows_that(self, table: Table, condition: str) -> int:
        """Return how many rows meet a condition, of a large table about; -1 if the database cannot
        say."""
        if not table.rows:
            return -1
        read = table.sql
        if not table.counted:
            read = f"(SELECT * FROM {table.sql} LIMIT {MAX_ROWS}) AS first_rows"
        rows = self._asked(f"SELECT COUNT(*) FROM {read} WHERE {self._expanded(condition)}")
        if not rows:
            return -1
        share = max(1.0, table.rows / MAX_ROWS)
        return round(int(rows[0][0]) * share)

    def texts_that(self, table: Table, name: str, condition: str, limit: int) -> list[str]:
        """Return some texts of a column of rows that meet a condition."""
        is_given = f"{table.columns[name].sql} IS NOT NULL AND ({condition})"
        found = self.rows_with(table, [name], is_given, limit)
        return [str(value) for (value,) in found]

    def whole_texts(self, table: Table, column: Column, limit: int) -> list[str]:
        """Return the texts of a column in the first rows, which the sample may have cut."""
        text = value_sql(self.connection.dialect).text(column.sql)
        found = self._asked(f"SELECT {text} FROM {table.sql} LIMIT {limit}", is_raw=True)
        texts = []
        for (value,) in found or ():
            is_bytes = isinstance(value, bytes)
            texts.append(value.decode(errors="replace") if is_bytes else str(value))
        return texts

    def rows_with(
        self, table: Table, names: Sequence[str], condition: str, limit: int
    ) -> list[tuple[Any, ...]]:
        """Return the values of some columns in the first rows that meet a condition."""
        columns = ", ".join(table.columns[name].sql for name in names)
        where = self._expanded(condition)
        found = self._asked(f"SELECT {columns} FROM {table.sql} WHERE {where} LIMIT {limit}")
        return [*(found or ())]

    def _expanded(self, sql: str) -> str:
        """Return SQL with the conditions in place of each `$visible(ID)`."""
        return _TOKEN.sub(lambda found: self.decided[found[1]], sql)

    def counts(self, table: Table, column: Column) -> Counter[Any]:
        """Return the rows of each value of a column, of the first rows of a large table; none if it
        has many values."""
        found = Counter[Any]()
        for value in column.values:
            is_blank = isinstance(value, str) and not value.strip()
            found["" if is_blank else value] += 1
        if any(isinstance(value, bytes | dict | list) for value in found):
            return Counter()
        if len(found) <= MAX_COUNTED and not table.is_whole:
            expression = _value(self.connection, column)
            grouped = _grouped(expression, table, MAX_ROWS)
            for value, rows in self._asked(grouped) or ():
                found[value] = max(1, rows)
        return found if len(found) <= MAX_COUNTED else Counter()

    def texts_with_rows(self, table: Table, name: str) -> dict[str, int]:
        """Return all texts of a column with their rows, of a table that is larger than its sample
        as far as `MAX_ROWS` have them."""
        column = table.columns[name]
        if table.is_whole:
            return dict(Counter(value for value in column.given if isinstance(value, str)))
        some = f"SELECT {column.sql} AS one FROM {table.sql} LIMIT {MAX_ROWS}"
        grouped = f"SELECT one, COUNT(*) FROM ({some}) AS first_rows GROUP BY one"
        return {one: int(rows) for one, rows in self._asked(grouped) or () if isinstance(one, str)}

    def values_with(self, table: Table, name: str, other: str, value: Any) -> list[Any]:
        """Return some values of a column where another one has this value: the sampled ones, if
        there are any."""
        found = []
        for other_value, own in table.rows_of(other, name):
            if other_value == value and own is not None:
                found.append(own)
        if found:
            return found
        column = table.columns[name].sql
        where = f"{table.columns[other].sql} = {literal(value)} AND {column} IS NOT NULL"
        sql = f"SELECT {column} FROM {table.sql} WHERE {where} LIMIT {CHECKED_VALUES}"
        return [row[0] for row in self._asked(sql) or ()]

    def share_found(self, values: Sequence[Any], table: Table, column: str) -> float:
        """Return the share of these values that a column of the table has."""
        asked = list(dict.fromkeys(values))
        # from all over the sample: the first keys are in each table
        step = 1 + len(asked) // CHECKED_VALUES
        asked = asked[::step]
        if not asked:
            return 0.0
        if table.is_whole:
            found = {*map(str, table.columns[column].values)} & {*map(str, asked)}
            return len(found) / len(asked)
        name = table.columns[column].sql
        rows = self._asked(f"SELECT DISTINCT {name} FROM {table.sql} WHERE {name} IN", asked)
        found = {str(row[0]) for row in rows or ()}
        return len(found) / len(asked)


def _grouped(expression: str, table: Table, limit: int) -> str:
    """Return in SQL the values of an expression with their rows, of the first rows of a table."""
    some = f"SELECT {expression} AS one FROM {table.sql} LIMIT {limit}"
    # one more shows that there are too many
    most = MAX_COUNTED + 1
    return f"SELECT one, COUNT(*) FROM ({some}) AS first_rows GROUP BY one LIMIT {most}"


@contextmanager
def read_catalog(url: URL, progress: Progress | None = None) -> Iterator[DatabaseCatalog]:
    """Yield the tables of all schemas of a database that are not its own. Nothing is written, and
    no table is scanned.

    `progress` is called before each table with how many were read, how many there are, and its
    name.

    Raises:
        SettingsError: there is no such file, or no driver.
        SourceUnavailable, SourceError: the database does not answer, or cannot be read.
    """
    with _connected(url) as connection:
        inspector = sa.inspect(connection)
        default = inspector.default_schema_name
        tables: list[Table] = []
        views: list[str] = []
        for schema in _schemas(connection, inspector):
            named = None if schema == default else schema
            tables += _declared(connection, inspector, named)
            views += [
                f"{named}.{view}" if named else view
                for view in inspector.get_view_names(schema=named)
            ]
        sampled = max(FEWEST_ROWS, min(SAMPLED_ROWS, MAX_SAMPLES // max(1, len(tables))))
        notes = _without_rights(connection, tables)
        for number, table in enumerate(tables):
            if progress is not None:
                progress(number, len(tables), table.name)
            if not table.problem:
                share = max(1, len(table.columns) // MANY_COLUMNS)
                _read_rows(connection, table, max(FEWEST_ROWS, sampled // share))
                table.key = table.key or (_unique(inspector, table) if table.rows else [])
        policies = read_policies(connection, [relation(one.schema, one.own_name) for one in tables])
        for table in tables:
            if not (table.rows or table.problem):
                table.problem = "; ".join(
                    policies.of([relation(table.schema, table.own_name)]).notes()
                )
        yield DatabaseCatalog(tables, views, connection, url, policies, notes)


@contextmanager
def _connected(url: URL) -> Iterator[Connection]:
    """Yield a connection that cannot write, with limits."""
    engine = open_read_only(url, any_text=True)
    try:
        with ExitStack() as stack:
            stack.enter_context(errors_as_ours(url, "init"))
            connection = stack.enter_context(engine.connect())
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter(
                "ignore", exc.SAWarning
            )  # types that SQLAlchemy does not know are left out
            if connection.dialect.name != "sqlite":
                limit_on_server(connection, SECONDS, streams=False)
            yield connection
    finally:
        engine.dispose()


def _schemas(connection: Connection, inspector: Any) -> list[str | None]:
    """Return the schemas to read. What MariaDB and MySQL call schemas are other databases."""
    default = inspector.default_schema_name
    if connection.dialect.name in ("sqlite", "mysql", "mariadb"):
        return [default]
    found = [name for name in inspector.get_schema_names() if not SYSTEM_SCHEMAS.fullmatch(name)]
    return sorted(found, key=lambda name: (name != default, name))


def _declared(connection: Connection, inspector: Any, schema: str | None) -> list[Table]:
    """Return the tables of a schema with what is declared of them; one that is broken has its
    problem."""
    kinds = ("columns", "pk_constraint", "foreign_keys")
    problems: dict[str, str] = {}

    def read(**only: Any) -> list[Any]:
        return [getattr(inspector, f"get_multi_{kind}")(schema=schema, **only) for kind in kinds]

    try:
        columns, keys, references = read()
    except (
        exc.SQLAlchemyError
    ) as error:  # one table whose module or definition is missing: look at each alone
        _check(connection, error)
        columns, keys, references = {}, {}, {}
        for name in inspector.get_table_names(schema):
            try:
                found = read(filter_names=[name])
                columns, keys, references = (
                    columns | found[0],
                    keys | found[1],
                    references | found[2],
                )
            except exc.SQLAlchemyError as broken:
                problems[name] = _check(connection, broken)
    left_out = _within_others(connection, schema or inspector.default_schema_name)
    quote = connection.dialect.identifier_preparer.quote
    tables = []
    for place, found in sorted(columns.items(), key=lambda item: str(item[0][1])):
        name = place[1]
        if name in left_out:
            continue
        key = (keys.get(place) or {}).get("constrained_columns") or []
        sql = f"{quote(schema)}.{quote(name)}" if schema else quote(name)
        named = {column["name"]: _column(column, quote) for column in found}
        tables.append(Table(schema, str(name), [*key], named, references.get(place) or (), sql))
    if connection.dialect.name == "sqlite":
        for table in tables:
            _without_own_collations(connection, table)
    return tables + [
        Table(schema, name, [], {}, (), name, problem=problem) for name, problem in problems.items()
    ]


def _column(declared: Any, quote: Callable[[str], str]) -> Column:
    """Return a column as the inspector of SQLAlchemy describes it."""
    name = declared["name"]
    type_ = declared["type"]
    is_enum = isinstance(type_, sa.Enum)
    nullable = declared.get("nullable", True)
    return Column(name, quote(name), _kind(type_), nullable, is_enum=is_enum)


def _without_own_collations(connection: Connection, table: Table) -> None:
    """Leave out texts, and tables by their keys, with a collation that only the application has."""
    made = (
        connection.exec_driver_sql(
            "SELECT sql FROM sqlite_master WHERE name = ?", (table.own_name,)
        ).scalar()
        or ""
    )
    if not {name.lower() for name in re.findall(r"(?i)\bCOLLATE\s+\W?(\w+)", made)} - {
        "binary",
        "nocase",
        "rtrim",
    }:
        return
    for name, column in table.columns.items():
        try:
            connection.exec_driver_sql(
                f"SELECT 1 FROM {table.sql} WHERE {column.sql} < '' LIMIT 0"
            ).fetchall()
        except exc.SQLAlchemyError as error:
            problem = _check(connection, error)
            problem = "needs a collation that the application alone has"
            table.columns[name] = replace(column, sql=f"({column.sql} || '')", problem=problem)
            if name in table.key:
                table.problem = f"its key {name} needs the application: {problem}"


def _without_rights(connection: Connection, tables: Sequence[Table]) -> tuple[str, ...]:
    """Leave out what the user of PostgreSQL may not read, and return the rights to ask for, a
    sentence each."""
    if connection.dialect.name != "postgresql":
        return ()
    denied = """SELECT n.nspname, c.relname, a.attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE a.attnum > 0 AND NOT a.attisdropped
        AND NOT has_column_privilege(c.oid, a.attnum, 'SELECT')"""
    found: dict[tuple[str, str], set[str]] = {}
    for schema, table, column in connection.exec_driver_sql(denied):
        found.setdefault((schema, table), set()).add(column)
    default = sa.inspect(connection).default_schema_name
    notes = []
    current = str(connection.scalar(sa.text("SELECT current_user")))
    user = connection.dialect.identifier_preparer.quote(current)
    for table in tables:
        place = (str(table.schema or default), table.own_name)
        names = found.get(place, set()) & table.columns.keys()
        if names and names == table.columns.keys():
            table.problem = f"ask for GRANT SELECT ON {table.sql} TO {user}"
        elif names:
            columns = ", ".join(one.sql for name, one in table.columns.items() if name in names)
            right = f"GRANT SELECT ({columns}) ON {table.sql} TO {user}"
            notes.append(f"{table.name}: not all columns can be read: {right}")
            table.columns = {name: one for name, one in table.columns.items() if name not in names}
            if not names.isdisjoint(table.key):
                table.key = []
            table.declared = [
                reference
                for reference in table.declared
                if names.isdisjoint(reference["constrained_columns"])
            ]
    return tuple(notes)


def _within_others(connection: Connection, schema: str) -> set[str]:
    """Return the tables that are partitions of another one, or hold what a virtual table of SQLite
    shows."""
    if connection.dialect.name == "sqlite":
        rows = connection.exec_driver_sql("PRAGMA table_list").fetchall()
        return {str(row[1]) for row in rows if row[2] == "shadow"}
    if connection.dialect.name != "postgresql":
        return set()
    names = (
        "SELECT relname FROM pg_class WHERE relispartition AND relnamespace::regnamespace::text ="
        " :name"
    )
    return {str(row[0]) for row in connection.execute(sa.text(names), {"name": schema})}


def _check(connection: Connection, error: exc.SQLAlchemyError) -> str:
    """Return the database's message, ready for the next statement; raise the error if the
    connection is lost."""
    if not isinstance(error, exc.DBAPIError):
        return str(error)
    failure = failure_of(error, connection.engine.url, "[source] url")
    if failure.lost:
        raise error
    connection.rollback()
    return failure.message


def _unique(inspector: Any, table: Table) -> list[str]:
    """Return the columns of a unique index or constraint without NULL in the sample; [] if there is
    none."""
    indexes = inspector.get_indexes(table.own_name, schema=table.schema)
    unique = [index for index in indexes if index.get("unique")]
    unique += inspector.get_unique_constraints(table.own_name, schema=table.schema)
    filled = {name for name, column in table.columns.items() if None not in column.values}
    found = []
    for index in unique:
        names = index["column_names"]
        if names and filled.issuperset(names):
            found.append([*names])
    return min(found, key=len, default=[])


def _read_rows(connection: Connection, table: Table, sampled: int) -> None:
    """Count the rows of a table, and give its columns the values of a sample of them."""
    sqlite = connection.dialect.name == "sqlite"
    read = [name for name, one in table.columns.items() if one.kind != "other" or sqlite]
    rows: list[Any] = []
    try:
        rows = _sample(connection, table, read, sampled)
    except exc.DBAPIError as error:
        table.problem = _check(connection, error)
    values = (
        dict(zip(read, zip(*rows, strict=True), strict=True)) if rows else dict.fromkeys(read, ())
    )
    for name, column in table.columns.items():
        found = values.get(name, (None,) * len(rows))
        kind = _kind_of_values(column.kind, found) if sqlite else column.kind
        if (
            sqlite and kind != "bytes"
        ):  # a column of SQLite takes bytes, whatever it was declared as
            found = tuple(None if isinstance(value, bytes) else value for value in found)
        table.columns[name] = replace(column, kind=kind, values=found)


def _kind(kind: Any) -> ColumnKind:
    """Return the kind of a column's type."""
    kind = getattr(kind, "data_type", kind)  # a DOMAIN of PostgreSQL
    if getattr(kind, "display_width", None) == 1:  # what MariaDB and MySQL make of BOOLEAN
        return "bool"
    return next((name for types, name in KINDS if isinstance(kind, types)), "other")


def _kind_of_values(kind: ColumnKind, values: Sequence[Any]) -> ColumnKind:
    """Return the kind of a column of SQLite, which is that of its values, whatever type was
    declared."""
    types = Counter(type(value) for value in values if value is not None)
    if types.keys() == {bytes}:
        return "bytes"
    if (
        kind in ("number", "other", "bool") and str in types
    ):  # `false` is a text if it was written as one
        return (
            "text" if kind == "bool" or types.keys() == {str} else "other"
        )  # a text has to be one in each row
    if kind == "other" and types:
        return "number" if types.keys() <= {int, float} else kind
    return kind


def _sample(connection: Connection, table: Table, names: Sequence[str], sampled: int) -> list[Any]:
    """Count the rows of a table, and return some: from the beginning and the end of the key.

    They are the first ones if there is no key, and all if they are few, for which one statement is
    enough.
    """
    columns = ", ".join(_value(connection, table.columns[name]) for name in names)
    select = f"SELECT {columns} FROM {table.sql}"
    key = [table.columns[name].sql for name in table.key] if {*table.key} <= {*names} else []
    first = f"{select} ORDER BY {', '.join(key)}" if key else select
    rows = _rows(connection, f"{first} LIMIT {sampled + 1}") if columns else None
    if rows is not None and len(rows) <= sampled:
        table.rows = len(rows)
        return list(rows)
    some = f"(SELECT 1 FROM {table.sql} LIMIT {MAX_ROWS + 1}) AS first_rows"
    found = _rows(connection, f"SELECT COUNT(*) FROM {some}")
    table.rows = found[0][0] if found else MAX_ROWS + 1
    if table.rows > MAX_ROWS:
        table.rows = max(table.rows, _about(connection, table))
    if not key:
        return [*(rows or ())][:sampled]
    half = sampled // 2
    backwards = ", ".join(f"{column} DESC" for column in key)
    last = _rows(connection, f"{select} ORDER BY {backwards} LIMIT {half}")
    return [*(rows or ())[:half], *(last or ())]


def _about(connection: Connection, table: Table) -> int:
    """Return about how many rows a large table has, as the database knows without counting; 0 if it
    does not."""
    if connection.dialect.name == "sqlite":
        sql = f"SELECT MAX(rowid) FROM {table.sql}"
    elif connection.dialect.name == "postgresql":
        sql = f"SELECT reltuples FROM pg_class WHERE oid = to_regclass({literal(table.sql)})"
    else:
        sql = (
            "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND"
            f" table_name = {literal(table.own_name)}"
        )
    rows = _try(connection, sql)
    # a table of SQLite may have no row ids
    return int(rows[0][0] or 0) if rows else 0


def _length(value: Any) -> int:
    if not isinstance(value, str | bytes):
        value = str(value)
    return len(value)


def _value(connection: Connection, column: Column) -> str:
    """Return in SQL what is read of a column: of long values only the beginning."""
    if column.kind == "bool" and connection.dialect.name in ("mysql", "mariadb"):
        return f"{column.sql} + 0"  # a BIT is bytes
    if column.kind not in ("text", "bytes", "json"):
        return column.sql
    return f"SUBSTR({_readable(connection, column)}, 1, {MAX_CHARS})"


def _readable(connection: Connection, column: Column) -> str:
    """Return in SQL a text, an object or an array of a column, or its bytes."""
    if connection.dialect.name != "postgresql" or column.kind == "bytes":
        return column.sql
    if column.kind == "json":
        # an array is no JSON
        return f"CAST(TO_JSONB({column.sql}) AS TEXT)"
    return f"CAST({column.sql} AS TEXT)"


def _try(
    connection: Connection, sql: str, values: Sequence[Any] = (), *, is_raw: bool = False
) -> Sequence[Any] | None:
    """Return the rows of a statement; None if it takes too long, or the database refuses it."""
    try:
        return _rows(connection, sql, values, is_raw=is_raw)
    except exc.DBAPIError as error:
        _check(connection, error)
        return None


def _rows(
    connection: Connection, sql: str, values: Sequence[Any] = (), *, is_raw: bool = False
) -> Sequence[Any] | None:
    """Return the rows of a statement, which may end with a list of values; None if it takes too
    long.

    Texts with invalid bytes are decoded as a person would read them, unless `is_raw`.
    """
    named = {f"v{number}": value for number, value in enumerate(values)}
    listed = f" ({', '.join(f':{name}' for name in named)})" if named else ""
    try:
        with limited(connection, SECONDS, "the source"):
            found = connection.execute(sa.text(sql.replace(":", "\\:") + listed), named).fetchall()
    except SourceTimedOut:
        connection.rollback()
        return None
    return [tuple(row) if is_raw else tuple(map(_shown, row)) for row in found]


def _shown(value: Any) -> Any:
    """Return a value as a person sees it, who may have to answer what it means."""
    value = readable(value)
    return value.decode("utf-8", "replace") if isinstance(value, Undecoded) else value
