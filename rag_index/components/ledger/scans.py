"""What a scan of the source has seen, and would delete; what the delete guard holds back; what the next scan needs.
What it has seen is in tables on disk, whose rows have the number of the scan: in SQLite, and for who may only read, in
temporary ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Collection as Some
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
    Collection,
    FailedDocument,
    IndexedDocuments,
    ScanRecord,
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

GONE = lost.c.text_hash.is_(None)


class ScanRows(LedgerConnection):
    """What the current scan has seen, and the state that a scan leaves for the next one. A source with digests is
    divided into buckets: each has a digest, and those that did not change are left unread."""

    _scan: int | None = None
    """The number of the current scan; 0 where the tables are temporary."""
    _texts_of: int | None = None
    """The collection whose texts this scan has in its table, once it was asked for them."""
    _reads_some = False
    """Whether the scan leaves buckets unread."""
    _opened: int | None = None
    """The collection whose buckets are known to be open, as far as the scan writes to them."""

    def begin_scan(self, alias: str) -> None:
        """Begin a scan of an index."""
        self._scan, self._reads_some = self.new_scan(alias), False
        self._texts_of = self._opened = None

    def _is_mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.scan == self._scan

    def _is_lost(self, *where: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
        return d.key.in_(sa.select(lost.c.key).where(self._is_mine(lost), *where))

    def see(self, keys: Sequence[str], *, page: int, buckets: Sequence[int] | None = None) -> list[str]:
        """Record the keys of a page as seen, with the bucket of each if it is known. Return those that occur twice, in
        this page or also in an earlier one."""
        if not keys:
            return []
        scan = sa.literal(self._scan, Integer)
        if buckets is None:
            rows = sa.select(scan, self._keys(keys), sa.null(), sa.literal(page))
        else:
            pair = self._elements(list(zip(keys, buckets, strict=True)), "json_array_elements")
            key, bucket = (pair.op("->>")(sa.literal_column(place)) for place in "01")
            rows = sa.select(scan, key, sa.cast(bucket, BigInteger), sa.literal(page))
        if self._put_selected(seen, ["scan", "key", "bucket", "page"], rows) == len(keys):
            return []
        earlier = sa.select(seen.c.key).where(self._is_mine(seen), self._is_in(seen.c.key, keys), seen.c.page < page)
        duplicates = set(self._column(earlier))
        distinct: set[str] = set()
        for key in keys:
            (duplicates if key in distinct else distinct).add(key)
        return sorted(duplicates)

    def note_emptied(self, rows: Iterable[tuple[str, bytes, bytes]]) -> None:
        """Record documents (key, text hash, payload hash) that have points and whose text is now empty."""
        self._put_rows(lost, [(self._scan, *row) for row in rows], update=("text_hash", "payload_hash"))

    def count_emptied(self) -> int:
        """Count the emptied documents that still have points."""
        return self._count(lost, self._is_mine(lost), ~GONE)

    def note_gone(self, keys: Sequence[str]) -> None:
        """Record documents that the source no longer has."""
        rows = sa.select(sa.literal(self._scan, Integer), self._keys(keys))
        self._put_selected(lost, ["scan", "key"], rows)

    def find_gone(self, collection_id: int) -> int:
        """Record all documents that the scan, which has read the whole source, did not see. Return how many of them
        have points. Raises LedgerError as `check_scan`."""
        rows = sa.select(sa.literal(self._scan, Integer), d.key)
        with self.transaction():
            self.check_scan(self._scan)
            self._write(lost.delete().where(self._is_mine(lost), GONE))
            # of some buckets two conditions: SQLite does not look for both at once by the index
            known = [d.bucket.is_(None), d.bucket.in_(self._read_buckets())] if self._reads_some else [sa.true()]
            for some in known:
                gone = rows.where(d.collection_id == collection_id, some, ~self._is_seen(d))
                self._put_selected(lost, ["scan", "key"], gone)
            return self._count(documents, d.collection_id == collection_id, self._is_lost(GONE), d.chunks > 0)

    def lost(self, collection_id: int, *, limit: int = 1000) -> list[tuple[str, bytes | None, bytes | None]]:
        """Return a page of what is recorded as gone (without hashes) or emptied."""
        columns = sa.select(lost.c.key, lost.c.text_hash, lost.c.payload_hash)
        return [tuple(row) for row in self._select(columns.where(self._is_mine(lost)).limit(limit))]

    def forget_lost(self, keys: Sequence[str]) -> None:
        """Delete the records of documents whose points have been deleted."""
        self._write(lost.delete().where(self._is_mine(lost), self._is_in(lost.c.key, keys)))

    def forget_unseen_failures(self, collection_id: int) -> None:
        """Delete the failures of documents that the source no longer has. Raises LedgerError as `check_scan`."""
        with self.transaction():
            self.check_scan(self._scan)
            self._write(failed_documents.delete().where(f.collection_id == collection_id, self._is_unseen(f)))

    def _is_seen(self, c: Any) -> sa.ColumnElement[bool]:
        return sa.exists().where(self._is_mine(seen), seen.c.key == c.key)

    def _is_unseen(self, c: Any) -> sa.ColumnElement[bool]:
        """Return the condition for a row of a table, by its columns, that the scan neither saw nor left unread."""
        unseen = ~self._is_seen(c)
        if self._reads_some:
            unseen &= sa.or_(c.bucket.is_(None), c.bucket.in_(self._read_buckets()))
        return unseen

    def scan_state(self, collection_id: int) -> ScanRecord | None:
        """Return what the last complete scan of a collection left for the next one."""
        s = scan_states.c
        found = self._first(sa.select(s.watermark, s.settings, s.full_at).where(s.collection_id == collection_id))
        return ScanRecord(*found) if found else None

    def record_scan(self, collection_id: int, record: ScanRecord) -> None:
        """Record the state that a scan of a collection leaves for the next one."""
        self._put_row(scan_states, {"collection_id": collection_id}, record._asdict())

    def forget_scan(self, collection_id: int) -> None:
        """Delete the state that a complete scan of a collection left, so that the next one reads everything."""
        self._write(scan_states.delete().where(scan_states.c.collection_id == collection_id))

    # Buckets

    def digests(self, collection_id: int) -> dict[int, str]:
        """Return the digests of committed buckets; "" for those that have to be read."""
        return dict(self._select(sa.select(b.bucket, b.digest).where(b.collection_id == collection_id)))

    def begin_buckets(
        self, collection_id: int, record: ScanRecord | None, read: Some[int] | None, *, anew: bool
    ) -> None:
        """Record, before anything is written, how the scan divides the rows, None for not at all, and that it reads
        these buckets, None for all. Until they are committed, the next scan reads them, too. With `anew`, the rows were
        divided in another way before."""
        with self.transaction():
            if anew:
                self._write(buckets.delete().where(b.collection_id == collection_id))
                for table in (documents, failed_documents):
                    placed = (table.c.collection_id == collection_id) & table.c.bucket.is_not(None)
                    self._write(table.update().where(placed).values(bucket=None))
            elif read is None:
                self.forget_digests(collection_id)
            self.open_buckets(collection_id, read or ())
            self.forget_scan(collection_id)
            if record is not None:
                self.record_scan(collection_id, record)
        self._opened = collection_id if record is not None else None

    def open_buckets(self, collection_id: int, numbers: Iterable[int]) -> None:
        """Let the next scan read these buckets, until they are committed."""
        rows = [(collection_id, number, "") for number in numbers]
        self._put_rows(buckets, rows, ("collection_id", "bucket", "digest"), ["digest"])

    def forget_digests(self, collection_id: int) -> None:
        """Let the next scan read all buckets of a collection."""
        self._write(buckets.update().where(b.collection_id == collection_id).values(digest=""))

    def unfinished_buckets(self, collection_id: int, is_due: Callable[[FailedDocument], bool] | None) -> set[int]:
        """Return the buckets with documents that are pending, or failed and have to be tried again: those of which
        `is_due` says so; None: all that are listed."""
        pending = sa.select(d.bucket).where(self._is_in_index(collection_id), PENDING)
        bucket = sa.func.coalesce(f.bucket, d.bucket)
        same = sa.and_(d.collection_id == f.collection_id, d.key == f.key)
        failed = sa.select(bucket, *FAILED_FIELDS).select_from(failed_documents.outerjoin(documents, same))
        found = [
            (place, FailedDocument(*row))
            for place, *row in self._select(failed.where(f.collection_id == collection_id))
        ]
        due = [place for place, one in found if is_due is None or (one.kind == "failed" and is_due(one))]
        return {*self._column(pending), *due} - {None}

    def read_only(self, numbers: Iterable[int]) -> None:
        """Let the documents of all other buckets count as seen by the scan."""
        self._reads_some = True
        self._put_rows(to_read, [(self._scan, number) for number in numbers])

    def _read_buckets(self) -> sa.Select[Any]:
        return sa.select(to_read.c.bucket).where(self._is_mine(to_read))

    def count_unread(self, collection_id: int) -> tuple[int, int, int]:
        """Count the documents in unread buckets that are empty, that are listed as failed, and that are skipped."""
        read = self._read_buckets()
        listed = (f.collection_id == collection_id) & (f.kind != "incomplete")
        is_listed = sa.exists().where(listed, f.key == d.key)
        empty = self._count(documents, self._is_in_index(collection_id), EMPTY, d.bucket.not_in(read), ~is_listed)
        failed, skipped = (
            self._count(failed_documents, listed, f.bucket.not_in(read), f.kind == kind)
            for kind in ("failed", "skipped")
        )
        return empty, failed, skipped

    def commit_buckets(self, collection_id: int, digests: Mapping[int, str]) -> set[int]:
        """Record the digests of buckets that are indexed as they were read. One with a document that is still pending,
        such as one that cannot be read any more, or that has no vectors yet, stays to be read, and its documents are
        counted one by one. Return those that were left out, because they have documents that the scan did not see.
        Raises LedgerError as `check_scan`."""
        failed = (f.collection_id == collection_id) & f.bucket.is_(None)
        has_points = d.chunks > 0
        cases = ((~self._is_seen(d), 1), (PENDING | BY_WORDS, 1), (has_points, 1), (has_points, d.chunks))
        sums = [sa.func.sum(sa.case(case, else_=0)) for case in cases]
        counts = sa.select(d.bucket, *sums, sa.func.max(sa.case((has_points, d.added_in), else_=0)))
        counts = counts.where(d.collection_id == collection_id, d.bucket.in_(self._numbers(digests)))
        with self.transaction():
            self.check_scan(self._scan)
            self._write(failed_documents.update().where(failed).values(bucket=self._seen_in(f.key)))
            found = {bucket: row for bucket, *row in self._select(counts.group_by(d.bucket))}
            left = {bucket for bucket, row in found.items() if row[0]}
            rows = [
                (collection_id, number, "" if pending else digest, *counted)
                for number, digest in digests.items()
                if number not in left
                for _, pending, *counted in [found.get(number, (0, 0, 0, 0, 0))]
            ]
            self._put_rows(buckets, rows, update=["digest", "documents", "points", "added_in"])
        return left

    def _numbers(self, buckets: Iterable[int]) -> sa.Select[Any]:
        return sa.select(sa.cast(self._elements(list(buckets), "json_array_elements_text"), BigInteger))

    def forget_empty_buckets(self, collection_id: int) -> None:
        """Delete the buckets that were read and have no documents any more."""
        left = self._column(sa.select(b.bucket).where(b.collection_id == collection_id, b.digest == ""))
        used = set[int]()
        for c in (d, f) if left else ():
            ours = (c.collection_id == collection_id) & c.bucket.in_(self._numbers(left))
            used.update(self._column(sa.select(c.bucket).where(ours).distinct()))
        if empty := set(left) - used:
            self._write(buckets.delete().where(b.collection_id == collection_id, b.bucket.in_(self._numbers(empty))))

    def sum_documents(
        self,
        collection_id: int,
        columns: Sequence[sa.ColumnElement[Any]],
        of_buckets: Sequence[sa.ColumnElement[Any]],
        *where: sa.ColumnElement[bool],
        counted: sa.ColumnElement[bool],
    ) -> list[int]:
        """Return sums over the documents of a collection for which all conditions hold: for buckets that were
        `counted` when they were committed, sums of what was counted, and for other documents those of `columns`."""
        ours = d.collection_id == collection_id
        counted = (b.digest != "") & counted
        kept = [sa.func.coalesce(sa.func.sum(column), 0) for column in of_buckets]
        statement = sa.select(*kept, sa.func.count()).where(b.collection_id == collection_id, counted)
        *sums, any_ = map(int, self._first(statement))
        others = d.bucket.in_(sa.select(b.bucket).where(b.collection_id == collection_id, ~counted))
        for some in [d.bucket.is_(None), others] if any_ else [sa.true()]:
            found = self._first(sa.select(*columns).where(ours, some, *where))
            sums = [one + int(other or 0) for one, other in zip(sums, found, strict=True)]
        return sums

    def any_unplaced(self, collection_id: int) -> bool:
        """Return whether it is unknown of a document in which bucket it is."""
        unplaced = sa.select(d.key).where(d.collection_id == collection_id, d.bucket.is_(None))
        return self._value(unplaced.limit(1)) is not None

    def place(self, collection_id: int, keys: Sequence[str]) -> None:
        """Give documents that have no bucket the one in which the scan saw them."""
        unplaced = (d.collection_id == collection_id) & d.bucket.is_(None) & self._is_in(d.key, keys)
        self._write(documents.update().where(unplaced).values(bucket=self._seen_in(d.key)))

    def _seen_in(self, key: sa.ColumnElement[str]) -> sa.ScalarSelect[Any]:
        return sa.select(seen.c.bucket).where(self._is_mine(seen), seen.c.key == key).scalar_subquery()

    def _known_bucket(self, collection_id: int, key: sa.ColumnElement[str]) -> sa.ColumnElement[Any]:
        """Return the bucket of a document without a row: where this scan saw it, or where the one saw it that failed.
        Without it, a scan that leaves the bucket unread would take the document for deleted."""
        failed = sa.select(f.bucket).where(f.collection_id == collection_id, f.key == key).scalar_subquery()
        return failed if self._scan is None else sa.func.coalesce(self._seen_in(key), failed)

    def forget_digests_of(self, collection_id: int, keys: Sequence[str]) -> None:
        """Let the next scan read the buckets of these documents, because their rows are about to change."""
        if self._opened == collection_id or not keys:
            return
        with self.transaction():
            for c in (d, f):  # one that failed may have no row among the documents
                theirs = sa.select(c.bucket).where(c.collection_id == collection_id, self._is_in(c.key, keys))
                of_theirs = (b.collection_id == collection_id) & b.bucket.in_(theirs)
                self._write(buckets.update().where(of_theirs).values(digest=""))

    # What the delete guard decides by (`etl.deletes`)

    def count_documents(self, collection: Collection, *where: sa.ColumnElement[bool]) -> IndexedDocuments:
        """Count the documents of a collection for which all conditions hold."""
        columns, has_points = _counts(documents, collection), d.chunks > 0
        if where:
            selected = sa.select(*columns).where(d.collection_id == collection.id, has_points, *where)
            return IndexedDocuments(*self._first(selected))
        kept, counted = [b.documents, b.documents], b.added_in <= collection.whole_in
        return IndexedDocuments(*self.sum_documents(collection.id, columns, kept, has_points, counted=counted))

    def count_deletions(self, collection: Collection) -> IndexedDocuments:
        """Count the documents that are recorded as gone or emptied."""
        return self.count_documents(collection, self._is_lost())

    def count_unmatched(self, collection: Collection, other: Collection) -> IndexedDocuments:
        """Count the documents that have no match in another collection: of the same key, or moved, with the same text.
        Documents of one text are matched one to one."""
        a, b = documents.alias("a"), documents.alias("b")
        missing, moved = _without_key(a, collection.id, b, other.id), _without_key(b, other.id, a, collection.id)
        lost = sa.select(a.c.text_hash, *_counts(a, collection)).where(missing).group_by(a.c.text_hash).subquery()
        found = sa.select(b.c.text_hash, sa.func.count().label("found")).where(moved).group_by(b.c.text_hash).subquery()
        there = sa.func.coalesce(found.c.found, 0)
        sums = [
            sa.func.coalesce(sa.func.sum(sa.case((count > there, count - there), else_=0)), 0)
            for count in (lost.c.all, lost.c.whole)
        ]
        joined = lost.outerjoin(found, found.c.text_hash == lost.c.text_hash)
        return IndexedDocuments(*map(int, self._select(sa.select(*sums).select_from(joined))[0]))

    def note_size(self, collection_id: int, count: int, part: str = "") -> None:
        """Record that the collection has `count` documents now, or the source rows of a part of them. The largest size
        counts for a day: what is lost within one is one loss."""
        s, now = sizes.c, self.clock()
        outdone = (s.size <= count) | (s.at < now - DAY) | (s.at > now)
        larger = {name: sa.case((outdone, new), else_=s[name]) for name, new in (("size", count), ("at", now))}
        self._put_row(sizes, {"collection_id": collection_id, "part": part}, {"size": count, "at": now}, larger)

    def largest_sizes(self, collection_id: int) -> dict[str, int]:
        """Return the most documents that the collection had in the last day, as "", and the most rows of each part in
        the day before the last complete run."""
        s, now = sizes.c, self.clock()
        counted = (s.part != "") | s.at.between(now - DAY, now)
        return dict(self._select(sa.select(s.part, s.size).where(s.collection_id == collection_id, counted)))

    def copy_sizes(self, collection_id: int, other_id: int) -> None:
        """Give another collection the sizes of this one, which it replaces."""
        with self.transaction():
            self.forget_sizes(other_id)
            others = [column for column in sizes.c if column.name != "collection_id"]
            rows = sa.select(sa.literal(other_id), *others).where(sizes.c.collection_id == collection_id)
            self._write(self._insert(sizes).from_select(["collection_id", *[one.name for one in others]], rows))

    def forget_sizes(self, collection_id: int) -> None:
        """Forget earlier sizes: a person allowed what was lost."""
        self._write(sizes.delete().where(sizes.c.collection_id == collection_id))


def _counts(table: sa.FromClause, collection: Collection) -> list[sa.ColumnElement[Any]]:
    whole = sa.func.sum(sa.case((table.c.added_in <= collection.whole_in, 1), else_=0))
    return [sa.func.count().label("all"), sa.func.coalesce(whole, 0).label("whole")]


def _without_key(
    table: sa.FromClause, collection_id: int, other: sa.FromClause, other_id: int
) -> sa.ColumnElement[bool]:
    same = sa.exists().where(other.c.collection_id == other_id, other.c.key == table.c.key, other.c.chunks > 0)
    return (table.c.collection_id == collection_id) & (table.c.chunks > 0) & ~same
