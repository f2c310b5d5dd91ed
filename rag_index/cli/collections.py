"""The commands on collections: `optimize`, `rollback`, `drop`, `export`, `move`."""

from __future__ import annotations

import os
import time
import uuid
from contextlib import closing

import click

from rag_index.cli import Context, command, json_option, name_argument, names_argument, print_json, show, wait_option


@command()
@name_argument
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
    printed = {"index": name, "dropped": dropped, "seconds": round(seconds, 3)}
    show(printed, f"{name}: deleted {kept.sentence()}. {seconds:.2f} s.", as_json=as_json)
    return 0


@command(quiet=True)
@name_argument
@click.option("--out", required=True, metavar="FILE.jsonl", help="The file to write, or - for standard output.")
@click.option("--no-vectors", is_flag=True, help="Leave out the vectors.")
@wait_option
def export(context: Context, name: str, out: str, no_vectors: bool, wait: float | None) -> None:
    """Write every point of an index as JSON lines, sorted by id."""
    from rag_index.transfer.export import STANDARD_OUTPUT, export

    count = export(context.settings(wait=wait), name, out, vectors=not no_vectors)
    where = "standard output" if out == STANDARD_OUTPUT else out
    click.echo(f"Wrote {count:,} points to {where}", err=out == STANDARD_OUTPUT)


@command(quiet=True)
@names_argument
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
    lines = [f"{one.index}: {one.sentence()}" for one in moved]
    lines.append(next_steps(settings, target, names, api_key=api_key_env is not None))
    show({"indexes": [one.to_json() for one in moved], "store": settings_line(target)}, *lines, as_json=as_json)


@command(quiet=True)
@names_argument
@wait_option
@json_option
def optimize(context: Context, names: tuple[str, ...], wait: float | None, as_json: bool) -> None:
    """Build missing search indexes (HNSW), so that searches need not scan all vectors."""
    from rag_index.indexing.search_index import optimize
    from rag_index.stores import open_store

    settings = context.settings(wait=wait)
    settings.named(names)
    optimized = []
    with closing(open_store(settings.store, wait=settings.run.wait)) as store:
        for one in optimize(settings, store, names):
            optimized.append(one)
            if not as_json:
                result = f"built in {one.seconds:.1f} s" if one.built else "nothing to build"
                click.echo(f"{one.index}: {one.points:,} points, {result}.")
    if as_json:
        print_json({"indexes": [one.to_json() for one in optimized]})


@command(quiet=True)
@name_argument
@json_option
def rollback(context: Context, name: str, as_json: bool) -> None:
    """Make the index's previous collection live again."""
    from rag_index.indexing.publish import roll_back
    from rag_index.ledger import Ledger
    from rag_index.ledger.lease import IndexLease
    from rag_index.stores import open_store

    settings = context.settings()
    alias, access = settings.alias(name), settings.index(name).access is not None
    started = time.perf_counter()
    with (
        closing(Ledger(settings.ledger_url)) as ledger,
        IndexLease(ledger, alias, str(uuid.uuid4())),
        closing(open_store(settings.store, wait=settings.run.wait)) as store,
    ):
        before, live, returned = roll_back(ledger, store, alias, name, access=access)
    seconds = time.perf_counter() - started
    came = f", with {returned:,} that {before} no longer had" if returned else ""
    show(
        {"index": name, "before": before, "live": live, "returned": returned, "seconds": round(seconds, 3)},
        f"{name}: {live} is live, {before} is kept. {seconds:.2f} s.",
        f"{name}: its documents are as the last run left them{came}; `rag-index index {name}` brings it up to date.",
        as_json=as_json,
    )
