"""`doctor`: what is wrong, and mending it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rag_index.cli import Context, command, print_json

if TYPE_CHECKING:
    from rag_index.doctor import Diagnosis
    from rag_index.settings import Settings

__all__ = ["doctor"]


@command()
@click.argument("names", nargs=-1, metavar="[NAME]…")
@click.option("--repair", "mend", is_flag=True, help="Mend what is found, then look again.")
@click.option("--wait", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait for a store that is in use.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def doctor(context: Context, names: tuple[str, ...], mend: bool, wait: float | None, as_json: bool) -> int:
    """Compare source, ledger and store; say what is wrong, and mend it with --repair.

    Ends with 0 where nothing is found or all is mended, with 3 where something is left.
    """
    from rag_index.doctor import examine, repair

    settings = context.settings(wait=wait)
    if mend:
        found = repair(settings, names, lambda indexes, rebuild: _run(context, settings, indexes, rebuild, wait))
    else:
        found = examine(settings, names)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found, mended=mend)
    return found.exit_code


def _run(context: Context, settings: Settings, indexes: list[str], rebuild: bool, wait: float | None) -> None:
    """The ordinary run. One that fails leaves findings, and says here why."""
    from rag_index.cli.runs import load_index_all
    from rag_index.orchestration.launch import launch

    home = settings.folder / ".rag-index" / "prefect"
    report = launch(
        load_index_all,
        home,
        verbose=context.verbose,
        config=str(settings.path),
        indexes=indexes,
        full=rebuild,
        retry_failed=True,
        wait=wait,
    )
    if report.state != "completed":
        click.echo(f"rag-index: the run that mends: {report.sentence()}", err=True)


def _print(found: Diagnosis, *, mended: bool) -> None:
    for finding in found.repaired:
        click.echo(f"{_name(finding.index)}mended: {finding.message}")
    for finding in found.findings:
        click.echo(f"{_name(finding.index)}{click.style(finding.kind, bold=True)}: {finding.message}")
        click.echo(f"    {finding.remedy}")
    for advice in found.advice:
        click.echo(f"{_name(advice.index)}advice: {advice.message}")
    left, done = len(found.findings), len(found.repaired)
    if mended and done:
        click.echo(f"{done} of {done + left} findings mended.")
    elif left:
        click.echo(f"{left} finding{'s' if left != 1 else ''}.")
    else:
        click.echo("Nothing found.")


def _name(index: str | None) -> str:
    return f"{index}: " if index else ""
