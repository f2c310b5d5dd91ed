"""Files that belong to rows: their bytes in a column, or their names, read in a process that they
may crash. What is noted of a file when its row is read is a stamp. Its text is read when the stamp
shows that the file changed."""

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
MAX_FILE_BYTES = 50_000_000
READ_SECONDS = 30.0
"""The time limit for the text of one file."""
MAX_IN_MEMORY = 1_000_000
"""Larger values wait in a temporary file, since a document may have many."""
READ_COMMAND = (
    "import sys; sys.path[:] = sys.argv[2:]; from rag_index.components.sources.file_formats import"
    " main; main()"
)
MAX_NAME = 255
"""Bytes of a name, at most, in the file systems of Linux, macOS and Windows."""
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
    """Return the name of a file for a reason. What is too long for one is a text, and not shown."""
    is_name = len(name) <= MAX_NAME and "\n" not in name
    return repr(name) if is_name else f"a text of {len(name):,} characters"


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
        """Raise SourceUnavailable if the folder of named files is not there, or empty as where
        nothing is mounted."""
        if self._root is not None:
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
        """Return the file that a column holds or names, None for none. Raises SourceUnavailable for
        a broken disk."""
        kept = self.keep(value)
        if isinstance(kept, _Value):
            stamp = kept.stamp if kept.file.tell() else ""
        else:
            stamp = self._stamp(kept := str(kept)) if value is not None and value != "" else ""
        if not stamp:
            return None
        name = "" if isinstance(kept, _Value) else kept
        return AttachedFile(
            part, f"{form} {INDEX_VERSION} {stamp}", partial(self._read, kept, form), name
        )

    def stamp(self, files: Iterable[AttachedFile]) -> str:
        """Return the stamp of a document that names files, which tells `is_current` whether they
        changed; "" if it names none."""
        named = [(file.name, file.stamp.split(" ", 2)[2]) for file in files if file.name]
        return json.dumps(named) if named else ""

    def is_current(self, stamp: str) -> bool:
        """Return whether the files of a document are as they were when it had this stamp."""
        return bool(stamp) and all(self._stamp(name) == known for name, known in json.loads(stamp))

    def close(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _stamp(self, name: str) -> str:
        """Return what changes with a file that a row names: size and time, as rsync looks at them,
        or what is wrong."""
        try:
            with self._open(name) as file:
                found = os.fstat(file)
                return f"{name} {found.st_size} {found.st_mtime_ns}"
        except NotText as error:
            return f"{name} {error}"

    @contextmanager
    def _open(self, content: _Value | str) -> Iterator[int]:
        """Open a file: one that is named strictly below the folder, without following links. Raises
        NotText."""
        if isinstance(content, _Value):
            yield content.file.fileno()
            return
        folder, slash, name = content.rpartition("/")
        if self._root is None or {"", ".", ".."} & set(content.split("/")) or "\0" in content:
            raise NotText(
                f"{_shown(content)} is no name of a file below the folder that `files` names"
            )
        try:
            with open_below(self._root, folder + slash) as opened:
                file = open_file(name, opened)
        except OSError as error:
            if error.errno not in NOT_THERE or not self._root.is_dir():
                raise SourceUnavailable(
                    f"files: {self._root} cannot be read: {error.strerror}"
                ) from error
            raise NotText(f"{_shown(content)} {NOT_THERE[error.errno]}") from error
        try:
            yield file
        finally:
            os.close(file)

    def _read(self, content: _Value | str, form: str) -> Iterator[tuple[str, str]]:
        with self._open(content) as file:
            if os.fstat(file).st_size > MAX_FILE_BYTES:
                raise NotText(f"has more than {MAX_FILE_BYTES:,} bytes")
            self._child = child = self._child or _Child()
            try:
                yield from child.read(form, file, READ_SECONDS)
            except (EOFError, OSError) as error:
                self._child, code = None, child.end()
                if code == -signal.SIGALRM:
                    raise NotText(f"takes longer than {READ_SECONDS:g} s to read") from error
                if code in (OUT_OF_MEMORY, -signal.SIGABRT):
                    raise NotText("takes too much memory") from error
                raise NotText(f"ends the process that reads it (exit code {code})") from error


class _Child:
    """The process that reads files. It ends itself when a time limit has passed, and when its
    parent has ended."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", READ_COMMAND, str(theirs.fileno()), *sys.path],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            process_group=0,  # Ctrl-C ends the parent, and the parent ends this
        )
        theirs.close()

    def read(self, form: str, file: int, seconds: float) -> Iterator[tuple[str, str]]:
        """Yield page and text. Raises NotText, and EOFError or OSError if the process ended."""
        self._connection.send((form, seconds))
        send_handle(self._connection, file, self._process.pid)
        while answer := json.loads(
            self._connection.recv_bytes()
        ):  # not pickled: a file may have taken the child over
            if reason := answer.get("reason"):
                raise NotText(reason)
            yield answer["page"], answer["text"]

    def end(self) -> int:
        self._connection.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        self._process.kill()
        return self._process.wait()


def start_of(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return as much of a column of files as tells that there is too much."""
    return sa.func.substr(column, 1, MAX_FILE_BYTES + 1).label(column.key)


def join_parts(own: str, parts: Iterable[tuple[str, TextPart]]) -> tuple[str, list[TextPart]]:
    """Return a text with the texts of its parts behind it, and the parts with their places
    there."""
    texts, found, position = [own] if own else [], [], len(own)
    for text, part in parts:
        start = position + (len(BETWEEN_FILES) if texts else 0)
        position = start + len(text)
        texts.append(text)
        found.append(part._replace(start=start, end=position))
    return BETWEEN_FILES.join(texts), found


def with_files(documents: DocumentBatch) -> Iterator[DocumentBatch]:
    """Read the files of documents, and yield these with the text as parts: one by one, so that
    memory is bounded."""
    if not documents.files:
        yield documents
    for row, files in enumerate(documents.files):
        one = documents.take([row])
        text, layout = one.texts[0], one.layouts[0] if one.layouts else NO_LAYOUT
        yield replace(one, files=[], **_with_text(text, layout, files))


def _with_text(text: str, layout: bytes, files: Sequence[AttachedFile]) -> dict[str, list[Any]]:
    if not files:
        return {"layouts": [layout]}
    before = TextLayout.decode(layout) if layout else TextLayout("", len(text), [])
    read, wrong = list[tuple[str, TextPart]](), [before.lacks] if before.lacks else []
    for file in files:
        try:
            for page, found in file.read():
                read.append((without_secrets(without_data(found)), file.part._replace(page=page)))
        except NotText as error:
            wrong.append(f"{' '.join(filter(None, [file.part.name, file.part.id]))} {error}")
    whole, parts = join_parts(text, read)
    after = replace(before, parts=[*before.parts, *parts], lacks="; ".join(wrong))
    return {"texts": [whole], "layouts": [after.encode()]}
