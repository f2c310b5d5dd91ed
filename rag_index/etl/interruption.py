"""What ends a run before its work is done: a pause that its caller asks for, or a Ctrl-C or
SIGTERM."""

from __future__ import annotations

import re
from asyncio import CancelledError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.etl.scan import Scan

STOPPED = re.compile(r"Error calling function .*: (KeyboardInterrupt|TerminationSignal):")
"""The message of Pydantic's error after a Ctrl-C or SIGTERM inside a function that it calls."""


class RunPaused(Exception):
    """Raised by an `Interruption` to end a run early. The shards under way are committed, and
    another run goes on from there."""


class Interruption:
    """Decides before each page and each shard whether a run ends early.

    By default it never does. Runs of a watch take turns (`watch.kept_runs`).
    """

    def on_scan_start(self, scan: Scan) -> None:
        """Handle the start of a scan. By default nothing is done."""

    def before_page(self) -> None:
        """Return, or raise RunPaused if no further page is to be read."""

    def before_shard(self) -> None:
        """Return, or raise RunPaused if no further shard is to be begun."""


def stop_in(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that an error is, or that caused it; None if it is an ordinary
    error."""
    # KeyboardInterrupt, Prefect's TerminationSignal.
    if error is None or not isinstance(error, Exception):
        return error
    cause = error.__cause__
    # Inside a serializer a signal becomes another error. If that writes JSON, only its message
    # names the signal.
    if cause is None and STOPPED.search(str(error)):
        return KeyboardInterrupt()
    # asyncio turns a CancelledError into a TimeoutError: nobody stopped the run.
    if isinstance(cause, CancelledError):
        return None
    return stop_in(cause)
