"""What one scan of a source knows from earlier ones, as the ledger keeps it, and what it leaves to the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.sources import Source, SourcePage, has_digests, scan_settings
from rag_index.components.sources.digest import BucketDigests, BucketLayout
from rag_index.components.sources.sql import not_unique

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.components.ledger import FailedDocument, Ledger
    from rag_index.core.documents.batches import Failure
    from rag_index.core.reports.outcome import Counts
    from rag_index.core.settings import IndexSettings, Settings

FULL_SCAN_SECONDS = 7 * 86_400
"""How often everything is read although digests, `changed_since` or kind `code` would allow less."""


class ScanState:
    """The results of earlier scans, with which a source can leave unchanged documents unread.

    A source that knows times of change uses the watermark. One that sees another sign of each document, such as the
    size and time of a file, uses stamps. A source that reads everything uses neither.

    Everything is read when nothing is known yet, when the settings of the index changed, for a rebuild, from another
    database, and every `FULL_SCAN_SECONDS`: that finds changes which cannot be seen without reading.
    """

    def __init__(
        self,
        settings: Settings,
        index: IndexSettings,
        source: Source,
        ledger: Ledger,
        collection_id: int,
        *,
        full: bool,
        retry: bool = False,
        single: bool = False,
        watched: bool = False,
    ) -> None:
        self._index, self._ledger, self._cid, self._retry = index, ledger, collection_id, retry
        self._watched = watched
        self._settings, self._digests = scan_settings(settings, index), has_digests(settings, index)
        before = ledger.scan_state(collection_id)
        self._is_outdated = before is not None and before.settings != self._settings
        self._full_at = ledger.clock()
        self.watermark: str | None = None
        """The watermark that the last complete scan set; None if everything has to be read."""
        self.last_watermark: str | None = None
        """The last watermark, even if everything has to be read; None if the settings of the index changed."""
        if before is not None and not (self._is_outdated or full):
            self.last_watermark = before.watermark
            if 0 <= self._full_at - before.full_at < FULL_SCAN_SECONDS:
                self.watermark, self._full_at = before.watermark, before.full_at
        self._next_watermark: str | None = None
        self._gives_stamps = False
        self._read = BucketDigests()
        self._unread: set[int] = set()
        self.pages = 0
        if not single:
            source.use_scan_state(self)

    @property
    def read_all(self) -> bool:
        """Whether the source reads every document, as far as this state decides it."""
        return self.watermark is None

    def is_due(self, failed: FailedDocument) -> bool:
        """Return whether this run tries a failed document again although its text is the same."""
        return failed.is_due(self._ledger.clock(), watched=self._watched)

    def digests(self) -> dict[int, str]:
        """Return the digests that complete scans left, by bucket, without those of buckets that must be read."""
        unfinished = self._ledger.unfinished_buckets(self._cid, None if self._retry else self.is_due)
        return {bucket: found for bucket, found in self._ledger.digests(self._cid).items() if bucket not in unfinished}

    def set_watermark(self, watermark: str) -> None:
        """Keep this watermark for the next scan, if this one reaches its end."""
        self._next_watermark = watermark

    def must_read(self, keys: Sequence[str]) -> bool:
        """Return whether one of these documents is not committed in its current state, or has to be tried again."""
        known, failed = self._ledger.known(self._cid, keys), self._ledger.failures(self._cid, keys)
        if any(self._retry or (one.kind == "failed" and self.is_due(one)) for one in failed.values()):
            return True
        return any(row.pending for row in known.values()) or any(key not in known and key not in failed for key in keys)

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """Return the keys of those documents (stamps by key) that the ledger has with the same stamp."""
        committed = self._ledger.committed_stamps(self._cid, list(stamps))
        same = {key for key, stamp in committed.items() if stamps[key] == stamp}
        return same - self._ledger.failures(self._cid).keys() if self._retry else same

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the known documents whose typed key begins with `prefix`."""
        return self._ledger.keys_under(self._cid, prefix)

    def see(self, page: SourcePage, counts: Counts) -> tuple[int, list[Failure]]:
        """Let the scan see the documents of a page, and count them, but for those that are compared with the ledger.

        Return how many were not read, and those that a rule of the source keeps out although they are indexed: their
        points are recorded as to be deleted. Raises SourceError if a key occurs twice.
        """
        self.pages += 1
        keys = [*page.documents.keys, *(failure.key for failure in page.unreadable), *page.unread]
        buckets = [page.digests[key].bucket for key in keys] if page.digests else None
        if twice := self._ledger.see(keys, page=self.pages, buckets=buckets):
            raise not_unique(self._index, twice[0])
        unread = self._leave_unread(page, counts)
        counts.documents += len(page.documents) + len(page.unreadable)
        counts.count(page.unreadable)
        skipped = {failure.key: failure for failure in page.unreadable if failure.kind == "skipped"}
        known = self._ledger.known(self._cid, list(skipped)) if skipped else {}
        excluded = [skipped[key] for key, row in known.items() if row.chunks or row.pending]
        self._ledger.note_emptied([(failure.key, b"", b"") for failure in excluded])
        return unread, excluded

    def note(self, page: SourcePage) -> None:
        """Keep the stamps and the digests of a page, once it was seen."""
        if self._is_outdated and self.pages == 1:
            self._ledger.forget_scan(self._cid)  # what is written now would stay unread under the settings before
        if self._digests and self.pages == 1:
            before = BucketLayout.decode(self.watermark)
            if before is None or before != BucketLayout.decode(self._next_watermark):  # buckets may have other numbers
                self._ledger.forget_digests(self._cid)  # a run that dies now leaves none of either kind
        for bucket, first, second in page.digests.values():
            self._read.add(bucket, 1, first, second)
        documents, stamps = page.documents, page.stamps
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        self._ledger.note_files(self._cid, [(key, stamps[key], t, p) for key, t, p in rows if key in stamps])
        self._gives_stamps = self._gives_stamps or bool(stamps)

    def complete(self) -> None:
        """Record that the scan reached its end and everything is committed, so that the next run may rely on it."""
        if (watermark := self._next_watermark) is not None:
            with self._ledger.transaction():
                if self._digests:
                    self._ledger.record_digests(self._cid, self._read.encoded(), unread=self._unread)
                self._ledger.record_scan(self._cid, watermark, settings=self._settings, full_at=self._full_at)
        if self._gives_stamps:
            self._ledger.forget_unseen_files(self._cid)

    def _leave_unread(self, page: SourcePage, counts: Counts) -> int:
        """Let the scan see the documents of a page that were not read, and count them as the ledger has them.

        Return how many these are.
        """
        documents, empty, failed, skipped = len(page.unread), 0, 0, 0
        if page.unread_buckets:
            self._unread.update(page.unread_buckets)
            self._ledger.leave_unread(page.unread_buckets)
            documents = sum(page.unread_buckets.values())
            empty, failed, skipped = self._ledger.count_unread(self._cid)
        elif page.unread:
            known = self._ledger.known(self._cid, page.unread)
            listed = self._ledger.failures(self._cid, page.unread)  # tried often enough, and not changed since
            kinds = {key: failure.kind for key, failure in listed.items() if failure.kind != "incomplete"}
            skipped = sum(kind == "skipped" for kind in kinds.values())
            failed, empty = len(kinds) - skipped, sum(not row.chunks for key, row in known.items() if key not in kinds)
        counts.documents += documents
        counts.empty += empty
        counts.failed += failed
        counts.skipped += skipped
        counts.unchanged += documents - empty - failed - skipped
        return documents
