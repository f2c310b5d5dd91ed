"""The store of a Retriever: opened when needed, and closed after a while without use.

A run must copy what it changes in an embedded store while somebody searches that. A service that last searched an hour
ago must not cost a copy, so an idle store is closed. The next search opens it again.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_index.errors import StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.stores import StoreReader

POLL = 0.1


class StoreHolder:
    """One store, lent to several threads.

    If opening raises StoreBusy, borrowing tries again for up to `wait` seconds. A store that nobody borrows for `idle`
    seconds is closed (None: never). `close` also ends the waiting.
    """

    def __init__(
        self,
        opener: Callable[[], StoreReader],
        *,
        wait: float = 0.0,
        idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener, self._wait, self._idle, self._clock = opener, wait, idle, clock
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._store: StoreReader | None = None
        self._borrowers = 0
        self._used_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the store is open now."""
        return self._store is not None

    @contextmanager
    def borrow(self) -> Iterator[StoreReader]:
        """Lend the store for the time of the block. Raises StoreBusy, and whatever opening a store raises."""
        store = self._acquire()
        try:
            yield store
        finally:
            with self._changed:
                self._borrowers -= 1
                self._used_at = self._clock()

    def close(self) -> None:
        """Close the store for good; calls already running finish. A second call does nothing."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            self._close_store()

    def _acquire(self) -> StoreReader:
        deadline = self._clock() + self._wait
        while True:
            with self._changed:
                if self._closing.is_set():
                    raise StoreError("the retriever is closed")
                try:
                    store = self._open_if_needed()
                except StoreBusy:
                    if self._clock() >= deadline:
                        raise
                else:
                    self._borrowers += 1
                    return store
            self._closing.wait(POLL)

    def _open_if_needed(self) -> StoreReader:
        if self._store is None:
            self._store = self._opener()
            self._used_at = self._clock()
            if self._idle is not None:
                threading.Thread(target=self._close_when_idle, name="rag-index-idle", daemon=True).start()
        return self._store

    def _close_when_idle(self) -> None:
        """Close the store once nobody has borrowed it for long enough. One thread does so while it is open."""
        idle = self._idle or 0.0
        with self._changed:
            while self._store is not None and not self._closing.is_set():
                left = self._used_at + idle - self._clock() if self._borrowers == 0 else idle
                if self._borrowers == 0 and left <= 0:
                    self._close_store()
                    return
                self._changed.wait(max(left, 0.001))

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
