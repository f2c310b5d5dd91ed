"""Which documents a run may leave unread, and what it leaves to the next run.

A source is given a `ScanState`. Everything is read when nothing is known yet, when the settings of the index changed,
for a rebuild, from another database, and every `full_compare_days`: that finds changes which cannot be seen without
reading.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from rag_index.indexing.diff import MAX_TRIES
from rag_index.sources.buckets import BucketLayout, add_rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.ledger import Ledger
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import IndexSettings
    from rag_index.sources import Source, SourcePage
    from rag_index.sources.buckets import BucketDigest

DAY = 86_400


class Counted(Protocol):
    """Numbers of documents: those of a run or of a plan."""

    documents: int
    unchanged: int
    empty: int
    failed: int
    skipped: int


class Unread(NamedTuple):
    """Numbers of documents that were not read, by what the ledger has of them."""

    documents: int = 0
    empty: int = 0
    failed: int = 0
    skipped: int = 0

    def add_to(self, counts: Counted) -> None:
        """Add them to the numbers of a run or of a plan."""
        counts.documents += self.documents
        counts.empty += self.empty
        counts.failed += self.failed
        counts.skipped += self.skipped
        counts.unchanged += self.documents - self.empty - self.failed - self.skipped


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
        single: bool = False,
        settings: str = "",
        digests: bool = False,
    ) -> None:
        self._ledger = ledger
        self._collection = collection_id
        self._retry = retry
        self._next_watermark: str | None = None
        self._gives_stamps = False
        self._settings = settings
        before = ledger.scan_state(collection_id)
        self._full_at = ledger.clock()
        self.watermark: str | None = None
        """The watermark that the last complete scan set; None if everything has to be read."""
        self.last_watermark: str | None = None
        """The last watermark, even if everything has to be read; None if the settings of the index changed."""
        if before is not None and before.settings == self._settings and not full:
            fresh = self._full_at - before.full_at < index.full_compare_days * DAY
            self.watermark, self._full_at = (before.watermark, before.full_at) if fresh else (None, self._full_at)
            self.last_watermark = before.watermark
        self._digests = digests
        self._read: dict[int, BucketDigest] = {}
        self._unread: set[int] = set()
        self._any_pages = False
        if not single:
            source.use_scan_state(self)

    @property
    def read_all(self) -> bool:
        """Whether the source reads every document, as far as this state decides it."""
        return self.watermark is None

    def digests(self) -> dict[int, str]:
        """Return the digests that complete scans left, by bucket, without those of buckets that must be read."""
        unfinished = self._ledger.unfinished_buckets(self._collection, max_tries=None if self._retry else MAX_TRIES)
        digests = self._ledger.digests(self._collection)
        return {bucket: digest for bucket, digest in digests.items() if bucket not in unfinished}

    def set_watermark(self, watermark: str) -> None:
        """Keep this watermark for the next scan, if this one reaches its end."""
        self._next_watermark = watermark

    def must_read(self, keys: Sequence[str]) -> bool:
        """Return whether one of these documents is not committed in its current state, or has to be tried again."""
        known = self._ledger.known(self._collection, keys)
        failed = self._ledger.failures(self._collection, keys)
        if any(self._retry or (failure.tries < MAX_TRIES and failure.kind == "failed") for failure in failed.values()):
            return True
        return any(row.pending for row in known.values()) or any(key not in known and key not in failed for key in keys)

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """Return the keys of those documents (stamps by key) that the ledger has with the same stamp."""
        committed = self._ledger.committed_stamps(self._collection, list(stamps))
        same = {key for key, stamp in committed.items() if stamps[key] == stamp}
        return same - self._ledger.failures(self._collection).keys() if self._retry else same

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the known documents whose typed key begins with `prefix`."""
        return self._ledger.keys_under(self._collection, prefix)

    def note(self, page: SourcePage, outcome: IndexOutcome) -> int:
        """Record a page that was read: count its unread documents as the ledger has them, and keep stamps and digests.

        Returns how many documents it has that were not read.
        """
        unread = self.leave_unread(page)
        unread.add_to(outcome)
        if self._digests and not self._any_pages and self._has_other_buckets():
            self._ledger.forget_digests(self._collection)  # a run that dies now leaves none of either kind
        self._any_pages = True
        add_rows(self._read, page.digests.values())
        documents, stamps = page.documents, page.stamps
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        self._ledger.note_files(self._collection, [(key, stamps[key], t, p) for key, t, p in rows if key in stamps])
        self._gives_stamps = self._gives_stamps or bool(stamps)
        return unread.documents

    def _has_other_buckets(self) -> bool:
        """Return whether the buckets of this scan may have other numbers than those of the last one."""
        before, now = BucketLayout.decode(self.watermark), BucketLayout.decode(self._next_watermark)
        return before is None or before != now

    def complete(self) -> None:
        """Record that the scan reached its end and everything is committed, so that the next run may rely on it."""
        if self._next_watermark is not None:
            with self._ledger.transaction():
                if self._digests:
                    digests = {bucket: digest.encode() for bucket, digest in self._read.items()}
                    self._ledger.record_digests(self._collection, digests, unread=self._unread)
                self._ledger.record_scan(
                    self._collection, self._next_watermark, settings=self._settings, full_at=self._full_at
                )
        if self._gives_stamps:
            self._ledger.forget_unseen_files(self._collection)

    def leave_unread(self, page: SourcePage) -> Unread:
        """Let the scan see the documents of a page that were not read, and count them as the ledger has them."""
        if page.unread_buckets:
            self._unread.update(page.unread_buckets)
            self._ledger.leave_unread(page.unread_buckets)
            return Unread(sum(page.unread_buckets.values()), *self._ledger.count_unread(self._collection))
        return self._count_unread(page.unread) if page.unread else Unread()

    def _count_unread(self, unread: Sequence[str]) -> Unread:
        known = self._ledger.known(self._collection, unread)
        failed = self._ledger.failures(self._collection, unread)  # tried often enough, and not changed since
        failed = {key: failure for key, failure in failed.items() if failure.kind != "incomplete"}
        skipped = sum(failure.kind == "skipped" for failure in failed.values())
        empty = sum(row.chunks == 0 for key, row in known.items() if key not in failed)
        return Unread(len(unread), empty, len(failed) - skipped, skipped)
