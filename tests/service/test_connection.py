"""Connections: how long they may take to ask, and the end."""

import asyncio
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from uvicorn.server import ServerState

from rag_index.search.service import server
from rag_index.search.service.server import Connection, config_of

REQUEST = b"GET /search HTTP/1.1\r\nHost: localhost\r\n\r\n"


@asynccontextmanager
async def connected(answer, *, stopping: bool = False):
    """Connect to a service whose application returns when `answer(receive)` does; yield reader and writer."""

    async def app(scope, receive, send):
        await answer(receive)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    app.server = SimpleNamespace(should_exit=stopping)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    made = lambda: Connection(config_of(app), ServerState(), {})  # noqa: E731
    await asyncio.get_running_loop().connect_accepted_socket(made, ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        yield reader, writer
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_first_lines_have_a_limit_of_time(monkeypatch, sent):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.05)

    async def main() -> None:
        async with connected(lambda _: asyncio.sleep(0.2)) as (reader, writer):
            writer.write(REQUEST)
            await reader.readuntil(b"ok")  # an answer has no such limit, and before a second request there is another
            writer.write(sent or b"G")
            assert await asyncio.wait_for(reader.read(), 60) == b""
        async with connected(lambda _: asyncio.sleep(0)) as (reader, writer):
            writer.write(sent)
            assert await asyncio.wait_for(reader.read(), 60) == b""

    asyncio.run(main())


def test_a_connection_that_comes_while_the_service_stops_is_closed(monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 600)

    async def main() -> None:
        async with connected(lambda _: asyncio.sleep(0), stopping=True) as (reader, _):
            assert await asyncio.wait_for(reader.read(), 60) == b""

    asyncio.run(main())
