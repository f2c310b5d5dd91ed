"""Store and ledger brought together, if one of them was restored from an older copy: every point is compared. Whether
that is so is seen by the marks of their last commits (`commit.py`). What was read from store and source is recorded in
tables of scans beside the ledger's own, and SQL compares them with the ledger. They are on disk, so memory does not
grow with the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import sqlalchemy as sa

from rag_index.components.ledger.tables import (
    documents,
    failed_documents,
    not_empty,
    orphans,
    rebuilt,
    source_keys,
    tallies,
)
from rag_index.core.database import insert_for
from rag_index.core.documents import INDEX_VERSION
from rag_index.core.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.core.documents.canonical import encode_payload, hash_bytes
from rag_index.core.documents.groups import document_payload
from rag_index.core.documents.keys import document_id, point_id
from rag_index.core.reports.progress import counted
from rag_index.etl.commit import CHUNK_HASH, chunk_hash, next_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rag_index.components.ledger import Collection, Known, Ledger
    from rag_index.components.stores.protocol import Store

PAGE_POINTS = 1000
MAX_EXAMPLES = 5
LEDGER_COLUMNS = ["collection_id", "key", "text_hash", "payload_hash", "chunks", "pending"]

d, t = documents.c, tallies.c
_RIGHT = (t.points >= d.chunks) & (t.miscounted == 0)
WRONG_CONDITIONS = {"missing": t.key.is_(None), "miscounted": ~_RIGHT, "altered": _RIGHT & (t.altered > 0)}
"""The conditions for documents that are done, should have points and have none, or another number of points than the
ledger says, or at least one that disagrees with the ledger."""


class PointTally(NamedTuple):
    """Counts over some or all of the points of one document."""

    points: int = 0
    miscounted: int = 0
    """Points that state another number of chunks than the ledger."""
    altered: int = 0
    """Points whose payload or hashes are not the ledger's."""


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
    """The number of documents or points that match a query, and some of their keys."""

    count: int
    keys: list[str]


def reconcile(
    ledger: Ledger, store: Store, index: str, collection: Collection, *, check: Callable[[], None]
) -> tuple[int, int]:
    """Compare every point with the ledger; return how many documents were deleted, and how many became pending.

    What differs becomes pending, so the scan that follows indexes it again. Points of documents that were deleted since
    the store was copied are deleted at once; those that an older ledger does not know become pending too, because only
    the source can tell what they are. The marks agree again once all this is done, so a kill before has it repeated.
    `check` is called for each page of points, and raises if the run must not write any more.
    """
    name, mark = collection.name, store.commit_mark(collection.name)
    ledger.drop_position(collection.alias)
    pending = ledger.totals(collection.id).pending
    scratch, deleted = Scratch(ledger, collection.alias), 0
    for page, unexplained in compare_points(ledger, store, index, collection):
        check()
        scratch.add_tallies(page)
        ours = {orphan.id: str(orphan.key) for orphan in unexplained if orphan.ours}
        if mark < collection.commit_mark:  # the store is the older one
            store.delete_points(name, list(ours))
            ledger.note_erasable(collection.id, sorted(set(ours.values())))
            deleted += sum(point_id(index, key, 0) == point for point, key in ours.items())
        else:
            ledger.mark_pending(collection.id, sorted(set(ours.values())))
    store.flush(name)
    ledger.forget_digests(collection.id)
    scratch.mark_wrong_as_pending(collection.id)
    again = ledger.totals(collection.id).pending - pending
    newest = next_mark(ledger, max(mark, collection.commit_mark))
    store.set_commit_mark(name, newest)
    ledger.record_commit(collection.id, newest)
    return deleted, again


def compare_points(
    ledger: Ledger, store: Store, index: str, collection: Collection
) -> Iterator[tuple[dict[str, PointTally], list[Orphan]]]:
    """Yield for each page of points a tally of each document's points, and the points that the ledger does not explain.
    Points of pending documents are in neither. Raises StoreError if the store cannot read its own points, and what a
    ledger raises."""
    canonical = collection.chunking.endswith(f"index-{INDEX_VERSION}")
    stored = pages(store.scroll(collection.name, page=PAGE_POINTS))
    for page in counted(stored, "points compared", partial(store.count, collection.name), len):
        keys = [typed_key(point, index) for point in page]
        known = ledger.known(collection.id, sorted({key for key in keys if key is not None}))
        found: dict[str, PointTally] = {}
        unexplained: list[Orphan] = []
        for key, point in zip(keys, page, strict=True):
            row = known.get(key or "")
            if key is None or row is None:
                unexplained.append(Orphan(point.id, key or _claimed_key(point), unknown=bool(key), ours=bool(key)))
            elif not row.pending:
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= row.chunks:
                    unexplained.append(Orphan(point.id, key, unknown=False, ours=True))
                    continue
                altered = _is_altered(point, key, row, canonical=canonical)
                one = 1, int(ours.get("chunks") != row.chunks), int(altered)
                found[key] = PointTally(*map(sum, zip(found.get(key, PointTally()), one, strict=True)))
        yield found, unexplained


def _is_altered(point: StoredPoint, key: str, row: Known, *, canonical: bool) -> bool:
    """Return whether a payload disagrees with the ledger. Its content is compared only if it is `canonical`, that is,
    written in today's version of canonical JSON."""
    ours, payload_hash = point.payload[RESERVED_KEY], row.payload_hash.hex()
    return (
        ours.get("payload_hash") != payload_hash
        or ours.get("text_hash") != row.text_hash.hex()
        or ours.get("document_id") != document_id(key)
        or ours.get(CHUNK_HASH) != chunk_hash(point.payload)
        or (canonical and content_hash(point) != payload_hash)
    )


def typed_key(point: StoredPoint, index: str) -> str | None:
    """Return the key of the document that a point is a chunk of; None if this index would not write such a point."""
    key = _claimed_key(point)
    chunk = point.payload[RESERVED_KEY].get("chunk") if key else None
    return key if key and type(chunk) is int and point.id == point_id(index, key, chunk) else None


def _claimed_key(point: StoredPoint) -> str | None:
    ours = point.payload.get(RESERVED_KEY)
    key = ours.get("key") if isinstance(ours, dict) else None
    return key if isinstance(key, str) and key else None


def content_hash(point: StoredPoint) -> str:
    """Return the hash over a point's payload as the source's page has it: without what belongs to chunk and store."""
    return hash_bytes(encode_payload(document_payload(point.payload))).hex()


def pages(points: Iterable[StoredPoint], size: int = PAGE_POINTS) -> Iterator[list[StoredPoint]]:
    """Yield the points in lists of at most `size`."""
    iterator = iter(points)
    while page := list(islice(iterator, size)):
        yield page


class Scratch:
    """What a reading of an index's points finds, in the tables of scans. The caller holds the lease of the index."""

    def __init__(self, ledger: Ledger, alias: str) -> None:
        self._ledger = ledger
        self._scan = ledger.new_scan(alias)
        self._insert = insert_for(ledger.engine.dialect)

    def _mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.scan == self._scan

    # What was read

    def add_tallies(self, page: Mapping[str, PointTally]) -> None:
        """Add the tallies of a page of points, by document key."""
        insert = self._insert(tallies)
        sums = {name: t[name] + insert.excluded[name] for name in PointTally._fields}
        rows = [{"key": key, **tally._asdict()} for key, tally in page.items()]
        self._write(insert.on_conflict_do_update(index_elements=["scan", "key"], set_=sums), rows)

    def add_orphans(self, page: Iterable[Orphan]) -> None:
        """Add points that the ledger does not explain."""
        self._add(orphans, [{"id": o.id, "key": o.key, "unknown": int(o.unknown)} for o in page])

    def add_source_keys(self, keys: Iterable[str]) -> None:
        """Add documents of the source."""
        self._add(source_keys, [{"key": key} for key in keys])

    def add_not_empty(self, keys: Iterable[str]) -> None:
        """Add documents that have text, although the ledger has them as empty."""
        self._add(not_empty, [{"key": key} for key in keys])

    def add_rebuilt(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add what a page of points says about its documents: rows of `rebuilt`, one per document."""
        insert, r = self._insert(rebuilt), rebuilt.c
        new = insert.excluded
        differ = sa.or_(*[r[name] != new[name] for name in ("text_hash", "payload_hash", "chunks")])
        sums = {"points": r.points + new.points, "doubtful": r.doubtful + new.doubtful + sa.case((differ, 1), else_=0)}
        self._write(insert.on_conflict_do_update(index_elements=["scan", "key"], set_=sums), list(map(dict, rows)))

    # What is wrong

    def wrong(self, collection_id: int, kind: Literal["missing", "miscounted", "altered"]) -> Matches:
        """Find documents whose points are wrong in one way: see `WRONG_CONDITIONS`, and `add_not_empty`."""
        return self._find(*self._compare(collection_id, WRONG_CONDITIONS[kind]))

    def mark_wrong_as_pending(self, collection_id: int) -> None:
        """Mark all documents that are wrong in some way as pending."""
        source, where = self._compare(collection_id, sa.or_(*WRONG_CONDITIONS.values()))
        keys = sa.select(d.key).select_from(source).where(where).correlate(None)
        ours = (d.collection_id == collection_id) & d.key.in_(keys)
        with self._ledger.transaction():
            self._ledger.check_scan(self._scan)
            self._write(documents.update().where(ours).values(pending=1))

    def _compare(self, collection_id: int, wrong: sa.ColumnElement[bool]) -> tuple[Any, sa.ColumnElement[bool]]:
        """Return the ledger's documents joined with their tallies, and a condition for the done ones that are wrong."""
        has_text = (d.chunks > 0) | d.key.in_(sa.select(not_empty.c.key).where(self._mine(not_empty)))
        done = (d.collection_id == collection_id) & (d.pending == 0) & has_text
        return documents.outerjoin(tallies, self._mine(tallies) & (t.key == d.key)), done & wrong

    def pending(self, collection_id: int) -> Matches:
        """Find documents whose write a run began and did not confirm."""
        return self._find(documents, (d.collection_id == collection_id) & (d.pending == 1))

    def failed(self, collection_id: int) -> Matches:
        """Find documents listed as failed or incomplete; those that a rule of the source skips are not wrong."""
        f = failed_documents.c
        return self._find(failed_documents, (f.collection_id == collection_id) & (f.kind != "skipped"), f.key)

    def orphans(self) -> Matches:
        """Find points that neither ledger nor source explains; those without a document's key are named by their id."""
        return self._find(orphans, self._is_orphan(in_source=False), sa.func.coalesce(orphans.c.key, orphans.c.id))

    def orphan_ids(self, *, after: str = "") -> list[str]:
        """Return the next ids, in order, of points that neither ledger nor source explains."""
        wanted = self._is_orphan(in_source=False) & (orphans.c.id > after)
        statement = sa.select(orphans.c.id).where(wanted).order_by(orphans.c.id).limit(1000)
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            return list(connection.scalars(statement))

    def unknown_documents(self) -> Matches:
        """Find documents that the source and the store have and the ledger does not."""
        distinct = sa.select(orphans.c.key).where(self._is_orphan(in_source=True)).distinct().subquery()
        return self._find(distinct, sa.true(), distinct.c.key)

    def _is_orphan(self, *, in_source: bool) -> sa.ColumnElement[bool]:
        """Return the condition for orphans that are chunks of a document of the source, or for the others."""
        there = sa.select(source_keys.c.key).where(self._mine(source_keys))
        known = (orphans.c.unknown == 1) & orphans.c.key.in_(there)
        return self._mine(orphans) & (known if in_source else ~known)

    # Rows of the ledger

    def add_unknown_as_pending(self, collection_id: int) -> None:
        """Add a pending ledger row for each document of `unknown_documents`."""
        keys = sa.select(orphans.c.key).where(self._is_orphan(in_source=True)).distinct().subquery()
        empty = sa.literal(b"", sa.LargeBinary)
        rows = sa.select(sa.literal(collection_id), keys.c.key, empty, empty, sa.literal(0), sa.literal(1))
        insert = self._insert(documents).from_select(LEDGER_COLUMNS, rows.where(sa.true()))
        self._write(insert.on_conflict_do_nothing())

    def write_rebuilt(self, collection_id: int) -> None:
        """Write the rows of `add_rebuilt` to the ledger, then clear them; a document that is not whole is pending."""
        r = rebuilt.c
        self._ledger.check_scan(self._scan)
        pending = sa.case(((r.points == r.chunks) & (r.doubtful == 0), 0), else_=1)
        rows = sa.select(sa.literal(collection_id), r.key, r.text_hash, r.payload_hash, r.chunks, pending)
        self._write(documents.insert().from_select(LEDGER_COLUMNS, rows.where(self._mine(rebuilt))))
        self._write(rebuilt.delete().where(self._mine(rebuilt)))

    def _find(self, source: Any, where: sa.ColumnElement[bool], column: Any = d.key) -> Matches:
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            count = connection.scalar(sa.select(sa.func.count()).select_from(source).where(where))
            examples = sa.select(column).select_from(source).where(where).distinct().order_by(column)
            return Matches(int(count or 0), list(connection.scalars(examples.limit(MAX_EXAMPLES))) if count else [])

    def _add(self, table: sa.Table, rows: list[dict[str, Any]]) -> None:
        self._write(self._insert(table).on_conflict_do_nothing(), rows)

    def _write(self, statement: Any, rows: list[Any] | None = None) -> None:
        if rows != []:
            for row in rows or ():
                row["scan"] = self._scan
            with self._ledger.transaction() as connection:
                connection.execute(statement, rows)
