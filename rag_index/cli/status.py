"""The command `status`."""

from __future__ import annotations

from typing import Any

import click

from rag_index.cli import Context, command, print_json
from rag_index.cli.tables import print_table

__all__ = ["status"]


@command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def status(context: Context, as_json: bool) -> None:
    """Show each index: its collection, documents, points, failures, last run."""
    from rag_index.status import status as overview

    found = overview.status(context.settings())
    if as_json:
        print_json({"indexes": [one.to_json() for one in found]})
        return
    rows = [("index", "collection", "documents", "points", "failed", "last run")]
    for one in found:
        last = _last_run(one.last_run)
        rows.append(
            (one.index, one.collection or "-", f"{one.documents:,}", f"{one.points:,}", f"{one.failed:,}", last)
        )
    print_table(rows)


def _last_run(run: dict[str, Any] | None) -> str:
    if run is None:
        return "never"
    seconds = f", {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    said = f": {run['message']}" if run["message"] else ""
    return f"{run['state']}, {run['started'].replace('T', ' ').rstrip('Z')} UTC{seconds}{said}"
