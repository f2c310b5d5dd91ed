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
from itertools import islice
from typing import TYPE_CHECKING, Any

from rag_index.changes import DocumentChange, Received
from rag_index.documents.keys import document_id
from rag_index.documents.positions import Position
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

Stamps = tuple[str | None, str]
"""The stamp of a document's groups in the ledger, if it has one, and that of its groups in the source."""


class PollFeed:
    """The rows of one index whose time of change has risen, as a `ChangeFeed`."""

    def __init__(
        self, settings: Settings, index: IndexSettings, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._index = index
        self._ledger = ledger
        self._clock = clock
        self._source = ChangedSource(settings.source_url, index, timeout=settings.source.timeout)
        self._floor: Any = None
        """After more changes than a burst, the latest time among them: a run takes care of all up to it."""
        self._started = False
        self._latest: Any = None
        self._given: dict[str, Any] = {}
        """The times, by key, that were acknowledged and may be found again."""
        self._found: dict[str, Any] = {}
        """The times, by key, that were found and are not acknowledged."""
        self._stamps: dict[str, Stamps] = {}
        """The stamps, by key, of documents whose change of groups was acknowledged, or that the ledger has none of."""
        self._moved: dict[str, Stamps] = {}
        """The stamps, by key, of documents whose groups have changed, and that are not acknowledged."""
        self._collection: int | None = None
        self._looked_at: float | None = None
        """When the last poll began."""
        self._cursor: Any = None
        """How far this look at all groups has come."""
        self._next_poll = self._next_thorough = self._next_look = float("-inf")

    @property
    def note(self) -> str:
        """What this way of following changes cannot see."""
        others = "; changes of joined rows and of parts are, too" if self._index.joins or self._index.parts else ""
        groups = "; the groups of all documents are read for a tenth of the time" if self._index.access else ""
        return (
            f"index {self._index.name}: polled by {self._index.changed_since!r} every "
            f"{self._settings.watch.poll_seconds:g} s: deletions, rows without a time, and changes that are committed "
            f"more than {self._index.changed_overlap:g} s after their time are found by the next run; the column needs "
            f"a database index{others}{groups}"
        )

    @property
    def blind(self) -> str:
        """What is never seen, or not while nobody watches."""
        others = ", and no changes of joined rows and of parts" if self._index.joins or self._index.parts else ""
        groups = ", and new groups only after a while" if self._index.access else ""
        return f"polling sees no deletions, no rows without a time, no changes that are committed late{others}{groups}"

    def check(self) -> Mapping[str, RagIndexError]:
        """Check the source, and that the column of `changed_since` holds times."""
        self._source.check()
        self._source.watermark()  # raises SettingsError if the column holds no times
        return {}

    def receive(self, limit: int) -> Received:
        """Return at most `limit` changes. Between two polls these are what the last one found beyond that."""
        looked_at = time.time()
        looked = not self._found and not self._moved and self._clock() >= self._next_poll
        if looked:
            if (overflow := self._poll() or self._look_at_groups()) is not None:
                return overflow
            self._next_poll = self._clock() + self._settings.watch.poll_seconds
            self._looked_at = looked_at
        some = list(islice(self._found.items(), limit))
        moved = list(islice(self._moved.items(), limit - len(some)))
        name, now = self._index.name, time.time()
        changes = [DocumentChange(name, document_id(key), _seconds(at, now)) for key, at in (*some, *moved)]
        more = len(changes) < len(self._found) + len(self._moved)
        through = {} if more or self._looked_at is None else {name: Position(self._looked_at, how="poll")}
        return Received(changes, (some, moved), more, behind=() if looked else (name,), through=through)

    def acknowledge(self, received: Received) -> None:
        """Do not give these changes again until their time rises."""
        if received.overflow:
            self._started, self._floor = True, received.position
            some, moved = [], list(self._moved.items())
        else:
            some, moved = received.position
        for key, changed_at in some:
            self._given[key] = changed_at
            self._found.pop(key, None)
        for key, stamps in moved:
            self._stamps[key] = stamps
            self._moved.pop(key, None)

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds."""
        time.sleep(max(0.0, min(seconds, self._next_poll - self._clock())))

    def close(self) -> None:
        """Close what the feed holds open."""
        self._source.close()

    def _poll(self) -> Received | None:
        """Look for changes. Return an overflow if they are too many, or if no run has read this index yet."""
        thorough = self._clock() >= self._next_thorough or self._latest is None
        if not self._started:
            since = self._watermark_of_last_run()
            if since is None:
                return Received((), None, overflow=(self._index.name,))
            self._started = True
        elif thorough:
            since = self._source.watermark()
        else:
            since = self._source.watermark_at(self._latest, min(QUICK_OVERLAP, self._index.changed_overlap))
        if not self._collect(since, forget=thorough):
            return Received((), self._latest, overflow=(self._index.name,))
        if thorough:
            self._next_thorough = self._clock() + THOROUGH_SECONDS
        return None

    def _collect(self, since: str | None, *, forget: bool) -> bool:
        """Find what changed since a watermark and was not given. Return False if it is more than a burst.

        With `forget`, what is not found any more is forgotten.
        """
        still: dict[str, Any] = {}
        too_many = False
        for key, changed_at in self._source.changed_keys(since):
            self._latest = _later(self._latest, changed_at)
            if self._given.get(key) == changed_at:
                still[key] = changed_at
            elif not too_many and _is_later(changed_at, self._floor):
                self._found[key] = changed_at
                too_many = len(self._found) > self._settings.watch.burst_documents
        if too_many:
            self._found.clear()
        elif forget:
            self._given = still
        return not too_many

    def _look_at_groups(self) -> Received | None:
        """Look for documents with other groups than the index has: all at first, then as many as the time allows.

        Return an overflow if they are more than a burst.
        """
        if self._index.access is None or self._clock() < self._next_look:
            return None
        began, first = self._clock(), self._next_look == float("-inf")
        share = SHARE * self._settings.watch.poll_seconds
        if self._cursor is None:
            self._collection = self._live_collection()
        while self._collection is not None:
            stamps, self._cursor = self._source.access_stamps(self._cursor, GROUPS)
            self._compare(stamps, self._ledger.committed_stamps(self._collection, list(stamps)))
            if len(self._moved) > self._settings.watch.burst_documents:
                return Received((), self._latest, overflow=(self._index.name,))
            if self._cursor is None or (not first and self._clock() - began >= share):
                break
        rest = 0.0 if self._cursor is not None else THOROUGH_SECONDS
        self._next_look = self._clock() + max(rest, (self._clock() - began) / SHARE)
        return None

    def _compare(self, stamps: Mapping[str, str], committed: Mapping[str, str]) -> None:
        """Find which of the documents have other groups than the ledger knows, and were not given for that.

        If the ledger has no stamp of a document, the groups that are found first are taken for those of the index.
        """
        for key, stamp in stamps.items():
            known = committed.get(key)
            if stamp == known:
                self._stamps.pop(key, None)
            elif known is None and key not in self._stamps:
                self._stamps[key] = (known, stamp)
            elif self._stamps.get(key) != (known, stamp):
                self._moved[key] = (known, stamp)

    def _live_collection(self) -> int | None:
        live = live_aliases(self._settings.store).get(self._settings.alias(self._index.name))
        collection = self._ledger.collection(live) if live else None
        return collection.id if collection else None

    def _watermark_of_last_run(self) -> str | None:
        """Return the watermark that the last complete run of this index left, None if there was none."""
        collection = self._live_collection()
        record = self._ledger.scan_state(collection) if collection is not None else None
        if record is None or record.settings != scan_settings(self._settings, self._index):
            return None
        return time_watermark(record.watermark)


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


def _is_later(changed_at: Any, floor: Any) -> bool:
    return floor is None or (changed_at if isinstance(changed_at, dt.date) else str(changed_at)) > floor


def _seconds(changed_at: Any, now: float) -> float:
    """Return a time in seconds since 1970: that of the poll, if the column does not tell its time zone."""
    if isinstance(changed_at, dt.datetime) and changed_at.tzinfo is not None:
        return min(changed_at.timestamp(), now)
    return now
