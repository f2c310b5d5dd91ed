"""A bounded window of submitted items: never all at once, so that memory and the Prefect server stay flat."""

from __future__ import annotations

from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distributed.scheduler import KilledWorker
from prefect.logging import get_run_logger

from rag_index.errors import ProcessDied, RagIndexError, TerminalError
from rag_index.orchestration.retries import error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.futures import PrefectWrappedFuture

    from rag_index.orchestration.monitor import Monitor

Item = TypeVar("Item")
Result = TypeVar("Result")
TICK_SECONDS = 1.0


def shards_per_worker(*, embedded: bool) -> int:
    """Return how many shards are in flight for each worker: one that it embeds, and one that waits for it.

    If workers write to a server there is a third, which waits for the server to acknowledge its points.
    """
    return 2 if embedded else 3


class Window(Generic[Item, Result]):
    """Keeps at most `size` items submitted, and yields results as they come, in any order.

    When an item fails, the results of the others are still yielded; then the first error is raised, so that done work
    is never thrown away. Items whose workers die again and again are collected in `died`. The watcher is told how many
    items are in flight, and of each second without a result; what it raises then ends the waiting.
    """

    def __init__(self, submit: Callable[[Item], PrefectWrappedFuture[Any, Any]], size: int, watcher: Monitor) -> None:
        self._submit = submit
        self._size = size
        self._watcher = watcher
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._in_flight: dict[Any, Item] = {}
        self._error: RagIndexError | None = None
        self.died: list[Item] = []

    def put(self, item: Item) -> Iterator[Result]:
        """Submit an item. While the window is full, yield results, and one more after submitting.

        The caller needs time for each result, so it gets at most one here: workers must not run out of items.
        """
        yield from self._results(self._size - 1)
        self._start(item)
        if not self._done.empty():
            yield from self._next()

    def drain(self) -> Iterator[Result]:
        """Yield the results of all items that are in flight."""
        yield from self._results(0)

    def run_alone(self, item: Item) -> Result:
        """Submit an item with nothing beside it, and return its result.

        Raises:
            ProcessDied: the workers died under it again.
            RagIndexError: the task ended with it.
        """
        self._start(item)
        while True:
            wrapped = self._wait()
            if wrapped is not None:
                del self._in_flight[wrapped]
                self._watcher.in_flight(0)
                try:
                    result: Result = _result(wrapped)
                except KilledWorker as error:
                    raise ProcessDied(f"workers died under a shard: {error}") from error
                return result

    def _start(self, item: Item) -> None:
        wrapped = self._submit(item).wrapped_future
        self._in_flight[wrapped] = item
        self._watcher.in_flight(len(self._in_flight))
        wrapped.add_done_callback(self._done.put)

    def _results(self, limit: int) -> Iterator[Result]:
        """Yield results until at most `limit` items are in flight, or all of them once one has failed."""
        while len(self._in_flight) > (0 if self._error else limit):
            yield from self._next()
        if self._error is not None:
            raise self._error

    def _next(self) -> Iterator[Result]:
        """Yield the next result, or nothing after a second or for an item that has none."""
        wrapped = self._wait()
        if wrapped is None:
            return
        item = self._in_flight.pop(wrapped)
        self._watcher.in_flight(len(self._in_flight))
        try:
            result: Result = _result(wrapped)
        except KilledWorker as error:
            get_run_logger().warning("workers died under a shard, which will be run alone later: %s", error)
            self.died.append(item)
        except RagIndexError as error:
            self._error = self._error or error
        else:
            yield result

    def _wait(self) -> Any:
        """Return a future that is done, or None after a second without one."""
        try:
            with self._watcher.waiting():
                return self._done.get(timeout=TICK_SECONDS)
        except Empty:
            self._watcher.tick()
            return None


def _result(wrapped: Any) -> Any:
    """Return what the task returned. Asking for the future's state alone would hide a task whose workers all died."""
    try:
        state = wrapped.result()
    except KilledWorker:
        raise
    except Exception as exc:  # CancelledError, a lost connection: distributed's own
        raise TerminalError(f"the workers are gone ({type(exc).__name__}: {exc}); run again") from exc
    finally:
        if hasattr(wrapped, "release"):
            wrapped.release()
    error = error_of(state)
    if isinstance(error, RagIndexError):
        raise error
    try:
        return state.result()
    except Exception as exc:
        raise TerminalError(f"a task ended with an unexpected {type(exc).__name__}: {exc}") from exc
