"""The command `watch`."""

from __future__ import annotations

import logging
import os
import sys

import click

from rag_index.cli import Context, IndexName, command, log_to_terminal, say
from rag_index.errors import SettingsError, printable


@command(endless_without="once", example="watch")
@click.argument("names", type=IndexName(), nargs=-1, metavar="[NAME…]")
@click.option("--once", is_flag=True, help="Index what has changed until now, and end.")
@click.option("--setup", is_flag=True, help="Print the SQL that the source needs for `changes`, and end.")
def watch(context: Context, names: tuple[str, ...], once: bool, setup: bool) -> int:
    """Follow changes of the source and index them within seconds."""
    settings = context.settings()
    if setup:
        from rag_index.changes.setup import setup_script

        if names:
            raise SettingsError("--setup is for all indexes, which share a slot or a queue; leave out the names")
        script = setup_script(settings)
        click.echo(printable(script) if sys.stdout.isatty() else script, nl=False)
        return 0
    chosen = [index.name for index in settings.named(names)]
    # What the watch says is printed, and warnings of ours. Prefect's own log is seen in Prefect.
    ours = logging.getLogger("rag_index")
    log_to_terminal(ours)
    ours.propagate = False
    logging.getLogger("rag_index.watch").setLevel(logging.INFO)
    logging.getLogger().addHandler(logging.NullHandler())  # without one, Python prints warnings of others
    if os.environ.get("PREFECT_API_URL"):
        from rag_index.cli.runs import flow_loader, launch_flow

        _say_watched(chosen)
        return 0 if launch_flow(context, settings, flow_loader("watch"), indexes=chosen, once=once) else 1
    from rag_index.status.metrics_file import try_to_write_metrics
    from rag_index.watch import PlainRunner, follow
    from rag_index.watch.loop import Stop, stopped_by_signals

    stop = Stop()
    with stopped_by_signals(stop):
        caught_up = follow(
            context.settings, names or None, PlainRunner, stop,
            once=once, began=lambda watch: _say_watched(watch.names), changed=try_to_write_metrics,
        )  # fmt: skip
    return 0 if caught_up else 1


def _say_watched(names: list[str]) -> None:
    say(f"Watching {', '.join(names)}; Ctrl-C ends it after the current batch.", err=True)
