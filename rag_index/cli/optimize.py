"""The command `optimize`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, print_json

__all__ = ["optimize"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for a store that is in use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def optimize(context: Context, names: tuple[str, ...], wait: float | None, as_json: bool) -> None:
    """Build search indexes (HNSW) where they are missing, so that searches need not scan."""
    from rag_index.indexing import search_index as searchable
    from rag_index.stores import open_store

    settings = context.settings(wait=wait)
    settings.named(names)
    store = open_store(settings.store, wait=settings.run.wait)
    done = []
    try:
        for one in searchable.optimize(settings, store, names):
            done.append(one)
            if not as_json:
                said = f"built in {one.seconds:.1f} s" if one.built else "nothing to build"
                click.echo(f"{one.index}: {one.points:,} points, {said}.")
    finally:
        store.close()
    if as_json:
        print_json({"indexes": [one.to_json() for one in done]})
