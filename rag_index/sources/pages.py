"""Rows of a result, read as a stream or until they are a page: no table of long texts is held whole.

SQLite takes any bytes for a text. Where they are not UTF-8, the query is run again, and they are read in the charset
that they look like.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import exc

from rag_index.sources.text import NotText, read_text

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, CursorResult
    from sqlalchemy.sql.selectable import Select

Repair = Callable[[Sequence[Any]], tuple[Any, ...]]
"""Returns a row with valid texts."""
T = TypeVar("T")
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
            chars += sum([len(value) for value in row if isinstance(value, str | bytes)])
            if not self._fetched:
                room = (PAGE_CHARS - chars) * len(page) // max(1, chars)  # rows of this mean length
                size = max(1, min(FETCH_ROWS, room, rows + 1 - len(page)))
        return page, None

    def put_back(self, rows: Sequence[Sequence[Any]]) -> None:
        """Let the next page begin with these rows, the last ones of the page before."""
        self._fetched.extendleft(reversed(rows))

    def _fetch(self, rows: int) -> bool:
        self._fetched.extend(self._result.fetchmany(rows))
        return bool(self._fetched)


def read_page(
    connection: Connection, statement: Select[Any], rows: int, keys: int
) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
    """Return the rows of a page and the row after it, as `PageReader.page`. A key has `keys` columns, the first."""

    def read(repair: Repair | None) -> tuple[list[Sequence[Any]], Sequence[Any] | None]:
        with connection.execute(statement, execution_options=STREAMED) as result:
            page, following = PageReader(result).page(rows)
        return list(map(repair, page)) if repair is not None else page, following

    return with_any_text(connection, read, keys)


def stream_rows(
    connection: Connection, statement: Select[Any], repair: Repair | None = None
) -> Iterator[Sequence[Any]]:
    """Yield the rows of a statement as they are fetched. Raises the driver's errors."""
    with connection.execute(statement, execution_options=STREAMED) as result:
        while some := result.fetchmany(FETCH_ROWS):
            yield from some if repair is None else map(repair, some)


def with_any_text(connection: Connection, read: Callable[[Repair | None], T], keys: int = 0) -> T:
    """Return the result of `read`, which reads rows, and passes each to `repair` if that is given.

    It is, in a second call, if SQLite has a text that is not UTF-8. Such a text among the first `keys` columns stays
    one that is not valid, so that it is refused: it would not be found again.
    """
    try:
        return read(None)
    except exc.OperationalError as error:
        if "decode to UTF-8" not in str(error.orig):
            raise
    with invalid_text(connection):
        return read(lambda row: (*row[:keys], *map(_replace_invalid, row[keys:])))


@contextmanager
def invalid_text(connection: Connection) -> Iterator[None]:
    """Let SQLite give bytes that are not UTF-8 as surrogates."""
    driver: Any = connection.connection.driver_connection
    driver.text_factory = lambda value: value.decode("utf-8", "surrogateescape")
    try:
        yield
    finally:
        driver.text_factory = str


def _replace_invalid(value: Any) -> Any:
    """Return a text that is not UTF-8 in the charset that it looks like; its bytes if they are no text in any."""
    if not isinstance(value, str) or value.isascii():
        return value
    raw = value.encode("utf-8", "surrogateescape")
    try:
        return raw.decode()
    except UnicodeDecodeError:
        with suppress(NotText):
            return read_text(raw)
        return raw
