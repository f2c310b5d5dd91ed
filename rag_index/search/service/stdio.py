"""MCP on standard input and output: every request is answered, whatever its line contains.

The transport of the package `mcp` drops a line that it cannot parse, so that a client waits
forever. It also drops the requests under way when the input ends. Therefore this module reads the
lines and passes their messages to the server one by one. The package writes the answers.
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
    """Open the stream of messages for an MCP server, and the client to which it sends its own.

    When the input ends, the requests under way are still answered. Any other reader of the standard
    input of this process, such as a child process, reads nothing.
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
    """Yield nothing, in place of the standard input that the package would read."""
    for line in "":
        yield line


class _Json(RootModel[Any]):
    """An answer of one line that the package has no model for."""


class Client:
    """The client of the server: its lines become messages, and it is the stream to which the server
    sends answers."""

    def __init__(self, messages: MemoryObjectSendStream[Messages], outgoing: Any) -> None:
        self._messages, self._outgoing = messages, outgoing
        self._waiting: list[types.RequestId | None] = []
        """The ids of unanswered requests."""
        self._answered = asyncio.Event()

    async def read(self, lines: anyio.AsyncFile[bytes]) -> None:
        """Pass the messages of all lines to the server. End the server after the last answer."""
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
                await self._finish(message.id)

    async def aclose(self) -> None:
        """Close the output."""
        await self._outgoing.aclose()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _take(self, text: bytes) -> None:
        """Pass the message of a line to the server, or answer a line without a message."""
        try:
            message = _parse(_read(text))
        except (ValueError, RecursionError):
            message = _error(None, types.PARSE_ERROR, "this line is not JSON")
        # The answer to a line that is not a message.
        if isinstance(message, dict):
            await self._outgoing.send(SessionMessage(_Json(message)))  # type: ignore[arg-type]
            return
        # A notification that is not known.
        if message is None:
            return
        number = None
        if isinstance(message, types.JSONRPCRequest):
            number = message.id
            self._waiting.append(number)
        metadata = ServerMessageMetadata(on_request_unanswered=partial(self._finish, number))
        await self._messages.send(SessionMessage(message, metadata))

    async def _finish(self, number: types.RequestId | None) -> None:
        """Record that a request is answered, or cancelled by the client and never answered."""
        if number in self._waiting:
            self._waiting.remove(number)
        self._answered.set()


def _read(text: bytes) -> Any:
    """Return the JSON value of a line. Half a character becomes a question mark, as in the store.

    Raises ValueError if it is not JSON, and RecursionError if it is too deep.
    """
    given = json.loads(text.decode("utf-8-sig", "replace"), parse_constant=_refuse)
    # JSON itself can have half a character: "\ud83d".
    clean = json.dumps(given, ensure_ascii=False).encode(errors="replace")
    return json.loads(clean)


def _refuse(constant: str) -> None:
    """Refuse NaN and Infinity, which Python parses."""
    raise ValueError(f"{constant} is no JSON")


def _parse(given: Any) -> types.JSONRPCMessage | dict[str, Any] | None:
    """Return the message of a line, or the error object that answers it.

    Nothing answers a notification. Return None for one that is not valid.
    """
    try:
        message = types.jsonrpc_message_adapter.validate_python(given, by_name=False)
    except ValidationError:
        message = None
    members = given if isinstance(given, dict) else {}
    # A notification, valid or not: {"jsonrpc": "2.0", "method": "notifications/cancelled"}.
    is_call = members.get("jsonrpc") == "2.0" and isinstance(members.get("method"), str)
    if is_call and "id" not in members:
        return message
    # No message at all, or a request that looks like a notification, because its id is null or 1.5.
    if message is None or isinstance(message, types.JSONRPCNotification):
        is_response = "result" in members or "error" in members
        number = None if is_response else members.get("id")
        return _error(
            number,
            types.INVALID_REQUEST,
            "this is no request: look at its jsonrpc, id, method and params",
        )
    return message


def _error(number: Any, code: int, message: str) -> dict[str, Any]:
    """Return the object of an error; the id is null unless it is a text or a number."""
    is_id = isinstance(number, str | int | float) and not isinstance(number, bool)
    error = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": number if is_id else None, "error": error}
