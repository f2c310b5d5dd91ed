"""Files that belong to rows, as bytes in a column or by their names.

They are read in a child process, which a file may crash. When its row is read, only the stamp of a
file is taken. Its text is read when the stamp shows that the file changed.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Pipe
from multiprocessing.reduction import send_handle
from tempfile import SpooledTemporaryFile
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa

from rag_index.components.sources.file_formats import OUT_OF_MEMORY
from rag_index.components.sources.listing import open_below, open_file
from rag_index.components.sources.markup import without_data
from rag_index.components.sources.secret_values import without_secrets
from rag_index.components.sources.text import NotText
from rag_index.core.documents import INDEX_VERSION
from rag_index.core.documents.batches import (
    NO_LAYOUT,
    AttachedFile,
    DocumentBatch,
    TextLayout,
    TextPart,
)
from rag_index.core.documents.canonical import hash_bytes
from rag_index.errors import SourceUnavailable

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings

BETWEEN_FILES = "\n\n"
"""What stands between the texts of two files of a document."""
MAX_FILE_BYTES = 50_000_000
"""The text of a larger file is not read (chosen; docs/sources.md names it)."""
READ_SECONDS = 30.0
"""The time limit for the text of one file (chosen; docs/sources.md names it)."""
MAX_IN_MEMORY = 1_000_000
"""Values with more bytes wait in a temporary file, since a document may have many (chosen)."""
READ_COMMAND = (
    "import sys; sys.path[:] = sys.argv[2:]; from rag_index.components.sources.file_formats import"
    " main; main()"
)
MAX_NAME = 255
"""The most bytes of a name in the file systems of Linux, macOS and Windows."""
NOT_THERE = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "is below a link or no folder",
    errno.ELOOP: "is a link",
    errno.EINVAL: "is no ordinary file",
    errno.EISDIR: "is a folder",
    errno.EACCES: "may not be read",
    errno.ENXIO: "is no ordinary file",
    errno.ENAMETOOLONG: "has too long a name",
}


def _shown(name: str) -> str:
    """Return the name of a file for a reason. A text that cannot be a name is not shown."""
    is_name = len(name) <= MAX_NAME and "\n" not in name
    if is_name:
        return repr(name)
    return f"a text of {len(name):,} characters"


class _Value(NamedTuple):
    """The bytes of a column, and their stamp."""

    file: SpooledTemporaryFile[bytes]
    stamp: str


class FileReader:
    """Takes the files of the rows of an index, and reads them one after another. Not safe to share
    between threads."""

    def __init__(self, index: IndexSettings) -> None:
        self._root = index.files
        self._child: _Child | None = None

    def check(self) -> None:
        """Raise SourceUnavailable if the folder of named files is missing, or empty as where
        nothing is mounted."""
        if self._root is None:
            return
        with suppress(OSError), os.scandir(self._root) as entries:
            if any(entries):
                return
        raise SourceUnavailable(
            f"files: {self._root} cannot be read, or is empty; check that it is mounted"
        )

    def keep(self, value: Any) -> Any:
        """Return bytes as what `take` accepts too, which needs no memory if they are many; another
        value as it is."""
        if isinstance(value, str) and self._root is None:
            value = value.encode("utf-8", "surrogateescape")
        if not isinstance(value, bytes | bytearray | memoryview):
            return value
        file: SpooledTemporaryFile[bytes] = SpooledTemporaryFile(MAX_IN_MEMORY)  # noqa: SIM115 - it lives with its document
        file.write(value)
        return _Value(file, hash_bytes(bytes(value)).hex())

    def take(self, value: Any, form: str, part: TextPart) -> AttachedFile | None:
        """Return the file that a column holds or names, None if it holds nothing. Raises
        SourceUnavailable for a broken disk."""
        content = self.keep(value)
        if isinstance(content, _Value):
            name = ""
            stamp = content.stamp if content.file.tell() else ""
        elif value is None or value == "":
            return None
        else:
            content = name = str(content)
            stamp = self._stamp(name)
        if not stamp:
            return None
        read = partial(self._read, content, form)
        return AttachedFile(part, f"{form} {INDEX_VERSION} {stamp}", read, name)

    def stamp(self, files: Iterable[AttachedFile]) -> str:
        """Return the stamp of a document that names files, by which `is_current` detects whether
        they changed; "" if it names none."""
        named: list[tuple[str, str]] = []
        for file in files:
            if file.name:
                _, _, stamp = file.stamp.split(" ", 2)
                named.append((file.name, stamp))
        return json.dumps(named) if named else ""

    def is_current(self, stamp: str) -> bool:
        """Return whether the files of a document are as they were when it had this stamp."""
        if not stamp:
            return False
        return all(self._stamp(name) == known for name, known in json.loads(stamp))

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _stamp(self, name: str) -> str:
        """Return what changes with a file that a row names: its size and time, which rsync compares
        as well, or what is wrong."""
        try:
            with self._open(name) as file:
                found = os.fstat(file)
                return f"{name} {found.st_size} {found.st_mtime_ns}"
        except NotText as error:
            return f"{name} {error}"

    @contextmanager
    def _open(self, content: _Value | str) -> Iterator[int]:
        """Open a file. One that is named must be below the folder, and no link is followed. Raises
        NotText."""
        if isinstance(content, _Value):
            yield content.file.fileno()
            return
        folder, slash, name = content.rpartition("/")
        has_odd_step = not {"", ".", ".."}.isdisjoint(content.split("/"))
        if self._root is None or has_odd_step or "\0" in content:
            raise NotText(
                f"{_shown(content)} is no name of a file below the folder that `files` names"
            )
        try:
            with open_below(self._root, folder + slash) as opened:
                file = open_file(name, opened)
        except OSError as error:
            if error.errno not in NOT_THERE:
                message = f"files: {self._root} cannot be read: {error.strerror}"
                raise SourceUnavailable(message) from error
            # A mount that goes during a run leaves no folder, or an empty one: then the file is not
            # missing, and its document keeps the text that it has.
            self.check()
            raise NotText(f"{_shown(content)} {NOT_THERE[error.errno]}") from error
        try:
            yield file
        finally:
            os.close(file)

    def _read(self, content: _Value | str, form: str) -> Iterator[tuple[str, str]]:
        """Yield the pages of a file with their text. Raises NotText."""
        with self._open(content) as file:
            if os.fstat(file).st_size > MAX_FILE_BYTES:
                raise NotText(f"has more than {MAX_FILE_BYTES:,} bytes")
            self._child = child = self._child or _Child()
            try:
                yield from child.read(form, file, READ_SECONDS)
            except (EOFError, OSError) as error:
                self._child = None
                raise NotText(_reason_of_end(child.end())) from error


def _reason_of_end(code: int) -> str:
    """Return why a child ended while it read a file, by its exit code."""
    if code == -signal.SIGALRM:
        return f"takes longer than {READ_SECONDS:g} s to read"
    if code in (OUT_OF_MEMORY, -signal.SIGABRT):
        return "takes too much memory"
    return f"ends the process that reads it (exit code {code})"


class _Child:
    """The process that reads files. It ends itself when a time limit has passed, and when its
    parent has ended."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        number = theirs.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", READ_COMMAND, str(number), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[number],
            process_group=0,  # Ctrl-C ends the parent, and the parent ends this
        )
        theirs.close()

    def read(self, form: str, file: int, seconds: float) -> Iterator[tuple[str, str]]:
        """Yield page and text. Raises NotText, and EOFError or OSError if the process ended."""
        self._connection.send((form, seconds))
        send_handle(self._connection, file, self._process.pid)
        # JSON, not pickled: a file may have taken the child over
        while answer := json.loads(self._connection.recv_bytes()):
            reason = answer.get("reason")
            if reason:
                raise NotText(reason)
            yield answer["page"], answer["text"]

    def end(self) -> int:
        """End the process and return its exit code."""
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        self._process.kill()
        return self._process.wait()


def start_of(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return as much of a column of files as shows whether there is too much."""
    start = sa.func.substr(column, 1, MAX_FILE_BYTES + 1)
    return start.label(column.key)


def join_parts(own: str, parts: Iterable[tuple[str, TextPart]]) -> tuple[str, list[TextPart]]:
    """Return a text with the texts of its parts behind it, and the parts with their places in the
    result."""
    texts = [own] if own else []
    found: list[TextPart] = []
    position = len(own)
    for text, part in parts:
        start = position + (len(BETWEEN_FILES) if texts else 0)
        position = start + len(text)
        texts.append(text)
        found.append(part._replace(start=start, end=position))
    return BETWEEN_FILES.join(texts), found


def with_files(documents: DocumentBatch) -> Iterator[DocumentBatch]:
    """Read the files of documents, and yield these with the texts of the files as parts.

    Each document is yielded by itself, so that memory is bounded.
    """
    if not documents.files:
        yield documents
    for row, files in enumerate(documents.files):
        yield _with_text(documents.take([row]), files)


def _with_text(document: DocumentBatch, files: Sequence[AttachedFile]) -> DocumentBatch:
    """Return a document with the texts of its files."""
    layout = document.layouts[0] if document.layouts else NO_LAYOUT
    if not files:
        return replace(document, files=[], layouts=[layout])
    text = document.texts[0]
    before = TextLayout.decode(layout) if layout else TextLayout("", len(text), [])
    read: list[tuple[str, TextPart]] = []
    lacks = [before.lacks] if before.lacks else []
    for file in files:
        try:
            for page, found in file.read():
                shown = without_secrets(without_data(found))
                read.append((shown, file.part._replace(page=page)))
        except NotText as error:
            names = [name for name in (file.part.name, file.part.id) if name]
            lacks.append(f"{' '.join(names)} {error}")
    joined, parts = join_parts(text, read)
    after = replace(before, parts=[*before.parts, *parts], lacks="; ".join(lacks))
    return replace(document, files=[], texts=[joined], layouts=[after.encode()])
