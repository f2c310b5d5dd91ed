"""The Prefect API of a run: the one that the settings name, or one server on loopback for its time."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.database.files import replace_file
from rag_index.errors import TransientError
from rag_index.machine.garbage import collect_seldom

if TYPE_CHECKING:
    from collections.abc import Iterator


__all__ = ["ApiServer", "prefect_api", "send_pending_logs", "temporary_server"]


START_SECONDS = 120


@contextmanager
def prefect_api(started: ApiServer | None = None) -> Iterator[str]:
    """Give the URL of the API: that of Prefect's settings (PREFECT_API_URL), or of a server for the time of the block.

    With neither, each Dask worker would start a server of its own, of 210 MB. A server that was `started` already is
    used if one is needed, and ended if not.
    """
    from prefect.settings import (
        PREFECT_API_SSL_CERT_FILE,
        PREFECT_API_URL,
        PREFECT_CLIENT_MAX_RETRIES,
        PREFECT_HOME,
        temporary_settings,
    )

    given = PREFECT_API_URL.value()
    if given:
        if started is not None:
            started.end()
        try:
            yield given
        finally:
            send_pending_logs()
        return
    # Our own server does not come back once it has gone: retry for seconds, not for a minute with each call.
    with started or ApiServer() as server:
        url = server.wait()
        authority = _one_authority(PREFECT_HOME.value())
        changed = {PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 1, PREFECT_API_SSL_CERT_FILE: authority}
        with temporary_settings(changed):
            try:
                yield url
            finally:
                send_pending_logs()


def _one_authority(folder: Path) -> str:
    """Return a file with one of the certificates that Prefect trusts.

    Prefect reads all 150 for each client, and makes three clients for a task: a twentieth of what a worker does, for a
    server on loopback that has no TLS.
    """
    import certifi

    file = folder / "authority.pem"
    if not file.exists():
        end = "-----END CERTIFICATE-----\n"
        bundle = Path(certifi.where()).read_text(encoding="utf-8")
        first = bundle[bundle.index("-----BEGIN") : bundle.index(end) + len(end)]
        replace_file(file, first.encode("ascii"))  # other runs may do the same now, and read what they find
    return str(file)


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


@contextmanager
def temporary_server() -> Iterator[str]:
    """Give the URL of a Prefect API on a free loopback port, for the time of the block."""
    with ApiServer() as server:
        yield server.wait()


class ApiServer:
    """A Prefect API on a free loopback port, in a process that ends when this one does, however it ends.

    The process starts with the object. `end` ends it, and so does leaving a `with` block.
    """

    def __init__(self) -> None:
        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        environment = {
            **os.environ,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(listener.fileno())],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # Ctrl-C ends the flow first, and the flow ends the server
        )
        listener.close()

    def __enter__(self) -> ApiServer:
        return self

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
            while time.monotonic() < deadline and self._process.poll() is None:
                try:
                    if client.get(f"{self._url}/health").status_code == 200:
                        return self._url
                except httpx.TransportError:
                    pass
                time.sleep(0.05)
        code = self._process.poll()
        ended = f"ended with {code}" if code is not None else f"is silent after {START_SECONDS} s"
        raise TransientError(
            f"the temporary Prefect server {ended}; --verbose shows why, PREFECT_API_URL names another"
        )


def _serve(descriptor: int) -> None:
    """Serve until told to stop, or until the parent has gone, which closes our standard input."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn

    with collect_seldom():
        uvicorn.run(
            "prefect.server.api.server:create_app", factory=True, fd=descriptor, log_level="error", lifespan="on"
        )


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
