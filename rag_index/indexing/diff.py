"""The diff: a page of the source compared with what the ledger knows of its documents.

A `Comparison` collects what a run over all documents finds changed although a watch had to give it, or gives it yet.
Only changes of the source count. A document that is embedded again because the settings changed, or because it failed,
is no news; neither is one whose write was interrupted, which the interrupted run has noted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.documents.canonical import VERSION
from rag_index.documents.keys import document_id
from rag_index.sources import scan_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.documents.batches import DocumentBatch
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection, FailedDocument, Known, Ledger, WatchRecord

MAX_TRIES = 5
"""Runs that try a failed document again by themselves; after that only `retry-failed` or a changed text does."""


@dataclass(frozen=True, slots=True)
class PageDiff:
    """What to do with the documents of a page. Each document is counted once."""

    to_embed: DocumentBatch
    """New and changed documents."""
    new: int
    payload_only: DocumentBatch
    """Documents whose payload alone changed."""
    unchanged: int
    empty: int
    """Documents without text, whatever has to be done with them."""
    emptied: list[tuple[str, bytes, bytes]]
    """Those of the empty documents that have points: (key, text hash, payload hash)."""
    newly_empty: list[tuple[str, bytes, bytes, int]]
    """Ledger rows for those of the empty documents that have no points and that the ledger does not know as empty."""
    given_up: int
    """Documents that failed too often with this text."""
    recovered: list[str]
    """Unchanged and empty documents that are listed as failed, and are again as the ledger has them."""


def diff(
    page: DocumentBatch,
    known: Mapping[str, Known],
    failed: Mapping[str, FailedDocument],
    *,
    retry: bool = False,
) -> PageDiff:
    """Compare a page with the ledger. A pending document counts as changed, whatever its hashes.

    With `retry`, failed documents are tried however often they were tried, and incomplete ones are embedded again.
    """
    embed: list[int] = []
    payload: list[int] = []
    emptied: list[tuple[str, bytes, bytes]] = []
    newly_empty: list[tuple[str, bytes, bytes, int]] = []
    recovered: list[str] = []
    new = unchanged = empty = given_up = 0
    for i, (key, text_hash, payload_hash) in enumerate(
        zip(page.keys, page.text_hashes, page.payload_hashes, strict=True)
    ):
        row = known.get(key)
        same_text = row is not None and row.text_hash == text_hash and not row.pending
        if row is not None and same_text and retry and _is_incomplete(failed.get(key)):
            embed.append(i)
        elif row is not None and same_text and row.payload_hash == payload_hash:
            unchanged += row.chunks > 0
            empty += row.chunks == 0
            if key in failed and not _is_incomplete(failed[key]):
                recovered.append(key)
        elif not page.texts[i]:
            empty += 1
            if row is not None and (row.chunks or row.pending):
                emptied.append((key, text_hash, payload_hash))
            else:
                newly_empty.append((key, text_hash, payload_hash, 0))
        elif same_text:
            payload.append(i)
        elif not retry and not (row is not None and row.pending) and _is_given_up(failed.get(key), text_hash):
            given_up += 1
        else:
            embed.append(i)
            new += row is None or not row.text_hash
    return PageDiff(
        page.take(embed), new, page.take(payload), unchanged, empty, emptied, newly_empty, given_up, recovered
    )


def _is_given_up(failure: FailedDocument | None, text_hash: bytes) -> bool:
    return failure is not None and failure.tries >= MAX_TRIES and failure.text_hash == text_hash


def _is_incomplete(failure: FailedDocument | None) -> bool:
    return failure is not None and failure.kind == "incomplete"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of one scan with what the watch has given."""

    ledger: Ledger
    alias: str
    run_id: str
    collection_id: int
    settings: str
    """The hash of what decides about the content of a document; "" if nobody watched when the scan began."""
    inbox_number: int
    """The last arrival in the ledger's inbox when the scan began."""
    began: float
    """When the scan began, in seconds since 1970."""
    judged: bool
    """Whether everything that is found changed had to come by the watch."""

    def note_page(self, page: PageDiff, known: Mapping[str, Known], failed: Mapping[str, FailedDocument]) -> None:
        """Record the documents of a page whose content is not what the ledger has, before anything is written."""
        if not self.judged:
            return
        found: dict[str, str] = {}
        for key, text_hash, payload_hash in _not_as_known(page):
            row, failure = known.get(key), failed.get(key)
            if row is not None and (row.pending or (row.text_hash, row.payload_hash) == (text_hash, payload_hash)):
                continue
            if failure is not None and failure.text_hash == text_hash:
                continue
            found[key] = "new" if row is None else "changed"
        self._note(found)

    def note_deleted(self, keys: Sequence[str]) -> None:
        """Record documents that the source no longer has, before they are deleted."""
        if self.judged:
            known = self.ledger.known(self.collection_id, keys)
            self._note({key: "deleted" for key, row in known.items() if not row.pending})

    def complete(self, *, read_all: bool, all_deleted: bool) -> None:
        """End the comparison: the watch need not read again what had arrived when the scan began, if it read all.

        If the delete guard refused deletions, the next scan finds them once more, and the watch gives them no more.
        """
        number = self.inbox_number
        with self.ledger.transaction():
            if read_all:
                self.ledger.clear_changes(self.alias, number, compared=self.settings if all_deleted else "")
            if all_deleted:
                cid, began = self.collection_id, self.began
                self.ledger.complete_scan(self.alias, cid, number=number, began=began, read_all=read_all)
        self.ledger.forget_missed(self.alias, self.run_id)

    def _note(self, found: dict[str, str]) -> None:
        if not found:
            return
        held = self.ledger.held_of(self.collection_id, list(found))  # a batch has read them, and was refused
        changes = [(document_id(key), change) for key, change in found.items() if key not in held]
        if changes:
            self.ledger.note_mended(self.alias, self.run_id, self.inbox_number, changes)


def begin_comparison(run: IndexRun, collection: Collection, watch: WatchRecord | None, *, rebuild: bool) -> Comparison:
    """Return the comparison of a scan that begins. Call it before the first page: what arrives later may be seen."""
    ledger, alias = run.ledger, run.alias
    judged, settings = False, ""
    if watch is not None:
        settings = f"{collection.id} {VERSION} {scan_settings(run.settings, run.index)}"
        if run.options.single:
            ledger.note_settings(alias, settings)
        elif not (rebuild or run.options.allow_deletes):  # what was held back is nothing new
            judged = ledger.begin_comparison(alias, settings)
    inbox_number = 0 if watch is None else watch.last_number
    return Comparison(ledger, alias, run.run_id, collection.id, settings, inbox_number, ledger.clock(), judged)


def _not_as_known(page: PageDiff) -> Iterator[tuple[str, bytes, bytes]]:
    """Yield key, text hash and payload hash of all documents of a page with which something has to be done."""
    for batch in (page.to_embed, page.payload_only):
        yield from zip(batch.keys, batch.text_hashes, batch.payload_hashes, strict=True)
    yield from page.emptied
    yield from (row[:3] for row in page.newly_empty)
