"""Several feeds as one: those of the database, of polled indexes, of folders, and of sources of other packages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from rag_index.changes import Received
from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.changes import ChangeFeed, DocumentChange, LookUp

__all__ = ["JoinedFeed"]

SLICE = 0.25
"""Seconds for which one of several feeds is waited for, before the next is."""


class JoinedFeed:
    """The feeds of all indexes of a watch, as a `ChangeFeed`."""

    def __init__(
        self,
        feeds: Sequence[ChangeFeed],
        *,
        notes: Sequence[str] = (),
        unwatched: Sequence[str] = (),
        blind: Mapping[str, str] | None = None,
    ) -> None:
        self._feeds = list(feeds)
        self.notes = tuple(notes)
        """What a person should know: sentences for the start of a watch."""
        self.unwatched = tuple(unwatched)
        """The names of the indexes of which no change is seen; `notes` has the reasons."""
        self.blind = dict(blind or {})
        """What is not seen of an index, in one sentence, by its name."""

    def check(self) -> None:
        """As `ChangeFeed.check`."""
        for feed in self._feeds:
            feed.check()

    def receive(self, limit: int) -> Received:
        """As `ChangeFeed.receive`. A feed that fails is heard of once the others have nothing to give."""
        changes: list[DocumentChange] = []
        look_ups: list[LookUp] = []
        parts: list[tuple[ChangeFeed, Received]] = []
        overflow: dict[str, None] = {}
        behind: dict[str, None] = {}
        error: RagIndexError | None = None
        more = False
        for feed in self._feeds:
            if len(changes) + len(look_ups) >= limit:
                more = True  # perhaps: the next call asks it first
                break
            try:
                received = feed.receive(limit - len(changes) - len(look_ups))
            except RagIndexError as failed:
                error = error or failed
                continue
            changes += received.changes
            look_ups += received.look_ups
            overflow.update(dict.fromkeys(received.overflow))
            behind.update(dict.fromkeys(received.behind))
            parts.append((feed, received))
            more = more or received.more
        self._feeds = [*self._feeds[1:], *self._feeds[:1]]
        joined = Received(changes, parts, more or error is not None, tuple(overflow), look_ups, tuple(behind))
        if error is not None and joined.is_empty:
            raise error
        return joined

    def acknowledge(self, received: Received) -> None:
        """As `ChangeFeed.acknowledge`."""
        for feed, part in received.position:
            feed.acknowledge(part)

    def wait(self, seconds: float) -> None:
        """As `ChangeFeed.wait`: of several feeds, each is waited for in turn."""
        if len(self._feeds) == 1:
            self._feeds[0].wait(seconds)
            return
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for feed in self._feeds:
                most = min(SLICE, left)
                began = time.monotonic()
                feed.wait(most)
                if time.monotonic() - began < most:
                    return

    def backlog(self) -> int | None:
        """As `ChangeFeed.backlog`: the sum over the feeds that can say."""
        known = [count for feed in self._feeds if (count := feed.backlog()) is not None]
        return sum(known) if known else None

    def close(self) -> None:
        """As `ChangeFeed.close`."""
        for feed in self._feeds:
            feed.close()
