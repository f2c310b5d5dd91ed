"""The connection to a Qdrant server: opened when first needed, over gRPC if possible; retries after passing faults. The
errors of Qdrant's client (REST and gRPC) become errors of ours here."""

from __future__ import annotations

import copyreg
import json
import math
import random
import re
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpcore
import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from rag_index.components.stores.edge.folder import disk_full
from rag_index.core.connections import proxy_of, proxy_remedy, tls_context, trusted_certificates, why_failed
from rag_index.core.outages import asking
from rag_index.errors import (
    PointsRefused,
    RagIndexError,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
    one_line,
)

FOREIGN = (ApiException, QdrantException, grpc.RpcError, AssertionError, ValueError, RuntimeError)
"""All that a call of the client raises: AssertionError for an empty answer, ValueError for wrong arguments and answers
that are no JSON, RuntimeError if it was closed."""

HTTP = {
    grpc.StatusCode.UNAVAILABLE: 0,
    grpc.StatusCode.DEADLINE_EXCEEDED: 0,
    grpc.StatusCode.UNKNOWN: 0,
    grpc.StatusCode.CANCELLED: 0,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.ABORTED: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""What a code of gRPC is in HTTP: 0 if the server is silent, 400 if the code is not here."""

UNINDEXED = re.compile(r'Index required but not found for "(.+?)"')
STRICT_MODE = re.compile(
    r"Limit exceeded|limit reached|limit of .* reached|Exact search disabled|Request is forbidden|"
    r"maximum number of payload indexes|larger than rate limiter capacity"
)
"""What strict mode says when it refuses (with 400, and 403 in older versions)."""
SILENT = re.compile(r"Qdrant at [^ ]* does not answer as it should \((.*)\): is it running\?", re.DOTALL)
T = TypeVar("T")
REST_PORT = 6333
MAX_PORT = 65_535
WEB_PORTS = (80, 443)
"""Ports of proxies, beside which no gRPC port can be guessed."""
MIN_VERSION = (1, 16)
"""The first version that stores metadata of a collection."""
PATIENCE, RESTART_PATIENCE = 30.0, 120.0
"""Seconds for which a call is retried, if its caller does not say otherwise, and if the server has answered before: it
is being restarted, and reads its collections."""
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
MAX_ANSWER = 256 << 20
"""Bytes of an answer: a thousand points with vectors of 4096 dimensions have a third of that as JSON."""


def translate(exc: Exception, url: str) -> RagIndexError:
    """Translate one of `FOREIGN` into an error of ours. StoreUnavailable may pass (server down, 5xx, a rate limit with
    `retry_after`). PointsRefused, without ids, blames the request, so smaller ones may be tried. StoreRefused is a
    limit of strict mode or a right that the API key lacks. StoreMismatch means a missing point. StoreError needs a
    person."""
    match exc:
        case QdrantException():
            seconds = getattr(exc, "retry_after_s", None)
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}", seconds and float(seconds))
        case UnexpectedResponse():
            copyreg.pickle(UnexpectedResponse, _as_text)
            status = exc.status_code or 0
            return _from_status(status, _server_message(exc), url, f"{status}")
        case ResponseHandlingException():
            if why := why_failed(exc.source, url):
                return StoreUnavailable(f"Qdrant at {url} cannot be reached: {why}")
            return _silent(url, str(exc.source) or type(exc.source).__name__)
        case grpc.RpcError():
            copyreg.pickle(type(exc), _as_text)
            code = exc.code() if isinstance(exc, grpc.Call) else grpc.StatusCode.UNKNOWN
            message = one_line((exc.details() or "") if isinstance(exc, grpc.Call) else str(exc))
            if code == grpc.StatusCode.UNIMPLEMENTED:
                return StoreError(f"Qdrant at {url} is too old for this ({message}): upgrade it")
            if (status := HTTP.get(code, 400)) or disk_full(message):
                return _from_status(status, message, url, code.name)
            return _silent(url, f"{code.name}: {message}")
        case AssertionError() | json.JSONDecodeError() | UnicodeDecodeError():  # the answer is not from Qdrant
            return _silent(url, str(exc))
        case ValueError():
            return PointsRefused(f"Qdrant at {url} cannot take the request: {one_line(str(exc))}")
        case _:
            return StoreError(f"Qdrant at {url}: {exc}")


def _as_text(exc: BaseException) -> tuple[Any, tuple[str]]:
    """Return how to pickle an error that cannot be pickled by itself, because it holds a lock or takes arguments. On a
    worker it becomes the cause of one of ours, and Dask pickles causes too (tblib). tblib replaces what is registered
    when it is imported, so each class is registered when an error of it is met."""
    return RuntimeError, (str(exc),)


def _silent(url: str, reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({one_line(reason)}): is it running?")


def _from_status(status: int, message: str, url: str, answer: str) -> RagIndexError:
    """Return the error for a status of HTTP; `answer` is what the server called it."""
    refused = STRICT_MODE.search(message) or UNINDEXED.search(message)
    if disk_full(message):
        return StoreError(f"Qdrant at {url} has no space left on its disk ({message}): free some, then run again")
    if status == 429 and not refused:
        return StoreUnavailable(f"Qdrant at {url} asks for a pause: {message}")
    if status == 408 or not 400 <= status < 500:
        return StoreUnavailable(f"Qdrant at {url} answered {answer}: {message}")
    if status == 404:
        return StoreMismatch(message) if "No point with id" in message else StoreError(f"Qdrant at {url}: {message}")
    if refused is not None and refused.re is UNINDEXED:
        return StoreRefused(
            f"Qdrant at {url} allows no filter on {refused[1]}, because strict mode is on and the field has no payload "
            f"index ({message}): add {refused[1]} to payload_indexes of the index and run it once"
        )
    if refused is not None:
        return StoreRefused(
            f"the strict mode of Qdrant at {url} refuses the request ({message}): raise this limit in the collection's "
            "strict_mode_config; docs/servers.md lists what it must allow"
        )
    if status in (401, 403):
        return StoreRefused(
            f"Qdrant at {url} does not allow this with the API key ({answer}: {message}): give the key more access, or "
            "set [store] api_key to another; docs/servers.md says what a key needs"
        )
    return PointsRefused(f"Qdrant at {url} refuses the request ({answer}): {message}")


def _server_message(exc: UnexpectedResponse) -> str:
    try:
        return one_line(str(json.loads(exc.content)["status"]["error"]))
    except (ValueError, KeyError, TypeError):
        return one_line(exc.content.decode(errors="replace")) or exc.reason_phrase


@dataclass(eq=False)
class Link:
    """A connection that retries a call while that may help, for at most `patience` seconds.

    By default that is 30, or 120 once the server has answered, and pauses that the server asks for do not count: no
    person waits for an answer.

    It uses gRPC if the same server answers on `grpc_port`, and REST otherwise. By default that is the URL's port plus
    one, as for a server with Qdrant's own ports; 0 means REST alone. Each request may take `timeout` seconds, so a call
    ends within about `patience + timeout`.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    patience: float | None = None
    grpc_port: int | None = None
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        port = urlsplit(self.url).port or REST_PORT
        if self.grpc_port is None and port not in (*WEB_PORTS, MAX_PORT):
            self.grpc_port = port + 1  # the usual one; else the URL does not tell
        self._client: QdrantClient | None = None
        self._version = self._fallback = ""
        self._closed = False
        self._mutex = threading.Lock()

    def has_version(self, least: tuple[int, int]) -> bool:
        """Return whether the server is of this version or a newer one. Raises as `call`."""
        self.call(lambda client: client)
        return not self._is_older(least)

    def fallback(self) -> str:
        """Return why REST is used although gRPC was wanted, "" if gRPC is used or not wanted. Raises as `call`."""
        self.call(lambda client: client)
        return self._fallback

    def call(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what `ask` returns. Raises what `translate` returns, StoreUnavailable after `patience` seconds."""
        usual = RESTART_PATIENCE if self._version else PATIENCE
        deadline = self.clock() + (usual if self.patience is None else self.patience)
        latest = deadline + MAX_ASKED
        pause = MIN_PAUSE
        with asking(f"Qdrant at {self.url}", patience=USUAL_SILENCE) as call:
            while True:
                try:
                    return self._try(ask)
                except StoreUnavailable as exc:
                    silent = SILENT.fullmatch(str(exc))
                    reason = silent[1] if silent else str(exc).removeprefix(f"Qdrant at {self.url} ")
                    call.failed(reason, answered=silent is None)
                    asked = exc.retry_after or 0.0
                    wait = max(asked, pause * random.uniform(0.5, 1))  # noqa: S311 - so that callers do not meet again
                    if asked and self.patience is None:
                        deadline = min(deadline + wait, latest)
                    if self.clock() + wait > deadline:
                        raise
                self.sleep(wait)
                pause = min(pause * 2, MAX_ASKED_PAUSE if asked else MAX_PAUSE)

    def ask(self, ask: Callable[[QdrantClient], T]) -> T:
        """Return what a request returns that writes no points, so that none is at fault if it is refused: raises
        StoreRefused then, and otherwise as `call`."""
        try:
            return self.call(ask)
        except PointsRefused as exc:
            raise StoreRefused(str(exc)) from exc

    def close(self) -> None:
        with self._mutex:
            self._closed = True
            if self._client is not None:
                self._client.close()
                self._client = None

    def _try(self, ask: Callable[[QdrantClient], T]) -> T:
        try:
            with self._mutex:
                if self._closed:
                    raise StoreError(f"the connection to Qdrant at {self.url} is closed")
                client = self._client = self._client or self._connect()
            return ask(client)
        except FOREIGN as exc:
            raise translate(exc, self.url) from exc

    def _connect(self) -> QdrantClient:
        rest = self._new_client(grpc=False)
        try:
            found = rest.info()
            self._version = found.version
            if self._is_older(MIN_VERSION):
                needed = ".".join(map(str, MIN_VERSION))
                raise StoreError(
                    f"Qdrant at {self.url} is version {self._version}, and metadata of collections needs {needed} or "
                    "newer: upgrade it"
                )
            self._fallback = self._why_rest(rest, found)
            if self.grpc_port and not self._fallback:
                rest.close()
                return self._new_client(grpc=True)
        except BaseException:
            rest.close()
            raise
        return rest

    def _is_older(self, least: tuple[int, int]) -> bool:
        numbers = re.match(r"(\d+)\.(\d+)", self._version)
        return numbers is not None and (int(numbers[1]), int(numbers[2])) < least

    def _why_rest(self, rest: QdrantClient, found: models.VersionInfo) -> str:
        """Return why gRPC cannot be used, "" if it can or is not wanted. The same Qdrant server is behind the gRPC port
        if it is of this version and has these collections. The version alone would not do: on one machine several
        servers may be of the same."""
        if self.grpc_port == 0:
            return ""
        if self.grpc_port is None:
            return f"the port of {self.url} does not tell where Qdrant answers gRPC"
        names = names_of(rest)
        probe = self._new_client(grpc=True, timeout=PROBE_SECONDS)
        try:
            same = bool(probe.info() == found) and names_of(probe) == names
        except FOREIGN:
            same = False
        finally:
            probe.close()
        return "" if same else f"Qdrant at {self.url} does not answer gRPC on port {self.grpc_port}"

    def _new_client(self, *, grpc: bool, timeout: float | None = None) -> QdrantClient:
        with warnings.catch_warnings():
            # An API key over http is usual within one host or cluster.
            warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return QdrantClient(
                url=self.url,
                api_key=self.api_key,
                timeout=math.ceil(timeout or self.timeout),
                prefer_grpc=grpc,
                grpc_port=self.grpc_port or REST_PORT + 1,
                grpc_options={
                    "grpc.max_reconnect_backoff_ms": MAX_BACKOFF_MS,
                    "grpc.max_receive_message_length": MAX_ANSWER,
                    "root_certificates": trusted_certificates() if self.url.startswith("https://") else None,
                },
                headers={"accept-encoding": "identity"},  # gRPC takes names in small letters alone
                check_compatibility=False,
                verify=tls_context(),
                event_hooks={"response": [refuse_compressed]},
                transport=BoundedTransport(self.url, timeout or self.timeout),
            )


def refuse_compressed(response: httpx.Response) -> None:
    """Refuse an answer whose size is unknown before it is in memory, and which was not asked for."""
    if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
        raise httpx.DecodingError(f"the answer is compressed ({encoding}), which was not asked for")


IDLE_SECONDS = 5.0
"""A connection that was idle for longer is not used again: what stands between may have forgotten it."""


class BoundedTransport(httpx.HTTPTransport):
    """Connections to `url` whose answers have one time limit and one size each, headers included. httpx limits each
    read alone. They go through the proxy that the environment names."""

    def __init__(self, url: str, seconds: float, size: int | None = None) -> None:
        limits = httpx.Limits(keepalive_expiry=IDLE_SECONDS)
        try:
            super().__init__(verify=tls_context(), limits=limits, proxy=_proxy_of(url))
        except (ImportError, ValueError) as exc:  # SOCKS without its package, or another kind of proxy
            raise StoreError(
                f"the proxy that the environment names for {url} cannot be used ({one_line(exc)}): {proxy_remedy(url)}"
            ) from exc
        self._pool._network_backend = _BoundedBackend(seconds, size or MAX_ANSWER)


def _proxy_of(url: str) -> httpx.Proxy | None:
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


def names_of(client: QdrantClient) -> set[str]:
    """Return the names of all collections."""
    return {found.name for found in client.get_collections().collections}
