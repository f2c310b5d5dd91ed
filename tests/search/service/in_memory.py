"""Requests to the guard without a network: what a client sends, when, and from where."""

import asyncio
from collections.abc import Callable, Coroutine

from rag_index.core.settings import ServeSettings
from rag_index.search.service.guard import Guard, HttpMetrics
from rag_index.search.service.tokens import TokenRegister


def guarded(
    answer: Callable[[dict], Coroutine], *, max_requests: int = 256, max_body: int = 1000, **serve
) -> Guard:
    """Return a guard in front of an application that answers whatever a coroutine returns for the
    scope, or raises."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": await answer(scope), "headers": []})
        await send({"type": "http.response.body", "body": b""})

    settings = ServeSettings(**serve)
    limits = {"max_requests": max_requests, "max_body": max_body}
    return Guard(
        app, serve=settings, tokens=TokenRegister(settings), metrics=HttpMetrics(), **limits
    )


async def ask(
    guard, path="/search", *, body=b"{}", gone=False, client=("127.0.0.1", 1), headers=()
) -> int:
    """Return the status, 0 without one. With None the body does not come; if `gone`, the client
    hangs up after it."""
    events = [] if body is None else [{"type": "http.request", "body": body}]
    events += [{"type": "http.disconnect"}] if gone else []
    statuses: list[int] = []

    async def receive():
        if events:
            return events.pop(0)
        return await asyncio.Event().wait()

    async def send(message):
        statuses.append(message.get("status", 0))

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "client": client,
        "headers": [(b"host", b"localhost"), *headers],
    }
    await guard(scope, receive, send)
    assert statuses.count(0) == (1 if statuses else 0), "an answer is whole"
    return statuses[0] if statuses else 0
