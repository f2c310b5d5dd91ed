"""The watch of each index, and by when an index was complete: every change that was committed before that time is found
by a search. A complete scan says that of the time when it began, and a watch of its last look, if nothing was written
since such a scan began. Nothing more is complete while a document is failed or held back."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rag_index.components.ledger.connection import LedgerConnection
from rag_index.components.ledger.tables import (
    Reached,
    WatchRecord,
    collections,
    failed_documents,
    positions,
    watches,
)

f, p = failed_documents.c, positions.c


class WatchRows(LedgerConnection):
    """The watches, the times by which indexes were complete, and what was last known of an index's surroundings."""

    def watch(self, alias: str) -> WatchRecord | None:
        """Return what is known about the watch of an index; None if it was never watched."""
        found = self._first(sa.select(watches).where(watches.c.alias == alias))
        return WatchRecord(**found._mapping) if found else None

    def begin_watch(self, alias: str) -> None:
        """Record that an index is watched from now on."""
        values = {"since": self.clock(), "state": "running", "message": ""}
        self._put_row(watches, {"alias": alias}, values)

    def update_watch(self, alias: str, **values: Any) -> None:
        """Change columns of a watch."""
        self._write(watches.update().where(watches.c.alias == alias).values(**values))

    # By when an index was complete

    def complete_scan(self, alias: str, collection_id: int, *, began: float, how: str) -> None:
        """Record that a scan of the whole source ended with everything in a collection, which is live now."""
        with self.transaction():
            if self.gaps_since(collection_id) is not None:
                return
            last, at = self._first(sa.select(positions).where(p.alias == alias)), began
            if last is not None and last.collection_id == collection_id and began < last.at <= self.clock():
                at, how = last.at, last.how  # what a clock that was ahead said is given up
            commits = sa.select(collections.c.commits).where(collections.c.id == collection_id).scalar_subquery()
            values = {"at": at, "how": how, "collection_id": collection_id, "commits": sa.func.coalesce(commits, 0)}
            self._put_row(positions, {"alias": alias}, values)

    def note_look(self, alias: str, at: float, *, after: float) -> bool:
        """Let an index be complete by the time of a look that found nothing written since a complete scan, whose time
        was `after`. Return whether it was complete by then: another process may have forgotten that."""
        with self.transaction():
            last = self._first(sa.select(positions).where(p.alias == alias, p.at >= after))
            if last is None or self.gaps_since(last.collection_id) is not None:
                return last is not None
            if at > last.at:
                self._write(positions.update().where(p.alias == alias).values(at=at, how="watch"))
            return True

    def drop_position(self, alias: str) -> None:
        """Forget by when an index was complete, until the next complete scan."""
        self._write(positions.delete().where(p.alias == alias))

    def reached(self) -> dict[str, Reached]:
        """Return by when each index was complete, by its alias. One that never was is left out."""
        joined = positions.join(collections, collections.c.id == p.collection_id)
        rows = sa.select(p.alias, collections.c.name, p.commits, p.at, p.how).select_from(joined)
        return {row.alias: Reached(*row) for row in self._select(rows)}

    def gaps_since(self, collection_id: int) -> float | None:
        """Return since when a document has been failed or held back, so that nothing is complete; None if none is."""
        rows = [
            sa.select(collections.c.held_since.label("at")).where(collections.c.id == collection_id),
            sa.select(sa.func.min(f.first_at)).where(f.collection_id == collection_id, f.kind == "failed"),
        ]
        found: float | None = self._value(sa.select(sa.func.min(sa.union_all(*rows).subquery().c.at)))
        return found
