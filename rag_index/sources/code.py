"""A folder of source code: a document is a file, its id the path from the root.

Files are read by language, the largest first, a page of bytes at a time. One whose size and times are those that the
ledger remembers is left unread; a time so young that the file may change once more within it is not trusted, as with
git's "racily clean" entries (https://git-scm.com/docs/racy-git).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from rag_index.chunking.code.languages import TEXT, need_grammars
from rag_index.documents.batches import DocumentBatch, Failure
from rag_index.documents.canonical import encode_payload, hash_bytes, hash_text
from rag_index.documents.keys import document_id, encode_key
from rag_index.errors import SettingsError
from rag_index.sources import SourcePage
from rag_index.sources.folder import list_files

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rag_index.settings import IndexSettings
    from rag_index.sources import ScanState
    from rag_index.sources.folder import File, Listing

__all__ = ["CodeSource", "decoded"]

PAGE_BYTES = 16_000_000
RACY_SECONDS = 2.0
"""The coarsest that file systems keep times."""
LEAVES = "files/1"
"""What a scan leaves to the next: that there was one."""
HEAD_CHARS = 2000
"""Where a file says that it is generated."""
MIN_MINIFIED = 5000
LONG_LINES = 300
"""Characters a line, on average, of a file that nobody wrote by hand."""
_COMMENT = re.compile(r"^\s*(?:#|//|/\*|\*|--|<!--|%|;)(.*)$", re.M)
_GENERATED = re.compile(
    r"@generated\b|\bgenerated\b.{0,200}\bdo not (?:edit|modify|change)\b"
    r"|\bdo not (?:edit|modify|change)\b.{0,200}\bgenerated\b",
    re.I | re.S,
)


class CodeSource:
    """See `rag_index.sources.Source`."""

    def __init__(self, root: Path, index: IndexSettings) -> None:
        self._root = root
        self._index = index
        self._scan_state: ScanState | None = None
        self._listed: Listing | None = None
        self._begun = False

    def check(self) -> None:
        """See that the folder is there and the grammars are installed (see `Source.check`)."""
        need_grammars()
        if not self._root.is_dir():
            raise SettingsError(f"index {self._index.name}: root {self._root} is no folder; correct it")

    def use_scan_state(self, state: ScanState) -> None:
        """As `Source.follow`."""
        self._scan_state = state
        state.set_watermark(LEAVES)

    def count(self) -> int:
        """As `Source.count`; the scan that comes next reads what was listed."""
        self._listed, self._begun = self._list(), False
        return len(self._listed)

    def page(self, cursor: Any, rows: int) -> SourcePage:
        """As `Source.page`; a cursor is a position in the list of files, which is made anew for a new scan."""
        if self._listed is None or (cursor is None and self._begun):
            self._listed = self._list()
        self._begun = True
        listed, first = self._listed, int(cursor or 0)
        page = SourcePage(DocumentBatch([], [], [], [], []), None)
        if cursor is None:
            self._begin(page, listed)
        last = self._read(page, listed.files[first : first + rows], listed.at) + first
        return SourcePage(
            page.documents, last if last < len(listed.files) else None, page.unreadable, page.unread, page.stamps
        )

    def documents(self, ids: Sequence[str]) -> SourcePage:
        """As `GivesSingleDocuments.documents`: files by their path, where the folder's rules let them in."""
        listed, wanted = self._list(), set(ids)
        page = SourcePage(DocumentBatch([], [], [], [], []), None)
        page.unreadable.extend(failure for failure in listed.failures if document_id(failure.key) in wanted)
        for file in listed.files:
            if file.path in wanted and (stamp := self._stamp(file)):
                self._read_one(page, encode_key([file.path]), file, stamp, listed.at)
        return page

    def close(self) -> None:
        """Nothing is held."""
        self._listed = None

    def _list(self) -> Listing:
        return list_files(self._root, self._index.include, self._index.exclude)

    def _begin(self, page: SourcePage, listed: Listing) -> None:
        """What the listing itself could not read; of a closed folder, all that is known is still there."""
        page.unreadable.extend(listed.failures)
        for folder in listed.closed:
            if self._scan_state is not None:
                page.unread.extend(self._scan_state.keys_under(encode_key([folder])[:-1]))

    def _read(self, page: SourcePage, files: list[File], at: float) -> int:
        """Read files into a page until it is full; how many were looked at."""
        stamps = {file.path: stamp for file in files if (stamp := self._stamp(file))}
        unchanged: set[str] = set()
        if self._scan_state is not None and self._scan_state.watermark is not None:
            unchanged = self._scan_state.unchanged({encode_key([path]): str(stamp) for path, stamp in stamps.items()})
        size = 0
        for number, file in enumerate(files):
            key = encode_key([file.path])
            if key in unchanged:
                page.unread.append(key)
            elif file.path in stamps:
                size += self._read_one(page, key, file, stamps[file.path], at)
            if size >= PAGE_BYTES:
                return number + 1
        return len(files)

    def _stamp(self, file: File) -> FileStamp | None:
        """What can be seen of a file without reading it; nothing where it is gone since the folder was listed."""
        try:
            return FileStamp(os.lstat(f"{self._root}/{file.path}"))  # thousands of Path objects would take longer
        except FileNotFoundError:
            return None
        except OSError:
            return FileStamp(None)

    def _read_one(self, page: SourcePage, key: str, file: File, stamp: FileStamp, at: float) -> int:
        """Put a file into the page, or why it is not indexed; the bytes that were read."""
        most = self._index.max_file_bytes
        if stamp.size > most:
            said = f"it has {stamp.size:,} bytes, more than max_file_bytes ({most:,})"
            page.unreadable.append(Failure(key, said, kind="skipped"))
            return 0
        try:
            with (self._root / file.path).open("rb") as opened:
                data = opened.read(most + 1)
        except FileNotFoundError:
            return 0
        except OSError as exc:
            page.unreadable.append(Failure(key, f"it cannot be read: {exc.strerror}; see to its permissions"))
            return 0
        if b"\0" in data:
            page.unreadable.append(Failure(key, "it is binary: it holds NUL bytes", kind="skipped"))
            return len(data)
        text = decoded(data)
        if file.language != TEXT and (why := _machine_made(text)):
            page.unreadable.append(Failure(key, why, hash_text(text), "skipped"))
            return len(data)
        documents = page.documents
        payload = encode_payload({"path": file.path, "language": file.language})
        documents.keys.append(key)
        documents.texts.append("" if text.isspace() else text)
        documents.payloads.append(payload)
        documents.text_hashes.append(hash_text(documents.texts[-1]))
        documents.payload_hashes.append(hash_bytes(payload))
        if stamp.changed < at - RACY_SECONDS:
            page.stamps[key] = str(stamp)
        return len(data)


class FileStamp:
    """Size and times of a file: another stamp, and it may hold something else."""

    __slots__ = ("_words", "changed", "size")

    def __init__(self, stat: os.stat_result | None) -> None:
        self.size = stat.st_size if stat else 0
        self.changed = max(stat.st_mtime, stat.st_ctime) if stat else float("inf")
        self._words = f"{stat.st_size}/{stat.st_mtime_ns}/{stat.st_ctime_ns}" if stat else "?"

    def __str__(self) -> str:
        return self._words


def decoded(data: bytes) -> str:
    """A file's text, from which its bytes can be made again: UTF-8, a byte order stamp being its first character, else
    Latin-1."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _machine_made(text: str) -> str:
    """Why a file is taken for one that nobody wrote by hand; nothing where it is not."""
    if _GENERATED.search("\n".join(_COMMENT.findall(text[:HEAD_CHARS]))):
        return "it says that it is generated"
    if len(text) >= MIN_MINIFIED and len(text) > LONG_LINES * (text.count("\n") + 1):
        return "it is minified: its lines are very long"
    return ""
