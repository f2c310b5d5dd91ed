"""Rows of a result, read until they are a page: bounded by characters, so that no table of long texts is held whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import CursorResult

__all__ = ["FETCH_ROWS", "PAGE_CHARS", "read_page"]

PAGE_CHARS = 4_000_000
"""A page ends with the row that brings it to this many characters. A page is in memory several times (as rows, as
documents, in shards), which is most of what the flow's process takes."""
FIRST_ROWS = 8
FETCH_ROWS = 100
"""The most rows that are fetched at a time: long texts may follow short ones."""


def read_page(
    result: CursorResult[Any], rows: int, first: Sequence[Any] | None = None
) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
    """Return the rows of a page, at most `rows`, and the row after it; None if there is none.

    Args:
        result: The rows that were not read yet.
        rows: The maximum number of rows.
        first: A row that was read before and belongs to this page.
    """
    page: list[Sequence[Any]] = [] if first is None else [first]
    chars = sum(map(_chars, page))
    size = FIRST_ROWS
    while batch := result.fetchmany(size):
        for row in batch:
            if len(page) >= rows or chars >= PAGE_CHARS:
                return page, row
            page.append(row)
            chars += _chars(row)
        room = (PAGE_CHARS - chars) * len(page) // max(1, chars)  # rows of this mean length
        size = max(1, min(FETCH_ROWS, room, rows - len(page)))
    return page, None


def _chars(row: Sequence[Any]) -> int:
    """Return the characters and bytes that a row holds."""
    return sum([len(value) for value in row if isinstance(value, str | bytes)])
