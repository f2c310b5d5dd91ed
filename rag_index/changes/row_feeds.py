"""The feed of changed rows that the settings name, and what is wrong with it."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.changes.queue import QueueFeed
from rag_index.changes.tables import plan_tables
from rag_index.changes.wal import WalFeed
from rag_index.errors import SettingsError, SourceError, SourceUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.changes.rows import RowFeed, WatchedTable
    from rag_index.ledger import Ledger
    from rag_index.settings import Settings


@dataclass(slots=True)
class FeedHealth:
    """What keeps changes from being followed, and what may become a problem; a sentence each."""

    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def feed_health(settings: Settings, ledger: Ledger) -> FeedHealth:
    """Return what a watch would find wrong; nothing if `changes` is `poll`, or if the source does not answer."""
    health = FeedHealth()
    if settings.source.changes == "poll":
        return health
    try:
        if not (tables := plan_tables(settings, settings.indexes).tables):
            return health
        with closing(open_row_feed(settings, tables, ledger)) as feed:
            try:
                health.broken = list(dict.fromkeys(map(str, feed.check().values())))
            except SettingsError as error:
                health.broken = [str(error)]
            health.warnings = feed.warnings()
    except (SettingsError, SourceError) as error:
        health.broken = health.broken or [str(error)]
    except SourceUnavailable:  # each index says so
        pass
    return health


def open_row_feed(settings: Settings, tables: Sequence[WatchedTable], ledger: Ledger) -> RowFeed:
    """Return the feed of changes of these tables; `check` tells whether the source is set up for it.

    Raises:
        SettingsError: the settings name neither the log nor a queue, or no driver is installed.
    """
    url, source = settings.source_url, settings.source
    if source.changes == "wal":
        # more changed rows of one table than this are handed to an ordinary run anyway
        rows = settings.watch.burst_documents
        return WalFeed(url, tables, settings.project, ledger, timeout=source.timeout, max_rows=rows)
    if source.changes == "queue":
        return QueueFeed(url, tables, settings.project, timeout=source.timeout)
    raise SettingsError(f'[source] changes = "{source.changes}" gives no rows; set it to "wal" or "queue"')
