"""The Prefect API of a run: the one that the settings name, or one server on loopback for its time."""

from __future__ import annotations

import asyncio
import fcntl
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from rag_index.errors import TransientError
from rag_index.machine import collect_seldom

if TYPE_CHECKING:
    from collections.abc import Iterator

    import uvicorn
    from prefect.context import SettingsContext


USER = "rag-index"
START_SECONDS = 300.0
"""A server takes 3 to 5 s of processor time to start, which can be minutes on a busy machine."""
PAUSE_SECONDS = 2.0


@contextmanager
def prefect_api(started: ApiServer | None = None) -> Iterator[str]:
    """Give the URL of the API: that of Prefect's settings (PREFECT_API_URL), or of a server for the time of the block.

    With neither, each Dask worker would start a server of its own, of 210 MB. A server that was `started` already is
    used if one is needed, and ended if not. Our own asks for a password, which tasks on workers get with the settings.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        temporary_settings,
    )

    url = PREFECT_API_URL.value()
    with ExitStack() as stack:
        if url and started is not None:
            started.end()
        if not url:
            server = stack.enter_context(started or ApiServer())
            url = server.wait()
            changed: dict[Any, Any] = {
                PREFECT_API_URL: url,
                PREFECT_API_AUTH_STRING: server.password,
                PREFECT_CLIENT_MAX_RETRIES: 1,  # for seconds, not a minute with each call: it does not come back
            }
            stack.enter_context(temporary_settings(changed))
        stack.callback(send_pending_logs)
        yield url


def is_deployed() -> bool:
    """Return whether this is called in a run of a deployment, or in a flow of one."""
    import httpx
    from prefect import runtime

    try:
        return bool(runtime.deployment.id)
    except httpx.TransportError:  # Prefect asks the server only about runs that are no deployment's
        return False


def wait_for_api() -> None:
    """Wait until Prefect's server answers: in a deployed run as long as it takes, else as long as Prefect's clients do.

    Call it where a run can do nothing else: before it reports what is committed already, and before its next index.
    """
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
            time.sleep(PAUSE_SECONDS)
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


class ApiServer(AbstractContextManager["ApiServer"]):
    """A Prefect API on a free loopback port, in a process that ends when this one does, however it ends.

    The process starts with the object. `end` ends it, and so does leaving a `with` block. Every user of the machine
    reaches the port, and whoever may use the API can run code in the flow: so it asks for a password of its own.
    """

    def __init__(self) -> None:
        self.password = f"{USER}:{secrets.token_urlsafe(32)}"
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        # uvicorn does not set this for a socket that it is given, and without it each answer waits 40 ms for the client
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        environment = {
            **os.environ,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            "PREFECT_SERVER_API_AUTH_STRING": self.password,  # unlike arguments, not seen by other users
        }
        if home := environment.get("PREFECT_HOME"):
            environment["PREFECT_HOME"] = str(Path(home).expanduser().absolute())  # the server leaves this folder
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, str(listener.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C ends the flow first, and the flow ends the server
        )
        listener.close()

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """End the process. A second call does nothing."""
        if self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait(self) -> str:
        """Wait until the API answers, and return its URL. Raises TransientError if it does not."""
        import httpx

        deadline = time.monotonic() + START_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while self._process.poll() is None and time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    if client.get(f"{self._url}/health").status_code == 200:
                        return self._url
                time.sleep(0.05)
        code = self._process.poll()
        ended = f"did not answer within {START_SECONDS:.0f} s" if code is None else f"ended with {code}"
        raise TransientError(
            f"the temporary Prefect server {ended}; --verbose shows why, PREFECT_API_URL names another"
        )


def _serve(descriptor: int) -> None:
    """Serve until told to stop, or until the parent has gone, which closes our standard input."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import prefect.settings  # settings are read here, from the folder in which the run was started
    import uvicorn

    starting = (prefect.settings.PREFECT_HOME.value() / "starting").open("w")
    fcntl.flock(starting, fcntl.LOCK_EX)  # two servers that make or migrate one SQLite file at once end with an error
    os.chdir("/")  # Alembic, which makes Prefect's tables, imports from the current folder first
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # uvicorn takes it meanwhile, and sends it again as it ends
    server = uvicorn.Server(
        uvicorn.Config("prefect.server.api.server:create_app", factory=True, fd=descriptor, log_level="error")
    )
    threading.Thread(target=_let_others_start, args=(server, starting), daemon=True).start()
    with collect_seldom():
        with suppress(SystemExit):
            server.run()
        if server.started:
            asyncio.run(_prune())
            os._exit(0)  # Python would take seconds to free what Prefect has loaded, and the command waits for that


def _let_others_start(server: uvicorn.Server, starting: IO[str]) -> None:
    while not server.started:
        time.sleep(0.05)
    starting.close()


async def _prune() -> None:
    """Delete old runs and events: a server that lives as long as a run does not get to it by itself."""
    from prefect.server.database import provide_database_interface
    from prefect.server.services.db_vacuum import vacuum_old_events, vacuum_old_flow_runs

    database = provide_database_interface()
    await vacuum_old_flow_runs(db=database)
    await vacuum_old_events(db=database)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
