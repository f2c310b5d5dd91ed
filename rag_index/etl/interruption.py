"""What ends a run before its work is done: a pause that its caller asks for, or a Ctrl-C or
SIGTERM."""

from __future__ import annotations

import re
from asyncio import CancelledError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.etl.scan import Scan

STOPPED = re.compile(r"Error calling function .*: (KeyboardInterrupt|TerminationSignal):")
"""What Pydantic says of a Ctrl-C or SIGTERM inside a function that it calls, in an error of its
own."""


class RunPaused(Exception):
    """Raised by an `Interruption`: the run ends here. What it did is committed, and another run
    goes on from it."""


class Interruption:
    """Decides between pages and between shards whether a run ends early. By default it never does;
    a watch has runs that take turns (`watch.kept_runs`)."""

    def begin(self, scan: Scan) -> None:
        """Take note that a run begins to read."""

    def before_page(self) -> None:
        """Return, or raise RunPaused if no further page is to be read."""

    def before_shard(self) -> None:
        """Return, or raise RunPaused if no further shard is to be begun."""


def stop_in(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that an error is, or was made of; None if it is an ordinary
    error."""
    if error is None or not isinstance(
        error, Exception
    ):  # KeyboardInterrupt, Prefect's TerminationSignal
        return error
    cause = error.__cause__
    # Inside a serializer a signal becomes another error. If that writes JSON, only its words tell.
    if cause is None and STOPPED.search(str(error)):
        return KeyboardInterrupt()
    # asyncio makes a time limit of a CancelledError: nobody stopped the run.
    if isinstance(cause, CancelledError):
        return None
    return stop_in(cause)
