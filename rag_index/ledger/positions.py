"""Up to where each index is complete: the position that its answers may claim.

A feed says how far it has seen its source; the number of the last arrival in the inbox makes that a milestone. Once
nothing waits that arrived by then, the index has reached it. A complete scan lays the ground for that: before it,
nobody knows what the collection lacks. Nothing is reached while a document is failed or held back, because a search
would not find what the source has. One that is pending waits in the inbox, too, if the source has changed it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import Reached
from rag_index.ledger.tables import (
    HELD,
    collections,
    failed_documents,
    inbox,
    look_ups,
    milestones,
    positions,
    watches,
)

if TYPE_CHECKING:
    from rag_index.documents.positions import Position

p, s = positions.c, milestones.c
MAX_MILESTONES = 1000
"""Milestones of an index that are kept while it cannot reach them. Beyond that, only the newest moves."""
CHANNEL = "rag_index_positions"
"""The channel on which PostgreSQL tells that a position has moved."""
LOOK_SECONDS = 0.02
"""Between two looks at whether the file of a ledger in SQLite has changed."""


class PositionRows(LedgerConnection):
    """Milestones, and the position that each index has reached."""

    _waited_from: tuple[int, ...] | None = None
    """What the file of a ledger in SQLite was before the last reading; of PostgreSQL, whether it tells us."""

    def note_position(self, alias: str, position: Position) -> None:
        """Record that everything up to a position of the source has arrived in the inbox, and been indexed if not."""
        with self.transaction():
            number = int(self._value(sa.select(watches.c.last_number).where(watches.c.alias == alias)) or 0)
            if self._count(milestones, s.alias == alias) >= MAX_MILESTONES:
                newest = sa.select(sa.func.max(s.number)).where(s.alias == alias).scalar_subquery()
                self._write(milestones.delete().where(s.alias == alias, s.number == newest))
            values = {"at": position.at, "position": position.text, "how": position.how}
            self._put_row(milestones, {"alias": alias, "number": number}, values)
            self._advance(alias)

    def note_written(self, alias: str, collection_id: int) -> None:
        """Move the position on, after changes that waited were written to a collection, and committed."""
        with self.transaction():
            # what went to another collection, such as the one before after a rollback, is missing in this one
            self._write(positions.delete().where(p.alias == alias, p.collection_id != collection_id))
            self._advance(alias)

    def complete_scan(self, alias: str, collection_id: int, *, number: int, began: float, read_all: bool) -> None:
        """Record that a scan of the whole source ended with everything in a collection, which is live now.

        `number` is that of the last arrival when it began. One that has not `read_all` relies on `changed_since`.
        """
        with self.transaction():
            if self._has_gaps(collection_id):
                return
            found = self._select(sa.select(positions).where(p.alias == alias))
            last = found[0] if found else None
            values: dict[str, Any] = {"at": began, "position": "", "how": "run", "number": number if read_all else None}
            same = last is not None and last.collection_id == collection_id
            if last is not None and (same or (read_all and last.number is not None and last.number <= number)):
                values["position"] = last.position
                values["number"] = values["number"] if last.number is None else last.number
                if last.at > began:
                    values |= {"at": last.at, "how": last.how}
            self._put_row(positions, {"alias": alias}, {"collection_id": collection_id, **values, "commits": 0})
            self._stamp(alias)
            self._advance(alias)

    def drop_position(self, alias: str) -> None:
        """Forget what an index has reached, until the next complete scan: its store was put back to an older copy."""
        self._write(positions.delete().where(p.alias == alias))

    def doubt_position(self, alias: str) -> None:
        """Forget what a feed said an index has reached, because it did not see all changes. What a run said stays."""
        self._write(positions.delete().where(p.alias == alias, p.how != "run"))

    def forget_position(self, alias: str) -> None:
        """Forget the place in the log or the number: a new queue, or another log, may begin at lower ones."""
        self._write(milestones.delete().where(s.alias == alias))
        self._write(positions.update().where(p.alias == alias).values(position=""))

    def reached(self) -> dict[str, Reached]:
        """Return what each index has reached, by its alias. One that was never complete is left out."""
        if self._is_sqlite:
            self._waited_from = self._file_state()
        columns = (p.alias, collections.c.name, p.commits, p.number, p.at, p.position, p.how)
        joined = positions.join(collections, collections.c.id == p.collection_id)
        return {row.alias: Reached(*row) for row in self._select(sa.select(*columns).select_from(joined))}

    def wait_for_positions(self, seconds: float) -> None:
        """Return when a position may have moved since `reached`, or after this many seconds, without a query.

        The first call returns at once where it begins to be told: what moved before is not.
        """
        if self._is_sqlite:
            until = time.monotonic() + seconds
            while time.monotonic() < until and self._file_state() == self._waited_from:
                time.sleep(LOOK_SECONDS)
            return
        driver: Any = self._connection.connection.driver_connection
        if self._waited_from is None:
            driver.autocommit = True
            driver.execute(f"LISTEN {CHANNEL}")
            self._waited_from = ()
            return
        for _ in driver.notifies(timeout=seconds, stop_after=1):
            return

    def _file_state(self) -> tuple[int, ...]:
        log = Path(f"{self._url.database}-wal")
        found = log.stat() if log.exists() else None
        return (found.st_mtime_ns, found.st_size) if found else ()

    def _advance(self, alias: str) -> None:
        """Move an index to the newest milestone by which nothing waits, if there is one and nothing is missing."""
        found = self._select(sa.select(positions).where(p.alias == alias))
        if not found or found[0].number is None or self._has_gaps(found[0].collection_id):
            return
        if self._value(sa.select(watches.c.full_number).where(watches.c.alias == alias)) is not None:
            return
        first = [
            self._value(sa.select(sa.func.min(table.c.first_number)).where(table.c.alias == alias))
            for table in (inbox, look_ups)
        ]
        waits = min((number for number in first if number is not None), default=None)
        statement = sa.select(milestones).where(s.alias == alias).order_by(s.number.desc()).limit(1)
        newest = self._select(statement if waits is None else statement.where(s.number < waits))
        if not newest:
            return
        [one] = newest
        values = {"at": max(one.at, found[0].at), "position": one.position or found[0].position, "how": one.how}
        self._write(positions.update().where(p.alias == alias).values(number=one.number, **values))
        self._write(milestones.delete().where(s.alias == alias, s.number <= one.number))
        self._stamp(alias)

    def _stamp(self, alias: str) -> None:
        """Note the commit that a reader has to see, and tell those who wait for the position."""
        last = sa.select(collections.c.commits).where(collections.c.id == p.collection_id).scalar_subquery()
        self._write(positions.update().where(p.alias == alias).values(commits=sa.func.coalesce(last, 0)))
        if not self._is_sqlite:
            with self.transaction() as connection:
                connection.exec_driver_sql(f"NOTIFY {CHANNEL}")

    def _has_gaps(self, collection_id: int) -> bool:
        """Return whether documents are failed or held back."""
        rows = [
            sa.exists().where(self._is_in_index(collection_id), HELD),
            sa.exists().where(failed_documents.c.collection_id == collection_id, failed_documents.c.kind == "failed"),
        ]
        return bool(self._value(sa.select(sa.or_(*rows))))
