"""Buckets of the source's rows: the digest of each, and which documents it has (`[source] digest`).

The digest of a bucket is that of the rows as a complete scan read and committed them. It is forgotten as soon as a
document of the bucket is written otherwise, so that the next scan reads the bucket whatever its digest is then.

The bucket of a document is where the last complete scan saw it. A document without one was not in the source then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.ledger.scan import ScanRows
from rag_index.ledger.tables import EMPTY, HELD, PENDING, buckets, documents, failed_documents

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence


class BucketRows(ScanRows):
    """The digests of a collection's buckets, and the buckets that the current scan leaves unread."""

    _without_digests: int | None = None
    """The collection that is known to have no digests."""

    def begin_scan(self) -> None:
        """As `ScanRows.begin_scan`: another process may have recorded digests since the last scan of this ledger."""
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
