"""Rows of a database, found by the ids that people see.

Each database compares a text with a column of another type in its own way: PostgreSQL reads an untyped text as the
column's type, MySQL and MariaDB convert ('7b' equals 7 for them), and SQLite converts if the column has a type. So a
query asks for everything that the ids may stand for, and only rows whose document id is exactly a given one are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.urls import is_transient
from rag_index.documents.keys import document_id, encode_key, values_of
from rag_index.sources.pages import STREAMED
from rag_index.sources.statement import any_untyped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import Select

VALUES = 500
"""Values that one statement compares with: databases limit the parameters of a statement."""


IDS_AT_ONCE = 300
"""Ids in one query; fewer if the key has several columns, because databases limit the depth of a condition."""
PAIRS_AT_ONCE = 100
_FORMS = {True: 1, False: 2}
"""How many forms of a value are tried, in SQLite and elsewhere."""


def find_rows(
    connection: Connection,
    statement: Select[Any],
    keys: Sequence[sa.ColumnElement[Any]],
    wanted: Sequence[Sequence[Any]],
    fetch: Callable[[Connection, Select[Any]], Sequence[Sequence[Any]]],
) -> list[Sequence[Any]]:
    """Return the rows of `statement`, whose first columns are `keys`, of the documents whose ids have these parts.

    There is at most one row for an id if the key is unique. Raises the driver's errors, except those for a value that
    a column cannot be compared with: no row has it.
    """
    parts_by_id = {_canonical_id(parts): parts for parts in wanted}
    ids = list(parts_by_id)
    size = IDS_AT_ONCE if len(keys) == 1 else PAIRS_AT_ONCE
    rows: list[Sequence[Any]] = []
    for start in range(0, len(ids), size):
        some = {one: parts_by_id[one] for one in ids[start : start + size]}
        rows += _find_some(connection, statement, keys, some, fetch)
    return rows


def _find_some(
    connection: Connection,
    statement: Select[Any],
    keys: Sequence[sa.ColumnElement[Any]],
    wanted: dict[str, Sequence[Any]],
    fetch: Callable[[Connection, Select[Any]], Sequence[Sequence[Any]]],
) -> list[Sequence[Any]]:
    """Return the rows of these ids (parts by id), by one query for all of them if the database compares them all."""
    backend, rows = connection.dialect.name, []
    missing = dict(wanted)
    for form in range(_FORMS[backend == "sqlite"]):
        values = {one: _values(backend, parts, form) for one, parts in missing.items()}
        asked = {one: some for one, some in values.items() if some is not None}
        if not asked:
            continue
        try:
            found = fetch(connection, statement.where(_condition(keys, list(asked.values()))))
        except (exc.DataError, exc.ProgrammingError) as error:
            if is_transient(error):
                raise
            connection.rollback()
            fetch(connection, statement.where(sa.false()))  # raises if it is not a value that is wrong
            if form == 0 and len(wanted) > 1:  # one of the ids is at fault, such as a text for a column of numbers
                return [
                    row
                    for one, parts in wanted.items()
                    for row in _find_some(connection, statement, keys, {one: parts}, fetch)
                ]
            continue
        width = len(keys)
        for row in found:
            one = document_id(encode_key(row[:width]))
            if one in asked:
                rows.append(row)
                missing.pop(one, None)
    return rows


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
        condition = column.in_(any_untyped(values[first : first + VALUES]))
        statement = sa.select(*keys).where(condition, *known)
        with connection.execute(statement, execution_options=STREAMED) as result:
            for row in result:
                yield encode_key(row)


def _canonical_id(parts: Sequence[Any]) -> str:
    """Return the document id in its canonical form."""
    return str(parts[0]) if len(parts) == 1 else document_id(encode_key(parts))


def _values(backend: str, parts: Sequence[Any], form: int) -> list[list[Any]] | None:
    """Return, for each key column, the values to ask for; None if this form has nothing to ask.

    SQLite, where no comparison is an error, is asked for all values that an id may stand for. Other databases get the
    parts as they were given, and then as bytes if they look like bytes.
    """
    candidates = [values_of(part) for part in parts]
    if backend == "sqlite":
        return [[value for value in values if _is_storable(value)] for values in candidates]
    if form == 0:
        return [[part] for part in parts]
    as_bytes = [next((value for value in values if isinstance(value, bytes)), values[0]) for values in candidates]
    return [[value] for value in as_bytes] if as_bytes != list(parts) else None


def _condition(keys: Sequence[sa.ColumnElement[Any]], wanted: Sequence[list[list[Any]]]) -> sa.ColumnElement[bool]:
    """Return the condition for rows with the values of one of the ids."""
    if len(keys) == 1:
        return keys[0].in_(any_untyped([value for [values] in wanted for value in values]))
    return sa.or_(
        *[
            sa.and_(*[key.in_(any_untyped(values)) for key, values in zip(keys, columns, strict=True)])
            for columns in wanted
        ]
    )


def _is_storable(value: Any) -> bool:
    """Return whether SQLite can hold the value."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str | float | bytes)
