"""The command `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from rag_index.cli import Context, command, json_option, names_argument, say, show, wait_option
from rag_index.cli.runs import launch_run
from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.doctor import Diagnosis


@command(quiet=True, example="doctor --repair")
@names_argument
@click.option("--repair", "repairing", is_flag=True, help="Repair what is found, then check again.")
@wait_option
@json_option
def doctor(context: Context, names: tuple[str, ...], repairing: bool, wait: float | None, as_json: bool) -> int:
    """Compare source, ledger and store; --repair repairs.

    The exit code is 0 if nothing is found or everything is repaired, and 3 if something is left.
    """
    from rag_index.doctor import examine, repair

    settings = context.settings(wait=wait)

    def index(indexes: list[str], rebuild: bool) -> None:
        """Run the indexes. If that fails, print why; what it should have repaired stays a finding."""
        from rag_index.indexing.run import RunOptions

        report = launch_run(context, settings, indexes, RunOptions(full=rebuild, retry_failed=True, wait=wait))
        if report.state != "completed":
            say(f"rag-index: the run that repairs: {report.sentence()}", err=True)

    diagnosis = repair(settings, names, index) if repairing else examine(settings, names)
    show(asdict(diagnosis), *_lines(diagnosis, repairing=repairing), as_json=as_json)
    return diagnosis.exit_code


def _lines(diagnosis: Diagnosis, *, repairing: bool) -> Iterator[str]:
    def prefix(index: str | None) -> str:
        return f"{index}: " if index else ""

    for finding in diagnosis.repaired:
        yield f"{prefix(finding.index)}repaired: {finding.message}"
    for finding in diagnosis.findings:
        yield f"{prefix(finding.index)}{finding.kind}: {finding.message}"
        yield f"    {finding.remedy}"
    for advice in diagnosis.advice:
        yield f"{prefix(advice.index)}advice: {advice.message}"
    left, repaired = len(diagnosis.findings), len(diagnosis.repaired)
    if repairing and repaired:
        yield f"{repaired} of {repaired + left} findings repaired."
    else:
        yield f"{count_of(left, 'finding')}." if left else "Nothing found."
