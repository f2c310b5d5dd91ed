"""The command `move`."""

from __future__ import annotations

import os

import click

from rag_index.cli import Context, command, print_json

__all__ = ["move"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option(
    "--to", required=True, metavar="URL", help="A Qdrant server (http://…), or a folder for the embedded one."
)
@click.option("--api-key-env", metavar="VAR", help="The environment variable that holds the server's API key.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for a store that is in use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def move(
    context: Context, names: tuple[str, ...], to: str, api_key_env: str | None, wait: float | None, as_json: bool
) -> None:
    """Carry indexes over to another store, without embedding. Repeat it to go on with one that was stopped."""
    from rag_index.transfer import move as moving

    api_key = None
    if api_key_env is not None and not (api_key := os.environ.get(api_key_env)):
        raise click.UsageError(f"--api-key-env: the variable {api_key_env} is not set, or empty")
    settings = context.settings(wait=wait)
    target = moving.target_settings(settings, to, api_key)
    moved = moving.move(settings, target, names, say=lambda said: click.echo(said, err=True))
    if as_json:
        print_json({"indexes": [one.to_json() for one in moved], "store": moving.settings_lines(target)})
        return
    for one in moved:
        click.echo(f"{one.index}: {one.sentence()}")
    click.echo(moving.farewell(settings, target, moved, api_key=api_key_env is not None))
