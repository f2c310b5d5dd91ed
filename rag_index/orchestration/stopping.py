"""Runs that are told to stop: each ends within seconds, in a state that says why.

A run that is cancelled ends as Cancelled, whoever learns of it first: Prefect's worker, which sends SIGTERM, or the run
itself, which looks at its own state every few seconds. A deployed run whose worker is stopped is put off, and resumed
when there is a worker again.

A signal raises an exception wherever the program is, and code in between may take it for an error of its own: Prefect's
TerminationSignal inside a serializer becomes a serialization error, after which the run would continue.
"""

from __future__ import annotations

import contextvars
import os
import select
import signal
import socket
import sys
import threading
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.exceptions import PrefectException
from prefect.logging import get_logger
from prefect.states import AwaitingRetry, Cancelled

from rag_index.errors import RagIndexError
from rag_index.machine import given
from rag_index.orchestration.prefect_api import impatient, is_deployed
from rag_index.orchestration.reporting import end_with_state, failed_state
from rag_index.orchestration.witness import PUT_OFF, PUT_OFF_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import State

logger = get_logger("rag_index.stopping")
SIGTERM = bytes([signal.SIGTERM])
"""How Python reports it."""
OUTPUT = (1, 2)
"""Standard output and standard error."""
POLL_SECONDS = 3.0
GRACE_SECONDS = 10.0
"""How long a cancelled run may take to clean up. In a serial run a thread may be embedding that nothing interrupts."""
CANCELLED = "cancelled; what was committed is kept, and the next run continues from there"


class FlowStop:
    """Whether a flow was told to stop: `state` is what it then returns, and None otherwise.

    `run_id` is the outermost run of this process, which this is or is a part of. Once the run or a part of it ends
    already, it is `told`, and needs no other signal.
    """

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.state: State[Any] | None = None
        self.told, self.ended = threading.Event(), threading.Event()


_TOP: ContextVar[FlowStop | None] = ContextVar("the outermost run", default=None)


@contextmanager
def stoppable(*, may_complete: bool = False) -> Iterator[FlowStop]:
    """End the block if the flow run is cancelled or its worker is stopped, and say in which state the flow ends.

    Whatever exception SIGTERM became on its way here is swallowed if the flow can end by returning `FlowStop.state`,
    and with `may_complete` also if it has no such state, because it ends as it is meant to.
    """
    if (top := _TOP.get()) is not None:
        part = FlowStop(top.run_id)
        with hold_sigterm(lambda: _end(part, top)):
            yield part
        return
    stop = FlowStop(str(runtime.flow_run.id))
    if is_deployed():
        outlive_output()
    with given(_TOP, stop):
        with hold_sigterm(lambda: _end(stop, stop) or may_complete), _watched(stop):
            yield stop
        if stop.told.is_set() and stop.state is None:  # a part of it has ended as cancelled
            _end(stop, stop)


@contextmanager
def failing(stop: FlowStop) -> Iterator[None]:
    """Let a deployed flow end as Failed with the sentence of an error of ours; a command prints the sentence itself."""
    try:
        yield
    except RagIndexError as error:
        if not is_deployed():
            raise
        stop.state = failed_state(str(error))


def _end(stop: FlowStop, top: FlowStop) -> bool:
    """Choose the state of a run that got SIGTERM, or of a part of it, and return whether there is one."""
    top.told.set()  # before the server is asked, which takes its time: a second signal would end the asking
    outermost, deployed = stop is top, is_deployed()
    if _is_cancelled(top.run_id):
        # The caller of a flow that is not deployed gets what Ctrl-C would be.
        data = KeyboardInterrupt(CANCELLED) if outermost and not deployed else None
        stop.state = Cancelled(message=CANCELLED, data=data)
    elif outermost and deployed:
        later = datetime.now(UTC) + timedelta(seconds=PUT_OFF_SECONDS)
        stop.state = AwaitingRetry(message=PUT_OFF, scheduled_time=later)
    else:
        return False
    if outermost and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not end the run before its state is reported
    if outermost and deployed:
        end_with_state()
    return True


@contextmanager
def _watched(top: FlowStop) -> Iterator[None]:
    """Look at the state of this run every few seconds, and send SIGTERM to this thread if the run is cancelled."""
    if threading.current_thread() is threading.main_thread():
        context = contextvars.copy_context()  # it has the settings, with the address of the server
        threading.Thread(target=context.run, args=(_watch, top, is_deployed()), daemon=True).start()
    try:
        yield
    finally:
        top.ended.set()


def _watch(top: FlowStop, deployed: bool) -> None:
    while not top.ended.wait(POLL_SECONDS):
        if _is_cancelled(top.run_id):
            if not top.told.is_set():
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            if not top.ended.wait(GRACE_SECONDS):
                _end_process(top.run_id, deployed=deployed)
            return


def _end_process(run_id: str, *, deployed: bool) -> None:
    """End this process: it has been cancelled, and the main thread does not come back from what it does."""
    logger.warning("the run is still busy %.0f s after it was cancelled, so its process ends now", GRACE_SECONDS)
    try:
        with impatient(), get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run_id), Cancelled(message=CANCELLED), force=True)
    finally:
        if not deployed:
            sys.stderr.write(f"rag-index: {CANCELLED}\n")
        os._exit(0 if deployed else 130)  # Prefect's worker would take another code for a crash


def _is_cancelled(run_id: str) -> bool:
    try:
        with impatient(), get_client(sync_client=True) as client:
            state = client.read_flow_run(UUID(run_id)).state
    except (httpx.HTTPError, PrefectException, OSError) as error:
        logger.debug("the state of the run cannot be read: %s", error)
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())


# The signal itself


@contextmanager
def hold_sigterm(take: Callable[[], bool]) -> Iterator[None]:
    """Let a SIGTERM end the block of a flow, whatever became of its exception on the way here.

    Then `take` is asked whether it takes care of the end. If not, the handler of the signal is called again, and
    whoever listened before hears of the signal, as of all others.

    The handler stays Prefect's own, or Prefect would not see a cancelled run as cancelled: Python also reports each
    signal through `signal.set_wakeup_fd`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals only interrupt the main thread
        return
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        there.setblocking(False)
        before = signal.set_wakeup_fd(there.fileno(), warn_on_full_buffer=False)
        came = False
        handler = signal.getsignal(signal.SIGTERM)
        try:
            try:
                yield
            finally:
                signal.set_wakeup_fd(before, warn_on_full_buffer=False)
                came = _has_sigterm(here, before)
        except BaseException:
            if not came or not callable(handler):
                raise
    if came and not take() and callable(handler):
        _report(SIGTERM, before)
        handler(signal.SIGTERM, None)


def _has_sigterm(numbers: socket.socket, also: int) -> bool:
    """Return whether SIGTERM is among the reported signals, and pass the others on to whoever listened before."""
    try:
        found = numbers.recv(4096)
    except BlockingIOError:
        return False
    _report(found.replace(SIGTERM, b""), also)
    return SIGTERM in found


def _report(numbers: bytes, to: int) -> None:
    if to >= 0:
        with suppress(OSError):
            os.write(to, numbers)


def outlive_output() -> None:
    """Let this process go on once nobody reads what it prints, because Prefect's worker was killed.

    Its standard output and error are pipes of the worker then, and rich, with which Prefect prints logs, would end the
    process at the next line.
    """
    threading.Thread(target=_drop_output, daemon=True, name="output").start()


def _drop_output() -> None:
    broken = select.poll()
    for descriptor in OUTPUT:
        broken.register(descriptor, 0)  # reported alone: that the reader has gone
    broken.poll()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in OUTPUT:
        os.dup2(nowhere, descriptor)
