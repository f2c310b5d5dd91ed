"""A Prefect API for tests and benchmarks."""

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from tests.waiting import eventually

SERVE = """
import os, sys, threading, uvicorn
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()  # it ends with its parent
uvicorn.run("prefect.server.api.server:create_app", factory=True, fd=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def temporary_server() -> Iterator[dict[str, str]]:
    """Give the variables that lead to a Prefect API on a free loopback port, for the time of the block."""
    password = f"rag-index:{secrets.token_urlsafe()}"
    own = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else each answer waits 40 ms for the client
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        server = subprocess.Popen(
            [sys.executable, "-P", "-c", SERVE, str(listener.fileno())],
            env={**os.environ, **own, "PREFECT_SERVER_API_AUTH_STRING": password},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=[listener.fileno()], start_new_session=True,
            cwd="/",  # Alembic, which makes Prefect's tables, imports from the current folder first
        )  # fmt: skip
    try:
        with httpx.Client(trust_env=False, timeout=5) as client:
            eventually(lambda: _is_healthy(client, f"{url}/health"), "the Prefect server answers", seconds=300)
        yield {"PREFECT_API_URL": url, "PREFECT_API_AUTH_STRING": password}
    finally:
        server.kill()
        server.wait()


def _is_healthy(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(url).is_success
    except httpx.TransportError:
        return False
