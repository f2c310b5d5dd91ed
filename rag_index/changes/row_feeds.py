"""The feed of changed rows that the settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.changes.queue import QueueFeed
from rag_index.changes.wal import WalFeed
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.changes.rows import RowFeed, WatchedTable
    from rag_index.settings import Settings

__all__ = ["open_row_feed"]


def open_row_feed(settings: Settings, tables: Sequence[WatchedTable]) -> RowFeed:
    """Return the feed of changes of these tables; `check` tells whether the source is set up for it.

    Raises:
        SettingsError: the settings name neither the log nor a queue, or no driver is installed.
    """
    url, source = settings.source_url, settings.source
    if source.changes == "wal":
        # more changed rows of one table than this are handed to an ordinary run anyway
        rows = settings.watch.burst_documents
        return WalFeed(url, tables, settings.project, timeout=source.timeout, max_rows=rows)
    if source.changes == "queue":
        return QueueFeed(url, tables, settings.project, timeout=source.timeout)
    raise SettingsError(f'[source] changes = "{source.changes}" gives no rows; set it to "wal" or "queue"')
