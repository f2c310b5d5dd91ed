"""Fetch: the source, a page at a time, in the flow's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from rag_index.orchestration.retries import RETRIED
from rag_index.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.indexing.run import IndexRun
    from rag_index.sources import Source, SourcePage

__all__ = ["fetch_page", "pages"]

FIRST_ROWS = 2000
ROW_CHARS = 500
"""What a row takes beside its text, as characters."""


@task(name="fetch", task_run_name="fetch up to {rows} rows", **RETRIED)
def fetch_page(source: Source, cursor: Any, rows: int) -> SourcePage:
    """Return the page after `cursor`. A retry reads the same rows again, which is harmless."""
    return source.page(cursor, rows)


def pages(run: IndexRun) -> Iterator[SourcePage]:
    """Yield all pages of a run's source.

    They grow from a small first one, so that work begins soon, to about `PAGE_CHARS`, so that short texts do not mean
    many small queries.
    """
    cursor: Any = None
    max_rows = run.settings.source.page_rows
    rows = min(FIRST_ROWS, max_rows)
    while True:
        with run.stopwatch.stage("fetch"):
            page = fetch_page(run.source, cursor, rows)
        yield page
        cursor = page.cursor
        if cursor is None:
            return
        mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
        rows = max(1, min(max_rows, rows * 4, int(PAGE_CHARS / mean)))
