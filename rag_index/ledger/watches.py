"""The watches of indexes, as the ledger knows them: how each is, and what passes between it and the runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import WatchRecord
from rag_index.ledger.tables import watches

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["WatchRows", "lease_name"]


def lease_name(project: str) -> str:
    """Return the name of the lease of a project's watch, which is the name of no alias."""
    return f"{project} watch"


class WatchRows(LedgerConnection):
    """A row for each index that is, or was, watched."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        with self.transaction() as connection:
            row = connection.execute(sa.select(watches).where(watches.c.alias == alias)).mappings().first()
        return WatchRecord(**{**row, "missed_ids": json.loads(row["missed_ids"])}) if row else None

    def begin_watch(self, alias: str) -> None:
        """Record that an index is watched from now on; one that was watched before keeps what is known about it."""
        values = {
            "alias": alias, "since": self.clock(), "last_number": 0, "asked": 0, "answered": 0, "state": "running",
            "message": "", "missed": 0, "missed_ids": "[]",
        }  # fmt: skip
        insert = self._insert(watches).values(**values)
        with self.transaction() as connection:
            connection.execute(insert.on_conflict_do_nothing(index_elements=["alias"]))

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        with self.transaction() as connection:
            connection.execute(watches.update().where(watches.c.alias == alias).values(**values))

    def ask_watch(self, alias: str) -> int:
        """Ask the watch of an index to look at its feed, and return the number of the question."""
        w = watches.c
        statement = watches.update().where(w.alias == alias).values(asked=w.asked + 1).returning(w.asked)
        with self.transaction() as connection:
            return int(connection.execute(statement).scalar() or 0)

    def questions(self, aliases: Sequence[str]) -> dict[str, int]:
        """Return the last question of each watch that has not answered it."""
        w = watches.c
        statement = sa.select(w.alias, w.asked).where(self._is_in_keys(w.alias), w.asked > w.answered)
        with self.transaction() as connection:
            rows = connection.execute(statement, {"keys": self._bind_keys(aliases)}).fetchall()
        return {str(alias): int(asked) for alias, asked in rows}

    def record_missed(self, alias: str, missed: int, first_ids: Sequence[str]) -> None:
        """Record how many changes a complete run had to make that the watch should have made, and the first ids."""
        self.update_watch(alias, missed=missed, missed_at=self.clock(), missed_ids=json.dumps(list(first_ids)))
