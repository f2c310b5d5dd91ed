"""What a scan of the source has seen, in temporary tables on disk that end with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.errors import LedgerError
from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import ScanRecord
from rag_index.ledger.tables import documents, failed_documents, scan_states

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy.engine import Connection


class _ScanTables(NamedTuple):
    """The temporary tables of a connection: keys that the scan has seen, documents that it found emptied, and texts.

    `texts` has, for one collection, a document of each text. `unread` has the buckets whose documents count as seen
    although they were not read, and `lost` the documents that are neither in one of these nor in `seen`.
    """

    seen: sa.Table
    emptied: sa.Table
    texts: sa.Table
    unread: sa.Table
    lost: sa.Table

    @classmethod
    def create(cls, connection: Connection) -> _ScanTables:
        metadata = sa.MetaData()
        seen = sa.Table(
            "seen", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("page", sa.Integer),
            sa.Column("bucket", sa.BigInteger), prefixes=["TEMPORARY"], sqlite_with_rowid=False,
        )  # fmt: skip
        emptied = sa.Table(
            "emptied", metadata, sa.Column("key", sa.Text, primary_key=True), sa.Column("text_hash", sa.LargeBinary),
            sa.Column("payload_hash", sa.LargeBinary), prefixes=["TEMPORARY"], sqlite_with_rowid=False,
        )  # fmt: skip
        texts = sa.Table(
            "texts", metadata, sa.Column("text_hash", sa.LargeBinary, primary_key=True), sa.Column("key", sa.Text),
            prefixes=["TEMPORARY"], sqlite_with_rowid=False,
        )  # fmt: skip
        unread = sa.Table(
            "unread", metadata, sa.Column("bucket", sa.BigInteger, primary_key=True, autoincrement=False),
            prefixes=["TEMPORARY"], sqlite_with_rowid=False,
        )  # fmt: skip
        lost = sa.Table(
            "lost", metadata, sa.Column("key", sa.Text, primary_key=True), prefixes=["TEMPORARY"],
            sqlite_with_rowid=False,
        )  # fmt: skip
        for table in (seen, emptied, texts, unread, lost):
            table.create(connection)
        return cls(seen, emptied, texts, unread, lost)


class ScanRows(LedgerConnection):
    """The keys that the current scan has seen, and the state that a complete scan leaves for the next one."""

    _scan: _ScanTables | None = None
    _texts_of: int | None = None
    """The collection whose texts are in the temporary table, once it was asked for them."""
    _any_unread = False
    """Whether the scan left buckets unread."""
    _lost_of: int | None = None
    """The collection whose lost documents are in the temporary table, after the last page."""

    def begin_scan(self) -> None:
        """Create the temporary tables, or empty them if an earlier scan used them."""
        with self.transaction() as connection:
            if self._scan is None:
                self._scan = _ScanTables.create(connection)
            for table in self._scan:
                connection.execute(table.delete())
            self._texts_of = self._lost_of = None
            self._any_unread = False

    def see(self, keys: Sequence[str], *, page: int, buckets: Sequence[int] | None = None) -> list[str]:
        """Record the keys of a page as seen, with the bucket of each if it is known.

        Return those that occur twice, in this page or also in an earlier one.
        """
        if not keys:
            return []
        seen = self._scanned.seen
        self._lost_of = None
        if buckets is None:
            bound = {"keys": self._bind_keys(keys)}
            rows = sa.select(self._keys_as_rows().subquery().c[0], sa.null(), sa.literal(page))
        else:
            bound = self._bind_pairs(keys, buckets)
            pairs = self._pairs_as_rows().subquery()
            rows = sa.select(pairs.c[0], pairs.c[1], sa.literal(page))
        names = ["key", "bucket", "page"]
        insert = self._insert(seen).from_select(names, rows.where(sa.true())).on_conflict_do_nothing()
        with self.transaction() as connection:
            if connection.execute(insert, bound).rowcount == len(keys):
                return []
            earlier = sa.select(seen.c.key).where(self._is_in_keys(seen.c.key), seen.c.page < page)
            duplicates = {str(key) for key in connection.scalars(earlier, {"keys": self._bind_keys(keys)})}
        distinct: set[str] = set()
        for key in keys:
            (duplicates if key in distinct else distinct).add(key)
        return sorted(duplicates)

    def note_emptied(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Record documents (key, text hash, payload hash) that have points and whose text is now empty."""
        values = [{"key": key, "text_hash": text, "payload_hash": payload} for key, text, payload in rows]
        if values:
            with self.transaction() as connection:
                connection.execute(self._scanned.emptied.insert(), values)

    def emptied(self, collection_id: int, *, limit: int = 1000) -> list[tuple[str, bytes, bytes]]:
        """Return a page of the emptied documents that are still recorded and are not held back."""
        e, d = self._scanned.emptied.c, documents.c
        held = sa.exists().where(d.collection_id == collection_id, d.key == e.key, d.held_at.is_not(None))
        statement = sa.select(e.key, e.text_hash, e.payload_hash).where(~held).limit(limit)
        with self.transaction() as connection:
            rows = connection.execute(statement).fetchall()
        return [(row[0], bytes(row[1]), bytes(row[2])) for row in rows]

    def forget_emptied(self, keys: Sequence[str]) -> None:
        """Delete emptied documents whose points have been deleted."""
        emptied = self._scanned.emptied
        with self.transaction() as connection:
            connection.execute(emptied.delete().where(self._is_in_keys(emptied.c.key)), {"keys": self._bind_keys(keys)})

    def count_emptied(self) -> int:
        """Count the emptied documents that are recorded."""
        with self.transaction() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(self._scanned.emptied)) or 0)

    def forget_unseen_failures(self, collection_id: int) -> None:
        """Delete the failures of documents that the source no longer has."""
        tables, f = self._scanned, failed_documents.c
        unseen = ~sa.exists().where(tables.seen.c.key == f.key)
        if self._any_unread:
            unseen &= sa.or_(f.bucket.is_(None), f.bucket.not_in(sa.select(tables.unread.c.bucket)))
        with self.transaction() as connection:
            connection.execute(failed_documents.delete().where(f.collection_id == collection_id, unseen))

    def gone(self, collection_id: int, *, limit: int = 1000) -> list[str]:
        """Return a page of the collection's documents that the scan did not see and that are not held back."""
        with self.transaction() as connection:
            statement = self._select_unseen(collection_id, documents.c.key)
            statement = statement.where(documents.c.held_at.is_(None)).limit(limit)
            return [str(key) for key in connection.scalars(statement)]

    def count_gone(self, collection_id: int) -> int:
        """Count the documents that have points and that the scan did not see."""
        with self.transaction() as connection:
            statement = self._select_unseen(collection_id, sa.func.count()).where(documents.c.chunks > 0)
            return int(connection.scalar(statement) or 0)

    def _select_unseen(self, collection_id: int, column: Any) -> sa.Select[Any]:
        unseen = self._is_unseen(collection_id)
        return sa.select(column).select_from(documents).where(documents.c.collection_id == collection_id, unseen)

    def _is_unseen(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for a document that the scan did not see."""
        tables, d = self._scanned, documents.c
        unseen = ~sa.exists().where(tables.seen.c.key == d.key)
        if not self._any_unread:
            return unseen
        if self._lost_of != collection_id:  # found once, because each time the whole collection is looked at
            elsewhere = sa.or_(d.bucket.is_(None), d.bucket.not_in(sa.select(tables.unread.c.bucket)))
            rows = sa.select(d.key).where(d.collection_id == collection_id, elsewhere, unseen)
            with self.transaction() as connection:
                connection.execute(tables.lost.delete())
                connection.execute(tables.lost.insert().from_select(["key"], rows))
            self._lost_of = collection_id
        return d.key.in_(sa.select(tables.lost.c.key))

    @property
    def _scanned(self) -> _ScanTables:
        if self._scan is None:
            raise LedgerError("no scan has begun: call begin_scan first")
        return self._scan

    def scan_state(self, collection_id: int) -> ScanRecord | None:
        """Return what the last complete scan of a collection left for the next one."""
        s = scan_states.c
        statement = sa.select(s.watermark, s.settings, s.full_at).where(s.collection_id == collection_id)
        with self.transaction() as connection:
            row = connection.execute(statement).first()
        return ScanRecord(*row) if row else None

    def record_scan(self, collection_id: int, watermark: str, *, settings: str, full_at: float) -> None:
        """Record the state that a complete scan of a collection leaves for the next one."""
        values = {"watermark": watermark, "settings": settings, "full_at": full_at}
        insert = self._insert(scan_states).values(collection_id=collection_id, **values)
        with self.transaction() as connection:
            connection.execute(insert.on_conflict_do_update(index_elements=["collection_id"], set_=values))
