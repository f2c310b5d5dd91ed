"""The rows that documents and their parts are read from, as subqueries: a table or a query,
conditions, and joins.

Whatever an index declares becomes a subquery with the columns that it names, so that paging,
digests, look-ups and checks handle one kind of source. Each table with a condition is a subquery of
its own, in which the condition can name columns as they are. A database can flatten all of it:
there is no aggregate, no order and no limit.

A column of a join is named `NAME.column` in the result. `check_columns` checks that all tables and
columns exist and can be read.
"""

from __future__ import annotations

import itertools
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.types import TupleType, UserDefinedType

from rag_index.components.sources.undecoded import Undecoded, is_invalid_text
from rag_index.core.database import did_you_mean, failure_of
from rag_index.core.documents.keys import document_id
from rag_index.core.settings.parts import JoinSettings, PartSettings, split_name
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.components.sources.pages import Row
    from rag_index.core.settings import IndexSettings

T = TypeVar("T")
ROWS = "_rows"
"""The name of the table's own rows beside those of joins. No join has such a name."""
Needed = dict[str | None, tuple[str, ...]]
"""The columns that are needed of the table itself (None) and of each join."""
CHECKED_ROWS = 5
"""Rows by which the types of texts and keys are checked. Chosen; nothing depends on it: a value that
is no text costs its document alone."""
VALUES_AT_ONCE = 200
"""Values, or keys, that one statement compares with: databases limit the parameters of a statement,
SQLite before 3.32 to 999."""
_END = re.compile(r"(?:[\s;]|--[^\n'\"`]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*\Z")
"""Semicolons and comments at the end of a query. A comment with a quote stays: it may be the end of
a text."""
_NAME = r'(?:"(?:[^"]|"")*+"|`[^`]*+`|\[[^\]()]*+\]|\w++)'
_TOKENS = re.compile(
    rf"(?:\b[eE]'(?:[^'\\]|\\.|'')*+|'(?:[^']|'')*+)'|\$(?P<tag>\w*+)\$.*?(?:\$(?P=tag)\$|\Z)|--[^\n]*+"
    rf"|/\*.*?(?:\*/|\Z)|{_NAME}(?:\s*\.\s*{_NAME})*+|[(),]",
    re.DOTALL,
)
"""The tokens of a query: names, parentheses and commas, and texts and comments, in which there are
none of these."""
TEXT_TYPES = (str, dict, list, UUID, Undecoded)
"""The types of values that become texts without a format."""
_QUOTES = ('"', "`", "[")
_WORDS = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)?")
_NO_NAME = re.compile(r"[eE]?'|\$|--|/\*")
_END_OF_TABLES = frozenset(
    [
        "EXCEPT",
        "FETCH",
        "FOR",
        "GROUP",
        "HAVING",
        "INTERSECT",
        "LIMIT",
        "OFFSET",
        "ORDER",
        "SELECT",
        "UNION",
        "VALUES",
        "WHERE",
        "WINDOW",
    ]
)


@dataclass(frozen=True, slots=True)
class SourceTable:
    """A table that an index reads, with the columns that it needs."""

    table: str
    schema: str | None
    columns: tuple[str, ...]
    """The columns that the settings name, once each, without those of conditions."""
    place: str
    """The place in the settings, for a message: "" for the own table, "join customer", "part
    remark"."""


def document_columns(index: IndexSettings) -> list[str]:
    """Return all columns of documents that the settings of an index name, those of joins as
    `NAME.column`."""
    columns = [*index.shown_columns, index.access_column, index.language_column]
    for part in index.parts:
        columns += [column for _, column in part.pairs(index.key_columns)]
    return _unique([*columns, *_on(index.joins)])


def own_columns(index: IndexSettings) -> tuple[str, ...]:
    """Return the columns of its own table or query that an index needs."""
    needed = _needed(document_columns(index), index.joins)
    return needed[None]


def _part_columns(part: PartSettings, key: Sequence[str]) -> list[str]:
    columns = [column for column, _ in part.pairs(key)]
    columns += part.shown_columns
    columns += [name for name, _ in part.order]
    return _unique([*columns, *_on(part.joins)])


def _document_tables(index: IndexSettings) -> list[SourceTable]:
    columns = _unique([*document_columns(index), index.newest])
    return _tables(index, columns, "")


def _part_tables(part: PartSettings, key: Sequence[str]) -> list[SourceTable]:
    columns = _part_columns(part, key)
    return _tables(part, columns, f"part {part.label}")


def _tables(
    rows: IndexSettings | PartSettings, columns: Iterable[str], place: str
) -> list[SourceTable]:
    needed = _needed(columns, rows.joins)
    found = [SourceTable(rows.table or "", rows.db_schema, needed[None], place)]
    for name, join in rows.joins.items():
        inside = f"{place}, join {name}" if place else f"join {name}"
        found.append(SourceTable(join.table, join.db_schema, needed[name], inside))
    return found


def source_tables(index: IndexSettings) -> list[SourceTable]:
    """Return the tables that an index declares: its own, and those of joins and parts."""
    own, *joined = _document_tables(index)
    # An index with a query has no table of its own.
    tables = joined if index.table is None else [own, *joined]
    for part in index.parts:
        tables += _part_tables(part, index.key_columns)
    return tables


def relation(schema: str | None, table: str) -> str:
    """Return the quoted name of a table in SQL, such as `"Help Desk"."order"`."""
    names = [name.replace('"', '""') for name in (schema, table) if name]
    return ".".join(f'"{name}"' for name in names)


def relations_read(section: Mapping[str, Any], *, doubtful: bool = False) -> Iterator[str]:
    """Yield the relations that a section [[indexes]] names, also in its joins, parts, queries and
    conditions.

    Args:
        doubtful: Whether all words of queries are yielded, so that no relation is missed whatever
            the query looks like.
    """
    if section.get("table"):
        yield relation(section.get("schema"), section["table"])
    for inner in (*(section.get("joins") or {}).values(), *(section.get("parts") or ())):
        yield from relations_read(inner, doubtful=doubtful)
    for key in ("query", "access", "where"):
        query = str(section.get(key) or "")
        yield from tables_named(query)
        if doubtful:
            yield from _WORDS.findall(query)


def tables_named(query: str) -> Iterator[str]:
    """Yield the names of tables in a query or in a part of one: after FROM and JOIN, and after a
    comma in such a list."""
    # Whether a table may be next, and for each open parenthesis, whether a list of tables is in it.
    is_next = False
    lists = [False]
    for token in _TOKENS.finditer(query):
        word = token[0].upper()
        if word == "(":
            # In FROM (note, author), the list goes on inside of the parentheses.
            lists.append(is_next)
        elif word == ")":
            lists = lists[:-1] or [False]
            is_next = False
        elif word == ",":
            # FROM note, author
            is_next = lists[-1]
        elif word in ("FROM", "JOIN", "STRAIGHT_JOIN"):
            lists[-1] = is_next = True
        elif word in _END_OF_TABLES:
            # FROM note WHERE …
            lists[-1] = is_next = False
        elif is_next and word not in ("ONLY", "LATERAL") and not _NO_NAME.match(word):
            yield token[0]
            # FROM note n: the alias is no table.
            is_next = False


def tables_read(connection: Connection, names: Iterable[str]) -> set[str]:
    """Return the names, without schemas, of the tables among these relations and below their
    views."""
    inspector: Any = sa.inspect(connection)
    found: set[str] = set()
    schemas = {name.lower(): name for name in inspector.get_schema_names()}
    # Tables below views are appended during the loop.
    waiting = list(names)
    for relation_name in waiting:
        *before, name = map(_unquoted, re.findall(_NAME, relation_name))
        schema = schemas.get(before[-1].lower()) if before else None
        # A word with a dot that is no table, such as `note.id`
        if before and schema is None:
            continue
        tables = inspector.get_table_names(schema=schema)
        if connection.dialect.name == "postgresql":
            tables += inspector.get_materialized_view_names(schema=schema)
            tables += inspector.get_foreign_table_names(schema=schema)
        table = _stored_name(name, tables)
        if table is not None:
            found.add(table)
            continue
        view = _stored_name(name, inspector.get_view_names(schema=schema))
        if view is None:
            continue
        # MariaDB shows the definition only to a user with the right SHOW VIEW.
        with suppress(exc.DBAPIError, NotImplementedError):
            definition = inspector.get_view_definition(view, schema=schema) or ""
            waiting += [below for below in tables_named(definition) if below not in waiting]
    return found


def _unquoted(name: str) -> str:
    if name.startswith(_QUOTES):
        return name[1:-1]
    return name


def _stored_name(name: str, names: Sequence[str]) -> str | None:
    """Return a name in the spelling of the database, which ignores the case; None if it has no such
    name."""
    if name in names:
        return name
    for stored in names:
        if stored.lower() == name.lower():
            return stored
    return None


def documents_from(index: IndexSettings) -> FromClause:
    """Return the rows of documents of an index without decisions (`decisions.decided`).

    Raises:
        ValueError: The index has decisions, which its conditions do not contain yet.
    """
    if index.visible:
        raise ValueError(
            f"index {index.name}: what is visible must be decided before rows are read"
        )
    name = ROWS if index.joins else "documents"
    base = own_rows(index, own_columns(index), name)
    columns = document_columns(index)
    return _with_joins(base, columns, index.joins, index.name, "documents")


def own_rows(index: IndexSettings, columns: Iterable[str], name: str) -> FromClause:
    """Return the rows of the table or the query of an index with these columns, without its
    joins."""
    if index.query is not None:
        query = single_select(index.query, index.name)
        return query.columns(*map(sa.column, columns)).subquery(name)
    needed = tuple(_unique([*columns, index.newest]))
    table = _table(SourceTable(index.table or "", index.db_schema, needed, ""))
    conditions = _conditions(index.where, index.name)
    if index.newest is not None:
        # The version of a document without a later one
        newer = table.alias("newer")
        newest = table.c[index.newest]
        same = [newer.c[key] == table.c[key] for key in index.key_columns]
        later: Select[Any] = sa.select(sa.literal_column("1")).select_from(newer)
        later = later.where(*same, newer.c[index.newest] > newest)
        conditions = [newest.is_not(None), ~sa.exists(later), *conditions]
    return _rows(table, conditions, name)


def part_from(part: PartSettings, index: IndexSettings) -> FromClause:
    """Return the rows of a part."""
    own, *_ = _part_tables(part, index.key_columns)
    conditions = _conditions(part.where, index.name)
    name = ROWS if part.joins else part.label
    base = _rows(_table(own), conditions, name)
    columns = _part_columns(part, index.key_columns)
    return _with_joins(base, columns, part.joins, index.name, part.label)


def _table(table: SourceTable) -> sa.TableClause:
    columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in table.columns]
    return sa.table(table.table, *columns, schema=table.schema)


def _rows(
    table: sa.TableClause, conditions: Sequence[sa.ColumnElement[bool]], name: str
) -> FromClause:
    if not conditions:
        return table.alias(name)
    return sa.select(*table.c).where(*conditions).subquery(name)


def _conditions(where: str | None, index: str) -> list[sa.ColumnElement[bool]]:
    if where is None:
        return []
    condition = single_select(where, index, "condition")
    return [sa.text(f"({condition.text})")]  # type: ignore[list-item]


def _with_joins(
    base: FromClause, columns: list[str], joins: Mapping[str, JoinSettings], index: str, name: str
) -> FromClause:
    """Return rows with the columns of their joins, which are named `NAME.column`."""
    if not joins:
        return base
    froms: dict[str | None, FromClause] = {None: base}
    joined = base

    def column(name: str) -> sa.ColumnElement[Any]:
        join, own = split_name(name, joins)
        return froms[join].c[own]

    needed = _needed(columns, joins)
    for join_name, join in joins.items():
        table = _table(SourceTable(join.table, join.db_schema, needed[join_name], ""))
        rows = _rows(table, _conditions(join.where, index), join_name)
        condition = sa.and_(*[rows.c[own] == column(other) for own, other in join.pairs])
        joined = joined.join(rows, condition, isouter=not join.required)
        froms[join_name] = rows
    labelled = [column(column_name).label(column_name) for column_name in columns]
    return sa.select(*labelled).select_from(joined).subquery(name)


def _needed(columns: Iterable[str], joins: Mapping[str, JoinSettings]) -> Needed:
    """Return which columns are needed of the table itself (None) and of each join, with those that
    joins compare."""
    found: dict[str | None, list[str]] = {None: []}
    for name, join in joins.items():
        found[name] = [own for own, _ in join.pairs]
    for name in [*columns, *_on(joins)]:
        join_name, column = split_name(name, joins)
        found[join_name].append(column)
    return {name: tuple(_unique(columns)) for name, columns in found.items()}


def _on(joins: Mapping[str, JoinSettings]) -> list[str]:
    """Return the columns with which joins are compared."""
    columns: list[str] = []
    for join in joins.values():
        columns += [other for _, other in join.pairs]
    return columns


def _unique(names: Iterable[str | None]) -> list[str]:
    given = filter(None, names)
    return list(dict.fromkeys(given))


def check_columns(connection: Connection, index: IndexSettings) -> None:
    """Check that the query and all tables of an index have the columns that the settings name, and
    that texts are texts.

    Raises:
        SettingsError: A column is missing, or its values are no texts.
    """
    limit = 1 if index.has_files else CHECKED_ROWS
    if index.query is not None:
        _check_query(connection, index, limit)
    for table in source_tables(index):
        place = f"table {table.table!r}"
        if table.place:
            place += f" ({table.place})"
        statement = sa.select(_table(table))
        names, rows = first_rows(connection, index, statement, place, table=table, limit=limit)
        if not table.place:
            _check_texts(index, names, rows, place)


def _check_query(connection: Connection, index: IndexSettings, limit: int) -> None:
    columns = own_columns(index)
    every: Select[Any] = sa.select(sa.literal_column("*"))
    every = every.select_from(own_rows(index, columns, "documents"))
    names, rows = first_rows(connection, index, every, "the query", limit=limit)
    for name in columns:
        if name not in names:
            near = did_you_mean(name, names, all_of_them=True)
            raise SettingsError(
                f"index {index.name}: there is no column {name!r} in the query; {near}"
            )
    _check_texts(index, names, rows, "the query")


def first_rows(
    connection: Connection,
    index: IndexSettings,
    statement: Select[Any],
    what: str,
    *,
    limit: int = CHECKED_ROWS,
    table: SourceTable | None = None,
) -> tuple[list[str], Sequence[Row]]:
    """Return the names of the columns of a statement, and its first rows.

    Args:
        what: The name of the statement in a message, such as "the query".
        table: The table that it reads; a message suggests similar names of tables and columns.

    Raises:
        SettingsError: The statement cannot be run.
    """
    try:
        with connection.execute(statement.limit(limit)) as result:
            return list(result.keys()), result.fetchall()
    except exc.DBAPIError as error:
        failure = failure_of(error, connection.engine.url, "[source] url")
        if failure.transient or is_invalid_text(error):
            raise
        near = "" if table is None else _similar(connection, table)
        raise SettingsError(
            f"index {index.name}: {what} cannot be read: {failure.message}{near}"
        ) from error


def _similar(connection: Connection, table: SourceTable) -> str:
    """Return a suggestion for the name of a missing table or column, after "; ", or ""."""
    connection.rollback()
    with suppress(exc.SQLAlchemyError):
        inspector = sa.inspect(connection)
        tables = [*inspector.get_table_names(table.schema), *inspector.get_view_names(table.schema)]
        if not inspector.has_table(table.table, table.schema):
            near = did_you_mean(table.table, tables, all_of_them=True)
            return f"; {near}" if near else ""
        columns = [column["name"] for column in inspector.get_columns(table.table, table.schema)]
        for name in table.columns:
            if name not in columns:
                return f"; {did_you_mean(name, columns, all_of_them=True)}"
    return ""


def _check_texts(index: IndexSettings, names: list[str], rows: Sequence[Row], place: str) -> None:
    """Raise SettingsError if a column of texts without a format has values, and none is a text."""
    for name in index.text_columns:
        if name not in names or name in index.format:
            continue
        place_in_row = names.index(name)
        values = [row[place_in_row] for row in rows if row[place_in_row] is not None]
        if values and not any(isinstance(value, TEXT_TYPES) for value in values):
            raise SettingsError(
                f"index {index.name}: column {name!r} of {place} gives {type(values[0]).__name__}, "
                "not text; cast it in a query, or give it a format"
            )


def single_select(query: str, index: str, what: str = "query") -> sa.TextClause:
    """Return the query as `without_end` does. A colon in it never begins a parameter."""
    text = without_end(query, index, what)
    return sa.text(text.replace(":", "\\:"))


def without_end(query: str, index: str, what: str = "query") -> str:
    """Return the query without semicolons and comments at its end, ready to be put in parentheses,
    where the database refuses several statements.

    Args:
        what: The name of the query in a message.

    Raises:
        SettingsError: The query is empty.
    """
    end = _END.search(query)
    text = query[: end.start() if end else None].strip()
    if not text:
        raise SettingsError(f"index {index}: the {what} is empty; write one in SQL")
    # A line break ends what may be a comment in the last line.
    last_line = text.rpartition("\n")[2]
    return text + "\n" if re.search(r"--|#", last_line) else text


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the values in batches of as many as one statement compares with."""
    for first in range(0, len(values), VALUES_AT_ONCE):
        yield values[first : first + VALUES_AT_ONCE]


class Untyped(UserDefinedType[Any]):
    """A type that adds nothing. Unlike NullType, it keeps `IN` from taking the type of the
    column."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        """Send floats to PostgreSQL as text, which takes the type of the column. A `real` does not
        equal the float8 with its digits."""
        return _float_as_text if dialect.name == "postgresql" else None


def _float_as_text(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    # 2.0 as "2": the column may be of whole numbers.
    return str(int(value)) if value.is_integer() else repr(value)


def untyped(value: Any) -> sa.ColumnElement[Any]:
    """Return a bound value without a type, so that the database uses the type of the column that it
    is compared with."""
    if isinstance(value, Undecoded):
        return UndecodedText(value)
    return sa.literal(value, Untyped())


class UndecodedText(sa.sql.functions.GenericFunction[Any]):
    """A bound `Undecoded`. SQLite does not take such a text as a parameter, and casts its bytes to a
    text."""

    inherit_cache = True
    type = Untyped()

    def __init__(self, value: Undecoded) -> None:
        bound = sa.literal(value, Untyped())
        super().__init__(bound)


@compiles(UndecodedText)
def _parameter(element: UndecodedText, compiler: Any, **how: Any) -> str:
    return str(compiler.process(element.clauses, **how))


@compiles(UndecodedText, "sqlite")
def _cast_parameter(element: UndecodedText, compiler: Any, **how: Any) -> str:
    parameter = compiler.process(element.clauses, **how)
    return f"CAST({parameter} AS TEXT)"


def exact_text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the text of a column of MySQL, ordered and compared by its characters alone."""
    text = sa.cast(column, mysql.CHAR(charset="utf8mb4"))
    return text.collate("utf8mb4_bin")


def not_unique(index: IndexSettings, key: str) -> SourceError:
    """Return the error for a key that several rows have."""
    columns = ", ".join(index.key_columns) or index.kind
    return SourceError(
        f"index {index.name}: key {document_id(key)} ({columns})"
        " occurs more than once; name a key that is unique, of several columns if necessary"
    )


def equals_any(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Row], dialect: str = ""
) -> sa.ColumnElement[bool]:
    """Return the condition that a row has one of these values in the columns.

    Args:
        values: A value for each column, once or several times.
    """
    if dialect == "sqlite" and _have_undecoded(values):
        return _equals_one(columns, values)
    # id IN (1, 2)
    if len(columns) == 1:
        plain = [value for [value] in values]
        return columns[0].in_(sa.bindparam(None, plain, type_=Untyped(), expanding=True))
    rows = [tuple(row) for row in values]
    # (a, b) IN (SELECT … FROM (VALUES …)): PostgreSQL would compare each row with each value of a
    # list of rows, and its stack is too small for a long OR. The first of the joined rows has no
    # values, and gives the others the types of the columns.
    if dialect == "postgresql":
        names = [sa.column(f"value_{number}", Untyped()) for number in range(len(columns))]
        wanted = sa.values(*names, name="wanted").data([_no_values(columns), *rows])
        return sa.tuple_(*columns).in_(sa.select(wanted))
    # (a, b) IN (VALUES (1, 2), (3, 4))
    if dialect == "sqlite":
        types = [Untyped()] * len(columns)
        row_type = TupleType(*types)
        parameter = sa.bindparam(None, rows, type_=row_type, expanding=True)
        return sa.tuple_(*columns).in_(parameter)
    # Other databases may have no rows of values, and MariaDB does not convert the charset of those
    # that it has.
    return _equals_one(columns, values)


def _have_undecoded(values: Sequence[Row]) -> bool:
    every = itertools.chain.from_iterable(values)
    return any(isinstance(value, Undecoded) for value in every)


def _no_values(columns: Sequence[sa.ColumnElement[Any]]) -> tuple[Any, ...]:
    """Return a row that has the types of columns, and NULL as each value."""
    values: list[Any] = []
    for column in columns:
        nothing = sa.select(column).correlate(None).where(sa.false())
        values.append(nothing.scalar_subquery())
    return tuple(values)


def _equals_one(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Row]
) -> sa.ColumnElement[bool]:
    """Return a = 1 AND b = 2 OR a = 3 AND b = 4."""
    conditions: list[sa.ColumnElement[bool]] = []
    for row in values:
        pairs = zip(columns, row, strict=True)
        conditions.append(sa.and_(*[column == untyped(value) for column, value in pairs]))
    return sa.or_(sa.false(), *conditions)
