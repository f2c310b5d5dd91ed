"""Threads for the calls of a Retriever, divided so that an index that hangs delays no other."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

P = ParamSpec("P")
T = TypeVar("T")


class Bulkhead:
    """Threads that are divided evenly among the names: `width` in total, but at least one for each name.

    A name whose calls hang keeps its own threads and takes no others. Its next calls wait without a thread; one that is
    cancelled leaves nothing behind.
    """

    def __init__(self, names: Sequence[str], width: int) -> None:
        share = max(1, width // max(1, len(names)))
        self._threads = ThreadPoolExecutor(share * max(1, len(names)), "rag-index-search")
        self._queues = {name: _Queue(share) for name in names}

    def submit(self, name: str, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a call in one of this name's threads. Raises StoreError once closed."""
        queue = self._queues[name]
        future: Future[T] = Future()
        try:
            if queue.add(future, partial(call, *args, **kwargs)):
                self._threads.submit(queue.work)
        except RuntimeError as exc:
            raise StoreError("the retriever is closed") from exc
        return future

    def close(self) -> None:
        """Start no more calls; those already running finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for queue in self._queues.values():
            queue.close()


class _Queue:
    """The calls of one name, of which at most `share` run at a time."""

    def __init__(self, share: int) -> None:
        self._lock = threading.Lock()
        self._free = share
        self._waiting: dict[Future[Any], Callable[[], Any]] = {}
        self._closed = False

    def add(self, future: Future[Any], call: Callable[[], Any]) -> bool:
        """Add a call, and return whether a thread must be started for it. Raises RuntimeError once closed."""
        with self._lock:
            if self._closed:
                raise RuntimeError("closed")
            self._waiting[future] = call
            starts = self._free > 0
            self._free -= starts
        future.add_done_callback(self._forget)
        return starts

    def work(self) -> None:
        """Run the calls that wait, until there are none."""
        while (taken := self._take()) is not None:
            future, call = taken
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001 - whoever waits has it
                future.set_exception(exc)
            else:
                future.set_result(result)
            del taken, future, call

    def close(self) -> None:
        """Cancel the calls that wait."""
        with self._lock:
            self._closed = True
            waiting = list(self._waiting)
        for future in waiting:
            future.cancel()

    def _take(self) -> tuple[Future[Any], Callable[[], Any]] | None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            future = next(iter(self._waiting))
            return future, self._waiting.pop(future)

    def _forget(self, future: Future[Any]) -> None:
        with self._lock:
            self._waiting.pop(future, None)
