"""The command `index`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command
from rag_index.cli.runs import full_option, print_report, run_indexes, run_options
from rag_index.reports.outcome import RunReport


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--id", "ids", multiple=True, metavar="KEY", help="Index only this document (may be repeated).")
@full_option
@run_options
def index(context: Context, names: tuple[str, ...], ids: tuple[str, ...], **options: Any) -> int:
    """Bring the named indexes up to date, or with --id single documents of one index."""
    if ids:
        return _run_single(context, names, ids, **options)
    return run_indexes(context, list(names), **options)


def _run_single(
    context: Context, names: tuple[str, ...], ids: tuple[str, ...], *, as_json: bool, wait: float | None, **others: Any
) -> int:
    """Index the documents without a flow, which takes seconds to start."""
    from rag_index.indexing.single import index_documents

    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if len(names) != 1 or given:
        raise click.UsageError(
            f"--id needs exactly one index and cannot be combined with {', '.join(given) or 'several'}"
        )
    outcome = index_documents(context.settings(wait=wait), names[0], ids)
    return print_report(RunReport([outcome], outcome.seconds), as_json=as_json)
