"""The command `plan`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.cli.tables import print_table

__all__ = ["plan"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@json_option
def plan(context: Context, names: tuple[str, ...], as_json: bool) -> None:
    """Show what a run would do, without changing anything."""
    from rag_index.status.plan import plan_run

    settings = context.settings()
    plans = [plan_run(settings, index) for index in settings.named(names)]
    if as_json:
        print_json({"indexes": [one.to_json() for one in plans]})
        return
    columns = ("index", "documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
    rows = [tuple(name.replace("_", " ") for name in columns)]
    for one in plans:
        values: dict[str, Any] = one.to_json()
        rows.append(tuple(v if isinstance(v, str) else f"{v:,}" for v in (values[name] for name in columns)))
    print_table(rows)
