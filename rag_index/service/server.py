"""The web server: it listens, says where, and serves until it is told to stop."""

from __future__ import annotations

import logging
import resource
import signal
import sys
from typing import TYPE_CHECKING

import uvicorn

from rag_index.retrieve import Retriever
from rag_index.service.addresses import listen, require_tokens, url_of
from rag_index.service.app import make_app
from rag_index.service.tokens import TokenRegister

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import Settings

__all__ = ["serve"]

KEEP_ALIVE_SECONDS = 30
STOP_SECONDS = 10
"""How long requests that are being answered have when the service stops."""
MAX_HEADER_BYTES = 16_384
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def serve(settings: Settings, announce: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM. `announce` gets the address once it can be asked.

    Raises SettingsError if the settings do not say who may ask, and CannotListen.
    """
    tokens = TokenRegister(settings.serve)
    require_tokens(settings.serve, tokens)
    retriever = Retriever.from_settings(settings)
    try:
        app = make_app(settings, retriever, tokens)
        _allow_connections()
        logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
        for name in ("httpx", "mcp", "uvicorn.error"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with listen(settings.serve.host, settings.serve.port) as listening:
            server = uvicorn.Server(_config(app))
            _stop_at_signals(server)
            announce(url_of(listening))
            server.run(sockets=[listening])
    finally:
        retriever.close()


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        access_log=False,  # it would name what is searched for
        server_header=False,
        proxy_headers=False,
        lifespan="on",
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )


def _stop_at_signals(server: uvicorn.Server) -> None:
    """Stop in order at a signal before uvicorn has its own handlers, and survive it when uvicorn raises it again."""

    def stop(*_: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)


def _allow_connections() -> None:
    """Allow as many open files as the system does: each connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
