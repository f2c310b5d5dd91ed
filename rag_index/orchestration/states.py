"""How a flow ends: the state in Prefect, in words, and the outcome in the ledger and on the terminal."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from prefect import runtime
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from rag_index.doctor.findings import Diagnosis
from rag_index.errors import RagIndexError
from rag_index.orchestration.artifacts import ArtifactDisplay, diagnosis_table, failed_table, run_report
from rag_index.reports.outcome import IndexOutcome, RunReport
from rag_index.reports.progress import open_display
from rag_index.status.metrics_file import write_metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prefect.client.schemas.objects import State

    from rag_index.indexing.run import IndexRun

__all__ = ["diagnosis_state", "failed_to_start", "flow_run_id", "outcome_of", "report_state", "run_name", "shown"]


def flow_run_id() -> str:
    """The id of the flow run this is called in."""
    return str(runtime.flow_run.id or uuid.uuid4())


def run_name() -> str:
    """What a flow run over several indexes is called: "index all", or with the names that were given."""
    flow = str(runtime.flow_run.flow_name).removesuffix("-all")
    names = (runtime.flow_run.parameters or {}).get("indexes")
    return f"{flow} {', '.join(names) if names else 'all'}"


@contextmanager
def shown(run: IndexRun) -> Iterator[None]:
    """Show a run's progress and its end, on the terminal and as artifacts; an error of ours ends in its outcome."""
    run.progress.displays = [open_display(), ArtifactDisplay(run.settings.project, run.index.name)]
    try:
        yield
    except RagIndexError as error:
        get_run_logger().error("%s: %s", type(error).__name__, error, exc_info=error.__cause__)
        _ended(run, run.fail(error))
    except BaseException as error:
        run.fail(error)
        raise
    else:
        _ended(run, run.finish())


def _ended(run: IndexRun, outcome: IndexOutcome) -> None:
    run.progress.finish(outcome.sentence())
    failed_table(run)
    run_report(run, outcome)
    try:
        write_metrics(run.settings)
    except OSError as error:
        get_run_logger().warning("[run] metrics_file %s cannot be written: %s", error.filename, error.strerror)


def failed_to_start(index: str, error: RagIndexError) -> IndexOutcome:
    """The outcome of an index whose run an error ended."""
    return IndexOutcome(index, state="failed", message=str(error), exit_code=error.exit_code)


def outcome_of(state: State[Any], index: str) -> IndexOutcome:
    """The outcome that a subflow's state carries; where it crashed, what its state says."""
    data = getattr(state.data, "result", state.data)
    if isinstance(data, RunReport) and data.indexes:
        return data.indexes[0]
    return IndexOutcome(index, state="failed", message=(state.message or state.name or "").strip().splitlines()[0])


def report_state(report: RunReport) -> State[RunReport]:
    """The final state of a flow: a partial run is of type Failed, so that it is seen in the morning."""
    message = report.sentence()
    if report.state == "completed":
        return Completed(message=message, data=report)
    name = "PartiallyIndexed" if report.state == "partial" else "Failed"
    return Failed(name=name, message=message, data=_unless_deployed(report))


def _unless_deployed(report: Any) -> Any:
    """What a caller of the flow gets. A worker takes such data for an exception, and logs that it is none."""
    deployed = runtime.deployment.id and not runtime.flow_run.parent_flow_run_id
    return None if deployed else report


def diagnosis_state(project: str, found: list[Diagnosis]) -> State[Diagnosis]:
    """The final state of a check-up: findings make it Failed, so that they are seen."""
    whole = Diagnosis([f for one in found for f in one.findings], [a for one in found for a in one.advice])
    kinds = sorted({f"{finding.index or 'all'}: {finding.kind}" for finding in whole.findings})
    said = f"{len(kinds)} found: {', '.join(kinds)}; `rag-index doctor --repair` mends" if kinds else "All agrees"
    diagnosis_table(whole, said, project=project)
    if kinds:
        return Failed(name="Findings", message=said, data=_unless_deployed(whole))
    return Completed(message=said, data=whole)
