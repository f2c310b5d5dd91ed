"""The guard in front of everything that the service answers: who asks, how much, and for how long.

It is plain ASGI, since it watches a connection while a request is answered: if the client hangs up,
the request is cancelled. Every check that needs no body comes before the body is read.
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
PROBE_PATHS = ("/healthz", "/readyz")
MAX_HEADER_BYTES, MAX_BODY_BYTES = 16_384, 100_000
REQUEST_SECONDS, MAX_REQUESTS = 30.0, 256
"""How long a request may take, reading its body included, and how many are answered at a time."""
CLIENT_GONE = 499
"""The status in log and metrics of a request whose client hung up, as in nginx."""
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json", "/favicon.ico"})
"""The addresses that need no token, with the files of the page: they tell nothing of what is
indexed."""
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "DELETE", "PUT", "PATCH"})


def is_page(path: str) -> bool:
    """Return whether an address is that of the page, or of one of its files."""
    return path == "/" or path.startswith("/static/")


class HttpMetrics:
    """The requests of one application, by route: an address that no route has counts as `other`."""

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
        path, named = (
            scope["path"],
            getattr(scope.get("route"), "path", None),
        )  # FastAPI's own routes alone have one
        route = named or (
            "/mcp" if path.startswith("/mcp/") else path if path in ("/", "/mcp") else "other"
        )
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)


class Exchange:
    """One request and its response on their way through the guard."""

    def __init__(self, scope: Scope, send: Send, *, max_body: int, metrics: HttpMetrics) -> None:
        self.scope, self._send, self._max_body, self._metrics = scope, send, max_body, metrics
        self._began, self._ended = time.perf_counter(), False
        self.headers = dict(
            Headers(scope=scope).items()
        )  # of several of one name the last, which a proxy adds
        self.address = str(scope["client"][0]) if scope.get("client") else "unknown"
        self.caller = Caller()
        self.status = 0

    @property
    def sender(self) -> str:
        """Return what counts as one caller: an address, or one connection of a program on this
        machine.

        It is the address that a proxy names, if the connection comes from a private network.
        Nothing else depends on that header, since any client can write it.
        """
        try:
            address = ip_address(self.address)
        except ValueError:
            return self.address
        named = self.headers.get("x-forwarded-for", "").rpartition(",")[2].strip()
        if named and address.is_private:
            return named
        return f"{address} {self.scope['client'][1]}" if address.is_loopback else str(address)

    @property
    def who(self) -> str:
        """Return who has a share of the places."""
        return f"token {self.caller.name}" if self.caller.name else f"address {self.sender}"

    @property
    def malformed(self) -> ProblemResponse | None:
        """Return the problem of first lines that are too long, or that two programs could read in
        two ways."""
        size = sum(len(name) + len(value) + 4 for name, value in self.scope["headers"])
        size += len(self.scope.get("raw_path") or b"") + len(self.scope["query_string"])
        closing = {"Connection": "close"}
        if size > MAX_HEADER_BYTES:
            detail = f"the first lines of the request are larger than {MAX_HEADER_BYTES:,} bytes"
            return problem(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, detail, headers=closing)
        if {"content-length", "transfer-encoding"} <= self.headers.keys():
            detail = "the request has both Content-Length and Transfer-Encoding: send one of them"
            return problem(HTTPStatus.BAD_REQUEST, detail, headers=closing)
        return None

    @property
    def host(self) -> str:
        """Return the name that the client used, without port."""
        name = self.headers.get("host", "").lower()
        return name.partition("]")[0] + "]" if name.startswith("[") else name.partition(":")[0]

    def is_foreign(self, allowed: list[str]) -> bool:
        """Return whether a browser sends this for a page of an origin that may not ask.

        An image or a link has no Origin, so that Sec-Fetch-Site alone tells. Another port or
        subdomain (`same-site`) is another owner's page too. A link to the page itself is for the
        person who clicks it.
        """
        origin = self.headers.get("origin", "").lower()
        if origin:
            return (
                origin.partition("://")[2] != self.headers.get("host", "").lower()
                and origin not in allowed
            )
        if self.scope["path"] == "/" and self.headers.get("sec-fetch-mode") == "navigate":
            return False
        return self.headers.get("sec-fetch-site", "none") not in ("none", "same-origin")

    async def read_body(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if the client hangs up.

        Raises RequestTooLarge, before anything is read if the client itself says so.
        """
        declared, body, more = (
            int(self.headers.get("content-length", 0)),
            b"",
            True,
        )  # the server reads that, too
        while max(declared, len(body)) <= self._max_body:
            if not more:
                return body
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body, more = body + message.get("body", b""), message.get("more_body", False)
        raise RequestTooLarge(
            f"the body is larger than the {self._max_body:,} bytes that are allowed"
        )

    async def send(self, message: Message) -> None:
        """Send a part of the response, with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status, given = message["status"], message.get("headers", [])
            names = {name.lower() for name, _ in given}
            # of a file of the page a browser asks whether its copy is current: a newer rag-index is
            # seen at once
            cached = b"no-cache" if is_page(self.scope["path"]) else b"no-store"
            headers = (*SECURITY_HEADERS, (b"cache-control", cached))
            message = {
                **message,
                "headers": [*given, *(one for one in headers if one[0] not in names)],
            }
        elif not message.get("more_body", False):
            self.end()
        await self._send(message)

    def end(self) -> None:
        """Count the request, once: before its last byte leaves, so that who asks after the answer
        finds it counted."""
        if not self._ended:
            self._ended = True
            seconds = time.perf_counter() - self._began
            self._metrics.add(self.scope, self.status or CLIENT_GONE, seconds)
            path = (
                (self.scope.get("raw_path") or b"").decode("latin-1").partition("?")[0]
            )  # without what is asked
            who, method = self.caller.name or self.address, self.scope["method"]
            logger.info(
                "%s %s %s %d %.1f ms", who, method, path, self.status or CLIENT_GONE, 1000 * seconds
            )

    async def refuse(self, response: Response, receive: Receive) -> None:
        """Send a problem, unless a response has begun; then nothing more can be said."""
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
        self._app, self._serve, self._tokens, self._metrics = app, serve, tokens, metrics
        max_requests, self._max_body = max_requests or MAX_REQUESTS, max_body or MAX_BODY_BYTES
        self._hosts = allowed_hosts(serve, tokens)
        self._places, self._probes = Places(max_requests), Places(max_requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, count it, and write a line about it to the log."""
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
                refusal = exchange.malformed or await self._refusal(exchange)
                if refusal is not None:
                    await exchange.refuse(refusal, receive)
                    return
                exchange.scope.setdefault("state", {})["caller"] = exchange.caller
                if (
                    exchange.scope["method"] == "POST"
                ):  # a body is JSON also if, as with `curl -d`, it is called a form
                    others = [
                        header
                        for header in exchange.scope["headers"]
                        if header[0] != b"content-type"
                    ]
                    exchange.scope["headers"] = [*others, (b"content-type", b"application/json")]
                body = await exchange.read_body(receive)
                if body is not None:  # a request whose body is still to come takes no place
                    places = self._probes if exchange.scope["path"] in PROBE_PATHS else self._places
                    with places.take(exchange.who):
                        await self._answer_until_gone(exchange, body, receive)
        except TimeoutError:
            detail = f"the request took longer than {REQUEST_SECONDS:g} s"
            await exchange.refuse(problem(HTTPStatus.GATEWAY_TIMEOUT, detail), receive)
        except asyncio.CancelledError:  # by the server, which has waited long enough for its end
            await exchange.refuse(
                problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service stops"), receive
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await self._fail(exchange, receive, error)

    async def _refusal(self, exchange: Exchange) -> ProblemResponse | None:
        """Return the problem of a request that its first lines already show."""
        if self._hosts is not None and exchange.host not in self._hosts:
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this service has another name; [serve] hosts lists its names",
            )
        if exchange.is_foreign(self._serve.cors):
            return problem(
                HTTPStatus.FORBIDDEN,
                "pages of this origin may not ask; [serve] cors lists those that may",
            )
        try:
            allowed = await self._identify(exchange)
        except RagIndexError as error:
            logger.error("%s", error)
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE, "the tokens cannot be read; the log says why"
            )
        if not allowed:
            headers = {"WWW-Authenticate": 'Bearer realm="rag-index"'}
            return problem(
                HTTPStatus.UNAUTHORIZED,
                "a valid token is needed: Authorization: Bearer TOKEN",
                headers=headers,
            )
        return None

    async def _identify(self, exchange: Exchange) -> bool:
        if not self._tokens.required:
            exchange.caller = Caller(local=True)
            return True
        scheme, _, given = exchange.headers.get("authorization", "").partition(" ")
        token = given.strip() if scheme.lower() == "bearer" else ""
        found = self._tokens.sign_on.proxied(
            exchange.address, exchange.scope["headers"]
        ) or self._tokens.caller(token)
        found = found or await self._tokens.sign_on.verify(token)
        if found is not None:
            exchange.caller = found
        path = exchange.scope["path"]
        return found is not None or path in OPEN_PATHS or is_page(path)

    async def _answer_until_gone(self, exchange: Exchange, body: bytes, receive: Receive) -> None:
        """Run the application, and cancel it if the client hangs up."""
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
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
        """Answer an unexpected error. The log has its place alone: a message may repeat what was
        searched for."""
        if isinstance(error, RagIndexError):
            await exchange.refuse(problem_of(error), receive)
            return
        log_place(error)
        detail = "an unexpected error; the log of the service has its place"
        await exchange.refuse(problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail), receive)
