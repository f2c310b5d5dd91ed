"""The command `failed`."""

from __future__ import annotations

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.cli.tables import print_table


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@json_option
def failed(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """List the documents that could not be indexed, with the reason and the number of tries."""
    from rag_index.status.status import failed

    settings = context.settings()
    documents = failed(settings, settings.named(names))
    if as_json:
        print_json({"failed": [one.to_json() for one in documents]})
        return
    if not documents:
        click.echo("No documents are listed as failed.")
        return
    rows = [("index", "document", "kind", "tries", "last tried", "reason")]
    rows += [(one.index, one.document_id, one.kind, str(one.tries), one.last_tried, one.reason) for one in documents]
    print_table(rows)
    kinds = {one.kind for one in documents}
    if "failed" in kinds:
        click.echo("Each run tries failed documents again, up to five times; `rag-index retry-failed` tries them now.")
    if "incomplete" in kinds:
        click.echo("Incomplete documents are indexed but lack something; `rag-index retry-failed` tries them again.")
    if "skipped" in kinds:
        click.echo("Skipped documents are excluded by a rule of the source; they do not make a run fail.")
