"""What PostgreSQL says about watched tables, a slot and a publication, and the SQL that makes it fit for `wal`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.errors import SettingsError
from rag_index.watch.changes.rows import SETUP, Setup, Step, WatchedTable, object_name, quoted

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

RELATION_KINDS = {"v": "view", "m": "materialized view", "f": "foreign table"}
FIRST_OWN_OID = 16384
"""The first OID of a type that is not built in; only such a type can be a domain."""
POSITION = "SELECT pg_current_wal_insert_lsn()::text"
"""How far the log has come: after a commit, not below the end of that."""

WAL_COSTS = """\
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
_FIND = sa.text("""
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relpersistence,
           EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :name
      AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
""")
"""Without `to_regclass`, which ends the transaction if the role may not use the schema."""

MIN_POSTGRESQL = (15,)
"""The first PostgreSQL that can publish some columns of a table."""
_COLUMNS = sa.text(
    "SELECT attname, atttypid FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped"
)
_IDENTITY = sa.text("""
    SELECT ci.relname, i.indisprimary, i.indisreplident,
           array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey))
    FROM pg_index i JOIN pg_class ci ON ci.oid = i.indexrelid
    WHERE i.indrelid = :oid AND (i.indisprimary OR i.indisreplident) AND i.indimmediate AND i.indisvalid
""")
_BASE_TYPES = sa.text("SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd'")
_STATE = sa.text("""
    SELECT plugin = 'pgoutput' AND database = current_database(), wal_status = 'lost',
           pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint,
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
           COALESCE(confirmed_flush_lsn, '0/0')::text, pg_current_wal_flush_lsn()::text
    FROM pg_replication_slots WHERE slot_name = :slot
""")
_PUBLISHED = sa.text("""
    SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate
           AND t.rowfilter IS NULL AND t.attnames::text[] @> CAST(:columns AS text[]), p.pubviaroot
    FROM pg_publication p JOIN pg_publication_tables t USING (pubname)
    WHERE p.pubname = :name AND t.schemaname = :schema AND t.tablename = :table
""")


def require_version(connection: Connection) -> None:
    """Raise SettingsError if the log of this PostgreSQL cannot be followed."""
    if (connection.dialect.server_version_info or MIN_POSTGRESQL) < MIN_POSTGRESQL:
        raise SettingsError('changes = "wal" needs PostgreSQL 15 or newer; use changes = "queue"')


@dataclass(frozen=True, slots=True)
class PostgresTable:
    """A watched table as the catalogue has it."""

    watched: WatchedTable
    oid: int
    schema: str
    name: str
    partitioned: bool
    inherits: bool
    """Whether it is a part or a parent of another table."""
    types: dict[str, int]
    """The OID of each column's type."""
    identity_clause: str
    """How its replica identity is set: `REPLICA IDENTITY` and this."""
    identity: frozenset[str] | None
    """The columns that old rows have values of in the log; None: all columns (REPLICA IDENTITY FULL)."""
    primary: frozenset[str]

    @property
    def quoted(self) -> str:
        """Return the name for a statement, with its schema."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def has_identity(self) -> bool:
        """Return whether the log has the old values of all watched columns."""
        return self.identity is None or self.identity.issuperset(self.watched.columns)


def table_in_catalogue(connection: Connection, watched: WatchedTable) -> PostgresTable:
    """Return what the catalogue says about a table. Raises SettingsError if there is no such table or column, or its
    changes cannot be followed."""
    found: Any = connection.execute(_FIND, {"schema": watched.schema, "name": watched.name}).fetchone()
    oid, schema, name, kind, identity, persistence, inherits = found or (None, *[""] * 6)
    types = dict(map(tuple, connection.execute(_COLUMNS, {"oid": oid})))
    lasting = "table" if persistence == "p" else "table that is unlogged or temporary"
    watched.require(None if oid is None else lasting if kind in "rp" else RELATION_KINDS.get(kind, "relation"), types)
    clauses, key = {"d": "DEFAULT", "f": "FULL"}, frozenset[str]()
    columns = None if identity == "f" else key
    for index, primary, chosen, of_index in connection.execute(_IDENTITY, {"oid": oid}):
        key = frozenset(of_index) if primary else key
        if (identity == "d" and primary) or (identity == "i" and chosen):
            columns = frozenset(of_index)
            clauses["i"] = f"USING INDEX {quoted(index)}"
    clause = clauses.get(identity, "NOTHING")
    return PostgresTable(watched, oid, schema, name, kind == "p", inherits, types, clause, columns, key)


class TextReader:
    """Turns the text of values into what the driver gives when it reads columns of these types."""

    def __init__(self, connection: Connection, types: Sequence[int]) -> None:
        from psycopg.adapt import Transformer
        from psycopg.pq import Format

        driver: Any = connection.connection.driver_connection
        self.width, types = len(types), list(types)
        if any(oid >= FIRST_OWN_OID for oid in types):
            bases = dict(map(tuple, connection.execute(_BASE_TYPES)))
            while bases.keys() & types:  # a domain may be one of another domain
                types = [bases.get(oid, oid) for oid in types]
        self._transformer = Transformer(driver)
        self._transformer.set_loader_types(types, Format.TEXT)

    def values(self, texts: Sequence[bytes | None]) -> tuple[Any, ...]:
        return self._transformer.load_sequence(texts)


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the server says about a slot."""

    exists: bool
    problem: str = ""
    """Why it cannot be read, and what to do."""
    held_bytes: int = 0
    max_bytes: int = 0
    """How much of the log the server keeps for any slot at most; below 0: until the disk is full."""
    start: str = "0/0"
    """Up to where it was acknowledged: it gives what was committed later."""
    end: str = "0/0"

    @classmethod
    def read(cls, connection: Connection, name: str) -> SlotState:
        row = connection.execute(_STATE, {"slot": name}).fetchone()
        if row is None:
            return cls(exists=False, problem=f"the source has no slot {name}; {SETUP}")
        fits, lost, held, limit, start, end = row
        problem = ""
        if lost:
            problem = (
                f"slot {name} is lost: the server removed log that it needed (max_slot_wal_keep_size); {SETUP}, "
                "which makes it again, and all documents are then compared once"
            )
        elif not fits:
            problem = f"slot {name} is of another database or plugin than pgoutput; drop it, and {SETUP}"
        return cls(True, problem, int(held or 0), int(limit), start, end)

    def follows(self, position: str | None) -> bool:
        """Return whether the slot gives everything after a position that was acknowledged. One that was made again by
        hand begins later, and so does one that another program has read; the log of a server that was put back to an
        earlier state ends sooner."""
        return position is not None and lsn_number(self.start) <= lsn_number(position) <= lsn_number(self.end)


def require_published(connection: Connection, publication: str, table: PostgresTable) -> None:
    """Raise SettingsError if the log does not have all changes of a table and the old values of its watched columns."""
    given = {
        "name": publication, "schema": table.schema, "table": table.name, "columns": list(table.watched.columns),
    }  # fmt: skip
    whole, through_root = connection.execute(_PUBLISHED, given).fetchone() or (False, False)
    if not whole or (table.partitioned and not through_root):
        raise SettingsError(
            f"publication {publication} is missing, or does not have all changes of table {table.watched}; {SETUP} "
            "again"
        )
    if not table.has_identity:
        raise SettingsError(
            f"the log has no old values of {', '.join(table.watched.columns)} of table {table.watched}: its "
            f"replica identity lacks them; {SETUP} again"
        )


def lsn(number: int) -> str:
    """Return a position of the log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def lsn_number(position: str) -> int:
    """Return a position of the log as a number."""
    high, low = position.split("/")
    return int(high, 16) << 32 | int(low, 16)


def wal_setup(connection: Connection, watched: Sequence[WatchedTable], project: str) -> Setup:
    """Return the SQL that brings PostgreSQL from how it is now to what the feed of its log needs. It may be run again.
    Where the server has to be restarted first, it is the SQL for that alone. Raises SettingsError if PostgreSQL is
    older than 15, or a table cannot be followed."""
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
        return Setup(f"{title}, part 1 of 2", WAL_COSTS, [first, *steps, last], [Step("ALTER SYSTEM RESET wal_level")])
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
    return Setup(title, WAL_COSTS, steps, removal, POSITION)


def _undo(sql: str, *, ours: bool) -> Step:
    return Step(sql) if ours else Step("", f"If nothing else needs it: {sql};")


def _identity(table: PostgresTable) -> Step:
    """Return the step that puts the watched columns into the log with each update and delete."""
    wanted, alter = ", ".join(table.watched.columns), f"ALTER TABLE {table.quoted} REPLICA IDENTITY"
    if not table.primary.issuperset(table.watched.columns):
        return Step(f"{alter} FULL", f"The primary key does not have {wanted}, so the log needs whole old rows.")
    return Step(f"{alter} DEFAULT", f"So that the log has the old value of {wanted}.")


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
    key = table.primary if table.primary.issuperset(table.watched.columns) else None
    identity = table.identity if table.has_identity else key
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
        "It tells the watch to compare everything once, because changes before the slot are unknown.",
    )
