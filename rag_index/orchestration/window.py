"""A bounded window of submitted shards: never all at once, so that memory and the Prefect server stay flat."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from distributed.scheduler import KilledWorker
from prefect.logging import get_run_logger

from rag_index.errors import RagIndexError, TerminalError
from rag_index.orchestration.retries import error_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from prefect.futures import PrefectWrappedFuture

__all__ = ["Window"]

Item = TypeVar("Item")
Result = TypeVar("Result")
TICK_SECONDS = 1.0


class Window(Generic[Item, Result]):
    """Keeps at most `size` items submitted and hands out results as they come, whatever their order.

    When an item fails, what else is under way is still handed out; then the first error is raised, so that done work
    is never thrown away. An item whose workers die again and again is a suspect: at the end each suspect is run with
    nothing beside it, and if it kills once more it is split (`split` gives its parts) until the one that kills is
    found; `give_up` makes a result of that one. `tick` is called every second of waiting,
    which is done within `waiting()`, `moved` with how many are under way whenever that changes.
    """

    def __init__(
        self,
        submit: Callable[[Item], PrefectWrappedFuture[Any, Any]],
        size: int,
        *,
        split: Callable[[Item], list[Item]],
        give_up: Callable[[Item], Result],
        tick: Callable[[], None] = lambda: None,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        moved: Callable[[int], None] = lambda under_way: None,
    ) -> None:
        self._submit = submit
        self._size = size
        self._split = split
        self._give_up = give_up
        self._tick = tick
        self._waiting = waiting
        self._moved = moved
        self._done: SimpleQueue[Any] = SimpleQueue()
        self._under_way: dict[Any, Item] = {}
        self._suspects: deque[Item] = deque()
        self._error: BaseException | None = None

    def put(self, item: Item) -> Iterator[Result]:
        """Submit an item; while the window is full, hand out what is done, and one more after it: results take time to
        deal with, in which no other item is submitted, and workers that are done with theirs would stand still."""
        yield from self._collect(self._size - 1)
        self._start(item)
        if not self._done.empty():
            yield from self._next()

    def drain(self) -> Iterator[Result]:
        """Hand out all that is left, then find what killed its workers."""
        yield from self._collect(0)
        while self._suspects:
            suspect = self._suspects.popleft()
            self._start(suspect)
            killed_before = len(self._suspects)
            yield from self._collect(0)
            if len(self._suspects) > killed_before:  # alone, and it killed its workers again
                self._suspects.pop()
                parts = self._split(suspect)
                if len(parts) > 1:
                    self._suspects.extendleft(reversed(parts))
                else:
                    yield self._give_up(suspect)

    def _start(self, item: Item) -> None:
        wrapped = self._submit(item).wrapped_future
        self._under_way[wrapped] = item
        self._moved(len(self._under_way))
        wrapped.add_done_callback(self._done.put)

    def _collect(self, most: int) -> Iterator[Result]:
        while len(self._under_way) > (0 if self._error else most):
            yield from self._next()
        if self._error is not None:
            raise self._error

    def _next(self) -> Iterator[Result]:
        try:
            with self._waiting():
                wrapped = self._done.get(timeout=TICK_SECONDS)
        except Empty:
            self._tick()
            return
        item = self._under_way.pop(wrapped)
        self._moved(len(self._under_way))
        try:
            result = _result(wrapped)
        except KilledWorker as error:
            get_run_logger().warning("workers died under a shard, it is looked at alone later: %s", error)
            self._suspects.append(item)
            return
        except RagIndexError as error:
            self._error = self._error or error
            return
        yield result


def _result(wrapped: Any) -> Any:
    """What the task returned. Asking the future's state alone would hide a task whose workers all died."""
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
    return state.result()
