"""The connection to a Qdrant server: made when first needed, by gRPC where it answers; waits out passing faults."""

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
from rag_index.stores.server.errors import FOREIGN, translate

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import models

__all__ = ["Link"]

T = TypeVar("T")

REST_PORT, GRPC_PORT = 6333, 6334
OLDEST = (1, 16)
"""The first version that keeps metadata of a collection."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
PROBE_SECONDS = 2.0


class Link:
    """Calls Qdrant and tries again while that may help, at most for `patience` seconds a call.

    gRPC is used where the same server answers on `grpc_port`, REST otherwise. Without one it is 6334 for the URL's
    port 6333; another port says nothing of where its gRPC might be. Each request may take `timeout` seconds, so a
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
        """What `ask` returns; raises what `translate` says, StoreUnavailable only once patience is at its end."""
        deadline = self.clock() + self._patience
        pause = FIRST_PAUSE
        while True:
            try:
                return self._try(ask)
            except StoreUnavailable as exc:
                wait = exc.retry_after or pause * (0.5 + self._jitter() / 2)
                if self.clock() + wait > deadline:
                    raise
            self.sleep(wait)
            pause = min(pause * 2, LONGEST_PAUSE)

    def close(self) -> None:
        """End the connection; a second call does nothing."""
        with self._mutex:
            self._closed = True
            if self._client is not None:
                self._client.close()
                self._client = None

    def _try(self, ask: Callable[[QdrantClient], T]) -> T:
        try:
            return ask(self._connected())
        except FOREIGN as exc:
            raise translate(exc, self.url) from exc

    def _connected(self) -> QdrantClient:
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
        """Whether Qdrant itself is behind the gRPC port, and the same one."""
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
        if numbers and (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise StoreError(
                f"Qdrant at {self.url} is version {version}; rag-index needs {'.'.join(map(str, OLDEST))} or newer, "
                "which keeps metadata of collections: upgrade it"
            )
