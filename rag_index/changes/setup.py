"""The SQL that a database needs for a watch, for a person to read and to run: nothing here runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes.postgres import POSITION, PostgresTable, SlotState, quoted, server_version, table_in_catalogue
from rag_index.changes.queues import open_queue
from rag_index.changes.rows import Setup, Step
from rag_index.changes.watched_tables import object_name, plan_tables
from rag_index.errors import SettingsError
from rag_index.settings.index import SQL
from rag_index.sources.engine import open_read_only, source_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import URL, Connection

    from rag_index.changes.rows import WatchedTable
    from rag_index.settings import Settings

COLUMN_LISTS = 150_000
"""PostgreSQL 15 is the first that can publish some columns of a table."""

COSTS = (
    "The server writes more log (wal_level = logical): with an update of any table the whole new row, with a delete",
    "the old key, and with REPLICA IDENTITY FULL the whole old row with both. Writers need next to no more CPU.",
    "The slot keeps the log until a watch has read it. While no watch runs, the log grows until",
    "max_slot_wal_keep_size is reached, or without that setting until the disk is full. `rag-index doctor` tells.",
    "The watch reads all of the log, that of other tables too: about one process of the server at a fifth of its time.",
    "With a list of columns, a new primary key must be added to the publication first, or updates are refused.",
)
_ROLE = sa.text("SELECT rolname, rolsuper OR rolreplication, rolreplication FROM pg_roles WHERE rolname = current_user")
_KEEP = sa.text("SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
RESTART = "Restart PostgreSQL now, run `rag-index watch --setup` again, and run what it prints then: that is the rest."


def wal_setup(connection: Connection, watched: Sequence[WatchedTable], project: str) -> Setup:
    """Return the SQL that brings the source from how it is now to what the feed needs. It may be run again.

    Where the server has to be restarted first, it is the SQL for that alone.

    Raises:
        SettingsError: the database is not PostgreSQL 14 or newer, or a table cannot be followed.
    """
    if connection.dialect.name != "postgresql":
        raise SettingsError(
            f'changes = "wal" needs PostgreSQL, and the source is {connection.dialect.name}; use "queue"'
        )
    version, level = server_version(connection), connection.scalar(sa.text("SELECT current_setting('wal_level')"))
    name = object_name(project)
    tables = [table_in_catalogue(connection, table) for table in watched]
    title = f"rag-index: follow changes by the write-ahead log of PostgreSQL (slot and publication {name})"
    server = list(_server(connection))
    if level != "logical":
        reason = f"It is {level} now. The log of a server that is managed for you is set where its other settings are."
        first = Step("ALTER SYSTEM SET wal_level = logical", reason)
        last = Step(f"SELECT '{RESTART}' AS next_step", RESTART)
        return Setup(f"{title}, part 1 of 2", COSTS, (first, *server, last), (Step("ALTER SYSTEM RESET wal_level"),))
    [[role, enough, own]] = connection.execute(_ROLE)
    steps = [
        *server,
        *(Step(sql, reason) for table in tables for sql, reason in _identity(table)),
        *_publication(name, tables, lists=version >= COLUMN_LISTS),
        *_rights(role, enough=enough),
        *_slot(connection, name),
    ]
    removal = [
        Step(f"SELECT pg_drop_replication_slot('{name}')"),
        Step(f"DROP PUBLICATION {name}"),
        *filter(None, map(_old_identity, tables)),
        *_old_rights(role, enough=enough, own=own),
    ]
    return Setup(title, COSTS, tuple(steps), tuple(removal), POSITION)


def _server(connection: Connection) -> Iterator[Step]:
    if int(connection.scalar(_KEEP) or 0) < 0:
        reason = "How much log any slot may hold back; a slot that needs more is lost: then run this SQL again."
        yield Step("ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'", reason)
        yield Step("SELECT pg_reload_conf()")


def _identity(table: PostgresTable) -> Iterator[tuple[str, str]]:
    """Yield the statement that puts the watched columns into the log with each update and delete, if it is needed."""
    if table.has_identity:
        return
    wanted = ", ".join(table.watched.columns)
    index = next((index for index in table.unique if index.columns.issuperset(table.watched.columns)), None)
    if index is not None:
        kind = "DEFAULT" if index.primary else f"USING INDEX {quoted(index.name)}"
        yield f"ALTER TABLE {table.quoted} REPLICA IDENTITY {kind}", f"So that the log has the old value of {wanted}."
    else:
        reason = (
            f"No unique index has {wanted}, so the log needs whole old rows. An index without NULLs would be cheaper."
        )
        yield f"ALTER TABLE {table.quoted} REPLICA IDENTITY FULL", reason


def _old_identity(table: PostgresTable) -> Step | None:
    """Return the step that gives a table the replica identity back that it has now."""
    if not table.has_identity:
        return Step(f"ALTER TABLE {table.quoted} REPLICA IDENTITY {table.identity_clause}")
    if table.identity_clause == "DEFAULT":
        return None
    return Step("", f"If nothing else needs it: ALTER TABLE {table.quoted} REPLICA IDENTITY DEFAULT;")


def _publication(name: str, tables: Sequence[PostgresTable], *, lists: bool) -> Iterator[Step]:
    entries = ", ".join(f"{table.quoted}{_columns(table) if lists else ''}" for table in tables)
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    reason = "It names the tables to follow" + (", and only the columns that tell which row it is." if lists else ".")
    yield Step(
        f"DO $$ BEGIN\n    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = '{name}') THEN\n"
        f"        CREATE PUBLICATION {name};\n    END IF;\nEND $$"
    )
    yield Step(f"ALTER PUBLICATION {name} SET ({options})")
    yield Step(f"ALTER PUBLICATION {name} SET TABLE {entries}", reason)


def _columns(table: PostgresTable) -> str:
    """Return the list of published columns, "" for all. It must have the replica identity, or updates are refused."""
    wanted = set(table.watched.columns)
    if table.has_identity and table.identity is not None:
        return _list(wanted | table.identity)
    index = next((index for index in table.unique if index.columns >= wanted), None)
    return "" if index is None or table.has_identity else _list(index.columns)


def _list(columns: set[str] | frozenset[str]) -> str:
    return f" ({', '.join(map(quoted, sorted(columns)))})"


def _rights(role: str, *, enough: bool) -> Iterator[Step]:
    if not enough:
        yield Step(f"ALTER ROLE {quoted(role)} REPLICATION", "The role that reads the source may then read the slot.")


def _old_rights(role: str, *, enough: bool, own: bool) -> Iterator[Step]:
    """Yield the step that takes from the role what it does not have now."""
    sql = f"ALTER ROLE {quoted(role)} NOREPLICATION"
    if not enough:
        yield Step(sql)
    elif own:
        yield Step("", f"If nothing else needs it: {sql};")


def _slot(connection: Connection, name: str) -> Iterator[Step]:
    ours = f"slot_name = '{name}' AND database = current_database()"
    if (state := SlotState.read(connection, name)).exists and state.problem():
        yield Step(
            f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots\n    WHERE {ours} "
            "AND (wal_status = 'lost' OR plugin <> 'pgoutput')",
            "It cannot be read any more.",
        )
    yield Step(
        f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')\n"
        f"    WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}')",
        "After the publication. It waits until transactions that are under way have ended.",
    )
    yield Step(
        f"SELECT pg_logical_emit_message(true, '{name}', 'set up')",
        "It tells the watch to compare everything once: nobody knows what changed before the slot was there.",
    )


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
