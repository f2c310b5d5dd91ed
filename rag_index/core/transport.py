"""Connections over HTTP whose answers have one time limit and one size as a whole. httpx limits each read alone."""

from __future__ import annotations

import math
import time
from typing import Any

import httpcore
import httpx

from rag_index.core.connections import proxy_of, proxy_remedy, tls_context
from rag_index.errors import SettingsError, one_line

MAX_ANSWER = 256 << 20
"""Bytes of an answer: a thousand vectors of 4096 dimensions have a third of that as JSON."""
IDLE_SECONDS = 5.0
"""A connection that was idle for longer is not used again: what stands between may have forgotten it."""


class BoundedTransport(httpx.HTTPTransport):
    """Connections to `url` whose answers take at most `seconds` and `size` bytes each, headers included. They go
    through the proxy that the environment names. Raises SettingsError if that cannot be used."""

    def __init__(self, url: str, seconds: float, size: int | None = None) -> None:
        limits = httpx.Limits(keepalive_expiry=IDLE_SECONDS)
        try:
            super().__init__(verify=tls_context(), limits=limits, proxy=_named_proxy(url))
        except (ImportError, ValueError) as exc:  # SOCKS without its package, or another kind of proxy
            raise SettingsError(
                f"the proxy that the environment names for {url} cannot be used ({one_line(exc)}): {proxy_remedy(url)}"
            ) from exc
        self._pool._network_backend = _BoundedBackend(seconds, size or MAX_ANSWER)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request. A compressed answer is refused, because its size is unknown before it is in memory."""
        request.headers["accept-encoding"] = "identity"
        response = super().handle_request(request)
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            response.close()
            raise httpx.DecodingError(f"the answer is compressed ({encoding}), which was not asked for")
        return response


def _named_proxy(url: str) -> httpx.Proxy | None:
    named = proxy_of(url)
    tls = tls_context() if named.startswith("https://") else None
    return httpx.Proxy(named, ssl_context=tls) if named else None


class _BoundedBackend(httpcore.SyncBackend):
    def __init__(self, *limits: Any) -> None:
        self._limits = limits

    def connect_tcp(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _BoundedStream(super().connect_tcp(*args, **options), *self._limits)


class _BoundedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, seconds: float, size: int) -> None:
        self._stream, self._seconds, self._size = stream, seconds, size
        self._left, self._deadline = size, math.inf
        self.close, self.get_extra_info = stream.close, stream.get_extra_info  # type: ignore[method-assign]

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, timeout)
        self._left, self._deadline = self._size, time.monotonic() + self._seconds

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        seconds = self._deadline - time.monotonic()
        if seconds <= 0:
            raise httpcore.ReadTimeout(f"no whole answer within {self._seconds:g} s")
        data = self._stream.read(max_bytes, min(seconds, timeout or seconds))
        self._left -= len(data)
        if self._left < 0:
            raise httpcore.ReadError(f"the answer has more than {self._size >> 20} MB")
        return data

    def start_tls(self, *args: Any, **options: Any) -> httpcore.NetworkStream:
        return _BoundedStream(self._stream.start_tls(*args, **options), self._seconds, self._size)
