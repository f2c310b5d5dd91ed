"""The rows of a query in a file, so that the database is done with them after one short transaction.

However long embedding takes, no table is locked, no snapshot is kept, and a page can be read again. The file is below
`data`, private, and removed once its last page was read, or by the next process that reads a source after a kill. A
line of it is a row as JSON, in which an object with a secret key is a value of another type.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import errno
import fcntl
import ipaddress
import json
import os
import secrets
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, BinaryIO

from rag_index.core.database.files import private_folder
from rag_index.errors import SourceError

FOLDER, SUFFIX = "queries", ".jsonl"
CHECKED_BYTES = 8_000_000
"""How much is written between two looks at the room on the disk."""
KEPT_FREE = 16_000_000
"""What is left to others who write there, such as the ledger."""
SAMPLE = 1000
"""Rows after which it is foreseen how large the file will be."""
_TEXTS = (
    decimal.Decimal, uuid.UUID, ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network,
    ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network,
)  # fmt: skip
_READERS: dict[str, Callable[[Any], Any]] = {
    **{kind.__name__: kind for kind in _TEXTS},
    **{kind.__name__: kind.fromisoformat for kind in (dt.datetime, dt.date, dt.time)},
    "timedelta": lambda parts: dt.timedelta(*parts),
    "bytes": base64.b64decode, "tuple": tuple, "set": set, "frozenset": frozenset,
    "Range": lambda parts: resolve_name("psycopg.types.range:Range")(*parts),
    "Multirange": lambda parts: resolve_name("psycopg.types.multirange:Multirange")(parts),  # noqa: PLW0108
}  # fmt: skip
"""What makes a value of each type out of what the file has in its place."""


class RowFile:
    """Rows that are written once, and read from any place on."""

    def __init__(self, folder: Path | None) -> None:
        """Create the file in this folder, whose parent exists and can be written; else one without a name."""
        self.size = 0
        self._tag = secrets.token_hex(8)
        self._encode = json.JSONEncoder(ensure_ascii=False, check_circular=False, default=self._tagged).encode
        self._decode = json.JSONDecoder(object_hook=self._untagged).decode
        self._path: Path | None = None
        self._file = self._create(folder)

    def _create(self, folder: Path | None) -> BinaryIO:
        try:
            if folder is None or not folder.parent.is_dir():  # a command that only reads makes no `data`
                raise FileNotFoundError
            private_folder(folder)
            descriptor, name = tempfile.mkstemp(dir=folder, suffix=SUFFIX)
        except OSError:
            return tempfile.TemporaryFile()
        fcntl.flock(descriptor, fcntl.LOCK_EX)  # as long as this process lives
        self._path = Path(name)
        return os.fdopen(descriptor, "w+b")

    def write(self, rows: Iterable[Sequence[Any]], expected: int | None) -> int:
        """Write all rows, of which about so many are expected, and return how many they are.

        Raises SourceError if the disk lacks room.
        """
        written, checked = 0, 0
        try:
            for row in rows:
                given = [self._tagged(value) if type(value) is tuple else value for value in row]
                line = self._encode(given).encode("utf-8", "surrogatepass")
                self.size += self._file.write(line + b"\n")
                written += 1
                if written == SAMPLE or self.size - checked > CHECKED_BYTES:
                    checked = self.size
                    self._check_room(self.size * max(0, (expected or 0) / written - 1))
            self._file.flush()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise self._no_room(self.size, 0) from error
        return written

    def page(self, position: int, rows: int, max_bytes: int) -> tuple[list[Sequence[Any]], list[int]]:
        """Return at most `rows` rows from a position on, with the position after each; a long one ends the page."""
        found: list[Sequence[Any]] = []
        ends: list[int] = []
        self._file.seek(position)
        for line in self._file:
            found.append(self._decode(line.decode("utf-8", "surrogatepass")))
            ends.append((ends[-1] if ends else position) + len(line))
            if len(found) >= rows or ends[-1] - position >= max_bytes:
                break
        return found, ends

    def close(self) -> None:
        """Remove the file."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
            with suppress(OSError):  # others may be in it
                self._path.parent.rmdir()
        self._file.close()

    def _check_room(self, more: float) -> None:
        """Raise SourceError if the disk lacks room for half of what is foreseen: the first rows may be the longest."""
        free = shutil.disk_usage(self._path.parent if self._path else tempfile.gettempdir()).free
        if free < KEPT_FREE + more / 2:
            raise self._no_room(self.size + more, free)

    def _no_room(self, needed: float, free: int) -> SourceError:
        place = self._path.parent if self._path else tempfile.gettempdir()
        return SourceError(
            f"the rows of a query need about {needed / 1e6:,.0f} MB in {place} for the time of a run, and only "
            f"{free / 1e6:,.0f} MB are free: make room, or set `data` to a folder on a larger disk"
        )

    def _tagged(self, value: Any) -> Any:
        """Return what the file has in place of a value of a type that JSON lacks."""
        kind = next((one.__name__ for one in type(value).__mro__ if one.__name__ in _READERS), "")
        if isinstance(value, bytes | bytearray | memoryview):
            kind, value = "bytes", base64.b64encode(value).decode()
        elif isinstance(value, dt.date | dt.time):
            value = value.isoformat()
        elif isinstance(value, dt.timedelta):
            value = [value.days, value.seconds, value.microseconds]
        elif kind == "Range" and type(value).__module__.startswith("psycopg."):
            value = [value.lower, value.upper, value.bounds or "[)", value.isempty]
        elif kind in ("Multirange", "tuple", "set", "frozenset"):
            value = list(value)
        else:
            kind, value = kind if kind != "Range" else "", str(value)
        return {self._tag: [kind, value]} if kind else value

    def _untagged(self, found: dict[str, Any]) -> Any:
        kind, value = found.get(self._tag, ("", None))
        return _READERS[kind](value) if kind else found


def remove_leftovers(folder: Path) -> None:
    """Remove the files of processes that were killed."""
    for path in folder.glob(f"*{SUFFIX}"):
        with suppress(OSError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    with suppress(OSError):
        folder.rmdir()
