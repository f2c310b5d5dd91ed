"""What a scan of the source has seen, in temporary tables on disk that end with the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.errors import LedgerError
from rag_index.ledger.connection import LedgerConnection
from rag_index.ledger.records import ScanRecord
from rag_index.ledger.tables import EMPTY, HELD, PENDING, buckets, documents, failed_documents, scan_states

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

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


class BucketRows(ScanRows):
    """The digests of a collection's buckets, and the buckets that the current scan leaves unread."""

    _without_digests: int | None = None
    """The collection that is known to have no digests."""

    def begin_scan(self) -> None:
        """Prepare for a scan, and forget what is known of digests: another process may have recorded some."""
        super().begin_scan()
        self._without_digests = None

    def digests(self, collection_id: int) -> dict[int, str]:
        """Return the digests that the last complete scans left, by bucket."""
        b = buckets.c
        statement = sa.select(b.bucket, b.digest).where(b.collection_id == collection_id)
        with self.transaction() as connection:
            return {int(row[0]): row[1] for row in connection.execute(statement)}

    def forget_digests(self, collection_id: int) -> None:
        """Delete all digests of a collection, so that the next scan reads everything."""
        with self.transaction() as connection:
            connection.execute(buckets.delete().where(buckets.c.collection_id == collection_id))

    def count_buckets(self, collection_id: int) -> int:
        """Count the buckets of a collection that have a digest."""
        statement = sa.select(sa.func.count()).where(buckets.c.collection_id == collection_id)
        with self.transaction() as connection:
            return int(connection.scalar(statement) or 0)

    def unfinished_buckets(self, collection_id: int, *, max_tries: int | None) -> set[int]:
        """Return the buckets with documents that are pending, or failed and have to be tried again.

        Failed documents are tried again if they were tried less than `max_tries` times; None: all that are listed.
        """
        d, f = documents.c, failed_documents.c
        pending = sa.select(d.bucket).where(self._is_in_index(collection_id), PENDING)
        bucket = sa.func.coalesce(f.bucket, d.bucket)
        same = sa.and_(d.collection_id == f.collection_id, d.key == f.key)
        failed = sa.select(bucket).select_from(failed_documents.outerjoin(documents, same))
        failed = failed.where(f.collection_id == collection_id)
        if max_tries is not None:
            failed = failed.where(f.tries < max_tries, f.kind == "failed")
        with self.transaction() as connection:
            found = [*connection.scalars(pending), *connection.scalars(failed)]
        return {int(one) for one in found if one is not None}

    def leave_unread(self, numbers: Collection[int]) -> None:
        """Let the documents of these buckets count as seen by the scan."""
        if not numbers:
            return
        unread = self._scanned.unread
        self._any_unread, self._lost_of = True, None
        with self.transaction() as connection:
            insert = self._insert(unread).values(bucket=sa.bindparam("bucket")).on_conflict_do_nothing()
            self._execute_many(connection, insert, ["bucket"], [(number,) for number in numbers])

    def count_unread(self, collection_id: int) -> tuple[int, int, int]:
        """Count the documents in unread buckets that are empty, that are listed as failed, and that are skipped."""
        d, f = documents.c, failed_documents.c
        unread = sa.select(self._scanned.unread.c.bucket)
        listed = (f.collection_id == collection_id) & (f.kind != "incomplete")
        is_listed = sa.exists().where(listed, f.key == d.key)
        empty = sa.select(sa.func.count()).where(
            self._is_in_index(collection_id), EMPTY, d.bucket.in_(unread), ~is_listed
        )
        failed = sa.select(f.kind, sa.func.count()).where(listed, f.bucket.in_(unread)).group_by(f.kind)
        with self.transaction() as connection:
            kinds = {row[0]: int(row[1]) for row in connection.execute(failed)}
            return int(connection.scalar(empty) or 0), kinds.get("failed", 0), kinds.get("skipped", 0)

    def record_digests(self, collection_id: int, read: Mapping[int, str], *, unread: Collection[int]) -> None:
        """Record what a complete scan found: the digests of the buckets that it read, and where it saw each document.

        Digests of buckets that are neither in `read` nor in `unread` are deleted: the source has none of their rows.
        """
        with self.transaction() as connection:
            self._place(connection, collection_id)
            outdated = self.digests(collection_id).keys() - set(unread)
            b = buckets.c
            delete = buckets.delete().where(b.collection_id == collection_id, b.bucket == sa.bindparam("outdated"))
            if outdated:
                connection.execute(delete, [{"outdated": number} for number in outdated])
            rows = [(collection_id, number, digest) for number, digest in read.items()]
            names = ["collection_id", "bucket", "digest"]
            if rows:
                insert = self._insert(buckets).values({name: sa.bindparam(name) for name in names})
                self._execute_many(connection, insert, names, rows)
        self._without_digests = None

    def _place(self, connection: Any, collection_id: int) -> None:
        """Give each document the bucket in which the scan saw it, and none to those that are held back unseen."""
        seen, d = self._scanned.seen, documents.c
        for table in (documents, failed_documents):
            bucket = sa.select(seen.c.bucket).where(seen.c.key == table.c.key).scalar_subquery()
            keys = sa.select(seen.c.key).where(seen.c.bucket.is_not(None))
            statement = table.update().where(
                table.c.collection_id == collection_id, table.c.key.in_(keys), table.c.bucket.is_distinct_from(bucket)
            )
            connection.execute(statement.values(bucket=bucket))
        held = self._is_in_index(collection_id) & HELD & d.bucket.is_not(None)
        connection.execute(documents.update().where(held, self._is_unseen(collection_id)).values(bucket=None))

    def _known_bucket(self, collection_id: int, key: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return the bucket of a document without a row: where this scan saw it, or where the one saw it that failed.

        Without it, a scan that leaves the bucket unread would take the document for deleted.
        """
        f = failed_documents.c
        failed = sa.select(f.bucket).where(f.collection_id == collection_id, f.key == key).scalar_subquery()
        if self._scan is None:
            return failed
        seen = self._scan.seen.c
        return sa.func.coalesce(sa.select(seen.bucket).where(seen.key == key).scalar_subquery(), failed)

    def forget_digests_of(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete the digests of the buckets of these documents, because their rows are about to change."""
        if self._without_digests == collection_id or not keys:
            return
        b = buckets.c
        with self.transaction() as connection:
            if connection.scalar(sa.select(b.bucket).where(b.collection_id == collection_id).limit(1)) is None:
                self._without_digests = collection_id
                return
            for table in (documents, failed_documents):  # one that failed may have no row among the documents
                c = table.c
                theirs = sa.select(c.bucket).where(c.collection_id == collection_id, self._is_in_keys(c.key))
                statement = buckets.delete().where(b.collection_id == collection_id, b.bucket.in_(theirs))
                connection.execute(statement, {"keys": self._bind_keys(keys)})
