"""Checks that tables or a query exist and have the columns, of readable types, that the settings of an index name."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.types import JSON, Enum, NullType, String

from rag_index.database.urls import is_transient
from rag_index.errors import SettingsError
from rag_index.sources.tables import own_columns, source_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection, CursorResult, Row
    from sqlalchemy.sql.selectable import FromClause, Select

    from rag_index.settings import IndexSettings
    from rag_index.sources.tables import SourceTable

MAY_NOT_LOOK = 1142
"""The code of MariaDB and MySQL for a right that is missing: for the columns of a view, SHOW VIEW."""
MAX_NAMES = 20
"""Names that a message lists at most."""


def check_tables(connection: Connection, index: IndexSettings) -> None:
    """Check that all tables of an index exist and have the columns that the settings name.

    Raises:
        SettingsError: one does not; the message offers the nearest name.
    """
    for table in source_tables(index):
        types = _columns_of(connection, index, table)
        place = f"table {table.table!r}{f' ({table.place})' if table.place else ''}"
        _check_names(index, table.columns, list(types), place)
        if table.place:
            continue
        for name in index.text_columns:
            if name in types and name not in index.format and not _is_text(types[name]):
                raise SettingsError(
                    f"index {index.name}: column {name!r} of table {table.table!r} is {_type_name(types[name])}, "
                    f"not text; name a text column, give it a format, or cast it in a query"
                )


def _columns_of(connection: Connection, index: IndexSettings, table: SourceTable) -> dict[str, Any]:
    """Return the types of the columns of a table, by name. Raises SettingsError if there is no such table."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.SAWarning)  # types that SQLAlchemy does not know are read as they come
        inspector = sa.inspect(connection)
        try:
            types = {c["name"]: c["type"] for c in inspector.get_columns(table.table, schema=table.schema)}
        except exc.NoSuchTableError:
            types = {}
        except exc.OperationalError as error:  # SQLite calls a schema that does not exist an unknown database
            if is_transient(error):
                raise
            if getattr(error.orig, "args", ())[:1] == (MAY_NOT_LOOK,):
                raise SettingsError(
                    f"index {index.name}: the columns of {table.table!r} cannot be read "
                    f"({error.orig.args[1]}); grant that right to the user of the source"  # type: ignore[union-attr]
                ) from error
            types = {}
        if not types:
            raise SettingsError(_missing_table(inspector, index, table)) from None
    return types


def check_rows(connection: Connection, index: IndexSettings, statement: Select[Any], what: str) -> Row[Any] | None:
    """Check that a query that the settings decide can be run, and return its first row. `what` names it.

    Raises:
        SettingsError: it cannot.
    """
    try:
        return connection.execute(statement.limit(1)).fetchone()
    except exc.DBAPIError as error:
        if is_transient(error):
            raise
        if "decode to UTF-8" in str(error.orig):  # such bytes are replaced when pages are read
            return None
        reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
        raise SettingsError(f"index {index.name}: {what} fails: {reason}") from error


def check_query(connection: Connection, index: IndexSettings, documents: FromClause) -> None:
    """Check that the query runs, and by its first row that it has the columns that the settings name.

    Raises:
        SettingsError: it does not.
    """
    try:
        result: CursorResult[Any] = connection.execute(
            sa.select(sa.literal_column("*")).select_from(documents).limit(1)
        )
        names, row = list(result.keys()), result.fetchone()
    except exc.DBAPIError as error:
        if is_transient(error):
            raise
        if "decode to UTF-8" in str(error.orig):  # such bytes are replaced when pages are read
            return
        reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
        raise SettingsError(f"index {index.name}: the query fails: {reason}") from error
    _check_names(index, own_columns(index), names, "the query")
    for name in index.text_columns if row is not None else ():
        value = row[names.index(name)] if row is not None and name in names else None
        if value is not None and name not in index.format and not isinstance(value, str | dict | list):
            raise SettingsError(
                f"index {index.name}: column {name!r} of the query gives {type(value).__name__} ({value!r:.40}), "
                "not text; cast it, or give it a format"
            )


def _missing_table(inspector: Any, index: IndexSettings, table: SourceTable) -> str:
    """Return the message for a table, or its schema, that does not exist."""
    name, schema = table.table, table.schema
    message = f"index {index.name}: {f'{table.place}: ' if table.place else ''}there is no table {name!r}"
    if schema and schema not in (schemas := inspector.get_schema_names()):
        return f"index {index.name}: there is no schema {schema!r}{_suggestion(schema, schemas)}"
    before, dot, after = name.rpartition(".")
    if dot and not schema:
        return f'{message}; if {before!r} is a schema, write schema = "{before}" and table = "{after}"'
    names = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
    return f"{message}{f' in schema {schema!r}' if schema else ''}{_suggestion(name, names)}"


def _check_names(index: IndexSettings, names: Sequence[str], columns: list[str], place: str) -> None:
    for name in names:
        if name not in columns:
            raise SettingsError(
                f"index {index.name}: there is no column {name!r} in {place}{_suggestion(name, columns)}"
            )


def _is_text(column_type: Any) -> bool:
    inner = getattr(column_type, "data_type", column_type)  # a DOMAIN of PostgreSQL
    return isinstance(inner, String | Enum | NullType | JSON)


def _suggestion(name: str, names: Sequence[str]) -> str:
    """Return the end of a message about an unknown name: the nearest known one, or all of them."""
    by_lower = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    if close:
        return f", did you mean {by_lower[close[0]]!r}?"
    listed = ", ".join(sorted(names)[:MAX_NAMES])
    return f"; choose one of: {listed}" if listed else "; none exists"


def _type_name(column_type: Any) -> str:
    try:
        return str(column_type)
    except exc.CompileError:
        return type(column_type).__name__
