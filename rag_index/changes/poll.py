"""Polling: the rows whose `changed_since` has risen, asked for every few seconds, for any database.

A row may be committed later than it is dated. So each poll looks back from the latest time that it knows: usually
`QUICK_OVERLAP`, and every `THOROUGH_SECONDS` as far as the next run will (`changed_overlap`, and more where the column
does not tell its time zone). What was given within that time is remembered by key and time, and not given again.

The first poll begins at the watermark of the last complete run. That run read everything before, and a change since
then is given whether or not a watch was running.

Who may see a document changes without a time. So the groups of all documents are read and compared with the stamps
that the ledger has of them: at once when the watch begins, and then again and again, a part of them with each poll.
"""

from __future__ import annotations

import datetime as dt
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from rag_index.changes import DocumentChange, Received
from rag_index.documents.keys import document_id
from rag_index.ledger.records import Collection, Position
from rag_index.sources import scan_settings
from rag_index.sources.buckets import time_watermark
from rag_index.sources.changed import ChangedSource
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rag_index.errors import RagIndexError
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings

QUICK_OVERLAP = 60.0
"""Seconds by which most late commits are late."""
THOROUGH_SECONDS = 60.0
"""Seconds between two polls that look back as far as the next run."""
GROUPS = 500
"""Documents whose groups are read at once."""
SHARE = 0.1
"""The share of the time that reading groups may take."""
FUTURE = dt.timedelta(hours=14)
"""A time without a zone may be this much later than UTC. A later one is an error, and never the latest."""
LONG_AGO = float("-inf")

Stamps = tuple[str | None, str]
"""The stamp of a document's groups in the ledger, if it has one, and that of its groups in the source."""


@dataclass(frozen=True, slots=True)
class _Given:
    """What was given so far. What a poll gives makes it another one, which counts once that is acknowledged."""

    since: str | None = None
    """The watermark from which the next thorough poll looks; None before the first poll."""
    latest: Any = None
    floor: Any = None
    """After more changes than a burst, the latest time among them: a run takes care of all up to it."""
    times: Mapping[str, Any] = field(default_factory=dict)
    """The times, by key, that may be found again."""
    stamps: Mapping[str, Stamps] = field(default_factory=dict)
    """By key, of documents whose change of groups was given, or that the ledger has no stamp of."""
    cursor: Any = None
    """How far this look at all groups has come."""
    next_thorough: float = LONG_AGO
    next_look: float = LONG_AGO


class PollFeed:
    """The rows of one index whose time of change has risen, as a `ChangeFeed`."""

    def __init__(
        self, settings: Settings, index: IndexSettings, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._index, self._ledger, self._clock = settings, index, ledger, clock
        self._source = ChangedSource(settings.source_url, index, timeout=settings.source.timeout)
        self._given = _Given()
        self._next_poll = LONG_AGO

    @property
    def note(self) -> str:
        """What a person should know of this way of following changes."""
        every = f"every {self._settings.watch.poll_seconds:g} s, which needs a database index on it"
        return f"index {self._index.name}: polled by {self._index.changed_since!r} {every}; {self.blind}"

    @property
    def blind(self) -> str:
        """What is never seen, or not while nobody watches."""
        others = ", and no changes of joined rows and of parts" if self._index.joins or self._index.parts else ""
        groups = ", and new groups only after a while" if self._index.access else ""
        return (
            "polling sees no deletions, no rows without a time, and no changes that are committed more than "
            f"{self._index.changed_overlap:g} s after their time{others}{groups}: the next run finds these"
        )

    def check(self) -> Mapping[str, RagIndexError]:
        """Check the source, and that the column of `changed_since` holds times."""
        self._source.check()
        self._source.watermark()  # raises SettingsError if the column holds no times
        return {}

    def receive(self, limit: int) -> Received:
        """Return what has risen since the last poll, if it is time to poll: all of it, unless it is a burst."""
        if self._clock() < self._next_poll:
            return Received(())
        looked_at, name, burst = time.time(), self._index.name, self._settings.watch.burst_documents
        since = self._given.since
        if since is None and (collection := self._live_collection()) is not None:  # from where the last run has read
            record = self._ledger.scan_state(collection.id)
            if record is not None and record.settings == scan_settings(self._settings, self._index):
                since = time_watermark(record.watermark)
        if since is None:  # a run has to read all of it
            return Received((), replace(self._given, since=self._source.watermark() or ""), overflow=(name,))
        after, found = self._poll(since)
        after, moved = self._look_at_groups(after)
        self._next_poll = self._clock() + self._settings.watch.poll_seconds
        if max(len(found), len(moved)) > burst:
            return Received((), replace(after, floor=after.latest), overflow=(name,))
        now = time.time()
        changes = [DocumentChange(name, document_id(key), _seconds(at, now)) for key, at in (moved | found).items()]
        return Received(changes, after, through={name: Position(looked_at, how="poll")})

    def acknowledge(self, received: Received) -> None:
        """Do not give these changes again until their time rises."""
        if received.position is not None:
            self._given = received.position

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds."""
        time.sleep(max(0.0, min(seconds, self._next_poll - self._clock())))

    def close(self) -> None:
        """Close what the feed holds open."""
        self._source.close()

    def _poll(self, since: str) -> tuple[_Given, dict[str, Any]]:
        """Return the times, by key, that changed and were not given, and what is given with them.

        `since` is the watermark for a thorough poll. Of more than a burst, one more is returned.
        """
        given, found, still = self._given, dict[str, Any](), dict[str, Any]()
        thorough, latest, next_since = given.latest is None or self._clock() >= given.next_thorough, given.latest, since
        if thorough:
            next_since = self._source.watermark() or ""
        else:
            since = self._source.watermark_at(latest, min(QUICK_OVERLAP, self._index.changed_overlap))
        for key, changed_at in self._source.changed_keys(since or None):
            latest = _later(latest, changed_at)
            if given.times.get(key) == changed_at:
                still[key] = changed_at
            elif len(found) <= self._settings.watch.burst_documents:
                at = changed_at if isinstance(changed_at, dt.date) else str(changed_at)
                if given.floor is None or at > given.floor:
                    found[key] = changed_at
        # what a thorough poll does not find any more is forgotten
        times = still | found if thorough else {**given.times, **found} if found else given.times
        next_thorough = self._clock() + THOROUGH_SECONDS if thorough else given.next_thorough
        after = replace(given, since=next_since, latest=latest, times=times, next_thorough=next_thorough)
        return after, found

    def _look_at_groups(self, given: _Given) -> tuple[_Given, dict[str, Stamps]]:
        """Return the stamps, by key, of documents with other groups than the index has, that were not given for that.

        All documents are looked at first, then as many as the time allows. If the ledger has no stamp of a document,
        the groups that are found first are taken for those of the index.
        """
        if self._index.access is None or self._clock() < given.next_look:
            return given, {}
        began, cursor, moved, seen = self._clock(), given.cursor, dict[str, Stamps](), dict(given.stamps)
        time_left = SHARE * self._settings.watch.poll_seconds if given.next_look != LONG_AGO else float("inf")
        collection = self._live_collection()
        while collection is not None:
            stamps, cursor = self._source.access_stamps(cursor, GROUPS)
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
        pause = max(THOROUGH_SECONDS if cursor is None else 0.0, (self._clock() - began) / SHARE)
        return replace(given, stamps=seen, cursor=cursor, next_look=self._clock() + pause), moved

    def _live_collection(self) -> Collection | None:
        live = live_aliases(self._settings.store).get(self._settings.alias(self._index.name))
        return self._ledger.collection(live) if live else None


def _later(latest: Any, changed_at: Any) -> Any:
    """Return the later of two times, unless it cannot be true."""
    now = dt.datetime.now(dt.UTC) + FUTURE
    if isinstance(changed_at, dt.datetime):
        limit: Any = now if changed_at.tzinfo is not None else now.replace(tzinfo=None)
    elif isinstance(changed_at, dt.date):
        limit = now.date()
    else:
        limit, changed_at = f"{now.date()}~", str(changed_at)  # no text that begins with this date is later
    if changed_at > limit:
        return latest
    return changed_at if latest is None or changed_at > latest else latest


def _seconds(changed_at: Any, now: float) -> float:
    """Return a time in seconds since 1970: that of the poll, if the column does not tell its time zone."""
    if isinstance(changed_at, dt.datetime) and changed_at.tzinfo is not None:
        return min(changed_at.timestamp(), now)
    return now
