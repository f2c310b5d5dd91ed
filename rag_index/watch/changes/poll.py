"""Polling: the rows whose `changed_since` has risen, for any database, and files, looked at every few seconds.

A row may be committed later than it is dated. So each poll looks back as far as the next run will (`OVERLAP`,
and more where the column does not tell its time zone), from the latest time that the database's clock does not deny. A
poll that takes long is followed by a longer pause. What is found is remembered by key and time, and not given again.

The first poll begins at the watermark of the last complete run. That run read everything before, and a change since
then is given whether or not a watch was running. With digests, which have no such watermark, a run begins.

Who may see a document changes without a time. So the groups of all documents are read and compared with the stamps
that the ledger has of them: at once when the watch begins, and then again and again, a part of them with each poll.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.components.ledger.tables import Collection, Position
from rag_index.components.sources import has_digests, scan_settings
from rag_index.components.sources.changed_rows import OVERLAP, ChangedSource
from rag_index.components.sources.code import CodeSource
from rag_index.components.sources.engine import errors_as_ours, open_read_only
from rag_index.components.sources.source_tables import relations_read, tables_read
from rag_index.components.stores import live_aliases
from rag_index.core.documents.keys import document_id
from rag_index.core.settings.sections import WATCH_DATABASES
from rag_index.watch.changes import DocumentChange, Received
from rag_index.watch.changes.rows import WatchedTable, definition, plan_tables

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.errors import RagIndexError

ACCESS_LOOK_SECONDS = 60.0
"""Seconds between two looks at all groups."""
STAMPS_AT_ONCE = 500
"""Documents whose groups are read at once."""
POLL_SHARE = 0.1
"""The share of the time that polls may take, and that reading groups may take."""
LISTING_SHARE = 0.02
"""The share of the time that listing a folder may take."""
MAX_FILES = 2000
"""More changed files than this are left to an ordinary run, which parses on all workers."""
SAME_SECOND, QUARTER = 3.0, 900.0
"""Until so long after its time, a row that has whole seconds may change again with the same time. The zone of a time
may be unknown, and zones differ by quarters of an hour."""
LONG_AGO = float("-inf")

Stamps = tuple[str | None, str]
"""The stamp of a document's groups in the ledger, if it has one, and that of its groups in the source."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given so far. What a poll gives makes it another one, which counts once that is acknowledged."""

    since: str | None = None
    """The watermark from which the next poll looks; None before the first one."""
    seen: Set[int] = frozenset()
    """Hashes of the keys and times that the last poll found: the rows themselves would take too much memory."""
    stamps: Mapping[str, Stamps] = field(default_factory=dict)
    """By key, of documents whose change of groups was given, or that the ledger has no stamp of."""
    cursor: Any = None
    """How far this look at all groups has come."""
    next_look: float = LONG_AGO


class IndexFeed:
    """What the feeds share that look at the source of one index every `poll_seconds`, or less often."""

    def __init__(
        self, settings: Settings, index: IndexSettings, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._index, self._ledger, self._clock = settings, index, ledger, clock
        self._next_look = LONG_AGO

    def wait(self, seconds: float) -> None:
        time.sleep(max(0.0, min(seconds, self._next_look - self._clock())))

    def _rest(self, began: float, share: float) -> None:
        """Look again after `poll_seconds`, or later: looks like this one, from `began` on, may take that share."""
        now = self._clock()
        self._next_look = now + max(self._settings.watch.poll_seconds, (now - began) / share)

    def _live_collection(self) -> Collection | None:
        live = live_aliases(self._settings.store).get(self._settings.alias(self._index.name))
        return self._ledger.collection(live) if live else None


class PollFeed(IndexFeed):
    """The rows of one index whose time of change has risen, as a `ChangeFeed`."""

    def __init__(self, settings: Settings, index: IndexSettings, ledger: Ledger, **how: Any) -> None:
        super().__init__(settings, index, ledger, **how)
        self._source = ChangedSource(settings.source_url, index, timeout=settings.source.timeout)
        self._engine = open_read_only(settings.source_url)
        self._tables: list[WatchedTable] | None = None
        self._given = _Given()

    @property
    def note(self) -> str:
        """What a person should know of this way of following changes."""
        every = f"every {self._settings.watch.poll_seconds:g} s, which needs a database index on it"
        return f"index {self._index.name}: polled by {self._index.changed_since!r} {every}; {self.blind}"

    @property
    def blind(self) -> str:
        """What is never seen, or not while no watch runs."""
        others = ", and no changes of joined rows and of parts" if self._index.joins or self._index.parts else ""
        groups = ", and new groups only after a while" if self._index.access else ""
        return (
            "polling sees no deletions, no older copy of the source, no rows without a time, and no changes that are "
            f"committed more than {OVERLAP.total_seconds():g} s after their time{others}{groups}: the next run "
            "finds these"
        )

    def check(self) -> Mapping[str, RagIndexError]:
        """Check the source, and that the column of `changed_since` holds times."""
        self._source.check()
        self._source.watermark()  # raises SettingsError if the column holds no times
        return {}

    def receive(self, limit: int) -> Received:
        """Return what has risen since the last poll, if it is time to poll: all of it, unless it is a burst."""
        began, looked_at = self._clock(), time.time()
        if began < self._next_look:
            return Received(())
        name = self._index.name
        since = self._given.since
        if since is None and (collection := self._live_collection()) is not None:  # from where the last run has read
            record = self._ledger.scan_state(collection.id)
            if record is not None and record.settings == scan_settings(self._settings, self._index):
                since = None if has_digests(self._settings, self._index) else record.watermark
        if since is None:  # a run has to read all of it
            return Received((), replace(self._given, since=self._source.watermark() or ""), overflow=(name,))
        after, found = self._poll(since)
        took = self._clock() - began
        after, moved = self._look_at_groups(after)
        self._rest(self._clock() - took, POLL_SHARE)
        if max(len(found), len(moved)) > self._settings.watch.burst_documents:
            return Received((), after, overflow=(name,))
        now = time.time()
        changes = [DocumentChange(name, document_id(key), _seconds(at, now)) for key, at in (moved | found).items()]
        through = {name: Position(looked_at, how="poll")}
        return Received(changes, after, through=through, definitions=self._definitions())

    def acknowledge(self, received: Received) -> None:
        if received.position is not None:
            self._given = received.position

    def close(self) -> None:
        self._source.close()
        self._engine.dispose()

    def _poll(self, since: str) -> tuple[_Given, dict[str, Any]]:
        """Return the times, by key, that changed and were not given, and what is given with them. `since` is the
        watermark from which to look. Of more than a burst, one more is returned."""
        found, seen, again, before = dict[str, Any](), set[int](), set[int](), self._given.seen
        next_since = self._source.watermark() or ""
        for key, changed_at in self._source.changed_keys(since or None):
            seen.add(this := hash((key, changed_at)))
            if this not in before and len(found) <= self._settings.watch.burst_documents:
                found[key] = changed_at
                again |= {this} if _may_come_again(changed_at, self._source.now) else set()
        seen -= again if len(found) <= self._settings.watch.burst_documents else set()  # else a run reads them, later
        return replace(self._given, since=next_since, seen=seen), found

    def _definitions(self) -> dict[str, str]:
        url, what = self._settings.source_url, "the definition of the polled tables"
        if url.get_backend_name() not in WATCH_DATABASES["queue"]:
            return {}
        with errors_as_ours(url, what), self._engine.connect() as connection:
            if self._tables is None:
                plan = plan_tables(self._settings, [self._index])
                named = () if plan.tables else relations_read(self._index.model_dump(by_alias=True))
                read = sorted(tables_read(connection, named))
                self._tables = [*plan.tables, *(WatchedTable(table, None, ()) for table in read)]
            return {self._index.name: definition(connection, self._tables)}

    def _look_at_groups(self, given: _Given) -> tuple[_Given, dict[str, Stamps]]:
        """Return the stamps, by key, of documents with other groups than the index has, that were not given for that.
        All documents are looked at first, then as many as the time allows. If the ledger has no stamp of a document,
        the groups that are found first are taken for those of the index."""
        if self._index.access is None or self._clock() < given.next_look:
            return given, {}
        began, cursor, moved, seen = self._clock(), given.cursor, dict[str, Stamps](), dict(given.stamps)
        time_left = POLL_SHARE * self._settings.watch.poll_seconds if given.next_look != LONG_AGO else float("inf")
        collection = self._live_collection()
        while collection is not None:
            stamps, cursor = self._source.access_stamps(cursor, STAMPS_AT_ONCE)
            committed = self._ledger.committed_stamps(collection.id, list(stamps))
            for key, stamp in stamps.items():
                known = committed.get(key)
                if stamp == known:
                    seen.pop(key, None)
                elif seen.get(key) != (known, stamp):
                    if known is not None or key in seen:
                        moved[key] = known, stamp
                    seen[key] = known, stamp
            if (
                cursor is None
                or self._clock() - began >= time_left
                or len(moved) > self._settings.watch.burst_documents
            ):
                break
        pause = max(ACCESS_LOOK_SECONDS if cursor is None else 0.0, (self._clock() - began) / POLL_SHARE)
        return replace(given, stamps=seen, cursor=cursor, next_look=self._clock() + pause), moved


def _may_come_again(changed_at: Any, now: dt.datetime) -> bool:
    with suppress(ValueError):
        time = dt.datetime.fromisoformat(changed_at) if isinstance(changed_at, str) else changed_at
        if isinstance(time, dt.datetime) and not time.microsecond:
            age = now - (time if time.tzinfo is not None else time.replace(tzinfo=dt.UTC))
            return (age.total_seconds() + 1) % QUARTER < SAME_SECOND + 1
    return False


def _seconds(changed_at: Any, now: float) -> float:
    if isinstance(changed_at, dt.datetime) and changed_at.tzinfo is not None:
        return min(changed_at.timestamp(), now)
    return now


class FileFeed(IndexFeed):
    """The files of one index of source code, as a `ChangeFeed`. A change is a difference between two listings of the
    folder, by the rules and stamps of any scan. So a renamed folder, a file that an editor replaces, another branch or
    a changed .gitignore need no rules of their own. The first listing is compared with the ledger. Events of the file
    system would only say when to list, and not on a network."""

    def __init__(self, settings: Settings, index: IndexSettings, ledger: Ledger, **how: Any) -> None:
        super().__init__(settings, index, ledger, **how)
        self._source = CodeSource(settings.root(index), index)
        self._stamps: Mapping[str, str] | None = None
        """The stamps of the files by typed key, in the last listing that was acknowledged."""

    def check(self) -> Mapping[str, RagIndexError]:
        self._source.check()
        return {}

    def receive(self, limit: int) -> Received:
        """Return what differs from the last listing, at most `MAX_FILES` changes, if it is time to list."""
        began, now, name = self._clock(), time.time(), self._index.name
        if began < self._next_look:
            return Received(())
        stamps, unreadable = self._source.stamps()
        self._rest(began, LISTING_SHARE)
        before = self._stamps if self._stamps is not None else self._in_ledger(stamps)
        for key in before.keys() - stamps.keys():
            if not unreadable.isdisjoint(f"{one.as_posix()}/" for one in Path(document_id(key)).parents):
                stamps[key] = before[key]
        changed = sorted(key for key in before.keys() | stamps.keys() if before.get(key) != stamps.get(key))
        if len(changed) > MAX_FILES:
            return Received((), stamps, overflow=(name,))
        changes = [DocumentChange(name, document_id(key), now) for key in changed]
        return Received(changes, stamps, through={name: Position(now, how="files")})

    def acknowledge(self, received: Received) -> None:
        if received.position is not None:
            self._stamps = received.position

    def close(self) -> None:
        self._source.close()

    def _in_ledger(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """Return the stamps that the ledger has of these files, and an empty one for each other known document."""
        if (collection := self._live_collection()) is None:
            return {}
        known = dict.fromkeys(self._ledger.keys_under(collection.id, ""), "")
        return known | self._ledger.committed_stamps(collection.id, list(stamps))
