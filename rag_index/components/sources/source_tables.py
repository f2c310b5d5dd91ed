"""The rows that documents and their parts are read from, as subqueries: a table or a query,
conditions, and joins.

Whatever an index declares becomes a subquery with the columns that it names, so that paging,
digests, look-ups and checks know of one kind of source. Each table with a condition stands in a
subquery of its own, in which the condition can name columns as they are. All of it can be flattened
by a database: there is no aggregate, no order and no limit.

A column of a join is named `NAME.column` in the result. `check_columns` checks that all of it
exists and can be read.
"""

from __future__ import annotations

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
"""The rows of the table itself beside those that are joined, none of which has such a name."""
Needed = dict[str | None, tuple[str, ...]]
"""The columns that are needed of the table itself (None) and of each join."""
CHECKED_ROWS = 5
"""Rows that tell what texts and keys are. One value that is no text costs its document alone."""
VALUES_AT_ONCE = 200
"""Values, or keys, that one statement compares with: databases limit the parameters of a
statement."""
_END = re.compile(r"(?:[\s;]|--[^\n'\"`]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*\*/)*\Z")
"""Semicolons and comments at the end of a query. A comment with a quote may be the end of a text,
and stays."""
_NAME = r'(?:"(?:[^"]|"")*+"|`[^`]*+`|\[[^\]()]*+\]|\w++)'
_TOKENS = re.compile(
    rf"(?:\b[eE]'(?:[^'\\]|\\.|'')*+|'(?:[^']|'')*+)'|\$(?P<tag>\w*+)\$.*?(?:\$(?P=tag)\$|\Z)|--[^\n]*+"
    rf"|/\*.*?(?:\*/|\Z)|{_NAME}(?:\s*\.\s*{_NAME})*+|[(),]",
    re.DOTALL,
)
"""Names, parentheses and commas of a query, and the texts and comments that have none of these."""
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
    """What the settings call it, for a message: "", "join customer", "part remark"."""


def document_columns(index: IndexSettings) -> list[str]:
    """Return all columns of documents that the settings of an index name, those of joins as
    `NAME.column`."""
    on = [column for part in index.parts for _, column in part.pairs(index.key_columns)]
    return _unique(
        [*index.shown_columns, index.access_column, index.language_column, *on, *_on(index.joins)]
    )


def own_columns(index: IndexSettings) -> tuple[str, ...]:
    """Return the columns of its own table or query that an index needs."""
    return _needed(document_columns(index), index.joins)[None]


def _part_columns(part: PartSettings, key: Sequence[str]) -> list[str]:
    on = [column for column, _ in part.pairs(key)]
    return _unique([*on, *part.shown_columns, *[name for name, _ in part.order], *_on(part.joins)])


def _document_tables(index: IndexSettings) -> list[SourceTable]:
    columns = _unique([*document_columns(index), index.newest])
    return _tables(index, columns, "")


def _part_tables(part: PartSettings, key: Sequence[str]) -> list[SourceTable]:
    return _tables(part, _part_columns(part, key), f"part {part.label}")


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
    """Return the tables that an index declares, its own first; a query is none of them."""
    own, *joined = _document_tables(index)
    parts = [table for part in index.parts for table in _part_tables(part, index.key_columns)]
    return [*([own] if index.table is not None else []), *joined, *parts]


def relation(schema: str | None, table: str) -> str:
    """Return the name of a table as SQL has it, whatever is in it."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in (schema, table) if name)


def relations_read(section: Mapping[str, Any], *, doubtful: bool = False) -> Iterator[str]:
    """Yield the relations that a section [[indexes]] names, also in its joins, parts, queries and
    conditions. With `doubtful`, every word of a query counts: for what must not be missed, whatever
    texts the query has."""
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
    """Yield what a query, or a part of one, names as tables: after FROM and JOIN, and after a comma
    behind these."""
    lists, wanted = (
        [False],
        False,
    )  # whether each open parenthesis has a list of tables, and whether a table is next
    for token in _TOKENS.finditer(query):
        word = token[0].upper()
        if word == "(":
            lists.append(wanted)
        elif word == ")":
            lists, wanted = lists[:-1] or [False], False
        elif word == ",":
            wanted = lists[-1]
        elif word in ("FROM", "JOIN", "STRAIGHT_JOIN"):
            lists[-1] = wanted = True
        elif word in _END_OF_TABLES:
            lists[-1] = wanted = False
        elif wanted and word not in ("ONLY", "LATERAL") and not _NO_NAME.match(word):
            yield token[0]
            wanted = False


def tables_read(connection: Connection, names: Iterable[str]) -> set[str]:
    """Return the names, without schemas, of those of these relations that are tables, and of the
    tables below views."""
    inspector: Any = sa.inspect(connection)
    found, waiting = set[str](), list(names)
    schemas = {name.lower(): name for name in inspector.get_schema_names()}
    for one in waiting:  # which grows
        *before, name = (
            part[1:-1] if part[0] in '"`[' else part for part in re.findall(_NAME, one)
        )
        schema = schemas.get(before[-1].lower()) if before else None
        if before and schema is None:
            continue
        tables = inspector.get_table_names(schema=schema)
        if connection.dialect.name == "postgresql":
            tables += inspector.get_materialized_view_names(schema=schema)
            tables += inspector.get_foreign_table_names(schema=schema)
        if (table := as_known(name, tables)) is not None:
            found.add(table)
        elif (view := as_known(name, inspector.get_view_names(schema=schema))) is not None:
            with suppress(
                exc.DBAPIError, NotImplementedError
            ):  # MariaDB shows it only to who has SHOW VIEW
                below = tables_named(inspector.get_view_definition(view, schema=schema) or "")
                waiting += [read for read in below if read not in waiting]
    return found


def as_known(name: str, names: Sequence[str]) -> str | None:
    """Return a name as the database has it: most ignore the case of names that are not quoted."""
    return (
        name if name in names else next((one for one in names if one.lower() == name.lower()), None)
    )


def documents_from(index: IndexSettings) -> FromClause:
    """Return the rows of documents, of an index whose decisions are in its conditions
    (`decisions.decided`)."""
    if index.visible:
        raise ValueError(
            f"index {index.name}: what is visible must be decided before rows are read"
        )
    base = own_rows(index, own_columns(index), ROWS if index.joins else "documents")
    return _with_joins(base, document_columns(index), index.joins, index.name, "documents")


def own_rows(index: IndexSettings, columns: Iterable[str], name: str) -> FromClause:
    """Return the rows of the table or the query of an index with these columns, without its
    joins."""
    if index.query is not None:
        query = single_select(index.query, index.name)
        return query.columns(*map(sa.column, columns)).subquery(name)
    own = SourceTable(
        index.table or "", index.db_schema, tuple(_unique([*columns, index.newest])), ""
    )
    table, conditions = _table(own), _conditions(index.where, index.name)
    if index.newest is not None:
        newer, newest = table.alias("newer"), table.c[index.newest]
        same = [newer.c[key] == table.c[key] for key in index.key_columns]
        later: Select[Any] = sa.select(sa.literal_column("1")).select_from(newer)
        later = later.where(*same, newer.c[index.newest] > newest)
        conditions = [newest.is_not(None), ~sa.exists(later), *conditions]
    return _rows(table, conditions, name)


def part_from(part: PartSettings, index: IndexSettings) -> FromClause:
    """Return the rows of a part."""
    own, *_ = _part_tables(part, index.key_columns)
    conditions = _conditions(part.where, index.name)
    base = _rows(_table(own), conditions, ROWS if part.joins else part.label)
    columns = _part_columns(part, index.key_columns)
    return _with_joins(base, columns, part.joins, index.name, part.label)


def _table(table: SourceTable) -> sa.TableClause:
    return sa.table(table.table, *map(sa.column, table.columns), schema=table.schema)


def _rows(
    table: sa.TableClause, conditions: Sequence[sa.ColumnElement[bool]], name: str
) -> FromClause:
    return (
        sa.select(*table.c).where(*conditions).subquery(name) if conditions else table.alias(name)
    )


def _conditions(where: str | None, index: str) -> list[sa.ColumnElement[bool]]:
    if where is None:
        return []
    return [sa.text(f"({single_select(where, index, 'condition').text})")]  # type: ignore[list-item]


def _with_joins(
    base: FromClause, columns: list[str], joins: Mapping[str, JoinSettings], index: str, name: str
) -> FromClause:
    if not joins:
        return base
    froms: dict[str | None, FromClause] = {None: base}
    joined = base

    def column(name: str) -> sa.ColumnElement[Any]:
        join, own = split_name(name, joins)
        return froms[join].c[own]

    needed = _needed(columns, joins)
    for join_name, join in joins.items():
        table = sa.table(join.table, *map(sa.column, needed[join_name]), schema=join.db_schema)
        rows = _rows(table, _conditions(join.where, index), join_name)
        condition = sa.and_(*[rows.c[own] == column(other) for own, other in join.pairs])
        joined = joined.join(rows, condition, isouter=not join.required)
        froms[join_name] = rows
    return (
        sa.select(*[column(one).label(one) for one in columns]).select_from(joined).subquery(name)
    )


def _needed(columns: Iterable[str], joins: Mapping[str, JoinSettings]) -> Needed:
    """Return which columns are needed of the table itself (None) and of each join, those of
    conditions among them."""
    found: dict[str | None, list[str]] = {None: []}
    for name, join in joins.items():
        found[name] = [own for own, _ in join.pairs]
    for name in [*columns, *_on(joins)]:
        join_name, column = split_name(name, joins)
        found[join_name].append(column)
    return {name: tuple(_unique(columns)) for name, columns in found.items()}


def _on(joins: Mapping[str, JoinSettings]) -> list[str]:
    return [other for join in joins.values() for _, other in join.pairs]


def _unique(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(filter(None, names)))


def check_columns(connection: Connection, index: IndexSettings) -> None:
    """Check that the query and all tables of an index have the columns that the settings name, and
    texts are texts. Raises SettingsError if one does not."""
    limit = 1 if index.has_files else CHECKED_ROWS
    if index.query is not None:
        every: Select[Any] = sa.select(sa.literal_column("*")).select_from(
            own_rows(index, own_columns(index), "documents")
        )
        names, rows = first_rows(connection, index, every, "the query", limit=limit)
        for name in own_columns(index):
            if name not in names:
                near = did_you_mean(name, names, all_of_them=True)
                raise SettingsError(
                    f"index {index.name}: there is no column {name!r} in the query; {near}"
                )
        _check_texts(index, names, rows, "the query")
    for table in source_tables(index):
        place = f"table {table.table!r}{f' ({table.place})' if table.place else ''}"
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in table.columns]
        statement = sa.select(sa.table(table.table, *columns, schema=table.schema))
        names, rows = first_rows(connection, index, statement, place, table=table, limit=limit)
        if not table.place:
            _check_texts(index, names, rows, place)


def first_rows(
    connection: Connection,
    index: IndexSettings,
    statement: Select[Any],
    what: str,
    *,
    limit: int = CHECKED_ROWS,
    table: SourceTable | None = None,
) -> tuple[list[str], Sequence[Row]]:
    """Return the names of the columns of a statement that the settings decide, and its first rows.
    Raises SettingsError if it cannot be run, and says `what` it is, and what is like a missing name
    of its `table`."""

    try:
        with connection.execute(statement.limit(limit)) as result:
            return list(result.keys()), result.fetchall()
    except exc.DBAPIError as error:
        failure = failure_of(error, connection.engine.url, "[source] url")
        if failure.transient or is_invalid_text(error):
            raise
        near = "" if table is None else _similar(connection, table)
        raise SettingsError(
            f"index {index.name}: {what} cannot be read: {failure.said}{near}"
        ) from error


def _similar(connection: Connection, table: SourceTable) -> str:
    connection.rollback()
    with suppress(exc.SQLAlchemyError):
        inspector = sa.inspect(connection)
        tables = [*inspector.get_table_names(table.schema), *inspector.get_view_names(table.schema)]
        if not inspector.has_table(table.table, table.schema):
            return (
                f"; {near}" if (near := did_you_mean(table.table, tables, all_of_them=True)) else ""
            )
        there = [column["name"] for column in inspector.get_columns(table.table, table.schema)]
        for name in table.columns:
            if name not in there:
                return f"; {did_you_mean(name, there, all_of_them=True)}"
    return ""


def _check_texts(index: IndexSettings, names: list[str], rows: Sequence[Row], place: str) -> None:
    for name in index.text_columns:
        if name not in names or name in index.format:
            continue
        values = [row[names.index(name)] for row in rows if row[names.index(name)] is not None]
        if values and not any(
            isinstance(value, str | dict | list | UUID | Undecoded) for value in values
        ):
            raise SettingsError(
                f"index {index.name}: column {name!r} of {place} gives {type(values[0]).__name__}, "
                "not text; cast it in a query, or give it a format"
            )


def single_select(query: str, index: str, what: str = "query") -> sa.TextClause:
    """Return the query as `without_end` does. A colon in it stays a colon and never begins a
    parameter."""
    return sa.text(without_end(query, index, what).replace(":", "\\:"))


def without_end(query: str, index: str, what: str = "query") -> str:
    """Return the query without semicolons and comments at its end, ready to be put in parentheses.
    There the database refuses several statements. `what` names it in a message. Raises
    SettingsError if the query is empty."""
    end = _END.search(query)
    text = query[: end.start() if end else None].strip()
    if not text:
        raise SettingsError(f"index {index}: the {what} is empty; write one in SQL")
    newline = (
        "\n" if re.search(r"--|#", text.rpartition("\n")[2]) else ""
    )  # ends what may be a comment
    return text + newline


def batches(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield as many of the values at a time as one statement compares with."""
    return (
        values[first : first + VALUES_AT_ONCE] for first in range(0, len(values), VALUES_AT_ONCE)
    )


class Untyped(UserDefinedType[Any]):
    """A type that adds nothing. Unlike NullType, it keeps `IN` from taking the type of the
    column."""

    cache_ok = True

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[Any], Any] | None:
        """Give PostgreSQL floats as text, which takes the column's type: a `real` equals no float8
        of its digits."""
        return _float_as_text if dialect.name == "postgresql" else None


def _float_as_text(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return str(int(value)) if value.is_integer() else repr(value)


def untyped(value: Any) -> sa.ColumnElement[Any]:
    """Return a bound value without a type, so that the database uses the type of the column it is
    compared with."""
    return UndecodedText(value) if isinstance(value, Undecoded) else sa.literal(value, Untyped())


class UndecodedText(sa.sql.functions.GenericFunction[Any]):
    """A bound `Undecoded`: for SQLite, which takes no such text as a parameter, its bytes as a
    text."""

    inherit_cache = True
    type = Untyped()

    def __init__(self, value: Undecoded) -> None:
        super().__init__(sa.literal(value, Untyped()))


@compiles(UndecodedText)
def _parameter(element: UndecodedText, compiler: Any, **how: Any) -> str:
    return str(compiler.process(element.clauses, **how))


@compiles(UndecodedText, "sqlite")
def _cast_parameter(element: UndecodedText, compiler: Any, **how: Any) -> str:
    return f"CAST({compiler.process(element.clauses, **how)} AS TEXT)"


def exact_text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return the text of a column of MySQL, which is ordered and compared by its characters
    alone."""
    return sa.cast(column, mysql.CHAR(charset="utf8mb4")).collate("utf8mb4_bin")


def not_unique(index: IndexSettings, key: str) -> SourceError:
    """Return the error for a key that several rows have."""
    return SourceError(
        f"index {index.name}: key {document_id(key)} ({', '.join(index.key_columns) or index.kind})"
        " occurs more than once; name a key that is unique, of several columns if necessary"
    )


def equals_any(
    columns: Sequence[sa.ColumnElement[Any]], values: Sequence[Row], dialect: str = ""
) -> sa.ColumnElement[bool]:
    """Return the condition for rows that have one of these values (a value for each column) in the
    columns. PostgreSQL would compare each row with each value of a list of rows, and has no stack
    for many. Rows of values are joined instead, the first of which has no values: it gives the
    others the types of the columns. Other databases may have no rows of values, and MariaDB does
    not convert the charset of those that it has."""
    if dialect == "sqlite" and any(isinstance(value, Undecoded) for row in values for value in row):
        return sa.or_(sa.false(), *[_equals(columns, row) for row in values])
    if len(columns) == 1:
        plain = [value for [value] in values]
        return columns[0].in_(sa.bindparam(None, plain, type_=Untyped(), expanding=True))
    if dialect == "postgresql":
        types = [
            sa.select(column).correlate(None).where(sa.false()).scalar_subquery()
            for column in columns
        ]
        names = [sa.column(f"value_{number}", Untyped()) for number in range(len(columns))]
        wanted = sa.values(*names, name="wanted").data([tuple(types), *map(tuple, values)])
        return sa.tuple_(*columns).in_(sa.select(wanted))
    if dialect == "sqlite":
        row_type = TupleType(*[Untyped()] * len(columns))
        return sa.tuple_(*columns).in_(
            sa.bindparam(None, list(map(tuple, values)), type_=row_type, expanding=True)
        )
    return sa.or_(sa.false(), *[_equals(columns, row) for row in values])


def _equals(columns: Sequence[sa.ColumnElement[Any]], row: Row) -> sa.ColumnElement[bool]:
    return sa.and_(*[column == untyped(value) for column, value in zip(columns, row, strict=True)])
