"""Which documents a run may leave unread, and what it leaves to the next run.

A source is given a `ScanState`. Everything is read when nothing is known yet, when the settings of the index changed,
for a rebuild, from another database, and every `full_compare_days`: that finds changes which cannot be seen without
reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.indexing.diff import MAX_TRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.ledger import Ledger
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import IndexSettings
    from rag_index.sources import Source, SourcePage

__all__ = ["LedgerScanState"]

DAY = 86_400


class LedgerScanState:
    """The `sources.ScanState` of one run, kept in the ledger. A source that reads everything does not use it."""

    def __init__(
        self,
        source: Source,
        index: IndexSettings,
        ledger: Ledger,
        collection_id: int,
        *,
        full: bool,
        retry: bool,
        settings: str = "",
    ) -> None:
        self._ledger = ledger
        self._collection = collection_id
        self._retry = retry
        self._next_watermark: str | None = None
        self._gives_stamps = False
        self._settings = settings
        before = ledger.scan_state(collection_id)
        self._full_at = ledger.clock()
        self._watermark: str | None = None
        if before is not None and before.settings == self._settings and not full:
            fresh = self._full_at - before.full_at < index.full_compare_days * DAY
            self._watermark, self._full_at = (before.watermark, before.full_at) if fresh else (None, self._full_at)
        source.use_scan_state(self)

    @property
    def watermark(self) -> str | None:
        """As `ScanState.watermark`."""
        return self._watermark

    def set_watermark(self, watermark: str) -> None:
        """As `ScanState.set_watermark`."""
        self._next_watermark = watermark

    def must_read(self, keys: Sequence[str]) -> bool:
        """As `ScanState.must_read`."""
        known = self._ledger.known(self._collection, keys)
        failed = self._ledger.failures(self._collection, keys)
        if any(self._retry or (failure.tries < MAX_TRIES and failure.kind == "failed") for failure in failed.values()):
            return True
        return any(row.pending for row in known.values()) or any(key not in known and key not in failed for key in keys)

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """As `ScanState.unchanged`."""
        committed = self._ledger.committed_stamps(self._collection, list(stamps))
        same = {key for key, stamp in committed.items() if stamps[key] == stamp}
        return same - self._ledger.failures(self._collection).keys() if self._retry else same

    def keys_under(self, prefix: str) -> list[str]:
        """As `ScanState.keys_under`."""
        return self._ledger.keys_under(self._collection, prefix)

    def note(self, page: SourcePage, outcome: IndexOutcome) -> None:
        """Record a page that was read: count its unread documents as the ledger has them, and keep its stamps."""
        if page.unread:
            self._count_unread(page.unread, outcome)
        documents, stamps = page.documents, page.stamps
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        self._ledger.note_files(self._collection, [(key, stamps[key], t, p) for key, t, p in rows if key in stamps])
        self._gives_stamps = self._gives_stamps or bool(stamps)

    def complete(self) -> None:
        """Record that the scan reached its end and everything is committed, so that the next run may rely on it."""
        if self._next_watermark is not None:
            self._ledger.record_scan(
                self._collection, self._next_watermark, settings=self._settings, full_at=self._full_at
            )
        if self._gives_stamps:
            self._ledger.forget_unseen_files(self._collection)

    def _count_unread(self, unread: Sequence[str], outcome: IndexOutcome) -> None:
        known = self._ledger.known(self._collection, unread)
        failed = self._ledger.failures(self._collection, unread)  # tried often enough, and not changed since
        failed = {key: failure for key, failure in failed.items() if failure.kind != "incomplete"}
        skipped = sum(failure.kind == "skipped" for failure in failed.values())
        empty = sum(row.chunks == 0 for key, row in known.items() if key not in failed)
        outcome.documents += len(unread)
        outcome.failed += len(failed) - skipped
        outcome.skipped += skipped
        outcome.empty += empty
        outcome.unchanged += len(unread) - len(failed) - empty
