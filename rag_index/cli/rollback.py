"""The command `rollback`."""

from __future__ import annotations

import time
import uuid

import click

from rag_index.cli import Context, command, json_option, print_json

__all__ = ["rollback"]


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
    alias = settings.alias(settings.index(name).name)
    started = time.perf_counter()
    ledger = Ledger(settings.ledger_url)
    try:
        with IndexLease(ledger, alias, str(uuid.uuid4())):
            store = open_store(settings.store, wait=settings.run.wait)
            try:
                before, live = roll_back(ledger, store, alias)
            finally:
                store.close()
    finally:
        ledger.close()
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"index": name, "before": before, "live": live, "seconds": round(seconds, 3)})
    else:
        click.echo(f"{name}: {live} is live, {before} is kept. {seconds:.2f} s.")
