"""The command `export`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command

__all__ = ["export"]


@command()
@click.argument("name")
@click.option("--out", required=True, metavar="FILE.jsonl", help="The file to write; - for standard output.")
@click.option("--no-vectors", is_flag=True, help="Leave the vectors out.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for a store that is in use.")
def export(context: Context, name: str, out: str, no_vectors: bool, wait: float | None) -> None:
    """Write every point of an index as JSON lines, sorted by id."""
    from rag_index.transfer import export as exporting

    count = exporting.export(context.settings(wait=wait), name, out, vectors=not no_vectors)
    click.echo(f"Wrote {count:,} points to {out}", err=out == exporting.STANDARD_OUTPUT)
