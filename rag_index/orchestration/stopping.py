"""Runs that are cancelled: each ends as Cancelled within seconds. All other stops are left to
Prefect.

Prefect's worker sends SIGTERM to a cancelled run. A run also reads its own state every three
seconds, since it may have no worker, or one that hangs.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

from prefect import get_client, runtime
from prefect.context import FlowRunContext
from prefect.exceptions import Pause
from prefect.logging import get_logger, get_run_logger
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.states import Cancelled

from rag_index.core.machine import given, in_thread
from rag_index.errors import RagIndexError
from rag_index.orchestration.api_outage import OUTAGE
from rag_index.orchestration.prefect_api import impatient
from rag_index.orchestration.reporting import (
    UNANSWERED,
    end_suspended,
    end_with_state,
    failed_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import State
    from rich.console import Console

POLL_SECONDS = 3.0
"""Seconds between two looks of a run at its own state. Chosen; nothing depends on it."""
CLEAN_UP_SECONDS = 30.0
"""Seconds that a cancelled run has to end: in a serial run, a thread may be embedding that nothing
interrupts. Chosen; nothing depends on it."""
CANCELLED = "cancelled; what was committed is kept, and the next run continues from there"


class FlowStop:
    """How a flow is stopped."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        """The outermost run of this process, which a person cancels."""
        self.state: State[Any] | None = None
        """The final state that the flow returns in place of its own. None unless it was cancelled
        or is `failing`."""
        self.is_stopping = threading.Event()
        """Set once the main thread ends the run, so that it gets no further signal."""
        self.has_ended = threading.Event()


_TOP: ContextVar[FlowStop | None] = ContextVar("the outermost run", default=None)


@contextmanager
def stoppable() -> Iterator[FlowStop]:
    """End the block if the flow run is cancelled, and suppress the exception that this raises.

    That may be any: Prefect's TerminationSignal inside a serializer becomes a serialization error,
    and a closed client raises its own. An exception in a run that is not cancelled is raised to
    Prefect.
    """
    top = _TOP.get()
    stop = FlowStop(top.run_id if top else str(runtime.flow_run.id))
    if top is None and FlowRunContext.get():
        OUTAGE.follow(get_run_logger())
    if top is None and threading.current_thread() is threading.main_thread():
        in_thread(partial(_watch, stop), "cancellation")
        _end_with_output()
    try:
        with given(_TOP, top or stop):
            yield stop
    except Pause:
        # A person has suspended the run. Once it is resumed, it begins other subflows.
        end_suspended()
        raise
    except BaseException:
        if not _end(stop, top or stop):
            end_with_state()
            raise
    else:
        # The subflow of an index was cancelled, and ended by itself.
        if top is None:
            _end(stop, stop)
    finally:
        stop.has_ended.set()


@contextmanager
def failing(stop: FlowStop) -> Iterator[None]:
    """Let a flow end as Failed with the message of an error of ours."""
    try:
        yield
    except RagIndexError as error:
        stop.state = failed_state(str(error))


def _end_with_output() -> None:
    """End this process as by SIGTERM once nobody reads its log, because the worker that started it
    was killed.

    Rich would raise SystemExit in the thread that logs. In a thread of Dask's, that closes its
    event loop.
    """

    def end(console: Console) -> None:
        console.quiet = True
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    names = logging.root.manager.loggerDict
    for logger in [logging.getLogger(), *map(logging.getLogger, names)]:
        for handler in logger.handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.console.on_broken_pipe = partial(end, handler.console)  # type: ignore[method-assign]


def _end(stop: FlowStop, top: FlowStop) -> bool:
    """Return whether the outermost run was cancelled. If so, set the final state of this flow."""
    # Before the request, which takes its time: a second signal would interrupt it.
    top.is_stopping.set()
    if not _is_cancelled(top.run_id):
        top.is_stopping.clear()
        return False
    # Another SIGTERM must not end the run before its state is reported.
    if stop is top and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_state()
    stop.state = Cancelled(message=CANCELLED)
    return True


def _watch(top: FlowStop) -> None:
    """Send SIGTERM to the main thread once the run is cancelled, unless it is stopping already. End
    the process if the run does not end."""
    while not _is_cancelled(top.run_id):
        if top.has_ended.wait(POLL_SECONDS):
            return
    if not top.is_stopping.is_set():
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
    if not top.has_ended.wait(CLEAN_UP_SECONDS):
        _end_process(top.run_id)


def _end_process(run_id: str) -> None:
    """End this process: its run was cancelled, and the main thread is blocked."""
    get_logger("rag_index.stopping").warning(
        "the run is still busy %.0f s after it was cancelled, so its process ends now",
        CLEAN_UP_SECONDS,
    )
    with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(run_id), Cancelled(message=CANCELLED), force=True)
    # Prefect's worker would take another code for a crash.
    os._exit(0)


def _is_cancelled(run_id: str) -> bool:
    with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(run_id)).state
        return state is not None and (state.is_cancelling() or state.is_cancelled())
    # The server did not answer. It is asked again in three seconds.
    return False
