"""What runs mended: documents that a run over all of them found changed in the source, before a watch indexed them.

Most of these changes were on their way: the watch gives them a moment later, or they wait in the inbox. A document is
explained, and its row deleted, when it leaves the inbox. What is never explained was missed by the watch
(`watch.missed`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.ledger.inbox import InboxRows
from rag_index.ledger.records import MissedDocument
from rag_index.ledger.tables import inbox, look_ups, mended, watches

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_KEPT = 10_000
"""Documents of an index that are kept until they are explained. Of more, only the number is."""
COLUMNS = ("alias", "document_id", "change", "run_id", "begun", "number", "found_at")
m, w = mended.c, watches.c
OPEN = m.missed_at.is_(None)
"""The condition for a document that is neither explained nor known as missed."""


class MendedRows(InboxRows):
    """The documents of each index that runs mended and that are not explained."""

    def begin_comparison(self, alias: str, settings: str) -> bool:
        """Return whether what a complete scan finds changed is what the watch had to give until now.

        That is so if a complete scan with the same `settings` (a hash of all that decides about the content of a
        document) began under the watch, and nothing was lost since. Otherwise what is open is forgotten, because nobody
        can tell any more. While look-ups wait, which this scan may make superfluous, it is not so either.
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
        insert = self._insert(mended).values({name: sa.bindparam(name) for name in COLUMNS})
        values = {name: insert.excluded[name] for name in COLUMNS[2:]}
        statement = insert.on_conflict_do_update(
            index_elements=["alias", "document_id"], set_={**values, "missed_at": None}
        )
        now = self.clock()
        with self.transaction() as connection:
            room = max(0, MAX_KEPT - self._count_open(alias))
            number = self._next_number(connection, alias)
            rows = [(alias, one, change, run_id, begun, number, now) for one, change in changes[:room]]
            if rows:
                self._execute_many(connection, statement, COLUMNS, rows)
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
