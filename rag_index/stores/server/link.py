"""The connection to a Qdrant server: opened when first needed, over gRPC if possible; retries after passing faults."""

from __future__ import annotations

import math
import random
import re
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from qdrant_client import QdrantClient

from rag_index.errors import StoreError, StoreUnavailable
from rag_index.outages import asking
from rag_index.stores.server.errors import FOREIGN, complaint, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import models

T = TypeVar("T")

REST_PORT = 6333
MAX_PORT = 65_535
WEB_PORTS = (80, 443)
"""Ports of proxies, beside which no gRPC port can be guessed."""
MIN_VERSION = (1, 16)
"""The first version that stores metadata of a collection."""
PATIENCE = 30.0
"""Seconds for which a call is retried, if its caller does not say otherwise."""
MAX_ASKED = 3600.0
"""Seconds for which the server may ask one call to wait in all. Qdrant's own rate limits are by the minute."""
MIN_PAUSE, MAX_PAUSE = 0.1, 5.0
MAX_ASKED_PAUSE = 60.0
"""Seconds that a call waits at most where the server asks for a pause again and again: by then it lets a minute's
requests through. It may ask for the time of one payload where a request has hundreds, and each try uses some up."""
PROBE_SECONDS = 2.0
MAX_BACKOFF_MS = 1000
"""How long gRPC may wait before it connects again. Its own two minutes would outlast an outage, and our patience."""
USUAL_SILENCE = 10.0
"""Seconds that one request may take while all is well, such as a large upsert on a busy server."""


class Link:
    """A connection that retries a call while that may help, for at most `patience` seconds.

    By default that is 30, and pauses that the server asks for do not count: there is nobody who waits for an answer.

    It uses gRPC if the same server answers on `grpc_port`, and REST otherwise. By default that is the URL's port plus
    one, as for a server with Qdrant's own ports; 0 means REST alone. Each request may take `timeout` seconds, so a call
    ends within about `patience + timeout`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
        grpc_port: int | None = None,
        client: QdrantClient | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self._api_key = api_key
        self.timeout = timeout
        self._patience = PATIENCE if patience is None else patience
        self._waits_out = patience is None
        self._grpc_port = _usual_grpc_port(url) if grpc_port is None else grpc_port
        self._client = client
        self._version = ""
        self._fallback = ""
        self._closed = False
        self._mutex = threading.Lock()
        self.sleep = sleep
        self.clock = clock
        self._jitter = jitter

    def version(self) -> str:
        """Return the version of the server, "" for a client that was given. Raises as `call`."""
        self.call(lambda client: client)
        return self._version

    def fallback(self) -> str:
        """Return why REST is used although gRPC was wanted, "" if gRPC is used or not wanted. Raises as `call`."""
        self.call(lambda client: client)
        return self._fallback

    def call(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what `ask` returns. Raises what `translate` returns, StoreUnavailable after `patience` seconds."""
        deadline = self.clock() + self._patience
        latest = deadline + MAX_ASKED
        pause = MIN_PAUSE
        with asking(f"Qdrant at {self.url}", patience=USUAL_SILENCE) as call:
            while True:
                try:
                    return self._try(ask)
                except StoreUnavailable as exc:
                    reason, answered = complaint(exc, self.url)
                    call.failed(reason, answered=answered)
                    asked = exc.retry_after or 0.0
                    wait = max(asked, pause * (0.5 + self._jitter() / 2))
                    if asked and self._waits_out:
                        deadline = min(deadline + wait, latest)
                    if self.clock() + wait > deadline:
                        raise
                self.sleep(wait)
                pause = min(pause * 2, MAX_ASKED_PAUSE if asked else MAX_PAUSE)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        with self._mutex:
            self._closed = True
            if self._client is not None:
                self._client.close()
                self._client = None

    def _try(self, ask: Callable[[QdrantClient], T]) -> T:
        try:
            return ask(self._connected_client())
        except FOREIGN as exc:
            raise translate(exc, self.url) from exc

    def _connected_client(self) -> QdrantClient:
        with self._mutex:
            if self._closed:
                raise StoreError(f"the connection to Qdrant at {self.url} is closed")
            if self._client is None:
                self._client = self._connect()
            return self._client

    def _connect(self) -> QdrantClient:
        rest = self._new_client(grpc=False)
        try:
            found = rest.info()
            self._check_version(found.version)
            self._version = found.version
            self._fallback = self._why_rest(rest, found)
            if self._grpc_port and not self._fallback:
                rest.close()
                return self._new_client(grpc=True)
        except BaseException:
            rest.close()
            raise
        return rest

    def _why_rest(self, rest: QdrantClient, found: models.VersionInfo) -> str:
        """Return why gRPC cannot be used, "" if it can or is not wanted."""
        if self._grpc_port == 0:
            return ""
        if self._grpc_port is None:
            return f"the port of {self.url} does not tell where Qdrant answers gRPC"
        if not self._grpc_port_open() or not self._grpc_answers(rest, found):
            return f"Qdrant at {self.url} does not answer gRPC on port {self._grpc_port}"
        return ""

    def _grpc_answers(self, rest: QdrantClient, found: models.VersionInfo) -> bool:
        """Return whether the same Qdrant server is behind the gRPC port: one of this version with these collections.

        The version alone would not do: on one machine several servers may be of the same.
        """
        names = _names(rest)
        probe = self._new_client(grpc=True, timeout=PROBE_SECONDS)
        try:
            return bool(probe.info() == found) and _names(probe) == names
        except FOREIGN:
            return False
        finally:
            probe.close()

    def _new_client(self, *, grpc: bool, timeout: float | None = None) -> QdrantClient:
        with warnings.catch_warnings():
            # An API key over http is usual within one host or cluster.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return QdrantClient(
                url=self.url,
                api_key=self._api_key,
                timeout=math.ceil(timeout or self.timeout),
                prefer_grpc=grpc,
                grpc_port=self._grpc_port or REST_PORT + 1,
                grpc_options={"grpc.max_reconnect_backoff_ms": MAX_BACKOFF_MS},
                check_compatibility=False,
            )

    def _grpc_port_open(self) -> bool:
        parts = urlsplit(self.url)
        if not parts.hostname:
            return False
        try:
            with socket.create_connection((parts.hostname, self._grpc_port), timeout=PROBE_SECONDS):
                return True
        except OSError:
            return False

    def _check_version(self, version: str) -> None:
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers and (int(numbers[1]), int(numbers[2])) < MIN_VERSION:
            raise StoreError(
                f"Qdrant at {self.url} is version {version}: upgrade it to {'.'.join(map(str, MIN_VERSION))} or newer, "
                "which stores metadata of collections"
            )


def _usual_grpc_port(url: str) -> int | None:
    """Return the port where Qdrant usually answers gRPC, None if the URL does not tell."""
    port = urlsplit(url).port or REST_PORT
    return None if port in WEB_PORTS or port == MAX_PORT else port + 1


def _names(client: QdrantClient) -> set[str]:
    return {found.name for found in client.get_collections().collections}
