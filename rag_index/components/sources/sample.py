"""A sample of a source's documents, the same each time, which is a source itself."""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from rag_index.components.sources import SourcePage, open_source
from rag_index.core.documents.batches import DocumentBatch
from rag_index.errors import SourceError

if TYPE_CHECKING:
    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings, Settings

READ_FACTOR = 20
"""Documents that are read for each one of the sample. More would make a small sample of a large table slow."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Documents of a source, which are themselves a `Source`.

    `seconds` is the time that reading them took: their share of the time for all documents that were read.
    """

    documents: DocumentBatch
    seconds: float

    def check(self) -> None:
        """Do nothing: the documents are already read."""

    def use_scan_state(self, state: ScanState) -> None:
        """Do nothing: all documents are returned."""

    def count(self) -> int:
        return len(self.documents)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        first = cursor or 0
        last = min(first + rows, len(self.documents))
        documents = self.documents.take(list(range(first, last)))
        return SourcePage(documents, last if last < len(self.documents) else None)

    def close(self) -> None:
        """Do nothing: the sample holds no connection."""


def read_sample(settings: Settings, index: IndexSettings, size: int) -> Sample:
    """Return a sample of `size` documents with text.

    It holds the documents with the smallest hashes of their keys, out of the first `READ_FACTOR` times as many. So it
    is the same sample each time, and not only from the beginning of the table.

    Raises:
        SourceUnavailable: the source does not answer.
        SourceError: the source cannot be read, or has no document with text.
    """
    source = open_source(settings, index, first=size * READ_FACTOR)
    chosen = DocumentBatch.empty()
    read, seconds, cursor = 0, 0.0, None
    try:
        source.check()
        while read == 0 or (cursor is not None and read < size * READ_FACTOR):
            started = time.perf_counter()
            page = source.page(cursor, min(settings.source.page_rows, size * READ_FACTOR))
            seconds += time.perf_counter() - started
            cursor = page.cursor
            read += max(1, len(page.documents))
            chosen = _smallest_hashes(chosen.plus(page.documents), size)
    finally:
        source.close()
    if not chosen:
        raise SourceError(f"index {index.name} has no documents with text to take a sample of")
    return Sample(chosen, seconds * len(chosen) / read)


def _smallest_hashes(documents: DocumentBatch, size: int) -> DocumentBatch:
    """Return the `size` documents with text whose keys have the smallest hashes, in the order of reading."""
    with_text = [row for row, text in enumerate(documents.texts) if text.strip()]
    rows = sorted(with_text, key=lambda row: blake2b(documents.keys[row].encode(), digest_size=8).digest())[:size]
    return documents.take(sorted(rows))
