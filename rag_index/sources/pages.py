"""Rows of a result, read until they are a page: bounded by characters, so that no table of long texts is held whole."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import CursorResult

PAGE_CHARS = 4_000_000
"""A page ends with the row that brings it to this many characters. A page is in memory several times (as rows, as
documents, in shards), which is most of what the flow's process takes."""
FIRST_ROWS = 8
FETCH_ROWS = 100
"""The most rows that are fetched at a time: long texts may follow short ones."""

STREAMED = {"stream_results": True, "max_row_buffer": FETCH_ROWS}
"""Rows are fetched from a server as they are read. SQLite does so anyway."""


class PageReader:
    """Reads the rows of a result page by page."""

    def __init__(self, result: CursorResult[Any]) -> None:
        self._result = result
        self._fetched: deque[Sequence[Any]] = deque()
        """Rows that were fetched and belong to the next page."""

    def page(self, rows: int) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
        """Return the next rows, at most `rows`, and the row after them, which begins the next page; None at the end."""
        page: list[Sequence[Any]] = []
        chars, size = 0, min(FIRST_ROWS, rows + 1)
        while self._fetched or self._fetch(size):
            if len(page) >= rows or chars >= PAGE_CHARS:
                return page, self._fetched[0]
            row = self._fetched.popleft()
            page.append(row)
            chars += _chars(row)
            if not self._fetched:
                room = (PAGE_CHARS - chars) * len(page) // max(1, chars)  # rows of this mean length
                size = max(1, min(FETCH_ROWS, room, rows + 1 - len(page)))
        return page, None

    def put_back(self, rows: Sequence[Sequence[Any]]) -> None:
        """Let the next page begin with these rows, the last ones of the page before."""
        self._fetched.extendleft(reversed(rows))

    def _fetch(self, rows: int) -> bool:
        """Fetch rows, and return whether there were any."""
        self._fetched.extend(self._result.fetchmany(rows))
        return bool(self._fetched)


def _chars(row: Sequence[Any]) -> int:
    """Return the characters and bytes that a row holds."""
    return sum([len(value) for value in row if isinstance(value, str | bytes)])
