"""What PostgreSQL says about watched tables, a slot and a publication; values of keys from the text that it writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.changes.queues import SETUP, require_columns
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import WatchedTable

KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
FIRST_OWN_OID = 16384
"""The first OID of a type that is not built in; only such a type can be a domain."""

_FIND = sa.text("""
    SELECT c.oid, n.nspname, c.relname, c.relkind, c.relreplident, c.relpersistence,
           EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid OR i.inhrelid = c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relname = :name
      AND CASE WHEN CAST(:schema AS text) IS NULL THEN pg_table_is_visible(c.oid) ELSE n.nspname = :schema END
""")
"""Without `to_regclass`, which ends the transaction if the role may not use the schema."""

_COLUMNS = sa.text(
    "SELECT attname, atttypid FROM pg_attribute WHERE attrelid = :oid AND attnum > 0 AND NOT attisdropped"
)
_IDENTITY = sa.text("""
    SELECT i.indexrelid::regclass::text, i.indisprimary, i.indisreplident,
           array(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)),
           ci.relname
    FROM pg_index i JOIN pg_class ci ON ci.oid = i.indexrelid
    WHERE i.indrelid = :oid AND i.indisunique AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL
      AND i.indisvalid AND NOT EXISTS (
        SELECT FROM pg_attribute a WHERE a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey) AND NOT a.attnotnull)
    ORDER BY i.indisprimary DESC, i.indnatts, i.indexrelid
""")
_BASE_TYPES = sa.text("SELECT oid, typbasetype FROM pg_type WHERE typtype = 'd'")
MIN_VERSION = 140_000
"""PostgreSQL 14 is the first whose pgoutput gives messages, by which the feed learns that it has been set up."""
_STATE = sa.text("""
    SELECT plugin = 'pgoutput' AND database = current_database(), wal_status = 'lost',
           pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint,
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
           confirmed_flush_lsn::text, pg_current_wal_flush_lsn()::text
    FROM pg_replication_slots WHERE slot_name = :slot
""")
_PUBLISHED = sa.text("""
    SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot
    FROM pg_publication p WHERE p.pubname = :name
""")
_TABLES = sa.text("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = :name")


@dataclass(frozen=True, slots=True)
class UniqueIndex:
    """A unique index without NULLs, which may be a table's replica identity."""

    name: str
    primary: bool
    columns: frozenset[str]


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
    unique: tuple[UniqueIndex, ...]

    @property
    def quoted(self) -> str:
        """Return the name for a statement, with its schema."""
        return f"{quoted(self.schema)}.{quoted(self.name)}"

    @property
    def has_identity(self) -> bool:
        """Return whether the log has the old values of all watched columns."""
        return self.identity is None or self.identity.issuperset(self.watched.columns)


def quoted(name: str) -> str:
    """Return a name in double quotes."""
    return '"' + name.replace('"', '""') + '"'


def table_in_catalogue(connection: Connection, watched: WatchedTable) -> PostgresTable:
    """Return what the catalogue says about a table.

    Raises:
        SettingsError: there is no such table or column, or its changes cannot be followed.
    """
    row = connection.execute(_FIND, {"schema": watched.schema, "name": watched.name}).fetchone()
    if row is None:
        raise SettingsError(f"there is no table {str(watched)!r} in the source whose changes could be followed")
    oid, schema, table, kind, identity, persistence, inherits = row
    if kind not in ("r", "p"):
        what = KINDS.get(kind, "relation of another kind")
        raise SettingsError(
            f"{str(watched)!r} is a {what}, whose changes cannot be followed: name its tables in depends_on"
        )
    if persistence != "p":
        raise SettingsError(f"{str(watched)!r} is an unlogged or temporary table, whose changes cannot be followed")
    types = dict(map(tuple, connection.execute(_COLUMNS, {"oid": oid})))
    require_columns(watched, types)
    unique, chosen = [], None
    clause = {"d": "DEFAULT", "f": "FULL"}.get(identity, "NOTHING")
    for _, primary, replica, columns, index in connection.execute(_IDENTITY, {"oid": oid}):
        unique.append(UniqueIndex(index, primary, frozenset(columns)))
        if (identity == "d" and primary) or (identity == "i" and replica):
            chosen = frozenset(columns)
            clause = clause if identity == "d" else f"USING INDEX {quoted(index)}"
    own = None if identity == "f" else chosen or frozenset()
    return PostgresTable(watched, oid, schema, table, kind == "p", inherits, types, clause, own, tuple(unique))


class TextReader:
    """Turns the text of values into what the driver gives when it reads columns of these types."""

    def __init__(self, connection: Connection, types: Iterable[int]) -> None:
        from psycopg.adapt import Transformer
        from psycopg.pq import Format

        driver: Any = connection.connection.driver_connection
        oids = list(types)
        if any(oid >= FIRST_OWN_OID for oid in oids):
            bases = dict(map(tuple, connection.execute(_BASE_TYPES)))
            oids = [_base(oid, bases) for oid in oids]
        self._transformer = Transformer(driver)
        self._transformer.set_loader_types(oids, Format.TEXT)

    def values(self, texts: Sequence[bytes | None]) -> tuple[Any, ...]:
        """Return the values of one row."""
        return self._transformer.load_sequence(texts)


def _base(oid: int, bases: dict[int, int]) -> int:
    while oid in bases:
        oid = bases[oid]
    return oid


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the server says about a slot."""

    name: str
    exists: bool
    fits: bool = False
    """Whether it is of this database and of pgoutput."""
    lost: bool = False
    """Whether the server has removed log that the slot needs, so that it can never be read again."""
    held_bytes: int = 0
    """How much of the log the server keeps for it."""
    max_bytes: int | None = None
    """How much of the log the server keeps for any slot at most; None: until the disk is full."""
    start: str = "0/0"
    """Up to where it was acknowledged: it gives what was committed later."""
    end: str = "0/0"
    """The end of the server's log."""

    @classmethod
    def read(cls, connection: Connection, name: str) -> SlotState:
        """Return the state of the slot."""
        row = connection.execute(_STATE, {"slot": name}).fetchone()
        if row is None:
            return cls(name, exists=False)
        fits, lost, held, limit, start, end = row
        return cls(
            name, exists=True, fits=bool(fits), lost=bool(lost), held_bytes=int(held or 0),
            max_bytes=None if int(limit) < 0 else int(limit) << 20, start=start or "0/0", end=end,
        )  # fmt: skip

    def require_usable(self) -> None:
        """Raise SourceError if the slot cannot be read."""
        if problem := self.problem():
            raise SourceError(problem)

    def follows(self, position: str | None) -> bool:
        """Return whether the slot gives everything after a position that was acknowledged.

        One that was made again by hand begins later, and so does one that somebody else has read; the log of a server
        that was put back to an earlier state ends sooner.
        """
        return position is not None and lsn_number(self.start) <= lsn_number(position) <= lsn_number(self.end)

    def problem(self) -> str | None:
        """Return why the slot cannot be read and what to do, or None."""
        if not self.exists:
            return f"the source has no slot {self.name}; {SETUP}"
        if self.lost:
            return (
                f"slot {self.name} is lost: the server removed log that it needed (max_slot_wal_keep_size); {SETUP}, "
                "which makes it again, and all documents are then compared once"
            )
        if not self.fits:
            return f"slot {self.name} is of another database or plugin than pgoutput; drop it, and {SETUP}"
        return None


def server_version(connection: Connection) -> int:
    """Return the version of the server as a number. Raises SettingsError if it is too old for logical decoding."""
    version = int(connection.scalar(sa.text("SELECT current_setting('server_version_num')")) or 0)
    if version < MIN_VERSION:
        raise SettingsError(
            f'changes = "wal" needs PostgreSQL 14 or newer, and the source is {version // 10_000}; '
            'use changes = "queue"'
        )
    return version


def check_server(connection: Connection) -> None:
    """Raise SettingsError if the server has no logical decoding."""
    server_version(connection)
    level = connection.scalar(sa.text("SELECT current_setting('wal_level')"))
    if level != "logical":
        raise SettingsError(f'changes = "wal" needs wal_level = logical, and the source has {level}; {SETUP}')


def check_publication(
    connection: Connection, name: str, tables: Sequence[WatchedTable]
) -> dict[WatchedTable, SettingsError]:
    """Check that the publication has these tables, and that the log has the old values of their watched columns.

    Return why changes of some of them are not seen.

    Raises:
        SettingsError: there is no such publication, or it leaves changes out.
    """
    row = connection.execute(_PUBLISHED, {"name": name}).fetchone()
    if row is None:
        raise SettingsError(f"the source has no publication {name}; {SETUP}")
    whole, through_root = row
    if not whole:
        raise SettingsError(f"publication {name} does not publish all of insert, update, delete, truncate; {SETUP}")
    published = set(map(tuple, connection.execute(_TABLES, {"name": name})))
    found = {}
    for watched in tables:
        try:
            table = table_in_catalogue(connection, watched)
        except SettingsError as error:
            found[watched] = error
            continue
        if (table.schema, table.name) not in published or (table.partitioned and not through_root):
            found[watched] = SettingsError(f"publication {name} does not have the table {watched}; {SETUP} again")
        elif not table.has_identity:
            found[watched] = SettingsError(
                f"the log has no old values of {', '.join(watched.columns)} of table {watched}: its replica identity "
                f"lacks them; {SETUP} again"
            )
    return found


POSITION = "SELECT pg_current_wal_insert_lsn()::text"
"""How far the log has come: after a commit, not below the end of that."""


def lsn(number: int) -> str:
    """Return a position of the log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def lsn_number(position: str) -> int:
    """Return a position of the log as a number."""
    high, low = position.split("/")
    return int(high, 16) << 32 | int(low, 16)
