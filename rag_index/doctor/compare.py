"""Every point held against the ledger, and every document of the source: two scans, a page in memory at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from rag_index.doctor.findings import Finding, counted
from rag_index.doctor.scratch import Orphan, SeenDocument
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import VERSION, encode_payload, hash_bytes
from rag_index.documents.ids import point_id
from rag_index.documents.keys import document_id
from rag_index.indexing.diff import compare

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.doctor.scratch import Found, Scratch
    from rag_index.documents.batches import StoredPoint
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.sources import Source
    from rag_index.stores import Store

__all__ = ["Work", "content_hash", "pages", "point_findings", "see_source", "see_store", "typed_key"]

PAGE_POINTS = 1000


@dataclass(frozen=True, slots=True)
class Work:
    """What a run would find to do; nothing of it is wrong."""

    new: int
    changed: int
    gone: int

    def __str__(self) -> str:
        counts = ((self.new, "new"), (self.changed, "changed"), (self.gone, "gone"))
        return ", ".join(f"{count:,} {word}" for count, word in counts if count)


def see_store(scratch: Scratch, ledger: Ledger, store: Store, index: str, collection: Collection) -> None:
    """Note for each document what its points say, and which points nothing explains.

    Raises StoreError where the store cannot read its own points, and what a ledger raises.
    """
    plain = collection.chunking.endswith(f"canonical-{VERSION}")
    for page in pages(store.scroll(collection.name, page=PAGE_POINTS)):
        keys = {key for point in page if (key := typed_key(point, index)) is not None}
        known = ledger.known(collection.id, sorted(keys))
        seen: dict[str, SeenDocument] = {}
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
                    before = seen.get(key, SeenDocument())
                    seen[key] = SeenDocument(
                        before.points + 1,
                        before.miscounted + (ours.get("chunks") != row.chunks),
                        before.altered + _altered(point, key, row, plain=plain),
                    )
        scratch.see_points(seen)
        scratch.see_orphans(orphans)


def see_source(scratch: Scratch, ledger: Ledger, source: Source, collection_id: int, rows: int) -> Work:
    """Note what the source has, and documents with text that the ledger holds for empty. Raises as a source does."""
    source.check()
    new = changed = 0
    cursor: Any = None
    while True:
        page = source.page(cursor, rows)
        documents = page.documents
        known = ledger.known(collection_id, documents.keys)
        scratch.see_source([*documents.keys, *(failure.key for failure in page.unreadable)])
        scratch.see_amiss(
            key
            for key, text, text_hash in zip(documents.keys, documents.texts, documents.text_hashes, strict=True)
            if text and (row := known.get(key)) and not (row.chunks or row.pending) and row.text_hash == text_hash
        )
        plan = compare(documents, known, {})
        new += plan.new
        changed += len(plan.to_embed) - plan.new + len(plan.payload_only) + len(plan.emptied)
        cursor = page.cursor
        if cursor is None:
            return Work(new, changed, scratch.gone(collection_id))


def point_findings(index: str, scratch: Scratch, collection: Collection) -> Iterator[Finding]:
    """What both scans, or the store's alone, say of a collection's points."""
    cid, name = collection.id, collection.name
    run = f"`rag-index doctor --repair` embeds them again; so does `rag-index rebuild {index}`, with all others"
    for kind, found, said in (
        ("missing_documents", scratch.missing(cid), f"without a point in {name}, which the ledger holds for done"),
        ("wrong_chunks", scratch.miscounted(cid), f"with another number of chunks in {name} than the ledger says"),
        ("wrong_payloads", scratch.altered(cid), f"with a payload in {name} that is not the ledger's (by its hashes)"),
        ("unknown_documents", scratch.unknown(), f"of the source with points in {name}, unknown to the ledger"),
    ):
        if found.count:
            yield _of_documents(index, kind, found, said, run)
    if count := scratch.count_orphans():
        examples = tuple(_displayed(key) for key in scratch.orphans_named())
        yield Finding(
            index, "orphan_points", count, f"{counted(count, 'point', examples)} of {name} that nothing explains",
            "`rag-index doctor --repair` deletes them", examples,
        )  # fmt: skip
    if (resources := scratch.pending(cid)).count:
        said = "being written when a run ended early"
        remedy = f"`rag-index index {index}` writes them again, as does --repair"
        yield _of_documents(index, "pending_documents", resources, said, remedy)


def typed_key(point: StoredPoint, index: str) -> str | None:
    """The key of the document that a point is a chunk of; None where it is not a chunk as this index writes them."""
    ours = point.payload.get(RESERVED_KEY)
    if not isinstance(ours, dict):
        return None
    key, chunk = ours.get("key"), ours.get("chunk")
    if not isinstance(key, str) or not key or type(chunk) is not int or point.id != point_id(index, key, chunk):
        return None
    return key


def content_hash(point: StoredPoint) -> str:
    """The hash over a point's payload without our own part, and the chunk's, as a page of the source has it."""
    left_out = {RESERVED_KEY, *point.payload.get(RESERVED_KEY, {}).get("own", ())}
    payload = {name: value for name, value in point.payload.items() if name not in left_out}
    return hash_bytes(encode_payload(payload)).hex()


def pages(points: Iterable[StoredPoint], size: int = PAGE_POINTS) -> Iterator[list[StoredPoint]]:
    """Points in lists of at most `size`."""
    iterator = iter(points)
    while page := list(islice(iterator, size)):
        yield page


def _altered(point: StoredPoint, key: str, row: Known, *, plain: bool) -> bool:
    """Whether a payload says something else than the ledger; `plain`: it was written as canonical JSON is now."""
    ours = point.payload[RESERVED_KEY]
    payload_hash = row.payload_hash.hex()
    return (
        ours.get("payload_hash") != payload_hash
        or ours.get("text_hash") != row.text_hash.hex()
        or ours.get("document_id") != document_id(key)
        or not isinstance(ours.get("text"), str)
        or (plain and content_hash(point) != payload_hash)
    )


def _claimed_key(point: StoredPoint) -> str | None:
    ours = point.payload.get(RESERVED_KEY)
    key = ours.get("key") if isinstance(ours, dict) else None
    return key if isinstance(key, str) and key else None


def _of_documents(index: str, kind: str, found: Found, said: str, remedy: str) -> Finding:
    examples = tuple(_displayed(key) for key in found.keys)
    return Finding(index, kind, found.count, f"{counted(found.count, 'document', examples)} {said}", remedy, examples)


def _displayed(key: str) -> str:
    """A key as a person knows it; what is none is shown as it is."""
    try:
        return document_id(key)
    except (ValueError, LookupError, StopIteration):
        return key
