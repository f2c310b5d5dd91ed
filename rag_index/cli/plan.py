"""The command `plan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.cli.tables import print_table

if TYPE_CHECKING:
    from rag_index.status.plan import RunPlan

ALWAYS = ("documents", "new", "changed", "payload_only", "gone", "unchanged", "empty")
SELDOM = ("held_back", "failed", "skipped")
"""Columns that are printed if a plan has such documents."""


@command(quiet=True)
@click.argument("names", nargs=-1, metavar="[NAME]…")
@json_option
def plan(context: Context, names: tuple[str, ...], as_json: bool) -> int:
    """Show what a run would do, without changing anything."""
    from rag_index.status.plan import plan_runs

    settings = context.settings()
    plans = plan_runs(settings, settings.named(names))
    if as_json:
        print_json({"indexes": [one.to_json() for one in plans]})
    else:
        _print_plans(plans)
    codes = {one.exit_code for one in plans}
    return codes.pop() if len(codes) == 1 else 1


def _print_plans(plans: list[RunPlan]) -> None:
    columns = [*ALWAYS, *(name for name in SELDOM if any(getattr(one, name) for one in plans))]
    rows = [("index", *(name.replace("_", " ") for name in columns))]
    rows += [(one.index, *("-" if one.error else f"{getattr(one, name):,}" for name in columns)) for one in plans]
    if not all(one.error for one in plans):
        print_table(rows)
    for one in plans:
        if one.error:
            click.echo(f"rag-index: {one.index}: a run would fail: {one.error}", err=True)
            continue
        if one.cost:
            click.echo(f"{one.index}: {one.cost.sentence()}")
        if one.message:
            click.echo(f"{one.index}: {one.message}")
