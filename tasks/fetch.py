"""Fetch: the source, a page at a time, in the flow's process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect import task

from rag_index.orchestration.retries import RETRIED

if TYPE_CHECKING:
    from rag_index.sources import Source, SourcePage


@task(name="fetch", task_run_name="fetch up to {rows} rows", **RETRIED)
def fetch_page(source: Source, cursor: Any, rows: int) -> SourcePage:
    """Return the page after `cursor`. A retry reads the same rows again, which is harmless."""
    return source.page(cursor, rows)
