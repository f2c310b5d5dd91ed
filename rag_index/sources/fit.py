"""Whether a table or a query fits an index's settings: it is there, and has the columns, of types that can be read."""

from __future__ import annotations

import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.types import JSON, Enum, NullType, String

from rag_index.database.urls import is_transient
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection, CursorResult
    from sqlalchemy.sql.selectable import FromClause

    from rag_index.settings import IndexSettings

__all__ = ["check_query", "check_table"]


def check_table(connection: Connection, index: IndexSettings) -> None:
    """See that the table has what the settings name.

    Raises:
        SettingsError: it does not; the nearest name is offered.
    """
    table = str(index.table)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exc.SAWarning)  # types that SQLAlchemy does not know are read as they come
        inspector = sa.inspect(connection)
        try:
            found = {c["name"]: c["type"] for c in inspector.get_columns(table, schema=index.db_schema)}
        except exc.NoSuchTableError:
            found = {}
        except exc.OperationalError as error:  # SQLite: unknown database, where the schema is meant
            if is_transient(error):
                raise
            found = {}
        if not found:
            raise SettingsError(_no_table(inspector, index)) from None
    _check_columns(index, list(found), f"table {table!r}")
    for name in index.text_columns:
        if not _is_text(found[name]):
            raise SettingsError(
                f"index {index.name}: column {name!r} of table {table!r} is {_type(found[name])}, not text; "
                f"name a text column, or cast it in a query"
            )


def check_query(connection: Connection, index: IndexSettings, documents: FromClause) -> None:
    """See that the query runs and gives what the settings name, by its first row.

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
        if "decode to UTF-8" in str(error.orig):  # the pages are read with such bytes replaced
            return
        reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
        raise SettingsError(f"index {index.name}: the query fails: {reason}") from error
    _check_columns(index, names, "the query")
    for name in index.text_columns if row is not None else ():
        value = row[names.index(name)] if row is not None else None
        if value is not None and not isinstance(value, str | dict | list):
            raise SettingsError(
                f"index {index.name}: column {name!r} of the query gives {type(value).__name__} ({value!r:.40}), "
                "not text; cast it"
            )


def _no_table(inspector: Any, index: IndexSettings) -> str:
    table, schema = str(index.table), index.db_schema
    there = f"index {index.name}: there is no table {table!r}"
    if schema and schema not in (schemas := inspector.get_schema_names()):
        return f"index {index.name}: there is no schema {schema!r}{_hint(schema, schemas)}"
    before, dot, after = table.rpartition(".")
    if dot and not schema:
        return f'{there}; if {before!r} is a schema, write schema = "{before}" and table = "{after}"'
    names = [*inspector.get_table_names(schema=schema), *inspector.get_view_names(schema=schema)]
    return f"{there}{f' in schema {schema!r}' if schema else ''}{_hint(table, names)}"


def _check_columns(index: IndexSettings, found: list[str], where: str) -> None:
    for name in [*index.key_columns, *index.text_columns, *index.payload, *filter(None, [index.changed_since])]:
        if name not in found:
            raise SettingsError(f"index {index.name}: there is no column {name!r} in {where}{_hint(name, found)}")


def _is_text(column_type: Any) -> bool:
    inner = getattr(column_type, "data_type", column_type)  # a DOMAIN of PostgreSQL
    return isinstance(inner, String | Enum | NullType | JSON)


def _hint(name: str, names: Sequence[str]) -> str:
    lower = {known.lower(): known for known in names}
    close = get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    if close:
        return f", did you mean {lower[close[0]]!r}?"
    shown = ", ".join(sorted(names)[:20])
    return f"; there are: {shown}" if shown else "; there are none"


def _type(column_type: Any) -> str:
    try:
        return str(column_type)
    except exc.CompileError:
        return type(column_type).__name__
