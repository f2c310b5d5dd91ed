"""The command `mcp`."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import click

from rag_index.cli import Context, command, wait_option

if TYPE_CHECKING:
    from collections.abc import Sequence


@command()
@click.option(
    "--group", "groups", multiple=True, metavar="NAME", help="Search as a member of this group (may be repeated)."
)
@wait_option
def mcp(context: Context, groups: Sequence[str], wait: float | None) -> None:
    """Answer an agent over MCP on standard input and output."""
    import asyncio  # every command imports this module, and asyncio takes 20 ms

    from rag_index.service import Caller
    from rag_index.service.mcp_server import serve_standard_streams

    settings = context.settings(wait=wait)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a thread that waits for input could not be told to stop
    asyncio.run(serve_standard_streams(settings, Caller("standard input", frozenset(groups) or None)))
