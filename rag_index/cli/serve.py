"""The commands that answer searches of others: `serve`, `mcp`."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

import click

from rag_index.cli import Context, UnicodeText, command, repeated, wait_option


@command(endless_without="new_token")
@click.option("--host", metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), metavar="N", help="The port to listen on; 0 takes a free one.")
@click.option("--new-token", metavar="NAME", type=UnicodeText(), help="Make a token for NAME instead of serving.")
@repeated("--group", "groups", "A group of the new token", metavar="NAME", type=UnicodeText())
@wait_option
def serve(context: Context, new_token: str | None, groups: tuple[str, ...], wait: float | None, **address: Any) -> None:
    """Answer searches over HTTP, for agents and in a browser, until it is stopped."""
    if new_token is not None:
        from rag_index.service import tokens

        if not new_token.strip():
            raise click.UsageError("--new-token needs the name of whoever gets the token")
        token = tokens.new_token()
        line = tokens.token_line(new_token, token, groups)
        click.echo(f"The token, which is shown only now:\n\n  {token}\n")
        click.echo(f"The line for [serve] tokens, or for the file that tokens_file names:\n\n  {line}")
        return
    if groups:
        raise click.UsageError("--group belongs to --new-token NAME")
    from rag_index.service.server import serve
    from rag_index.settings import run_settings

    settings = context.settings(wait=wait, **address)
    serve(
        settings,
        lambda: run_settings(settings.path, wait=wait),
        lambda url: click.echo(f"rag-index answers at {url}"),
    )


@command()
@repeated("--group", "groups", "Search as a member of this group", metavar="NAME")
@click.option(
    "--print", "kind", type=click.Choice(["skill", "agents"]), help="Print a skill file, or lines for an AGENTS.md."
)
@wait_option
def mcp(context: Context, groups: Sequence[str], kind: str | None, wait: float | None) -> None:
    """Answer an agent over MCP on standard input and output, or print what it should know of these indexes."""
    if kind:
        from rag_index.service.mcp_tools import skill

        click.echo(skill(context.settings(), front_matter=kind == "skill"), nl=False)
        return
    import asyncio  # every command imports this module, and asyncio takes 20 ms

    from rag_index.service import Caller
    from rag_index.service.mcp_server import serve_standard_streams

    settings = context.settings(wait=wait)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # a thread that waits for input could not be told to stop
    asyncio.run(serve_standard_streams(settings, Caller("standard input", frozenset(groups) or None)))
