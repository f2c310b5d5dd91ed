"""A folder of source code: each file is a document, and its id is the path from the root.

Files are read by language, the largest first, a page of bytes at a time. A file with the size and
the times in the ledger stays unread. A time is not trusted if it is so recent that the file may
change again within it, as with git's "racily clean" entries (https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from attrs import evolve

from rag_index.components.chunking.code.languages import TEXT, require_grammars
from rag_index.components.sources.listing import File, Listing, list_files, open_below, open_file
from rag_index.components.sources.pages import SourcePage
from rag_index.core.documents.batches import DocumentBatch, Failure
from rag_index.core.documents.canonical import encode_payload, hash_bytes, hash_text
from rag_index.core.documents.keys import document_id, encode_key
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rag_index.components.sources.scan_state import ScanState
    from rag_index.core.settings import IndexSettings

PAGE_BYTES = 16_000_000
"""The bytes of files after which a page ends (chosen)."""
MAX_FILE_BYTES = 1_000_000
"""A larger file is skipped and listed (chosen; docs/sources.md names it)."""
RACY_SECONDS = 2.0
"""The coarsest resolution of times on file systems, that of FAT."""
WATERMARK = "files/1"
"""The watermark of every scan. It only says that there was a scan before."""
HEAD_CHARS = 2000
"""The characters at the beginning of a file in which it may say that it is generated (chosen)."""
MIN_MINIFIED_CHARS = 5000
"""The characters from which on a file may count as minified (chosen)."""
MAX_LINE_CHARS = 300
"""The average characters per line of a file written by hand; a minified file has more."""
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|<!--|%|;)(.*)$", re.M)
_GENERATED = re.compile(
    r"@generated\b|\bgenerated\b.{0,200}\bdo not (?:edit|modify|change)\b"
    r"|\bdo not (?:edit|modify|change)\b.{0,200}\bgenerated\b",
    re.I | re.S,
)


class CodeSource:
    """The files of a folder, as a `Source`."""

    def __init__(self, root: Path, index: IndexSettings) -> None:
        self._root = root
        self._index = index
        self._scan_state: ScanState | None = None
        self._listing: Listing | None = None
        self._scanning = False

    def check(self) -> None:
        """Check that the root is a folder, and that the parsers are installed. Raises SettingsError."""
        require_grammars()
        if not self._root.is_dir():
            raise SettingsError(
                f"index {self._index.name}: root {self._root} is not a folder; correct it"
            )

    def use_scan_state(self, state: ScanState) -> None:
        """Prepare for a scan, which leaves files unread whose size and times are known."""
        self._scan_state = state
        state.set_watermark(WATERMARK)

    def count(self) -> int:
        """Return the number of files. The next scan reads these files."""
        self._listing = self._list()
        self._scanning = False
        return len(self._listing)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """Return a page of files. The cursor is a position in the list of files, which each scan makes
        again."""
        if self._listing is None or (cursor is None and self._scanning):
            self._listing = self._list()
        self._scanning = True
        listing = self._listing
        page = SourcePage(DocumentBatch.empty(), None)
        if cursor is None:
            page.unreadable.extend(listing.failures)
            # files in a folder that cannot be listed are neither read nor deleted
            if self._scan_state is not None:
                for folder in listing.unreadable_folders:
                    prefix = encode_key([folder])[:-1]
                    page.unread.extend(self._scan_state.keys_under(prefix))
        first = int(cursor or 0)
        files = listing.files[first : first + rows]
        end = first + self._read(page, files, listing.listed_at)
        return evolve(page, cursor=end if end < len(listing.files) else None)

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """Return files by their path, if the rules of the folder include them."""
        listing = self._list()
        wanted = set(ids)
        page = SourcePage(DocumentBatch.empty(), None)
        for failure in listing.failures:
            if document_id(failure.key) in wanted:
                page.unreadable.append(failure)
        for file in listing.files:
            if file.path in wanted:
                self._read_file(page, encode_key([file.path]), file, listing.listed_at)
        return page

    def close(self) -> None:
        self._listing = None

    def _list(self) -> Listing:
        index = self._index
        return list_files(self._root, index.include, index.exclude, index.languages)

    def _read(self, page: SourcePage, files: list[File], listed_at: float) -> int:
        """Add files to a page until it is full. Return how many were added or left unread."""
        by_key = {encode_key([file.path]): file for file in files}
        unchanged: set[str] = set()
        if self._scan_state is not None and self._scan_state.watermark is not None:
            stamps = {key: file.stamp for key, file in by_key.items()}
            unchanged = self._scan_state.unchanged(stamps)
        size = 0
        for number, (key, file) in enumerate(by_key.items()):
            if key in unchanged:
                page.unread.append(key)
            else:
                size += self._read_file(page, key, file, listed_at)
            if size >= PAGE_BYTES:
                return number + 1
        return len(files)

    def _read_file(self, page: SourcePage, key: str, file: File, listed_at: float) -> int:
        """Add a file to a page, as a document or as a failure. Return the number of bytes read."""
        try:
            size, data = self._content(file)
        except FileNotFoundError:  # deleted after it was listed
            return 0
        except OSError as exc:
            reason = (
                f"it cannot be read: {exc.strerror}; check its permissions, and that it is no link"
            )
            page.unreadable.append(Failure(key, reason))
            return 0
        if size > MAX_FILE_BYTES:
            reason = f"it has {size:,} bytes, more than {MAX_FILE_BYTES:,}"
            page.unreadable.append(Failure(key, reason, kind="skipped"))
            return len(data)
        if b"\0" in data:
            page.unreadable.append(Failure(key, "it is binary: it holds NUL bytes", kind="skipped"))
            return len(data)
        text = decode_text(data)
        shown = "" if text.isspace() else text
        # parsed as another language, a file has other chunks
        text_hash = hash_text(f"{file.language}\n{text}" if shown else "")
        reason = "" if file.language == TEXT else _generated_reason(text)
        if reason:
            page.unreadable.append(Failure(key, reason, text_hash, "skipped"))
            return len(data)
        payload = encode_payload({"path": file.path, "language": file.language})
        documents = page.documents
        documents.keys.append(key)
        documents.texts.append(shown)
        documents.payloads.append(payload)
        documents.text_hashes.append(text_hash)
        documents.payload_hashes.append(hash_bytes(payload))
        if file.changed_at < listed_at - RACY_SECONDS:
            page.stamps[key] = file.stamp
        return len(data)

    def _content(self, file: File) -> tuple[int, bytes]:
        """Return the size of a file and its content, which is not read if it is too large. Raises
        OSError."""
        if file.size > MAX_FILE_BYTES:
            return file.size, b""
        folder, slash, name = file.path.rpartition("/")
        with (
            open_below(self._root, folder + slash) as inside,
            os.fdopen(open_file(name, inside), "rb") as opened,
        ):
            data = opened.read(MAX_FILE_BYTES + 1)
            size = opened.seek(0, os.SEEK_END)  # it may have grown after it was listed
        return size, data


def decode_text(data: bytes) -> str:
    """Return a file's text as UTF-8, else as Latin-1, from which its bytes can be restored. A byte
    order mark stays."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _generated_reason(text: str) -> str:
    """Return why a file is not written by a person, "" if it is."""
    # "// Code generated by protoc. DO NOT EDIT."
    comments = "\n".join(_COMMENT.findall(text[:HEAD_CHARS]))
    if _GENERATED.search(comments):
        return "it says that it is generated"
    lines = text.count("\n") + 1
    if len(text) >= MIN_MINIFIED_CHARS and len(text) > MAX_LINE_CHARS * lines:
        return "it is minified: its lines are very long"
    return ""
