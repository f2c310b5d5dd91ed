"""Sources: documents are read page by page from a database, a folder of code, or a plug-in's source.

`open_source` opens the source of an index: `sql` for any database, `digest` for one that leaves
unchanged rows unread, `code` for a folder. Rows become documents in `pages`, with parts and groups
by `part_reader`. `read_sample` returns a sample of documents, the same each time.

This package may import `core`, chunking and the ledger, and nothing of `etl` or `search` (layers in
pyproject.toml). It never writes to a source. What must hold, and the test that fails otherwise:

- A row and its digest are read in one statement, and a digest covers all columns that the index
  reads (`digest`): test_every_edit_is_found in tests/components/sources/test_digest.py.
- `ScanState` records the buckets that are read before their documents are written, and commits a
  bucket after all of them: tests/reliability/test_every_step.py.
- The database orders and compares keys, never Python: tests/components/sources/test_keys.py.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.components.sources.pages import SourcePage
from rag_index.core.database import redacted_url
from rag_index.core.documents.batches import DocumentBatch
from rag_index.core.documents.canonical import encode_payload, hash_bytes, hash_text
from rag_index.core.documents.keys import encode_key
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.reports.progress import counted
from rag_index.core.settings.index import CODE, SQL
from rag_index.core.settings.plugins import SOURCES, load_plugin
from rag_index.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings, Settings

__all__ = [
    "Sample",
    "Source",
    "SourcePage",
    "all_pages",
    "open_source",
    "page_of",
    "read_sample",
    "scan_settings",
]


PAGE_ROWS = 5000
"""The most rows of a page of `all_pages`. Chosen; nothing depends on it."""
READ_FACTOR = 20
"""Documents that are read for each document of a sample. Chosen; more would make a small sample of a
large table slow."""


class Source(Protocol):
    """Documents in pages. Reading a page twice gives the same documents, so that a retry is
    harmless.

    A source that can return single documents (`index --id`) also has `documents(ids)`. It returns
    the existing documents with these ids (the form that people see) as a page without a cursor. It
    raises as `page`, and SettingsError if a text cannot be an id.
    """

    def check(self) -> None:
        """Check that everything that the settings name exists and fits.

        Raises SettingsError, SourceError, or SourceUnavailable. After the latter the call is retried
        for as long as `--wait` says. All methods may raise these.
        """

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan. A run calls this once, before the first page.

        A source that always reads everything does nothing. Raises as `page`.
        """

    def count(self) -> int:
        """Return how many documents the source has now, without reading them."""

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return at most `rows` documents after `cursor`, or from the start if it is None.

        Raises SourceUnavailable or SourceError.
        """

    def close(self) -> None:
        """Close connections and files."""


def all_pages(source: Source) -> Iterator[SourcePage]:
    """Yield all pages of a source. Raises as `Source.page`."""

    def read() -> Iterator[SourcePage]:
        page = source.page(None, PAGE_ROWS)
        yield page
        while page.cursor is not None:
            page = source.page(page.cursor, PAGE_ROWS)
            yield page

    def size(page: SourcePage) -> int:
        documents = len(page.documents) + len(page.unreadable) + len(page.unread)
        if page.buckets is not None:
            documents += page.buckets.unread
        return documents

    return counted(read(), "documents read", source.count, size)


def page_of(documents: Iterable[tuple[Any, str, Mapping[str, Any]]]) -> DocumentBatch:
    """Return a batch of these documents (key, text, payload). A key is text, a number, or a tuple
    of these.

    Raises SourceError if it is anything else.
    """
    batch = DocumentBatch.empty()
    for key, text, payload in documents:
        # Tokenizers that are written in C end a text at NUL.
        without_nul = text.replace("\0", " ")
        values = key if isinstance(key, tuple) else (key,)
        batch.keys.append(encode_key(values))
        batch.texts.append("" if without_nul.isspace() else without_nul)
        batch.payloads.append(encode_payload(dict(payload)))
    batch.text_hashes.extend(map(hash_text, batch.texts))
    batch.payload_hashes.extend(map(hash_bytes, batch.payloads))
    return batch


def scan_settings(settings: Settings, index: IndexSettings) -> str:
    """Hash the settings that determine which documents an index has and how they are written,
    including its database."""
    database = redacted_url(settings.source_url) if index.kind == SQL else ""
    written = index.model_dump_json(exclude={"gate", "labels", "recency"})
    return hash_text(written + database).hex()


def has_digests(settings: Settings, index: IndexSettings) -> bool:
    """Return whether the database of an index computes digests of its rows."""
    from rag_index.components.sources.digest import BACKENDS

    return index.kind == SQL and settings.source_url.get_backend_name() in BACKENDS


def open_source(settings: Settings, index: IndexSettings, *, first: int | None = None) -> Source:
    """Return the source of an index.

    Args:
        first: About how many documents the caller reads at most; None for all.

    Raises:
        SettingsError: There is no source of its kind.
    """
    # A table or a query
    if index.kind == SQL:
        from rag_index.components.sources.digest import DigestSource
        from rag_index.components.sources.sql import SqlSource

        if index.files is not None:
            files = settings.folder / index.files.expanduser()
            index = index.model_copy(update={"files": files})
        source = DigestSource if has_digests(settings, index) else SqlSource
        timeout = settings.source.timeout
        return source(
            settings.source_url, index, timeout=timeout, folder=settings.data, first=first
        )
    # Source code
    if index.kind == CODE:
        from rag_index.components.sources.code import CodeSource

        return CodeSource(settings.root(index), index)
    # The source of a plug-in, such as kind = "mail"
    make = load_plugin(SOURCES, index.kind, f"kind of index {index.name}", (SQL, CODE))
    found: Source = make(settings, index)
    return found


@shows_sizes("documents", "seconds")
@dataclass(frozen=True, slots=True)
class Sample:
    """Documents of a source, which are themselves a `Source`."""

    documents: DocumentBatch
    seconds: float
    """How long reading them took: their share of the time for all documents that were read."""

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

    It has the documents with the smallest hashes of their keys, out of the first `READ_FACTOR`
    times as many. So it is the same sample each time, and not only the beginning of the table.

    Raises:
        SourceUnavailable: The source does not answer.
        SourceError: The source cannot be read, or has no document with text.
    """
    source = open_source(settings, index, first=size * READ_FACTOR)
    chosen = DocumentBatch.empty()
    wanted = size * READ_FACTOR
    read = 0
    seconds = 0.0
    cursor: Any = None
    try:
        source.check()
        while read == 0 or (cursor is not None and read < wanted):
            started = time.perf_counter()
            page = source.page(cursor, wanted)
            seconds += time.perf_counter() - started
            cursor = page.cursor
            # An empty page counts, too, so that the loop ends.
            read += max(1, len(page.documents))
            chosen = _smallest_hashes(chosen.plus(page.documents), size)
    finally:
        source.close()
    if not chosen:
        raise SourceError(f"index {index.name} has no documents with text to take a sample of")
    return Sample(chosen, seconds * len(chosen) / read)


def _smallest_hashes(documents: DocumentBatch, size: int) -> DocumentBatch:
    """Return the documents with text that have the smallest hashes of their keys, in order."""

    def key_hash(row: int) -> bytes:
        return blake2b(documents.keys[row].encode(), digest_size=8).digest()

    with_text = [row for row, text in enumerate(documents.texts) if text.strip()]
    smallest = sorted(with_text, key=key_hash)[:size]
    return documents.take(sorted(smallest))
