"""Comparison of every point, and of every document of the source, with the ledger.

Two scans do it, each with one page in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rag_index.doctor.findings import Finding, count_phrase
from rag_index.doctor.scratch import Orphan, PointTally
from rag_index.documents.access import stored_groups, with_groups
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import VERSION, encode_payload, hash_bytes
from rag_index.documents.ids import point_id
from rag_index.documents.keys import document_id
from rag_index.embedders.bm25 import Bm25Encoder, Bm25Model
from rag_index.indexing.diff import diff
from rag_index.stores.metadata import BM25

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.doctor.scratch import Matches, Scratch
    from rag_index.documents.batches import StoredPoint
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.sources import Source
    from rag_index.stores import Store

__all__ = ["SourceChanges", "content_hash", "pages", "point_findings", "scan_source", "scan_store", "typed_key"]

PAGE_POINTS = 1000


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """Numbers of documents that the next run would index or delete; none of them is wrong."""

    new: int
    changed: int
    gone: int

    def __str__(self) -> str:
        counts = ((self.new, "new"), (self.changed, "changed"), (self.gone, "gone"))
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def scan_store(scratch: Scratch, ledger: Ledger, store: Store, index: str, collection: Collection) -> None:
    """Record a tally of each document's points, and the points that the ledger does not explain.

    Raises StoreError if the store cannot read its own points, and what a ledger raises.
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
                orphans.append(Orphan(point.id, key or _claimed_key(point), unknown=key is not None))
            elif not row.pending:
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= row.chunks:
                    orphans.append(Orphan(point.id, key, unknown=False))
                else:
                    tally = tallies.get(key, PointTally())
                    tallies[key] = PointTally(
                        tally.points + 1,
                        tally.miscounted + (ours.get("chunks") != row.chunks),
                        tally.altered + _is_altered(point, key, row, canonical=canonical),
                        tally.wordless + (words is not None and _is_wordless(point, words)),
                    )
        scratch.add_tallies(tallies)
        scratch.add_orphans(orphans)


def scan_source(scratch: Scratch, ledger: Ledger, source: Source, collection_id: int, rows: int) -> SourceChanges:
    """Record the source's documents, and those with text that the ledger has as empty; return what the next run does.

    That leaves documents out that were given up. Pages have `rows` documents. Raises what a source raises.
    """
    source.check()
    new = changed = 0
    any_failures = ledger.count_failures(collection_id) > 0
    cursor: Any = None
    while True:
        page = source.page(cursor, rows)
        documents = page.documents
        known = ledger.known(collection_id, documents.keys)
        failed = ledger.failures(collection_id, documents.keys) if any_failures else {}
        scratch.add_source_keys([*documents.keys, *(failure.key for failure in page.unreadable)])
        scratch.add_not_empty(
            key
            for key, text, text_hash in zip(documents.keys, documents.texts, documents.text_hashes, strict=True)
            if text and (row := known.get(key)) and not (row.chunks or row.pending) and row.text_hash == text_hash
        )
        page_diff = diff(documents, known, failed)
        new += page_diff.new
        changed += len(page_diff.to_embed) - page_diff.new + len(page_diff.payload_only) + len(page_diff.emptied)
        cursor = page.cursor
        if cursor is None:
            return SourceChanges(new, changed, scratch.count_gone(collection_id))


def point_findings(index: str, scratch: Scratch, collection: Collection) -> Iterator[Finding]:
    """Yield the findings about a collection's points, after both scans or after the store's alone."""
    cid, name = collection.id, collection.name
    remedy = (
        f"`rag-index doctor --repair` embeds them again; so does `rag-index rebuild {index}`, with all other documents"
    )
    for kind, found, problem in (
        (
            "missing_documents",
            scratch.missing(cid),
            f"without a point in {name}, although the ledger has them as committed",
        ),
        ("wrong_chunks", scratch.miscounted(cid), f"with another number of chunks in {name} than in the ledger"),
        ("wrong_payloads", scratch.altered(cid), f"whose payload in {name} does not match the ledger's hashes"),
        ("missing_words", scratch.wordless(cid), f"with a point in {name} that lacks the sparse vector of its words"),
        ("unknown_documents", scratch.unknown_documents(), f"in the source and in {name}, but not in the ledger"),
    ):
        if found.count:
            yield _document_finding(index, kind, found, problem, remedy)
    if count := scratch.count_orphans():
        examples = tuple(_display_key(key) for key in scratch.orphan_examples())
        points = count_phrase(count, "point", examples)
        yield Finding(
            index, "orphan_points", count, f"{points} in {name} that neither ledger nor source explains",
            "`rag-index doctor --repair` deletes them", examples,
        )  # fmt: skip
    if (pending := scratch.pending(cid)).count:
        problem = "still pending because a run ended while it wrote them"
        remedy = f"`rag-index index {index}` writes them again; so does `rag-index doctor --repair`"
        yield _document_finding(index, "pending_documents", pending, problem, remedy)


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
    left_out = {RESERVED_KEY, *point.payload.get(RESERVED_KEY, {}).get("own", ())}
    payload = {name: value for name, value in point.payload.items() if name not in left_out}
    groups = stored_groups(point.payload)
    return hash_bytes(encode_payload(payload) if groups is None else with_groups(payload, groups)).hex()


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


def _document_finding(index: str, kind: str, found: Matches, problem: str, remedy: str) -> Finding:
    examples = tuple(_display_key(key) for key in found.keys)
    message = f"{count_phrase(found.count, 'document', examples)} {problem}"
    return Finding(index, kind, found.count, message, remedy, examples)


def _display_key(key: str) -> str:
    """Return a key as searches show it; text that is not a key is returned as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key
