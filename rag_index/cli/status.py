"""The command `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, json_option, print_json
from rag_index.cli.tables import print_table
from rag_index.machine.memory import collect_seldom

if TYPE_CHECKING:
    from rag_index.status.status import IndexStatus


@command()
@json_option
def status(context: Context, as_json: bool) -> int:
    """Show each index: its collection, documents, points, failures and last run.

    If the store does not answer, the exit code is 1, and all is shown that the ledger knows.
    """
    settings = context.settings()
    with collect_seldom():
        from rag_index.errors import StoreError, StoreUnavailable
        from rag_index.status.status import ledger_status, status, unwanted

        error = ""
        others: dict[str, str] = {}
        try:
            indexes, others = status(settings), unwanted(settings)
        except (StoreError, StoreUnavailable) as raised:
            indexes, error = ledger_status(settings), str(raised)
    if as_json:
        found = {"indexes": [one.to_json() for one in indexes], "unwanted": others}
        print_json({**found, **({"error": error} if error else {})})
    else:
        _print_status(indexes, others)
    if error:
        click.echo(f"rag-index: {error} (what is shown is from the ledger alone)", err=True)
    return int(bool(error))


def _print_status(indexes: list[IndexStatus], others: dict[str, str]) -> None:
    any_held = any(one.held_back for one in indexes)
    on_server = any(one.indexed is not None for one in indexes)
    head = ("documents", "points", *["indexed"] * on_server, "failed", *["held back"] * any_held)
    rows = [("index", "collection", *head, "last run")]
    for one in indexes:
        numbers = [one.documents, one.points, *[one.indexed or 0] * on_server, one.failed]
        numbers += [one.held_back] * any_held
        rows.append((one.index, one.collection or "-", *(f"{n:,}" for n in numbers), _last_run(one.last_run)))
    print_table(rows)
    for one in indexes:
        if one.restored:
            click.echo(f"{one.index}: {one.restored}")
        if one.watch:
            click.echo(f"{one.index}: {_watch(one.watch)}")
            if one.watch["missed"]:
                click.echo(one.watch["missed"]["message"])
        if one.last_run and one.last_run["message"]:
            click.echo(f"{one.index}: {one.last_run['message']}")
    for index, sentence in others.items():
        click.echo(f"{index}: {sentence}")


def _watch(watch: dict[str, Any]) -> str:
    count = watch["changes_waiting"]
    waiting = f", {count:,} change{'s wait' if count != 1 else ' waits'}" if count else ""
    behind = f", {watch['seconds_behind']:,.0f} s behind" if watch["seconds_behind"] >= 1 else ""
    why = f": {watch['message']}" if watch["message"] else ""
    return f"watch {watch['state']}{waiting}{behind}{why}"


def _last_run(run: dict[str, Any] | None) -> str:
    if run is None:
        return "never"
    seconds = f", {run['seconds']:.0f} s" if run["seconds"] is not None else ""
    return f"{run['state']}, {run['started'].replace('T', ' ').rstrip('Z')} UTC{seconds}"
