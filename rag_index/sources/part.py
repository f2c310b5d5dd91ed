"""A part of a source, held in memory: a sample that is read once and given again as often as it is wanted."""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import DocumentBatch
from rag_index.errors import SourceError
from rag_index.sources import SourcePage, open_source

if TYPE_CHECKING:
    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources import ScanState

__all__ = ["Part", "read_part"]

READ_FOR_EACH = 20
"""Documents read for each that is taken: more would make a small sample of a large table slow."""


@dataclass(frozen=True, slots=True)
class Part:
    """Documents of a source, as a `Source` of their own; `seconds` is what reading them took, as their share of all
    that was read."""

    documents: DocumentBatch
    seconds: float

    def check(self) -> None:
        """Nothing can be wrong any more."""

    def use_scan_state(self, state: ScanState) -> None:
        """All is read: it is in state."""

    def count(self) -> int:
        """How many documents it has."""
        return len(self.documents)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """The documents after position `cursor`."""
        first = cursor or 0
        last = min(first + rows, len(self.documents))
        documents = self.documents.take(list(range(first, last)))
        return SourcePage(documents, last if last < len(self.documents) else None)

    def close(self) -> None:
        """Nothing is held."""


def read_part(settings: Settings, index: IndexSettings, size: int) -> Part:
    """`size` documents with text: of the first `READ_FOR_EACH` times as many, those whose keys' hashes are smallest.

    So it is the same sample each time, and not of one end of the table.

    Raises:
        SourceUnavailable, SourceError: as the source; SourceError also where no document has text.
    """
    source = open_source(settings, index)
    found = DocumentBatch([], [], [], [], [])
    read, seconds, cursor = 0, 0.0, None
    try:
        while read == 0 or (cursor is not None and read < size * READ_FOR_EACH):
            started = time.perf_counter()
            page = source.page(cursor, min(settings.source.page_rows, size * READ_FOR_EACH))
            seconds += time.perf_counter() - started
            cursor = page.cursor
            read += max(1, len(page.documents))
            found = _smallest(found, page.documents, size)
    finally:
        source.close()
    if not found:
        raise SourceError(f"index {index.name} has no documents with text to try it with")
    return Part(found, seconds * len(found) / read)


def _smallest(found: DocumentBatch, more: DocumentBatch, size: int) -> DocumentBatch:
    """The `size` documents of both whose keys' hashes are smallest, in the order in which they were read."""
    both = found.plus(more)
    with_text = [row for row, text in enumerate(both.texts) if text.strip()]
    chosen = sorted(with_text, key=lambda row: blake2b(both.keys[row].encode(), digest_size=8).digest())[:size]
    return both.take(sorted(chosen))
