"""The command `rebuild`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command
from rag_index.cli.runs import run_indexes, run_options


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@run_options
def rebuild(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Build new collections beside the old ones, verify them and make them live."""
    return run_indexes(context, list(names), full=True, **options)
