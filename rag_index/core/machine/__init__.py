"""This process: signals, garbage collection, threads, child processes, and an end of calls that
hang. `resources` has its memory. Every command imports this module, so it imports little."""

from __future__ import annotations

import asyncio
import contextvars
import faulthandler
import gc
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")
ALLOCATIONS = 100_000
"""New containers between two collections: see `collect_seldom`."""
TELL_SECONDS = 1.0
"""Seconds between two reports of a child process's state. Chosen."""
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


class Process(Executor):
    """An executor with one child process, which starts with the first call, and again after it
    died. It ends with `shutdown` or with its parent.

    The call that runs when the process dies, and the calls that wait for it, raise BrokenExecutor.
    With `memory`, in bytes, a call that needs more raises MemoryError or ends the process. If
    `state` is given (a function of a module), the process calls it once a second, and `last_state`
    is its last result.
    """

    def __init__(self, memory: int = 0, state: Callable[[], Any] | None = None) -> None:
        self._memory = memory
        self._state = state
        self._last_state: Any = None
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        """Our end of a pipe. The process ends when it is closed, and sends its state through it."""
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Make this call in the process. Raises BrokenExecutor after `shutdown`."""
        with self._lock:
            # A run failed while another of its threads was about to call.
            if self._ended:
                raise BrokenExecutor("the run has ended")
            if self._pool is not None:
                with suppress(BrokenExecutor):
                    return self._pool.submit(fn, *args, **kwargs)
                # The process died. Start another one.
                self._end()
            return self._start(fn, *args, **kwargs)

    def _start(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start the process with its first call."""
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        theirs, self._lifeline = context.Pipe()
        begin = partial(_begin, theirs, self._memory, self._state)
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin)
        future = self._pool.submit(fn, *args, **kwargs)
        # The process has its own copies of these ends. With ours open, half a result of a process
        # that died would be waited for without end, and `last_state` would not notice its death.
        queue: Any = self._pool._result_queue
        queue._writer.close()
        theirs.close()
        return future

    @property
    def last_state(self) -> Any:
        """The last result of `state` in the present process; None before the first one, or if the
        process died."""
        with self._lock:
            try:
                while self._lifeline is not None and self._lifeline.poll():
                    self._last_state = self._lifeline.recv()
            except (EOFError, OSError):  # the process died
                self._last_state = None
            return self._last_state

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the process at once, in whatever call it is."""
        with self._lock:
            self._ended = True
            self._end()

    def _end(self) -> None:
        pool = self._pool
        lifeline = self._lifeline
        self._pool = None
        self._lifeline = None
        self._last_state = None
        if lifeline is not None:
            lifeline.close()
        if pool is not None:
            # Code that holds the interpreter's lock does not notice the closed pipe.
            processes: Mapping[int, BaseProcess] = pool._processes or {}
            for process in list(processes.values()):
                process.kill()
            # Without it Python, as it exits, wakes up a thread that is just ending.
            pool.shutdown()


def _begin(lifeline: Connection, memory: int, state: Callable[[], Any] | None) -> None:
    """Prepare a child process: limit its memory, send changes of its state to the parent, and end
    the process when the parent closes its end of the pipe, or dies."""
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent ends this

    def watch_parent() -> None:
        sent = None
        with suppress(OSError):
            # The parent sends nothing: `poll` returns true once it has closed the pipe.
            while not lifeline.poll(TELL_SECONDS):
                now = None if state is None else state()
                if now != sent:
                    lifeline.send(now)
                    sent = now
        os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


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
