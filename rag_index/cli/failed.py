"""The command `failed`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, print_json
from rag_index.cli.tables import print_table

__all__ = ["failed"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def failed(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """List documents that could not be indexed: why, and how often they were tried."""
    from rag_index.status import failed as overview

    settings = context.settings()
    found = overview.failed(settings, settings.named(names))
    if as_json:
        print_json({"failed": [one.to_json() for one in found]})
        return
    if not found:
        click.echo("No documents are listed as failed.")
        return
    rows = [("index", "document", "kind", "tries", "last tried", "reason")]
    rows += [(one.index, one.document_id, one.kind, str(one.tries), one.last_tried, one.reason) for one in found]
    print_table(rows)
    kinds = {one.kind for one in found}
    if "failed" in kinds:
        click.echo("Each run tries them again, five times at most; `rag-index retry-failed` tries them at once.")
    if "incomplete" in kinds:
        click.echo("What is incomplete is indexed without something; `rag-index retry-failed` makes it anew.")
    if "skipped" in kinds:
        click.echo("What is skipped a rule of the source keeps out; it fails no run.")
