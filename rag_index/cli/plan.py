"""The command `plan`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command, print_json
from rag_index.cli.tables import print_table

__all__ = ["plan"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def plan(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show what a run would do, without doing it."""
    from rag_index.status import plan as overview

    settings = context.settings()
    previews = [overview.preview(settings, index) for index in settings.named(names)]
    if as_json:
        print_json({"indexes": [one.to_json() for one in previews]})
        return
    columns = ("index", "documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
    rows = [tuple(name.replace("_", " ") for name in columns)]
    for one in previews:
        values: dict[str, Any] = one.to_json()
        rows.append(tuple(v if isinstance(v, str) else f"{v:,}" for v in (values[name] for name in columns)))
    print_table(rows)
