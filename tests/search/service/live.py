"""The service on loopback: the real application in a real server, in a thread of the test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import uvicorn

from rag_index.core.settings import Settings
from rag_index.search import Retriever
from rag_index.search.service.app import make_app
from rag_index.search.service.server import config_of, listen
from tests.waiting import GENEROUS, eventually


class Live:
    """A service over the indexes of some settings, until the `with` block ends."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def __enter__(self) -> Live:
        self.retriever = Retriever(self._settings)
        self._socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = config_of(make_app(self._settings, self.retriever))
        config.lifespan, config.timeout_graceful_shutdown, config.timeout_keep_alive = (
            "on",
            5,
            int(GENEROUS),
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, daemon=True
        )
        self._thread.start()
        eventually(lambda: self._server.started, "the service starts")
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()
        self.retriever.close()


@contextmanager
def asking(settings: Settings) -> Iterator[httpx.Client]:
    """Run a service over the indexes of some settings, and yield a client that asks it."""
    with Live(settings) as live, httpx.Client(base_url=live.url, timeout=60) as client:
        yield client
