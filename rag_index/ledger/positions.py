"""Up to where each index is complete: positions, and the milestones that they move along."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import Position, Reached
from rag_index.ledger.tables import (
    HELD,
    collections,
    documents,
    failed_documents,
    inbox,
    look_ups,
    milestones,
    positions,
    watches,
)

WAITING = (inbox, look_ups)
MAX_MILESTONES = 1000
"""Milestones of an index that are kept while it cannot reach them. Beyond that, only the newest moves."""


class PositionRows(LedgerConnection):
    """Up to where each index is complete: the position that its answers may claim.

    A feed says how far it has seen its source; the number of the last arrival in the inbox makes that a milestone. Once
    nothing waits that arrived by then, the index has reached it. A complete scan lays the ground for that: before it,
    nobody knows what the collection lacks. Nothing is reached while a document is failed or held back, because a search
    would not find what the source has. One that is pending waits in the inbox, too, if the source has changed it.
    """

    def note_position(self, alias: str, position: Position) -> None:
        """Record that everything up to a position of the source has arrived in the inbox, and been indexed if not."""
        with self.transaction():
            number = int(self._value(sa.select(watches.c.last_number).where(watches.c.alias == alias)) or 0)
            newest = self._newest_milestone(alias)
            if newest and self._count(milestones, milestones.c.alias == alias) >= MAX_MILESTONES:
                self._write(
                    milestones.delete().where(milestones.c.alias == alias, milestones.c.number == newest.number)
                )
            # a watch that began after the last row of the queue was deleted does not know its number
            text = position.text or (newest.position if newest else "")
            values = {"at": position.at, "position": text, "how": position.how}
            self._put_row(milestones, {"alias": alias, "number": number}, values)
            self._advance(alias)

    def note_written(self, alias: str, collection_id: int) -> None:
        """Move the position on, after changes that waited were written to a collection, and committed."""
        with self.transaction():
            # what went to another collection, such as the one before after a rollback, is missing in this one
            self._write(
                positions.delete().where(positions.c.alias == alias, positions.c.collection_id != collection_id)
            )
            self._advance(alias)

    def complete_scan(self, alias: str, collection_id: int, *, number: int, began: float, read_all: bool) -> None:
        """Record that a scan of the whole source ended with everything in a collection, which is live now.

        `number` is that of the last arrival when it began. One that has not `read_all` relies on `changed_since`.
        """
        with self.transaction():
            if self.gaps_since(collection_id) is not None:
                return
            values: dict[str, Any] = {"at": began, "position": "", "how": "run", "number": number if read_all else None}
            last = self._position(alias)
            same = last is not None and last.collection_id == collection_id
            if last is not None and (same or (read_all and last.number is not None and last.number <= number)):
                values["position"] = last.position
                values["number"] = values["number"] if last.number is None else last.number
                if began < last.at <= self.clock():  # what a clock that was ahead said is given up
                    values |= {"at": last.at, "how": last.how}
            self._move(alias, collection_id, **values)
            self._advance(alias)

    def drop_position(self, alias: str) -> None:
        """Forget what an index has reached, until the next complete scan: its store was put back to an older copy."""
        self._write(positions.delete().where(positions.c.alias == alias))

    def doubt_position(self, alias: str) -> None:
        """Forget what a feed said an index has reached, because it did not see all changes. What a run said stays."""
        self._write(positions.delete().where(positions.c.alias == alias, positions.c.how != "run"))

    def reached(self) -> dict[str, Reached]:
        """Return what each index has reached, by its alias. One that was never complete is left out."""
        p = positions.c
        columns = (p.alias, collections.c.name, p.commits, p.number, p.at, p.position, p.how)
        joined = positions.join(collections, collections.c.id == p.collection_id)
        return {row.alias: Reached(*row) for row in self._select(sa.select(*columns).select_from(joined))}

    def _position(self, alias: str) -> Any:
        return self._first(sa.select(positions).where(positions.c.alias == alias))

    def _newest_milestone(self, alias: str, *where: sa.ColumnElement[bool]) -> Any:
        return self._first(
            sa.select(milestones)
            .where(milestones.c.alias == alias, *where)
            .order_by(milestones.c.number.desc())
            .limit(1)
        )

    def _advance(self, alias: str) -> None:
        """Move an index to the newest milestone by which nothing waits, if there is one and nothing is missing."""
        now = self._position(alias)
        if now is None or now.number is None or self.gaps_since(now.collection_id) is not None:
            return
        if self._value(sa.select(watches.c.full_number).where(watches.c.alias == alias)) is not None:
            return
        firsts = (sa.select(sa.func.min(table.c.first_number)).where(table.c.alias == alias) for table in WAITING)
        waits = [number for first in firsts if (number := self._value(first)) is not None]
        if one := self._newest_milestone(alias, *(milestones.c.number < number for number in waits)):
            at = now.at if one.at < now.at <= self.clock() else one.at
            values = {"at": at, "position": one.position or now.position, "how": one.how}
            self._move(alias, now.collection_id, number=one.number, **values)
            self._write(milestones.delete().where(milestones.c.alias == alias, milestones.c.number <= one.number))

    def _move(self, alias: str, collection_id: int, **values: Any) -> None:
        """Write a position with the commit that a reader has to see."""
        commits = sa.select(collections.c.commits).where(collections.c.id == collection_id).scalar_subquery()
        values |= {"collection_id": collection_id, "commits": sa.func.coalesce(commits, 0)}
        self._put_row(positions, {"alias": alias}, values)

    def gaps_since(self, collection_id: int) -> float | None:
        """Return since when a document has been failed or held back, so that nothing is reached; None if none is."""
        f = failed_documents.c
        rows = [
            sa.select(sa.func.min(documents.c.held_at).label("at")).where(self._is_in_index(collection_id), HELD),
            sa.select(sa.func.min(f.first_at)).where(f.collection_id == collection_id, f.kind == "failed"),
        ]
        found: float | None = self._value(sa.select(sa.func.min(sa.union_all(*rows).subquery().c.at)))
        return found
