"""The inbox: documents that have to be read again, because the source said that they, or rows that they show, changed.

A watch writes what a feed gave into the inbox before the source may forget it, so that a death at any moment loses no
change. A document is in the inbox once; each arrival of it raises its number, by which a batch knows that the document
changed once more while it was being indexed. Its `first_number` is that of its first change that is not indexed, which
holds back the position of the index. Of a row that documents show the inbox keeps a look-up, until
a batch that holds the lease finds these documents (see `etl.changed`).

What a run over all documents mended, although an index is watched, is kept until the watch has given it too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from rag_index.components.ledger.connection import LedgerConnection
from rag_index.components.ledger.tables import (
    HELD,
    MissedDocument,
    Position,
    Reached,
    WaitingChange,
    WaitingLookUp,
    WatchRecord,
    collections,
    documents,
    failed_documents,
    inbox,
    look_ups,
    mended,
    milestones,
    positions,
    slots,
    watches,
)

WAITING = (inbox, look_ups)
MAX_MILESTONES = 1000
"""Milestones of an index that are kept while it cannot reach them. Beyond that, only the newest moves."""
MAX_KEPT = 10_000
"""Documents of an index that are kept until they are explained. Of more, only the number is."""
OPEN = mended.c.missed_at.is_(None)
"""The condition for a document that was mended, and is neither explained nor known as missed."""


class InboxRows(LedgerConnection):
    """The changes of each index that wait to be indexed, and its watch. What counts them counts documents and look-ups.
    An index that is, or was, watched has a row; so has one for which something has arrived."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        found = self._first(sa.select(watches).where(watches.c.alias == alias))
        return WatchRecord(**found._mapping) if found else None

    def begin_watch(self, alias: str, *, blind: str = "") -> None:
        """Record that an index is watched from now on; one that was watched before keeps what is known about it.
        `blind` says what the watch of this index cannot see. Then what runs have mended until now is forgotten: nobody
        may have kept it for the watch."""
        values = {"since": self.clock(), "last_number": 0, "state": "running", "message": "", "blind": blind}
        with self.transaction():
            self._put_row(watches, {"alias": alias}, values, {"blind": blind})
            if blind:
                self._explain(alias, sa.true())

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        self._write(watches.update().where(watches.c.alias == alias).values(**values))

    def slot_position(self, name: str) -> str | None:
        """Return the position up to which everything that a slot gave is in the inbox; None if it was never read."""
        found: str | None = self._value(sa.select(slots.c.position).where(slots.c.name == name))
        return found

    def remember_slot(self, name: str, position: str) -> None:
        """Record that everything that a slot gave up to a position is in the inbox."""
        self._put_row(slots, {"name": name}, {"position": position})

    def defined(self, alias: str, what: str) -> str:
        """Return what the `tables` or the `policies` of an index were; "" if that is unknown."""
        return self.slot_position(f"{what} of {alias}") or ""  # no slot has a name with blanks

    def define(self, alias: str, definition: str, what: str = "tables") -> bool:
        """Record what the watched tables of an index are, or its policies; return whether they were something else."""
        if differs := self.defined(alias, what) != definition:
            self.remember_slot(f"{what} of {alias}", definition)
        return differs

    def stores(self, alias: str) -> list[str]:
        """Return where runs have written an index: addresses of servers and folders, the latest last."""
        return [*filter(None, self.defined(alias, "stores").split("\n"))]

    def note_store(self, alias: str, location: str) -> None:
        """Record where an index is written: what an earlier store keeps is not erased with it."""
        if location not in (known := self.stores(alias)):
            self.define(alias, "\n".join([*known, location]), "stores")

    # What arrives

    def put_changes(self, changes: Iterable[tuple[str, str, float]], *, first_number: int | None = None) -> None:
        """Add documents (alias, document id, time of the change), all of them or none. A document that waits already
        gets a new number and keeps its earliest time of change. `first_number` is the number of the arrival that these
        documents come from, if it is an earlier one."""
        self._arrive(inbox, changes, first_number)

    def put_look_ups(self, wanted: Iterable[tuple[str, str, str, float]]) -> None:
        """Add look-ups (alias, column, value, time of the change), all of them or none; otherwise as `put_changes`."""
        with self.transaction():
            for alias, number in self._arrive(look_ups, wanted).items():
                self.update_watch(alias, looked_up=number)

    def _arrive(
        self, table: sa.Table, arrived: Iterable[tuple[Any, ...]], first_number: int | None = None
    ) -> dict[str, int]:
        earliest: dict[tuple[str, ...], float] = {}
        for *key, at in arrived:
            earliest[tuple(key)] = min(at, earliest.get(tuple(key), at))
        new, old = self._new(table), table.c
        least: dict[str, Any] = {
            name: sa.case((new[name] < old[name], new[name]), else_=old[name])
            for name in ("changed_at", "first_number")
        }
        with self.transaction():
            numbers = {alias: self._next_number(alias) for alias in dict.fromkeys(ids[0] for ids in earliest)}
            firsts = numbers if first_number is None else dict.fromkeys(numbers, first_number)
            rows = [(*ids, numbers[ids[0]], at, firsts[ids[0]]) for ids, at in earliest.items()]
            self._put_rows(table, rows, update=["number"], **least)
        return numbers

    def _next_number(self, alias: str) -> int:
        """Raise the number of the index and return it; the first arrival makes the row of its watch."""
        values = {"alias": alias, "since": self.clock(), "last_number": 1, "state": "stopped", "message": ""}
        raised = {"last_number": watches.c.last_number + 1}
        insert = self._insert(watches).values(**values).on_conflict_do_update(index_elements=["alias"], set_=raised)
        return int(self._value(insert.returning(watches.c.last_number)))

    def need_full_scan(self, alias: str) -> None:
        """Record that changes up to now are unknown, so that a complete scan is needed. The place in the log, or the
        number, is forgotten: a new queue, or another log, may begin at lower ones."""
        with self.transaction():
            self.update_watch(alias, full_number=self._next_number(alias), since=self.clock())
            self._write(milestones.delete().where(milestones.c.alias == alias))
            self._write(positions.update().where(positions.c.alias == alias).values(position=""))
            self._forget_comparison(alias)

    # What waits

    def waiting_changes(self, alias: str, limit: int) -> list[WaitingChange]:
        """Return the documents that have waited longest. If more than `limit` wait, half are the newest, so that a
        single change is indexed while a burst is."""
        statement = sa.select(inbox.c.document_id, inbox.c.number).where(inbox.c.alias == alias)
        found = self._select(statement.order_by(inbox.c.number, inbox.c.document_id).limit(limit + 1))
        if len(found) > limit:
            half = limit // 2
            newest = self._select(statement.order_by(inbox.c.number.desc(), inbox.c.document_id.desc()).limit(half))
            found = [*found[: limit - half], *newest]
        return [WaitingChange(*row) for row in found]

    def waiting_look_ups(self, alias: str, limit: int) -> list[WaitingLookUp]:
        """Return the look-ups that have waited longest."""
        w = look_ups.c
        statement = sa.select(w.column_name, w.value, w.number, w.changed_at, w.first_number).where(w.alias == alias)
        statement = statement.order_by(w.number, w.column_name, w.value).limit(limit)
        return [WaitingLookUp(*row) for row in self._select(statement)]

    def any_look_ups(self, alias: str) -> bool:
        """Return whether look-ups wait."""
        return bool(self._value(sa.select(sa.exists().where(look_ups.c.alias == alias))))

    def count_waiting(self, alias: str) -> int:
        """Count the documents and look-ups that wait."""
        with self.transaction():
            return sum(self._count(table, table.c.alias == alias) for table in WAITING)

    def waiting_since(self, alias: str) -> float | None:
        """Return the earliest time of a change that waits; None if none does."""
        earliest = [sa.select(table.c.changed_at.label("at")).where(table.c.alias == alias) for table in WAITING]
        found: float | None = self._value(sa.select(sa.func.min(sa.union_all(*earliest).subquery().c.at)))
        return found

    # What is done

    def remove_changes(self, alias: str, done: Iterable[WaitingChange]) -> None:
        """Delete documents that are indexed now, unless they have arrived once more since."""
        numbers: dict[int, list[str]] = {}
        for change in done:
            numbers.setdefault(change.number, []).append(change.document_id)
        with self.transaction():
            for number, ids in numbers.items():
                ours = (inbox.c.alias == alias) & self._is_in(inbox.c.document_id, ids)
                self._write(inbox.delete().where(ours, inbox.c.number == number))
                self._write(inbox.update().where(ours, inbox.c.first_number <= number).values(first_number=number + 1))
                self._explain(alias, self._is_in(mended.c.document_id, ids))

    def replace_look_ups(self, alias: str, done: Iterable[WaitingLookUp], found: Iterable[tuple[str, float]]) -> None:
        """Put the documents that look-ups found (id, time of the change) in their place, all at once. A look-up that
        has arrived once more since stays."""
        done = list(done)
        first = min((one.first_number for one in done), default=None)
        number: Any = sa.bindparam("done_number")
        same = (look_ups.c.column_name == sa.bindparam("done_column")) & (
            look_ups.c.value == sa.bindparam("done_value")
        )
        ours = (look_ups.c.alias == alias) & same
        rows = [{"done_column": one.column, "done_value": one.value, "done_number": one.number} for one in done]
        with self.transaction() as connection:
            self.put_changes(((alias, document_id, at) for document_id, at in found), first_number=first)
            if rows:
                connection.execute(look_ups.delete().where(ours, look_ups.c.number == number), rows)
                connection.execute(look_ups.update().where(ours).values(first_number=number + 1), rows)

    def clear_changes(self, alias: str, number: int, *, compared: str = "") -> None:
        """Delete what arrived up to this number: a complete scan that began after it has seen all of that. `compared`
        is the hash of the settings of the scan, if the index was watched when it began."""
        arrived = (inbox.c.alias == alias) & (inbox.c.number <= number)
        with self.transaction():
            self._explain(alias, mended.c.document_id.in_(sa.select(inbox.c.document_id).where(arrived)))
            self._write(inbox.delete().where(arrived))
            if self._write(look_ups.delete().where(look_ups.c.alias == alias, look_ups.c.number <= number)):
                self._explain(alias, sa.true())  # it is unknown which documents they would have found
            for table in WAITING:
                seen = (table.c.alias == alias) & (table.c.first_number <= number)
                self._write(table.update().where(seen).values(first_number=number + 1))
            settled = (watches.c.alias == alias) & (watches.c.full_number <= number)
            self._write(watches.update().where(settled).values(full_number=None))
            self.update_watch(alias, compared=compared)

    # What runs mended

    def _forget_comparison(self, alias: str) -> None:
        """Forget which changes the watch has to explain, and let the next scan note none, since changes are unknown."""
        self.update_watch(alias, compared="", unkept=0)
        self._explain(alias, sa.true())

    def _explain(self, alias: str, which: sa.ColumnElement[bool]) -> None:
        self._write(mended.delete().where(mended.c.alias == alias, OPEN, which))

    def begin_comparison(self, alias: str, settings: str) -> bool:
        """Return whether the watch should have delivered every change that a full scan finds. `settings` is a hash of
        all that decides about the content of a document. It is so if a complete scan with the same settings began under
        the watch, and nothing was lost since. Otherwise what is open is forgotten, because nobody can tell any more.
        While look-ups wait, which this scan may make superfluous, it is not so either."""
        comparable = (watches.c.alias == alias) & (watches.c.compared == settings) & watches.c.full_number.is_(None)
        with self.transaction():
            begun = self._write(watches.update().where(comparable).values(unkept=0)) > 0
            if not begun:
                self._forget_comparison(alias)
            return begun and not self.any_look_ups(alias)

    def note_settings(self, alias: str, settings: str) -> None:
        """Let the next scan judge nothing if a batch works with other settings than the last complete scan."""
        differs = (watches.c.alias == alias) & watches.c.compared.not_in(["", settings])
        self._write(watches.update().where(differs).values(compared=""))

    def note_mended(self, alias: str, run_id: str, begun: int, changes: Sequence[tuple[str, str]]) -> None:
        """Record documents (id, `new`, `changed` or `deleted`) before the run writes them. `begun` is the number of the
        last arrival when the scan began."""
        now, updated = self.clock(), mended.c.keys()[2:]
        with self.transaction():
            room = max(0, MAX_KEPT - self._count(mended, mended.c.alias == alias, OPEN))
            number = self._next_number(alias)
            rows = [(alias, one, change, run_id, begun, number, now, None) for one, change in changes[:room]]
            self._put_rows(mended, rows, update=updated)
            if len(changes) > room:
                self.update_watch(alias, unkept=watches.c.unkept + len(changes) - room)

    def mended_deletions(self, alias: str, *, but: str) -> list[str]:
        """Return the documents that runs have deleted for the watch, without those of the run `but`."""
        deleted = (mended.c.alias == alias) & (mended.c.change == "deleted") & (mended.c.run_id != but)
        return self._column(sa.select(mended.c.document_id).where(deleted))

    def last_mended(self, alias: str) -> tuple[int, float] | None:
        """Return number and time of the last open document of an index; None if it has none."""
        latest = sa.select(sa.func.max(mended.c.number), sa.func.max(mended.c.found_at)).where(
            mended.c.alias == alias, OPEN
        )
        number, found_at = self._first(latest)
        return None if number is None else (number, found_at)

    def unexplained(self, alias: str, number: int) -> list[str]:
        """Return the open documents up to this number that are not in the inbox either, in the order of their ids. A
        document that a join no longer gave, and that the scan deleted, is found by no look-up any more. So look-ups
        that arrived since the scan began explain all documents that it deleted."""
        waits = sa.exists().where(inbox.c.alias == mended.c.alias, inbox.c.document_id == mended.c.document_id)
        statement = sa.select(mended.c.document_id).where(
            mended.c.alias == alias, OPEN, mended.c.number <= number, ~waits
        )
        looked_up = sa.select(watches.c.looked_up).where(watches.c.alias == alias).scalar_subquery()
        with self.transaction():
            self._explain(alias, (mended.c.change == "deleted") & (mended.c.begun < looked_up))
            return self._column(statement.order_by(mended.c.document_id))

    def record_missed(self, alias: str, ids: Sequence[str]) -> None:
        """Record that the watch missed these documents."""
        missed = (mended.c.alias == alias) & OPEN & self._is_in(mended.c.document_id, ids)
        self._write(mended.update().where(missed).values(missed_at=self.clock()))

    def missed(self, alias: str) -> list[MissedDocument]:
        """Return the documents that the watch missed and the last run mended, in the order of their ids."""
        columns = (mended.c.document_id, mended.c.change, mended.c.run_id, mended.c.found_at)
        statement = sa.select(*columns).where(mended.c.alias == alias, ~OPEN).order_by(mended.c.document_id)
        return [MissedDocument(*row) for row in self._select(statement)]

    def forget_missed(self, alias: str, run_id: str) -> None:
        """Delete what was missed before this run: it is not shown once the next run is complete."""
        self._write(mended.delete().where(mended.c.alias == alias, ~OPEN, mended.c.run_id != run_id))

    # Positions. A feed says how far it has seen its source; the number of the last arrival makes that a milestone. Once
    # nothing waits that arrived by then, the index has reached it, and its answers may claim it. A complete scan lays
    # the ground for that: before it, nobody knows what the collection lacks. Nothing is reached while a document is
    # failed or held back, because a search would not find what the source has. One that is pending waits in the inbox,
    # too, if the source has changed it.

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
        """Record that a scan of the whole source ended with everything in a collection, which is live now. `number` is
        that of the last arrival when it began. One that has not `read_all` relies on `changed_since`."""
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
