"""Which documents a run may leave unread, and what the next run may rely on: the `Memory` that a source is given.

All is read when nothing is known yet, when the index's settings have changed, for a rebuild, and every
`full_compare_days`: changes that cannot be seen without reading are found then.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from rag_index.indexing.diff import MAX_TRIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.ledger import Ledger
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.settings import IndexSettings
    from rag_index.sources import Source, SourcePage

__all__ = ["Changes"]

DAY = 86_400


class Changes:
    """Of one run; see `sources.Memory`. For a source that reads everything it does nothing."""

    def __init__(
        self, source: Source, index: IndexSettings, ledger: Ledger, collection_id: int, *, full: bool, retry: bool
    ) -> None:
        self._ledger = ledger
        self._collection = collection_id
        self._retry = retry
        self._mark: str | None = None
        self._marked = False
        """Whether the source gives marks of its documents."""
        self._settings = blake2b(index.model_dump_json().encode(), digest_size=16).hexdigest()
        before = ledger.scan_mark(collection_id)
        self._full_at = ledger.clock()
        self._last: str | None = None
        if before is not None and before.settings == self._settings and not full:
            fresh = self._full_at - before.full_at < index.full_compare_days * DAY
            self._last, self._full_at = (before.mark, before.full_at) if fresh else (None, self._full_at)
        source.follow(self)

    @property
    def last(self) -> str | None:
        """As `Memory.last`."""
        return self._last

    def leave(self, mark: str) -> None:
        """As `Memory.leave`."""
        self._mark = mark

    def have_to_be_read(self, keys: Sequence[str]) -> bool:
        """As `Memory.have_to_be_read`."""
        known = self._ledger.known(self._collection, keys)
        failed = self._ledger.failures(self._collection, keys)
        if any(self._retry or (failure.tries < MAX_TRIES and failure.kind == "failed") for failure in failed.values()):
            return True
        return any(row.open for row in known.values()) or any(key not in known and key not in failed for key in keys)

    def unchanged(self, marks: Mapping[str, str]) -> set[str]:
        """As `Memory.unchanged`."""
        settled = self._ledger.settled_marks(self._collection, list(marks))
        same = {key for key, mark in settled.items() if marks[key] == mark}
        return same - self._ledger.failures(self._collection).keys() if self._retry else same

    def below(self, beginning: str) -> list[str]:
        """As `Memory.below`."""
        return self._ledger.keys_below(self._collection, beginning)

    def note(self, page: SourcePage, outcome: IndexOutcome) -> None:
        """A page was read: documents left unread go into the figures, as the ledger has them; marks are kept."""
        if page.unread:
            self._count_unread(page.unread, outcome)
        documents, marks = page.documents, page.marks
        rows = zip(documents.keys, documents.text_hashes, documents.payload_hashes, strict=True)
        self._ledger.note_files(self._collection, [(key, marks[key], t, p) for key, t, p in rows if key in marks])
        self._marked = self._marked or bool(marks)

    def complete(self) -> None:
        """The scan came to its end and all of it is settled: the next run may rely on it."""
        if self._mark is not None:
            self._ledger.note_scan(self._collection, self._mark, settings=self._settings, full_at=self._full_at)
        if self._marked:
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
