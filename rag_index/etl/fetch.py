"""Reading the source of an index page by page. Nothing is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from rag_index.components.sources import SourcePage
    from rag_index.etl.opened import Opened

    Fetch: TypeAlias = Callable[[Opened, int, object, int], SourcePage]

FIRST_PAGE_ROWS, MAX_PAGE_ROWS = 2000, 20_000
"""Rows. The first page is small, so that work begins soon. Chosen; nothing depends on them."""
ROW_CHARS = 500
"""Characters that a row takes besides its text, about: its key, payload and hashes. Chosen; nothing
depends on it."""


def fetch_page(opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
    """Read the next `rows` documents after the cursor, which is page `number` of the run.

    Another attempt reads the same rows again, which is harmless. A query ends after `[source]
    timeout`. Raises as `Source.page`.
    """
    return opened.source.page(cursor, rows)


def read_pages(opened: Opened, fetch: Fetch) -> Iterator[SourcePage]:
    """Yield all pages of the source.

    They grow from a small first one to about `PAGE_CHARS` characters, so that short texts do not
    need many small queries. A page may be empty and have a cursor: the next one is read all the
    same, and only a page without a cursor is the last.

    Args:
        fetch: Reads one page, as `fetch_page` does.
    """
    cursor, rows, number = None, FIRST_PAGE_ROWS, 0
    while True:
        number += 1
        page = fetch(opened, number, cursor, min(rows, MAX_PAGE_ROWS))
        yield page
        cursor = page.cursor
        if cursor is None:
            return
        chars = sum(map(len, page.documents.texts))
        mean_chars = chars / max(1, len(page.documents)) + ROW_CHARS
        fitting_rows = int(PAGE_CHARS / mean_chars)
        rows = max(1, min(rows * 4, MAX_PAGE_ROWS, fitting_rows))
