"""The commands that answer searches of others: `serve`, `mcp`."""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, UnicodeText, caller_options, command, log_to_terminal, repeated, say, wait_option

if TYPE_CHECKING:
    from rag_index.retrieve import Caller


@command(endless_without="new_token", example="serve --port 8080")
@click.option("--host", metavar="ADDRESS", help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65_535), metavar="N", help="The port to listen on; 0 takes a free one.")
@click.option("--new-token", metavar="NAME", type=UnicodeText(), help="Make a token for NAME instead of serving.")
@repeated("--group", "groups", "A group of the new token", metavar="NAME", type=UnicodeText())
@click.option("--role", metavar="ROLE", type=UnicodeText(), help="The role of the new token in the database.")
@wait_option
def serve(
    context: Context,
    new_token: str | None,
    groups: tuple[str, ...],
    role: str | None,
    wait: float | None,
    **address: Any,
) -> None:
    """Answer searches over HTTP, for agents and in a browser."""
    if new_token is not None:
        from rag_index.service import tokens

        if not new_token.strip():
            raise click.UsageError("--new-token needs the name of whoever gets the token")
        token = tokens.new_token()
        line = tokens.token_line(new_token, token, groups, role or "")
        say(f"The token, which is shown only now:\n\n  {token}\n")
        say(f"The line for [serve] tokens, or for the file that tokens_file names:\n\n  {line}")
        return
    if groups or role:
        raise click.UsageError(f"{'--group' if groups else '--role'} belongs to --new-token NAME")
    from rag_index.service.server import serve
    from rag_index.settings import run_settings

    settings = context.settings(wait=wait, **address)
    log_to_terminal(root := logging.getLogger())
    root.setLevel(logging.INFO)
    serve(
        settings,
        lambda: run_settings(settings.path, wait=wait),
        lambda url: say(f"rag-index answers at {url}"),
    )


@command(example="mcp --print skill")
@caller_options("Search as a member of this group")
@click.option(
    "--print", "kind", type=click.Choice(["skill", "agents"]), help="Print a skill file, or lines for an AGENTS.md."
)
@wait_option
def mcp(context: Context, caller: Caller, kind: str | None, wait: float | None) -> None:
    """Answer an agent over MCP on standard input and output.

    --print says what an agent should know of these indexes.
    """
    if kind:
        from rag_index.service.mcp_tools import skill

        click.echo(skill(context.settings(), front_matter=kind == "skill"), nl=False)
        return
    import asyncio  # every command imports this module, and asyncio takes 20 ms

    from rag_index.service.mcp_server import serve_standard_streams

    settings = context.settings(wait=wait)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # a thread that waits for input could not be told to stop
    asyncio.run(serve_standard_streams(settings, caller))
