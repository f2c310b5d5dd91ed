"""Waiting for a condition instead of for seconds, so that a busy machine makes a test slow but
never wrong."""

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx

T = TypeVar("T")

START_SECONDS = 60
GENEROUS = 280.0
"""Seconds after which a test fails because something never happened: just before pytest would end
it without a word."""
GENEROUS_LONG = 1180.0
"""The same for a test that is marked as long."""
PAUSES = 9
"""How many times as long as a look the pause after it is, up to `LONGEST_PAUSE` seconds."""
LONGEST_PAUSE = 0.25

LOST = re.compile(r"\S+ \| \w+ +\| prefect\..*(?:ConnectionClosed|database is locked)", re.DOTALL)
"""A record of Prefect of a websocket or an SQLite that a busy machine gave no time. It goes on by
itself."""


@dataclass
class Clock:
    """A clock that a test sets."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


def eventually(
    condition: Callable[[], T], what="", *, seconds: float = GENEROUS, every: float = 0.01
) -> T:
    """Return the first true value of `condition`, or fail with `what` (a text, or what returns
    one).

    A condition that takes long is asked less often than `every` seconds: one that looks at all
    processes of the machine would otherwise take the processor from those that are waited for.
    """
    deadline = time.monotonic() + seconds
    while True:
        began = time.monotonic()
        value = condition()
        if value:
            return value
        ended = time.monotonic()
        if ended > deadline:
            reason = what() if callable(what) else what
            raise AssertionError(f"this did not happen within {seconds:g} s: {reason or condition}")
        time.sleep(max(every, min(PAUSES * (ended - began), LONGEST_PAUSE)))


def tracebacks(log: str) -> list[str]:
    """Return the records with a traceback in the log of a server or worker of Prefect, but for
    those of `LOST`."""
    records = re.split(r"^(?=\d\d:\d\d:\d\d\.\d+ \| )", log, flags=re.MULTILINE)
    return [one for one in records if "Traceback" in one and not LOST.match(one)]


def until_it_answers(
    connect: Callable[[], object], process: subprocess.Popen, log: Path, *errors: type
) -> None:
    """Wait until `connect` raises none of these errors, or end with the last lines of the server's
    log."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            connect()
            return
        except errors as error:
            if time.monotonic() > deadline or process.poll() is not None:
                said = log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{process.args} did not start: {error}\n{said}") from error
            time.sleep(0.05)


def answers(url: str, **how: Any) -> bool:
    """Return whether a server is there that answers this address with 200."""
    try:
        return httpx.get(url, trust_env=False, timeout=60, **how).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def when(condition: Callable[[], object], action: Callable[[], object]) -> Iterator[None]:
    """Do `action` in a thread as soon as `condition` is true; the block ends only when that is
    done."""
    errors: list[BaseException] = []

    def wait_and_act() -> None:
        try:
            eventually(condition)
            action()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=wait_and_act, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()
    if errors:
        raise errors[0]
