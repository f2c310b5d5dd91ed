"""The collecting half of a watch: a thread that moves changes from a feed into the ledger's inbox.

It goes on while batches wait for a lease, an embedder or a store, so that the source never has to keep changes for
them. A change is in the inbox before the source may forget it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, TransientError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.changes import Received
    from rag_index.changes.opening import JoinedFeed
    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

RECEIVE = 5_000
"""About how many changes are received at once."""
MAX_PAUSE = 60.0
CHECK_SECONDS = 300.0
"""How often to check that the source still notes changes: without its triggers it looks as if nothing changed."""
SLICE_SECONDS = 0.5
"""How long the collector waits for a feed before it looks whether it has to end; `poll_seconds` may be minutes."""
logger = logging.getLogger("rag_index.watch")


class Collector:
    """The thread and what it reports. Used as a context manager; leaving the block ends the thread."""

    def __init__(
        self,
        settings: Settings,
        names: list[str],
        feed: JoinedFeed,
        ledger: Ledger,
        problems: Mapping[str, RagIndexError],
    ) -> None:
        """Prepare the thread. `problems` is what `feed.check` returned last."""
        self._settings = settings
        self._aliases = {name: settings.alias(name) for name in names}
        self._all_aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._feed = feed
        self._ledger = ledger
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch-collector", daemon=True)
        self.arrived = threading.Event()
        """Set whenever something arrived or the state of the feed changed."""
        self.drained = threading.Event()
        """Set once the feed had nothing more to give than was received, since the collector began."""
        self._asked = 0
        self._answered: dict[str, int] = {}
        self._failure: RagIndexError | None = None
        """Why nothing can be collected now, of whatever feed."""
        self._problems = problems
        self._unseen: dict[str, RagIndexError] = {}
        """Why changes of an index are not seen, by its name, as the last check found."""
        self._said: dict[str, str] = {}
        self.died: BaseException | None = None
        """What ended the thread, if it was no error of ours."""

    def __enter__(self) -> Collector:
        self._take(self._problems)
        self._note_errors()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def ask(self) -> int:
        """Ask when all that was committed until now has been given, and return the number of the question."""
        self._asked += 1
        return self._asked

    def has_answered(self, name: str, question: int) -> bool:
        """Return whether all changes of an index that were committed before the question are in the ledger.

        Question 0 is asked before the collector begins.
        """
        return self._answered.get(name, -1) >= question

    def error(self, name: str) -> RagIndexError | None:
        """Return why changes of an index cannot be received, or are not seen, now; None if they are."""
        return self._failure or self._feed.errors.get(name) or self._unseen.get(name)

    def _run(self) -> None:
        pause, next_check = 0.0, time.monotonic() + CHECK_SECONDS
        try:
            while not self._stop.is_set():
                try:
                    if time.monotonic() >= next_check:
                        self._take(self._feed.check())
                        seconds = min(CHECK_SECONDS, MAX_PAUSE) if self._unseen else CHECK_SECONDS
                        next_check = time.monotonic() + seconds
                    more = self._collect()
                    self._failure, pause = None, 0.0
                except RagIndexError as error:
                    self._failure, pause = error, min(MAX_PAUSE, pause * 2 or 1.0)
                    self._note_errors()
                    self._stop.wait(pause)
                    continue
                self._note_errors()
                if not more:  # also if there were changes: a feed rests between two readings of the source
                    if not self.drained.is_set():
                        self.drained.set()
                        self.arrived.set()
                    self._wait()
        except BaseException as error:  # noqa: BLE001 - whatever it is, the watch raises it
            self.died = error
            self.arrived.set()

    def _wait(self) -> None:
        """Wait until the feed may have changes, `poll_seconds` have passed, or the thread has to end."""
        end = time.monotonic() + self._settings.watch.poll_seconds
        while not self._stop.is_set() and (left := end - time.monotonic()) > 0:
            began, most = time.monotonic(), min(SLICE_SECONDS, left)
            self._feed.wait(most)
            if time.monotonic() - began < most:
                return

    def _collect(self) -> bool:
        """Receive once, and return whether the feed has more to give now."""
        asked = self._asked
        received = self._feed.receive(RECEIVE)
        self._put(received)
        self._feed.acknowledge(received)
        if not received.is_empty:
            self.arrived.set()
        if not received.more:
            self._answer(asked, set(self._aliases).difference(received.behind, self._unseen))
        return received.more

    def _answer(self, asked: int, names: set[str]) -> None:
        """Note that these indexes have everything that was committed before the question."""
        if any(self._answered.get(name, -1) < asked for name in names):
            self._answered |= dict.fromkeys(names, asked)
            self.arrived.set()

    def _put(self, received: Received) -> None:
        """Write what was received into the inbox, and how far it goes, in one transaction.

        The log or the queue of a database also gives changes of indexes that are not watched now, and then forgets
        them. They wait in the inbox for the next watch of all indexes, or for a run.
        """
        through = {name: one for name, one in received.through.items() if name in self._aliases}
        if received.is_empty and not through:
            return
        aliases = self._all_aliases
        with self._ledger.transaction():
            self._ledger.put_changes((aliases[one.index], one.id, one.changed_at) for one in received.changes)
            self._ledger.put_look_ups(
                (aliases[one.index], one.column, one.value, one.changed_at) for one in received.look_ups
            )
            for name in received.overflow:
                self._ledger.need_full_scan(aliases[name])
            for name, position in through.items():
                if name not in self._unseen:
                    self._ledger.note_position(aliases[name], position)

    def _take(self, problems: Mapping[str, RagIndexError]) -> None:
        """Take what a check found. Of an index whose changes are not seen, all is compared once they are again.

        That is recorded by each check: a run that comes in between has not seen what changes after it. The position is
        forgotten, since nobody knows how long changes were not seen.
        """
        unseen: dict[str, RagIndexError] = {}
        for name, alias in self._all_aliases.items():
            error = problems.get(name)
            if isinstance(error, TransientError):  # `receive` says it, and nothing was found out
                error = self._unseen.get(name)
            if error is not None:
                unseen[name] = error
                self._ledger.need_full_scan(alias)
                self._ledger.doubt_position(alias)
        self._unseen = unseen

    def _note_errors(self) -> None:
        """Say once which indexes lack changes, and why, and that they are received again."""
        now = {name: str(error) for name in self._aliases if (error := self.error(name)) is not None}
        for text in dict.fromkeys(now.values()):
            names = [name for name, error in now.items() if error == text and self._said.get(name) != text]
            if names:
                logger.warning("%s: changes cannot be received: %s", ", ".join(names), text)
        if again := [name for name in self._said if name not in now]:
            logger.info("%s: changes are received again", ", ".join(again))
        if now != self._said:
            self._said = now
            self.arrived.set()
