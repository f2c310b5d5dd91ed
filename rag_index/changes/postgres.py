"""What PostgreSQL's catalogue says about watched tables, and values of keys from the text that the server writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.errors import SettingsError

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
    for column in sorted({*watched.columns, *(watched.used or ())}):
        if column not in types:
            raise SettingsError(f"table {str(watched)!r} has no column {column!r}, which the settings name")
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
