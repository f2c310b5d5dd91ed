"""The guard in front of all routes: it identifies the caller, and limits the size, the number and
the time of requests.

It is plain ASGI, because it watches the connection while a request is answered: if the client hangs
up, the request is cancelled. Every check that needs no body comes before the body is read. The
order is: size of the headers, host, origin, caller, size of the body, a place.
"""

from __future__ import annotations

import asyncio
import logging
import time
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING

import anyio
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import Headers

from rag_index.errors import RagIndexError, RequestTooLarge
from rag_index.search import Caller
from rag_index.search.concurrency import Places
from rag_index.search.service.models import ProblemResponse, log_place, problem, problem_of
from rag_index.search.service.tokens import TokenRegister, allowed_hosts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag_index.core.settings import ServeSettings

CONTENT_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src"
    b" 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_POLICY),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
logger = logging.getLogger(__name__)
LIVENESS, READINESS = "/healthz", "/readyz"
PROBE_PATHS = (LIVENESS, READINESS)
MAX_HEADER_BYTES, MAX_BODY_BYTES = 16_384, 100_000
"""Limits of a request in bytes. Chosen, as are the next two; nothing depends on them."""
REQUEST_SECONDS = 30.0
"""Time limit of a request, including the reading of its body."""
MAX_REQUESTS = 256
"""Requests that are answered at a time."""
CLIENT_GONE = 499
"""Status in log and metrics of a request whose client hung up, as in nginx."""
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the histogram of request times, in seconds; the last is the time limit."""
OPEN_PATHS = frozenset({"/", *PROBE_PATHS, "/openapi.json", "/favicon.ico"})
"""The paths that need no token, besides the files of the page. Their answers contain nothing that
is indexed."""
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH"})
"""Methods that have a label of their own in the metrics."""


def is_page(path: str) -> bool:
    """Return whether a path is that of the page or of one of its files."""
    return path == "/" or path.startswith("/static/")


class HttpMetrics:
    """Metrics of the requests of one application, by route."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "rag_index_http_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "rag_index_http_seconds",
            "Time of a request.",
            ["route"],
            buckets=REQUEST_BUCKETS,
            registry=self.registry,
        )

    def add(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        route = _route_of(scope)
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


def _route_of(scope: Scope) -> str:
    """Return the route of a request, `other` if no route has its path."""
    # A route of FastAPI, the only kind with a path: "/documents/{index}/{document_id:path}".
    named: str | None = getattr(scope.get("route"), "path", None)
    if named:
        return named
    path: str = scope["path"]
    if path.startswith("/mcp/"):
        return "/mcp"
    return path if path in ("/", "/mcp") else "other"


class Exchange:
    """One request and its response on their way through the guard."""

    def __init__(self, scope: Scope, send: Send, *, max_body: int, metrics: HttpMetrics) -> None:
        self.scope = scope
        self._send = send
        self._max_body = max_body
        self._metrics = metrics
        self._began = time.perf_counter()
        self._ended = False
        # Of several headers of one name, the last counts: a proxy adds its own at the end.
        self.headers = dict(Headers(scope=scope).items())
        client = scope.get("client")
        self.address = str(client[0]) if client else "unknown"
        self.caller = Caller()
        self.status = 0

    @property
    def sender(self) -> str:
        """The address that shares places among callers without a token.

        If the connection comes from a private network, it is the address that a proxy names. Nothing
        else depends on that header, because any client can write it.
        """
        try:
            address = ip_address(self.address)
        except ValueError:
            return self.address
        _, _, last = self.headers.get("x-forwarded-for", "").rpartition(",")
        named = last.strip()
        if named and address.is_private:
            return named
        # A program on this machine: each connection counts as a sender of its own.
        if address.is_loopback:
            return f"{address} {self.scope['client'][1]}"
        return str(address)

    @property
    def who(self) -> str:
        """The owner of a share of the places."""
        if self.caller.name:
            return f"token {self.caller.name}"
        return f"address {self.sender}"

    @property
    def malformed(self) -> ProblemResponse | None:
        """The problem of headers that are too long, or that two programs could read differently;
        None if there is none."""
        size = sum(len(name) + len(value) + 4 for name, value in self.scope["headers"])
        size += len(self.scope.get("raw_path") or b"") + len(self.scope["query_string"])
        closing = {"Connection": "close"}
        if size > MAX_HEADER_BYTES:
            detail = f"the first lines of the request are larger than {MAX_HEADER_BYTES:,} bytes"
            return problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail, headers=closing)
        # A proxy could end the body elsewhere, and take its rest for another request.
        if {"content-length", "transfer-encoding"} <= self.headers.keys():
            detail = "the request has both Content-Length and Transfer-Encoding: send one of them"
            return problem(HTTPStatus.BAD_REQUEST, detail, headers=closing)
        return None

    @property
    def host(self) -> str:
        """The host that the client named, without port."""
        name = self.headers.get("host", "").lower()
        # IPv6: "[::1]:8000".
        if name.startswith("["):
            address, _, _ = name.partition("]")
            return f"{address}]"
        # A name or IPv4: "search.example.com:8000".
        host, _, _ = name.partition(":")
        return host

    def is_foreign(self, allowed: list[str]) -> bool:
        """Return whether a browser sends the request for a page of another origin.

        Args:
            allowed: Origins that may send requests, such as `https://wiki.example.com`.
        """
        # A script of a page: the browser names the origin.
        origin = self.headers.get("origin", "").lower()
        if origin:
            _, _, origin_host = origin.partition("://")
            is_own = origin_host == self.headers.get("host", "").lower()
            return not is_own and origin not in allowed
        # A link to the page itself: it is for the person who clicks it.
        if self.scope["path"] == "/" and self.headers.get("sec-fetch-mode") == "navigate":
            return False
        # An image or a link has no Origin. Another port or subdomain (`same-site`) is another
        # owner's page, too. Programs send no such header.
        return self.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")

    async def read_body(self, receive: Receive) -> bytes | None:
        """Return the request's body; None if the client hangs up.

        Raises RequestTooLarge, before anything is read if Content-Length is too large.
        """
        # The server has refused a Content-Length that is not a number.
        declared = int(self.headers.get("content-length", 0))
        body = b""
        has_more = True
        while max(declared, len(body)) <= self._max_body:
            if not has_more:
                return body
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            has_more = message.get("more_body", False)
        raise RequestTooLarge(
            f"the body is larger than the {self._max_body:,} bytes that are allowed"
        )

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self._with_common(message.get("headers", []))}
        # The last part of the body.
        elif not message.get("more_body", False):
            self.end()
        await self._send(message)

    def _with_common(self, headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return the headers of a response, and the common ones that it does not set itself."""
        # A file of the page may be kept, but the browser asks each time whether it is current: a
        # newer rag-index is seen at once. Answers are never kept.
        caching = b"no-cache" if is_page(self.scope["path"]) else b"no-store"
        names = {name.lower() for name, _ in headers}
        common = (*SECURITY_HEADERS, (b"cache-control", caching))
        return [*headers, *(header for header in common if header[0] not in names)]

    def end(self) -> None:
        """Count and log the request, once.

        This happens before the last byte is sent, so that a client that then reads the metrics finds
        the request counted.
        """
        if self._ended:
            return
        self._ended = True
        seconds = time.perf_counter() - self._began
        status = self.status or CLIENT_GONE
        self._metrics.add(self.scope, status, seconds)
        # Without the parameters: they have what was searched for.
        raw_path = self.scope.get("raw_path") or b""
        path, _, _ = raw_path.decode("latin-1").partition("?")
        who = self.caller.name or self.address
        method = self.scope["method"]
        logger.info("%s %s %s %d %.1f ms", who, method, path, status, 1000 * seconds)

    async def refuse(self, response: Response, receive: Receive) -> None:
        """Send a problem, unless a response has begun already."""
        if not self.status:
            await response(self.scope, receive, self.send)


class Guard:
    """An ASGI application in front of another."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        serve: ServeSettings,
        tokens: TokenRegister,
        metrics: HttpMetrics,
        max_requests: int = 0,
        max_body: int = 0,
    ) -> None:
        self._app = app
        self._serve = serve
        self._tokens = tokens
        self._metrics = metrics
        self._max_body = max_body or MAX_BODY_BYTES
        self._hosts = allowed_hosts(serve, tokens)
        max_requests = max_requests or MAX_REQUESTS
        self._places = Places(max_requests)
        # Probes have places of their own: a busy service is not dead.
        self._probes = Places(max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, count it, and write a line about it to the log."""
        # Start and stop of the application. A websocket gets no answer.
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send, max_body=self._max_body, metrics=self._metrics)
        try:
            await self._answer(exchange, receive)
        finally:
            exchange.end()

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                await self._answer_in_time(exchange, receive)
        except TimeoutError:
            detail = f"the request took longer than {REQUEST_SECONDS:g} s"
            await exchange.refuse(problem(HTTPStatus.GATEWAY_TIMEOUT, detail), receive)
        # The server cancels requests that do not end while it stops.
        except asyncio.CancelledError:
            stopping = problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service stops")
            await exchange.refuse(stopping, receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await self._fail(exchange, receive, error)

    async def _answer_in_time(self, exchange: Exchange, receive: Receive) -> None:
        """Refuse the request, or identify its caller, read its body and let the application
        answer."""
        refusal = exchange.malformed or await self._refusal(exchange)
        if refusal is not None:
            await exchange.refuse(refusal, receive)
            return
        scope = exchange.scope
        scope.setdefault("state", {})["caller"] = exchange.caller
        # Every body is JSON, also if the client names it a form, as `curl -d` does.
        if scope["method"] == "POST":
            others = [header for header in scope["headers"] if header[0] != b"content-type"]
            scope["headers"] = [*others, (b"content-type", b"application/json")]
        # A request takes no place until its body has arrived.
        body = await exchange.read_body(receive)
        if body is None:
            return
        places = self._probes if scope["path"] in PROBE_PATHS else self._places
        with places.take(exchange.who):
            await self._answer_until_gone(exchange, body, receive)

    async def _refusal(self, exchange: Exchange) -> ProblemResponse | None:
        """Identify the caller, and return the problem of a request whose headers are refused; None
        if they are not."""
        # Another name points at this machine: DNS rebinding.
        if self._hosts is not None and exchange.host not in self._hosts:
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this service has another name; [serve] hosts lists its names",
            )
        # A page of another origin asks with the rights of the person who looks at it.
        if exchange.is_foreign(self._serve.cors):
            return problem(
                HTTPStatus.FORBIDDEN,
                "pages of this origin may not ask; [serve] cors lists those that may",
            )
        try:
            is_allowed = await self._identify(exchange)
        except RagIndexError as error:
            logger.error("%s", error)
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "the tokens cannot be read; the log says why"
            )
        if not is_allowed:
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "a valid token is needed: Authorization: Bearer TOKEN",
                headers={"WWW-Authenticate": 'Bearer realm="rag-index"'},
            )
        return None

    async def _identify(self, exchange: Exchange) -> bool:
        """Set the caller of a request, and return whether it may be answered.

        Raises RagIndexError if tokens or keys cannot be read.
        """
        path = exchange.scope["path"]
        # Liveness depends on no file: an orchestrator would restart the service for ever.
        if path == LIVENESS:
            return True
        # A service whose tokens cannot be read answers hardly anybody.
        if path == READINESS:
            self._tokens.check()
            return True
        # A service without tokens, which only this machine can reach.
        if not self._tokens.required:
            exchange.caller = Caller(local=True)
            return True
        scheme, _, given = exchange.headers.get("authorization", "").partition(" ")
        token = given.strip() if scheme.lower() == "bearer" else ""
        # A proxy names the groups, or the token is one of the service, or a JWT of an issuer.
        sign_on = self._tokens.sign_on
        caller = sign_on.proxied(exchange.address, exchange.scope["headers"])
        if caller is None:
            caller = self._tokens.caller(token)
        if caller is None:
            caller = await sign_on.verify(token)
        if caller is not None:
            exchange.caller = caller
            return True
        # Nobody: only the page and the description answer.
        if path in OPEN_PATHS or is_page(path):
            return True
        # The token may be one of the file that cannot be read.
        if token:
            self._tokens.check()
        return False

    async def _answer_until_gone(self, exchange: Exchange, body: bytes, receive: Receive) -> None:
        """Run the application, and cancel it if the client hangs up."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            # The body was given already: the application waits for a disconnect, which cancels it.
            if not messages:
                await anyio.sleep_forever()
            return messages.pop()

        with anyio.CancelScope() as answering:

            async def hang_up() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                answering.cancel()

            watching = asyncio.ensure_future(hang_up())
            try:
                await self._app(exchange.scope, replay, exchange.send)
            finally:
                watching.cancel()

    async def _fail(self, exchange: Exchange, receive: Receive, error: Exception) -> None:
        """Answer an error that was raised outside of a route, or by a fault of the program."""
        if isinstance(error, RagIndexError):
            await exchange.refuse(problem_of(error), receive)
            return
        # The log has the place alone: the message may repeat what was searched for.
        log_place(error)
        detail = "an unexpected error; the log of the service has its place"
        await exchange.refuse(problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail), receive)
