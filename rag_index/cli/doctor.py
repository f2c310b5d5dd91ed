"""The command `doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from rag_index.cli import Context, IndexName, command, json_option, print_json, wait_option
from rag_index.cli.runs import launch_flow, load_index_all

if TYPE_CHECKING:
    from rag_index.doctor import Diagnosis
    from rag_index.reports.outcome import RunReport
    from rag_index.settings import Settings


@command(quiet=True)
@click.argument("names", type=IndexName(), nargs=-1, metavar="[NAME]…")
@click.option("--repair", "repairing", is_flag=True, help="Repair what is found, then check again.")
@wait_option
@json_option
def doctor(context: Context, names: tuple[str, ...], repairing: bool, wait: float | None, as_json: bool) -> int:
    """Compare source, ledger and store, and say what is wrong. Repair it with --repair.

    The exit code is 0 if nothing is found or everything is repaired, and 3 if something is left.
    """
    from rag_index.doctor import examine, repair

    settings = context.settings(wait=wait)
    if repairing:
        diagnosis = repair(settings, names, lambda indexes, rebuild: _index(context, settings, indexes, rebuild, wait))
    else:
        diagnosis = examine(settings, names)
    if as_json:
        print_json(diagnosis.to_json())
    else:
        _print_diagnosis(diagnosis, repairing=repairing)
    return diagnosis.exit_code


def _index(context: Context, settings: Settings, indexes: list[str], rebuild: bool, wait: float | None) -> None:
    """Run the flow `index_all`. If it fails, print why; what it should have repaired stays a finding."""
    report: RunReport = launch_flow(
        context, settings, load_index_all, indexes=indexes, full=rebuild, retry_failed=True, wait=wait
    )
    if report.state != "completed":
        click.echo(f"rag-index: the run that repairs: {report.sentence()}", err=True)


def _print_diagnosis(diagnosis: Diagnosis, *, repairing: bool) -> None:
    for finding in diagnosis.repaired:
        click.echo(f"{_prefix(finding.index)}repaired: {finding.message}")
    for finding in diagnosis.findings:
        click.echo(f"{_prefix(finding.index)}{click.style(finding.kind, bold=True)}: {finding.message}")
        click.echo(f"    {finding.remedy}")
    for advice in diagnosis.advice:
        click.echo(f"{_prefix(advice.index)}advice: {advice.message}")
    if diagnosis.kept is not None:
        click.echo(diagnosis.kept.sentence())
    left, repaired = len(diagnosis.findings), len(diagnosis.repaired)
    if repairing and repaired:
        click.echo(f"{repaired} of {repaired + left} findings repaired.")
    elif left:
        click.echo(f"{left} finding{'s' if left != 1 else ''}.")
    else:
        click.echo("Nothing found.")


def _prefix(index: str | None) -> str:
    return f"{index}: " if index else ""
