"""The state of a slot and its publication, and whether they fit the tables that are watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.changes.postgres import table_in_catalogue
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import WatchedTable

__all__ = ["SETUP", "SlotState", "check_publication", "check_server", "check_slot"]

MIN_VERSION = 140_000
"""PostgreSQL 14 is the first whose pgoutput gives messages, by which the feed learns that it has been set up."""
SETUP = "run the SQL that `rag-index watch --setup` prints"
_STATE = sa.text("""
    SELECT plugin, database = current_database(), wal_status, active, safe_wal_size,
           pg_wal_lsn_diff(pg_current_wal_flush_lsn(), restart_lsn)::bigint,
           (SELECT setting::bigint FROM pg_settings WHERE name = 'max_slot_wal_keep_size')
    FROM pg_replication_slots WHERE slot_name = :slot
""")
_PUBLISHED = sa.text("""
    SELECT p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate, p.pubviaroot
    FROM pg_publication p WHERE p.pubname = :name
""")
_TABLES = sa.text("SELECT schemaname, tablename FROM pg_publication_tables WHERE pubname = :name")


@dataclass(frozen=True, slots=True)
class SlotState:
    """What the server says about a slot."""

    name: str
    exists: bool
    fits: bool = False
    """Whether it is of this database and of pgoutput."""
    lost: bool = False
    """Whether the server has removed log that the slot needs, so that it can never be read again."""
    active: bool = False
    held_bytes: int = 0
    """How much of the log the server keeps for it."""
    max_bytes: int | None = None
    """How much of the log the server keeps for any slot at most; None: until the disk is full."""

    @classmethod
    def read(cls, connection: Connection, name: str) -> SlotState:
        """Return the state of the slot."""
        row = connection.execute(_STATE, {"slot": name}).fetchone()
        if row is None:
            return cls(name, exists=False)
        plugin, here, status, active, _, held, limit = row
        return cls(
            name, exists=True, fits=plugin == "pgoutput" and bool(here), lost=status == "lost", active=bool(active),
            held_bytes=int(held or 0), max_bytes=None if int(limit) < 0 else int(limit) << 20,
        )  # fmt: skip

    def require_usable(self) -> None:
        """Raise SourceError if the slot cannot be read."""
        if problem := self.problem():
            raise SourceError(problem)

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


def check_server(connection: Connection) -> None:
    """Check that the server has logical decoding.

    Raises:
        SettingsError: it has not, or is too old.
    """
    version = int(connection.scalar(sa.text("SELECT current_setting('server_version_num')")) or 0)
    if version < MIN_VERSION:
        raise SettingsError(
            f'changes = "wal" needs PostgreSQL 14 or newer, and the source is {version // 10_000}; '
            'use changes = "queue"'
        )
    level = connection.scalar(sa.text("SELECT current_setting('wal_level')"))
    if level != "logical":
        raise SettingsError(
            f'changes = "wal" needs wal_level = logical, and the source has {level}: '
            "ALTER SYSTEM SET wal_level = logical, then restart PostgreSQL"
        )


def check_publication(connection: Connection, name: str, tables: Sequence[WatchedTable]) -> None:
    """Check that the publication has these tables, and that the log has the old values of their watched columns.

    Raises:
        SettingsError: it does not.
    """
    row = connection.execute(_PUBLISHED, {"name": name}).fetchone()
    if row is None:
        raise SettingsError(f"the source has no publication {name}; {SETUP}")
    whole, through_root = row
    if not whole:
        raise SettingsError(f"publication {name} does not publish all of insert, update, delete, truncate; {SETUP}")
    published = set(map(tuple, connection.execute(_TABLES, {"name": name})))
    for watched in tables:
        table = table_in_catalogue(connection, watched)
        if (table.schema, table.name) not in published or (table.partitioned and not through_root):
            raise SettingsError(f"publication {name} does not have the table {watched}; {SETUP} again")
        if not table.has_identity:
            raise SettingsError(
                f"the log has no old values of {', '.join(watched.columns)} of table {watched}: its replica identity "
                f"lacks them; {SETUP} again"
            )


def check_slot(connection: Connection, name: str, tables: Sequence[WatchedTable]) -> None:
    """Check that server, publication and slot are set up for these tables.

    Raises:
        SettingsError: they are not; the message says what to do.
    """
    check_server(connection)
    check_publication(connection, name, tables)
    if problem := SlotState.read(connection, name).problem():
        raise SettingsError(problem)
