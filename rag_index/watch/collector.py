"""The collecting half of a watch: a thread for each feed that moves changes from it into the ledger's inbox. It goes on
while batches wait for a lease, an embedder or a store, so that the source never has to keep changes for them. A change
is in the inbox before the source may forget it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, TransientError

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger
    from rag_index.core.settings import Settings
    from rag_index.watch.changes import ChangeFeed, Received

RECEIVE = 5_000
"""About how many changes are received at once."""
MAX_RECEIVE_PAUSE = 60.0
FEED_CHECK_SECONDS = 300.0
"""How often to check that the source still notes changes: without its triggers it looks as if nothing changed."""
SLICE_SECONDS = 0.5
"""How long the collector waits for a feed before it looks whether it has to end; `poll_seconds` may be minutes."""


class Collector(threading.Thread):
    """The thread of one feed, and what it reports."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        feed: ChangeFeed,
        names: Sequence[str],
        *,
        arrived: threading.Event,
        ended: threading.Event,
    ) -> None:
        """Check the feed, and prepare the thread, which runs until `ended` is set. `arrived` is set whenever something
        arrived or the state of the feed changed."""
        super().__init__(name="watch-collector", daemon=True)
        self._aliases = {name: settings.alias(name) for name in names}
        self._poll_seconds = settings.watch.poll_seconds
        self._feed, self._ledger, self._arrived, self._ended = feed, ledger, arrived, ended
        self.drained = False
        """Whether the feed had nothing more to give than was received, since the collector began."""
        self.looked_at: dict[str, float] = {}
        """By index: every change that was committed before this time is in the ledger."""
        self._failure: RagIndexError | None = None
        self._unseen: dict[str, RagIndexError] = {}
        """Why changes of an index are not seen, by its name, as the last check found."""
        self.died: BaseException | None = None
        self._check()

    def error(self, name: str) -> RagIndexError | None:
        """Return why changes of an index cannot be received, or are not seen, now; None if they are."""
        return self._failure or self._unseen.get(name)

    def run(self) -> None:
        """Collect until the watch ends."""
        pause, next_check = 0.0, time.monotonic() + FEED_CHECK_SECONDS
        try:
            while not self._ended.is_set():
                before = self.drained, self._failure
                try:
                    if time.monotonic() >= next_check:
                        self._check()
                        until_next = min(FEED_CHECK_SECONDS, MAX_RECEIVE_PAUSE) if self._unseen else FEED_CHECK_SECONDS
                        next_check = time.monotonic() + until_next
                    more = self._collect()
                    self._failure, pause, self.drained = None, 0.0, self.drained or not more
                except RagIndexError as error:
                    self._failure, pause = error, min(MAX_RECEIVE_PAUSE, pause * 2 or 1.0)
                if before != (self.drained, self._failure):
                    self._arrived.set()
                if pause:
                    self._ended.wait(pause)
                elif not more:  # also if there were changes: a feed rests between two readings of the source
                    self._wait()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the watch raises it
            self.died = error
            self._arrived.set()

    def _wait(self) -> None:
        end = time.monotonic() + self._poll_seconds
        while not self._ended.is_set() and (left := end - time.monotonic()) > 0:
            began, most = time.monotonic(), min(SLICE_SECONDS, left)
            self._feed.wait(most)
            if time.monotonic() - began < most:
                return

    def _collect(self) -> bool:
        received = self._feed.receive(RECEIVE)
        arrived = self._put(received)
        self._feed.acknowledge(received)
        self.looked_at |= {name: one.at for name, one in received.through.items() if name not in self._unseen}
        if arrived:
            self._arrived.set()
        return received.more

    def _put(self, received: Received) -> bool:
        """Write what was received into the inbox, and how far it goes, in one transaction; return whether any waits.
        The log or the queue of a database also gives changes of indexes that are not watched now, and then forgets
        them. They wait in the inbox for the next watch of all indexes, or for a run."""
        aliases, changes = self._aliases, received.changes
        if not (changes or received.overflow or received.through):
            return False
        with self._ledger.transaction():
            self._ledger.put_changes((aliases[one.index], one.id, one.changed_at) for one in changes if not one.column)
            self._ledger.put_look_ups(
                (aliases[one.index], one.column, one.id, one.changed_at) for one in changes if one.column
            )
            altered = {name for name, one in received.definitions.items() if self._ledger.define(aliases[name], one)}
            for name in (lost := altered.union(received.overflow)):
                self._ledger.need_full_scan(aliases[name])
            for name, position in received.through.items():
                if name not in self._unseen:
                    self._ledger.note_position(aliases[name], position)
        return bool(changes or lost)

    def _check(self) -> None:
        """Check the feed. Of an index whose changes are not seen, all is compared once they are again. That is recorded
        by each check: a run that comes in between has not seen what changes after it. The position is forgotten, since
        it is unknown how long changes were not seen."""
        unseen: dict[str, RagIndexError] = {}
        try:
            problems = self._feed.check() or {}  # a feed of another package may return nothing
        except RagIndexError as failure:
            problems = dict.fromkeys(self._aliases, failure)
        for name, alias in self._aliases.items():
            error = problems.get(name)
            if isinstance(error, TransientError):  # `receive` says it, and nothing was found out
                error = self._unseen.get(name)
            if error is not None:
                unseen[name] = error
                self._ledger.need_full_scan(alias)
                self._ledger.doubt_position(alias)
        self._unseen = unseen
        self._arrived.set()
