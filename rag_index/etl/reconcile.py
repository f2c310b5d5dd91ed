"""The one comparison of store and ledger: each point with the ledger's rows, and with the keys of
the source if these were read. `rag-index doctor` says what differs. A run whose store or ledger was
put back to an older copy mends that before it begins, and so does `doctor --repair`: what differs
becomes pending, and the next scan indexes it again.

What was read is recorded in tables of scans beside the ledger's own, and SQL compares it with the
ledger, so memory does not grow with the corpus."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from rag_index.components.ledger.tables import documents, orphans, source_keys, tallies
from rag_index.components.stores import OVERTAKEN
from rag_index.core.database import insert_for
from rag_index.core.documents import INDEX_VERSION
from rag_index.core.documents.batches import BY_WORDS, RESERVED_KEY, StoredPoint
from rag_index.core.documents.canonical import encode_payload, hash_bytes
from rag_index.core.documents.groups import document_payload
from rag_index.core.documents.keys import document_id, point_id
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.reports.progress import counted
from rag_index.etl.commit import next_commit_mark
from rag_index.etl.upsert import CHUNK_HASH, chunk_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.components.ledger import Collection, Ledger, RecordedDocument
    from rag_index.components.stores.protocol import Store

PAGE_POINTS = 1000
MAX_EXAMPLES = 5
HASH_HEX = 32

d, t, o, s = documents.c, tallies.c, orphans.c, source_keys.c


@shows_sizes("count")
@dataclass(frozen=True, slots=True)
class Matches:
    """The number of documents or points that match a query, and some of their keys."""

    count: int
    keys: list[str]


class Comparison:
    """A comparison of one collection with the ledger. The caller holds the lease of the index, and
    `check` raises if it does not any more.

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
        """Add documents of the source."""
        self._write(
            self._insert(source_keys).on_conflict_do_nothing(), [{"key": key} for key in keys]
        )

    def read_points(self) -> None:
        """Compare each point with the ledger; those of pending documents are left out. Raises
        StoreError if the store cannot read its own points, and what a ledger raises."""
        name, cid = self._collection.name, self._collection.id
        canonical = self._collection.chunking.endswith(f"index-{INDEX_VERSION}")
        insert = self._insert(tallies)
        sums = {column: t[column] + insert.excluded[column] for column in ("points", "altered")}
        add = insert.on_conflict_do_update(index_elements=["scan", "key"], set_=sums)
        points = self._store.points(name)
        stored = pages(points.scroll(page=PAGE_POINTS))
        for page in counted(stored, "points compared", points.count, len):
            self._check()
            keys = [typed_key(point, self._index) for point in page]
            known = self._ledger.known(cid, sorted({key for key in keys if key is not None}))
            found: dict[str, dict[str, Any]] = {}
            unexplained: list[dict[str, Any]] = []
            for key, point in zip(keys, page, strict=True):
                row = known.get(key or "")
                if key is None or row is None or not (row.chunks or row.pending):
                    unexplained.append({"id": point.id, "key": key})
                elif not row.pending:
                    tally = found.setdefault(key, {"key": key, "points": 0, "altered": 0})
                    tally["points"] += 1
                    tally["altered"] += _is_altered(point, key, row, canonical=canonical)
            self._write(add, list(found.values()))
            self._write(self._insert(orphans).on_conflict_do_nothing(), unexplained)

    # What differs

    def differing(self) -> Matches:
        """Find documents whose points are not as the ledger says, and documents that the store has
        and the ledger does not, unless the source does not have them either."""
        unknown = sa.select(o.key).where(self._is_mine(orphans), ~self._of_none()).distinct()
        return self._find(sa.union(self._wrong(), unknown))

    def orphans(self) -> Matches:
        """Find points that nothing explains: the ledger has no such document, and neither has the
        source, if it was read. A point that is of no document is named by its id."""
        named = sa.select(sa.func.coalesce(o.key, o.id).label("key"))
        return self._find(named.where(self._is_mine(orphans), self._of_none()))

    def _wrong(self) -> sa.Select[Any]:
        """Return the query for the ledger's documents whose points are missing, too many, or
        altered."""
        joined = documents.outerjoin(tallies, self._is_mine(tallies) & (t.key == d.key))
        done = (d.collection_id == self._collection.id) & (d.pending == 0) & (d.chunks > 0)
        wrong = t.key.is_(None) | (t.points != d.chunks) | (t.altered > 0)
        return sa.select(d.key).select_from(joined).where(done, wrong)

    def _of_none(self) -> sa.ColumnElement[bool]:
        """Return the condition for points that are of no document."""
        if not self.complete:
            return o.key.is_(None)
        return ~sa.exists().where(self._is_mine(source_keys), s.key == o.key)

    # Mending

    def mend(self) -> tuple[int, int]:
        """Bring store and ledger together; return how many documents were deleted, and how many
        became pending.

        What differs becomes pending, so the next scan indexes it again. Points of no document are
        deleted if the source was read to its end. If it was not, points that the ledger does not
        know are deleted only if the store is the older one: then they are of documents that were
        deleted since. The marks agree again once all this is done, so a kill before has it
        repeated.
        """
        ledger, store, cid, name = (
            self._ledger,
            self._store,
            self._collection.id,
            self._collection.name,
        )
        points = store.points(name)
        mark, overtaken = points.commit_mark(), _overtaken(store, name)
        gone = self._of_none() if self.complete else sa.false()
        if not self.complete and mark < self._collection.commit_mark:
            gone = o.key.is_not(None)
        ledger.drop_position(self._collection.alias)
        pending = ledger.totals(cid).pending
        deleted = self._delete(gone)
        points.flush()
        ledger.forget_digests(cid)
        self._mark_pending(gone)
        again = ledger.totals(cid).pending - pending
        newest = next_commit_mark(ledger, max(mark, self._collection.commit_mark))
        points.set_commit_mark(newest)
        ledger.record_commit(cid, newest)
        if (
            overtaken is not None and _overtaken(store, name) == overtaken
        ):  # and by no other one since
            points.set_metadata({OVERTAKEN: None})
        return deleted, again

    def _delete(self, gone: sa.ColumnElement[bool]) -> int:
        """Delete points that nothing explains, and return of how many documents they were."""
        gone &= self._is_mine(orphans)
        (count,) = self._rows(sa.select(sa.func.count(o.key.distinct())).where(gone))[0]
        page, after = sa.select(o.id, o.key).where(gone).order_by(o.id).limit(PAGE_POINTS), ""
        while rows := self._rows(page.where(o.id > after)):
            self._check()
            self._store.points(self._collection.name).delete_points([row.id for row in rows])
            self._ledger.add_erasable(self._collection.id, len({row.key for row in rows} - {None}))
            after = rows[-1].id
        return int(count)

    def _mark_pending(self, gone: sa.ColumnElement[bool]) -> None:
        """Mark as pending what the next scan has to index again; a document that the ledger lacks
        gets a row."""
        cid, after = self._collection.id, ""
        unknown = (
            sa.select(o.key)
            .distinct()
            .where(self._is_mine(orphans), o.key.is_not(None), ~gone)
            .order_by(o.key)
        )
        while rows := self._rows(unknown.where(o.key > after).limit(PAGE_POINTS)):
            self._ledger.mark_pending(cid, [row.key for row in rows])
            after = rows[-1].key
        wrong = (d.collection_id == cid) & d.key.in_(self._wrong().correlate(None))
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            connection.execute(documents.update().where(wrong).values(pending=1))

    def _is_mine(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.scan == self._scan

    def _find(self, found: sa.Select[Any] | sa.CompoundSelect[Any]) -> Matches:
        key = (rows := found.subquery()).c.key
        (count,) = self._rows(sa.select(sa.func.count()).select_from(rows))[0]
        examples = sa.select(key).distinct().order_by(key).limit(MAX_EXAMPLES)
        return Matches(count, [row.key for row in self._rows(examples)] if count else [])

    def _rows(self, statement: sa.Select[Any]) -> list[Any]:
        with self._ledger.transaction() as connection:
            self._ledger.check_scan(self._scan)
            return list(connection.execute(statement))

    def _write(self, statement: Any, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._ledger.transaction() as connection:
                connection.execute(statement, [{**row, "scan": self._scan} for row in rows])


def commit_difference(ledger: Ledger, store: Store, collection: Collection) -> str:
    """Return how store and ledger may differ since one of them was put back to an older copy, or a
    run that had stood still wrote beside another; "" if they do not."""
    said = ledger.different_commits(collection, store.points(collection.name).commit_mark())
    if not said and _overtaken(store, collection.name) is not None:
        return (
            f"{collection.name} was also written by an earlier run, whose process had stood still"
        )
    return said


def _overtaken(store: Store, name: str) -> Any:
    return None if store.embedded else store.points(name).metadata().get(OVERTAKEN)


def fill_ledger(
    ledger: Ledger, store: Store, index: str, collection: Collection, *, check: Callable[[], None]
) -> None:
    """Give a collection its rows in the ledger from the payloads of its points, as they were when
    it was lost. Whether they are whole is for a comparison to say."""
    points = store.points(collection.name)
    for page in counted(pages(points.scroll()), "points read", points.count, len):
        check()
        rows: dict[bool, dict[str, tuple[str, bytes, bytes, int]]] = {True: {}, False: {}}
        for point in page:
            if (key := typed_key(point, index)) is not None:
                ours = point.payload[RESERVED_KEY]
                chunks = ours["chunks"] if type(ours.get("chunks")) is int else 0
                hashes = _parse_hash(ours.get("text_hash")), _parse_hash(ours.get("payload_hash"))
                rows[bool(ours.get(BY_WORDS))][key] = key, *hashes, chunks
        for by_words, found in rows.items():
            ledger.record(collection.id, found.values(), by_words=by_words)


def _parse_hash(value: Any) -> bytes:
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
    key, chunk = (ours.get("key"), ours.get("chunk")) if isinstance(ours, dict) else (None, None)
    if not isinstance(key, str) or not key or type(chunk) is not int:
        return None
    return key if point.id == point_id(index, key, chunk) else None


def pages(points: Iterable[StoredPoint], size: int = PAGE_POINTS) -> Iterator[list[StoredPoint]]:
    """Yield the points in lists of at most `size`."""
    iterator = iter(points)
    while page := list(islice(iterator, size)):
        yield page
