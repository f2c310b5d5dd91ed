"""This process: signals, garbage collection, threads, and an end of calls that hang. `child` has
child processes, and `resources` its memory. Every command imports this module, so it imports
little."""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
ALLOCATIONS = 100_000
"""New containers between two collections: see `collect_seldom`."""
NOTICE_SECONDS = 1.0
"""Seconds after which Python checks for an interrupt that arrived just before it began to wait."""


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Collect reference cycles after 100,000 new containers during the block; Python's default is
    about 700.

    Rows and payloads are containers without cycles, and each collection visits every object that
    Prefect has imported. An object whose last reference goes away is still freed at once.
    """
    young, *older = gc.get_threshold()
    # The user, or an enclosing block, has already set it.
    if not gc.isenabled() or young >= ALLOCATIONS:
        yield
        return
    gc.set_threshold(ALLOCATIONS, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)


@contextmanager
def end_process_after(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, in whatever call it hangs. None is no limit."""
    if seconds is None:
        yield
        return
    block = object()
    with _ending:
        _ends[block] = time.monotonic() + seconds
        _arm()
    try:
        yield
    finally:
        with _ending:
            del _ends[block]
            _arm()


_ending = threading.Lock()
_ends: dict[object, float] = {}
"""The time at which this process ends, by each block with a limit: faulthandler has one timer for
all threads."""


def _arm() -> None:
    """Set faulthandler's timer to the first end. Its thread does not need the interpreter, which
    may be what hangs."""
    faulthandler.cancel_dump_traceback_later()
    if _ends:
        seconds = min(_ends.values()) - time.monotonic()
        faulthandler.dump_traceback_later(max(0.001, seconds), exit=True)


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Call this in a new thread, in a copy of the caller's context, and return the future of its
    result. The thread is a daemon: a program that ends earlier, by Ctrl-C for example, does not
    wait for it."""
    future: Future[T] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)

    context = contextvars.copy_context()
    threading.Thread(target=context.run, args=(settle,), name=name, daemon=True).start()
    return future


@contextmanager
def given(variable: ContextVar[T | None], value: T) -> Iterator[T]:
    """Set a context variable during the block."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block like Ctrl-C, by KeyboardInterrupt, so that it cleans up.
    If the block swallowed the exception, it is raised again at the end. A signal that is ignored on
    purpose (nohup) stays ignored."""
    received = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal received
        received = True
        signal.default_int_handler(number, frame)

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    except Exception:
        # After a signal, the error is a consequence: KeyboardInterrupt is raised in its place.
        if not received:
            raise
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is interrupt:
                signal.signal(number, handler)
    if received:
        raise KeyboardInterrupt


class InlineExecutor(Executor):
    """An executor that makes each call at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)
        return future


class EventLoopThread:
    """A thread that runs coroutines for callers in any thread. It starts with the first coroutine.
    A caller in an event loop may wait too; its own loop stands still meanwhile."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether the thread has been started and not stopped."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and return its result. An interrupt in the caller's thread cancels it.
        Raises concurrent.futures.CancelledError if the thread is stopped meanwhile."""
        with self._starting:
            future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not future.done():
                wait([future], NOTICE_SECONDS)
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancel the coroutines that still run, and end the thread; the next `run` starts
        another."""
        with self._starting:
            loop = self._loop
            self._loop = None
        if loop is not None:
            loop.call_soon_threadsafe(loop.stop)

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
            self._loop = runner.get_loop()
            threading.Thread(target=_serve, args=(runner,), name=self._name, daemon=True).start()
        return self._loop


def _serve(runner: asyncio.Runner) -> None:
    with runner:
        runner.get_loop().run_forever()
