"""The web server: it listens, says where, follows the settings, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import time
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import uvicorn
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from rag_index.core.files import file_stamp
from rag_index.errors import TerminalError
from rag_index.search import Retriever
from rag_index.search.service.app import make_app
from rag_index.search.service.guard import MAX_HEADER_BYTES
from rag_index.search.service.problems import problem
from rag_index.search.service.tokens import TokenRegister, require_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import APIRouter
    from starlette.types import Receive, Scope, Send

    from rag_index.core.settings import Settings

logger = logging.getLogger(__name__)

RELOAD_LOOK_SECONDS = 1.0
KEEP_ALIVE_SECONDS = 30
REQUESTS_STOP_SECONDS = 10
"""How long requests that are being answered have when the service stops, or goes on with other settings."""
STOP_POLL_SECONDS = 0.1
HEAD_SECONDS = 30.0
"""How long the first lines of a request may take, from the first byte of the connection or after the last answer."""
BACKLOG = 2048


def serve(
    settings: Settings,
    reload: Callable[[], Settings],
    announce: Callable[[str], object],
    *,
    more: APIRouter | None = None,
) -> None:
    """Serve until SIGINT, SIGTERM or, unless it is ignored, SIGHUP. `announce` gets the address once it can be asked.

    `more` are routes of a trial. When the settings file has changed, the service goes on with what `reload` returns, on
    the address of the start.

    Raises SettingsError if the settings do not say who may ask, and TerminalError if it cannot listen.
    """
    address = {"host": settings.serve.host, "port": settings.serve.port}

    def reloaded() -> Settings:
        found = reload()
        return found.model_copy(update={"serve": found.serve.model_copy(update=address)})

    service = _Service(settings, reloaded, more)
    try:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # each connection is an open file
        for name in ("httpx", "mcp", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with listen(settings.serve.host, settings.serve.port) as listening:
            server = uvicorn.Server(config_of(service))

            def stop(*_: object) -> None:
                server.should_exit = True

            for number in (signal.SIGINT, signal.SIGTERM):  # before uvicorn's handlers, and for what it raises again
                signal.signal(number, stop)
            if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
                signal.signal(signal.SIGHUP, stop)
            announce(url_of(listening))
            with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
                runner.run(service.run(server, listening))
    finally:
        service.close()


class _Application:
    """The application of some settings. Between `start` and `stop` it answers requests."""

    def __init__(self, settings: Settings, more: APIRouter | None) -> None:
        """Raise SettingsError if the settings are not valid, or do not say who may ask."""
        tokens = TokenRegister(settings.serve, settings.source.caller_roles)
        require_tokens(settings.serve, tokens)
        self.retriever = Retriever.from_settings(settings)
        self._app = make_app(settings, self.retriever, tokens, more)
        self._stopping = asyncio.Event()
        self._requests = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._requests -= 1

    async def start(self) -> None:
        """Begin to live, in a task of its own: what begins with an application has to end in the same task."""
        started = asyncio.Event()
        self._life = asyncio.create_task(self._live(started))
        await started.wait()

    async def stop(self) -> None:
        """Let the requests under way end, and close everything."""
        until = time.monotonic() + REQUESTS_STOP_SECONDS
        while self._requests and time.monotonic() < until:
            await asyncio.sleep(STOP_POLL_SECONDS)
        self._stopping.set()
        await self._life
        await self.retriever.aclose()

    async def _live(self, started: asyncio.Event) -> None:
        async with self._app.router.lifespan_context(self._app):
            started.set()
            await self._stopping.wait()


class _Service:
    """The application of the settings as they are now.

    If they are not valid, nothing is answered: what a change would close must not stay open.
    """

    def __init__(self, settings: Settings, reloaded: Callable[[], Settings], more: APIRouter | None) -> None:
        """Raise SettingsError as `_Application`."""
        self._file, self._reloaded, self._more = settings.path, reloaded, more
        self._stamp = file_stamp(self._file)
        self._current: _Application | None = _Application(settings, more)
        self.server: uvicorn.Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._current is not None:
            await self._current(scope, receive, send)
        elif scope["path"] == "/healthz":
            await JSONResponse({"status": "alive"})(scope, receive, send)
        else:
            detail = "the settings have changed and are not valid; the log says why"
            await problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})(scope, receive, send)

    async def run(self, server: uvicorn.Server, listening: socket.socket) -> None:
        """Serve until the server is told to stop."""
        self.server = server
        if self._current is not None:
            await self._current.start()
        following = asyncio.create_task(self._follow())
        await server.serve(sockets=[listening])
        following.cancel()
        if self._current is not None:
            await self._current.stop()

    def close(self) -> None:
        """Close what is open still."""
        if self._current is not None:
            self._current.retriever.close()

    async def _follow(self) -> None:
        """Go on with other settings whenever their file has changed, and is written no more."""
        seen = self._stamp
        while True:
            await asyncio.sleep(RELOAD_LOOK_SECONDS)
            before, seen = seen, file_stamp(self._file)
            if before == seen != self._stamp:
                self._stamp = seen
                await self._change()

    async def _change(self) -> None:
        logger.info("%s has changed: it is read again", self._file)
        old = self._current
        try:
            new = _Application(self._reloaded(), self._more)
            await new.start()
            self._current = new
        except Exception as error:  # noqa: BLE001 - whatever it is, what may have to be closed is not answered
            logger.error("nothing is answered until the settings are valid: %s", error)
            self._current = None
        if old is not None:
            with suppress(Exception):  # it is not asked any more
                await old.stop()


class Connection(H11Protocol):
    """A connection whose client has a limit of time for the first lines.

    One that is accepted while the service stops is closed at once.
    """

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first lines."""
        super().connection_made(transport)
        self.access_log = False  # it would name what is searched for
        server = getattr(self.app, "server", None)
        if server and server.should_exit:
            transport.close()
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        super().connection_lost(exc)
        self._watch()

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and not self.transport.is_closing()

    def _watch(self) -> None:
        """Close the connection in a while, unless a request is answered by then."""
        if self._answering or self.transport.is_closing():
            if self._head:
                self._head.cancel()
            self._head = None
        elif self._head is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.close)


def config_of(app: object) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=REQUESTS_STOP_SECONDS,
        http=Connection,
        h11_max_incomplete_event_size=4 * MAX_HEADER_BYTES,  # so that most get the problem of the guard
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
        # asyncio sets this only for sockets whose protocol is named; without it an answer comes 40 ms late
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except (OSError, UnicodeError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise TerminalError(
            f"cannot listen on port {port} of {host}: {reason}; choose another with --port or --host"
        ) from exc


def url_of(listening: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
