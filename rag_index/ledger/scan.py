"""What a scan of the source has seen, in temporary tables on disk, and what a complete one leaves for the next.

The temporary tables end with the connection.
"""

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

d, f, b = documents.c, failed_documents.c, buckets.c
BUCKET_COLUMNS = ("collection_id", "bucket", "digest")


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

        def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
            return sa.Table(name, metadata, *columns, prefixes=["TEMPORARY"], sqlite_with_rowid=False)

        def key(name: str, kind: type[sa.types.TypeEngine[Any]] = sa.Text) -> sa.Column[Any]:
            return sa.Column(name, kind, primary_key=True, autoincrement=False)

        hashes = sa.Column("text_hash", sa.LargeBinary), sa.Column("payload_hash", sa.LargeBinary)
        tables = cls(
            table("seen", key("key"), sa.Column("page", sa.Integer), sa.Column("bucket", sa.BigInteger)),
            table("emptied", key("key"), *hashes),
            table("texts", key("text_hash", sa.LargeBinary), sa.Column("key", sa.Text)),
            table("unread", key("bucket", sa.BigInteger)),
            table("lost", key("key")),
        )
        metadata.create_all(connection, checkfirst=False)
        return tables


class ScanRows(LedgerConnection):
    """The keys that the current scan has seen, and the state that a complete scan leaves for the next one.

    A source with digests is divided into buckets: each has a digest, and those that did not change are left unread.
    """

    _scan: _ScanTables | None = None
    _texts_of: int | None = None
    """The collection whose texts are in the temporary table, once it was asked for them."""
    _any_unread = False
    """Whether the scan left buckets unread."""
    _lost_of: int | None = None
    """The collection whose lost documents are in the temporary table, after the last page."""
    _without_digests: int | None = None
    """The collection that is known to have no digests."""

    def begin_scan(self) -> None:
        """Create the temporary tables, or empty them if an earlier scan used them.

        What is known of digests is forgotten: another process may have recorded some.
        """
        with self.transaction() as connection:
            if self._scan is None:
                self._scan = _ScanTables.create(connection)
            for table in self._scan:
                connection.execute(table.delete())
        self._texts_of = self._lost_of = self._without_digests = None
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
            rows = sa.select(self._keys_as_rows(keys).subquery().c[0], sa.null(), sa.literal(page))
        else:
            pairs = self._pairs_as_rows(keys, buckets).subquery()
            rows = sa.select(pairs.c[0], pairs.c[1], sa.literal(page))
        insert = self._insert(seen).from_select(["key", "bucket", "page"], rows.where(sa.true()))
        if self._write(insert.on_conflict_do_nothing()) == len(keys):
            return []
        earlier = sa.select(seen.c.key).where(self._is_in(seen.c.key, keys), seen.c.page < page)
        duplicates = {str(row[0]) for row in self._select(earlier)}
        distinct: set[str] = set()
        for key in keys:
            (duplicates if key in distinct else distinct).add(key)
        return sorted(duplicates)

    def note_emptied(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Record documents (key, text hash, payload hash) that have points and whose text is now empty."""
        if values := list(rows):
            emptied = self._scanned.emptied
            names = emptied.c.keys()
            insert = emptied.insert().values({name: sa.bindparam(name) for name in names})
            self._execute_many(insert, names, values)

    def emptied(self, collection_id: int, *, limit: int = 1000) -> list[tuple[str, bytes, bytes]]:
        """Return a page of the emptied documents that are still recorded and are not held back."""
        e = self._scanned.emptied.c
        held = sa.exists().where(d.collection_id == collection_id, d.key == e.key, d.held_at.is_not(None))
        statement = sa.select(e.key, e.text_hash, e.payload_hash).where(~held).limit(limit)
        return [(row[0], bytes(row[1]), bytes(row[2])) for row in self._select(statement)]

    def forget_emptied(self, keys: Sequence[str]) -> None:
        """Delete emptied documents whose points have been deleted."""
        emptied = self._scanned.emptied
        self._write(emptied.delete().where(self._is_in(emptied.c.key, keys)))

    def count_emptied(self) -> int:
        """Count the emptied documents that are recorded."""
        return self._count(self._scanned.emptied)

    def forget_unseen_failures(self, collection_id: int) -> None:
        """Delete the failures of documents that the source no longer has."""
        unseen = ~sa.exists().where(self._scanned.seen.c.key == f.key)
        if self._any_unread:
            unseen &= self._is_not_left_unread(f.bucket)
        self._write(failed_documents.delete().where(f.collection_id == collection_id, unseen))

    def gone(self, collection_id: int, *, limit: int = 1000) -> list[str]:
        """Return a page of the collection's documents that the scan did not see and that are not held back."""
        unseen = (d.collection_id == collection_id) & self._is_unseen(collection_id)
        statement = sa.select(d.key).where(unseen, d.held_at.is_(None)).limit(limit)
        return [str(row[0]) for row in self._select(statement)]

    def count_gone(self, collection_id: int) -> int:
        """Count the documents that have points and that the scan did not see."""
        return self._count(documents, d.collection_id == collection_id, self._is_unseen(collection_id), d.chunks > 0)

    def _is_unseen(self, collection_id: int) -> sa.ColumnElement[bool]:
        """Return the condition for a document that the scan did not see."""
        tables = self._scanned
        unseen = ~sa.exists().where(tables.seen.c.key == d.key)
        if not self._any_unread:
            return unseen
        if self._lost_of != collection_id:  # found once, because each time the whole collection is looked at
            rows = sa.select(d.key).where(d.collection_id == collection_id, self._is_not_left_unread(d.bucket), unseen)
            with self.transaction():
                self._write(tables.lost.delete())
                self._write(tables.lost.insert().from_select(["key"], rows))
            self._lost_of = collection_id
        return d.key.in_(sa.select(tables.lost.c.key))

    def _is_not_left_unread(self, bucket: sa.Column[Any]) -> sa.ColumnElement[bool]:
        return sa.or_(bucket.is_(None), bucket.not_in(sa.select(self._scanned.unread.c.bucket)))

    @property
    def _scanned(self) -> _ScanTables:
        if self._scan is None:
            raise LedgerError("no scan has begun: call begin_scan first")
        return self._scan

    def scan_state(self, collection_id: int) -> ScanRecord | None:
        """Return what the last complete scan of a collection left for the next one."""
        s = scan_states.c
        found = self._select(sa.select(s.watermark, s.settings, s.full_at).where(s.collection_id == collection_id))
        return ScanRecord(*found[0]) if found else None

    def record_scan(self, collection_id: int, watermark: str, *, settings: str, full_at: float) -> None:
        """Record the state that a complete scan of a collection leaves for the next one."""
        values = {"watermark": watermark, "settings": settings, "full_at": full_at}
        self._put_row(scan_states, {"collection_id": collection_id}, values)

    # Buckets

    def digests(self, collection_id: int) -> dict[int, str]:
        """Return the digests that the last complete scans left, by bucket."""
        found = self._select(sa.select(b.bucket, b.digest).where(b.collection_id == collection_id))
        return {int(row[0]): row[1] for row in found}

    def forget_digests(self, collection_id: int) -> None:
        """Delete all digests of a collection, so that the next scan reads everything."""
        self._write(buckets.delete().where(b.collection_id == collection_id))

    def count_buckets(self, collection_id: int) -> int:
        """Count the buckets of a collection that have a digest."""
        return self._count(buckets, b.collection_id == collection_id)

    def unfinished_buckets(self, collection_id: int, *, max_tries: int | None) -> set[int]:
        """Return the buckets with documents that are pending, or failed and have to be tried again.

        Failed documents are tried again if they were tried less than `max_tries` times; None: all that are listed.
        """
        pending = sa.select(d.bucket).where(self._is_in_index(collection_id), PENDING)
        bucket = sa.func.coalesce(f.bucket, d.bucket)
        same = sa.and_(d.collection_id == f.collection_id, d.key == f.key)
        failed = sa.select(bucket).select_from(failed_documents.outerjoin(documents, same))
        failed = failed.where(f.collection_id == collection_id)
        if max_tries is not None:
            failed = failed.where(f.tries < max_tries, f.kind == "failed")
        return {int(row[0]) for row in (*self._select(pending), *self._select(failed)) if row[0] is not None}

    def leave_unread(self, numbers: Collection[int]) -> None:
        """Let the documents of these buckets count as seen by the scan."""
        if not numbers:
            return
        self._any_unread, self._lost_of = True, None
        insert = self._insert(self._scanned.unread).values(bucket=sa.bindparam("bucket")).on_conflict_do_nothing()
        self._execute_many(insert, ["bucket"], [(number,) for number in numbers])

    def count_unread(self, collection_id: int) -> tuple[int, int, int]:
        """Count the documents in unread buckets that are empty, that are listed as failed, and that are skipped."""
        unread = sa.select(self._scanned.unread.c.bucket)
        listed = (f.collection_id == collection_id) & (f.kind != "incomplete")
        is_listed = sa.exists().where(listed, f.key == d.key)
        empty = self._count(documents, self._is_in_index(collection_id), EMPTY, d.bucket.in_(unread), ~is_listed)
        failed, skipped = (
            self._count(failed_documents, listed, f.bucket.in_(unread), f.kind == kind)
            for kind in ("failed", "skipped")
        )
        return empty, failed, skipped

    def record_digests(self, collection_id: int, read: Mapping[int, str], *, unread: Collection[int]) -> None:
        """Record what a complete scan found: the digests of the buckets that it read, and where it saw each document.

        Digests of buckets that are neither in `read` nor in `unread` are deleted: the source has none of their rows.
        """
        with self.transaction() as connection:
            self._place(collection_id)
            outdated = self.digests(collection_id).keys() - set(unread)
            delete = buckets.delete().where(b.collection_id == collection_id, b.bucket == sa.bindparam("outdated"))
            if outdated:
                connection.execute(delete, [{"outdated": number} for number in outdated])
            if rows := [(collection_id, number, digest) for number, digest in read.items()]:
                insert = self._insert_or_update(buckets, BUCKET_COLUMNS, ["digest"])
                self._execute_many(insert, BUCKET_COLUMNS, rows)
        self._without_digests = None

    def _place(self, collection_id: int) -> None:
        """Give each document the bucket in which the scan saw it, and none to those that are held back unseen."""
        seen = self._scanned.seen
        for table in (documents, failed_documents):
            bucket = sa.select(seen.c.bucket).where(seen.c.key == table.c.key).scalar_subquery()
            keys = sa.select(seen.c.key).where(seen.c.bucket.is_not(None))
            moved = table.c.key.in_(keys) & table.c.bucket.is_distinct_from(bucket)
            self._write(table.update().where(table.c.collection_id == collection_id, moved).values(bucket=bucket))
        held = self._is_in_index(collection_id) & HELD & d.bucket.is_not(None)
        self._write(documents.update().where(held, self._is_unseen(collection_id)).values(bucket=None))

    def _known_bucket(self, collection_id: int, key: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return the bucket of a document without a row: where this scan saw it, or where the one saw it that failed.

        Without it, a scan that leaves the bucket unread would take the document for deleted.
        """
        failed = sa.select(f.bucket).where(f.collection_id == collection_id, f.key == key).scalar_subquery()
        if self._scan is None:
            return failed
        seen = self._scan.seen.c
        return sa.func.coalesce(sa.select(seen.bucket).where(seen.key == key).scalar_subquery(), failed)

    def forget_digests_of(self, collection_id: int, keys: Sequence[str]) -> None:
        """Delete the digests of the buckets of these documents, because their rows are about to change."""
        if self._without_digests == collection_id or not keys:
            return
        with self.transaction():
            if self._value(sa.select(b.bucket).where(b.collection_id == collection_id).limit(1)) is None:
                self._without_digests = collection_id
                return
            for c in (d, f):  # one that failed may have no row among the documents
                theirs = sa.select(c.bucket).where(c.collection_id == collection_id, self._is_in(c.key, keys))
                self._write(buckets.delete().where(b.collection_id == collection_id, b.bucket.in_(theirs)))
