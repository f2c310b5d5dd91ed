"""The tables of one scan of the source, and the decisions that depend on them.

A scan records the keys that it saw (`seen`), the documents whose points must be deleted (`lost`)
and the buckets that it reads (`to_read`). Every row of these tables has the number of its scan. In
SQLite, and for a read-only ledger, they are temporary tables.

This module also has what the next scan needs (`scan_states`, `buckets`), and the sizes by which the
delete guard decides (`sizes`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Container
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Integer

from rag_index.components.ledger.connection import LedgerConnection
from rag_index.components.ledger.tables import (
    BY_WORDS,
    DAY,
    EMPTY,
    FAILED_FIELDS,
    PENDING,
    BucketCounts,
    Collection,
    FailedDocument,
    IndexedDocuments,
    LostDocument,
    ScanRecord,
    UnreadCounts,
    buckets,
    documents,
    failed_documents,
    lost,
    scan_states,
    seen,
    sizes,
    to_read,
)

d, f, b = documents.c, failed_documents.c, buckets.c

IS_DELETED = lost.c.text_hash.is_(None)
"""The documents in `lost` that the source no longer has. The others have their new hashes."""
IS_UNDECIDED = IS_DELETED & lost.c.payload_hash.is_not(None)
"""Of those, the documents whose row the source still has, with a value that nobody decided on."""


class ScanRows(LedgerConnection):
    """The rows of the current scan, and the state that it leaves for the next one.

    A source with digests is divided into buckets. Each bucket has a digest, and a scan leaves
    buckets with an unchanged digest unread.
    """

    _scan: int | None = None
    """The number of the current scan; 0 where the tables are temporary."""
    _texts_of: int | None = None
    """The collection whose texts are in the scan's table `texts`."""
    _has_unread = False
    """Whether the scan leaves buckets unread."""
    _opened: int | None = None
    """The collection whose buckets `begin_buckets` has opened for this scan."""

    def begin_scan(self, alias: str) -> None:
        """Begin a scan of an index."""
        self._scan = self.new_scan(alias)
        self._has_unread = False
        self._texts_of = None
        self._opened = None

    def _is_mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        """Return the condition for the rows of the current scan."""
        return table.c.scan == self._scan

    def _is_lost(self, *where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        lost_keys = sa.select(lost.c.key)
        return d.key.in_(lost_keys.where(self._is_mine(lost), *where))

    def see(
        self, keys: Sequence[str], *, page: int, buckets: Sequence[int] | None = None
    ) -> list[str]:
        """Record the keys of a page as seen. Return the duplicates, sorted.

        Args:
            keys: The keys of the page's documents.
            page: The number of the page. A key is a duplicate if it occurs twice in this page, or
                also in a page with a lower number.
            buckets: The bucket of each key, if the source has buckets.
        """
        if not keys:
            return []
        scan = sa.literal(self._scan, Integer)
        if buckets is None:
            key = self._keys_as_rows(keys).subquery().c[0]
            rows = sa.select(scan, key, sa.null(), sa.literal(page))
        else:
            # One JSON array of pairs such as ["i:17", 3]; `->>` 0 and 1 are the key and the bucket.
            pairs = list(zip(keys, buckets, strict=True))
            pair = self._elements(pairs, "json_array_elements")
            key = pair.op("->>")(sa.literal_column("0"))
            bucket = pair.op("->>")(sa.literal_column("1"))
            rows = sa.select(scan, key, sa.cast(bucket, BigInteger), sa.literal(page))
        inserted = self._put_selected(seen, ["scan", "key", "bucket", "page"], rows)
        if inserted == len(keys):
            return []
        # Some keys were there already: from an earlier page, twice in this page, or because the
        # same page is recorded again, which makes no duplicates.
        return self._find_duplicates(keys, page)

    def _find_duplicates(self, keys: Sequence[str], page: int) -> list[str]:
        """Return the keys that occur twice among these, or also in a page with a lower number."""
        is_seen = self._is_in(seen.c.key, keys)
        earlier = sa.select(seen.c.key)
        earlier = earlier.where(self._is_mine(seen), is_seen, seen.c.page < page)
        duplicates = set(self._column(earlier))
        distinct: set[str] = set()
        for key in keys:
            if key in distinct:
                duplicates.add(key)
            distinct.add(key)
        return sorted(duplicates)

    def record_emptied(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Record documents that have points and whose text is now empty.

        Args:
            rows: The key, text hash and payload hash of each document.
        """
        numbered = [(self._scan, *row) for row in rows]
        self._put_rows(lost, numbered, update=("text_hash", "payload_hash"))

    def count_emptied(self) -> int:
        """Count the emptied documents that still have points."""
        return self._count(lost, self._is_mine(lost), ~IS_DELETED)

    def record_deleted(self, keys: Sequence[str]) -> None:
        """Record documents that the source no longer has."""
        key = self._keys_as_rows(keys).subquery().c[0]
        rows = sa.select(sa.literal(self._scan, Integer), key)
        self._put_selected(lost, ["scan", "key"], rows)

    def find_deleted(self, collection_id: int) -> int:
        """Record all documents that the complete scan did not see. Return how many have points.

        Raises:
            LedgerError: The rows of this scan were lost (`check_scan`).
        """
        is_ours = d.collection_id == collection_id
        candidates = sa.select(sa.literal(self._scan, Integer), d.key)
        with self.transaction():
            self.check_scan(self._scan)
            self._write(lost.delete().where(self._is_mine(lost), IS_DELETED))
            conditions: list[sa.ColumnElement[bool]] = [sa.true()]
            if self._has_unread:
                # Two statements: SQLite does not use the index for an OR of both conditions.
                conditions = [d.bucket.is_(None), d.bucket.in_(self._read_buckets())]
            for condition in conditions:
                unseen = candidates.where(is_ours, condition, ~self._is_seen(d))
                self._put_selected(lost, ["scan", "key"], unseen)
            return self._count(documents, is_ours, self._is_lost(IS_DELETED), d.chunks > 0)

    def record_undecided(self, keys: Sequence[str]) -> None:
        """Record of deleted documents that the source still has their rows.

        The rows have a value that nobody decided on, so that they are shown to nobody.
        """
        is_theirs = self._is_mine(lost) & IS_DELETED & self._is_in(lost.c.key, keys)
        self._write(lost.update().where(is_theirs).values(payload_hash=b""))

    def keep_undecided(self) -> None:
        """Forget all deleted and emptied documents, except those that nobody decided on."""
        is_other = sa.or_(~IS_DELETED, lost.c.payload_hash.is_(None))
        self._write(lost.delete().where(self._is_mine(lost), is_other))

    def lost(self, collection_id: int, *, limit: int = 1000) -> list[LostDocument]:
        """Return one page of the documents whose points must be deleted."""
        columns = sa.select(lost.c.key, lost.c.text_hash, lost.c.payload_hash)
        page = columns.where(self._is_mine(lost)).limit(limit)
        return [LostDocument(*row) for row in self._select(page)]

    def forget_lost(self, keys: Sequence[str]) -> None:
        """Delete the records of documents whose points have been deleted."""
        is_deleted = self._is_in(lost.c.key, keys)
        self._write(lost.delete().where(self._is_mine(lost), is_deleted))

    def forget_unseen_failures(self, collection_id: int) -> None:
        """Delete the failures of documents that the source no longer has.

        Raises:
            LedgerError: The rows of this scan were lost (`check_scan`).
        """
        is_ours = f.collection_id == collection_id
        with self.transaction():
            self.check_scan(self._scan)
            self._write(failed_documents.delete().where(is_ours, self._is_unseen(f)))

    def _is_seen(self, columns: Any) -> sa.ColumnElement[bool]:
        """Return the condition that the scan saw a row's document."""
        is_same = seen.c.key == columns.key
        return sa.exists().where(self._is_mine(seen), is_same)

    def _is_unseen(self, columns: Any) -> sa.ColumnElement[bool]:
        """Return the condition that the scan neither saw a row's document nor left it unread."""
        unseen = ~self._is_seen(columns)
        if self._has_unread:
            is_read = columns.bucket.in_(self._read_buckets())
            unseen &= sa.or_(columns.bucket.is_(None), is_read)
        return unseen

    def scan_state(self, collection_id: int) -> ScanRecord | None:
        """Return the state that the last complete scan of a collection left."""
        s = scan_states.c
        statement = sa.select(s.watermark, s.settings, s.full_at)
        found = self._first(statement.where(s.collection_id == collection_id))
        return ScanRecord(*found) if found else None

    def record_scan(self, collection_id: int, record: ScanRecord) -> None:
        """Record the state that a scan of a collection leaves for the next one."""
        self._put_row(scan_states, {"collection_id": collection_id}, record._asdict())

    def forget_scan(self, collection_id: int) -> None:
        """Delete the state of the last complete scan, so that the next one reads everything."""
        is_ours = scan_states.c.collection_id == collection_id
        self._write(scan_states.delete().where(is_ours))

    # Buckets

    def digests(self, collection_id: int) -> dict[int, str]:
        """Return the digest of each bucket; "" for buckets that the next scan must read."""
        statement = sa.select(b.bucket, b.digest)
        rows = self._select(statement.where(b.collection_id == collection_id))
        return dict(rows)

    def begin_buckets(
        self,
        collection_id: int,
        record: ScanRecord | None,
        read: Container[int] | None,
        *,
        anew: bool,
    ) -> None:
        """Record which buckets a scan reads. The next scan reads those that stay uncommitted.

        Must be called before anything is written.

        Args:
            record: The state of this scan; None if it does not divide the rows.
            read: The buckets that the scan reads; None for all.
            anew: Whether the earlier scan divided the rows in another way.
        """
        with self.transaction():
            if anew:
                self._forget_buckets(collection_id)
            elif read is None:
                self.forget_digests(collection_id)
            self.open_buckets(collection_id, read or ())
            self.forget_scan(collection_id)
            if record is not None:
                self.record_scan(collection_id, record)
        self._opened = collection_id if record is not None else None

    def _forget_buckets(self, collection_id: int) -> None:
        """Delete the buckets of a collection, and take its documents out of them."""
        self._write(buckets.delete().where(b.collection_id == collection_id))
        for table in (documents, failed_documents):
            is_ours = table.c.collection_id == collection_id
            is_placed = is_ours & table.c.bucket.is_not(None)
            self._write(table.update().where(is_placed).values(bucket=None))

    def open_buckets(self, collection_id: int, numbers: Iterable[int]) -> None:
        """Let the next scan read these buckets, until they are committed."""
        rows = [(collection_id, number, "") for number in numbers]
        self._put_rows(buckets, rows, ("collection_id", "bucket", "digest"), ["digest"])

    def forget_digests(self, collection_id: int) -> None:
        """Let the next scan read all buckets of a collection."""
        update = buckets.update().where(b.collection_id == collection_id)
        self._write(update.values(digest=""))

    def unfinished_buckets(
        self, collection_id: int, is_due: Callable[[FailedDocument], bool] | None
    ) -> set[int]:
        """Return the buckets with documents that are pending, or failed and due for a retry.

        Args:
            is_due: Whether a failed document is due. None makes all listed documents due,
                including skipped and incomplete ones.
        """
        unfinished: set[int | None] = set()
        # A document that failed for the first time has no row in `documents`.
        bucket = sa.func.coalesce(f.bucket, d.bucket)
        is_same = sa.and_(d.collection_id == f.collection_id, d.key == f.key)
        joined = failed_documents.outerjoin(documents, is_same)
        failed = sa.select(bucket, *FAILED_FIELDS).select_from(joined)
        for number, *row in self._select(failed.where(f.collection_id == collection_id)):
            document = FailedDocument(*row)
            if is_due is None or (document.kind == "failed" and is_due(document)):
                unfinished.add(number)
        pending = sa.select(d.bucket).where(self._is_in_index(collection_id), PENDING)
        unfinished.update(self._column(pending))
        # None: the rows were not divided when the document was written.
        return {number for number in unfinished if number is not None}

    def read_only(self, numbers: Iterable[int]) -> None:
        """Read only these buckets. The documents of all others count as seen by the scan."""
        self._has_unread = True
        self._put_rows(to_read, [(self._scan, number) for number in numbers])

    def _read_buckets(self) -> sa.Select[Any]:
        """Return the query for the buckets that the scan reads."""
        return sa.select(to_read.c.bucket).where(self._is_mine(to_read))

    def count_unread(self, collection_id: int) -> UnreadCounts:
        """Count the empty, failed and skipped documents in unread buckets."""
        read = self._read_buckets()
        # An incomplete document is indexed, and counts as unchanged.
        is_listed = (f.collection_id == collection_id) & (f.kind != "incomplete")
        is_unread = f.bucket.not_in(read)
        # An empty document that is listed as failed or skipped counts only there.
        has_failed = sa.exists().where(is_listed, f.key == d.key)
        is_ours = self._is_in_index(collection_id)
        empty = self._count(documents, is_ours, EMPTY, d.bucket.not_in(read), ~has_failed)
        failed = self._count(failed_documents, is_listed, is_unread, f.kind == "failed")
        skipped = self._count(failed_documents, is_listed, is_unread, f.kind == "skipped")
        return UnreadCounts(empty, failed, skipped)

    def commit_buckets(self, collection_id: int, digests: Mapping[int, str]) -> set[int]:
        """Record the digests of buckets whose rows were read and written.

        Return the buckets that were left out, because they have documents that the scan did not
        see: these may have to be deleted first.

        Raises:
            LedgerError: The rows of this scan were lost (`check_scan`).
        """
        is_unplaced = (f.collection_id == collection_id) & f.bucket.is_(None)
        with self.transaction():
            self.check_scan(self._scan)
            placed = failed_documents.update().where(is_unplaced)
            self._write(placed.values(bucket=self._seen_in(f.key)))
            counts = self._count_in_buckets(collection_id, digests)
            left_out = {number for number, counted in counts.items() if counted.unseen}
            rows: list[tuple[Any, ...]] = []
            for number, digest in digests.items():
                if number in left_out:
                    continue
                # A bucket without documents: all of its rows are excluded or failed.
                counted = counts.get(number, BucketCounts())
                # A document is pending, for example because its row cannot be read any more, or
                # has no vectors yet. The next scan reads the bucket, and counts its documents one
                # by one.
                recorded = "" if counted.unfinished else digest
                numbers = (counted.documents, counted.points, counted.added_in)
                rows.append((collection_id, number, recorded, *numbers))
            self._put_rows(buckets, rows, update=["digest", "documents", "points", "added_in"])
        return left_out

    def _count_in_buckets(
        self, collection_id: int, numbers: Iterable[int]
    ) -> dict[int, BucketCounts]:
        """Count the documents of these buckets. Buckets without documents are missing."""
        has_points = d.chunks > 0
        statement = sa.select(
            d.bucket,
            sum_if(~self._is_seen(d), 1),
            sum_if(PENDING | BY_WORDS, 1),
            sum_if(has_points, 1),
            sum_if(has_points, d.chunks),
            sa.func.max(sa.case((has_points, d.added_in), else_=0)),
        )
        is_counted = d.bucket.in_(self._numbers(numbers))
        statement = statement.where(d.collection_id == collection_id, is_counted)
        rows = self._select(statement.group_by(d.bucket))
        return {number: BucketCounts(*counts) for number, *counts in rows}

    def _numbers(self, buckets: Iterable[int]) -> sa.Select[Any]:
        number = self._elements(list(buckets), "json_array_elements_text")
        return sa.select(sa.cast(number, BigInteger))

    def forget_empty_buckets(self, collection_id: int) -> None:
        """Delete the buckets that were read and have no documents any more."""
        statement = sa.select(b.bucket)
        open_buckets = self._column(
            statement.where(b.collection_id == collection_id, b.digest == "")
        )
        if not open_buckets:
            return
        used: set[int] = set()
        for columns in (d, f):
            is_ours = columns.collection_id == collection_id
            is_used = is_ours & columns.bucket.in_(self._numbers(open_buckets))
            used.update(self._column(sa.select(columns.bucket).where(is_used).distinct()))
        empty = set(open_buckets) - used
        if empty:
            is_empty = b.bucket.in_(self._numbers(empty))
            self._write(buckets.delete().where(b.collection_id == collection_id, is_empty))

    def sum_documents(
        self,
        collection_id: int,
        columns: Sequence[sa.ColumnElement[Any]],
        of_buckets: Sequence[sa.ColumnElement[Any]],
        *where: sa.ColumnElement[bool],
        counted: sa.ColumnElement[bool],
    ) -> list[int]:
        """Return sums over documents of a collection, without a look at each document.

        Args:
            columns: The sums, as aggregates over `documents`.
            of_buckets: The same numbers as columns of `buckets`, which has them since a commit.
            where: Conditions for a document.
            counted: The condition for a bucket whose numbers may be used. The documents of all
                other buckets, and those without a bucket, are summed one by one.
        """
        is_ours = b.collection_id == collection_id
        is_counted = (b.digest != "") & counted
        totals = [sa.func.coalesce(sa.func.sum(column), 0) for column in of_buckets]
        statement = sa.select(*totals, sa.func.count()).where(is_ours, is_counted)
        *sums, counted_buckets = map(int, self._first(statement))
        is_of_collection = d.collection_id == collection_id
        conditions: list[sa.ColumnElement[bool]] = [sa.true()]
        # Without counted buckets, all documents are summed by one statement.
        if counted_buckets:
            other_buckets = sa.select(b.bucket).where(is_ours, ~is_counted)
            conditions = []
            for is_other in (d.bucket.is_(None), d.bucket.in_(other_buckets)):
                # By their keys, which the index of buckets has. SQLite would not use it for a
                # query of other columns, and look at each document.
                keys = sa.select(d.key).where(is_of_collection, is_other).correlate(None)
                conditions.append(d.key.in_(keys))
        for condition in conditions:
            others = sa.select(*columns)
            found = self._first(others.where(is_of_collection, condition, *where))
            # SUM over no rows is NULL.
            sums = [total + int(other or 0) for total, other in zip(sums, found, strict=True)]
        return sums

    def any_unplaced(self, collection_id: int) -> bool:
        """Return whether a document of the collection has no bucket yet."""
        unplaced = sa.select(d.key).where(d.collection_id == collection_id, d.bucket.is_(None))
        return self._value(unplaced.limit(1)) is not None

    def place(self, collection_id: int, keys: Sequence[str]) -> None:
        """Give documents without a bucket the one in which the scan saw them."""
        is_unplaced = (d.collection_id == collection_id) & d.bucket.is_(None)
        update = documents.update().where(is_unplaced & self._is_in(d.key, keys))
        self._write(update.values(bucket=self._seen_in(d.key)))

    def _seen_in(self, key: sa.ColumnElement[str]) -> sa.ScalarSelect[Any]:
        """Return the bucket in which the scan saw a key, as a subquery."""
        statement = sa.select(seen.c.bucket)
        return statement.where(self._is_mine(seen), seen.c.key == key).scalar_subquery()

    def _known_bucket(
        self, collection_id: int, key: sa.ColumnElement[str]
    ) -> sa.ColumnElement[Any]:
        """Return the bucket of a document that has no row yet, as an expression.

        It is the one in which this scan saw the document, or an earlier scan in which it failed.
        Without it, a scan that leaves the bucket unread would take the document for deleted.
        """
        failed = sa.select(f.bucket).where(f.collection_id == collection_id, f.key == key)
        failed_in = failed.scalar_subquery()
        # A comparison of store and ledger writes without a scan of the source.
        if self._scan is None:
            return failed_in
        return sa.func.coalesce(self._seen_in(key), failed_in)

    def forget_digests_of(self, collection_id: int, keys: Sequence[str]) -> None:
        """Let the next scan read the buckets of these documents, whose rows are about to change."""
        # `begin_buckets` has done so for all buckets that the scan writes to.
        if self._opened == collection_id or not keys:
            return
        with self.transaction():
            # A document that failed may have no row in `documents`.
            for columns in (d, f):
                is_theirs = (columns.collection_id == collection_id) & self._is_in(
                    columns.key, keys
                )
                theirs = sa.select(columns.bucket).where(is_theirs)
                is_changing = (b.collection_id == collection_id) & b.bucket.in_(theirs)
                self._write(buckets.update().where(is_changing).values(digest=""))

    # The counts and sizes by which the delete guard decides (`etl.deletes`)

    def count_documents(
        self, collection: Collection, *where: sa.ColumnElement[bool]
    ) -> IndexedDocuments:
        """Count the documents of a collection that have points and meet all conditions."""
        columns = _counts(documents, collection)
        has_points = d.chunks > 0
        # The numbers of a bucket are those of all its documents, whatever the conditions.
        if where:
            statement = sa.select(*columns)
            is_ours = d.collection_id == collection.id
            return IndexedDocuments(*self._first(statement.where(is_ours, has_points, *where)))
        # A bucket without newer documents: the index had all of them when it was last complete.
        is_old = b.added_in <= collection.whole_in
        of_buckets = [b.documents, b.documents]
        sums = self.sum_documents(collection.id, columns, of_buckets, has_points, counted=is_old)
        return IndexedDocuments(*sums)

    def count_deletions(self, collection: Collection) -> IndexedDocuments:
        """Count the documents that are recorded as deleted or emptied, without undecided ones."""
        is_loss = sa.or_(~IS_DELETED, lost.c.payload_hash.is_(None))
        return self.count_documents(collection, self._is_lost(is_loss))

    def count_undecided(self, collection: Collection) -> IndexedDocuments:
        """Count the documents whose rows have a value that nobody decided on."""
        return self.count_documents(collection, self._is_lost(IS_UNDECIDED))

    def count_known(self, collection: Collection, keys: Sequence[str]) -> IndexedDocuments:
        """Count the documents of a collection with these keys."""
        return self.count_documents(collection, self._is_in(d.key, keys))

    def count_unmatched(self, collection: Collection, other: Collection) -> IndexedDocuments:
        """Count the documents that have no match in another collection.

        A match has the same key, or the same text under a key that is new in the other collection
        (the document moved). Documents with the same text are matched one to one.
        """
        ours = documents.alias("a")
        theirs = documents.alias("b")
        missing = sa.select(ours.c.text_hash, *_counts(ours, collection))
        missing = missing.where(_without_key(ours, collection.id, theirs, other.id))
        missing_texts = missing.group_by(ours.c.text_hash).subquery()
        moved = sa.select(theirs.c.text_hash, sa.func.count().label("found"))
        moved = moved.where(_without_key(theirs, other.id, ours, collection.id))
        moved_texts = moved.group_by(theirs.c.text_hash).subquery()

        # Of a text with 5 missing and 2 moved documents, 3 have no match.
        matched = sa.func.coalesce(moved_texts.c.found, 0)
        sums = [
            _sum_above(missing_texts.c.all, matched),
            _sum_above(missing_texts.c.when_complete, matched),
        ]
        is_same = moved_texts.c.text_hash == missing_texts.c.text_hash
        joined = missing_texts.outerjoin(moved_texts, is_same)
        found = self._first(sa.select(*sums).select_from(joined))
        return IndexedDocuments(*map(int, found))

    def record_largest_size(self, collection_id: int, count: int, part: str = "") -> None:
        """Record the size of a collection or of a part of its source, unless a larger one is valid.

        A size is valid for a day, so that several losses within a day count as one loss.

        Args:
            count: The number of documents of the collection, or of source rows of the part.
        """
        s = sizes.c
        now = self.clock()
        # The recorded size is replaced if it is not larger, older than a day, or from the future
        # (the clock was set back).
        is_replaced = (s.size <= count) | (s.at < now - DAY) | (s.at > now)
        values = {"size": count, "at": now}
        update = {
            name: sa.case((is_replaced, value), else_=s[name]) for name, value in values.items()
        }
        self._put_row(sizes, {"collection_id": collection_id, "part": part}, values, update)

    def reduce_size(self, collection_id: int, count: int) -> None:
        """Let the largest size of a collection be smaller by documents that are no loss of the
        source."""
        s = sizes.c
        smaller = sa.case((s.size > count, s.size - count), else_=0)
        self._write(
            sizes.update()
            .where(s.collection_id == collection_id, s.part == "")
            .values(size=smaller)
        )

    def largest_sizes(self, collection_id: int) -> dict[str, int]:
        """Return the largest sizes by part; "" is the collection itself.

        The size of the collection is that of the last day. Those of parts are from the day before
        the last complete run.
        """
        s = sizes.c
        now = self.clock()
        is_valid = (s.part != "") | s.at.between(now - DAY, now)
        statement = sa.select(s.part, s.size)
        return dict(self._select(statement.where(s.collection_id == collection_id, is_valid)))

    def copy_sizes(self, collection_id: int, other_id: int) -> None:
        """Give another collection the sizes of this one, which it replaces."""
        others = [column for column in sizes.c if column.name != "collection_id"]
        names = ["collection_id", *[column.name for column in others]]
        rows = sa.select(sa.literal(other_id), *others)
        rows = rows.where(sizes.c.collection_id == collection_id)
        with self.transaction():
            self.forget_sizes(other_id)
            self._write(self._insert(sizes).from_select(names, rows))

    def forget_sizes(self, collection_id: int) -> None:
        """Delete the recorded sizes, after a person has approved a loss."""
        is_ours = sizes.c.collection_id == collection_id
        self._write(sizes.delete().where(is_ours))


def sum_if(condition: sa.ColumnElement[bool], value: Any) -> sa.ColumnElement[Any]:
    """Return the sum of a value over the rows that meet a condition; NULL without rows."""
    return sa.func.sum(sa.case((condition, value), else_=0))


def _sum_above(
    count: sa.ColumnElement[Any], matched: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    """Return the sum of `count - matched` over the rows where that is positive."""
    above = sa.case((count > matched, count - matched), else_=0)
    return sa.func.coalesce(sa.func.sum(above), 0)


def _counts(table: sa.FromClause, collection: Collection) -> list[sa.ColumnElement[Any]]:
    """Return the columns of `IndexedDocuments`, as aggregates over a table of documents."""
    was_there = table.c.added_in <= collection.whole_in
    when_complete = sa.func.coalesce(sum_if(was_there, 1), 0)
    return [sa.func.count().label("all"), when_complete.label("when_complete")]


def _without_key(
    table: sa.FromClause, collection_id: int, other: sa.FromClause, other_id: int
) -> sa.ColumnElement[bool]:
    """Return the condition for a document with points whose key the other collection lacks."""
    is_other = other.c.collection_id == other_id
    is_same = other.c.key == table.c.key
    has_key = sa.exists().where(is_other, is_same, other.c.chunks > 0)
    return (table.c.collection_id == collection_id) & (table.c.chunks > 0) & ~has_key
