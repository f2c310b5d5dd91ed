"""The feeds that a watch of some indexes needs, as one feed."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.changes import WatchableSource
from rag_index.changes.files import FileFeed
from rag_index.changes.joined import JoinedFeed
from rag_index.changes.poll import PollFeed
from rag_index.changes.queue import QueueFeed
from rag_index.changes.routing import RoutedFeed, Router
from rag_index.changes.wal import WalFeed
from rag_index.changes.watched_tables import plan_tables
from rag_index.errors import SettingsError, SourceError, SourceUnavailable
from rag_index.settings.index import CODE, SQL
from rag_index.sources import open_source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.changes import ChangeFeed
    from rag_index.changes.rows import RowFeed, WatchedTable
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings


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


def open_feed(settings: Settings, indexes: Sequence[IndexSettings], ledger: Ledger) -> JoinedFeed:
    """Return the feed of these indexes: one of the database for all, and one for each other index.

    An index whose changes cannot be seen is left out, and a note says why.

    Raises SourceUnavailable, SourceError, and SettingsError if none of the indexes can be watched.
    """
    with ExitStack() as opened:
        opening = _Opening(settings, ledger, opened)
        opening.add_tables([index for index in indexes if index.kind == SQL])
        for index in indexes:
            if index.kind == CODE:
                opening.add_files(index)
            elif index.kind != SQL:
                opening.add_own(index)
        opening.end()
        opened.pop_all()
    unwatched = [name for names in opening.unwatched.values() for name in names]
    return JoinedFeed(opening.feeds, notes=opening.notes, unwatched=unwatched, blind=opening.blind)


class _Opening:
    """The feeds that are open so far, and what is to be said about them."""

    def __init__(self, settings: Settings, ledger: Ledger, opened: ExitStack) -> None:
        self._settings = settings
        self._ledger = ledger
        self._opened = opened
        self.feeds: list[tuple[ChangeFeed, Sequence[str]]] = []
        """Each with the names of its indexes."""
        self.notes: list[str] = []
        self.unwatched: dict[str, list[str]] = {}
        """The names of the indexes that are left out, by the reason."""
        self.blind: dict[str, str] = {}

    def add_tables(self, indexes: Sequence[IndexSettings]) -> None:
        """Add the feeds of the indexes of the database."""
        changes = self._settings.source.changes
        if not indexes:
            return
        if changes == "poll":
            for index in indexes:
                self._add_poll(index, 'it has no changed_since; name one, or set [source] changes to "queue" or "wal"')
            return
        # log and queue have the changes of all indexes; watching some must not forget those of the others
        plan = plan_tables(self._settings, [index for index in self._settings.indexes if index.kind == SQL])
        self.notes += plan.notes
        self.blind |= plan.blind
        if plan.routes:
            router = Router(plan.routes)
            feed = RoutedFeed(open_row_feed(self._settings, plan.tables, self._ledger), router)
            self._add(feed, *router.all_indexes())
        for index in indexes:
            if index.name in plan.unwatched:
                self._add_poll(index, plan.unwatched[index.name])

    def add_files(self, index: IndexSettings) -> None:
        """Add the feed of an index of source code."""
        feed = FileFeed(self._settings, index, self._ledger)
        self._add(feed, index.name)
        self.blind[index.name] = "nobody keeps what happens in a folder while it is not watched"
        if feed.note:
            self.notes.append(feed.note)

    def add_own(self, index: IndexSettings) -> None:
        """Add the feed that the source of another package brings, if it does."""
        source = open_source(self._settings, index)
        self._opened.callback(source.close)
        if isinstance(source, WatchableSource):
            self._add(source.open_feed(), index.name)
            self.blind[index.name] = "the feed of its source may not keep what happens while nobody watches"
        else:
            self._leave_out(index, f"its source, of kind {index.kind!r}, does not tell what changed")

    def _add_poll(self, index: IndexSettings, reason: str) -> None:
        """Poll an index by `changed_since`. Leave it out if it has none, for the reason that is given."""
        if index.changed_since is None:
            self._leave_out(index, reason)
            return
        feed = PollFeed(self._settings, index, self._ledger)
        self._add(feed, index.name)
        self.notes.append(feed.note)
        self.blind[index.name] = feed.blind

    def end(self) -> None:
        """Add a note for each reason to leave indexes out. Raises SettingsError if none is left."""
        said = [(", ".join(names), reason) for reason, names in self.unwatched.items()]
        if not self.feeds:
            raise SettingsError(f"no index can be watched: {'; '.join(f'{names}: {reason}' for names, reason in said)}")
        self.notes += [f"not watched, and brought up to date by the next run: {names}: {why}" for names, why in said]

    def _leave_out(self, index: IndexSettings, reason: str) -> None:
        self.unwatched.setdefault(reason, []).append(index.name)

    def _add(self, feed: ChangeFeed, *names: str) -> None:
        self._opened.callback(feed.close)
        self.feeds.append((feed, names))
