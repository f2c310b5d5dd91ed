"""The guard in front of everything that the service answers: who asks, how much, how often, and for how long.

It is plain ASGI, since it watches a connection while a request is answered: if the client hangs up, the request is
cancelled. Every check that needs no body comes before the body is read.
"""

from __future__ import annotations

import asyncio
import logging
import time
import traceback
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, RequestTooLarge
from rag_index.service.addresses import allowed_hosts
from rag_index.service.exchange import Exchange
from rag_index.service.problems import ProblemResponse, problem, problem_of
from rag_index.service.rate_limit import RateLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from rag_index.service.http_metrics import HttpMetrics
    from rag_index.service.tokens import TokenRegister
    from rag_index.settings import ServeSettings

logger = logging.getLogger(__name__)

STOP_SECONDS = 1.0
"""How long a request whose time is up may take to stop."""
PROBES = ("/healthz", "/readyz")
"""What is asked to find out whether the service works, and never too often."""
GONE = 499
"""The status in log and metrics of a request whose client hung up, as in nginx."""


class Guard:
    """An ASGI application in front of another.

    `needs_token` says which addresses a caller without a token may not ask.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        serve: ServeSettings,
        tokens: TokenRegister,
        metrics: HttpMetrics,
        needs_token: Callable[[str], bool],
    ) -> None:
        self._app, self._serve, self._tokens, self._metrics = app, serve, tokens, metrics
        self._needs_token = needs_token
        self._hosts = allowed_hosts(serve, tokens)
        self._rates = RateLimit(serve.rate_limit)
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, count it, and write a line about it to the log."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        exchange = Exchange(scope, send, self._serve.max_body_bytes)
        began = time.perf_counter()
        try:
            await self._answer(exchange, receive)
        finally:
            seconds = time.perf_counter() - began
            status = exchange.status or GONE
            self._metrics.add(scope, status, seconds)
            logger.info(
                "%s %s %s %d %.1f ms",
                exchange.caller.name or exchange.address, exchange.method, exchange.path, status, 1000 * seconds,
            )  # fmt: skip

    async def _answer(self, exchange: Exchange, receive: Receive) -> None:
        refusal = self._refusal(exchange)
        if refusal is not None:
            await exchange.refuse(refusal, receive)
            return
        exchange.scope.setdefault("state", {})["caller"] = exchange.caller
        await self._answer_in_time(exchange, receive)

    def _refusal(self, exchange: Exchange) -> ProblemResponse | None:
        """Return the problem of a request that its first lines make unwelcome."""
        if self._hosts is not None and exchange.host not in self._hosts:
            return problem(
                HTTPStatus.MISDIRECTED_REQUEST, "this service has another name; [serve] hosts lists its names"
            )
        if exchange.is_foreign(self._serve.cors):
            return problem(HTTPStatus.FORBIDDEN, "pages of this origin may not ask; [serve] cors lists those that may")
        try:
            allowed = self._identify(exchange)
        except RagIndexError as error:
            logger.error("%s", error)
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "the tokens cannot be read; the log says why")
        caller = f"token {exchange.caller.name}" if exchange.caller.name else exchange.sender
        wait = 0.0 if exchange.scope["path"] in PROBES else self._rates.wait(caller)
        if wait:
            headers = {"Retry-After": str(int(wait) + 1)}
            return problem(HTTPStatus.TOO_MANY_REQUESTS, "too many requests; come back later", headers=headers)
        if not allowed:
            headers = {"WWW-Authenticate": 'Bearer realm="rag-index"'}
            return problem(
                HTTPStatus.UNAUTHORIZED, "a valid token is needed: Authorization: Bearer TOKEN", headers=headers
            )
        try:
            exchange.check_length()
        except RequestTooLarge as error:
            return problem_of(error)
        return None

    def _identify(self, exchange: Exchange) -> bool:
        """Find out who asks. Return whether they may."""
        if not self._tokens.required:
            return True
        scheme, _, token = exchange.headers.get("authorization", "").partition(" ")
        found = self._tokens.caller(token.strip()) if scheme.lower() == "bearer" else None
        if found is not None:
            exchange.caller = found
        return found is not None or not self._needs_token(exchange.scope["path"])

    async def _answer_in_time(self, exchange: Exchange, receive: Receive) -> None:
        try:
            async with asyncio.timeout(self._serve.timeout):
                body = await exchange.read_body(receive)
                if body is not None:
                    await self._answer_if_free(exchange, body, receive)
        except TimeoutError:
            detail = f"the request took longer than {self._serve.timeout:g} s, which [serve] timeout allows"
            await exchange.refuse(problem(HTTPStatus.GATEWAY_TIMEOUT, detail), receive)
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await self._fail(exchange, receive, error)

    async def _answer_if_free(self, exchange: Exchange, body: bytes, receive: Receive) -> None:
        """Answer, unless too many requests are being answered. One whose body is still to come does not count."""
        if self._running >= self._serve.max_requests:
            headers = {"Retry-After": "1"}
            busy = problem(HTTPStatus.SERVICE_UNAVAILABLE, "the service is busy; come back later", headers=headers)
            await exchange.refuse(busy, receive)
            return
        self._running += 1
        try:
            await self._answer_until_gone(exchange, body, receive)
        finally:
            self._running -= 1

    async def _answer_until_gone(self, exchange: Exchange, body: bytes, receive: Receive) -> None:
        """Run the application, and cancel it if the client hangs up."""
        gone = asyncio.Event()

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()
            answering.cancel()

        async def replay() -> Message:
            if exchange.replayed:
                await gone.wait()
                return {"type": "http.disconnect"}
            exchange.replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        answering = asyncio.ensure_future(self._app(exchange.scope, replay, exchange.send))
        watching = asyncio.ensure_future(watch())
        try:
            await answering
        except asyncio.CancelledError:
            if not gone.is_set():
                answering.cancel()
                await asyncio.wait([answering], timeout=STOP_SECONDS)
                raise
        finally:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching

    async def _fail(self, exchange: Exchange, receive: Receive, error: Exception) -> None:
        """Answer an unexpected error. The log has its place alone: a message may repeat what was searched for."""
        if isinstance(error, RagIndexError):
            await exchange.refuse(problem_of(error), receive)
            return
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = f": {error}" if self._serve.log_queries else ""
        logger.error("unexpected %s in %s line %s%s", type(error).__name__, place.filename, place.lineno, told)
        detail = "an unexpected error; the log of the service has its place"
        await exchange.refuse(problem(HTTPStatus.INTERNAL_SERVER_ERROR, detail), receive)
