"""What a scan would delete, what the delete guard holds back, and how large a collection was in the last days."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.records import Counts
from rag_index.ledger.scan import ScanRows
from rag_index.ledger.tables import HELD, batch_deletions, documents, sizes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.ledger.records import Collection

d = documents.c
DAYS = 30
"""Days for which sizes are kept: what an index lost in this time is one loss."""
DAY = 86_400
HOUR = 3_600
HOURS = 24
"""Hours in which deletions by the batches of a watch count together."""


class DeletionRows(ScanRows):
    """The rows by which the delete guard decides (`indexing.delete_guard`)."""

    def count_documents(self, collection: Collection) -> Counts:
        """Count the documents of a collection."""
        return self._counts(collection, sa.true())

    def count_deletions(self, collection: Collection, keys: Sequence[str] | None = None) -> Counts:
        """Count the documents that the scan did not see or found emptied.

        With `keys`, count those of these documents that have points and that are not held back.
        """
        if keys is None:
            return self._counts(collection, self._is_lost(collection.id))
        return self._counts(collection, self._is_in(d.key, keys) & d.held_at.is_(None))

    def count_unmatched(self, collection: Collection, other: Collection) -> Counts:
        """Count the documents that have no match in another collection: of the same key, or moved, with the same text.

        Documents of one text are matched one to one.
        """
        a, b = documents.alias("a"), documents.alias("b")
        missing = _without_key(a, collection.id, b, other.id)
        moved = _without_key(b, other.id, a, collection.id)
        whole = a.c.added_at <= collection.whole_at
        lost = (
            sa.select(a.c.text_hash, *_counts(whole, whole & a.c.held_at.is_not(None)))
            .where(missing)
            .group_by(a.c.text_hash)
            .subquery()
        )
        found = sa.select(b.c.text_hash, sa.func.count().label("found")).where(moved).group_by(b.c.text_hash).subquery()
        there = sa.func.coalesce(found.c.found, 0)
        sums = [
            sa.func.coalesce(sa.func.sum(sa.case((count > there, count - there), else_=0)), 0)
            for count in (lost.c.all, lost.c.whole, lost.c.held)
        ]
        joined = lost.outerjoin(found, found.c.text_hash == lost.c.text_hash)
        return Counts(*map(int, self._select(sa.select(*sums).select_from(joined))[0]))

    def held_of(self, collection_id: int, keys: Sequence[str]) -> set[str]:
        """Return those of these documents that are held back."""
        held = (d.collection_id == collection_id) & d.held_at.is_not(None)
        return {str(row[0]) for row in self._select(sa.select(d.key).where(held, self._is_in(d.key, keys)))}

    def count_held(self, collection_id: int) -> int:
        """Count the documents that are held back."""
        return self._count(documents, self._is_in_index(collection_id), HELD)

    def hold_back(self, collection: Collection, *, whole: bool) -> None:
        """Hold back what the scan would delete (with `whole`, only of what was there when the index was last whole)."""
        lost = self._is_lost(collection.id)
        if whole:
            lost &= d.added_at <= collection.whole_at
        with self.transaction():
            self.release(collection.id)
            self._hold(collection.id, lost)

    def hold_back_named(self, collection_id: int, keys: Sequence[str]) -> None:
        """Hold back these documents, as far as they have points."""
        self._hold(collection_id, self._is_in(d.key, keys))

    def _hold(self, collection_id: int, which: sa.ColumnElement[bool]) -> None:
        indexed = (d.collection_id == collection_id) & (d.chunks > 0)
        self._write(documents.update().where(indexed, which, d.held_at.is_(None)).values(held_at=self.clock()))

    def hold_back_others(self, collection: Collection) -> None:
        """Hold back what the scan would delete and nothing else held back before; hold that back no longer.

        Forget earlier sizes and deletions, as `release_all` does.
        """
        lost = (d.collection_id == collection.id) & (d.chunks > 0) & self._is_lost(collection.id)
        other = sa.case((d.held_at.is_(None), self.clock()), else_=None)
        with self.transaction():
            self.release(collection.id)
            self._write(documents.update().where(lost).values(held_at=other))
            self._forget_losses(collection.id)

    def release(self, collection_id: int) -> None:
        """Hold documents back no longer that the scan saw, and found with text."""
        self._release(collection_id, ~self._is_lost(collection_id))

    def release_seen(self, collection_id: int) -> None:
        """Hold documents back no longer that the scan saw, whether or not they have text."""
        self._release(collection_id, sa.exists().where(self._scanned.seen.c.key == d.key))

    def release_named(self, collection_id: int, keys: Sequence[str]) -> None:
        """Hold these documents back no longer."""
        self._release(collection_id, self._is_in(d.key, keys))

    def release_all(self, collection_id: int) -> None:
        """Hold nothing back any longer, and forget earlier sizes and deletions: a person allowed it."""
        with self.transaction():
            self._release(collection_id, sa.true())
            self._forget_losses(collection_id)

    def _release(self, collection_id: int, which: sa.ColumnElement[bool]) -> None:
        self._write(documents.update().where(self._is_in_index(collection_id), HELD, which).values(held_at=None))

    def _forget_losses(self, collection_id: int) -> None:
        for table in (sizes, batch_deletions):
            self._write(table.delete().where(table.c.collection_id == collection_id))

    # What was deleted, and how large collections were

    def note_batch_deletions(self, collection_id: int, count: int) -> None:
        """Add to what batches have deleted in this hour; forget what is no longer counted."""
        now, b = int(self.clock() // HOUR), batch_deletions.c
        with self.transaction():
            self._write(
                batch_deletions.delete().where(b.collection_id == collection_id, ~b.hour.between(now - HOURS, now))
            )
            insert = self._insert(batch_deletions).values(collection_id=collection_id, hour=now, documents=count)
            sum_ = {"documents": b.documents + insert.excluded.documents}
            self._write(insert.on_conflict_do_update(index_elements=["collection_id", "hour"], set_=sum_))

    def count_batch_deletions(self, collection_id: int) -> int:
        """Count what batches have deleted in this hour and the `HOURS` before it."""
        now, b = int(self.clock() // HOUR), batch_deletions.c
        recent = (b.collection_id == collection_id) & b.hour.between(now - HOURS, now)
        return int(self._value(sa.select(sa.func.sum(b.documents)).where(recent)) or 0)

    def note_size(self, collection_id: int, count: int, part: str = "") -> None:
        """Record that the collection has `count` documents today, or the source rows of a part of them.

        Sizes older than `DAYS` are forgotten.
        """
        today, s = int(self.clock() // DAY), sizes.c
        old = (s.collection_id == collection_id) & (s.part == part) & ~s.day.between(today - DAYS + 1, today)
        with self.transaction():
            self._write(sizes.delete().where(old))
            insert = self._insert(sizes).values(collection_id=collection_id, day=today, part=part, documents=count)
            larger = sa.case((insert.excluded.documents > s.documents, insert.excluded.documents), else_=s.documents)
            keys = ["collection_id", "day", "part"]
            self._write(insert.on_conflict_do_update(index_elements=keys, set_={"documents": larger}))

    def largest_size(self, collection_id: int) -> int:
        """Return the most documents that the collection had in the last `DAYS`; 0 if that is not known."""
        today, s = int(self.clock() // DAY), sizes.c
        recent = (s.collection_id == collection_id) & (s.part == "") & s.day.between(today - DAYS + 1, today)
        return int(self._value(sa.select(sa.func.max(s.documents)).where(recent)) or 0)

    def part_sizes(self, collection_id: int) -> dict[str, int]:
        """Return the most rows that each part had in the `DAYS` before the last complete run."""
        s = sizes.c
        largest = sa.select(s.part, sa.func.max(s.documents)).where(s.collection_id == collection_id, s.part != "")
        return {str(part): int(rows) for part, rows in self._select(largest.group_by(s.part))}

    def copy_sizes(self, collection_id: int, other_id: int) -> None:
        """Give another collection the sizes of this one, which it replaces, and what batches deleted from it."""
        with self.transaction():
            self._forget_losses(other_id)
            for table in (sizes, batch_deletions):
                others = [column for column in table.c if column.name != "collection_id"]
                rows = sa.select(sa.literal(other_id), *others).where(table.c.collection_id == collection_id)
                self._write(self._insert(table).from_select(["collection_id", *[one.name for one in others]], rows))

    def _counts(self, collection: Collection, where: sa.ColumnElement[bool]) -> Counts:
        whole = d.added_at <= collection.whole_at
        statement = sa.select(*_counts(whole, whole & d.held_at.is_not(None)))
        found = self._select(statement.where(d.collection_id == collection.id, d.chunks > 0, where))
        return Counts(*map(int, found[0]))

    def _is_lost(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for a document that the scan did not see, or found emptied."""
        tables = self._scanned
        unseen = self._is_unseen(collection_id)
        if self._any_unread:  # by keys: with an OR, the whole collection would be looked at
            return d.key.in_(sa.union(sa.select(tables.lost.c.key), sa.select(tables.emptied.c.key)))
        return unseen | sa.exists().where(tables.emptied.c.key == d.key)


def _counts(whole: sa.ColumnElement[bool], held: sa.ColumnElement[bool]) -> list[sa.ColumnElement[Any]]:
    """Return the columns of `Counts`."""
    numbers = [sa.func.coalesce(sa.func.sum(sa.case((one, 1), else_=0)), 0) for one in (whole, held)]
    return [sa.func.count().label("all"), numbers[0].label("whole"), numbers[1].label("held")]


def _without_key(
    table: sa.FromClause, collection_id: int, other: sa.FromClause, other_id: int
) -> sa.ColumnElement[bool]:
    """Return the condition for documents of one collection whose key has no points in the other."""
    same = sa.exists().where(other.c.collection_id == other_id, other.c.key == table.c.key, other.c.chunks > 0)
    return (table.c.collection_id == collection_id) & (table.c.chunks > 0) & ~same
