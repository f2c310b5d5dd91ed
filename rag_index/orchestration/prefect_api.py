"""Prefect's API as a run uses it: it waits for the server where it can do nothing else, and nowhere else for long. A
command whose settings of Prefect name no API has a temporary server of its own."""

from __future__ import annotations

import math
import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import TYPE_CHECKING, Any

from rag_index.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from prefect.context import SettingsContext

API_PAUSE_SECONDS = 2.0
START_SECONDS = 300.0
"""How long a temporary server may take to start: 5 s, 15 s where it makes its database, more on a busy machine."""
SERVER_STOP_SECONDS = 10.0
SERVE = """
import os, socket, sys, threading, uvicorn
app = "prefect.server.api.server:create_app"
server = uvicorn.Server(uvicorn.Config(app, factory=True, log_level="error", timeout_graceful_shutdown=1))

def follow():  # this process ends with its parent, and as soon as that has closed the pipe
    sys.stdin.read()
    server.should_exit = True

threading.Thread(target=follow, daemon=True).start()
server.run([socket.socket(fileno=int(sys.argv[1]))])
"""


@contextmanager
def temporary_server(home: Path, *, verbose: bool = False) -> Iterator[Callable[[], dict[str, str]]]:
    """Start a Prefect server with its database in `home`, for the time of the block. The block gets a function that
    waits until the server answers, and returns the settings that lead to it. This is Prefect's own temporary server,
    but it has a password, ends however this process ends, and is started without importing the server here, which takes
    two seconds."""
    password = f"rag-index:{secrets.token_urlsafe()}"
    ours = {
        "PREFECT_HOME": str(home), "PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_UI_ENABLED": "0",
        "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1", "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",  # that takes a second, and none is used
    }  # fmt: skip
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    output = None if verbose else subprocess.DEVNULL
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for the client
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(listener.fileno())],
            env=others | ours, stdin=subprocess.PIPE, stdout=output, stderr=output,
            pass_fds=[listener.fileno()], start_new_session=True,
            cwd="/",  # Alembic, which makes Prefect's tables, imports from the current folder first
        )  # fmt: skip

    def wait() -> dict[str, str]:
        import httpx

        try:  # the connection waits in the listener's queue until the server has started
            httpx.get(f"{url}/health", timeout=START_SECONDS, trust_env=False).raise_for_status()
        except httpx.HTTPError as error:
            raise TransientError(
                f"Prefect's temporary server with its database in {home} does not start ({error}): --verbose shows "
                "why, and without --prefect none is needed"
            ) from error
        return {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password, "PREFECT_UI_URL": ""}

    try:
        yield wait
    finally:
        try:
            server.communicate(timeout=SERVER_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def is_deployed() -> bool:
    """Return whether this is called in a run of a deployment, or in a flow of one."""
    import httpx
    from prefect import runtime

    run = runtime.flow_run.id
    try:
        return run is not None and _has_deployment(run)
    except httpx.TransportError:  # Prefect asks the server only about runs that are no deployment's
        return False


@cache
def _has_deployment(run_id: str) -> bool:
    """Return whether the current flow run has a deployment. Prefect asks its server each time, and it never changes."""
    from prefect import runtime

    return bool(runtime.deployment.id)


def wait_for_api() -> None:
    """Wait until Prefect's server answers: in a deployed run as long as it takes, else as long as Prefect's clients do.
    Call it where a run can do nothing else: before it reports what is committed already, and before its next index."""
    from prefect import get_client
    from prefect.logging import get_run_logger
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

    began, told = time.monotonic(), False
    patience = math.inf if is_deployed() else 2.0 ** (1 + PREFECT_CLIENT_MAX_RETRIES.value())
    with impatient(), get_client(sync_client=True) as client:
        while _is_away(error := client.api_healthcheck()) and time.monotonic() - began < patience:
            if not told:
                get_run_logger().warning("Prefect's server does not answer (%s): the run waits for it", error)
                told = True
            time.sleep(API_PAUSE_SECONDS)
    if told:
        get_run_logger().info("the run has waited %.0f s for Prefect's server", time.monotonic() - began)


def _is_away(error: Exception | None) -> bool:
    import httpx

    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500
    return isinstance(error, httpx.TransportError)


_IMPATIENT: ContextVar[tuple[Any, Any] | None] = ContextVar("impatient settings", default=None)


def impatient() -> SettingsContext:
    """Return Prefect's settings without retries and with a short time limit, made once a run: that takes 0.1 s."""
    from prefect.context import SettingsContext, get_settings_context
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES

    context = get_settings_context()
    made = _IMPATIENT.get()
    if made is None or made[0] is not context.settings:
        updates: Any = {PREFECT_CLIENT_MAX_RETRIES: 0, PREFECT_API_REQUEST_TIMEOUT: 10.0}
        made = (context.settings, context.settings.copy_with_update(updates))
        _IMPATIENT.set(made)
    return SettingsContext(profile=context.profile, settings=made[1])


def api_settings() -> dict[str, Any]:
    """Return Prefect's settings as a task on a worker gets them, for `why_no_api`."""
    with impatient() as context:
        return context.serialize()


def api_environment() -> dict[str, str]:
    """Return the variables that lead another process to the API of this one, which may be a temporary server."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_UI_URL

    found = {one.name: one.value() for one in (PREFECT_API_URL, PREFECT_API_AUTH_STRING, PREFECT_UI_URL)}
    return {name: value for name, value in found.items() if value is not None}


def why_no_api(settings: dict[str, Any]) -> str:
    """Return why tasks in this process could not report to Prefect's API, and what to set; "" if they can."""
    import httpx
    from prefect import get_client
    from prefect.context import SettingsContext
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    with SettingsContext(**settings):
        if not (url := PREFECT_API_URL.value()):
            return ""
        try:
            with get_client(sync_client=True) as client:
                client.read_flows(limit=1)
        except PrefectHTTPStatusError as error:
            status = error.response.status_code
            if status not in (401, 403):
                return ""
            return (
                f"is refused by Prefect's API at {url} ({status}): set PREFECT_API_KEY, or PREFECT_API_AUTH_STRING, "
                "where the flow runs"
            )
        except (httpx.HTTPError, RuntimeError) as error:
            name = type(error).__name__
            return (
                f"does not reach Prefect's API at {url} ({name}), to which its tasks report: set PREFECT_API_URL, "
                "where the flow runs, to an address that the worker reaches"
            )
    return ""


def send_pending_logs() -> None:
    """Send logs and events that are still waiting. What no server takes is dropped: exit would retry it for hours."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    services: Any = EventsWorker
    running = [(service._loop, service._task) for service in tuple(services._instances.values())]
    APILogWorker.drain_all(timeout=5)
    EventsWorker.drain_all(timeout=5)
    for loop, task in running:
        if loop is not None and task is not None:
            loop.call_soon_threadsafe(task.cancel)
