"""A child process that makes calls.

    parent: submit > pipe > child: a thread of its own for each call > pipe > the call's future

`Process` is the executor that callers know, and starts a child again after it died. `_Child` is one
child, its pipe and the calls that it has. A child that dies closes its end of the pipe, which ends
all its calls with BrokenExecutor; a parent that dies closes the other end, which ends the child.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from multiprocessing.reduction import ForkingPickler
from typing import TYPE_CHECKING, Any

from rag_index.errors import RagIndexError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

REPORT_SECONDS = 1.0
"""Seconds between two reports of a child process's state. Chosen."""
STATE = -1
"""The number of a message that has the child's state; a result has the number of its call."""


class Process(Executor):
    """An executor with one child process, which starts with the first call, and again after it
    died. It ends with `shutdown` or with its parent.

    The calls that a process has when it dies raise BrokenExecutor.

    Args:
        memory: In bytes. A call that needs more raises MemoryError or ends the process. 0 is no
            limit.
        state: A function of a module, which the process calls once a second; `last_state` is its
            last result.
        at_a_time: How many calls the process makes at a time, each in a thread. Further ones wait.

    Example:
        with Process() as child:
            child.submit(os.getpid).result()
    """

    def __init__(
        self, memory: int = 0, state: Callable[[], Any] | None = None, at_a_time: int = 1
    ) -> None:
        self._memory, self._state, self._at_a_time = memory, state, at_a_time
        self._lock = threading.Lock()
        self._child: _Child | None = None
        self._ended = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Make this call in the process. Raises BrokenExecutor after `shutdown`."""
        with self._lock:
            # A run failed while another of its threads was about to call.
            if self._ended:
                raise BrokenExecutor("the run has ended")
            if self._child is not None and self._child.is_dead:
                self._child.end()
                self._child = None
            if self._child is None:
                self._child = _Child(self._memory, self._state, self._at_a_time)
            return self._child.submit(fn, args, kwargs)

    @property
    def last_state(self) -> Any:
        """The last result of `state` in the present process; None before the first one, or if the
        process died."""
        child = self._child
        return None if child is None else child.last_state

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the process at once, in whatever call it is."""
        with self._lock:
            self._ended = True
            child, self._child = self._child, None
        if child is not None:
            child.end()


class _Child:
    """One child process, and the calls that it has."""

    def __init__(self, memory: int, state: Callable[[], Any] | None, at_a_time: int) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would copy threads' locks
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, memory, state, at_a_time), daemon=True
        )
        self._process.start()
        # The process has its own copy. With ours open, its death would not end the pipe.
        theirs.close()
        self._numbers = count()
        self._calls: dict[int, Future[Any]] = {}
        self._lock = threading.Lock()
        """Held while a message is sent, and while calls are added or all ended."""
        self.is_dead = False
        self.last_state: Any = None
        threading.Thread(target=self._receive, name="child", daemon=True).start()

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Future[Any]:
        """Send a call. If it cannot be pickled, or the process is dead, its future says so."""
        future: Future[Any] = Future()
        try:
            call = ForkingPickler.dumps((fn, args, kwargs))
        except Exception as error:  # noqa: BLE001 - the future raises it
            future.set_exception(error)
            return future
        with self._lock:
            if self.is_dead:
                future.set_exception(_died())
                return future
            number = next(self._numbers)
            self._calls[number] = future
            # If it has just died, `_receive` ends this call with the others.
            with suppress(OSError):
                self._pipe.send((number, bytes(call)))
        return future

    def _receive(self) -> None:
        """Give each result to its future until the process dies; then end the calls that are left."""
        # As the process dies, the pipe ends or breaks.
        with suppress(EOFError, OSError):
            while True:
                number, is_error, result = self._pipe.recv()
                if number == STATE:
                    self.last_state = pickle.loads(result)  # noqa: S301 - of our own child
                    continue
                with self._lock:
                    future = self._calls.pop(number)
                _settle(future, is_error, result)
        with self._lock:
            self.is_dead = True
            left, self._calls = list(self._calls.values()), {}
            self._pipe.close()
        self.last_state = None
        for future in left:
            future.set_exception(_died())

    def end(self) -> None:
        """End the process at once, in whatever call it is."""
        # Code that holds the interpreter's lock does not notice a closed pipe. The death ends the
        # pipe, and thereby the thread that reads it.
        self._process.kill()
        self._process.join()


def _died() -> BrokenExecutor:
    return BrokenExecutor("the process died")


def _settle(future: Future[Any], is_error: bool, result: bytes) -> None:
    """Set what a call in the child returned or raised."""
    try:
        value = pickle.loads(result)  # noqa: S301 - of our own child
    except Exception as error:  # noqa: BLE001 - an object of a plug-in that cannot be unpickled
        future.set_exception(error)
        return
    if is_error:
        future.set_exception(value)
    else:
        future.set_result(value)


# In the child


def _serve(pipe: Connection, memory: int, state: Callable[[], Any] | None, at_a_time: int) -> None:
    """Make the calls that come through the pipe, until the parent closes it, or dies."""
    if memory:
        resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, and the parent ends this
    parent = _Parent(pipe)
    if state is not None:
        threading.Thread(target=parent.report, args=(state,), daemon=True).start()
    calls = ThreadPoolExecutor(at_a_time)
    with suppress(EOFError, OSError):
        while True:
            number, call = pipe.recv()
            calls.submit(parent.answer, number, call)
    # Calls under way are of no use to anybody.
    os._exit(1)


class _Parent:
    """The parent, as a child's threads see it: what takes results and states."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def answer(self, number: int, call: bytes) -> None:
        """Make a call, and send what it returns or raises."""
        is_error = False
        try:
            fn, args, kwargs = pickle.loads(call)  # noqa: S301 - of our own parent
            result = fn(*args, **kwargs)
            packed = bytes(ForkingPickler.dumps(result))
        except BaseException as error:  # noqa: BLE001 - the parent raises it
            # Such as a TypeError of a plug-in: its author sees where in the child it was raised.
            if not isinstance(error, RagIndexError):
                error.add_note("in the child:\n" + traceback.format_exc())
            is_error = True
            packed = _packed_error(error)
        self._send(number, is_error, packed)

    def report(self, state: Callable[[], Any]) -> None:
        """Send the state of this process whenever it changes, and look each second."""
        stop = threading.Event()
        sent: Any = None
        while not stop.wait(REPORT_SECONDS):
            now = state()
            if now != sent:
                self._send(STATE, False, bytes(ForkingPickler.dumps(now)))
                sent = now

    def _send(self, number: int, is_error: bool, packed: bytes) -> None:
        # The parent is gone: `_serve` ends this process.
        with self._lock, suppress(OSError):
            self._pipe.send((number, is_error, packed))


def _packed_error(error: BaseException) -> bytes:
    """Return an error as bytes, in other words if it cannot be pickled."""
    try:
        packed = bytes(ForkingPickler.dumps(error))
        pickle.loads(packed)  # noqa: S301 - some can be pickled and not read again
    except Exception:  # noqa: BLE001 - whatever its class does
        name = type(error).__name__
        packed = bytes(ForkingPickler.dumps(RuntimeError(f"{name}: {error}")))
    return packed
