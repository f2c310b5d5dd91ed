"""This process: signals, seldom garbage collection, threads, an end of what hangs. `resources` has its memory. Every
command imports this module, and little else."""

from __future__ import annotations

import contextvars
import faulthandler
import gc
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

from rag_index.errors import SourceTimedOut, TransientError

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


MAX_RETRIES = 3
MAX_TIMED_OUT = 1
"""How often a query is tried again that took all of its time."""
JITTER = 0.5
logger = logging.getLogger("rag_index.indexing")


@dataclass(frozen=True, slots=True)
class Policy:
    """How often a step, which is harmless to repeat, is tried again after a transient error."""

    retries: int = MAX_RETRIES
    delay: float | None = None
    """Seconds before each retry; by default 1, 2, 4, … They get up to half as long again."""
    within: float | None = None
    """The seconds after the start of the step in which a retry may begin."""
    waits_for: tuple[type[TransientError], ...] = ()
    """Errors that the step raises when it has waited as long as it may: another try would wait again."""


def tries_left(policy: Policy, error: BaseException | None, tries: int) -> int:
    """Return how often a step may be tried again after this many tries, the last of which ended with `error`."""
    if not isinstance(error, TransientError) or isinstance(error, policy.waits_for):
        return 0
    return max(0, (MAX_TIMED_OUT if isinstance(error, SourceTimedOut) else policy.retries) - tries + 1)


def with_retries(call: Callable[[], T], policy: Policy) -> T:
    """Return what `call` returns, which is harmless to repeat: transient errors are tried again, terminal ones are not.
    Each retry waits for up to half as long again as the policy says, so that runs on many machines ask apart."""
    began, tries = time.monotonic(), 0
    while True:
        tries += 1
        try:
            return call()
        except TransientError as error:
            left = tries_left(policy, error, tries)
            if not left or (policy.within is not None and time.monotonic() - began >= policy.within):
                raise
            logger.warning("transient, trying again (tries left: %d): %s", left, error)
        seconds = 2.0 ** (tries - 1) if policy.delay is None else policy.delay
        time.sleep(seconds * (1 + JITTER * random.random()))  # noqa: S311 - not for secrets
