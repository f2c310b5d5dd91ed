"""Several feeds as one: those of the database, of polled indexes, of folders, and of sources of other packages."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.changes import Received
from rag_index.errors import RagIndexError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.changes import ChangeFeed, DocumentChange, LookUp
    from rag_index.documents.positions import Position

SLICE = 0.25
"""Seconds in which each of several feeds is waited for once."""
FIRST_PAUSE, MAX_PAUSE = 1.0, 60.0
"""Seconds for which a feed that failed is left alone, doubled each time."""


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
