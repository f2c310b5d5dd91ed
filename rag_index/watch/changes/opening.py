"""The feeds that a watch of some indexes needs, and the SQL that a database needs for them: nothing here runs it. A
database that has a queue is a row of `WATCH_QUEUES` in `settings.sections` and a module of `changes.queues`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa

from rag_index.components.sources import open_source
from rag_index.core.settings.index import CODE, SQL
from rag_index.core.settings.sections import WATCH_DATABASES
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.watch.changes import rows
from rag_index.watch.changes.poll import FileFeed, PollFeed
from rag_index.watch.changes.postgres_catalogue import SlotState, wal_setup
from rag_index.watch.changes.queues import open_queue, queue_kind
from rag_index.watch.changes.wal import WalFeed

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.watch.changes import ChangeFeed


@dataclass(slots=True)
class FeedHealth:
    """What keeps changes from being followed, and what may become a problem; a sentence each."""

    broken: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def feed_health(settings: Settings, ledger: Ledger) -> FeedHealth:
    """Return what a watch would find wrong, and what an earlier value of `changes` left behind in the source. That is
    nothing if the source does not answer."""
    health = FeedHealth()
    try:
        if settings.source.changes != "poll" and (plan := rows.plan_tables(settings, settings.indexes)).tables:
            with closing(open_row_feed(settings, plan, ledger)) as feed:
                try:
                    health.broken = list(dict.fromkeys(map(str, feed.problems().values())))
                except SettingsError as error:
                    health.broken = [str(error)]
                health.warnings = feed.warnings()
    except (SettingsError, SourceError) as error:
        health.broken = health.broken or [str(error)]
    except SourceUnavailable:  # each index says so
        pass
    if any(index.kind == SQL for index in settings.indexes):
        health.warnings += _left_behind(settings)
    return health


def _left_behind(settings: Settings) -> Iterator[str]:
    """Yield a warning for a slot or a queue of this project that is not read, since `changes` says otherwise."""
    url, changes, name = settings.source_url, settings.source.changes, rows.object_name(settings.project)
    ways = [way for way, databases in WATCH_DATABASES.items() if way != changes and url.get_backend_name() in databases]
    left = (
        '{} is left from changes = "{}" and not read, so {}. The last lines of '
        "`RAG_INDEX_SOURCE__CHANGES={} rag-index watch --setup` remove it"
    )
    try:
        with rows.connected(url, "the tables of the source") as connection:
            if "wal" in ways and SlotState.read(connection, name).exists:
                grows = "the source's log grows until the disk is full"
                yield left.format(f"slot {name}", "wal", grows, "wal")
            if "queue" in ways and sa.inspect(connection).has_table(name, schema=queue_kind(url).schema):
                yield left.format(f"queue {name}", "queue", "its triggers fill it", "queue")
    except (SettingsError, SourceError, SourceUnavailable):  # each index says what is wrong with the source
        pass


def open_row_feed(settings: Settings, plan: rows.TablePlan, ledger: Ledger) -> rows.RowFeed:
    """Return the feed of the changes of a plan's tables; its `check` tells whether the source is set up for it. Raises
    SettingsError if no driver is installed."""
    source, given = settings.source, (settings.source_url, plan.tables, settings.project, plan.routes)
    if source.changes == "wal":
        return WalFeed(*given, ledger=ledger, max_rows=settings.watch.burst_documents, timeout=source.timeout)
    return open_queue(*given, ledger=ledger, timeout=source.timeout)


def setup_script(settings: Settings) -> str:
    """Return the SQL for all indexes of the settings, with what cannot be followed as comments. Raises SettingsError,
    SourceUnavailable or SourceError, as `setup_for` does."""
    changes = settings.source.changes
    if changes == "poll":
        raise SettingsError(
            'changes = "poll" needs nothing in the source; set [source] changes to "queue", or to "wal" for PostgreSQL'
        )
    plan = rows.plan_tables(settings, settings.indexes)
    notes = [*plan.notes, *(f"index {name} is not followed: {reason}" for name, reason in plan.unwatched.items())]
    if not plan.tables:
        raise SettingsError(f"there is no table to follow: {'; '.join(notes) or 'no index is of kind sql'}")
    setup = setup_for(settings.source_url, changes, plan.tables, settings.project)
    return "".join(map(rows.comment, notes)) + setup.script()


def setup_for(url: URL, changes: str, tables: Sequence[rows.WatchedTable], project: str) -> rows.Setup:
    """Return the SQL for `changes` ("wal" or "queue") of these tables, as the source is now. Nothing is written. Raises
    SettingsError if the database is too old, or a table cannot be followed, SourceUnavailable if the source does not
    answer, and SourceError if the source cannot be read."""
    if changes == "queue":
        with closing(open_queue(url, tables, project)) as queue:
            return queue.setup()
    with rows.connected(url, "the tables to watch") as connection:
        return wal_setup(connection, tables, project)


@dataclass(slots=True)
class OpenedFeeds:
    """The feeds of a watch, each with the names of the indexes whose changes it gives."""

    feeds: list[tuple[ChangeFeed, Sequence[str]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a person should know: sentences for the start of a watch."""
    unwatched: dict[str, str] = field(default_factory=dict)
    """The reasons why changes of some indexes are not seen, by their names."""
    blind: dict[str, str] = field(default_factory=dict)
    """What is not seen of an index, in one sentence, by its name."""

    def add(self, feed: ChangeFeed, name: str, *, blind: str, note: str = "") -> None:
        """Add the feed of an index: with what it does not see, and what a person should know of it."""
        self.feeds.append((feed, [name]))
        self.blind[name] = blind
        self.notes += [note] if note else []

    def close(self) -> None:
        for feed, _ in self.feeds:
            feed.close()


def open_feeds(settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> OpenedFeeds:
    """Return the feeds of these indexes: one of the database for all, and one for each other index. An index whose
    changes cannot be seen is left out, and a note says why. Raises SourceUnavailable, SourceError, and SettingsError if
    none of the indexes can be watched."""
    opened = OpenedFeeds()
    with ExitStack() as stack:
        stack.callback(opened.close)
        _add_tables(opened, settings, [index for index in indexes if index.kind == SQL], ledger)
        for index in indexes:
            if index.kind == CODE:
                feed = FileFeed(settings, index, ledger)
                blind = "changes in a folder are not recorded while it is not watched"
                opened.add(feed, index.name, blind=blind)
            elif index.kind != SQL:
                source = open_source(settings, index)
                stack.callback(source.close)
                if open_feed := getattr(source, "open_feed", None):
                    blind = "the feed of its source may not record changes while no watch runs"
                    opened.add(open_feed(), index.name, blind=blind)
                else:
                    opened.unwatched[index.name] = f"its source, of kind {index.kind!r}, does not tell what changed"
        names: dict[str, list[str]] = {}
        for name, reason in opened.unwatched.items():
            names.setdefault(reason, []).append(name)
        said = [f"{', '.join(some)}: {reason}" for reason, some in names.items()]
        if len(opened.unwatched) == len(indexes):  # the feed of a database may still be that of other indexes
            raise SettingsError(f"no index can be watched: {'; '.join(said)}")
        opened.notes += [f"not watched, and brought up to date by the next run: {one}" for one in said]
        stack.pop_all()
    return opened


def _add_tables(opened: OpenedFeeds, settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> None:
    unseen: Mapping[str, str] = dict.fromkeys(
        (index.name for index in indexes),
        'it has no changed_since; name one, or set [source] changes to "queue" or "wal"',
    )
    if indexes and settings.source.changes != "poll":
        # log and queue have the changes of all indexes; watching some must not forget those of the others
        plan = rows.plan_tables(settings, settings.indexes)
        opened.notes += plan.notes
        opened.blind |= {name: "; ".join(blind) for name, blind in plan.blind.items()}
        unseen = plan.unwatched
        if plan.routes:
            feed = open_row_feed(settings, plan, ledger)
            opened.feeds.append((feed, feed.indexes()))
    for index in indexes:
        if index.name in unseen and index.changed_since is None:
            opened.unwatched[index.name] = unseen[index.name]
        elif index.name in unseen:
            polled = PollFeed(settings, index, ledger)
            opened.add(polled, index.name, blind=polled.blind, note=polled.note)
