"""The command `move`."""

from __future__ import annotations

import os

import click

from rag_index.cli import Context, command, json_option, print_json, wait_option


@command(quiet=True)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--to", required=True, metavar="URL", help="A Qdrant server (http://…), or a folder for the embedded one."
)
@click.option("--api-key-env", metavar="VAR", help="The environment variable that holds the server's API key.")
@wait_option
@json_option
def move(
    context: Context, names: tuple[str, ...], to: str, api_key_env: str | None, wait: float | None, as_json: bool
) -> None:
    """Move indexes to another store, without embedding. Repeat the command to resume a move that was stopped."""
    from rag_index.transfer.move import move, next_steps, settings_line, target_settings

    api_key = None
    if api_key_env is not None and not (api_key := os.environ.get(api_key_env)):
        raise click.UsageError(
            f"--api-key-env names {api_key_env}, which is not set or is empty; set it to the server's API key"
        )
    settings = context.settings(wait=wait)
    target = target_settings(settings, to, api_key)
    moved = move(settings, target, names, say=lambda line: click.echo(line, err=True))
    if as_json:
        print_json({"indexes": [one.to_json() for one in moved], "store": settings_line(target)})
        return
    for one in moved:
        click.echo(f"{one.index}: {one.sentence()}")
    click.echo(next_steps(settings, target, moved, api_key=api_key_env is not None))
