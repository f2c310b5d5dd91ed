"""The one comparison of store and ledger: each point with the ledger's rows, and with the keys of
the source if these were read.

    points and keys > tallies and orphans, in tables of the ledger > SQL: what differs > pending

`rag-index doctor` reports what differs. A run whose store or ledger was restored from a backup
corrects it before it begins, and so does `doctor --repair`: documents that differ become pending,
and the next scan indexes them again. The commit marks agree only after all that, so a kill has the
next run compare everything again.

What was read is recorded in tables beside the ledger's own, and SQL compares it with the ledger, so
memory does not grow with the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.ledger.tables import documents, orphans, source_keys, tallies
from rag_index.components.stores import OVERTAKEN
from rag_index.core.database import insert_for
from rag_index.core.documents import INDEX_VERSION
from rag_index.core.documents.batches import BY_WORDS, RESERVED_KEY, CommitMark, StoredPoint
from rag_index.core.documents.canonical import encode_payload, hash_bytes
from rag_index.core.documents.groups import document_payload
from rag_index.core.documents.keys import document_id, point_id
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.reports.progress import counted
from rag_index.etl.commit import DocumentRow, next_commit_mark
from rag_index.etl.upsert import CHUNK_HASH, chunk_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.components.ledger import Collection, Ledger, RecordedDocument
    from rag_index.components.stores.protocol import Store

PAGE_POINTS = 1000
"""Points that are read or deleted at a time. Chosen; nothing depends on it."""
MAX_EXAMPLES = 5
"""Keys that a finding names. Chosen; nothing depends on it."""
HASH_HEX = 32
"""Hexadecimal digits of a hash."""

d, t, o, s = documents.c, tallies.c, orphans.c, source_keys.c


@shows_sizes("count")
@dataclass(frozen=True, slots=True)
class Matches:
    """The number of documents or points that match a query, and the keys of the first ones."""

    count: int
    keys: list[str]


class Comparison:
    """A comparison of one collection with the ledger.

    Args:
        check: Raises if the caller has lost the lease of the index.

    Example:
        comparison = Comparison(ledger, store, "notes", collection, check=lease.check)
        comparison.read_points()
        comparison.mend()
    """

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        index: str,
        collection: Collection,
        *,
        check: Callable[[], None],
    ) -> None:
        self._ledger, self._store, self._index, self._collection = ledger, store, index, collection
        self._check = check
        self._scan = ledger.new_scan(collection.alias)
        self._insert = insert_for(ledger.engine.dialect)
        self.complete = False
        """Whether the source was read to its end. Only then is a point known to be of no
        document."""

    # What is read

    def add_source_keys(self, keys: Iterable[str]) -> None:
        """Record keys of documents that the source has."""
        rows = [{"key": key} for key in keys]
        self._write(self._insert(source_keys).on_conflict_do_nothing(), rows)

    def read_points(self) -> None:
        """Compare each point with the ledger's row of its document.

        Points of pending documents are left out. Raises StoreError if the store cannot read its own
        points, and what a ledger raises.
        """
        points = self._store.points(self._collection.name)
        stored = pages(points.scroll(page=PAGE_POINTS))
        for page in counted(stored, "points compared", points.count, len):
            self._check()
            self._compare(page)

    def _compare(self, page: list[StoredPoint]) -> None:
        """Record how many points of each document were read and altered, and which points have no
        document."""
        is_canonical = self._collection.chunking.endswith(f"index-{INDEX_VERSION}")
        keys = [typed_key(point, self._index) for point in page]
        distinct = {key for key in keys if key is not None}
        known = self._ledger.known(self._collection.id, sorted(distinct))
        found: dict[str, dict[str, Any]] = {}
        unexplained: list[dict[str, Any]] = []
        for key, point in zip(keys, page, strict=True):
            row = known.get(key or "")
            # Not a point of ours, or the ledger has no such document, or has it without points.
            if key is None or row is None or not (row.chunks or row.pending):
                unexplained.append({"id": point.id, "key": key})
                continue
            if row.pending:
                continue
            tally = found.setdefault(key, {"key": key, "points": 0, "altered": 0})
            tally["points"] += 1
            tally["altered"] += _is_altered(point, key, row, canonical=is_canonical)

        # The points of a document may be on several pages.
        insert = self._insert(tallies)
        sums = {
            "points": t.points + insert.excluded.points,
            "altered": t.altered + insert.excluded.altered,
        }
        add = insert.on_conflict_do_update(index_elements=["scan", "key"], set_=sums)
        self._write(add, list(found.values()))
        self._write(self._insert(orphans).on_conflict_do_nothing(), unexplained)

    # What differs

    def differing(self) -> Matches:
        """Find documents whose points differ from the ledger, and documents that the store has and
        the ledger has not, unless the source does not have them either."""
        unknown = sa.select(o.key).distinct()
        unknown = unknown.where(self._is_mine(orphans), ~self._of_none())
        return self._find(sa.union(self._wrong(), unknown))

    def orphans(self) -> Matches:
        """Find documents whose points the store has, but which neither the ledger has nor the
        source. There are none unless the source was read to its end."""
        keys = sa.select(o.key).distinct()
        return self._find(keys.where(self._is_mine(orphans), self._of_none(), o.key.is_not(None)))

    def foreign_points(self) -> Matches:
        """Find points that are of no document, such as those of another program. Their keys are
        their ids."""
        ids = sa.select(o.id.label("key"))
        return self._find(ids.where(self._is_mine(orphans), o.key.is_(None)))

    def _wrong(self) -> sa.Select[Any]:
        """Return the query for the ledger's documents whose points are missing, too many, or
        altered."""
        is_its_tally = self._is_mine(tallies) & (t.key == d.key)
        joined = documents.outerjoin(tallies, is_its_tally)
        is_ours = d.collection_id == self._collection.id
        is_committed = is_ours & (d.pending == 0) & (d.chunks > 0)
        is_wrong = t.key.is_(None) | (t.points != d.chunks) | (t.altered > 0)
        return sa.select(d.key).select_from(joined).where(is_committed, is_wrong)

    def _of_none(self) -> sa.ColumnElement[bool]:
        """Return the condition for points that are of no document."""
        # The source was not read to its end: only points that are not ours are of none.
        if not self.complete:
            return o.key.is_(None)
        in_source = sa.exists().where(self._is_mine(source_keys), s.key == o.key)
        return ~in_source

    # Mending

    def mend(self) -> tuple[int, int]:
        """Bring store and ledger together. Return how many documents were deleted, and how many
        became pending.

        What differs becomes pending, so the next scan indexes it again. The commit marks agree once
        all this is done, so a kill before that has it repeated.
        """
        ledger, store = self._ledger, self._store
        name, cid = self._collection.name, self._collection.id
        points = store.points(name)
        commit_mark = points.commit_mark()
        overtaken = _overtaken(store, name)
        is_deleted = self._is_deleted(commit_mark)
        ledger.drop_position(self._collection.alias)
        pending_before = ledger.totals(cid).pending
        deleted = self._delete(is_deleted)
        points.flush()
        ledger.forget_digests(cid)
        self._mark_pending(is_deleted)
        pending = ledger.totals(cid).pending - pending_before
        newest = next_commit_mark(ledger, max(commit_mark, self._collection.commit_mark))
        points.set_commit_mark(newest)
        ledger.record_commit(cid, newest)
        # No further run was overtaken since the points were read.
        if overtaken is not None and _overtaken(store, name) == overtaken:
            points.set_metadata({OVERTAKEN: None})
        return deleted, pending

    def _is_deleted(self, commit_mark: CommitMark) -> sa.ColumnElement[bool]:
        """Return the condition for orphans that are deleted. All others become pending."""
        # The source was read to its end: it has no such document.
        if self.complete:
            return self._of_none()
        # The store was restored from a backup: its documents that the ledger does not know were
        # deleted since.
        if commit_mark < self._collection.commit_mark:
            return o.key.is_not(None)
        # The ledger was restored: the documents may be in the source.
        return sa.false()

    def _delete(self, is_deleted: sa.ColumnElement[bool]) -> int:
        """Delete the points of orphans, and return of how many documents they were."""
        is_deleted &= self._is_mine(orphans)
        distinct_keys = sa.func.count(o.key.distinct())
        (count,) = self._rows(sa.select(distinct_keys).where(is_deleted))[0]
        page = sa.select(o.id, o.key).where(is_deleted)
        page = page.order_by(o.id).limit(PAGE_POINTS)
        after = ""
        while rows := self._rows(page.where(o.id > after)):
            self._check()
            self._store.points(self._collection.name).delete_points([row.id for row in rows])
            keys = {row.key for row in rows if row.key is not None}
            self._ledger.add_erasable(self._collection.id, len(keys))
            after = rows[-1].id
        return int(count)

    def _mark_pending(self, is_deleted: sa.ColumnElement[bool]) -> None:
        """Make documents pending that the next scan has to index again. A document that the ledger
        lacks gets a row."""
        cid = self._collection.id
        unknown = sa.select(o.key).distinct()
        unknown = unknown.where(self._is_mine(orphans), o.key.is_not(None), ~is_deleted)
        unknown = unknown.order_by(o.key).limit(PAGE_POINTS)
        after = ""
        while rows := self._rows(unknown.where(o.key > after)):
            self._ledger.mark_pending(cid, [row.key for row in rows])
            after = rows[-1].key
        # Documents that the ledger has, with other points in the store.
        wrong = (d.collection_id == cid) & d.key.in_(self._wrong().correlate(None))
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            connection.execute(documents.update().where(wrong).values(pending=1))

    def _is_mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.scan == self._scan

    def _find(self, found: sa.Select[Any] | sa.CompoundSelect[Any]) -> Matches:
        matching = found.subquery()
        (count,) = self._rows(sa.select(sa.func.count()).select_from(matching))[0]
        if not count:
            return Matches(count, [])
        key = matching.c.key
        examples = sa.select(key).distinct().order_by(key).limit(MAX_EXAMPLES)
        return Matches(count, [row.key for row in self._rows(examples)])

    def _rows(self, statement: sa.Select[Any]) -> list[Any]:
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            return list(connection.execute(statement))

    def _write(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        own_rows = [{**row, "scan": self._scan} for row in rows]
        with self._ledger.transaction() as connection:
            connection.execute(statement, own_rows)


def commit_difference(ledger: Ledger, store: Store, collection: Collection) -> str:
    """Return why store and ledger may differ; "" if they do not.

    One of them was restored from a backup, or a run that had stood still wrote beside another.
    """
    difference = ledger.different_commits(collection, store.points(collection.name).commit_mark())
    if difference:
        return difference
    if _overtaken(store, collection.name) is not None:
        return (
            f"{collection.name} was also written by an earlier run, whose process had stood still"
        )
    return ""


def _overtaken(store: Store, name: str) -> Any:
    """Return the epoch of a run that wrote beside a later one. None if there is none."""
    # Only this process can write to the embedded store.
    if store.embedded:
        return None
    return store.points(name).metadata().get(OVERTAKEN)


def fill_ledger(
    ledger: Ledger, store: Store, index: str, collection: Collection, *, check: Callable[[], None]
) -> None:
    """Give a collection its rows in the ledger from the payloads of its points, as they were when
    the ledger was lost. Only a comparison can tell whether all their points are there."""
    points = store.points(collection.name)
    for page in counted(pages(points.scroll()), "points read", points.count, len):
        check()
        with_vectors: dict[str, DocumentRow] = {}
        by_words: dict[str, DocumentRow] = {}
        for point in page:
            key = typed_key(point, index)
            if key is None:
                continue
            ours = point.payload[RESERVED_KEY]
            text_hash = _parse_hash(ours.get("text_hash"))
            payload_hash = _parse_hash(ours.get("payload_hash"))
            chunks = ours["chunks"] if type(ours.get("chunks")) is int else 0
            rows = by_words if ours.get(BY_WORDS) else with_vectors
            rows[key] = DocumentRow(key, text_hash, payload_hash, chunks)
        ledger.record(collection.id, by_words.values(), by_words=True)
        ledger.record(collection.id, with_vectors.values(), by_words=False)


def _parse_hash(value: Any) -> bytes:
    """Return a hash that a payload has as hexadecimal text; b"" if another program changed it."""
    try:
        return bytes.fromhex(value) if len(value) == HASH_HEX else b""
    except (TypeError, ValueError):
        return b""


def _is_altered(point: StoredPoint, key: str, row: RecordedDocument, *, canonical: bool) -> bool:
    """Return whether a point disagrees with the ledger.

    Args:
        canonical: Whether payloads are written in today's version of canonical JSON, so that their
            content can be compared.
    """
    ours = point.payload[RESERVED_KEY]
    payload_hash = row.payload_hash.hex()
    # The ledger has 2 chunks, and this is the third one: a stale chunk.
    if ours["chunk"] >= row.chunks:
        return True
    recorded = {
        "chunks": row.chunks,
        "payload_hash": payload_hash,
        "text_hash": row.text_hash.hex(),
        "document_id": document_id(key),
    }
    if any(ours.get(name) != value for name, value in recorded.items()):
        return True
    # The point has a vector and the ledger says "by words", or the other way round.
    if bool(ours.get(BY_WORDS)) != bool(row.by_words):
        return True
    # The text or the words of the chunk were changed after it was written.
    if ours.get(CHUNK_HASH) != chunk_hash(point.payload):
        return True
    if not canonical:
        return False
    # A field of the payload was changed after it was written.
    content = encode_payload(document_payload(point.payload))
    return hash_bytes(content).hex() != payload_hash


def typed_key(point: StoredPoint, index: str) -> str | None:
    """Return the key of the document that a point is a chunk of; None if this index would not write
    such a point."""
    ours = point.payload.get(RESERVED_KEY)
    if not isinstance(ours, dict):
        return None
    key, chunk = ours.get("key"), ours.get("chunk")
    if not isinstance(key, str) or not key or type(chunk) is not int:
        return None
    # Another program may have copied the payload to a point of its own.
    return key if point.id == point_id(index, key, chunk) else None


def pages(points: Iterable[StoredPoint], size: int = PAGE_POINTS) -> Iterator[list[StoredPoint]]:
    """Yield the points in lists of at most `size`."""
    iterator = iter(points)
    while page := list(islice(iterator, size)):
        yield page
