"""The commands that run indexes (`index`, `index-all`, `rebuild`, `retry-failed`), and `watch`."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import (
    Context,
    command,
    json_option,
    log_to_terminal,
    names_argument,
    options,
    parallel_options,
    repeated,
    say,
    show,
    wait_option,
)
from rag_index.core.reports.outcome import RunReport
from rag_index.errors import SettingsError, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.core.settings import Settings
    from rag_index.etl.run import RunOptions

required_names = click.argument("names", nargs=-1, required=True, metavar="NAME…")
BEGINS = "Opening source, ledger and store …"
prefect_option = click.option(
    "--prefect", is_flag=True, help="Run as a flow of Prefect, at the API that its settings name or a temporary one."
)
run_options = options(
    parallel_options,
    click.option(
        "--allow-deletes", is_flag=True, help="Delete documents that the guard held back, whatever their number."
    ),
    click.option(
        "--allow-loss",
        is_flag=True,
        help="Publish a rebuilt collection without asking its gate, or in place of one that another ledger made.",
    ),
    prefect_option,
    wait_option,
    json_option,
)


def run_indexes(context: Context, names: list[str] | None, *, prefect: bool, as_json: bool, **asked: Any) -> int:
    """Run these indexes (None: all), print the report and return the exit code."""
    from rag_index.etl.run import RunOptions

    chosen = RunOptions(**asked)
    settings = context.settings(**chosen.in_settings())
    return print_report(launch_run(context, settings, names, chosen, prefect=prefect), as_json=as_json)


def print_report(report: RunReport, *, as_json: bool) -> int:
    """Print the report and return its exit code."""
    if all(outcome.nothing_to_do for outcome in report.indexes):
        line = f"Nothing changed. {report.seconds:.1f} s."
    else:
        said = report.sentence()
        line = f"{report.state.capitalize()}: {said}{'' if said.endswith('?') else '.'} {report.seconds:.1f} s."
    show(report.to_json(), *filter(None, [line, report.advice]), as_json=as_json)
    return report.exit_code


def launch_run(
    context: Context, settings: Settings, names: list[str] | None, chosen: RunOptions, *, prefect: bool
) -> RunReport:
    """Run these indexes plainly, or as the flow `index-all`."""
    if prefect:
        report: RunReport = launch_flow(context, settings, load_index_all, indexes=names, options=chosen)
        return report
    from rag_index.orchestration.launch import make_folder, quiet_workers, run_plainly

    if context.verbose:
        log_to_terminal(root := logging.getLogger())
        root.setLevel(logging.INFO)
    else:  # Python writes warnings to the terminal that no handler takes
        logging.getLogger().addHandler(logging.NullHandler())
        quiet_workers()
    if not settings.data.exists():
        make_folder(settings.data)
    return run_plainly(settings, settings.named(names), chosen)


def launch_flow(context: Context, settings: Settings, load: Callable[[], Any], **parameters: Any) -> Any:
    """Run the flow that `load` returns on these settings, as `launch` does, and return its result."""
    from rag_index.orchestration.launch import launch

    return launch(load, settings.data / "prefect", verbose=context.verbose, config=str(settings.path), **parameters)


def flow_loader(name: str) -> Callable[[], Any]:
    """Return a function that imports a flow, which takes a second. The function raises as `check_own_packages`."""

    def load() -> Any:
        from rag_index.core.settings.plugins import check_own_packages

        check_own_packages()
        return getattr(import_module(f"flows.{name}"), name)

    return load


load_index_all = flow_loader("index_all")


@command(example="index comments --id 4711", begins=BEGINS)
@names_argument
@repeated("--id", "ids", "Index only this document", metavar="KEY")
@run_options
def index(
    context: Context, names: tuple[str, ...], ids: tuple[str, ...], as_json: bool, wait: float | None, **others: Any
) -> int:
    """Bring indexes, or single documents, up to date."""
    if not ids:
        return run_indexes(context, list(names) or None, as_json=as_json, wait=wait, **others)
    from rag_index.etl.changed import index_documents

    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if len(names) != 1 or given:
        raise click.UsageError(
            f"--id needs exactly one index and cannot be combined with {', '.join(given) or 'several'}"
        )
    outcome = index_documents(context.settings(wait=wait), names[0], ids)
    return print_report(RunReport([outcome], outcome.seconds), as_json=as_json)


@command("index-all", example="index-all", begins=BEGINS)
@run_options
def index_all(context: Context, **asked: Any) -> int:
    """Bring all indexes up to date."""
    return run_indexes(context, None, **asked)


@command(example="rebuild comments", begins=BEGINS)
@required_names
@run_options
def rebuild(context: Context, names: tuple[str, ...], **asked: Any) -> int:
    """Build new collections beside the live ones and publish them.

    They are verified first.
    """
    return run_indexes(context, list(names), full=True, **asked)


@command("retry-failed", example="retry-failed")
@names_argument
@run_options
def retry_failed(context: Context, names: tuple[str, ...], **asked: Any) -> int:
    """Try failed documents again, however often they were tried."""
    from rag_index.care.index_status import status

    settings = context.settings()
    failing = [one.index for one in status(settings).indexes if one.failed]
    chosen = [index.name for index in settings.named(names) if names or index.name in failing]
    if not chosen:
        show(RunReport().to_json(), "No documents are listed as failed.", as_json=asked["as_json"])
        return 0
    return run_indexes(context, chosen, retry_failed=True, **asked)


@command(endless_without="once", example="watch")
@click.argument("names", nargs=-1, metavar="[NAME…]")
@click.option("--once", is_flag=True, help="Index what has changed until now, and end.")
@click.option("--setup", is_flag=True, help="Print the SQL that the source needs for `changes`, and end.")
@prefect_option
def watch(context: Context, names: tuple[str, ...], once: bool, setup: bool, prefect: bool) -> int:
    """Follow changes of the source and index them within seconds."""
    settings = context.settings()
    if setup:
        from rag_index.watch.changes.opening import setup_script

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
    if prefect:
        _say_watched(chosen)
        return 0 if launch_flow(context, settings, flow_loader("watch"), indexes=chosen, once=once) else 1
    from rag_index.care.index_status import try_to_write_metrics
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
