"""How the calls of a Retriever share time, threads and the store. Callers take turns."""

from __future__ import annotations

import asyncio
import math
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
X = TypeVar("X")
CLOSED = "the retriever is closed"
WORDS_LANE = "words"
"""The lane of the threads that compute in this process."""
QUIET_SECONDS = 10.0
"""How long a store must be idle before a writer gets it, in seconds. Chosen: the next search has to
open the store again."""
IDLE_LOOK_SECONDS = 0.1
"""How often an idle store is checked for a waiting writer, in seconds. Chosen."""
TEXTS_BETWEEN_LOOKS = 128
"""Texts that are compared between two checks of the deadline. Chosen."""
SHARES = 4
"""One caller may hold a quarter of the places. Chosen, so that no caller keeps out the others."""


class Places:
    """The calls of a service that are under way, in all and for each caller."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = max(1, most // SHARES)
        self._taken = Counter[str]()

    @contextmanager
    def take(self, caller: str) -> Iterator[None]:
        """Hold a place during the block, whose calls count as this caller's.

        Raises:
            SearchBusy: all places are taken, or the caller's share of them.
        """
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
            # The subtraction removes callers that hold no place.
            self._taken -= Counter([caller])


CALLER: ContextVar[str] = ContextVar("CALLER", default="")
"""The caller of the service on whose behalf this code runs. It is a context variable, because each
step of a search needs it."""


def in_time(items: Sequence[T], deadline: Deadline | None) -> Iterator[Sequence[T]]:
    """Yield the items in batches, and check the deadline before each. A thread cannot be ended from
    outside.

    Raises:
        SearchTimedOut: the deadline has passed.
    """
    for start in range(0, len(items), TEXTS_BETWEEN_LOOKS):
        if deadline is not None and deadline.left <= 0:
            raise SearchTimedOut(
                f"timed out after {deadline.seconds:g} s while texts were compared"
            )
        yield items[start : start + TEXTS_BETWEEN_LOOKS]


@dataclass(slots=True)
class Deadline:
    """The time by which work must be done."""

    seconds: float
    """The time limit that set the deadline."""
    at: float
    """The end, as `time.monotonic` counts."""

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """Return the deadline in this many seconds."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self.at - time.monotonic()

    async def result_of(self, future: Future[T], during: str = "") -> T:
        """Wait for a call in a thread, in any event loop, and return its result.

        Raises:
            SearchTimedOut: the call was not done in time.
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
    """One store, and threads in lanes. Each lane has a width: the number of its threads.

    Calls of one lane take no thread from another. However many calls of one caller wait for a lane,
    at most its width are ahead of another caller's.
    """

    def __init__(
        self,
        opener: Callable[[], StoreReader],
        widths: Mapping[str, int],
        *,
        idle: float | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            opener: Opens the store when a call needs it.
            widths: The width of each lane, by name. Other lanes have one thread.
            idle: Seconds without a call after which the store is closed; None for never. If another
                process wants to write it, `QUIET_SECONDS` are enough.
        """
        self._opener = opener
        self._widths = widths
        self._idle = idle
        self._turns = WeakValueDictionary[
            tuple[asyncio.AbstractEventLoop, str, str | None], asyncio.Semaphore
        ]()
        """The turns in each lane, of each caller and of all callers (None). Semaphores that nobody
        holds or awaits disappear."""
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
        """Run a call in a thread of the lane, and return its result. A call that has begun keeps its
        thread until it ends.

        Raises:
            SearchBusy: the call got no thread before the deadline.
            SearchTimedOut: the call was not done before the deadline.
        """
        loop = asyncio.get_running_loop()
        leave = await self._take_turn(lane, deadline)
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

    async def _take_turn(self, lane: str, deadline: Deadline) -> Callable[[], None]:
        """Wait for a turn in a lane, and return what ends the turn. Raises SearchBusy."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        with ExitStack() as held:
            try:
                async with asyncio.timeout(deadline.left):
                    # First among the calls of this caller, then among those of all callers.
                    for caller in (CALLER.get(), None):
                        new = asyncio.Semaphore(self._widths.get(lane, 1))
                        turns = self._turns.setdefault((loop, lane, caller), new)
                        await turns.acquire()
                        held.callback(turns.release)
            except TimeoutError:
                waited = time.monotonic() - began
                raise SearchBusy(
                    f"the search has waited {waited:.1f} s for its turn; come back later"
                ) from None
            return held.pop_all().close

    async def run_each(
        self, targets: Mapping[str, X], call: Callable[[StoreReader, X], T], until: float
    ) -> dict[str, T | Exception]:
        """Call a function with the store and the target of each index, all at once.

        Args:
            targets: The target by index. An index is the lane of its call.
            call: The function.
            until: The deadline (`time.monotonic`).

        Returns:
            The result or the exception by index. An index that is late has neither.
        """
        found: dict[str, T | Exception] = {}

        def call_with_store(target: X) -> T:
            with self.store() as store:
                return call(store, target)

        async def run_one(index: str, target: X) -> None:
            limit = Deadline(until - time.monotonic(), until)
            try:
                found[index] = await self.run(index, limit, call_with_store, target)
            except SearchTimedOut:
                pass
            except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
                found[index] = exc

        calls = [run_one(index, target) for index, target in targets.items()]
        await asyncio.gather(*calls)
        return found

    async def compute(self, deadline: Deadline, call: Callable[..., T], *args: Any) -> T:
        """Run a call that computes, and return its result. Raises as `run`.

        If the search is cancelled, the deadline is moved to the past, so that the call ends at its
        next check.
        """
        try:
            return await self.run(WORDS_LANE, deadline, call, *args)
        except asyncio.CancelledError:
            deadline.at = -math.inf
            raise

    @contextmanager
    def store(self) -> Iterator[StoreReader]:
        """Open the store if it is closed, and yield it. The block may run to its end even if this is
        closed meanwhile.

        Raises:
            StoreError: this is closed, or the store cannot be opened.
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
        """Close the store for good. Calls under way finish. A second call does nothing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._close_store()

    def _close_when_idle(self, idle: float) -> None:
        """Wait until the store was idle for long enough, and close it. One thread does this while
        the store is open."""
        with self._changed:
            while self._store is not None:
                quiet = 0.0 if self._borrowers else time.monotonic() - self._used_at
                is_idle = quiet >= idle
                # Another process wants to write it.
                is_wanted = not is_idle and quiet >= QUIET_SECONDS and self._store.wanted()
                if is_idle or is_wanted:
                    self._close_store()
                else:
                    next_look = max(QUIET_SECONDS - quiet, IDLE_LOOK_SECONDS)
                    self._changed.wait(min(idle - quiet, next_look))

    def _close_store(self) -> None:
        store = self._store
        self._store = None
        if store is not None:
            store.close()
