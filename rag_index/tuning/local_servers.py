"""Ollama servers that run during a search, each on its own port, with one shared model folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from rag_index.errors import EmbedderUnavailable, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_SECONDS = 60.0
STOP_SECONDS = 10.0
SERVICE_FOLDERS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models")
"""Where the installers of a system service put models."""


def model_folder(environ: Mapping[str, str]) -> Path:
    """Return the model folder: OLLAMA_MODELS, this user's default folder, or that of a system service.

    Raises:
        SettingsError: none of them holds models.
    """
    configured = environ.get("OLLAMA_MODELS")
    folders = [Path(configured)] if configured else [Path.home() / ".ollama" / "models", *map(Path, SERVICE_FOLDERS)]
    for folder in folders:
        if (folder / "manifests").is_dir():
            return folder
    places = ", ".join(map(str, folders))
    raise SettingsError(f"there are no Ollama models in {places}; pull one, or name the folder in OLLAMA_MODELS")


@contextmanager
def local_servers(program: str, count: int, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """Start `count` servers and yield their addresses. They are stopped, and their models unloaded, as the block ends.

    Raises:
        SettingsError: there is no model folder.
        EmbedderUnavailable: a server does not start.
    """
    models = model_folder(environ)
    servers: list[subprocess.Popen[bytes]] = []
    try:
        urls = []
        for _ in range(count):
            port = _free_port()
            environment = {**environ, "OLLAMA_HOST": f"127.0.0.1:{port}", "OLLAMA_MODELS": str(models)}
            servers.append(
                subprocess.Popen(
                    [program, "serve"],
                    env=environment | {"OLLAMA_NOPRUNE": "1"},  # a server must not prune models that others share
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C ends the search first, and the search ends the servers
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        for server, url in zip(servers, urls, strict=True):
            _wait_until_ready(server, url)
        yield urls
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            _stop(server)


def _wait_until_ready(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/api/version").is_success:
                    return
            time.sleep(0.05)
    ended = server.poll() is not None
    reason = f"ended with {server.returncode}" if ended else f"did not answer within {START_SECONDS:.0f} s"
    raise EmbedderUnavailable(f"the Ollama server started at {url} {reason}; check that `ollama serve` works here")


def _stop(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # including the processes that run its models
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
