"""The feeds that a watch of some indexes needs, as one: databases, polled indexes, folders, other packages' sources."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy import exc

from rag_index.changes import Received, WatchableSource
from rag_index.changes.files import FileFeed
from rag_index.changes.poll import PollFeed
from rag_index.changes.postgres import SlotState
from rag_index.changes.queues import QueueFeed
from rag_index.changes.queues.postgres import SCHEMA
from rag_index.changes.wal import WalFeed
from rag_index.changes.watched_tables import RoutedFeed, Router, object_name, plan_tables
from rag_index.errors import RagIndexError, SettingsError, SourceError, SourceUnavailable
from rag_index.settings.index import CODE, SQL
from rag_index.sources import open_source
from rag_index.sources.engine import open_read_only

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.changes import ChangeFeed, DocumentChange, LookUp
    from rag_index.changes.rows import RowFeed, WatchedTable
    from rag_index.documents.positions import Position
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings

SLICE = 0.25
"""Seconds in which each of several feeds is waited for once."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""Seconds for which a feed that failed is left alone, doubled each time."""


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


@dataclass(slots=True)
class _Part:
    """One of the feeds, and the indexes whose changes it gives."""

    feed: ChangeFeed
    names: Sequence[str]
    error: RagIndexError | None = None
    """Why it gives nothing now."""
    pause: float = 0.0
    not_before: float = float("-inf")
    """When it may be asked again."""


class JoinedFeed:
    """The feeds of all indexes of a watch, as a `ChangeFeed`. One that fails keeps no other from giving changes."""

    def __init__(
        self,
        feeds: Iterable[tuple[ChangeFeed, Sequence[str]]] = (),
        *,
        blind: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Join feeds, each with the names of its indexes."""
        self._parts = [_Part(feed, names) for feed, names in feeds]
        self._clock = clock
        self.notes: list[str] = []
        """What a person should know: sentences for the start of a watch."""
        self.unwatched: dict[str, str] = {}
        """The reasons why changes of some indexes are not seen, by their names."""
        self.blind = dict(blind or {})
        """What is not seen of an index, in one sentence, by its name."""

    def add(self, feed: ChangeFeed, *names: str, blind: str = "", note: str = "") -> None:
        """Add a feed of these indexes: with what it does not see of each, and what a person should know of it."""
        self._parts.append(_Part(feed, names))
        self.blind |= dict.fromkeys(names, blind) if blind else {}
        self.notes += [note] if note else []

    def note_unwatched(self) -> None:
        """Add a note for each reason to leave indexes out. Raises SettingsError if there is no feed."""
        left_out: dict[str, list[str]] = {}
        for name, reason in self.unwatched.items():
            left_out.setdefault(reason, []).append(name)
        said = [f"{', '.join(names)}: {reason}" for reason, names in left_out.items()]
        if not self._parts:
            raise SettingsError(f"no index can be watched: {'; '.join(said)}")
        self.notes += [f"not watched, and brought up to date by the next run: {one}" for one in said]

    @property
    def errors(self) -> dict[str, RagIndexError]:
        """Why no changes of some indexes are received now, by their names."""
        return {name: part.error for part in self._parts if part.error is not None for name in part.names}

    def check(self) -> dict[str, RagIndexError]:
        """Return why changes of some indexes are not seen, by their names."""
        found: dict[str, RagIndexError] = {}
        for part in self._parts:
            try:
                found |= part.feed.check() or {}  # a feed of another package may return nothing
            except RagIndexError as error:
                found |= dict.fromkeys(part.names, error)
        return found

    def receive(self, limit: int) -> Received:
        """Return changes of the feeds in turn, about `limit` in all. What the feeds raise is in `errors`."""
        changes: list[DocumentChange] = []
        look_ups: list[LookUp] = []
        received: list[tuple[_Part, Received]] = []
        overflow: dict[str, None] = {}
        behind: dict[str, None] = {}
        through: dict[str, Position] = {}
        more = False
        for part in self._parts:
            if len(changes) + len(look_ups) >= limit:
                more = True  # perhaps: the next call asks it first
                break
            given = self._ask(part, limit - len(changes) - len(look_ups))
            if given is None:
                behind.update(dict.fromkeys(part.names))
                continue
            changes += given.changes
            look_ups += given.look_ups
            overflow.update(dict.fromkeys(given.overflow))
            behind.update(dict.fromkeys(given.behind))
            through.update(given.through)
            received.append((part, given))
            more = more or given.more
        self._parts = [*self._parts[1:], *self._parts[:1]]
        return Received(changes, received, more, tuple(overflow), look_ups, tuple(behind), through)

    def acknowledge(self, received: Received) -> None:
        """Let each source forget its changes. What the feeds raise is in `errors`."""
        for part, given in received.position:
            try:
                part.feed.acknowledge(given)
            except RagIndexError as error:
                self._leave_alone(part, error)
            else:
                part.error, part.pause = None, 0.0

    def wait(self, seconds: float) -> None:
        """Wait for each feed in turn, until one may have changes or this many seconds have passed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            ready = [part for part in self._parts if part.not_before <= self._clock()]
            if any(part.error for part in ready):
                return
            if not ready:
                time.sleep(min(SLICE, left))
            for part in ready:
                most = min(SLICE, left) / len(ready)
                began = time.monotonic()
                part.feed.wait(most)
                if time.monotonic() - began < most:
                    return

    def close(self) -> None:
        """Close all feeds."""
        for part in self._parts:
            part.feed.close()

    def _ask(self, part: _Part, limit: int) -> Received | None:
        """Return what a feed gives; None if it fails, or has failed and is to be left alone."""
        if self._clock() < part.not_before:
            return None
        try:
            return part.feed.receive(limit)
        except RagIndexError as error:
            self._leave_alone(part, error)
            return None

    def _leave_alone(self, part: _Part, error: RagIndexError) -> None:
        part.error, part.pause = error, min(MAX_PAUSE, part.pause * 2 or FIRST_PAUSE)
        part.not_before = self._clock() + part.pause
