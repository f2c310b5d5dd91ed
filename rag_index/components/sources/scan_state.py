"""The state of a scan: what the ledger has from earlier scans of a source, and what this scan leaves
to the next one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rag_index.components.ledger.tables import ScanRecord
from rag_index.components.sources.buckets import BucketDigests, BucketLayout
from rag_index.components.sources.source_tables import not_unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.components.ledger import FailedDocument, Ledger
    from rag_index.components.sources.buckets import PageBuckets
    from rag_index.components.sources.pages import SourcePage
    from rag_index.core.documents.batches import Failure
    from rag_index.core.reports.outcome import DocumentCounts
    from rag_index.core.settings import IndexSettings

FULL_SCAN_SECONDS = 7 * 86_400
"""How often everything is read although digests or stamps would allow less: once a week. Chosen;
nothing depends on it."""


class ScanState:
    """The results of earlier scans, with which a source can leave unchanged documents unread.

    A source whose database computes digests uses those of buckets of rows. A source that has
    another sign of each document's change, such as the size and time of a file, uses stamps. A
    source that reads everything uses neither.

    Everything is read in the first scan, when the settings of the index changed, for a rebuild,
    from another database, and every `FULL_SCAN_SECONDS`: that finds changes which cannot be seen
    without reading.

    Before a scan writes anything, it records in the ledger which buckets it reads. A bucket is
    committed when all its rows were read, its documents are written, and the documents that it lost
    are deleted. So the next run continues one that was killed.
    """

    def __init__(
        self,
        index: IndexSettings,
        ledger: Ledger,
        collection_id: int,
        *,
        settings: str,
        full: bool,
        retry: bool = False,
        watched: bool = False,
    ) -> None:
        """Load what the last scan of a collection left.

        Args:
            settings: The hash of the settings that the collection is written by (`scan_settings`).
            full: Whether everything is read.
            retry: Whether documents that failed are tried again now.
            watched: Whether the run is one of a watch.
        """
        self._index = index
        self._ledger = ledger
        self._cid = collection_id
        self._retry = retry
        self._watched = watched
        self._settings = settings
        self._full_at = ledger.clock()
        self._before = before = ledger.scan_state(collection_id)
        self._is_outdated = before is not None and before.settings != self._settings
        self.watermark: str | None = None
        """What the last complete scan set; None if everything has to be read."""
        self.layout: BucketLayout | None = None
        """The buckets of the last scan, even if everything has to be read; None if the settings
        changed."""
        if before is not None and not (self._is_outdated or full):
            self.layout = BucketLayout.decode(before.watermark)
            if 0 <= self._full_at - before.full_at < FULL_SCAN_SECONDS:
                self.watermark = before.watermark
                self._full_at = before.full_at
        self._next_watermark: str | None = None
        self._is_divided = False
        """Whether the source has buckets, or tried to (`begin`)."""
        self._gives_stamps = False
        self._to_read: set[int] | None = None
        """The buckets that are read; None for all."""
        self._read = BucketDigests()
        """The digests of buckets that were begun, and are not committed."""
        self._complete: set[int] = set()
        """Those of them whose rows were all read, as far as the source can tell."""
        self._committed: set[int] = set()
        self._under_way: dict[str, int] = {}
        """The buckets of documents that have to be written or deleted, by key."""
        self._waiting: Counter[int] = Counter()
        """How many documents are under way in each bucket."""
        self._any_unplaced = False
        self.left = 0
        """How many buckets that differ this scan leaves unread."""
        self.pages = 0

    def is_due(self, document: FailedDocument) -> bool:
        """Return whether this run tries a failed document again although its text is the same."""
        return document.is_due(self._ledger.clock(), watched=self._watched)

    # For a source

    def begin(
        self, layout: BucketLayout | None, to_read: set[int] | None, *, left: int = 0
    ) -> None:
        """Begin a scan of buckets.

        Args:
            layout: How the rows are divided; None if they are not.
            to_read: The buckets to read; None for all.
            left: How many other buckets differ, and are left to a later scan.
        """
        self._next_watermark = layout.encode() if layout is not None else None
        self._to_read = to_read
        self.left = left
        self._is_divided = True

    def digests(self, is_current: Callable[[str], bool] | None = None) -> dict[int, str]:
        """Return the digests of the buckets of the last scan; "" for buckets that must be read.

        Args:
            is_current: Returns, for the stamp of a document, whether the files that it names are
                unchanged.
        """
        is_due = None if self._retry else self.is_due
        unfinished = self._ledger.unfinished_buckets(self._cid, is_due)
        found = self._ledger.digests(self._cid) | dict.fromkeys(unfinished, "")
        if is_current is None:
            return found
        for bucket, stamp in self._ledger.stamps(self._cid):
            if bucket is not None and not is_current(stamp):
                found[bucket] = ""
        return found

    def set_watermark(self, watermark: str) -> None:
        """Keep this watermark for the next scan, if this one reaches its end."""
        self._next_watermark = watermark

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """Return the keys of the documents that the ledger has with the same stamp.

        Args:
            stamps: The stamps of documents, by key.
        """
        committed = self._ledger.committed_stamps(self._cid, list(stamps))
        same = {key for key, stamp in committed.items() if stamps[key] == stamp}
        # `--retry-failed` reads failed documents again.
        if self._retry:
            same -= self._ledger.failures(self._cid).keys()
        return same

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the known documents whose typed key begins with `prefix`."""
        return self._ledger.keys_under(self._cid, prefix)

    # For a run

    def see(self, page: SourcePage, counts: DocumentCounts) -> tuple[int, list[Failure]]:
        """Record that the scan saw the documents of a page, and count those that the diff does not
        count.

        Return how many were not read, and the documents that a rule of the source excludes although
        they are indexed: their points are recorded as to be deleted.

        Raises:
            SourceError: A key occurs twice.
        """
        self.pages += 1
        if self.pages == 1 and self._to_read is not None:
            self._ledger.read_only(self._to_read)
        keys = [*page.documents.keys, *(failure.key for failure in page.unreadable), *page.unread]
        buckets: list[int] | None = None
        if page.buckets is not None:
            buckets = [page.buckets.of[key] for key in keys]
        if twice := self._ledger.see(keys, page=self.pages, buckets=buckets):
            raise not_unique(self._index, twice[0])
        unread = self._leave_unread(page, counts)
        counts.documents += len(page.documents) + len(page.unreadable)
        counts.count(page.unreadable)
        skipped = {failure.key: failure for failure in page.unreadable if failure.kind == "skipped"}
        known = self._ledger.known(self._cid, list(skipped)) if skipped else {}
        excluded = [skipped[key] for key, row in known.items() if row.chunks or row.pending]
        self._ledger.record_emptied([(failure.key, b"", b"") for failure in excluded])
        self.expect(page, [failure.key for failure in excluded])
        return unread, excluded

    def note(self, page: SourcePage) -> None:
        """Record which buckets are read, and the stamps of a page: after `see`, and before the page
        is written."""
        if self.pages == 1:
            self._begin_in_ledger()
        if page.buckets is not None and page.buckets.sums:
            self._note_buckets(page.buckets)
        documents = page.documents
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        stamped: list[tuple[str, str, bytes, bytes]] = []
        for key, text_hash, payload_hash in rows:
            if key in page.stamps:
                stamped.append((key, page.stamps[key], text_hash, payload_hash))
        self._ledger.record_files(self._cid, stamped)
        self._gives_stamps = self._gives_stamps or bool(page.stamps)

    def _note_buckets(self, buckets: PageBuckets) -> None:
        # No further row of these was expected, but one came.
        again = self._committed & buckets.sums.keys()
        if self._to_read is None or again:
            self._ledger.open_buckets(self._cid, buckets.sums)
        for bucket, (rows, first, second) in buckets.sums.items():
            self._read.add(bucket, rows, first, second)
        # They wait for a document that never comes, so the next scan reads them.
        self._waiting.update(again)
        self._complete.update(buckets.complete)

    def expect(self, page: SourcePage, keys: Iterable[str]) -> None:
        """Keep the buckets of these documents from being committed until the documents are written
        or deleted."""
        if page.buckets is not None:
            found = {key: page.buckets.of[key] for key in keys}
            self._under_way |= found
            self._waiting.update(found.values())

    def place(self, page: SourcePage, new: Sequence[str]) -> None:
        """Record the buckets of a page's documents in the ledger: of `new` documents, or of all if
        the ledger has documents without a bucket."""
        if page.buckets is None:
            return
        keys = list(page.buckets.of) if self._any_unplaced else new
        if keys:
            self._ledger.place(self._cid, keys)

    def commit(self, keys: Iterable[str] = ()) -> None:
        """Commit the complete buckets, now that these documents are written or have failed."""
        for key in keys:
            bucket = self._under_way.pop(key, None)
            if bucket is not None:
                self._waiting[bucket] -= 1
        self._commit([bucket for bucket in self._complete if not self._waiting[bucket]])

    def complete(self) -> None:
        """Record that the scan reached its end and everything is committed, so that the next run
        may rely on it."""
        # The documents that are still under way became empty, and are deleted by now.
        for bucket in self._under_way.values():
            self._waiting[bucket] -= 1
        self._commit([bucket for bucket in self._read if not self._waiting[bucket]])
        if self._is_divided:
            self._ledger.forget_empty_buckets(self._cid)
        elif self._next_watermark is not None:
            record = ScanRecord(self._next_watermark, self._settings, self._full_at)
            self._ledger.record_scan(self._cid, record)
        if self._gives_stamps:
            self._ledger.forget_unknown_files(self._cid)

    def _begin_in_ledger(self) -> None:
        """Record which buckets are read, before anything is written."""
        before = self._before
        if not self._is_divided:
            # Documents that this run writes would stay unread if the former settings came back.
            if self._is_outdated:
                self._ledger.forget_scan(self._cid)
            return
        record: ScanRecord | None = None
        if self._next_watermark is not None:
            record = ScanRecord(self._next_watermark, self._settings, self._full_at)
        is_same_layout = (
            before is not None and record is not None and before.watermark == record.watermark
        )
        # An unchanged source records nothing.
        if record != before or self._to_read != set():
            self._ledger.begin_buckets(self._cid, record, self._to_read, anew=not is_same_layout)
        self._any_unplaced = record is not None and self._ledger.any_unplaced(self._cid)

    def _commit(self, buckets: Sequence[int]) -> None:
        """Commit buckets, except those with documents that the scan has not seen. `complete`
        commits these."""
        if not buckets:
            return
        left = self._ledger.commit_buckets(self._cid, self._read.encoded(buckets))
        self._complete.difference_update(buckets)
        for bucket in left.symmetric_difference(buckets):
            self._read.pop(bucket)
            self._committed.add(bucket)

    def _leave_unread(self, page: SourcePage, counts: DocumentCounts) -> int:
        """Count the documents of a page that were not read, by their state in the ledger. Return
        how many these are."""
        documents = len(page.unread)
        empty = failed = skipped = 0
        if page.buckets is not None and page.buckets.unread:
            # Rows of buckets that did not change: the ledger counts all of them.
            documents = page.buckets.unread
            unread = self._ledger.count_unread(self._cid)
            empty, failed, skipped = unread.empty, unread.failed, unread.skipped
        elif page.unread:
            known = self._ledger.known(self._cid, page.unread)
            # Failed documents are unread if they were tried often enough, and have not changed.
            failures = self._ledger.failures(self._cid, page.unread)
            kinds: dict[str, str] = {}
            for key, failure in failures.items():
                # An incomplete document is indexed.
                if failure.kind != "incomplete":
                    kinds[key] = failure.kind
            skipped = list(kinds.values()).count("skipped")
            failed = len(kinds) - skipped
            for key, row in known.items():
                if key not in kinds and not row.chunks:
                    empty += 1
        counts.documents += documents
        counts.empty += empty
        counts.failed += failed
        counts.skipped += skipped
        counts.unchanged += documents - empty - failed - skipped
        return documents
