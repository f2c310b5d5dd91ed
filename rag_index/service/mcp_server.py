"""The tools over MCP: at /mcp of the service, and over standard input and output. Needs the extra `mcp`."""

from __future__ import annotations

import asyncio
import logging
import traceback
from contextlib import AsyncExitStack
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from rag_index.errors import RagIndexError, SettingsError
from rag_index.retrieve import Retriever
from rag_index.service.mcp_tools import INSTRUCTIONS, AgentTools
from rag_index.service.search_service import SearchService

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from mcp.server.lowlevel import Server
    from starlette.requests import Request
    from starlette.routing import BaseRoute

    from rag_index.retrieve import Caller
    from rag_index.settings import Settings

logger = logging.getLogger(__name__)

PATH = "/mcp"
INSTALL = "pip install 'rag-index[mcp]'"
"""The command that installs what MCP needs."""


def mcp_installed() -> bool:
    """Return whether the package that speaks MCP is installed."""
    return find_spec("mcp") is not None


def mcp_endpoint(
    service: SearchService, caller_of: Callable[[Request], Caller]
) -> tuple[BaseRoute, Callable[[], AbstractAsyncContextManager[None]]]:
    """Return the route of MCP over HTTP for one application, and the context that must be open while it serves.

    There are no sessions: each request stands for itself, so nothing is kept for clients that never come back. Streams
    that a client would open with GET are not offered. `caller_of` says who sent a request.
    """
    from mcp.server.streamable_http_manager import StreamableHTTPASGIApp, StreamableHTTPSessionManager
    from starlette.routing import Route

    server = _server(AgentTools(service), lambda context: caller_of(context.request))
    manager = StreamableHTTPSessionManager(server, json_response=True, stateless=True)
    route = Route(PATH, StreamableHTTPASGIApp(manager), methods=["POST"], include_in_schema=False)
    return route, manager.run


async def serve_standard_streams(settings: Settings, caller: Caller) -> None:
    """Answer a client on standard input and output until it closes them. Nothing else is written to the output.

    Raises SettingsError if the extra is not installed.
    """
    if not mcp_installed():
        raise SettingsError(f"rag-index mcp needs the package mcp, which is not installed: {INSTALL}")
    from mcp.server.stdio import stdio_server

    async with Retriever.from_settings(settings) as retriever, AsyncExitStack() as stack:
        stack.callback(asyncio.ensure_future(retriever.warm_up()).cancel)
        server = _server(AgentTools(SearchService(settings, retriever)), lambda _: caller)
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())


def _server(tools: AgentTools, caller_of: Callable[[Any], Caller]) -> Server[Any]:
    """Return a server of MCP that answers with these tools. An error is the answer of a tool, in one line."""
    import mcp_types as types
    from mcp.server.lowlevel import Server

    async def list_tools(_: Any, __: Any) -> types.ListToolsResult:
        hints = types.ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        described = [types.Tool(**tool, annotations=hints) for tool in tools.descriptions]
        return types.ListToolsResult(tools=described)

    async def call_tool(context: Any, given: types.CallToolRequestParams) -> types.CallToolResult:
        try:
            answer = await tools.call(given.name, given.arguments or {}, caller_of(context))
        except RagIndexError as exc:
            return _result(" ".join(str(exc).split()), failed=True)
        except Exception as exc:  # noqa: BLE001 - the client gets a line, and the log the place, but not what was asked
            place = traceback.extract_tb(exc.__traceback__)[-1]
            logger.error("unexpected %s in %s line %s", type(exc).__name__, place.filename, place.lineno)
            return _result("an unexpected error; the log of rag-index has its place", failed=True)
        return _result(answer)

    def _result(text: str, *, failed: bool = False) -> types.CallToolResult:
        return types.CallToolResult(content=[types.TextContent(text=text)], is_error=failed)

    return Server(
        "rag-index",
        version=version("rag-index"),
        title=f"Search in {tools.project}",
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
