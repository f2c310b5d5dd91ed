"""How the calls of a Retriever share time, threads and the store: callers take turns."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakValueDictionary

from rag_index.errors import SearchBusy, SearchTimedOut, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.components.stores.protocol import StoreReader

T = TypeVar("T")
CLOSED = "the retriever is closed"
QUIET_SECONDS, IDLE_LOOK_SECONDS = 10.0, 0.1
"""How long a store must be idle before a writer gets it, and how often it is looked for one
then."""
TEXTS_BETWEEN_LOOKS = 128
"""Texts that are compared between two looks at the clock."""
SHARES = 4
"""One caller may have at most one place in this many."""


class Places:
    """How many calls of a service are under way, in all and for each caller."""

    def __init__(self, most: int) -> None:
        self._most, self._share = most, max(1, most // SHARES)
        self._taken = Counter[str]()

    @contextmanager
    def take(self, caller: str) -> Iterator[None]:
        """Hold a place for the time of the block, whose threads count as this caller's. Raises
        SearchBusy."""
        if self._taken.total() >= self._most:
            raise SearchBusy("the service is busy; come back later")
        if self._taken[caller] >= self._share:
            raise SearchBusy(
                f"the service is busy with {self._share} requests of this caller; come back later"
            )
        self._taken[caller] += 1
        before = CALLER.set(caller)
        try:
            yield
        finally:
            CALLER.reset(before)
            self._taken -= Counter([caller])  # nobody is kept who holds none


CALLER: ContextVar[str] = ContextVar("CALLER", default="")
"""The caller of a service whose call this is. A context variable, because each step of a search
needs it."""


def in_time(items: Sequence[T], deadline: Deadline | None) -> Iterator[Sequence[T]]:
    """Yield the items, some at a time: nothing else could end this thread.

    Raises SearchTimedOut once the deadline has passed.
    """
    for start in range(0, len(items), TEXTS_BETWEEN_LOOKS):
        if deadline is not None and deadline.left <= 0:
            raise SearchTimedOut(
                f"timed out after {deadline.seconds:g} s while texts were compared"
            )
        yield items[start : start + TEXTS_BETWEEN_LOOKS]


@dataclass(slots=True)
class Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set
    it."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline that lies this many seconds ahead."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """Return the seconds that are left."""
        return self.at - time.monotonic()

    async def result_of(self, future: Future[T], during: str = "") -> T:
        """Return the result of a call in a thread, in whichever event loop this runs.

        A call that has not begun when the wait ends is given up. Raises SearchTimedOut if it is not
        done in time.
        """
        waiting = asyncio.wrap_future(future)
        try:
            await asyncio.wait({waiting}, timeout=self.left)
            if future.done():
                return future.result()
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}")
        finally:
            waiting.cancel()


class StoreThreads:
    """One store, and threads in lanes of some width: calls of one lane take no thread from those of
    another.

    However many calls of one caller wait for a lane, no more than its width are ahead of another's.
    The store is opened when a call needs it. If no call does for `idle` seconds, it is closed
    (None: never); after `QUIET_SECONDS` if another process wants to write it.
    """

    def __init__(
        self,
        opener: Callable[[], StoreReader],
        widths: Mapping[str, int],
        *,
        idle: float | None = None,
    ) -> None:
        self._opener, self._widths, self._idle = opener, widths, idle
        self._turns = WeakValueDictionary[
            tuple[asyncio.AbstractEventLoop, str, str | None], asyncio.Semaphore
        ]()
        """The turns in each lane, of each caller and of all (None), while somebody has or awaits
        one."""
        self._changed = threading.Condition()
        self._store: StoreReader | None = None
        self._borrowers = 0
        self._used_at = 0.0
        self._closed = False

    async def run(
        self,
        lane: str,
        deadline: Deadline,
        call: Callable[..., T],
        *args: Any,
        during: str = "",
    ) -> T:
        """Return what a call returns, in a thread of the lane. A lane without a width has one.

        Raises what the call raises, SearchTimedOut if it is not done in time, and SearchBusy if it
        has not begun by then. A call that has begun keeps its thread until it ends.
        """
        loop, began = asyncio.get_running_loop(), time.monotonic()
        with ExitStack() as held:
            try:
                async with asyncio.timeout(deadline.left):
                    for caller in (CALLER.get(), None):
                        turns = asyncio.Semaphore(self._widths.get(lane, 1))
                        await (
                            turns := self._turns.setdefault((loop, lane, caller), turns)
                        ).acquire()
                        held.callback(turns.release)
            except TimeoutError:
                waited = time.monotonic() - began
                raise SearchBusy(
                    f"the search has waited {waited:.1f} s for its turn; come back later"
                ) from None
            leave = held.pop_all().close
        future = Future[T]()
        future.set_running_or_notify_cancel()  # nothing can end the thread

        def work() -> None:
            try:
                future.set_result(call(*args))
            except BaseException as error:  # noqa: BLE001 - the future raises it
                future.set_exception(error)
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(leave)

        threading.Thread(target=work, name="rag-index-store", daemon=True).start()
        return await deadline.result_of(future, during)

    @contextmanager
    def store(self) -> Iterator[StoreReader]:
        """Lend the store for the time of the block, which runs to its end if this is closed
        meanwhile.

        Raises what opening a store raises, and StoreError if this is closed.
        """
        with self._changed:
            if self._closed:
                raise StoreError(CLOSED)
            if self._store is None:
                self._store = self._opener()
                if self._idle is not None:
                    threading.Thread(
                        target=self._close_when_idle, args=(self._idle,), daemon=True
                    ).start()
            store = self._store
            self._borrowers += 1
        try:
            yield store
        finally:
            with self._changed:
                self._borrowers -= 1
                self._used_at = time.monotonic()

    def close(self) -> None:
        """Close the store for good, and ask it no more; calls under way finish. It may be called
        twice."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._close_store()

    def _close_when_idle(self, idle: float) -> None:
        """Close the store once it was idle for long enough. One thread waits for that while the
        store is open."""
        with self._changed:
            while self._store is not None:
                quiet = 0.0 if self._borrowers else time.monotonic() - self._used_at
                if quiet >= idle or (quiet >= QUIET_SECONDS and self._store.wanted()):
                    self._close_store()
                else:
                    self._changed.wait(
                        min(idle - quiet, max(QUIET_SECONDS - quiet, IDLE_LOOK_SECONDS))
                    )

    def _close_store(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            store.close()
