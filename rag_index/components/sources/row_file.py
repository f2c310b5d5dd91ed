"""The rows of a query in a file, so that one short transaction is enough to read them.

However long embedding takes, no table is locked, no snapshot is kept, and a page can be read again.
The file is in the folder `data`. It has no name, so no other user can open it, and the system
removes it when this process ends, in whatever way.
"""

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
"""The bytes that are written between two checks of the free space (chosen)."""
KEPT_FREE = 16_000_000
"""The bytes of the disk that are left to other writers, such as the ledger (chosen)."""
FORESEEING_ROWS = 1000
"""The number of rows after which the size of the file is estimated (chosen)."""


class RowFile:
    """A file of rows: written once, and read from any position."""

    def __init__(self, folder: Path | None) -> None:
        """Create the file in this folder; if there is none, or it is not writable, where temporary
        files are."""
        self.size = 0
        if folder is not None and os.access(folder, os.W_OK):
            self._place = str(folder)
        else:
            self._place = tempfile.gettempdir()
        self._file = tempfile.TemporaryFile(dir=self._place)  # noqa: SIM115 - `close` closes it

    def write(self, rows: Iterable[Sequence[Any]], expected: int | None) -> int:
        """Write all rows and return their number.

        Args:
            expected: About how many rows the caller expects, None if that is unknown.

        Raises:
            SourceError: The disk lacks space.
        """
        written = 0
        checked = 0
        try:
            for row in rows:
                given = [bytes(value) if isinstance(value, memoryview) else value for value in row]
                self.size += self._file.write(pickle.dumps(given))
                written += 1
                if written == FORESEEING_ROWS or self.size - checked > CHECKED_BYTES:
                    checked = self.size
                    rows_to_come = max(0, (expected or 0) / written - 1)
                    self._check_space(self.size * rows_to_come)
            self._file.flush()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
            raise self._no_space(self.size, 0) from error
        return written

    def page(
        self, position: int, rows: int, max_bytes: int
    ) -> tuple[list[Sequence[Any]], list[int]]:
        """Return at most `rows` rows from a position on, and the position behind each.

        A page ends with the row that reaches `max_bytes`.
        """
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

    def _check_space(self, to_come: float) -> None:
        """Raise SourceError if the disk lacks space for half of the bytes to come: the first rows
        may be the longest."""
        free = shutil.disk_usage(self._place).free
        if free < KEPT_FREE + to_come / 2:
            raise self._no_space(self.size + to_come, free)

    def _no_space(self, needed: float, free: int) -> SourceError:
        needed_mb = f"{needed / 1e6:,.0f}"
        free_mb = f"{free / 1e6:,.0f}"
        return SourceError(
            f"the rows of a query need about {needed_mb} MB in {self._place} for the time of a run,"
            f" and only {free_mb} MB are free: make room, or set `data` to a folder on a larger"
            " disk"
        )
