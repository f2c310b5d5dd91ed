"""What the commands that run flows share: their options, the launch, the printed outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, print_json
from rag_index.errors import RagIndexError, SettingsError
from rag_index.reports.outcome import IndexOutcome, RunReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import IndexSettings, Settings

__all__ = ["FULL", "load_index_all", "print_report", "run_indexes", "run_options"]


MANY = 5000
"""Documents of a first run that are worth starting workers for, before it is known what they cost."""

FULL = click.option("--full", is_flag=True, help="As rebuild: build anew beside the old index.")


def run_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that all commands that run indexes share."""
    options = [
        click.option("--workers", type=click.IntRange(min=1), help="Dask worker processes."),
        click.option("--shard-documents", type=click.IntRange(min=1), help="Documents a shard."),
        click.option("--serial", is_flag=True, help="One process, no Dask cluster."),
        click.option("--allow-deletes", is_flag=True, help="Delete however many documents the source lost."),
        click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for services."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


def run_indexes(context: Context, names: list[str] | None, *, as_json: bool, wait: float | None, **options: Any) -> int:
    """Run the flow over these indexes (all where None), print the outcome and return the exit code."""
    parallel = {key: options[key] for key in ("workers", "shard_documents", "serial")}
    settings = context.settings(wait=wait, **parallel)
    report = _refusal(settings, settings.named(names)) or _launch(context, settings, names, wait=wait, **options)
    return print_report(report, as_json=as_json)


def print_report(report: RunReport, *, as_json: bool) -> int:
    """Print the outcome and return the exit code."""
    if as_json:
        print_json(report.to_json())
    elif all(outcome.nothing_to_do for outcome in report.indexes):
        click.echo(f"Nothing changed. {report.seconds:.1f} s.")
    else:
        click.echo(f"{report.state.capitalize()}: {report.sentence()}. {report.seconds:.1f} s.")
    return report.exit_code


def _launch(context: Context, settings: Settings, names: list[str] | None, **options: Any) -> RunReport:
    from rag_index.orchestration.launch import launch

    home = settings.folder / ".rag-index" / "prefect"
    early = settings if options.get("full") or _needs_workers_early(settings, names) else None
    click.echo("Starting Prefect, then the indexes one after another …", err=True)
    report: RunReport = launch(
        load_index_all, home, verbose=context.verbose, early=early, config=str(settings.path), indexes=names, **options
    )
    return report


def load_index_all() -> Any:
    """Import and return the flow, which takes a second."""
    from flows.index_all import index_all

    return index_all


def _needs_workers_early(settings: Settings, names: list[str] | None) -> bool:
    """Whether some index has nothing yet and a source that is worth workers."""
    from rag_index.sources import open_source
    from rag_index.stores import live_aliases

    try:
        live = live_aliases(settings.store)
        for one in settings.named(names):
            if settings.alias(one.name) not in live:
                source = open_source(settings, one)
                try:
                    if source.count() >= MANY:
                        return True
                finally:
                    source.close()
    except RagIndexError:
        pass  # the flow will say it
    return False


def _refusal(settings: Settings, indexes: list[IndexSettings]) -> RunReport | None:
    """A look at the sources before anything is started: where none can be indexed, that is the report."""
    from rag_index.sources import open_source

    outcomes = []
    for one in indexes:
        try:
            source = open_source(settings, one)
            try:
                source.check()
            finally:
                source.close()
        except SettingsError as error:
            outcomes.append(IndexOutcome(one.name, state="failed", message=str(error), exit_code=error.exit_code))
        except RagIndexError:
            return None  # it may pass: the flow waits, and says so
        else:
            return None
    if len(outcomes) == 1:
        raise SettingsError(outcomes[0].message)
    for outcome in outcomes:
        click.echo(f"rag-index: {outcome.message}", err=True)
    return RunReport(outcomes)
