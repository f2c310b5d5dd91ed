"""The command `optimize`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, json_option, print_json, wait_option


@command(quiet=True)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@wait_option
@json_option
def optimize(context: Context, names: tuple[str, ...], wait: float | None, as_json: bool) -> None:
    """Build missing search indexes (HNSW), so that searches need not scan all vectors."""
    from rag_index.indexing.search_index import optimize
    from rag_index.stores import open_store

    settings = context.settings(wait=wait)
    settings.named(names)
    store = open_store(settings.store, wait=settings.run.wait)
    optimized = []
    try:
        for one in optimize(settings, store, names):
            optimized.append(one)
            if not as_json:
                result = f"built in {one.seconds:.1f} s" if one.built else "nothing to build"
                click.echo(f"{one.index}: {one.points:,} points, {result}.")
    finally:
        store.close()
    if as_json:
        print_json({"indexes": [one.to_json() for one in optimized]})
