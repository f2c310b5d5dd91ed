"""The state of a slot and its publication, and whether they fit the tables that are watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.changes.postgres import table_in_catalogue
from rag_index.changes.queues import SETUP
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Connection

    from rag_index.changes.rows import WatchedTable

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


def lsn(number: int) -> str:
    """Return a position of the log as PostgreSQL writes it."""
    return f"{number >> 32:X}/{number & 0xFFFFFFFF:X}"


def lsn_number(position: str) -> int:
    """Return a position of the log as a number."""
    high, low = position.split("/")
    return int(high, 16) << 32 | int(low, 16)
