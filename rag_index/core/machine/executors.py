"""Executors of the standard library's kind for a plain run: this thread, or one process.

with Process() as process:
    process.submit(embed, job).result()
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import resource
import signal
import threading
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

T = TypeVar("T")


TELL_SECONDS = 1.0


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
    """One process, which starts with the first call, and again after a death. It ends with `shutdown` or its parent.
    What it was doing when it died, and what waited for it, raises BrokenExecutor. With `memory`, in bytes, a call that
    needs more raises MemoryError, or ends the process. Once a second `state`, if given, is called there; `told` is what
    it last returned."""

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
            return future

    @property
    def told(self) -> Any:
        """What `state` returned in the process that runs now; None if it was not called yet."""
        with self._lock, suppress(EOFError, OSError):
            while self._lifeline is not None and self._lifeline.poll():
                self._told = self._lifeline.recv()
        return self._told

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the process at once, whatever it is doing."""
        with self._lock:
            self._ended = True
            self._end()

    def _end(self) -> None:
        pool, lifeline, self._pool, self._lifeline, self._told = self._pool, self._lifeline, None, None, None
        if lifeline is not None:
            lifeline.close()
        if pool is not None:
            processes: Mapping[int, BaseProcess] = pool._processes or {}
            for process in list(processes.values()):
                process.kill()  # code that holds the interpreter's lock does not see the pipe close
            pool.shutdown()  # else Python wakes up, as it exits, a thread that is just ending


def _begin(lifeline: Connection, memory: int, state: Callable[[], Any] | None) -> None:
    """Limit this process, tell its parent its state, and let it end when that closes its end of the pipe, or dies."""
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


NOTICE_SECONDS = 1.0
"""After this time Python looks for an interrupt that came just before it began to wait."""


class EventLoopThread:
    """A thread that runs coroutines for callers in any thread. It starts with the first coroutine. Code that itself
    runs in an event loop may wait too; its own loop stands still meanwhile."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    @property
    def running(self) -> bool:
        """Whether the thread has been started and not stopped."""
        return self._loop is not None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine and return its result. An interrupt in the caller's thread cancels it. Raises
        concurrent.futures.CancelledError if the thread is stopped meanwhile."""
        with self._starting:
            future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not future.done():
                wait([future], NOTICE_SECONDS)
            return future.result()
        finally:
            future.cancel()

    def stop(self) -> None:
        """Cancel the coroutines that still run, and end the thread; the next `run` starts another."""
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
