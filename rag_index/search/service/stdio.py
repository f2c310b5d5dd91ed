"""MCP on standard input and output: every request is answered, whatever the line holds that it
comes in.

The transport of the package `mcp` drops a line that it cannot read, so that a client waits for
ever, and what is under way when the input ends. Lines are read here instead, and the server gets
their messages one by one. The package writes the answers.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import mcp_types as types
from mcp.server.stdio import stdio_server
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from pydantic import RootModel, ValidationError

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

Messages = SessionMessage | Exception


@asynccontextmanager
async def standard_streams() -> AsyncIterator[tuple[MemoryObjectReceiveStream[Messages], Client]]:
    """Open what a server of MCP reads from and writes to. The requests under way when the input
    ends are answered.

    Any other reader of the standard input of this process, such as a child of it, finds nothing
    there.
    """
    wire = os.dup(0)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    messages, incoming = anyio.create_memory_object_stream[Messages]()
    async with stdio_server(stdin=_no_lines()) as (unused, outgoing), asyncio.TaskGroup() as tasks:
        await unused.aclose()
        client = Client(messages, outgoing)
        tasks.create_task(client.read(anyio.wrap_file(os.fdopen(wire, "rb"))))
        yield incoming, client


async def _no_lines() -> Any:
    for line in "":
        yield line


class _Json(RootModel[Any]):
    """What is written in one line."""


class Client:
    """The client, as the server sees it: it sends messages, and takes those of the server as a
    stream."""

    def __init__(self, messages: MemoryObjectSendStream[Messages], outgoing: Any) -> None:
        self._messages, self._outgoing = messages, outgoing
        self._waiting: list[types.RequestId | None] = []
        """The ids of the requests that are not answered yet."""
        self._answered = asyncio.Event()

    async def read(self, lines: anyio.AsyncFile[bytes]) -> None:
        """Give the server what the lines hold. Once the last is answered, end the server."""
        async with self._messages, lines:
            async for line in lines:
                if line.strip():
                    await self._take(line)
            while self._waiting:
                self._answered.clear()
                await self._answered.wait()

    async def send(self, item: SessionMessage) -> None:
        """Write a message of the server."""
        message = item.message
        try:
            await self._outgoing.send(item)
        finally:
            if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                await self._settle(message.id)

    async def aclose(self) -> None:
        """Write nothing more."""
        await self._outgoing.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take(self, text: bytes) -> None:
        """Give the server a message, or answer a line that holds none."""
        try:
            message = _parse(_read(text))
        except (ValueError, RecursionError):
            message = _error(None, types.PARSE_ERROR, "this line is not JSON")
        if isinstance(message, dict):
            await self._outgoing.send(SessionMessage(_Json(message)))  # type: ignore[arg-type]
        elif message is not None:
            number = message.id if isinstance(message, types.JSONRPCRequest) else None
            self._waiting += [number] if isinstance(message, types.JSONRPCRequest) else []
            metadata = ServerMessageMetadata(on_request_unanswered=partial(self._settle, number))
            await self._messages.send(SessionMessage(message, metadata))

    async def _settle(self, number: types.RequestId | None) -> None:
        """Note that a request is answered, or that it gets no answer since the client cancelled
        it."""
        if number in self._waiting:
            self._waiting.remove(number)
        self._answered.set()


def _read(text: bytes) -> Any:
    """Return what a line holds. Half a character, which JSON can have, becomes a question mark, as
    in the store.

    Raises ValueError if it is not JSON, and RecursionError if it is too deep.
    """
    given = json.loads(text.decode("utf-8-sig", "replace"), parse_constant=_refuse)
    return json.loads(json.dumps(given, ensure_ascii=False).encode(errors="replace"))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _parse(given: Any) -> types.JSONRPCMessage | dict[str, Any] | None:
    """Return a message, or the error that answers what is none; None for a notification, which
    nothing answers."""
    try:
        message = types.jsonrpc_message_adapter.validate_python(given, by_name=False)
    except ValidationError:
        message = None
    known = given if isinstance(given, dict) else {}
    if "id" not in known and known.get("jsonrpc") == "2.0" and isinstance(known.get("method"), str):
        return message
    if message is None or isinstance(
        message, types.JSONRPCNotification
    ):  # its id is null, or no whole number
        number = None if "result" in known or "error" in known else known.get("id")
        return _error(
            number,
            types.INVALID_REQUEST,
            "this is no request: look at its jsonrpc, id, method and params",
        )
    return message


def _error(number: Any, code: int, message: str) -> dict[str, Any]:
    number = (
        number if isinstance(number, str | int | float) and not isinstance(number, bool) else None
    )
    return {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
