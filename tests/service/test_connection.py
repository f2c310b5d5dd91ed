"""Connections: how long they may take to ask, what becomes of an answer if one half is closed, and the end."""

import asyncio
import socket
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from uvicorn.server import ServerState

from rag_index.service import server
from rag_index.service.server import KEEP_ALIVE_SECONDS, Connection, config_of

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


def test_a_client_that_closes_its_half_gets_its_answer_and_one_that_is_gone_is_noticed(monkeypatch):
    monkeypatch.setattr(server, "ASK_SECONDS", 0.01)

    async def main() -> None:
        begun, go_on, gone = (asyncio.Event() for _ in range(3))

        async def answer(receive):
            await receive()
            begun.set()
            watching = asyncio.ensure_future(receive())
            await asyncio.wait({watching, asyncio.ensure_future(go_on.wait())}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done() and watching.result()["type"] == "http.disconnect":
                gone.set()

        async with connected(answer) as (reader, writer):
            writer.write(REQUEST)
            await begun.wait()
            writer.write_eof()
            assert (await reader.readline()).startswith(b"HTTP/1.1 100 ")
            go_on.set()
            said = await asyncio.wait_for(reader.read(), KEEP_ALIVE_SECONDS - 5)
            assert said.endswith(b"ok"), "to the end: the service closes"
        begun.clear()
        go_on.clear()
        async with connected(answer) as (_, writer):
            writer.write(REQUEST)
            await begun.wait()
        await asyncio.wait_for(gone.wait(), 60)

    asyncio.run(main())


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
