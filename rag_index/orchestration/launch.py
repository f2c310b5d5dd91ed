"""Runs without Prefect, as the command line starts them, and flows that are started as programs."""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import time
import uuid
from contextlib import ExitStack, closing, contextmanager, suppress
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import TYPE_CHECKING

from rag_index.core.files import private_folder, unwritable
from rag_index.core.machine import collect_seldom, terminable
from rag_index.core.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.core.reports.progress import RunRecord, open_display
from rag_index.errors import RagIndexError, SettingsError
from rag_index.etl.checks import ServiceChecks
from rag_index.etl.local_steps import LocalSteps
from rag_index.etl.opened import RunOptions, open_index
from rag_index.etl.run import run_index
from rag_index.orchestration.hooks import SearchHooks
from rag_index.orchestration.prefect_api import result_of, send_pending_logs, wait_until_recorded
from rag_index.quotes import described, without_messages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from prefect.client.schemas.objects import State

    from rag_index.care.benchmark import BenchmarkReport
    from rag_index.core.settings import IndexSettings, Settings, StoreSettings

logger = logging.getLogger("rag_index.runs")
STOPPED = 130
"""The exit code after a Ctrl-C: 128 and the number of SIGINT."""
SERVE = """
import os, signal, socket, sys, threading, uvicorn
threading.Thread(target=lambda: (sys.stdin.read(), os.kill(os.getpid(), signal.SIGTERM)), daemon=True).start()
app = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error")
uvicorn.Server(app).run([socket.socket(fileno=int(sys.argv[1]))])
"""


def make_folder(folder: Path) -> None:
    """Make a folder in `data` that other users cannot read. Raises SettingsError if that is
    impossible."""
    try:
        private_folder(folder)
    except OSError as error:
        raise SettingsError(unwritable(folder, error, "set `data` to another folder")) from error


def run_locally(
    settings: Settings,
    indexes: Sequence[IndexSettings],
    options: RunOptions,
    *,
    to: StoreSettings | None = None,
) -> RunReport:
    """Bring these indexes up to date with their source, or rebuild them in the store `to`.

    An index that fails does not stop the others.
    """
    began, report, checks = time.monotonic(), RunReport(), ServiceChecks(settings.run.wait)
    with terminable(), collect_seldom(), closing(LocalSteps(settings)) as steps:
        for index in indexes:
            report.indexes.append(_run_index(settings, index, options, steps, checks, to))
    report.seconds = time.monotonic() - began
    return report


def benchmark_locally(
    settings: Settings, *, index: str, sample_size: int, workers: list[int]
) -> BenchmarkReport:
    """Compare the serial way with each number of workers, as the flow `benchmark` does."""
    from rag_index.care.benchmark import open_bench

    with terminable(), open_bench(settings, index, sample_size) as bench:
        bench.run_serially(run_id := str(uuid.uuid4()))
        for count in bench.worker_counts(workers):
            own = bench.with_workers(count)
            with bench.begun(own, run_id, count) as begun, closing(LocalSteps(own)) as steps:
                bench.measure(count, begun, steps)
    return bench.report


def _run_index(
    settings: Settings,
    index: IndexSettings,
    options: RunOptions,
    steps: LocalSteps,
    checks: ServiceChecks,
    to: StoreSettings | None,
) -> IndexOutcome:
    try:
        hooks = SearchHooks(settings, index, options)
        record = RunRecord(index.name, logger)
        record.progress.displays = [open_display()]
        with open_index(settings, index.name, options, run_id=str(uuid.uuid4()), to=to) as opened:
            try:
                run_index(opened, steps, record, hooks=hooks, checks=checks)
            except Exception as error:
                # A fault of a plug-in, such as a TypeError: the other indexes run all the same.
                logger.error("%s", described(error), exc_info=without_messages(error))
                checks.on_run_failed(error, embedder_only=False)
            record.progress.finish(record.outcome.sentence(reason=False))
        if settings.run.metrics_file is not None:
            # It imports more than most runs need.
            from rag_index.care.index_status import try_to_write_metrics

            try_to_write_metrics(settings)
        return record.outcome
    except RagIndexError as error:
        return failed_to_start(index.name, error)


@contextmanager
def own_server() -> Iterator[tuple[str, str]]:
    """Start a Prefect server that ends with the block, and yield its address and its password. It
    also ends if this process is killed."""
    import httpx

    password = f"rag-index:{secrets.token_urlsafe()}"
    settings = {
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "0",
        "PREFECT_UI_ENABLED": "0",
        # That takes a second, and no block is used.
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "0",
        # Events of tasks are recorded together, once a second. If it recorded them one by one, the
        # server would fall behind a run with many shards, and lose the rest as it ends.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "200",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    }
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        # Without this, each answer waits 40 ms for the client.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = listener.fileno()
        command = [sys.executable, "-P", "-c", SERVE, str(descriptor)]
        server = Popen(
            command,
            env=os.environ | settings,
            stdin=PIPE,
            stdout=DEVNULL,
            stderr=DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
            # Alembic, which creates the server's tables, imports from the current folder.
            cwd="/",
        )
        port = listener.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
    try:
        httpx.get(f"{url}/health", timeout=120, trust_env=False).raise_for_status()
        yield url, password
    finally:
        with suppress(TimeoutExpired):
            server.communicate(timeout=10)
        server.kill()


def run_flow(flow: Callable[..., State[RunReport]]) -> int:
    """Run a flow and return the exit code of the command. If Prefect's settings name no server, the
    flow gets one of its own."""
    import httpx
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    try:
        with terminable(), collect_seldom(), ExitStack() as stack:
            has_own_server = not PREFECT_API_URL.value()
            if has_own_server:
                url, password = stack.enter_context(own_server())
                server = {PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}
                stack.enter_context(temporary_settings(server))
            stack.callback(send_pending_logs)
            state = flow(return_state=True)
            run_id = state.state_details.flow_run_id
            # The server ends with this block, and must have recorded the run before.
            if has_own_server and run_id and not state.is_cancelled():
                send_pending_logs()
                wait_until_recorded(run_id)
        message: str | None = state.message
        code = _exit_code(state)
    except KeyboardInterrupt:
        message, code = "stopped", STOPPED
    # Prefect raises RuntimeError if its server does not answer at the start.
    except (httpx.HTTPError, RuntimeError, OSError) as error:
        message = (
            f"the Prefect server does not answer ({error}): run again once `prefect server"
            " start` works"
        )
        code = 1
    sys.stderr.write(f"rag-index: {message}\n")
    return code


def _exit_code(state: State[RunReport]) -> int:
    if state.is_cancelled():
        return STOPPED
    report = result_of(state)
    # A flow that crashed has no report.
    return report.exit_code if isinstance(report, RunReport) else 1
