"""What a scan would delete, what the delete guard holds back, and how large a collection was in the last days."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from rag_index.ledger.records import Collection, Counts
from rag_index.ledger.scan_tables import LOST_KEYS, ScanRows
from rag_index.ledger.tables import HELD, batch_deletions, documents, sizes

d = documents.c
DAYS = 30
"""Days for which sizes are kept: what an index lost in this time is one loss."""
DAY = 86_400
HOUR = 3_600
HOURS = 24
"""Hours in which deletions by the batches of a watch count together."""
IS_LOST = d.key.in_(LOST_KEYS)
"""The condition for a document that the scan has recorded as gone or emptied."""


class DeletionRows(ScanRows):
    """The rows by which the delete guard decides (`indexing.delete_guard`)."""

    def count_documents(self, collection: Collection) -> Counts:
        """Count the documents of a collection."""
        return self._counts(collection, sa.true())

    def count_deletions(self, collection: Collection, *, held: bool = True) -> Counts:
        """Count the documents that are recorded as gone or emptied; without `held`, those that are not held back."""
        return self._counts(collection, IS_LOST if held else IS_LOST & d.held_at.is_(None))

    def _counts(self, collection: Collection, where: sa.ColumnElement[bool]) -> Counts:
        statement = sa.select(*_counts(documents, collection))
        found = self._select(statement.where(d.collection_id == collection.id, d.chunks > 0, where))
        return Counts(*map(int, found[0]))

    def count_unmatched(self, collection: Collection, other: Collection) -> Counts:
        """Count the documents that have no match in another collection: of the same key, or moved, with the same text.

        Documents of one text are matched one to one.
        """
        a, b = documents.alias("a"), documents.alias("b")
        missing, moved = _without_key(a, collection.id, b, other.id), _without_key(b, other.id, a, collection.id)
        lost = sa.select(a.c.text_hash, *_counts(a, collection)).where(missing).group_by(a.c.text_hash).subquery()
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
        return set(self._column(sa.select(d.key).where(held, self._is_in(d.key, keys))))

    def count_held(self, collection_id: int) -> int:
        """Count the documents that are held back."""
        return self._count(documents, self._is_in_index(collection_id), HELD)

    def hold_back(self, collection: Collection, *, whole: bool = False) -> None:
        """Hold back what is gone or emptied (with `whole`, only of what was there when the index was last whole)."""
        which = IS_LOST & (d.added_in <= collection.whole_in) if whole else IS_LOST
        indexed = (d.collection_id == collection.id) & (d.chunks > 0) & d.held_at.is_(None)
        self._write(documents.update().where(indexed, which).values(held_at=self.clock()))

    def hold_back_others(self, collection: Collection) -> None:
        """Hold back what is gone or emptied and nothing else held back before; hold that back no longer.

        Forget earlier sizes and deletions, as `release_all` does.
        """
        other = sa.case((d.held_at.is_(None), self.clock()), else_=None)
        lost = (d.collection_id == collection.id) & (d.chunks > 0) & IS_LOST
        with self.transaction():
            self.release(collection.id)
            self._write(documents.update().where(lost).values(held_at=other))
            self._forget_losses(collection.id)

    def release(self, collection_id: int, keys: Sequence[str] | None = None, *, even_lost: bool = False) -> None:
        """Hold documents back no longer that are neither gone nor emptied; of `keys` alone if these are given.

        With `even_lost`, it does not matter what they are.
        """
        which = sa.true() if keys is None else self._is_in(d.key, keys)
        which &= sa.true() if even_lost else ~IS_LOST
        self._write(documents.update().where(self._is_in_index(collection_id), HELD, which).values(held_at=None))

    def release_all(self, collection_id: int) -> None:
        """Hold nothing back any longer, and forget earlier sizes and deletions: a person allowed it."""
        with self.transaction():
            self.release(collection_id, even_lost=True)
            self._forget_losses(collection_id)

    def _forget_losses(self, collection_id: int) -> None:
        for table in (sizes, batch_deletions):
            self._write(table.delete().where(table.c.collection_id == collection_id))

    # What was deleted, and how large collections were

    def note_batch_deletions(self, collection_id: int, count: int) -> None:
        """Add to what batches have deleted in this hour; forget what is no longer counted."""
        now, b = int(self.clock() // HOUR), batch_deletions.c
        outdated = (b.collection_id == collection_id) & ~b.hour.between(now - HOURS, now)
        with self.transaction():
            self._write(batch_deletions.delete().where(outdated))
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
        outdated = (s.collection_id == collection_id) & (s.part == part) & ~s.day.between(today - DAYS + 1, today)
        with self.transaction():
            self._write(sizes.delete().where(outdated))
            insert = self._insert(sizes).values(collection_id=collection_id, day=today, part=part, documents=count)
            larger = sa.case((insert.excluded.documents > s.documents, insert.excluded.documents), else_=s.documents)
            keys = ["collection_id", "day", "part"]
            self._write(insert.on_conflict_do_update(index_elements=keys, set_={"documents": larger}))

    def largest_sizes(self, collection_id: int) -> dict[str, int]:
        """Return the most documents that the collection had in the last `DAYS`, as "", and the most rows of each part.

        Those of parts are of the `DAYS` before the last complete run.
        """
        today, s = int(self.clock() // DAY), sizes.c
        counted = (s.part != "") | s.day.between(today - DAYS + 1, today)
        largest = sa.select(s.part, sa.func.max(s.documents)).where(s.collection_id == collection_id, counted)
        return dict(self._select(largest.group_by(s.part)))

    def copy_sizes(self, collection_id: int, other_id: int) -> None:
        """Give another collection the sizes of this one, which it replaces, and what batches deleted from it."""
        with self.transaction():
            self._forget_losses(other_id)
            for table in (sizes, batch_deletions):
                others = [column for column in table.c if column.name != "collection_id"]
                rows = sa.select(sa.literal(other_id), *others).where(table.c.collection_id == collection_id)
                self._write(self._insert(table).from_select(["collection_id", *[one.name for one in others]], rows))


def _counts(table: sa.FromClause, collection: Collection) -> list[sa.ColumnElement[Any]]:
    whole = table.c.added_in <= collection.whole_in
    columns: list[sa.ColumnElement[Any]] = [sa.func.count().label("all")]
    for name, which in (("whole", whole), ("held", whole & table.c.held_at.is_not(None))):
        columns.append(sa.func.coalesce(sa.func.sum(sa.case((which, 1), else_=0)), 0).label(name))
    return columns


def _without_key(
    table: sa.FromClause, collection_id: int, other: sa.FromClause, other_id: int
) -> sa.ColumnElement[bool]:
    """Return the condition for documents of one collection whose key has no points in the other."""
    same = sa.exists().where(other.c.collection_id == other_id, other.c.key == table.c.key, other.c.chunks > 0)
    return (table.c.collection_id == collection_id) & (table.c.chunks > 0) & ~same
