"""Fetch: the source, a page at a time, in the flow's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from rag_index.indexing.paging import read_pages
from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.indexing.run import IndexRun
    from rag_index.sources import Source, SourcePage


@task(name="fetch", task_run_name="fetch up to {rows} rows", **RETRIED)
def fetch_page(source: Source, cursor: Any, rows: int) -> SourcePage:
    """Return the page after `cursor`. A retry reads the same rows again, which is harmless."""
    return source.page(cursor, rows)


def pages(run: IndexRun) -> Iterator[SourcePage]:
    """Yield the pages of a run's source that nobody has read yet, as `read_pages` does."""
    return read_pages(run, fetch_page)
