"""`index` and `index-all`: the flow, run from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rag_index.cli import Context, command, print_json
from rag_index.errors import RagIndexError, SettingsError
from rag_index.report import IndexOutcome, RunReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from rag_index.settings import IndexSettings, Settings

__all__ = ["index", "index_all", "rebuild", "retry_failed"]


MANY = 5000
"""Documents of a first run that are worth starting workers for, before it is known what they cost."""
FULL = click.option("--full", is_flag=True, help="As rebuild: build anew beside the old index.")


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = [
        click.option("--workers", type=click.IntRange(min=1), help="Dask worker processes."),
        click.option("--chunk-size", type=click.IntRange(min=1), help="Documents a shard."),
        click.option("--serial", is_flag=True, help="One process, no Dask cluster."),
        click.option("--allow-deletes", is_flag=True, help="Delete however many documents the source lost."),
        click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for services."),
        click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output."),
    ]
    for option in reversed(options):
        function = option(function)
    return function


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@click.option("--id", "ids", multiple=True, metavar="KEY", help="Only this document, at once (may be repeated).")
@FULL
@_options
def index(context: Context, names: tuple[str, ...], ids: tuple[str, ...], **options: Any) -> int:
    """Bring the named indexes up to date; with --id single documents of one, in a moment."""
    if ids:
        return _run_single(context, names, ids, **options)
    return _run(context, list(names), **options)


@command("index-all")
@FULL
@_options
def index_all(context: Context, **options: Any) -> int:
    """Bring all indexes up to date."""
    return _run(context, None, **options)


@command()
@click.argument("names", nargs=-1, required=True, metavar="NAME…")
@_options
def rebuild(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Build indexes anew beside the old ones; verify, then show them."""
    return _run(context, list(names), full=True, **options)


@command("retry-failed")
@click.argument("names", nargs=-1, metavar="[NAME]…")
@_options
def retry_failed(context: Context, names: tuple[str, ...], **options: Any) -> int:
    """Try failed documents again, however often they were tried."""
    from rag_index import overview

    settings = context.settings()
    failing = [one.index for one in overview.status(settings) if one.failed]
    chosen = [index.name for index in settings.named(names) if names or index.name in failing]
    if not chosen:
        if options["as_json"]:
            print_json(RunReport().to_json())
        else:
            click.echo("No documents are listed as failed.")
        return 0
    return _run(context, chosen, retry_failed=True, **options)


def _run(context: Context, names: list[str] | None, *, as_json: bool, wait: float | None, **options: Any) -> int:
    parallel = {key: options[key] for key in ("workers", "chunk_size", "serial")}
    settings = context.settings(wait=wait, **parallel)
    report = _refused(settings, settings.named(names)) or _launched(context, settings, names, wait=wait, **options)
    return _printed(report, as_json=as_json)


def _run_single(
    context: Context, names: tuple[str, ...], ids: tuple[str, ...], *, as_json: bool, wait: float | None, **others: Any
) -> int:
    """Without the flow: it alone would take seconds to start."""
    from rag_index.single import index_documents

    given = [f"--{name.replace('_', '-')}" for name, value in others.items() if value]
    if len(names) != 1 or given:
        raise click.UsageError(f"--id goes with the name of one index, and not with {', '.join(given) or 'several'}")
    outcome = index_documents(context.settings(wait=wait), names[0], ids)
    return _printed(RunReport([outcome], outcome.seconds), as_json=as_json)


def _printed(report: RunReport, *, as_json: bool) -> int:
    if as_json:
        print_json(report.to_json())
    elif all(outcome.nothing_to_do for outcome in report.indexes):
        click.echo(f"Nothing changed. {report.seconds:.1f} s.")
    else:
        click.echo(f"{report.state.capitalize()}: {report.sentence()}. {report.seconds:.1f} s.")
    return report.exit_code


def _launched(context: Context, settings: Settings, names: list[str] | None, **options: Any) -> RunReport:
    from flows.launch import launch_index_all

    home = settings.folder / ".rag-index" / "prefect"
    early = settings if options.get("full") or _much_to_do(settings, names) else None
    click.echo("Starting Prefect, then the indexes one after another …", err=True)
    return launch_index_all(
        home, verbose=context.verbose, early=early, config=str(settings.path), indexes=names, **options
    )


def _much_to_do(settings: Settings, names: list[str] | None) -> bool:
    """Whether some index has nothing yet and a source that is worth workers."""
    from rag_index.sources import open_source
    from rag_index.stores import shown_aliases

    try:
        shown = shown_aliases(settings.store)
        for one in settings.named(names):
            if settings.alias(one.name) not in shown:
                source = open_source(settings, one)
                try:
                    if source.count() >= MANY:
                        return True
                finally:
                    source.close()
    except RagIndexError:
        pass  # the flow will say it
    return False


def _refused(settings: Settings, indexes: list[IndexSettings]) -> RunReport | None:
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
