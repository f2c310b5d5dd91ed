"""This process: signals, seldom garbage collection, threads, an end of what hangs. `resources` has its memory. Every
command imports this module, and little else."""

from __future__ import annotations

import contextvars
import faulthandler
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TypeVar

T = TypeVar("T")
ALLOCATIONS = 100_000


@contextmanager
def collect_seldom() -> Iterator[None]:
    """Look for reference cycles after 100,000 new containers, instead of after about 700, Python's default. Rows and
    payloads are containers without cycles, and a collection soon visits every object that Prefect has imported. Objects
    whose last reference goes away are freed at once, as always."""
    young, *older = gc.get_threshold()
    if not gc.isenabled() or young >= ALLOCATIONS:  # the user's choice, or that of an enclosing block
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
"""When this process ends, by each block that has a limit: faulthandler has one timer for all threads."""


def _arm() -> None:
    faulthandler.cancel_dump_traceback_later()
    if _ends:  # its thread needs no interpreter, which may be what hangs
        faulthandler.dump_traceback_later(max(0.001, min(_ends.values()) - time.monotonic()), exit=True)


def in_thread(call: Callable[[], T], name: str) -> Future[T]:
    """Call this in a thread of its own, in a copy of the caller's context, and return the future of its result. The
    thread is a daemon: a program that ends in between, by Ctrl-C for example, does not wait for it."""
    future: Future[T] = Future()

    def settle() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - whoever asks the future raises it
            future.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(settle,), name=name, daemon=True).start()
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
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, by KeyboardInterrupt, so that it leaves nothing behind. It
    is raised again at the end of the block if it was lost. A signal that is ignored on purpose (nohup) stays so."""
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
