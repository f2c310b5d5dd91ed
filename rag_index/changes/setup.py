"""The SQL that a database needs for a watch, for a person to read and to run: nothing here runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exc

from rag_index.changes.queues import open_queue
from rag_index.changes.wal_setup import wal_setup
from rag_index.errors import SettingsError
from rag_index.sources.engine import open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL

    from rag_index.changes.rows import WatchedTable
    from rag_index.changes.statements import Setup

__all__ = ["setup_for"]


def setup_for(url: URL, changes: str, tables: Sequence[WatchedTable], project: str) -> Setup:
    """Return the SQL for `changes` of these tables, as the source is now. Nothing is written.

    Raises:
        SettingsError: this database has no such way, or a table cannot be followed.
        SourceUnavailable: the source does not answer.
        SourceError: the source cannot be read.
    """
    engine = open_read_only(url)
    try:
        with engine.connect() as connection:
            if changes == "wal":
                return wal_setup(connection, tables, project)
            if changes == "queue":
                return open_queue(connection.dialect.name, tables, project).setup(connection)
    except exc.SQLAlchemyError as error:
        raise source_error(error, url, "the tables to watch") from error
    finally:
        engine.dispose()
    raise SettingsError(f'changes = "{changes}" needs no setup in the source')
