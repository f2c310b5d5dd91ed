"""The SQL that a database needs for a watch, for a person to read and to run: nothing here runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exc

from rag_index.changes.queues import open_queue
from rag_index.changes.tables import plan_tables
from rag_index.changes.wal_setup import wal_setup
from rag_index.errors import SettingsError
from rag_index.settings.index import SQL
from rag_index.sources.engine import open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import URL

    from rag_index.changes.rows import WatchedTable
    from rag_index.changes.statements import Setup
    from rag_index.settings import Settings


def setup_script(settings: Settings) -> str:
    """Return the SQL for all indexes of the settings, with what cannot be followed as comments.

    Raises SettingsError, SourceUnavailable or SourceError, as `setup_for` does.
    """
    changes = settings.source.changes
    if changes == "poll":
        raise SettingsError(
            'changes = "poll" needs nothing in the source; set [source] changes to "queue", or to "wal" for PostgreSQL'
        )
    plan = plan_tables(settings, [index for index in settings.indexes if index.kind == SQL])
    notes = [*plan.notes, *(f"index {name} is not followed: {reason}" for name, reason in plan.unwatched.items())]
    if not plan.tables:
        raise SettingsError(f"there is no table to follow: {'; '.join(notes) or 'no index is of kind sql'}")
    setup = setup_for(settings.source_url, changes, plan.tables, settings.project)
    return "".join(f"-- {note}\n" for note in notes) + setup.script()


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
