"""The rows of a query in a file, so that the database is done with them after one short
transaction. However long embedding takes, no table is locked, no snapshot is kept, and a page can
be read again. The file is in `data` and has no name, so that no other user can open it, and the
system removes it with this process, however that ends."""

from __future__ import annotations

import os
import pickle
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rag_index.core.files import DISK_FULL
from rag_index.errors import SourceError

CHECKED_BYTES = 8_000_000
"""How much is written between two looks at the room on the disk."""
KEPT_FREE = 16_000_000
"""What is left to others who write there, such as the ledger."""
FORESEEING_ROWS = 1000
"""Rows after which it is foreseen how large the file will be."""


class RowFile:
    """Rows that are written once, and read from any place on."""

    def __init__(self, folder: Path | None) -> None:
        """Create the file in this folder; where temporary files are, if there is none, or none may
        write it."""
        self.size = 0
        self._place = (
            folder if folder is not None and os.access(folder, os.W_OK) else tempfile.gettempdir()
        )
        self._file = tempfile.TemporaryFile(dir=self._place)  # noqa: SIM115 - `close` closes it

    def write(self, rows: Iterable[Sequence[Any]], expected: int | None) -> int:
        """Write all rows and return their number. `expected` is about how many the caller expects.
        Raises SourceError if the disk lacks room."""
        written, checked = 0, 0
        try:
            for row in rows:
                given = [bytes(value) if isinstance(value, memoryview) else value for value in row]
                self.size += self._file.write(pickle.dumps(given))
                written += 1
                if written == FORESEEING_ROWS or self.size - checked > CHECKED_BYTES:
                    checked = self.size
                    self._check_room(self.size * max(0, (expected or 0) / written - 1))
            self._file.flush()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise self._no_room(self.size, 0) from error
        return written

    def page(
        self, position: int, rows: int, max_bytes: int
    ) -> tuple[list[Sequence[Any]], list[int]]:
        """Return at most `rows` rows from a position on, with the position after each; a long one
        ends the page."""
        found: list[Sequence[Any]] = []
        ends: list[int] = []
        self._file.seek(position)
        end = position
        while end < self.size and len(found) < rows and end - position < max_bytes:
            found.append(pickle.load(self._file))  # noqa: S301 - this process wrote it, into a file of its own
            end = self._file.tell()
            ends.append(end)
        return found, ends

    def close(self) -> None:
        self._file.close()

    def _check_room(self, more: float) -> None:
        """Raise SourceError if the disk lacks room for half of what is foreseen: the first rows may
        be the longest."""
        free = shutil.disk_usage(self._place).free
        if free < KEPT_FREE + more / 2:
            raise self._no_room(self.size + more, free)

    def _no_room(self, needed: float, free: int) -> SourceError:
        return SourceError(
            f"the rows of a query need about {needed / 1e6:,.0f} MB in {self._place} for the time"
            f" of a run, and only {free / 1e6:,.0f} MB are free: make room, or set `data` to a"
            " folder on a larger disk"
        )
