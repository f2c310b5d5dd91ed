"""The watches of indexes, as the ledger knows them: how each is, and how far the source's log was read."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import WatchRecord
from rag_index.ledger.tables import mended, slots, watches


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class WatchRows(LedgerConnection):
    """A row for each index that is, or was, watched."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        with self.transaction() as connection:
            row = connection.execute(sa.select(watches).where(watches.c.alias == alias)).mappings().first()
        return WatchRecord(**row) if row else None

    def begin_watch(self, alias: str, *, blind: str = "") -> None:
        """Record that an index is watched from now on; one that was watched before keeps what is known about it.

        `blind` says what the watch of this index cannot see. Then what runs have mended until now is forgotten: nobody
        may have kept it for the watch.
        """
        values = {
            "alias": alias, "since": self.clock(), "last_number": 0, "state": "running", "message": "", "blind": blind,
        }  # fmt: skip
        insert = self._insert(watches).values(**values)
        with self.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["alias"], set_={"blind": blind}))
            if blind:
                m = mended.c
                connection.execute(mended.delete().where(m.alias == alias, m.missed_at.is_(None)))

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        with self.transaction() as connection:
            connection.execute(watches.update().where(watches.c.alias == alias).values(**values))

    def slot_position(self, name: str) -> str | None:
        """Return the position up to which everything that a slot gave is in the inbox; None if it was never read."""
        with self.transaction() as connection:
            found = connection.scalar(sa.select(slots.c.position).where(slots.c.name == name))
        return None if found is None else str(found)

    def remember_slot(self, name: str, position: str) -> None:
        """Record that everything that a slot gave up to a position is in the inbox."""
        insert = self._insert(slots).values(name=name, position=position)
        with self.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_={"position": position}))
