"""The command `drop`."""

from __future__ import annotations

import time

import click

from rag_index.cli import Context, command, json_option, print_json, wait_option


@command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@wait_option
@json_option
def drop(context: Context, name: str, yes: bool, wait: float | None, as_json: bool) -> int:
    """Delete an index: its collections with all texts, and what the ledger has of it.

    The settings need not have it any longer. Without --yes it asks first.
    """
    from rag_index.indexing.pruning import drop_index, kept_index

    settings = context.settings(wait=wait)
    kept = kept_index(settings, name)
    if not yes:
        click.echo(f"{name}: {kept.sentence()}", err=True)
        if kept.wanted:
            click.echo(f"{settings.path.name} has this index, so its next run indexes everything again.", err=True)
        if not click.confirm("Delete all of it?", err=True):
            click.echo("Nothing was deleted.", err=True)
            return 1
    started = time.perf_counter()
    dropped = drop_index(settings, name)
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"index": name, "dropped": dropped, "seconds": round(seconds, 3)})
    else:
        click.echo(f"{name}: deleted {kept.sentence()}. {seconds:.2f} s.")
    return 0
