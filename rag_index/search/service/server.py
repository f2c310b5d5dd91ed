"""The web server: it listens, says where, and serves until it is told to stop, or its settings
change."""

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
REQUESTS_STOP_SECONDS = 10
"""How long requests that are being answered have when the service stops."""
LOOK_TICKS = 10
"""Tenths of a second between two looks at the settings file."""
BACKLOG = 2048


def serve(
    settings: Settings, announce: Callable[[str], object], *, more: APIRouter | None = None
) -> None:
    """Serve until SIGINT, SIGTERM or, unless it is ignored, SIGHUP. `announce` gets the address
    once it can be asked.

    `more` are routes of a trial, which may write the settings itself. Otherwise the service ends
    once the settings file has changed: what the change closes must not stay open, and a supervisor
    starts it again.

    Raises SettingsError if the settings are not valid or do not say who may ask, and TerminalError
    if it cannot listen, or has ended because the settings changed.
    """
    tokens = TokenRegister(settings.serve, settings.source.caller_roles)
    require_tokens(settings.serve, tokens)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is an open file
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

        for number in (
            signal.SIGINT,
            signal.SIGTERM,
        ):  # before uvicorn's handlers, and for what it raises again
            signal.signal(number, stop)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
            signal.signal(signal.SIGHUP, stop)
        announce(url_of(listening))
        server.run(sockets=[listening])
    if server.changed:
        raise TerminalError(
            f"settings changed: restart the service, so that it reads {settings.path} again"
        )


class _Server(uvicorn.Server):
    """A server that ends once a file has changed, and is written no more. `changed` says so."""

    def __init__(self, config: uvicorn.Config, file: Path | None) -> None:
        super().__init__(config)
        self.changed = False
        self._file = file
        self._given = self._seen = self._read()

    async def on_tick(self, counter: int) -> bool:
        if counter % LOOK_TICKS == 0:
            before, self._seen = self._seen, self._read()
            self.changed = self._given != before == self._seen
        return await super().on_tick(counter) or self.changed

    def _read(self) -> bytes | None:
        """Return what the file has; None if it cannot be read."""
        try:
            return self._file.read_bytes() if self._file else None
        except OSError:
            return None


def config_of(app: object) -> uvicorn.Config:
    """Return how an application is served."""
    logging.getLogger("uvicorn.access").disabled = True  # it would name what is searched for
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
        h11_max_incomplete_event_size=4
        * MAX_HEADER_BYTES,  # so that most get the problem of the guard
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises TerminalError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.create_server(
            address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=family is socket.AF_INET6
        )
        # asyncio sets this only for sockets whose protocol is named; without it an answer comes 40
        # ms late
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
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
