"""The command `retry-failed`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command, print_json
from rag_index.cli.runs import run_indexes, run_options
from rag_index.reports.outcome import RunReport


@command("retry-failed")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@run_options
def retry_failed(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Try failed documents again, no matter how often they were tried before."""
    from rag_index.status.status import status

    settings = context.settings()
    failing = [one.index for one in status(settings) if one.failed]
    chosen = [index.name for index in settings.named(names) if names or index.name in failing]
    if not chosen:
        if options["as_json"]:
            print_json(RunReport().to_json())
        else:
            click.echo("No documents are listed as failed.")
        return 0
    return run_indexes(context, chosen, retry_failed=True, **options)
