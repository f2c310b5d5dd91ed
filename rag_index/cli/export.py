"""The command `export`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, wait_option


@command(quiet=True)
@click.argument("name")
@click.option("--out", required=True, metavar="FILE.jsonl", help="The file to write, or - for standard output.")
@click.option("--no-vectors", is_flag=True, help="Leave out the vectors.")
@wait_option
def export(context: Context, name: str, out: str, no_vectors: bool, wait: float | None) -> None:
    """Write every point of an index as JSON lines, sorted by id."""
    from rag_index.transfer.export import STANDARD_OUTPUT, export

    count = export(context.settings(wait=wait), name, out, vectors=not no_vectors)
    where = "standard output" if out == STANDARD_OUTPUT else out
    click.echo(f"Wrote {count:,} points to {where}", err=out == STANDARD_OUTPUT)
