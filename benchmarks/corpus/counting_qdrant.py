"""A Qdrant server that counts points and keeps none but marks, in a process of its own: real REST
and gRPC on loopback.

It takes at most `rate` points a second. What no first run and no run without changes asks for
(searches, scrolling) finds nothing.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

from qdrant_client import grpc as proto

from rag_index.components.stores.points import COMMIT_MARK_ID
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import CALLS, FakeQdrantGrpc

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.sharedctypes import Synchronized
    from multiprocessing.synchronize import Event

__all__ = ["CountingQdrant", "free_ports", "store_settings"]

START_SECONDS = 60
REST_PORT, GRPC_PORT = 6333, 6334
"""The usual ports, because only there a client looks for gRPC by itself."""


def free_ports() -> tuple[int, int]:
    """Return two ports that are free now, for REST and gRPC."""
    with (
        socket.create_server(("127.0.0.1", 0)) as rest,
        socket.create_server(("127.0.0.1", 0)) as grpc,
    ):
        return rest.getsockname()[1], grpc.getsockname()[1]


def store_settings(ports: tuple[int, int]) -> str:
    """Return the part of a settings file that names a server on these ports."""
    return f'[store]\nurl = "http://127.0.0.1:{ports[0]}"\n[store.server]\ngrpc_port = {ports[1]}\n'


class CountingQdrant:
    """The server, used as a context manager. `url` is its address, `points` how many it has
    taken."""

    def __init__(self, rate: float, rest_port: int = REST_PORT, grpc_port: int = GRPC_PORT) -> None:
        self.url = f"http://127.0.0.1:{rest_port}"
        context = multiprocessing.get_context("spawn")
        self._points = context.Value(ctypes.c_int64, 0)
        self._ready = context.Event()
        self._process = context.Process(
            target=_serve,
            args=(rate, (rest_port, grpc_port), self._points, self._ready),
            daemon=True,
        )

    @property
    def points(self) -> int:
        return int(self._points.value)

    @property
    def pid(self) -> int:
        """The number of the server's process."""
        assert self._process.pid is not None
        return self._process.pid

    def __enter__(self) -> CountingQdrant:
        self._process.start()
        if not self._ready.wait(START_SECONDS):
            raise SystemExit("the counting Qdrant server did not start: are its ports free?")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve(rate: float, ports: tuple[int, int], points: Synchronized[int], ready: Event) -> None:
    counter = _Counter(rate, points, CALLS["Upsert"])
    CALLS["Upsert"] = counter.upsert
    CALLS["Count"] = counter.count
    fake = FakeQdrant()
    fake._port = ports[0]
    server = FakeQdrantGrpc(fake)
    server.port = ports[1]
    with fake, server:
        ready.set()
        while True:
            time.sleep(10)
            fake.seen.clear()
            fake.bodies.clear()


class _Counter:
    """The answers that depend on the count of points."""

    def __init__(
        self, rate: float, points: Synchronized[int], keep: Callable[[FakeQdrant, Any], Any]
    ) -> None:
        self._rate = rate
        self._points = points
        self._keep = keep
        self._marks = 0
        self._free_at = time.monotonic()
        self._lock = threading.Lock()

    def upsert(self, fake: FakeQdrant, request: Any) -> Any:
        if [point.id.uuid for point in request.points] == [COMMIT_MARK_ID]:
            self._marks = 1
            return self._keep(fake, request)
        with self._lock:
            now = time.monotonic()
            self._free_at = max(now, self._free_at) + len(request.points) / self._rate
            self._points.value += len(request.points)
            wait = self._free_at - now - 0.5
        if wait > 0:
            time.sleep(wait)
        done = proto.UpdateResult(operation_id=0, status=proto.UpdateStatus.Completed)
        return proto.PointsOperationResponse(result=done)

    def count(self, _: FakeQdrant, request: Any) -> Any:
        """Count all points, or all that have a vector; with any other filter none."""
        conditions = request.filter.must
        if not conditions:
            count = self._points.value + self._marks
        else:
            count = self._points.value if conditions[0].HasField("has_vector") else 0
        return proto.CountResponse(result=proto.CountResult(count=count))
