"""Ollama servers for the time of a search: on ports of their own, with one model folder."""

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

__all__ = ["local_servers", "model_folder"]

START_SECONDS = 60.0
STOP_SECONDS = 10.0
FOLDERS = ("/usr/share/ollama/.ollama/models", "/var/lib/ollama/models")
"""Where installers of a service put models."""


def model_folder(environ: Mapping[str, str]) -> Path:
    """The folder of models that a server of this user has: OLLAMA_MODELS, its own default, or a service's.

    Raises:
        SettingsError: there is none.
    """
    given = environ.get("OLLAMA_MODELS")
    tried = [Path(given)] if given else [Path.home() / ".ollama" / "models", *map(Path, FOLDERS)]
    for folder in tried:
        if (folder / "manifests").is_dir():
            return folder
    places = ", ".join(map(str, tried))
    raise SettingsError(f"there are no Ollama models in {places}: pull one, or name the folder with OLLAMA_MODELS")


@contextmanager
def local_servers(program: str, count: int, environ: Mapping[str, str]) -> Iterator[list[str]]:
    """So many servers, by their addresses; they are stopped when the block ends, and their models unloaded.

    Raises:
        SettingsError: there is no folder of models.
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
                    env=environment | {"OLLAMA_NOPRUNE": "1"},  # a server must not tidy what others share
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C ends the search first, and the search ends the servers
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        for server, url in zip(servers, urls, strict=True):
            _wait(server, url)
        yield urls
    finally:
        for server in servers:
            server.terminate()
        for server in servers:
            _end(server)


def _wait(server: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    with httpx.Client(trust_env=False, timeout=2.0) as client:
        while time.monotonic() < deadline and server.poll() is None:
            with suppress(httpx.TransportError):
                if client.get(f"{url}/api/version").is_success:
                    return
            time.sleep(0.05)
    ended = f"ended with {server.returncode}" if server.poll() is not None else f"is silent after {START_SECONDS:.0f} s"
    raise EmbedderUnavailable(f"an Ollama server of its own at {url} {ended}; does `ollama serve` work here?")


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # with the processes that run its models
        server.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
