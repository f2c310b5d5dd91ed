"""The inbox: documents that have to be read again, because the source said that they, or rows that they show, changed.

A watch writes what a feed gave into the inbox before the source may forget it, so that a death at any moment loses no
change. A document is in the inbox once; each arrival of it raises its number, by which a batch knows that the document
changed once more while it was being indexed. Of a row that documents show the inbox keeps a look-up, until a batch that
holds the lease finds these documents (see `indexing.look_ups`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import MissedDocument, WaitingChange, WaitingLookUp
from rag_index.ledger.tables import inbox, look_ups, mended, watches

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection

COLUMNS = ("alias", "document_id", "number", "changed_at", "received_at")
LOOK_UP_COLUMNS = ("alias", "column_name", "value", "number", "changed_at")
MAX_KEPT = 10_000
"""Documents of an index that are kept until they are explained. Of more, only the number is."""
MENDED_COLUMNS = ("alias", "document_id", "change", "run_id", "begun", "number", "found_at")


class InboxRows(LedgerConnection):
    """The changes of each index that wait to be indexed. What counts them counts documents and look-ups."""

    def put_changes(self, changes: Iterable[tuple[str, str, float]]) -> None:
        """Add documents (alias, document id, time of the change), all of them or none.

        A document that waits already gets a new number and keeps its earliest time of change.
        """
        earliest: dict[tuple[str, str], float] = {}
        for alias, document_id, changed_at in changes:
            known = earliest.get((alias, document_id))
            earliest[alias, document_id] = changed_at if known is None else min(known, changed_at)
        if not earliest:
            return
        now = self.clock()
        with self.transaction() as connection:
            numbers = self._next_numbers(connection, (alias for alias, _ in earliest))
            rows = [(alias, one, numbers[alias], at, now) for (alias, one), at in earliest.items()]
            self._put(connection, inbox, COLUMNS, rows)

    def put_look_ups(self, wanted: Iterable[tuple[str, str, str, float]]) -> None:
        """Add look-ups (alias, column, value, time of the change), all of them or none; otherwise as `put_changes`."""
        earliest: dict[tuple[str, str, str], float] = {}
        for *which, changed_at in wanted:
            alias, column, value = which
            earliest[alias, column, value] = min(changed_at, earliest.get((alias, column, value), changed_at))
        if not earliest:
            return
        with self.transaction() as connection:
            numbers = self._next_numbers(connection, (alias for alias, _, _ in earliest))
            rows = [(alias, column, value, numbers[alias], at) for (alias, column, value), at in earliest.items()]
            self._put(connection, look_ups, LOOK_UP_COLUMNS, rows)
            for alias, number in numbers.items():
                connection.execute(watches.update().where(watches.c.alias == alias).values(looked_up=number))

    def waiting_changes(self, alias: str, limit: int) -> list[WaitingChange]:
        """Return the documents that have waited longest."""
        i = inbox.c
        statement = sa.select(i.document_id, i.number, i.changed_at, i.received_at).where(i.alias == alias)
        with self.transaction() as connection:
            rows = connection.execute(statement.order_by(i.number, i.document_id).limit(limit)).fetchall()
        return [WaitingChange(*row) for row in rows]

    def waiting_look_ups(self, alias: str, limit: int) -> list[WaitingLookUp]:
        """Return the look-ups that have waited longest."""
        u = look_ups.c
        statement = sa.select(u.column_name, u.value, u.number, u.changed_at).where(u.alias == alias)
        with self.transaction() as connection:
            rows = connection.execute(statement.order_by(u.number, u.column_name, u.value).limit(limit)).fetchall()
        return [WaitingLookUp(*row) for row in rows]

    def count_waiting(self, alias: str) -> int:
        """Count the documents and look-ups that wait."""
        with self.transaction() as connection:
            return sum(
                int(connection.scalar(sa.select(sa.func.count()).select_from(table).where(table.c.alias == alias)) or 0)
                for table in (inbox, look_ups)
            )

    def waiting_since(self, alias: str) -> float | None:
        """Return the earliest time of a change that waits; None if none does."""
        with self.transaction() as connection:
            times = [
                connection.scalar(sa.select(sa.func.min(table.c.changed_at)).where(table.c.alias == alias))
                for table in (inbox, look_ups)
            ]
        return min((float(at) for at in times if at is not None), default=None)

    def remove_changes(self, alias: str, done: Iterable[WaitingChange]) -> None:
        """Delete documents that are indexed now, unless they have arrived once more since."""
        numbers: dict[int, list[str]] = {}
        for change in done:
            numbers.setdefault(change.number, []).append(change.document_id)
        i = inbox.c
        statement = inbox.delete().where(
            i.alias == alias, i.number == sa.bindparam("seen"), self._is_in_keys(i.document_id)
        )
        with self.transaction() as connection:
            for number, ids in numbers.items():
                connection.execute(statement, {"seen": number, "keys": self._bind_keys(ids)})
                self._explain(connection, alias, self._is_in_keys(mended.c.document_id), {"keys": self._bind_keys(ids)})

    def replace_look_ups(self, alias: str, done: Iterable[WaitingLookUp], found: Iterable[tuple[str, float]]) -> None:
        """Put the documents that look-ups found (id, time of the change) in their place, all at once.

        A look-up that has arrived once more since stays.
        """
        u = look_ups.c
        names = ("column_name", "value", "number")
        same = [u[name] == sa.bindparam(f"done_{name}") for name in names]
        rows = [{f"done_{name}": value for name, value in zip(names, one[:3], strict=True)} for one in done]
        with self.transaction() as connection:
            self.put_changes((alias, document_id, at) for document_id, at in found)
            if rows:
                connection.execute(look_ups.delete().where(u.alias == alias, *same), rows)

    def clear_changes(self, alias: str, number: int, *, compared: str = "") -> None:
        """Delete what arrived up to this number: a complete scan that began after it has seen all of that.

        `compared` is the hash of the settings of the scan, if the index was watched when it began.
        """
        i, u, w = inbox.c, look_ups.c, watches.c
        arrived = (i.alias == alias) & (i.number <= number)
        with self.transaction() as connection:
            self._explain(connection, alias, mended.c.document_id.in_(sa.select(i.document_id).where(arrived)))
            connection.execute(inbox.delete().where(arrived))
            if connection.execute(look_ups.delete().where(u.alias == alias, u.number <= number)).rowcount:
                self._explain(connection, alias, sa.true())  # nobody knows which documents they would have found
            settled = (w.alias == alias) & (w.full_number <= number)
            connection.execute(watches.update().where(settled).values(full_number=None))
            connection.execute(watches.update().where(w.alias == alias).values(compared=compared))

    def need_full_scan(self, alias: str) -> None:
        """Record that nobody knows what changed up to now, so that a complete scan is needed."""
        with self.transaction() as connection:
            number = self._next_number(connection, alias)
            values = {"full_number": number, "since": self.clock()}
            connection.execute(watches.update().where(watches.c.alias == alias).values(**values))
            self.forget_comparison(alias)

    def forget_comparison(self, alias: str) -> None:
        """Forget which changes the watch has to explain, and let the next scan note none: nobody knows what changed."""
        with self.transaction() as connection:
            connection.execute(watches.update().where(watches.c.alias == alias).values(compared="", unkept=0))
            self._explain(connection, alias, sa.true())

    def _explain(
        self, connection: Connection, alias: str, which: sa.ColumnElement[bool], bound: dict[str, Any] | None = None
    ) -> None:
        """Delete what runs mended, and the watch has given now."""
        open_ones = (mended.c.alias == alias) & mended.c.missed_at.is_(None)
        connection.execute(mended.delete().where(open_ones, which), bound or {})

    def _put(self, connection: Connection, table: sa.Table, names: Sequence[str], rows: list[tuple[Any, ...]]) -> None:
        """Insert rows. One that is there gets the new number and keeps its earliest time of change."""
        insert = self._insert(table).values({name: sa.bindparam(name) for name in names})
        new, old = insert.excluded, table.c
        renewed = {name: new[name] for name in names if name in ("number", "received_at")}
        earliest = sa.case((new.changed_at < old.changed_at, new.changed_at), else_=old.changed_at)
        keys = [column.name for column in table.primary_key]
        statement = insert.on_conflict_do_update(index_elements=keys, set_={**renewed, "changed_at": earliest})
        self._execute_many(connection, statement, names, rows)

    def _next_numbers(self, connection: Connection, aliases: Iterable[str]) -> dict[str, int]:
        return {alias: self._next_number(connection, alias) for alias in dict.fromkeys(aliases)}

    def _next_number(self, connection: Connection, alias: str) -> int:
        """Raise the number of the index and return it; the first arrival makes the row of its watch."""
        values = {
            "alias": alias, "since": self.clock(), "last_number": 1, "state": "stopped", "message": "",
        }  # fmt: skip
        insert = self._insert(watches).values(**values)
        statement = insert.on_conflict_do_update(
            index_elements=["alias"], set_={"last_number": watches.c.last_number + 1}
        ).returning(watches.c.last_number)
        return int(connection.execute(statement).scalar_one())


m, w = mended.c, watches.c
OPEN = m.missed_at.is_(None)
"""The condition for a document that is neither explained nor known as missed."""


class MendedRows(InboxRows):
    """The documents of each index that runs mended and that are not explained."""

    def begin_comparison(self, alias: str, settings: str) -> bool:
        """Return whether what a complete scan finds changed is what the watch had to give until now.

        `settings` is a hash of all that decides about the content of a document. It is so if a complete scan with the
        same settings began under the watch, and nothing was lost since. Otherwise what is open is forgotten, because
        nobody can tell any more. While look-ups wait, which this scan may make superfluous, it is not so either.
        """
        comparable = (w.alias == alias) & (w.compared == settings) & w.full_number.is_(None)
        with self.transaction() as connection:
            begun = connection.execute(watches.update().where(comparable).values(unkept=0)).rowcount > 0
            if not begun:
                self.forget_comparison(alias)
            return begun and not self.any_look_ups(alias)

    def note_settings(self, alias: str, settings: str) -> None:
        """Let the next scan judge nothing if a batch works with other settings than the last complete scan."""
        differs = (w.alias == alias) & w.compared.not_in(["", settings])
        with self.transaction() as connection:
            connection.execute(watches.update().where(differs).values(compared=""))

    def note_mended(self, alias: str, run_id: str, begun: int, changes: Sequence[tuple[str, str]]) -> None:
        """Record documents (id, `new`, `changed` or `deleted`) before the run writes them.

        `begun` is the number of the last arrival when the scan began.
        """
        insert = self._insert(mended).values({name: sa.bindparam(name) for name in MENDED_COLUMNS})
        values = {name: insert.excluded[name] for name in MENDED_COLUMNS[2:]}
        statement = insert.on_conflict_do_update(
            index_elements=["alias", "document_id"], set_={**values, "missed_at": None}
        )
        now = self.clock()
        with self.transaction() as connection:
            room = max(0, MAX_KEPT - self._count_open(alias))
            number = self._next_number(connection, alias)
            rows = [(alias, one, change, run_id, begun, number, now) for one, change in changes[:room]]
            if rows:
                self._execute_many(connection, statement, MENDED_COLUMNS, rows)
            if len(changes) > room:
                unkept = w.unkept + len(changes) - room
                connection.execute(watches.update().where(w.alias == alias).values(unkept=unkept))

    def last_mended(self, alias: str) -> tuple[int, float] | None:
        """Return number and time of the last open document of an index; None if it has none."""
        statement = sa.select(sa.func.max(m.number), sa.func.max(m.found_at)).where(m.alias == alias, OPEN)
        with self.transaction() as connection:
            number, found_at = connection.execute(statement).one()
        return None if number is None else (int(number), float(found_at))

    def unexplained(self, alias: str, number: int) -> list[str]:
        """Return the open documents up to this number that are not in the inbox either, in the order of their ids.

        A document that a join no longer gave, and that the scan deleted, is found by no look-up any more. So look-ups
        that arrived since the scan began explain all documents that it deleted.
        """
        waits = sa.exists().where(inbox.c.alias == m.alias, inbox.c.document_id == m.document_id)
        statement = sa.select(m.document_id).where(m.alias == alias, OPEN, m.number <= number, ~waits)
        looked_up = sa.select(w.looked_up).where(w.alias == alias).scalar_subquery()
        with self.transaction() as connection:
            self._explain(connection, alias, (m.change == "deleted") & (m.begun < looked_up))
            return [str(one) for one in connection.scalars(statement.order_by(m.document_id))]

    def any_look_ups(self, alias: str) -> bool:
        """Return whether look-ups wait, which may find open documents."""
        with self.transaction() as connection:
            return bool(connection.scalar(sa.select(sa.exists().where(look_ups.c.alias == alias))))

    def record_missed(self, alias: str, ids: Sequence[str]) -> None:
        """Record that the watch missed these documents."""
        statement = mended.update().where(m.alias == alias, OPEN, self._is_in_keys(m.document_id))
        with self.transaction() as connection:
            connection.execute(statement.values(missed_at=self.clock()), {"keys": self._bind_keys(ids)})

    def missed(self, alias: str) -> list[MissedDocument]:
        """Return the documents that the watch missed and the last run mended, in the order of their ids."""
        columns = (m.document_id, m.change, m.run_id, m.found_at)
        statement = sa.select(*columns).where(m.alias == alias, ~OPEN).order_by(m.document_id)
        with self.transaction() as connection:
            return [MissedDocument(*row) for row in connection.execute(statement)]

    def forget_missed(self, alias: str, run_id: str) -> None:
        """Delete what was missed before this run: nobody looks at it once the next run is complete."""
        with self.transaction() as connection:
            connection.execute(mended.delete().where(m.alias == alias, ~OPEN, m.run_id != run_id))

    def _count_open(self, alias: str) -> int:
        with self.transaction() as connection:
            statement = sa.select(sa.func.count()).select_from(mended).where(m.alias == alias, OPEN)
            return int(connection.scalar(statement) or 0)
