"""The commands that run indexes (`index`, `index-all`, `rebuild`, `retry-failed`), and the launch of flows."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, IndexName, command, json_option, print_json
from rag_index.errors import RagIndexError, SettingsError
from rag_index.reports.outcome import RunReport, failed_to_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import IndexSettings, Settings

EARLY_WORKER_DOCUMENTS = 5000
"""A first run of at least this many documents starts its workers early, before it is known what embedding costs."""

full_option = click.option("--full", is_flag=True, help="Build new collections, like the command rebuild.")


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all commands that run indexes have."""
    options = [
        click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Number of Dask worker processes."),
        click.option("--shard-documents", type=click.IntRange(min=1), metavar="N", help="Documents per shard."),
        click.option("--serial", is_flag=True, help="Use one process and no Dask cluster."),
        click.option(
            "--allow-deletes",
            is_flag=True,
            help="Delete what was held back, or else what the source lost, however much.",
        ),
        click.option(
            "--allow-loss",
            is_flag=True,
            help="Publish a rebuilt collection without asking its gate, or in place of one that another ledger made.",
        ),
        click.option(
            "--wait",
            type=click.FloatRange(min=0),
            metavar="SECONDS",
            help="How long to wait for services that are down, or for a store that is in use.",
        ),
        json_option,
    ]
    for option in reversed(options):
        function = option(function)
    return function


def run_indexes(context: Context, names: list[str] | None, *, as_json: bool, wait: float | None, **options: Any) -> int:
    """Run the flow over these indexes (None: all), print the report and return the exit code."""
    parallel = {key: options[key] for key in ("workers", "shard_documents", "serial")}
    settings = context.settings(wait=wait, **parallel)
    asks_gates = bool(options.get("full")) and not options["allow_loss"]
    mistakes = _settings_errors(settings, settings.named(names), gates=asks_gates)
    report = mistakes or _launch(context, settings, names, wait=wait, **options)
    return print_report(report, as_json=as_json)


def print_report(report: RunReport, *, as_json: bool) -> int:
    """Print the report and return its exit code."""
    if as_json:
        print_json(report.to_json())
    elif all(outcome.nothing_to_do for outcome in report.indexes):
        click.echo(f"Nothing changed. {report.seconds:.1f} s.")
    else:
        click.echo(f"{report.state.capitalize()}: {report.sentence()}. {report.seconds:.1f} s.")
        if report.advice:
            click.echo(report.advice)
    return report.exit_code


def _launch(context: Context, settings: Settings, names: list[str] | None, **options: Any) -> RunReport:
    """Run the flow where Prefect's settings name an API, or there is a cluster already; else plainly, if that will do.

    Whoever has an API wants to see the runs there.
    """
    from rag_index.orchestration.launch import names_api

    home, parallel = settings.data / "prefect", settings.parallel
    if names_api(home) or (parallel.address and not parallel.serial):
        early = settings if options.get("full") or _needs_workers_early(settings, names) else None
        report: RunReport = launch_flow(context, settings, load_index_all, early=early, indexes=names, **options)
        return report
    report = _run_plainly(context, settings, names, **options)
    _prune_history(settings)  # a flow that continued it has added to it
    return report


def _run_plainly(context: Context, settings: Settings, names: list[str] | None, **options: Any) -> RunReport:
    """Run the indexes in this process, until workers are worth their start."""
    from rag_index.indexing.run import RunOptions
    from rag_index.orchestration.launch import FlowStart, make_folder
    from rag_index.orchestration.plain_run import run_plainly

    home = settings.data / "prefect"
    _log(verbose=context.verbose)
    if not settings.data.exists():
        make_folder(settings.data)
    if home.exists():
        make_folder(home)  # an earlier version may have left it open to other users
    start = FlowStart(load_index_all, home, verbose=context.verbose, early=settings)
    asked = RunOptions(**{field.name: options[field.name] for field in fields(RunOptions) if field.name in options})
    return run_plainly(start, settings, settings.named(names), asked, config=str(settings.path), **options)


def _log(*, verbose: bool) -> None:
    """Print the log, or keep it off the terminal: Python writes warnings there that no handler takes."""
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    else:
        logging.getLogger().addHandler(logging.NullHandler())


def launch_flow(
    context: Context, settings: Settings, load: Callable[[], Any], *, early: Settings | None = None, **parameters: Any
) -> Any:
    """Run the flow that `load` returns on these settings, as `launch` does, and return its result."""
    from rag_index.orchestration.launch import launch

    home = settings.data / "prefect"
    result = launch(load, home, verbose=context.verbose, early=early, config=str(settings.path), **parameters)
    _prune_history(settings)
    return result


def _prune_history(settings: Settings) -> None:
    """Delete old runs from the database of the server that commands start for themselves. It is not running now."""
    from rag_index.orchestration.api_server import prune_history

    prune_history(settings.data / "prefect", settings.run.keep_days)


def flow_loader(name: str) -> Callable[[], Any]:
    """Return a function that imports a flow, which takes a second. The function raises as `check_own_packages`."""

    def load() -> Any:
        from rag_index.settings.plugins import check_own_packages

        check_own_packages()
        return getattr(import_module(f"flows.{name}"), name)

    return load


load_index_all = flow_loader("index_all")


def _needs_workers_early(settings: Settings, names: list[str] | None) -> bool:
    """Return whether an index has no collection yet and a source with enough documents to need workers."""
    from rag_index.sources import open_source
    from rag_index.stores import live_aliases

    try:
        live = live_aliases(settings.store)
        for one in settings.named(names):
            if settings.alias(one.name) not in live:
                with closing(open_source(settings, one)) as source:
                    if source.count() >= EARLY_WORKER_DOCUMENTS:
                        return True
    except RagIndexError:
        pass  # the flow reports it
    return False


def _settings_errors(settings: Settings, indexes: list[IndexSettings], *, gates: bool) -> RunReport | None:
    """Check the sources, and the gates if the run asks them, before anything starts.

    Return a failed report if the settings are wrong for every index, else None. Raises SettingsError if there is only
    one index.
    """
    from rag_index.evaluation.gate import check_gate
    from rag_index.sources import open_source

    outcomes = []
    for one in indexes:
        try:
            if gates:
                check_gate(settings, one)
            with closing(open_source(settings, one)) as source:
                source.check()
        except SettingsError as error:
            outcomes.append(failed_to_start(one.name, error))
        except RagIndexError:
            return None  # this may pass: the flow waits for it, and reports it
        else:
            return None
    if len(outcomes) == 1:
        raise SettingsError(outcomes[0].message)
    for outcome in outcomes:
        click.echo(f"rag-index: {outcome.message}", err=True)
    return RunReport(outcomes)


@command()
@click.argument("names", type=IndexName(), nargs=-1, required=True, metavar="NAME…")
@click.option("--id", "ids", multiple=True, metavar="KEY", help="Index only this document (may be repeated).")
@full_option
@run_options
def index(context: Context, names: tuple[str, ...], ids: tuple[str, ...], **options: Any) -> int:
    """Bring the named indexes up to date, or with --id single documents of one index."""
    if ids:
        return _run_single(context, names, ids, **options)
    return run_indexes(context, list(names), **options)


def _run_single(
    context: Context, names: tuple[str, ...], ids: tuple[str, ...], *, as_json: bool, wait: float | None, **others: Any
) -> int:
    """Index the documents without a flow, which takes seconds to start."""
    from rag_index.indexing.changed import index_documents

    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if len(names) != 1 or given:
        raise click.UsageError(
            f"--id needs exactly one index and cannot be combined with {', '.join(given) or 'several'}"
        )
    outcome = index_documents(context.settings(wait=wait), names[0], ids)
    return print_report(RunReport([outcome], outcome.seconds), as_json=as_json)


@command("index-all")
@full_option
@run_options
def index_all(context: Context, **options: Any) -> int:
    """Bring all indexes up to date."""
    return run_indexes(context, None, **options)


@command()
@click.argument("names", type=IndexName(), nargs=-1, required=True, metavar="NAME…")
@run_options
def rebuild(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Build new collections beside the old ones, verify them and make them live."""
    return run_indexes(context, list(names), full=True, **options)


@command("retry-failed")
@click.argument("names", type=IndexName(), nargs=-1, metavar="[NAME]…")
@run_options
def retry_failed(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Try failed documents again, no matter how often they were tried before."""
    from rag_index.status.status import status

    settings = context.settings()
    failing = [one.index for one in status(settings).indexes if one.failed]
    chosen = [index.name for index in settings.named(names) if names or index.name in failing]
    if not chosen:
        if options["as_json"]:
            print_json(RunReport().to_json())
        else:
            click.echo("No documents are listed as failed.")
        return 0
    return run_indexes(context, chosen, retry_failed=True, **options)
