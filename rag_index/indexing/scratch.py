"""Temporary tables beside the ledger's own, which record what a comparison read from store and source.

SQL compares them with the ledger. They are on disk, so memory does not grow with the corpus, and they disappear with
the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.database.sqlite import insert_for
from rag_index.ledger.tables import documents, failed_documents

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.ledger import Ledger

MAX_EXAMPLES = 5
"""Keys that a result names."""
_metadata = sa.MetaData()
LEDGER_COLUMNS = ["collection_id", "key", "text_hash", "payload_hash", "chunks", "pending"]


def _table(name: str, *columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(name, _metadata, *columns, prefixes=["TEMPORARY"], sqlite_with_rowid=False)


tallies = _table(
    "rag_index_scratch_tallies",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("miscounted", sa.Integer, nullable=False),
    sa.Column("altered", sa.Integer, nullable=False),
    sa.Column("wordless", sa.Integer, nullable=False),
)
rebuilt = _table(
    "rag_index_scratch_rebuilt",
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("text_hash", sa.LargeBinary, nullable=False),
    sa.Column("payload_hash", sa.LargeBinary, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("points", sa.Integer, nullable=False),
    sa.Column("doubtful", sa.Integer, nullable=False),
)
orphans = _table(
    "rag_index_scratch_orphans",
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("key", sa.Text),
    sa.Column("unknown", sa.Integer, nullable=False),
)
in_source = _table("rag_index_scratch_in_source", sa.Column("key", sa.Text, primary_key=True))
not_empty = _table("rag_index_scratch_not_empty", sa.Column("key", sa.Text, primary_key=True))


class PointTally(NamedTuple):
    """Counts over some or all of the points of one document."""

    points: int = 0
    miscounted: int = 0
    """Points that state another number of chunks than the ledger."""
    altered: int = 0
    """Points whose payload or hashes are not the ledger's."""
    wordless: int = 0
    """Points that lack the sparse vector of their words."""


class Orphan(NamedTuple):
    """A point that the ledger does not explain."""

    id: str
    key: str | None
    unknown: bool
    """True if a run would give a chunk of `key` this id, but the ledger does not know that document."""
    ours: bool
    """True if a run would give a chunk of `key` this id, whether or not the ledger knows that document."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The number of documents that match a query, and some of their keys."""

    count: int
    keys: list[str]


class Scratch:
    """The temporary tables, on the ledger's connection."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._insert = insert_for(ledger.engine.dialect)
        with ledger.transaction() as connection:
            _metadata.create_all(connection, checkfirst=False)  # temporary tables of a new connection: never there yet

    def clear(self) -> None:
        """Delete all rows."""
        with self._ledger.transaction() as connection:
            for table in _metadata.sorted_tables:
                connection.execute(table.delete())

    # What the store holds

    def add_tallies(self, page: Mapping[str, PointTally]) -> None:
        """Add the tallies of a page of points, by document key."""
        insert = self._insert(tallies)
        columns = PointTally._fields
        self._write(
            insert.on_conflict_do_update(
                index_elements=["key"], set_={name: tallies.c[name] + insert.excluded[name] for name in columns}
            ),
            [{"key": key, **tally._asdict()} for key, tally in page.items()],
        )

    def add_orphans(self, page: Iterable[Orphan]) -> None:
        """Add points that the ledger does not explain."""
        rows = [{"id": o.id, "key": o.key, "unknown": int(o.unknown)} for o in page]
        self._write(self._insert(orphans).on_conflict_do_nothing(), rows)

    def missing(self, collection_id: int) -> Matches:
        """Find documents that are done and should have points, but have none (see also `add_not_empty`)."""
        return self._find(*self._compare(collection_id, tallies.c.key.is_(None)))

    def miscounted(self, collection_id: int) -> Matches:
        """Find documents that have points, but not the ledger's number of them."""
        return self._find(*self._compare(collection_id, self._is_miscounted()))

    def altered(self, collection_id: int) -> Matches:
        """Find documents with the right number of points, at least one of which disagrees with the ledger."""
        return self._find(*self._compare(collection_id, ~self._is_miscounted() & (tallies.c.altered > 0)))

    def wordless(self, collection_id: int) -> Matches:
        """Find documents with the right points, at least one of which lacks its sparse vector."""
        right = ~self._is_miscounted() & (tallies.c.altered == 0)
        return self._find(*self._compare(collection_id, right & (tallies.c.wordless > 0)))

    def mark_wrong_as_pending(self, collection_id: int) -> None:
        """Mark all documents of `missing`, `miscounted`, `altered` and `wordless` as pending."""
        damaged = (tallies.c.altered > 0) | (tallies.c.wordless > 0)
        wrong = tallies.c.key.is_(None) | self._is_miscounted() | damaged
        source, where = self._compare(collection_id, wrong)
        keys = sa.select(documents.c.key).select_from(source).where(where).correlate(None)
        self._execute(
            documents.update()
            .where(documents.c.collection_id == collection_id, documents.c.key.in_(keys))
            .values(pending=1)
        )

    def pending(self, collection_id: int) -> Matches:
        """Find documents whose write a run began and did not confirm."""
        return self._find(documents, (documents.c.collection_id == collection_id) & (documents.c.pending == 1))

    # Orphans

    def count_orphans(self) -> int:
        """Count the points that neither ledger nor source explains."""
        return self._find(orphans, ~self._is_in_source(), limit=0).count

    def unknown_documents(self) -> Matches:
        """Find documents that the source and the store have and the ledger does not."""
        distinct = sa.select(orphans.c.key).where(self._is_in_source()).distinct().subquery()
        return self._find(distinct, sa.true(), distinct.c.key)

    def orphan_ids(self, *, after: str = "") -> list[str]:
        """Return the next ids, in order, of points that neither ledger nor source explains."""
        statement = sa.select(orphans.c.id).where(~self._is_in_source(), orphans.c.id > after)
        with self._ledger.transaction() as connection:
            return list(connection.scalars(statement.order_by(orphans.c.id).limit(1000)))

    def orphan_examples(self) -> list[str]:
        """Return names for some of these points: their document's key, or their own id if they have none."""
        name = sa.func.coalesce(orphans.c.key, orphans.c.id)
        statement = sa.select(name).where(~self._is_in_source()).distinct().order_by(name).limit(MAX_EXAMPLES)
        with self._ledger.transaction() as connection:
            return list(connection.scalars(statement))

    def add_unknown_as_pending(self, collection_id: int) -> None:
        """Add a pending ledger row for each document of `unknown_documents`."""
        keys = sa.select(orphans.c.key).where(self._is_in_source()).distinct()
        empty = sa.literal(b"", sa.LargeBinary)
        rows = sa.select(sa.literal(collection_id), keys.subquery().c.key, empty, empty, sa.literal(0), sa.literal(1))
        insert = self._insert(documents).from_select(LEDGER_COLUMNS, rows.where(sa.true()))
        self._execute(insert.on_conflict_do_nothing())

    # What the source has

    def add_source_keys(self, keys: Iterable[str]) -> None:
        """Add documents of the source."""
        self._write(self._insert(in_source).on_conflict_do_nothing(), [{"key": key} for key in keys])

    def add_not_empty(self, keys: Iterable[str]) -> None:
        """Add documents that have text, although the ledger has them as empty."""
        self._write(self._insert(not_empty).on_conflict_do_nothing(), [{"key": key} for key in keys])

    def count_gone(self, collection_id: int) -> int:
        """Count the documents of the ledger that the source no longer has."""
        unseen = ~sa.exists().where(in_source.c.key == documents.c.key)
        return self._find(documents, (documents.c.collection_id == collection_id) & unseen, limit=0).count

    # Failures, and ledger rows made from the store

    def failed(self, collection_id: int) -> Matches:
        """Find documents listed as failed or incomplete; those that a rule of the source skips are not wrong."""
        f = failed_documents.c
        return self._find(failed_documents, (f.collection_id == collection_id) & (f.kind != "skipped"), f.key)

    def add_rebuilt(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add what a page of points says about its documents: rows of `rebuilt`, one per document."""
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

    def write_rebuilt(self, collection_id: int) -> None:
        """Write the rows of `add_rebuilt` to the ledger, then clear them; a document that is not whole is pending."""
        whole = (rebuilt.c.points == rebuilt.c.chunks) & (rebuilt.c.doubtful == 0)
        rows = sa.select(
            sa.literal(collection_id),
            *[rebuilt.c[name] for name in ("key", "text_hash", "payload_hash", "chunks")],
            sa.case((whole, 0), else_=1),
        )
        self._execute(documents.insert().from_select(LEDGER_COLUMNS, rows))
        self._execute(rebuilt.delete())

    # Queries

    def _compare(self, collection_id: int, wrong: sa.ColumnElement[bool]) -> tuple[Any, sa.ColumnElement[bool]]:
        """Return the ledger's documents joined with their tallies, and a condition for the done ones that are wrong."""
        source = documents.outerjoin(tallies, tallies.c.key == documents.c.key)
        done = (documents.c.collection_id == collection_id) & (documents.c.pending == 0)
        has_text = sa.exists().where(not_empty.c.key == documents.c.key)
        return source, done & ((documents.c.chunks > 0) | has_text) & wrong

    def _is_miscounted(self) -> sa.ColumnElement[bool]:
        return (tallies.c.points < documents.c.chunks) | (tallies.c.miscounted > 0)

    def _is_in_source(self) -> sa.ColumnElement[bool]:
        """Return a condition for orphans that are chunks of a document of the source."""
        return (orphans.c.unknown == 1) & sa.exists().where(in_source.c.key == orphans.c.key)

    def _find(
        self,
        source: Any,
        where: sa.ColumnElement[bool],
        column: Any = documents.c.key,
        *,
        limit: int = MAX_EXAMPLES,
    ) -> Matches:
        with self._ledger.transaction() as connection:
            count = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
            examples = sa.select(column).select_from(source).where(where).order_by(column).limit(limit)
            return Matches(int(count or 0), list(connection.scalars(examples)) if count and limit else [])

    def _write(self, statement: Any, rows: list[Any]) -> None:
        if rows:
            with self._ledger.transaction() as connection:
                connection.execute(statement, rows)

    def _execute(self, statement: Any) -> None:
        with self._ledger.transaction() as connection:
            connection.execute(statement)
