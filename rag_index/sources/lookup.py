"""Single rows of a database, by the ids that people see.

A database compares a text with a column of another type each in its own way: PostgreSQL takes an untyped text for the
column's type, MySQL and MariaDB convert ('7b' is 7 to them), SQLite converts where a column has a type. So it is asked
for all that an id may stand for, and of what it finds only rows that are shown under exactly this id are taken.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.types import NullType

from rag_index.database.urls import is_transient
from rag_index.documents.keys import document_id, encode_key, values_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import Select

__all__ = ["rows_of"]


def rows_of(
    connection: Connection,
    statement: Select[Any],
    keys: Sequence[sa.ColumnElement[Any]],
    parts: Sequence[Any],
    fetch: Callable[[Connection, Select[Any]], Sequence[Sequence[Any]]],
) -> list[Sequence[Any]]:
    """The rows of `statement`, which begin with `keys`, of the document whose id has these parts.

    There is one where the key is unique. Raises the driver's errors, but for values that a column cannot be compared
    with: no row has them.
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


def _canonical_id(parts: Sequence[Any]) -> str:
    """The id again, in the one way in which it is written."""
    return str(parts[0]) if len(parts) == 1 else document_id(encode_key(parts))


def _conditions(
    backend: str, keys: Sequence[sa.ColumnElement[Any]], parts: Sequence[Any]
) -> Iterator[sa.ColumnElement[bool]]:
    """What to ask for, one after another until something is found: in SQLite all at once, since nothing there is an
    error; elsewhere the parts as they were given, then bytes where they look so."""
    values = [values_of(part) for part in parts]
    if backend == "sqlite":
        plain = [[value for value in some if _storable(value)] for some in values]
        yield sa.and_(*[key.in_([_bound(v) for v in some]) for key, some in zip(keys, plain, strict=True)])
        return
    yield sa.and_(*[key == _bound(part) for key, part in zip(keys, parts, strict=True)])
    as_bytes = [next((v for v in some if isinstance(v, bytes)), some[0]) for some in values]
    if as_bytes != list(parts):
        yield sa.and_(*[key == _bound(value) for key, value in zip(keys, as_bytes, strict=True)])


def _storable(value: Any) -> bool:
    """Whether SQLite has such values."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str | float | bytes)


def _bound(value: Any) -> sa.ColumnElement[Any]:
    """Without a type, so that the database takes the column's."""
    return sa.literal(value, NullType())
