"""The store of a Retriever: opened when it is needed, and given back when it was idle for a while.

The embedded store has one process at a time. A service that searched an hour ago must not keep the nightly run out,
so what is not used is closed; the next search opens it again, or says who has it.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rag_index.errors import StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.stores import Store

__all__ = ["StoreHolder"]

POLL = 0.1


class StoreHolder:
    """Lends out one store to several threads.

    Where another process has the embedded store, borrowing waits up to `wait` seconds and raises StoreBusy then. A
    store that nobody borrows for `idle` seconds is closed (None: never). `close` ends waiting as well.
    """

    def __init__(
        self,
        opener: Callable[[], Store],
        *,
        wait: float = 0.0,
        idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._opener, self._wait, self._idle, self._clock = opener, wait, idle, clock
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._store: Store | None = None
        self._borrowed = 0
        self._used_at = 0.0

    @property
    def held(self) -> bool:
        """Whether the store is open now."""
        return self._store is not None

    @contextmanager
    def store(self) -> Iterator[Store]:
        """The store, for the time of the block. Raises StoreBusy and what opening a store raises."""
        store = self._borrow()
        try:
            yield store
        finally:
            with self._changed:
                self._borrowed -= 1
                self._used_at = self._clock()

    def close(self) -> None:
        """Give the store back for good; calls under way come to their end. A second call does nothing."""
        self._closing.set()
        with self._changed:
            self._changed.notify_all()
            self._give_back()

    def _borrow(self) -> Store:
        until = self._clock() + self._wait
        while True:
            with self._changed:
                if self._closing.is_set():
                    raise StoreError("the retriever is closed")
                try:
                    store = self._opened()
                except StoreBusy:
                    if self._clock() >= until:
                        raise
                else:
                    self._borrowed += 1
                    return store
            self._closing.wait(POLL)

    def _opened(self) -> Store:
        if self._store is None:
            self._store = self._opener()
            self._used_at = self._clock()
            if self._idle is not None:
                threading.Thread(target=self._watch, name="rag-index-idle", daemon=True).start()
        return self._store

    def _watch(self) -> None:
        """Close the store once nobody had it for long enough; one thread while it is open."""
        idle = self._idle or 0.0
        with self._changed:
            while self._store is not None and not self._closing.is_set():
                left = self._used_at + idle - self._clock() if self._borrowed == 0 else idle
                if self._borrowed == 0 and left <= 0:
                    self._give_back()
                    return
                self._changed.wait(max(left, 0.001))

    def _give_back(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
