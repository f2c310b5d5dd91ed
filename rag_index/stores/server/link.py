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
from rag_index.stores.server.errors import FOREIGN, short_reason, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import models

__all__ = ["Link"]

T = TypeVar("T")

REST_PORT, GRPC_PORT = 6333, 6334
MIN_VERSION = (1, 16)
"""The first version that stores metadata of a collection."""
MIN_PAUSE, MAX_PAUSE = 0.1, 5.0
PROBE_SECONDS = 2.0
USUAL_SILENCE = 10.0
"""Seconds that one request may take while all is well, such as a large upsert on a busy server."""


class Link:
    """A connection that retries a call while that may help, for at most `patience` seconds.

    It uses gRPC if the same server answers on `grpc_port`, and REST otherwise. The default `grpc_port` is 6334 if the
    URL's port is 6333; any other port gives no hint of where gRPC is. Each request may take `timeout` seconds, so a
    call ends within about `patience + timeout`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 30.0,
        grpc_port: int | None = None,
        client: QdrantClient | None = None,
        sleep: Callable[[float], object] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.url = url
        self._api_key = api_key
        self._timeout = timeout
        self._patience = patience
        self._grpc_port = grpc_port
        self._client = client
        self._closed = False
        self._mutex = threading.Lock()
        self.sleep = sleep
        self.clock = clock
        self._jitter = jitter

    def call(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what `ask` returns. Raises what `translate` returns, StoreUnavailable after `patience` seconds."""
        deadline = self.clock() + self._patience
        pause = MIN_PAUSE
        with asking(f"Qdrant at {self.url}", patience=USUAL_SILENCE) as call:
            while True:
                try:
                    return self._try(ask)
                except StoreUnavailable as exc:
                    call.failed(short_reason(exc, self.url))
                    wait = exc.retry_after or pause * (0.5 + self._jitter() / 2)
                    if self.clock() + wait > deadline:
                        raise
                self.sleep(wait)
                pause = min(pause * 2, MAX_PAUSE)

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
            if self._grpc_port_open() and self._grpc_answers(found):
                rest.close()
                return self._new_client(grpc=True)
        except BaseException:
            rest.close()
            raise
        return rest

    def _grpc_answers(self, found: models.VersionInfo) -> bool:
        """Return whether the same Qdrant server is behind the gRPC port."""
        probe = self._new_client(grpc=True, timeout=PROBE_SECONDS)
        try:
            return bool(probe.info() == found)
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
                timeout=math.ceil(timeout or self._timeout),
                prefer_grpc=grpc,
                grpc_port=self._grpc_port or GRPC_PORT,
                check_compatibility=False,
            )

    def _grpc_port_open(self) -> bool:
        parts = urlsplit(self.url)
        if not parts.hostname or (self._grpc_port is None and (parts.port or REST_PORT) != REST_PORT):
            return False
        try:
            with socket.create_connection((parts.hostname, self._grpc_port or GRPC_PORT), timeout=PROBE_SECONDS):
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
