"""The command `rollback`."""

from __future__ import annotations

import time
import uuid

import click

from rag_index.cli import Context, command, json_option, print_json


@command(quiet=True)
@click.argument("name")
@json_option
def rollback(context: Context, name: str, as_json: bool) -> None:
    """Make the index's previous collection live again."""
    from rag_index.indexing.publish import roll_back
    from rag_index.ledger import Ledger
    from rag_index.ledger.lease import IndexLease
    from rag_index.stores import open_store

    settings = context.settings()
    alias, access = settings.alias(name), settings.index(name).access is not None
    started = time.perf_counter()
    ledger = Ledger(settings.ledger_url)
    try:
        with IndexLease(ledger, alias, str(uuid.uuid4())):
            store = open_store(settings.store, wait=settings.run.wait)
            try:
                before, live, returned = roll_back(ledger, store, alias, name, access=access)
            finally:
                store.close()
    finally:
        ledger.close()
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"index": name, "before": before, "live": live, "returned": returned, "seconds": round(seconds, 3)})
        return
    click.echo(f"{name}: {live} is live, {before} is kept. {seconds:.2f} s.")
    came = f", with {returned:,} that {before} no longer had" if returned else ""
    click.echo(
        f"{name}: its documents are as the last run left them{came}; `rag-index index {name}` brings it up to date."
    )
