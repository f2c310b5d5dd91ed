"""The feeds that a watch of some indexes needs, as one feed."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes import WatchableSource
from rag_index.changes.files import FileFeed
from rag_index.changes.joined import JoinedFeed
from rag_index.changes.poll import PollFeed
from rag_index.changes.postgres import SlotState
from rag_index.changes.queue import QueueFeed
from rag_index.changes.queues.postgres import SCHEMA
from rag_index.changes.routing import RoutedFeed, Router
from rag_index.changes.wal import WalFeed
from rag_index.changes.watched_tables import object_name, plan_tables
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.settings.index import CODE, SQL
from rag_index.sources import open_source
from rag_index.sources.engine import open_read_only

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.changes.rows import RowFeed, WatchedTable
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings


@dataclass(slots=True)
class FeedHealth:
    """What keeps changes from being followed, and what may become a problem; a sentence each."""

    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def feed_health(settings: Settings, ledger: Ledger) -> FeedHealth:
    """Return what a watch would find wrong, and what an earlier value of `changes` left behind in the source.

    That is nothing if the source does not answer.
    """
    health = FeedHealth()
    left = _left_behind(settings) if any(index.kind == SQL for index in settings.indexes) else []
    if settings.source.changes == "poll":
        health.warnings = left
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
    health.warnings += left
    return health


def _left_behind(settings: Settings) -> list[str]:
    """Return a warning for a slot or a queue of this project that nobody reads, since `changes` says otherwise."""
    url, changes, name = settings.source_url, settings.source.changes, object_name(settings.project)
    postgresql = url.get_backend_name() == "postgresql"
    remedy = "The last lines of `RAG_INDEX_SOURCE__CHANGES={} rag-index watch --setup` remove it"
    found = []
    try:
        with ExitStack() as opened:
            engine = open_read_only(url)
            opened.callback(engine.dispose)
            connection = opened.enter_context(engine.connect())
            if postgresql and changes != "wal" and SlotState.read(connection, name).exists:
                found.append(
                    f'slot {name} is left from changes = "wal": nobody reads it, so the source\'s log grows until the '
                    f"disk is full. {remedy.format('wal')}"
                )
            schema = SCHEMA if postgresql else None
            if changes != "queue" and sa.inspect(connection).has_table(name, schema=schema):
                found.append(
                    f'queue {name} is left from changes = "queue": nobody reads it, and its triggers fill it. '
                    f"{remedy.format('queue')}"
                )
    except (SettingsError, exc.SQLAlchemyError):  # each index says what is wrong with the source
        pass
    return found


def open_row_feed(settings: Settings, tables: Sequence[WatchedTable], ledger: Ledger) -> RowFeed:
    """Return the feed of changes of these tables; `check` tells whether the source is set up for it.

    Raises:
        SettingsError: the settings name neither the log nor a queue, or no driver is installed.
    """
    url, source = settings.source_url, settings.source
    if source.changes == "wal":
        rows = settings.watch.burst_documents
        return WalFeed(url, tables, settings.project, ledger, timeout=source.timeout, max_rows=rows)
    if source.changes == "queue":
        return QueueFeed(url, tables, settings.project, timeout=source.timeout)
    raise SettingsError(f'[source] changes = "{source.changes}" gives no rows; set it to "wal" or "queue"')


def open_feed(settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> JoinedFeed:
    """Return the feed of these indexes: one of the database for all, and one for each other index.

    An index whose changes cannot be seen is left out, and a note says why.

    Raises SourceUnavailable, SourceError, and SettingsError if none of the indexes can be watched.
    """
    joined = JoinedFeed()
    with ExitStack() as opened:
        opened.callback(joined.close)
        _add_tables(joined, settings, [index for index in indexes if index.kind == SQL], ledger)
        for index in indexes:
            if index.kind == CODE:
                feed = FileFeed(settings, index, ledger)
                blind = "nobody keeps what happens in a folder while it is not watched"
                joined.add(feed, index.name, blind=blind, note=feed.note)
            elif index.kind != SQL:
                source = open_source(settings, index)
                opened.callback(source.close)
                if isinstance(source, WatchableSource):
                    blind = "the feed of its source may not keep what happens while nobody watches"
                    joined.add(source.open_feed(), index.name, blind=blind)
                else:
                    reason = f"its source, of kind {index.kind!r}, does not tell what changed"
                    joined.unwatched[index.name] = reason
        joined.note_unwatched()
        opened.pop_all()
    return joined


def _add_tables(joined: JoinedFeed, settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> None:
    """Add the feeds of the indexes of the database."""
    unseen = dict.fromkeys(
        (index.name for index in indexes),
        'it has no changed_since; name one, or set [source] changes to "queue" or "wal"',
    )
    if indexes and settings.source.changes != "poll":
        # log and queue have the changes of all indexes; watching some must not forget those of the others
        plan = plan_tables(settings, [index for index in settings.indexes if index.kind == SQL])
        joined.notes += plan.notes
        joined.blind |= plan.blind
        unseen = plan.unwatched
        if plan.routes:
            router = Router(plan.routes)
            joined.add(RoutedFeed(open_row_feed(settings, plan.tables, ledger), router), *router.all_indexes())
    for index in indexes:
        if index.name not in unseen:
            continue
        if index.changed_since is None:
            joined.unwatched[index.name] = unseen[index.name]
        else:
            feed = PollFeed(settings, index, ledger)
            joined.add(feed, index.name, blind=feed.blind, note=feed.note)
