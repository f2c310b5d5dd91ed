"""Single rows of a database, found by the ids that people see.

Each database compares a text with a column of another type in its own way: PostgreSQL reads an untyped text as the
column's type, MySQL and MariaDB convert ('7b' equals 7 for them), and SQLite converts if the column has a type. So the
query asks for everything that an id may stand for, and only rows whose document id is exactly the given one are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.urls import is_transient
from rag_index.documents.keys import document_id, encode_key, values_of
from rag_index.sources.pages import STREAMED
from rag_index.sources.statement import untyped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import Select

__all__ = ["find_keys", "find_rows"]

VALUES = 500
"""Values that one statement compares with: databases limit the parameters of a statement."""


def find_rows(
    connection: Connection,
    statement: Select[Any],
    keys: Sequence[sa.ColumnElement[Any]],
    parts: Sequence[Any],
    fetch: Callable[[Connection, Select[Any]], Sequence[Sequence[Any]]],
) -> list[Sequence[Any]]:
    """Return the rows of `statement`, whose first columns are `keys`, of the document whose id has these parts.

    There is at most one row if the key is unique. Raises the driver's errors, except those for a value that a column
    cannot be compared with: no row has it.
    """
    wanted = _canonical_id(parts)
    for condition in _conditions(connection.dialect.name, keys, parts):
        try:
            rows = fetch(connection, statement.where(condition))
        except (exc.DataError, exc.ProgrammingError) as error:
            if is_transient(error):
                raise
            connection.rollback()
            continue
        found = [row for row in rows if document_id(encode_key(row[: len(keys)])) == wanted]
        if found:
            return found
    return []


def find_keys(
    connection: Connection,
    keys: Sequence[sa.ColumnElement[Any]],
    column: sa.ColumnElement[Any],
    values: Sequence[Any],
) -> Iterator[str]:
    """Yield the typed keys of the rows that have one of the values in a column, as they are fetched.

    Raises the driver's errors.
    """
    known = [key.is_not(None) for key in keys]
    for first in range(0, len(values), VALUES):
        condition = column.in_([untyped(value) for value in values[first : first + VALUES]])
        statement = sa.select(*keys).where(condition, *known)
        with connection.execute(statement, execution_options=STREAMED) as result:
            for row in result:
                yield encode_key(row)


def _canonical_id(parts: Sequence[Any]) -> str:
    """Return the document id in its canonical form."""
    return str(parts[0]) if len(parts) == 1 else document_id(encode_key(parts))


def _conditions(
    backend: str, keys: Sequence[sa.ColumnElement[Any]], parts: Sequence[Any]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield conditions to try until one finds a row.

    SQLite, where no comparison is an error, gets one condition for all values. Other databases get the parts as they
    were given, and then as bytes if they look like bytes.
    """
    candidates = [values_of(part) for part in parts]
    if backend == "sqlite":
        storable = [[value for value in values if _is_storable(value)] for values in candidates]
        yield sa.and_(*[key.in_(list(map(untyped, values))) for key, values in zip(keys, storable, strict=True)])
        return
    yield sa.and_(*[key == untyped(part) for key, part in zip(keys, parts, strict=True)])
    as_bytes = [next((value for value in values if isinstance(value, bytes)), values[0]) for values in candidates]
    if as_bytes != list(parts):
        yield sa.and_(*[key == untyped(value) for key, value in zip(keys, as_bytes, strict=True)])


def _is_storable(value: Any) -> bool:
    """Return whether SQLite can hold the value."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str | float | bytes)
