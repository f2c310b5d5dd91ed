"""The SQL that a database needs for a watch, for a person to read and to run: nothing here runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.changes.postgres_catalogue import POSITION, PostgresTable, require_version, table_in_catalogue
from rag_index.changes.queues import open_queue
from rag_index.changes.rows import WatchedTable, connected
from rag_index.changes.statements import Setup, Step, comment, object_name, quoted
from rag_index.changes.watched_tables import plan_tables
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Connection

    from rag_index.settings import Settings

COSTS = """\
The server writes more log (wal_level = logical): with an update of any table the whole new row, with a delete
the old key, and with REPLICA IDENTITY FULL the whole old row with both. Writers need next to no more CPU.
The slot keeps the log until a watch has read it. While no watch runs, the log grows until
max_slot_wal_keep_size is reached, or without that setting until the disk is full. `rag-index doctor` tells.
The watch reads all of the log, that of other tables too: about one process of the server at a fifth of its time.
With a list of columns, a new primary key must be added to the publication first, or updates are refused.
"""
_ROLE = sa.text("SELECT rolname, rolsuper OR rolreplication, rolreplication FROM pg_roles WHERE rolname = current_user")
_SERVER = sa.text("""
    SELECT current_setting('wal_level'),
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
""")
RESTART = "Restart PostgreSQL now, run `rag-index watch --setup` again, and run what it prints then: that is the rest."


def setup_script(settings: Settings) -> str:
    """Return the SQL for all indexes of the settings, with what cannot be followed as comments.

    Raises SettingsError, SourceUnavailable or SourceError, as `setup_for` does.
    """
    changes = settings.source.changes
    if changes == "poll":
        raise SettingsError(
            'changes = "poll" needs nothing in the source; set [source] changes to "queue", or to "wal" for PostgreSQL'
        )
    plan = plan_tables(settings, settings.indexes)
    notes = [*plan.notes, *(f"index {name} is not followed: {reason}" for name, reason in plan.unwatched.items())]
    if not plan.tables:
        raise SettingsError(f"there is no table to follow: {'; '.join(notes) or 'no index is of kind sql'}")
    setup = setup_for(settings.source_url, changes, plan.tables, settings.project)
    return "".join(map(comment, notes)) + setup.script()


def setup_for(url: URL, changes: str, tables: Sequence[WatchedTable], project: str) -> Setup:
    """Return the SQL for `changes` ("wal" or "queue") of these tables, as the source is now. Nothing is written.

    Raises:
        SettingsError: the database is too old, or a table cannot be followed.
        SourceUnavailable: the source does not answer.
        SourceError: the source cannot be read.
    """
    if changes == "queue":
        with closing(open_queue(url, tables, project)) as queue:
            return queue.setup()
    with connected(url, "the tables to watch") as connection:
        return wal_setup(connection, tables, project)


def wal_setup(connection: Connection, watched: Sequence[WatchedTable], project: str) -> Setup:
    """Return the SQL that brings PostgreSQL from how it is now to what the feed of its log needs.

    It may be run again. Where the server has to be restarted first, it is the SQL for that alone.

    Raises:
        SettingsError: PostgreSQL is older than 15, or a table cannot be followed.
    """
    [[level, keep]] = connection.execute(_SERVER)
    require_version(connection)
    name = object_name(project)
    tables = [table_in_catalogue(connection, table) for table in watched]
    title = f"rag-index: follow changes by the write-ahead log of PostgreSQL (slot and publication {name})"
    reason = "How much log any slot may hold back; a slot that needs more is lost: then run this SQL again."
    limit = [Step("ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'", reason), Step("SELECT pg_reload_conf()")]
    steps = limit if keep < 0 else []
    if level != "logical":
        reason = f"It is {level} now. The log of a server that is managed for you is set where its other settings are."
        first = Step("ALTER SYSTEM SET wal_level = logical", reason)
        last = Step(f"SELECT '{RESTART}' AS next_step", RESTART)
        return Setup(f"{title}, part 1 of 2", COSTS, [first, *steps, last], [Step("ALTER SYSTEM RESET wal_level")])
    [[role, enough, own]] = connection.execute(_ROLE)
    rights = f"ALTER ROLE {quoted(role)} REPLICATION", "The role that reads the source may then read the slot."
    steps = [
        *steps,
        *(_identity(table) for table in tables if not table.has_identity),
        *_publication(name, tables),
        *([] if enough else [Step(*rights)]),
        *_slot(name),
    ]
    removal = [
        Step(f"SELECT pg_drop_replication_slot('{name}')"),
        Step(f"DROP PUBLICATION {name}"),
        *(_undo_identity(table) for table in tables if not table.has_identity or table.identity_clause != "DEFAULT"),
    ]
    if own or not enough:
        removal.append(_undo(f"ALTER ROLE {quoted(role)} NOREPLICATION", ours=not enough))
    return Setup(title, COSTS, steps, removal, POSITION)


def _undo(sql: str, *, ours: bool) -> Step:
    """Return the step that takes back what the setup does, or may have done when it was run before."""
    return Step(sql) if ours else Step("", f"If nothing else needs it: {sql};")


def _identity(table: PostgresTable) -> Step:
    """Return the step that puts the watched columns into the log with each update and delete."""
    wanted, alter = ", ".join(table.watched.columns), f"ALTER TABLE {table.quoted} REPLICA IDENTITY"
    if table.index is None:
        reason = "so the log needs whole old rows. An index without NULLs would be cheaper."
        return Step(f"{alter} FULL", f"No unique index has {wanted}, {reason}")
    kind = "DEFAULT" if table.index.primary else f"USING INDEX {quoted(table.index.name)}"
    return Step(f"{alter} {kind}", f"So that the log has the old value of {wanted}.")


def _undo_identity(table: PostgresTable) -> Step:
    ours = not table.has_identity
    clause = table.identity_clause if ours else "DEFAULT"
    return _undo(f"ALTER TABLE {table.quoted} REPLICA IDENTITY {clause}", ours=ours)


def _publication(name: str, tables: Sequence[PostgresTable]) -> Iterator[Step]:
    entries = ", ".join(f"{table.quoted}{_columns(table)}" for table in tables)
    reason = "It names the tables to follow, and only the columns that tell which row it is."
    yield Step(
        f"DO $$ BEGIN\n    IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = '{name}') THEN\n"
        f"        CREATE PUBLICATION {name};\n    END IF;\nEND $$"
    )
    options = "publish = 'insert, update, delete, truncate', publish_via_partition_root = true"
    yield Step(f"ALTER PUBLICATION {name} SET ({options})")
    yield Step(f"ALTER PUBLICATION {name} SET TABLE {entries}", reason)


def _columns(table: PostgresTable) -> str:
    """Return the list of published columns, "" for all. It must have the replica identity, or updates are refused."""
    index = table.index.columns if table.index is not None else None
    identity = table.identity if table.has_identity else index
    return f" ({', '.join(map(quoted, sorted(identity.union(table.watched.columns))))})" if identity is not None else ""


def _slot(name: str) -> Iterator[Step]:
    yield Step(
        f"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots\n    WHERE slot_name = '{name}' "
        "AND database = current_database() AND (wal_status = 'lost' OR plugin <> 'pgoutput')",
        "One that cannot be read any more is made again.",
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
