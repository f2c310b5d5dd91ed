"""The web server: it listens, announces its address, and serves until a signal stops it or its
settings change."""

from __future__ import annotations

import logging
import resource
import signal
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import uvicorn

from rag_index.errors import TerminalError
from rag_index.search import Retriever
from rag_index.search.service.app import make_app
from rag_index.search.service.guard import MAX_HEADER_BYTES
from rag_index.search.service.tokens import TokenRegister, require_tokens

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fastapi import APIRouter

    from rag_index.core.settings import Settings

KEEP_ALIVE_SECONDS = 30
"""How long an idle connection stays open. Chosen, as are the next three; nothing depends on it."""
REQUESTS_STOP_SECONDS = 10
"""How long the requests under way may take when the service stops."""
LOOK_TICKS = 10
"""Tenths of a second between two readings of the settings file."""
BACKLOG = 2048
"""Connections that wait to be accepted."""


def serve(
    settings: Settings, announce: Callable[[str], object], *, more: APIRouter | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or, unless it is ignored, SIGHUP.

    The service also ends once the settings file has changed, because the change may withdraw
    rights. A supervisor starts it again.

    Args:
        announce: Is called with the address once the service listens.
        more: Routes of a trial. As they may write the settings, a change does not end the service.

    Raises:
        SettingsError: The settings are not valid, or other machines could ask without a token.
        TerminalError: It cannot listen, or it ended because the settings changed.
    """
    tokens = TokenRegister(settings.serve, settings.source.caller_roles)
    require_tokens(settings.serve, tokens)
    # Each connection is an open file.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for name in ("httpx", "mcp", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with (
        closing(Retriever.from_settings(settings)) as retriever,
        listen(settings.serve.host, settings.serve.port) as listening,
    ):
        app = make_app(settings, retriever, tokens, more)
        server = _Server(config_of(app), settings.path if more is None else None)

        def stop(*_: object) -> None:
            server.should_exit = True

        # They act before uvicorn sets its own handlers, and on the signals that it raises again.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        # `nohup` ignores SIGHUP.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, stop)
        announce(url_of(listening))
        server.run(sockets=[listening])
    if server.changed:
        raise TerminalError(
            f"settings changed: restart the service, so that it reads {settings.path} again"
        )


class _Server(uvicorn.Server):
    """A server that ends once a file has changed; `changed` is then true."""

    def __init__(self, config: uvicorn.Config, file: Path | None) -> None:
        super().__init__(config)
        self.changed = False
        self._file = file
        self._given = self._seen = self._read()

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server should exit; uvicorn calls it ten times a second."""
        if counter % LOOK_TICKS == 0:
            before = self._seen
            self._seen = self._read()
            # Only when two readings are equal: a file that is being written may be incomplete.
            self.changed = self._given != before == self._seen
        return await super().on_tick(counter) or self.changed

    def _read(self) -> bytes | None:
        """Return the content of the file; None if it cannot be read."""
        if self._file is None:
            return None
        try:
            return self._file.read_bytes()
        except OSError:
            return None


def config_of(app: object) -> uvicorn.Config:
    """Return the configuration with which an application is served."""
    # Its lines would contain queries. The guard logs requests without them.
    logging.getLogger("uvicorn.access").disabled = True
    # Larger than the guard's limit, so that most requests above it still get its problem details.
    max_header_bytes = 4 * MAX_HEADER_BYTES
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=REQUESTS_STOP_SECONDS,
        http="h11",
        h11_max_incomplete_event_size=max_header_bytes,
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises TerminalError if the address is not valid or not free."""
    try:
        addresses = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, address = addresses[0]
        listening = socket.create_server(
            address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=family is socket.AF_INET6
        )
        # asyncio sets this only for sockets whose protocol is named. Without it an answer is 40 ms
        # late.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise TerminalError(
            f"cannot listen on port {port} of {host}: {reason}; choose another with --port or"
            " --host"
        ) from exc


def url_of(listening: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    # All addresses of the machine.
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        host = "127.0.0.1"
    # IPv6: "http://[::1]:8000".
    if ":" in host:
        host = f"[{host}]"
    return f"http://{host}:{port}"
