"""Comparison of every point, and of every document of the source, with the ledger.

Two scans do it, each with one page in memory at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.doctor.findings import Finding, count_phrase
from rag_index.documents.keys import document_id
from rag_index.indexing.diff import diff
from rag_index.indexing.reconcile import compare_points

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.indexing.scratch import Matches, Scratch
    from rag_index.ledger import Collection, Ledger
    from rag_index.sources import Source
    from rag_index.stores import Store


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

    Raises as `compare_points`.
    """
    for tallies, orphans in compare_points(ledger, store, index, collection):
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
