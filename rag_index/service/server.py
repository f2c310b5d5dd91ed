"""The web server: it listens, says where, follows the settings, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
from contextlib import contextmanager, suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from uvicorn.protocols.http.h11_impl import H11Protocol

from rag_index.database.files import file_stamp
from rag_index.errors import CannotListen
from rag_index.retrieve import Retriever
from rag_index.service.app import make_app
from rag_index.service.guard import MAX_HEADER_BYTES
from rag_index.service.problems import problem
from rag_index.service.tokens import TokenRegister, require_tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from fastapi import APIRouter
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from rag_index.settings import Settings

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the settings file is looked at."""
KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 10
"""How long requests that are being answered have when the service stops, or goes on with other settings."""
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

    Raises SettingsError if the settings do not say who may ask, and CannotListen.
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
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                    signal.signal(number, service.stop)
            announce(url_of(listening))
            with asyncio.Runner(loop_factory=service.server.config.get_loop_factory()) as runner:
                runner.run(service.run(listening))
    finally:
        service.close()


class _Server(uvicorn.Server):
    """A server with the settings of its time, which closes its retriever when it has answered its last request."""

    def __init__(self, app: Starlette, retriever: Retriever | None = None) -> None:
        super().__init__(config_of(app))
        self.retriever = retriever
        app.state.server = self

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `serve`."""
        yield

    async def answer(self, listening: socket.socket) -> None:
        """Serve until it is told to stop, and the requests under way have ended."""
        await self.serve(sockets=[listening.dup()])
        if self.retriever is not None:
            with suppress(Exception):  # it is not asked any more
                await self.retriever.aclose()


class _Service:
    """The server with the settings as they are now, and those before it until their last request has ended.

    All accept from one socket. If the settings are not valid, nothing is answered: what a change would close must not
    stay open.
    """

    def __init__(self, settings: Settings, reloaded: Callable[[], Settings], more: APIRouter | None) -> None:
        """Raise SettingsError if the settings are not valid, or do not say who may ask."""
        self._file, self._reloaded, self._more = settings.path, reloaded, more
        self._stamp = file_stamp(self._file)
        self.server = self._made(settings)

    def _made(self, settings: Settings) -> _Server:
        tokens = TokenRegister(settings.serve, settings.source.caller_roles)
        require_tokens(settings.serve, tokens)
        retriever = Retriever.from_settings(settings)
        return _Server(make_app(settings, retriever, tokens, self._more), retriever)

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Have the server stop, at a second SIGINT without waiting for requests."""
        self.server.handle_exit(number, frame)

    def close(self) -> None:
        """Close what is open still."""
        if self.server.retriever is not None:
            self.server.retriever.close()

    async def run(self, listening: socket.socket) -> None:
        """Serve until told to stop, with other settings whenever their file has changed and is written no more."""
        seen = self._stamp
        async with asyncio.TaskGroup() as servers:
            serving = servers.create_task(self.server.answer(listening))
            while not serving.done():
                await asyncio.wait([serving], timeout=LOOK_SECONDS)
                before, seen = seen, file_stamp(self._file)
                if before == seen != self._stamp:
                    self._stamp = seen
                    old, self.server = self.server, self._changed()
                    self.server.should_exit, old.should_exit = old.should_exit, True
                    serving = servers.create_task(self.server.answer(listening))

    def _changed(self) -> _Server:
        logger.info("%s has changed: it is read again", self._file)
        try:
            return self._made(self._reloaded())
        except Exception as error:  # noqa: BLE001 - whatever it is, what may have to be closed is not answered
            logger.error("nothing is answered until the settings are valid: %s", error)
        return _Server(Starlette(routes=[Route("/healthz", _alive), Mount("/", _refuse)]))


async def _alive(_: Request) -> JSONResponse:
    return JSONResponse({"status": "alive"})


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    detail = "the settings have changed and are not valid; the log says why"
    await problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "5"})(scope, receive, send)


class Connection(H11Protocol):
    """A connection whose client has a limit of time for the first lines.

    One that is accepted while the service stops is closed at once.
    """

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first lines."""
        super().connection_made(transport)
        self.access_log = False  # it would name what is searched for
        server = getattr(self.config.app.state, "server", None)  # type: ignore[union-attr]
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


def config_of(app: Starlette) -> uvicorn.Config:
    """Return how an application is served."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        http=Connection,
        h11_max_incomplete_event_size=4 * MAX_HEADER_BYTES,  # so that most get the problem of the guard
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there. Raises CannotListen."""
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
        raise CannotListen(
            f"cannot listen on port {port} of {host}: {reason}; choose another with --port or --host"
        ) from exc


def url_of(listening: socket.socket) -> str:
    """Return the address for a browser on this machine."""
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - nothing is bound here
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
