"""The pages of a run's source, one after another; whoever reads on continues after the last page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.indexing.run import IndexRun
    from rag_index.sources import Source, SourcePage

FIRST_ROWS = 2000
ROW_CHARS = 500
"""What a row takes beside its text, as characters."""


@dataclass(slots=True)
class Paging:
    """How far a run has read its source."""

    cursor: Any = None
    rows: int = FIRST_ROWS
    """The rows of the next page."""
    ended: bool = False

    def advance(self, page: SourcePage, max_rows: int) -> None:
        """Take note of a page that was read, and choose the size of the next one."""
        self.cursor, self.ended = page.cursor, page.cursor is None
        mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
        self.rows = max(1, min(self.rows * 4, max_rows, int(PAGE_CHARS / mean)))


def read_pages(run: IndexRun, fetch: Callable[[Source, Any, int], SourcePage]) -> Iterator[SourcePage]:
    """Yield the pages of a run's source that nobody has read yet. `fetch` returns the page after a cursor.

    They grow from a small first one, so that work begins soon, to about `PAGE_CHARS`, so that short texts do not mean
    many small queries.
    """
    paging, max_rows = run.paging, run.settings.source.page_rows
    while not paging.ended:
        with run.stopwatch.stage("fetch"):
            page = fetch(run.source, paging.cursor, min(paging.rows, max_rows))
        paging.advance(page, max_rows)
        yield page
