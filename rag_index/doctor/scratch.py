"""Temporary tables beside the ledger's own: what a check-up saw of store and source, compared there by SQL.

They are on disk and gone with the connection, so memory does not grow with the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from rag_index.doctor.findings import EXAMPLES
from rag_index.ledger.tables import documents, failed_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.ledger import Ledger

__all__ = ["Found", "Orphan", "Scratch", "SeenDocument"]

_metadata = sa.MetaData()


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, _metadata, *columns, prefixes=["TEMPORARY"], sqlite_with_rowid=False)


seen = _table(
    "doctor_seen",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("miscounted", sa.Integer, nullable=False),
    sa.Column("altered", sa.Integer, nullable=False),
)
rebuilt = _table(
    "doctor_rebuilt",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.LargeBinary, nullable=False),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("doubtful", sa.Integer, nullable=False),
)
orphans = _table(
    "doctor_orphans",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text),
    sa.Column("unknown", sa.Integer, nullable=False),
)
in_source = _table("doctor_in_source", sa.Column("key", sa.Text, primary_key=True))
amiss = _table("doctor_amiss", sa.Column("key", sa.Text, primary_key=True))


class SeenDocument(NamedTuple):
    """What the points of one document, or some of them, say."""

    points: int = 0
    miscounted: int = 0
    """Points that name another number of chunks than the ledger."""
    altered: int = 0
    """Points whose payload or hashes are not the ledger's."""


class Orphan(NamedTuple):
    """A point that the ledger does not explain."""

    id: str
    key: str | None
    unknown: bool
    """It has the id that a run gives to a chunk of `key`, and the ledger knows no such document."""


@dataclass(frozen=True, slots=True)
class Found:
    """How many, and some of them."""

    count: int
    keys: list[str]


class Scratch:
    """The temporary tables, on the ledger's connection."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._insert: Any = postgresql.insert if ledger.engine.dialect.name == "postgresql" else sqlite.insert
        with ledger.transaction() as connection:
            _metadata.create_all(connection, checkfirst=False)  # a connection's own: never there before

    def clear(self) -> None:
        """Forget all that was seen."""
        with self._ledger.transaction() as connection:
            for table in _metadata.sorted_tables:
                connection.execute(table.delete())

    # What the store holds

    def see_points(self, found: Mapping[str, SeenDocument]) -> None:
        """Add what a page of points says of its documents."""
        insert = self._insert(seen)
        columns = ("points", "miscounted", "altered")
        self._write(
            insert.on_conflict_do_update(
                index_elements=["key"], set_={name: seen.c[name] + insert.excluded[name] for name in columns}
            ),
            [{"key": key, **document._asdict()} for key, document in found.items()],
        )

    def see_orphans(self, found: Iterable[Orphan]) -> None:
        """Note points that the ledger does not explain."""
        rows = [{"id": o.id, "key": o.key, "unknown": int(o.unknown)} for o in found]
        self._write(self._insert(orphans).on_conflict_do_nothing(), rows)

    def missing(self, collection_id: int) -> Found:
        """Documents that are done and have no point at all, though they should (see also `see_amiss`)."""
        return self._found(*self._compared(collection_id, seen.c.key.is_(None)))

    def miscounted(self, collection_id: int) -> Found:
        """Documents with some points, but not the ledger's number of them."""
        return self._found(*self._compared(collection_id, self._is_miscounted()))

    def altered(self, collection_id: int) -> Found:
        """Documents with the right number of points, of which one says something else than the ledger."""
        return self._found(*self._compared(collection_id, ~self._is_miscounted() & (seen.c.altered > 0)))

    def pending_again(self, collection_id: int) -> None:
        """Mark all documents of `missing`, `miscounted` and `altered` as to be written."""
        wrong = seen.c.key.is_(None) | self._is_miscounted() | (seen.c.altered > 0)
        source, where = self._compared(collection_id, wrong)
        keys = sa.select(documents.c.key).select_from(source).where(where).correlate(None)
        self._execute(
            documents.update()
            .where(documents.c.collection_id == collection_id, documents.c.key.in_(keys))
            .values(pending=1)
        )

    def pending(self, collection_id: int) -> Found:
        """Documents that a run had begun to write."""
        return self._found(documents, (documents.c.collection_id == collection_id) & (documents.c.pending == 1))

    # Orphans

    def count_orphans(self) -> int:
        """Points that nothing explains."""
        return self._found(orphans, ~self._of_source(), limit=0).count

    def unknown(self) -> Found:
        """Documents that the source and the store have, and the ledger has not."""
        distinct = sa.select(orphans.c.key).where(self._of_source()).distinct().subquery()
        return self._found(distinct, sa.true(), distinct.c.key)

    def next_orphans(self, *, after: str = "", limit: int = 1000) -> list[str]:
        """Ids of points that nothing explains, in order."""
        statement = sa.select(orphans.c.id).where(~self._of_source(), orphans.c.id > after)
        with self._ledger.transaction() as connection:
            return list(connection.scalars(statement.order_by(orphans.c.id).limit(limit)))

    def orphans_named(self, limit: int = EXAMPLES) -> list[str]:
        """Some points that nothing explains: their document's key, their own id where they have none."""
        named = sa.func.coalesce(orphans.c.key, orphans.c.id)
        statement = sa.select(named).where(~self._of_source()).distinct().order_by(named).limit(limit)
        with self._ledger.transaction() as connection:
            return list(connection.scalars(statement))

    def pending_unknown(self, collection_id: int) -> None:
        """Give documents that the source has and the ledger does not a row that is to be written."""
        keys = sa.select(orphans.c.key).where(self._of_source()).distinct()
        empty = sa.literal(b"", sa.LargeBinary)
        rows = sa.select(sa.literal(collection_id), keys.subquery().c.key, empty, empty, sa.literal(0), sa.literal(1))
        names = ["collection_id", "key", "text_hash", "payload_hash", "chunks", "pending"]
        self._execute(self._insert(documents).from_select(names, rows.where(sa.true())).on_conflict_do_nothing())

    # What the source has

    def see_source(self, keys: Iterable[str]) -> None:
        """Note documents of the source."""
        self._write(self._insert(in_source).on_conflict_do_nothing(), [{"key": key} for key in keys])

    def see_amiss(self, keys: Iterable[str]) -> None:
        """Note documents that have text, and that the ledger holds for empty."""
        self._write(self._insert(amiss).on_conflict_do_nothing(), [{"key": key} for key in keys])

    def gone(self, collection_id: int) -> int:
        """Documents of the ledger that the source has no more."""
        unseen = ~sa.exists().where(in_source.c.key == documents.c.key)
        return self._found(documents, (documents.c.collection_id == collection_id) & unseen, limit=0).count

    # Failures, and a ledger made anew

    def failed(self, collection_id: int) -> Found:
        """Documents listed as failed, or as incomplete; what a rule of the source keeps out is as it should be."""
        f = failed_documents.c
        return self._found(failed_documents, (f.collection_id == collection_id) & (f.kind != "skipped"), f.key)

    def see_rebuilt(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add what points say of their documents: rows of `doctor_rebuilt`, one a document."""
        insert = self._insert(rebuilt)
        new = insert.excluded
        differ = sa.or_(*[rebuilt.c[name] != new[name] for name in ("text_hash", "payload_hash", "chunks")])
        doubtful = rebuilt.c.doubtful + new.doubtful + sa.case((differ, 1), else_=0)
        self._write(
            insert.on_conflict_do_update(
                index_elements=["key"], set_={"points": rebuilt.c.points + new.points, "doubtful": doubtful}
            ),
            list(rows),
        )

    def keep_rebuilt(self, collection_id: int) -> None:
        """The ledger's rows from what was seen; a document that is not whole is one to be written."""
        whole = (rebuilt.c.points == rebuilt.c.chunks) & (rebuilt.c.doubtful == 0)
        rows = sa.select(
            sa.literal(collection_id),
            *[rebuilt.c[name] for name in ("key", "text_hash", "payload_hash", "chunks")],
            sa.case((whole, 0), else_=1),
        )
        names = ["collection_id", "key", "text_hash", "payload_hash", "chunks", "pending"]
        self._execute(documents.insert().from_select(names, rows))
        self._execute(rebuilt.delete())

    # Plumbing

    def _compared(self, collection_id: int, wrong: sa.ColumnElement[bool]) -> tuple[Any, sa.ColumnElement[bool]]:
        """Documents that are done beside what was seen of them, and which of them are meant."""
        source = documents.outerjoin(seen, seen.c.key == documents.c.key)
        done = (documents.c.collection_id == collection_id) & (documents.c.pending == 0)
        known_amiss = sa.exists().where(amiss.c.key == documents.c.key)
        return source, done & ((documents.c.chunks > 0) | known_amiss) & wrong

    def _is_miscounted(self) -> sa.ColumnElement[bool]:
        return (seen.c.points < documents.c.chunks) | (seen.c.miscounted > 0)

    def _of_source(self) -> sa.ColumnElement[bool]:
        there = sa.exists().where(in_source.c.key == orphans.c.key)
        return (orphans.c.unknown == 1) & there

    def _found(
        self, source: Any, where: sa.ColumnElement[bool], what: Any = documents.c.key, *, limit: int = EXAMPLES
    ) -> Found:
        with self._ledger.transaction() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
            some = sa.select(what).select_from(source).where(where).order_by(what).limit(limit)
            return Found(int(count or 0), list(connection.scalars(some)) if count and limit else [])

    def _write(self, statement: Any, rows: list[Any]) -> None:
        if rows:
            with self._ledger.transaction() as connection:
                connection.execute(statement, rows)

    def _execute(self, statement: Any) -> None:
        with self._ledger.transaction() as connection:
            connection.execute(statement)
