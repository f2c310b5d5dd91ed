"""Store and ledger brought together, if one of them was restored from an older copy: every point is compared.

Whether that is so is seen by the marks of their last commits (`commit.py`).
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rag_index.documents.access import document_payload
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import VERSION, encode_payload, hash_bytes
from rag_index.documents.keys import document_id, point_id
from rag_index.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.indexing.commit import next_mark
from rag_index.indexing.scratch import Orphan, PointTally, Scratch
from rag_index.stores import BM25

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.documents.batches import StoredPoint
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.stores import Store

PAGE_POINTS = 1000


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
    scratch, deleted = Scratch(ledger), 0
    for tallies, orphans in compare_points(ledger, store, index, collection):
        check()
        scratch.add_tallies(tallies)
        ours = {orphan.id: str(orphan.key) for orphan in orphans if orphan.ours}
        if mark < collection.commit_mark:  # the store is the older one
            store.delete_points(name, list(ours))
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
    ledger raises.
    """
    canonical = collection.chunking.endswith(f"canonical-{VERSION}")
    words = _lacking_words(store, collection.name)
    for page in pages(store.scroll(collection.name, vectors=words is not None, page=PAGE_POINTS)):
        keys = {key for point in page if (key := typed_key(point, index)) is not None}
        known = ledger.known(collection.id, sorted(keys))
        tallies: dict[str, PointTally] = {}
        orphans: list[Orphan] = []
        for point in page:
            key = typed_key(point, index)
            row = known.get(key) if key is not None else None
            if key is None or row is None:
                orphans.append(
                    Orphan(point.id, key or _claimed_key(point), unknown=key is not None, ours=key is not None)
                )
            elif not row.pending:
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= row.chunks:
                    orphans.append(Orphan(point.id, key, unknown=False, ours=True))
                else:
                    tally = tallies.get(key, PointTally())
                    tallies[key] = PointTally(
                        tally.points + 1,
                        tally.miscounted + (ours.get("chunks") != row.chunks),
                        tally.altered + _is_altered(point, key, row, canonical=canonical),
                        tally.wordless + (words is not None and _is_wordless(point, words)),
                    )
        yield tallies, orphans


def typed_key(point: StoredPoint, index: str) -> str | None:
    """Return the key of the document that a point is a chunk of; None if this index would not write such a point."""
    ours = point.payload.get(RESERVED_KEY)
    if not isinstance(ours, dict):
        return None
    key, chunk = ours.get("key"), ours.get("chunk")
    if not isinstance(key, str) or not key or type(chunk) is not int or point.id != point_id(index, key, chunk):
        return None
    return key


def content_hash(point: StoredPoint) -> str:
    """Return the hash over a point's payload as the source's page has it: without what belongs to chunk and store."""
    return hash_bytes(encode_payload(document_payload(point.payload))).hex()


def pages(points: Iterable[StoredPoint], size: int = PAGE_POINTS) -> Iterator[list[StoredPoint]]:
    """Yield the points in lists of at most `size`."""
    iterator = iter(points)
    while page := list(islice(iterator, size)):
        yield page


def _is_altered(point: StoredPoint, key: str, row: Known, *, canonical: bool) -> bool:
    """Return whether a payload disagrees with the ledger.

    Its content is compared only if it is `canonical`, that is, written in today's version of canonical JSON.
    """
    ours = point.payload[RESERVED_KEY]
    payload_hash = row.payload_hash.hex()
    return (
        ours.get("payload_hash") != payload_hash
        or ours.get("text_hash") != row.text_hash.hex()
        or ours.get("document_id") != document_id(key)
        or not isinstance(ours.get("text"), str)
        or (canonical and content_hash(point) != payload_hash)
    )


def _lacking_words(store: Store, name: str) -> Bm25Encoder | None:
    """Return what makes the collection's sparse vectors if some points have none; None if there is nothing to look for.

    A point without a word has none, and lacks nothing.
    """
    model = Bm25Model.from_metadata(store.metadata(name).get(BM25))
    if model is None or store.count_sparse(name) == store.count(name):
        return None
    return Bm25Encoder(model)


def _is_wordless(point: StoredPoint, words: Bm25Encoder) -> bool:
    """Return whether a point has no sparse vector although its text has words."""
    return point.sparse is None and bool(words.query(str(point.payload[RESERVED_KEY].get("text", ""))))


def _claimed_key(point: StoredPoint) -> str | None:
    """Return the key that a point's payload names, although the point is not a chunk of that document."""
    ours = point.payload.get(RESERVED_KEY)
    key = ours.get("key") if isinstance(ours, dict) else None
    return key if isinstance(key, str) and key else None
