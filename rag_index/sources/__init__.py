"""Sources: where documents are read from, a page at a time. `open_source` makes the one that an index names."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from rag_index.documents.batches import DocumentBatch
from rag_index.documents.canonical import encode_payload, hash_bytes, hash_text
from rag_index.documents.keys import encode_key
from rag_index.errors import SettingsError
from rag_index.settings.index import CODE, SQL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rag_index.documents.batches import Failure
    from rag_index.settings import IndexSettings, Settings

__all__ = ["GROUP", "GivesSingleDocuments", "ScanState", "Source", "SourcePage", "open_source", "page_of"]

GROUP = "rag_index.sources"
"""Entry points of sources: each is called with the settings and the index, and gives a `Source`."""


@dataclass(frozen=True, slots=True)
class SourcePage:
    """A page of documents, where to go on, and the documents whose text cannot be read."""

    documents: DocumentBatch
    cursor: Any
    """Give it to the next `page` call; None where this was the last page."""
    unreadable: list[Failure] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Keys of documents that are there and were not read, since they did not change (see `ScanState`)."""
    stamps: dict[str, str] = field(default_factory=dict)
    """Stamps by key of the documents that were read; the next scan gives them to `ScanState.unchanged`."""


class ScanState(Protocol):
    """What earlier scans left to this one, so that a source may leave unchanged documents unread.

    A source that knows what changed since a time uses the watermark. A source that can see of each document, without
    reading it, whether it changed uses stamps.
    """

    @property
    def watermark(self) -> str | None:
        """What the last complete scan set; None means that everything has to be read."""

    def set_watermark(self, watermark: str) -> None:
        """Keep this for the next scan, if the scan that begins now reaches its end."""

    def must_read(self, keys: Sequence[str]) -> bool:
        """Return whether one of these documents is not as it was committed, or is to be tried again."""

    def unchanged(self, stamps: Mapping[str, str]) -> set[str]:
        """Return those of these documents (stamps by key) that the ledger has under the same stamp."""

    def keys_under(self, prefix: str) -> list[str]:
        """Return the keys of the known documents whose typed key begins with `prefix`."""


class Source(Protocol):
    """Documents in pages. Reading a page twice gives the same documents, so that a retry is harmless."""

    def check(self) -> None:
        """See that everything named exists and fits.

        Raises SourceUnavailable, SettingsError or SourceError.
        """

    def use_scan_state(self, state: ScanState) -> None:
        """Called once, before the first page of a run. A source that always reads everything does nothing.

        Raises as `page`.
        """

    def count(self) -> int:
        """How many documents there are now; a count, nothing is read."""

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """The next at most `rows` documents after `cursor` (None: from the start).

        Raises SourceUnavailable or SourceError.
        """

    def close(self) -> None:
        """Give back connections."""


@runtime_checkable
class GivesSingleDocuments(Protocol):
    """What a source also has where single documents can be asked of it (`index --id`)."""

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """The documents that people see under these ids, as far as they are there; the cursor is None.

        Raises SourceUnavailable, SourceError (an id that several rows have), SettingsError (an id that cannot be one).
        """


def page_of(documents: Iterable[tuple[Any, str, Mapping[str, Any]]]) -> DocumentBatch:
    """Documents (key, text, payload) as a page. A key is text, a number, or a tuple of such.

    Raises:
        SourceError: a key cannot be one.
    """
    page = DocumentBatch([], [], [], [], [])
    for key, text, payload in documents:
        words = text.replace("\0", " ")  # tokenizers written in C end a text there
        page.keys.append(encode_key(key if isinstance(key, tuple) else (key,)))
        page.texts.append("" if words.isspace() else words)
        page.payloads.append(encode_payload(dict(payload)))
    page.text_hashes.extend(map(hash_text, page.texts))
    page.payload_hashes.extend(map(hash_bytes, page.payloads))
    return page


def open_source(settings: Settings, index: IndexSettings) -> Source:
    """The source of an index.

    Raises:
        SettingsError: its kind is none that is there.
    """
    if index.kind == SQL:
        from rag_index.sources.changed import ChangedSource
        from rag_index.sources.sql import SqlSource

        kind = SqlSource if index.changed_since is None else ChangedSource
        return kind(settings.source_url, index)
    if index.kind == CODE:
        from rag_index.sources.code import CodeSource

        return CodeSource(settings.root(index), index)
    return _installed(settings, index)


def _installed(settings: Settings, index: IndexSettings) -> Source:
    """A source of another distribution, by the entry point of its kind's name."""
    there = entry_points(group=GROUP)
    if index.kind not in there.names:
        kinds = ", ".join([SQL, CODE, *sorted(there.names)])
        raise SettingsError(
            f"index {index.name}: kind {index.kind!r} is none of {kinds}; correct it, or install the package whose "
            f"entry point (group {GROUP}) is called so"
        )
    try:
        opened: Source = there[index.kind].load()(settings, index)
    except ImportError as exc:
        raise SettingsError(f"index {index.name}: kind {index.kind!r} cannot be loaded: {exc}; reinstall it") from exc
    return opened
