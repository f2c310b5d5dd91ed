"""The connection to a Qdrant server: opened when first needed, over gRPC if possible; retries after passing faults.

The errors of Qdrant's client (REST, gRPC and in memory) become errors of ours here.
"""

from __future__ import annotations

import copyreg
import json
import math
import random
import re
import socket
import threading
import time
import warnings
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from rag_index.errors import PointsRefused, RagIndexError, StoreError, StoreMismatch, StoreRefused, StoreUnavailable
from rag_index.outages import asking, tls_context
from rag_index.stores.edge.folder import disk_full

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import models

FOREIGN = (ApiException, QdrantException, grpc.RpcError, AssertionError, ValueError, KeyError, RuntimeError)
"""All that a call of the client raises: AssertionError for an empty answer, the last three for wrong arguments and
from the client in memory."""

SILENT_CODES = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.CANCELLED,
}
HTTP = {
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.ABORTED: 500,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""What a code of gRPC is in HTTP; 400 if it is not here."""

BAD_TOKEN = re.compile(r"ExpiredSignature|InvalidSignature|Invalid JWT")
"""What the server says, with 403, of a token that it does not take at all."""

OTHER_COLLECTION = re.compile(r"(?:Access to|Only points access is allowed for) collection (\S+?)(?: is required|$)")
UNINDEXED = re.compile(r'Index required but not found for "(.+?)"')
TOO_MANY_POINTS = re.compile(r'Limit exceeded \S+ > \S+ for "(upsert|update) limit"')
STRICT_MODE = re.compile(
    r"Limit exceeded|limit reached|limit of .* reached|Exact search disabled|Request is forbidden|"
    r"maximum number of payload indexes|larger than rate limiter capacity"
)
"""What strict mode says when it refuses (with 400, and 403 in older versions)."""
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


def translate(exc: Exception, url: str) -> RagIndexError:
    """Translate one of `FOREIGN` into an error of ours.

    StoreUnavailable may pass (server down, 5xx, a rate limit with `retry_after`). PointsRefused, without ids, blames
    the request, so smaller ones may be tried. StoreRefused is a limit of strict mode or a right that the API key lacks.
    StoreMismatch means a missing point. StoreError needs a person.
    """
    match exc:
        case ResourceExhaustedResponse():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}", float(exc.retry_after_s))
        case UnexpectedResponse():
            copyreg.pickle(UnexpectedResponse, _as_text)
            status = exc.status_code or 0
            return _from_status(status, _server_message(exc), url, f"{status}")
        case ResponseHandlingException():
            reason = str(exc.source) or type(exc.source).__name__
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({_short(reason)}): is it running?")
        case grpc.RpcError():
            copyreg.pickle(type(exc), _as_text)
            return _from_code(exc, url)
        case KeyError():
            return StoreMismatch(f"No point with id {exc.args[0] if exc.args else ''} found")
        case AssertionError() | json.JSONDecodeError() | UnicodeDecodeError():  # the answer is not from Qdrant
            return StoreUnavailable(f"Qdrant at {url} does not answer as it should ({exc}): is it running?")
        case QdrantException():
            return StoreUnavailable(f"Qdrant at {url} asks for a pause: {exc}")
        case ValueError() if "not found" not in str(exc):
            return PointsRefused(f"Qdrant at {url} cannot take the request: {_short(str(exc))}")
        case _:
            return StoreError(f"Qdrant at {url}: {exc}")


def _as_text(exc: BaseException) -> tuple[Any, tuple[str]]:
    """Return how to pickle an error that cannot be pickled by itself, because it holds a lock or takes arguments.

    On a worker it becomes the cause of one of ours, and Dask pickles causes too (tblib). tblib replaces what is
    registered when it is imported, so each class is registered when an error of it is met.
    """
    return RuntimeError, (str(exc),)


def complaint(error: StoreUnavailable, url: str) -> tuple[str, bool]:
    """Return what is behind an error of `translate`, for a sentence that names the server, and whether it answered."""
    message = str(error).removeprefix(f"Qdrant at {url} ")
    found = re.fullmatch(r"does not answer as it should \((.*)\): is it running\?", message, re.DOTALL)
    return (found[1], False) if found else (message, True)


def _from_status(status: int, message: str, url: str, answer: str) -> RagIndexError:
    """Return the error for a status of HTTP; `answer` is what the server called it."""
    if disk_full(message):
        return StoreError(f"Qdrant at {url} has no space left on its disk ({message}): free some, then run again")
    if status == 429 and "larger than" not in message and not STRICT_MODE.search(message):
        return StoreUnavailable(f"Qdrant at {url} asks for a pause: {message}")
    if status == 408 or not 400 <= status < 500:
        return StoreUnavailable(f"Qdrant at {url} answered {answer}: {message}")
    if status == 404:
        return StoreMismatch(message) if "No point with id" in message else StoreError(f"Qdrant at {url}: {message}")
    return _refusal(message, url, answer, wrong_key=status == 401, no_right=status == 403)


def _from_code(exc: grpc.RpcError, url: str) -> RagIndexError:
    code = exc.code() if isinstance(exc, grpc.Call) else grpc.StatusCode.UNKNOWN
    message = _short((exc.details() or "") if isinstance(exc, grpc.Call) else str(exc))
    if code in SILENT_CODES and not disk_full(message):
        return StoreUnavailable(
            f"Qdrant at {url} does not answer as it should ({code.name}: {message}): is it running?"
        )
    if code == grpc.StatusCode.UNIMPLEMENTED:
        return StoreError(f"Qdrant at {url} is too old for this ({message}): upgrade it")
    return _from_status(HTTP.get(code, 400), message, url, code.name)


def _refusal(message: str, url: str, answer: str, *, wrong_key: bool, no_right: bool) -> RagIndexError:
    """Return the error for a request that the server refuses: `answer` is its status."""
    if field := UNINDEXED.search(message):
        return StoreRefused(
            f"Qdrant at {url} allows no filter on {field[1]}, because strict mode is on and the field has no payload "
            f"index ({message}): add {field[1]} to payload_indexes of the index and run it once"
        )
    if STRICT_MODE.search(message) and not TOO_MANY_POINTS.search(message):
        return StoreRefused(
            f"the strict mode of Qdrant at {url} refuses the request ({message}): raise this limit in the collection's "
            "strict_mode_config; docs/servers.md lists what it must allow"
        )
    if wrong_key or (no_right and BAD_TOKEN.search(message)):
        remedy = "it has expired, so make a new one and set it as" if "Expired" in message else "set"
        return StoreRefused(f"Qdrant at {url} refuses the API key ({answer}: {message}): {remedy} [store] api_key")
    if no_right and (other := OTHER_COLLECTION.search(message)):
        return StoreRefused(
            f"the API key for Qdrant at {url} may not read {other[1]} ({answer}: {message}): give it access to that, "
            "or set [store] api_key to another; docs/servers.md says what a key needs"
        )
    if no_right:
        return StoreRefused(
            f"Qdrant at {url} does not allow this with the API key ({answer}: {message}): the key may be for reading "
            "only, which is enough for searches; set [store] api_key to one that may write to all collections"
        )
    return PointsRefused(f"Qdrant at {url} refuses the request ({answer}): {message}")


def _server_message(exc: UnexpectedResponse) -> str:
    """Return the server's message: the error in Qdrant's JSON, or the beginning of any other answer."""
    try:
        return _short(str(json.loads(exc.content)["status"]["error"]))
    except (ValueError, KeyError, TypeError):
        return _short(exc.content.decode(errors="replace")) or exc.reason_phrase


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:297]}..."


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
                verify=tls_context(),
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
