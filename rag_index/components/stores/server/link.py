"""The connection to a Qdrant server, and the translation of its client's errors (REST and gRPC)
into ours."""

from __future__ import annotations

import json
import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from rag_index import errors
from rag_index.components.stores.edge.folder import disk_full
from rag_index.core.connections import (
    MAX_ANSWER,
    BoundedTransport,
    trusted_certificates,
    why_failed,
)
from rag_index.core.recovery import add_downtime, asking
from rag_index.quotes import values_in, without_texts

FOREIGN = (ApiException, QdrantException, grpc.RpcError, AssertionError, ValueError, RuntimeError)
"""All that a call raises: AssertionError for an empty answer, ValueError for no JSON, RuntimeError
after closing."""
HTTP = {
    "RESOURCE_EXHAUSTED": 429,
    "NOT_FOUND": 404,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
}
HTTP |= dict.fromkeys(("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED"), 0)
HTTP |= dict.fromkeys(("INTERNAL", "ABORTED", "DATA_LOSS"), 500)
"""What a code of gRPC is in HTTP: 0 if the server is silent, 400 if the code is not here."""
UNINDEXED = re.compile(r'Index required but not found for "(.+?)"')
STRICT_MODE = re.compile(
    r"Limit exceeded|limit reached|limit of .* reached|Exact search disabled|Request is forbidden|"
    r"maximum number of payload indexes|larger than rate limiter capacity"
)
"""What strict mode says when it refuses (with 400, and 403 in older versions)."""
SILENT = re.compile(r"Qdrant at [^ ]* does not answer as it should \((.*)\): .*", re.DOTALL)
T = TypeVar("T")
REST_PORT, WEB_PORTS = 6333, {"http": 80, "https": 443}
"""A URL without a port is asked at both. Beside the ports of proxies no gRPC port can be
guessed."""
MIN_VERSION = (1, 16)
MIN_PAUSE, MAX_PAUSE, MAX_ASKED_PAUSE = 0.1, 5.0, 60.0
"""Seconds between two tries, at most; the last where the server asks for pauses, which are often
too short for it."""
PROBE_SECONDS = 2.0
"""Time limit of a first request to one of several ports: a firewall may swallow what is sent to the
others."""
IDLE_SECONDS = 60.0
USUAL_PATIENCE = 120.0
"""Seconds for which a call waits for a store that is away, if its opener does not say otherwise: a
server that restarts reads its collections."""
USUAL_SILENCE = 10.0
"""Seconds that one request may take while all is well, such as a large upsert on a busy server."""


def translate(exc: Exception, url: str) -> errors.RagIndexError:
    """Return one of `FOREIGN` as an error of ours.

    StoreUnavailable is transient: the server is down, answers 5xx, or asks for a pause
    (`retry_after`). PointsRefused, without ids, blames the request, so the caller may try smaller
    ones. StoreRefused is a limit of strict mode or a missing right, StoreMismatch a missing point.
    StoreError needs a person.
    """
    match exc:
        case QdrantException():
            pause = float(getattr(exc, "retry_after_s", 0))
            return errors.StoreUnavailable(
                f"Qdrant at {url} asks for a pause: {_server_words(exc)}", pause
            )
        case UnexpectedResponse():
            return _from_status(exc.status_code or 0, _server_words(exc), url, f"{exc.status_code}")
        case ResponseHandlingException():
            if why := why_failed(exc.source, url):
                return errors.StoreUnavailable(f"Qdrant at {url} cannot be reached: {why}")
            return _silent(url, _server_words(exc))
        case grpc.RpcError():
            code, message = exc.code().name, _server_words(exc)
            if code == "UNIMPLEMENTED":
                return errors.StoreError(
                    f"Qdrant at {url} is too old for this ({message}): upgrade it"
                )
            if (status := HTTP.get(code, 400)) or disk_full(message):
                return _from_status(status, message, url, code)
            return _silent(url, f"{code}: {message}")
        # An answer that is not from Qdrant.
        case AssertionError() | json.JSONDecodeError() | UnicodeDecodeError():
            return _silent(url, _server_words(exc))
        case ValueError():
            return errors.PointsRefused(
                f"Qdrant at {url} cannot take the request: {_server_words(exc)}"
            )
        case _:
            return errors.StoreError(f"Qdrant at {url}: {_server_words(exc)}")


def _silent(url: str, reason: str) -> errors.StoreUnavailable:
    path = urlsplit(url).path.rstrip("/")
    where = f" under {path}" if path else ""
    line = errors.one_line(reason)
    return errors.StoreUnavailable(
        f"Qdrant at {url} does not answer as it should ({line}): is it running{where}?"
    )


def _reason(fault: errors.RagIndexError, url: str) -> str:
    """Return the server's words in a message of `translate`."""
    message = str(fault)
    silent = SILENT.fullmatch(message)
    if silent:
        return silent[1]
    return message.removeprefix(f"Qdrant at {url}").strip(": ")


def _from_status(status: int, message: str, url: str, answer: str) -> errors.RagIndexError:
    """Return the error for an HTTP status. `answer` is the server's name for it: "404",
    "NOT_FOUND"."""
    refused = STRICT_MODE.search(message) or UNINDEXED.search(message)
    place = f"Qdrant at {url}"
    if disk_full(message):
        return errors.StoreError(
            f"{place} has no space left on its disk ({message}): free some, then run again"
        )
    # A limit of strict mode is also answered with 429, and no pause helps.
    if status == 429 and not refused:
        return errors.StoreUnavailable(f"{place} asks for a pause: {message}", 0.0)
    # 408, 500, or 0 of a silent server.
    if status == 408 or not 400 <= status < 500:
        return errors.StoreUnavailable(f"{place} answered {answer}: {message}")
    if status == 404 and "No point with id" in message:
        return errors.StoreMismatch(message)
    # Qdrant's own: "Not found: Collection `comments__3` doesn't exist!"
    if status == 404 and "Not found: " in message:
        return errors.StoreError(f"{place}: {message}")
    # The 404 of a proxy.
    if status == 404:
        path = urlsplit(url).path or "/"
        return errors.StoreError(f"{place}: {message} (404): is {path} the path of its API?")
    if refused is not None and refused.re is UNINDEXED:
        return errors.StoreRefused(
            f"{place} allows no filter on {refused[1]}, because strict mode is on and the field has"
            f" no payload index ({message}): add {refused[1]} to payload_indexes of the index and"
            " run it once"
        )
    if refused is not None:
        return errors.StoreRefused(
            f"the strict mode of {place} refuses the request ({message}): raise this limit in the"
            " collection's strict_mode_config; docs/servers.md#strict-mode lists what it must"
            " allow"
        )
    if status in (401, 403):
        return errors.StoreRefused(
            f"{place} does not allow this with the API key ({answer}: {message}): give the key more"
            " access, or set [store] api_key to another; docs/servers.md#api-keys says what a key"
            " needs"
        )
    if status == 413:
        message += "; raise the limit of what is before it, such as client_max_body_size of nginx"
    return errors.PointsRefused(f"{place} refuses the request ({answer}): {message}")


def _server_words(exc: Exception) -> str:
    """Return the message of a server or of the client on one line. It may repeat what was sent."""
    match exc:
        case UnexpectedResponse():
            try:
                words = str(json.loads(exc.content)["status"]["error"])
            except (ValueError, KeyError, TypeError):
                words = exc.content.decode(errors="replace")
            return errors.one_line(words) or exc.reason_phrase or "no reason given"
        case ResponseHandlingException():
            return errors.one_line(exc.source) or type(exc.source).__name__
        case grpc.RpcError():
            return errors.one_line(exc.details() or "")
        case _:
            return errors.one_line(exc)


@dataclass(frozen=True, slots=True)
class ServerAccess:
    """How a Qdrant server is reached, from the settings to the connection."""

    url: str
    """A URL without a port is asked at Qdrant's own, and then at that of its scheme."""
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    """Seconds that each request may take."""
    patience: float = USUAL_PATIENCE
    """Seconds for which a call is retried, pauses that the server asks for included."""
    grpc_port: int | None = None
    """Where the same server answers gRPC. None: one more than the URL's port. 0: REST alone is
    used."""


@dataclass(eq=False)
class Link:
    """A connection that is opened when it is first needed, and retries a call while that may help.

    It uses gRPC if the same server answers it, and REST otherwise.
    """

    access: ServerAccess
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        self.url = self.access.url
        given = urlsplit(self.url)
        self._ports = [REST_PORT, WEB_PORTS.get(given.scheme, REST_PORT)]
        if given.port:
            self._ports = [given.port]
        self._client: QdrantClient | None = None
        self._port = self._ports[0]
        self._away = False
        """Whether the server did not answer the last request. The next one first checks whether it
        is ready."""
        self._paused: tuple[float, str] = -math.inf, ""
        """Until when the server has asked for a pause, by the clock, and in which words."""
        self._closed, self._mutex = False, threading.Lock()
        self._used = -math.inf
        self.version, self.fallback = MIN_VERSION, ""
        """Once the server was asked: its version, and why REST is used although gRPC was wanted;
        else ""."""
        self.uses_grpc = False
        """Whether the client that `call` and `ask` give to a request uses gRPC."""

    def call(self, ask: Callable[[QdrantClient], T], sent: Sequence[Mapping[str, Any]] = ()) -> T:
        """Return what a request returns that writes points. Raises as `ask`, or PointsRefused for
        one that blames the points. No message has a value of the payloads that are `sent`: a server
        repeats what it refuses."""
        return self.ask(ask, sent, writes=True)

    def ask(
        self,
        ask: Callable[[QdrantClient], T],
        sent: Sequence[Mapping[str, Any]] = (),
        *,
        writes: bool = False,
    ) -> T:
        """Return what a request returns. Raises what `translate` returns, StoreUnavailable after
        `patience` seconds. If it `writes` no points, none is at fault if it is refused:
        StoreRefused is raised in place of PointsRefused.

        It calls the client itself, so that a search reaches the client in few steps."""
        deadline, pause = self.clock() + self.access.patience, MIN_PAUSE
        first_error_at: float | None = None
        with asking(f"Qdrant at {self.url}", patience=USUAL_SILENCE) as call:
            while True:
                try:
                    self._require_no_pause()
                    client = self._ready()
                    found = ask(client)
                    self._away = False
                    if first_error_at is not None:
                        add_downtime(self.clock() - first_error_at)
                    return found
                # The server asked for a pause earlier, or has not completed a write.
                except errors.StoreUnavailable as exc:
                    error: errors.RagIndexError = exc
                except FOREIGN as exc:
                    error = self._translated(exc, sent)
                if isinstance(error, errors.PointsRefused) and not writes:
                    raise errors.StoreRefused(str(error)) from error
                if not isinstance(error, errors.StoreUnavailable):
                    raise error
                asks_pause = error.retry_after is not None
                asked = error.retry_after or 0.0
                # A requested pause is the server's pace, and no downtime.
                if first_error_at is None and not asks_pause:
                    first_error_at = self.clock()
                is_answer = SILENT.fullmatch(str(error)) is None
                call.record_error(
                    _reason(error, self.url), answered=is_answer, asks_pause=asks_pause
                )
                if asked:
                    self._paused = max(self._paused, (self.clock() + asked, str(error)))
                wait = max(asked, pause * random.uniform(0.5, 1))  # noqa: S311 - so that callers do not meet again
                if self.clock() + wait > deadline:
                    raise error
                self.sleep(wait)
                pause = min(pause * 2, MAX_ASKED_PAUSE if asked else MAX_PAUSE)

    def let_go(self) -> None:
        """Close the client if nothing was asked for a minute, since its threads wake up even so.
        The next call opens another one; none may be under way."""
        if self.clock() - self._used > IDLE_SECONDS:
            self._close()

    def close(self) -> None:
        self._closed = True
        self._close()

    def _close(self) -> None:
        with self._mutex:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _require_no_pause(self) -> None:
        """Raise StoreUnavailable as long as the server has asked for a pause."""
        until, words = self._paused
        left = until - self.clock()
        if left > 0:
            raise errors.StoreUnavailable(words, left)

    def _ready(self) -> QdrantClient:
        """Return the client, connected, of a server that is not known to be away. Raises one of
        `FOREIGN`, and StoreError if the connection is closed."""
        with self._mutex:
            if self._closed:
                raise errors.StoreError(f"the connection to Qdrant at {self.url} is closed")
            client = self._client = self._client or self._connect()
        if self._away:
            self._check_ready()
        self._used = self.clock()
        return client

    def _translated(
        self, exc: Exception, sent: Sequence[Mapping[str, Any]]
    ) -> errors.RagIndexError:
        """Return one of `FOREIGN` as an error of ours, without values that were `sent`."""
        error = translate(exc, self.url)
        self._away = isinstance(error, errors.StoreUnavailable)
        words = _server_words(exc)
        message = str(error).replace(words, without_texts(words, values_in(sent)))
        error.args = (message, *error.args[1:])
        error.__cause__ = RuntimeError(type(exc).__name__)  # Dask pickles it, and cannot the other
        return error

    def _check_ready(self) -> None:
        """Ask a server that was away whether it is ready, which costs little while it is not.
        Raises one of `FOREIGN` then. What is before a server may not know the route."""
        with closing(self._new_client(self._port, timeout=PROBE_SECONDS)) as probe:
            try:
                probe.http.service_api.readyz()
            except json.JSONDecodeError:  # "all shards are ready", in plain words
                return
            except UnexpectedResponse as exc:
                if (exc.status_code or 0) >= 500:
                    raise

    def _connect(self) -> QdrantClient:
        """Return a client of the first port that answers. If none does, raises an error that names
        them."""
        faults: dict[str, list[str]] = {}
        for port in self._ports:
            try:
                client = self._connect_to(port)
                self._port = port
                return client
            except FOREIGN as exc:
                fault = translate(exc, self.url)
                if len(self._ports) == 1 or isinstance(fault, errors.StoreRefused):
                    raise
                faults.setdefault(_reason(fault, self.url), []).append(f"port {port}")
        # As in "port 6333 and port 80: connection refused".
        listed = [f"{' and '.join(ports)}: {reason}" for reason, ports in faults.items()]
        raise _silent(self.url, "; ".join(listed))

    def _connect_to(self, port: int) -> QdrantClient:
        """Return a client of this port: of gRPC if the same server answers it."""
        by_grpc = self.access.grpc_port
        if by_grpc is None and port not in WEB_PORTS.values():
            by_grpc = port + 1
        # Several ports are tried: the first may be swallowed by a firewall.
        timeout = PROBE_SECONDS if len(self._ports) > 1 else None
        with closing(self._new_client(port, timeout=timeout)) as rest:
            found = rest.info()
            numbers = re.match(r"(\d+)\.(\d+)", found.version)
            if numbers:
                self.version = int(numbers[1]), int(numbers[2])
            if self.version < MIN_VERSION:
                raise errors.StoreError(
                    f"Qdrant at {self.url} is version {found.version}, and metadata of collections"
                    f" needs {'.'.join(map(str, MIN_VERSION))} or newer: upgrade it"
                )
            self.uses_grpc = False
            if by_grpc and self._same_by_grpc(port, by_grpc, found, names_of(rest)):
                self.uses_grpc = True
                return self._new_client(port, by_grpc)
        if by_grpc is None:
            self.fallback = f"the port of {self.url} does not tell where Qdrant answers gRPC"
        elif by_grpc:
            self.fallback = f"Qdrant at {self.url} does not answer gRPC on port {by_grpc}"
        return self._new_client(port)

    def _same_by_grpc(
        self, port: int, by_grpc: int, found: models.VersionInfo, names: set[str]
    ) -> bool:
        """Return whether a server of this version with these collections answers gRPC. Another may
        have that port."""
        with closing(self._new_client(port, by_grpc, PROBE_SECONDS)) as probe, suppress(*FOREIGN):
            return bool(probe.info() == found) and names_of(probe) == names
        return False

    def _new_client(
        self, port: int, grpc_port: int | None = None, timeout: float | None = None
    ) -> QdrantClient:
        timeout = timeout or self.access.timeout
        headers: dict[str, str] = {}
        if self.access.api_key:  # given as `api_key`, it would be warned of over http
            headers["api-key"] = self.access.api_key
        certificates = None
        if self.url.startswith("https://"):
            certificates = trusted_certificates()
        grpc_options = {
            "grpc.max_reconnect_backoff_ms": 1000,  # its own two minutes would outlast our patience
            "grpc.max_receive_message_length": MAX_ANSWER,
            "root_certificates": certificates,
        }
        return QdrantClient(
            url=self.url,
            port=port,
            timeout=math.ceil(timeout),  # the client takes whole seconds
            prefer_grpc=bool(grpc_port),
            grpc_port=grpc_port or port,
            grpc_options=grpc_options,
            headers=headers or None,
            check_compatibility=False,
            transport=BoundedTransport(self.url, timeout),
        )


def names_of(client: QdrantClient) -> set[str]:
    """Return the names of all collections."""
    return {found.name for found in client.get_collections().collections}
