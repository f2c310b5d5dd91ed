"""The collecting half of a watch: a thread that moves changes from a feed into the ledger's inbox.

It goes on while batches wait for a lease, an embedder or a store, so that the source never has to keep changes for
them. A change is in the inbox before the source may forget it.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from rag_index.changes import ChangeFeed, Received
    from rag_index.ledger import Ledger
    from rag_index.settings import Settings

__all__ = ["Collector"]

RECEIVE = 5_000
"""About how many changes are received at once."""
MAX_PAUSE = 60.0
SLICE_SECONDS = 0.5
"""For how long a feed is waited for before the collector looks whether it has to end; `poll_seconds` may be minutes."""
logger = logging.getLogger("rag_index.watch")


class Collector:
    """The thread and what it reports. Used as a context manager; leaving the block ends the thread."""

    def __init__(self, settings: Settings, names: list[str], feed: ChangeFeed, ledger: Ledger) -> None:
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
        """Set once the feed had nothing more to give, since the collector began."""
        self._asked = 0
        self._answered: dict[str, int] = {}
        self.error: RagIndexError | None = None
        """Why the feed cannot be read now."""
        self.died: BaseException | None = None
        """What ended the thread, if it was no error of ours."""

    def __enter__(self) -> Collector:
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

    def _run(self) -> None:
        pause = 0.0
        try:
            while not self._stop.is_set():
                try:
                    empty = self._collect()
                    pause = 0.0
                except RagIndexError as error:
                    pause = min(MAX_PAUSE, pause * 2 or 1.0)
                    self._note_error(error, pause)
                    self._stop.wait(pause)
                    continue
                self._note_error(None)
                if empty:
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
        """Receive once, and return whether the feed has nothing more to give now."""
        asked = self._asked
        received = self._feed.receive(RECEIVE)
        self._put(received)
        self._feed.acknowledge(received)
        if not received.is_empty:
            self.arrived.set()
        if not received.more:
            self._answer(asked, set(self._aliases).difference(received.behind))
        return not received.more and received.is_empty

    def _answer(self, asked: int, names: set[str]) -> None:
        """Note that these indexes have everything that was committed before the question."""
        if any(self._answered.get(name, -1) < asked for name in names):
            self._answered |= dict.fromkeys(names, asked)
            self.arrived.set()

    def _put(self, received: Received) -> None:
        """Write what was received into the inbox, in one transaction.

        The log or the queue of a database also gives changes of indexes that are not watched now, and then forgets
        them. They wait in the inbox for the next watch of all indexes, or for a run.
        """
        if received.is_empty:
            return
        aliases = self._all_aliases
        with self._ledger.transaction():
            self._ledger.put_changes((aliases[one.index], one.id, one.changed_at) for one in received.changes)
            self._ledger.put_look_ups(
                (aliases[one.index], one.column, one.value, one.changed_at) for one in received.look_ups
            )
            for name in received.overflow:
                self._ledger.need_full_scan(aliases[name])

    def _note_error(self, error: RagIndexError | None, pause: float = 0.0) -> None:
        if str(error or "") == str(self.error or ""):
            return
        if error is not None:
            logger.warning("changes cannot be received: %s; trying again every %.0f s or more", error, pause)
        else:
            logger.info("changes are received again")
        self.error = error
        self.arrived.set()
