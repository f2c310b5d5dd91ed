"""The inbox: documents that have to be read again, because the source said that they changed.

A watch writes what a feed gave into the inbox before the source may forget it, so that a death at any moment loses no
change. A document is in the inbox once; each arrival of it raises its number, by which a batch knows that the document
changed once more while it was being indexed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import WaitingChange
from rag_index.ledger.tables import inbox, watches

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy.engine import Connection

__all__ = ["InboxRows"]

COLUMNS = ("alias", "document_id", "number", "changed_at", "received_at")


class InboxRows(LedgerConnection):
    """The changes of each index that wait to be indexed."""

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
        insert = self._insert(inbox).values({name: sa.bindparam(name) for name in COLUMNS})
        new, old = insert.excluded, inbox.c
        statement = insert.on_conflict_do_update(
            index_elements=["alias", "document_id"],
            set_={
                "number": new.number,
                "changed_at": sa.case((new.changed_at < old.changed_at, new.changed_at), else_=old.changed_at),
                "received_at": new.received_at,
            },
        )
        now = self.clock()
        with self.transaction() as connection:
            numbers = {alias: self._next_number(connection, alias) for alias in dict.fromkeys(a for a, _ in earliest)}
            rows = [(alias, one, numbers[alias], at, now) for (alias, one), at in earliest.items()]
            self._execute_many(connection, statement, COLUMNS, rows)

    def waiting_changes(self, alias: str, limit: int) -> list[WaitingChange]:
        """Return the documents that have waited longest."""
        i = inbox.c
        statement = sa.select(i.document_id, i.number, i.changed_at, i.received_at).where(i.alias == alias)
        with self.transaction() as connection:
            rows = connection.execute(statement.order_by(i.number, i.document_id).limit(limit)).fetchall()
        return [WaitingChange(*row) for row in rows]

    def count_waiting(self, alias: str) -> int:
        """Count the documents that wait."""
        statement = sa.select(sa.func.count()).select_from(inbox).where(inbox.c.alias == alias)
        with self.transaction() as connection:
            return int(connection.scalar(statement) or 0)

    def waiting_since(self, alias: str) -> float | None:
        """Return the earliest time of a change that waits; None if none does."""
        statement = sa.select(sa.func.min(inbox.c.changed_at)).where(inbox.c.alias == alias)
        with self.transaction() as connection:
            earliest = connection.scalar(statement)
        return None if earliest is None else float(earliest)

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

    def last_number(self, alias: str) -> int:
        """Return the number of the last arrival; 0 if there was none."""
        statement = sa.select(watches.c.last_number).where(watches.c.alias == alias)
        with self.transaction() as connection:
            return int(connection.scalar(statement) or 0)

    def clear_changes(self, alias: str, number: int) -> None:
        """Delete what arrived up to this number: a complete scan that began after it has seen all of that."""
        i, w = inbox.c, watches.c
        with self.transaction() as connection:
            connection.execute(inbox.delete().where(i.alias == alias, i.number <= number))
            settled = (w.alias == alias) & (w.full_number <= number)
            connection.execute(watches.update().where(settled).values(full_number=None))

    def need_full_scan(self, alias: str) -> None:
        """Record that nobody knows what changed up to now, so that a complete scan is needed."""
        with self.transaction() as connection:
            number = self._next_number(connection, alias)
            values = {"full_number": number, "since": self.clock()}
            connection.execute(watches.update().where(watches.c.alias == alias).values(**values))

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
