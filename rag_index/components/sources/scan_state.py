"""What one scan of a source knows from earlier ones, as the ledger keeps it, and what it leaves to
the next one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rag_index.components.ledger.tables import ScanRecord
from rag_index.components.sources.buckets import BucketDigests, BucketLayout
from rag_index.components.sources.source_tables import not_unique

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.components.ledger import FailedDocument, Ledger
    from rag_index.components.sources.pages import SourcePage
    from rag_index.core.documents.batches import Failure
    from rag_index.core.reports.outcome import DocumentCounts
    from rag_index.core.settings import IndexSettings

FULL_SCAN_SECONDS = 7 * 86_400
"""How often everything is read although digests or stamps would allow less."""


class ScanState:
    """The results of earlier scans, with which a source can leave unchanged documents unread.

    A source whose database computes digests uses those of buckets of rows. One that sees another
    sign of each document, such as the size and time of a file, uses stamps. A source that reads
    everything uses neither.

    Everything is read when nothing is known yet, when the settings of the index changed, for a
    rebuild, from another database, and every `FULL_SCAN_SECONDS`: that finds changes which cannot
    be seen without reading.

    Before a scan writes anything, the ledger knows which buckets it reads. A bucket is committed
    when all its rows were read, its documents are written, and those that it lost are deleted. So a
    run that dies is continued by the next.
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
        """`settings` is the hash by which the collection is written (`scan_settings`)."""
        self._index, self._ledger, self._cid, self._retry = index, ledger, collection_id, retry
        self._watched = watched
        self._settings, self._full_at = settings, ledger.clock()
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
                self.watermark, self._full_at = before.watermark, before.full_at
        self._next_watermark: str | None = None
        self._is_divided = self._gives_stamps = False
        self._to_read: set[int] | None = None
        self._read = BucketDigests()
        """The digests of buckets that were begun, and are not committed."""
        self._complete: set[int] = set()
        """Those of them whose rows were all read, as far as is known."""
        self._committed: set[int] = set()
        self._under_way: dict[str, int] = {}
        """The buckets of documents that have to be written or deleted, by key."""
        self._waiting: Counter[int] = Counter()
        """How many documents are under way in each bucket."""
        self._any_unplaced = False
        self.left = 0
        """How many buckets that differ this scan leaves unread."""
        self.pages = 0

    def is_due(self, failed: FailedDocument) -> bool:
        """Return whether this run tries a failed document again although its text is the same."""
        return failed.is_due(self._ledger.clock(), watched=self._watched)

    # What a source asks and tells

    def begin(
        self, layout: BucketLayout | None, to_read: set[int] | None, *, left: int = 0
    ) -> None:
        """Divide the rows as the layout says, None for not at all, and read these buckets, None for
        all. So many others that differ, too, are `left` to a later scan."""
        self._next_watermark, self._to_read = (
            layout.encode() if layout is not None else None,
            to_read,
        )
        self.left = left
        self._is_divided = True

    def digests(self, is_current: Callable[[str], bool] | None = None) -> dict[int, str]:
        """Return the digests of the buckets of the last scan; "" for those that must be read.
        `is_current` tells from the stamp of a document whether the files that it names are as they
        were."""
        unfinished = self._ledger.unfinished_buckets(
            self._cid, None if self._retry else self.is_due
        )
        found = self._ledger.digests(self._cid) | dict.fromkeys(unfinished, "")
        if is_current is not None:
            stamps = self._ledger.stamps(self._cid)
            found |= {
                bucket: ""
                for bucket, stamp in stamps
                if bucket is not None and not is_current(stamp)
            }
        return found

    def set_watermark(self, watermark: str) -> None:
        """Keep this watermark for the next scan, if this one reaches its end."""
        self._next_watermark = watermark

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """Return the keys of those documents (stamps by key) that the ledger has with the same
        stamp."""
        committed = self._ledger.committed_stamps(self._cid, list(stamps))
        same = {key for key, stamp in committed.items() if stamps[key] == stamp}
        return same - self._ledger.failures(self._cid).keys() if self._retry else same

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the known documents whose typed key begins with `prefix`."""
        return self._ledger.keys_under(self._cid, prefix)

    # What a run tells

    def see(self, page: SourcePage, counts: DocumentCounts) -> tuple[int, list[Failure]]:
        """Let the scan see the documents of a page, and count them, but for those that are compared
        with the ledger.

        Return how many were not read, and those that a rule of the source keeps out although they
        are indexed: their points are recorded as to be deleted. Raises SourceError if a key occurs
        twice.
        """
        self.pages += 1
        if self.pages == 1 and self._to_read is not None:
            self._ledger.read_only(self._to_read)
        keys = [*page.documents.keys, *(failure.key for failure in page.unreadable), *page.unread]
        buckets = [page.buckets.of[key] for key in keys] if page.buckets is not None else None
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
        """Record which buckets are read, and keep the stamps of a page, once it was seen and before
        it is written."""
        if self.pages == 1:
            self._begin_in_ledger()
        if (buckets := page.buckets) is not None and buckets.sums:
            again = self._committed & buckets.sums.keys()  # of which no further row was expected
            if self._to_read is None or again:
                self._ledger.open_buckets(self._cid, buckets.sums)
            for bucket, sums in buckets.sums.items():
                self._read.add(bucket, *sums)
            self._waiting.update(again)  # one document that never comes: the next scan reads it
            self._complete.update(buckets.complete)
        documents, stamps = page.documents, page.stamps
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        self._ledger.record_files(
            self._cid, [(key, stamps[key], t, p) for key, t, p in rows if key in stamps]
        )
        self._gives_stamps = self._gives_stamps or bool(stamps)

    def expect(self, page: SourcePage, keys: Iterable[str]) -> None:
        """Keep the buckets of these documents of a page from being committed until they are
        written, or deleted."""
        if page.buckets is not None:
            found = {key: page.buckets.of[key] for key in keys}
            self._under_way |= found
            self._waiting.update(found.values())

    def place(self, page: SourcePage, new: Sequence[str]) -> None:
        """Give documents of a page their buckets in the ledger: `new` ones, and others that have
        none yet."""
        if page.buckets is not None and (
            keys := list(page.buckets.of) if self._any_unplaced else new
        ):
            self._ledger.place(self._cid, keys)

    def commit(self, keys: Iterable[str] = ()) -> None:
        """Commit the buckets that are complete, now that these documents are written or have
        failed."""
        for key in keys:
            if (bucket := self._under_way.pop(key, None)) is not None:
                self._waiting[bucket] -= 1
        self._commit([bucket for bucket in self._complete if not self._waiting[bucket]])

    def complete(self) -> None:
        """Record that the scan reached its end and everything is committed, so that the next run
        may rely on it."""
        for bucket in self._under_way.values():  # what was emptied is deleted
            self._waiting[bucket] -= 1
        self._commit([bucket for bucket in self._read if not self._waiting[bucket]])
        if self._is_divided:
            self._ledger.forget_empty_buckets(self._cid)
        elif (watermark := self._next_watermark) is not None:
            self._ledger.record_scan(
                self._cid, ScanRecord(watermark, self._settings, self._full_at)
            )
        if self._gives_stamps:
            self._ledger.forget_unknown_files(self._cid)

    def _begin_in_ledger(self) -> None:
        if not self._is_divided:
            if self._is_outdated:  # what is written now would stay unread under the settings before
                self._ledger.forget_scan(self._cid)
            return
        watermark, before = self._next_watermark, self._before
        record = (
            ScanRecord(watermark, self._settings, self._full_at) if watermark is not None else None
        )
        anew = before is not None and (record is None or before.watermark != record.watermark)
        if record != before or self._to_read != set():
            self._ledger.begin_buckets(
                self._cid, record, self._to_read, anew=anew or before is None
            )
        self._any_unplaced = record is not None and self._ledger.any_unplaced(self._cid)

    def _commit(self, buckets: Sequence[int]) -> None:
        """Commit buckets, but those of which documents are left that the scan did not see. These
        come last."""
        if buckets:
            left = self._ledger.commit_buckets(self._cid, self._read.encoded(buckets))
            self._complete.difference_update(buckets)
            for bucket in left.symmetric_difference(buckets):
                self._read.pop(bucket)
                self._committed.add(bucket)

    def _leave_unread(self, page: SourcePage, counts: DocumentCounts) -> int:
        """Let the scan see the documents of a page that were not read, and count them as the ledger
        has them.

        Return how many these are.
        """
        documents, empty, failed, skipped = len(page.unread), 0, 0, 0
        if page.buckets is not None and page.buckets.unread:
            documents = page.buckets.unread
            unread = self._ledger.count_unread(self._cid)
            empty, failed, skipped = unread.empty, unread.failed, unread.skipped
        elif page.unread:
            known = self._ledger.known(self._cid, page.unread)
            listed = self._ledger.failures(
                self._cid, page.unread
            )  # tried often enough, and not changed since
            kinds = {
                key: failure.kind for key, failure in listed.items() if failure.kind != "incomplete"
            }
            skipped = sum(kind == "skipped" for kind in kinds.values())
            failed, empty = (
                len(kinds) - skipped,
                sum(not row.chunks for key, row in known.items() if key not in kinds),
            )
        counts.documents += documents
        counts.empty += empty
        counts.failed += failed
        counts.skipped += skipped
        counts.unchanged += documents - empty - failed - skipped
        return documents
