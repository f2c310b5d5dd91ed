"""This process: signals, seldom garbage collection, threads, child processes, an end of what hangs.
`resources` has its memory. Every command imports this module, and little else."""

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
TELL_SECONDS = 1.0
NOTICE_SECONDS = 1.0
"""After this time Python looks for an interrupt that came just before it began to wait."""


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for reference cycles after 100,000 new containers, instead of after about 700, Python's
    default. Rows and payloads are containers without cycles, and a collection soon visits every
    object that Prefect has imported. Objects whose last reference goes away are freed at once, as
    always."""
    young, *older = gc.get_threshold()
    if (
        not gc.isenabled() or young >= ALLOCATIONS
    ):  # the user's choice, or that of an enclosing block
        yield
        return
    gc.set_threshold(ALLOCATIONS, *older)
    try:
        yield
    finally:
        gc.set_threshold(young, *older)


@contextmanager
def end_process_after(seconds: float | None) -> Iterator[None]:
    """End this process if the block takes longer, whatever it hangs in. None is no limit."""
    if seconds is None:
        yield
        return
    mine = object()
    with _ending:
        _ends[mine] = time.monotonic() + seconds
        _arm()
    try:
        yield
    finally:
        with _ending:
            del _ends[mine]
            _arm()


_ending = threading.Lock()
_ends: dict[object, float] = {}
"""When this process ends, by each block that has a limit: faulthandler has one timer for all
threads."""


def _arm() -> None:
    faulthandler.cancel_dump_traceback_later()
    if _ends:  # its thread needs no interpreter, which may be what hangs
        faulthandler.dump_traceback_later(
            max(0.001, min(_ends.values()) - time.monotonic()), exit=True
        )


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Call this in a thread of its own, in a copy of the caller's context, and return the future of
    its result. The thread is a daemon: a program that ends in between, by Ctrl-C for example, does
    not wait for it."""
    future: Future[T] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever asks the future raises it
            future.set_exception(error)

    threading.Thread(
        target=contextvars.copy_context().run, args=(settle,), name=name, daemon=True
    ).start()
    return future


@contextmanager
def given(variable: ContextVar[T | None], value: T) -> Iterator[T]:
    """Give a variable a value for the time of the block."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, by KeyboardInterrupt, so that it leaves
    nothing behind. It is raised again at the end of the block if it was lost. A signal that is
    ignored on purpose (nohup) stays so."""
    came = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(number, frame)

    ends = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    numbers = [number for number in ends if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield
    except Exception:
        if not came:
            raise
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is note:
                signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt


class Here(Executor):
    """Makes each call at once, in the thread of the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - whoever asks the future raises it
            future.set_exception(error)
        return future


class Process(Executor):
    """One process, which starts with the first call, and again after a death. It ends with
    `shutdown` or its parent. What it was doing when it died, and what waited for it, raises
    BrokenExecutor. With `memory`, in bytes, a call that needs more raises MemoryError, or ends the
    process. Once a second `state`, a function of a module, is called there, if given; `told` is
    what it last returned."""

    def __init__(self, memory: int = 0, state: Callable[[], Any] | None = None) -> None:
        self._memory, self._state = memory, state
        self._told: Any = None
        self._lock = threading.Lock()
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Raises BrokenExecutor after `shutdown`."""
        with self._lock:
            if self._ended:  # by a run that failed while a thread was on its way here
                raise BrokenExecutor("the run has ended")
            if self._pool is not None:
                with suppress(BrokenExecutor):
                    return self._pool.submit(fn, *args, **kwargs)
                self._end()
            context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
            theirs, self._lifeline = context.Pipe()
            begin = partial(_begin, theirs, self._memory, self._state)
            self._pool = pool = ProcessPoolExecutor(1, mp_context=context, initializer=begin)
            future = pool.submit(fn, *args, **kwargs)
            queue: Any = pool._result_queue
            queue._writer.close()  # the process has it: else half a result of one that died is waited for without end
            theirs.close()  # the process has it, too: `told` must see that it died
            return future

    @property
    def told(self) -> Any:
        """What `state` returned in the process that runs now; None if it was not called yet, or the
        process died."""
        with self._lock:
            try:
                while self._lifeline is not None and self._lifeline.poll():
                    self._told = self._lifeline.recv()
            except (EOFError, OSError):  # a dead process waits for nothing
                self._told = None
            return self._told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the process at once, whatever it is doing."""
        with self._lock:
            self._ended = True
            self._end()

    def _end(self) -> None:
        pool, lifeline, self._pool, self._lifeline, self._told = (
            self._pool,
            self._lifeline,
            None,
            None,
            None,
        )
        if lifeline is not None:
            lifeline.close()
        if pool is not None:
            processes: Mapping[int, BaseProcess] = pool._processes or {}
            for process in list(processes.values()):
                process.kill()  # code that holds the interpreter's lock does not see the pipe close
            pool.shutdown()  # else Python wakes up, as it exits, a thread that is just ending


def _begin(lifeline: Connection, memory: int, state: Callable[[], Any] | None) -> None:
    """Limit this process, tell its parent its state, and let it end when that closes its end of the
    pipe, or dies."""
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent ends this

    def wait() -> None:
        said = None
        with suppress(OSError):
            while not lifeline.poll(TELL_SECONDS):  # nothing comes but the end
                if state is not None and (now := state()) != said:
                    lifeline.send(now)
                    said = now
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class EventLoopThread:
    """A thread that runs coroutines for callers in any thread. It starts with the first coroutine.
    Code that itself runs in an event loop may wait too; its own loop stands still meanwhile."""

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
            loop, self._loop = self._loop, None
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
