"""Checks that tables or a query exist and have the columns, of readable types, that the settings of an index name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.database.drivers import is_transient
from rag_index.errors import SettingsError
from rag_index.sources.pages import with_any_text
from rag_index.sources.tables import own_columns, query_from, source_tables

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection
    from sqlalchemy.sql.selectable import Select

    from rag_index.settings import IndexSettings
    from rag_index.sources.pages import Repair

CHECKED_ROWS = 5
"""Rows whose texts are looked at: one value that is no text costs its document alone."""


def check_columns(connection: Connection, index: IndexSettings) -> None:
    """Check that the query and all tables of an index have the columns that the settings name, and texts are texts.

    Raises SettingsError if one does not.
    """
    if index.query is not None:
        every: Select[Any] = sa.select(sa.literal_column("*")).select_from(query_from(index))
        names, rows = first_rows(connection, index, every, "the query")
        for name in own_columns(index):
            if name not in names:
                there = ", ".join(names)
                raise SettingsError(f"index {index.name}: there is no column {name!r} in the query; it has {there}")
        _check_texts(index, names, rows, "the query")
    for table in source_tables(index):
        place = f"table {table.table!r}{f' ({table.place})' if table.place else ''}"
        columns: list[sa.ColumnClause[Any]] = [sa.column(name) for name in table.columns]
        statement = sa.select(sa.table(table.table, *columns, schema=table.schema))
        names, rows = first_rows(connection, index, statement, place)
        if not table.place:
            _check_texts(index, names, rows, place)


def first_rows(
    connection: Connection, index: IndexSettings, statement: Select[Any], what: str, limit: int = CHECKED_ROWS
) -> tuple[list[str], Sequence[Sequence[Any]]]:
    """Return the names of the columns of a statement that the settings decide, and its first rows.

    Raises SettingsError if it cannot be run, and says `what` it is.
    """

    def read(repair: Repair | None) -> tuple[list[str], Sequence[Sequence[Any]]]:
        with connection.execute(statement.limit(limit)) as result:
            names, rows = list(result.keys()), result.fetchall()
        return names, rows if repair is None else list(map(repair, rows))

    try:
        return with_any_text(connection, read)
    except exc.DBAPIError as error:
        if is_transient(error):
            raise
        reason = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
        raise SettingsError(f"index {index.name}: {what} cannot be read: {reason}") from error


def _check_texts(index: IndexSettings, names: list[str], rows: Sequence[Sequence[Any]], place: str) -> None:
    for name in index.text_columns:
        if name not in names or name in index.format:
            continue
        values = [row[names.index(name)] for row in rows if row[names.index(name)] is not None]
        if values and not any(isinstance(value, str | dict | list) for value in values):
            raise SettingsError(
                f"index {index.name}: column {name!r} of {place} gives {type(values[0]).__name__} ({values[0]!r:.40}), "
                "not text; cast it in a query, or give it a format"
            )
