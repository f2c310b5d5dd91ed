"""How a flow ends: its state in Prefect, its outcome in the ledger, and what the terminal says."""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Any

import httpx
from prefect import runtime
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, FailedRun, UnfinishedRun
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Completed, Failed

from rag_index.doctor.findings import Diagnosis
from rag_index.orchestration.api_server import is_deployed, wait_for_api
from rag_index.orchestration.artifacts import (
    ArtifactDisplay,
    benchmark_table,
    current_whole_run,
    diagnosis_table,
    failed_rows,
    failed_table,
    gate_table,
    run_report,
    tag_run,
)
from rag_index.reports.displays import open_display
from rag_index.reports.outcome import IndexOutcome, RunReport
from rag_index.status.metrics_file import try_to_write_metrics

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefect.client.schemas.objects import State

    from rag_index.errors import IndexLocked
    from rag_index.indexing.run import IndexRun
    from rag_index.orchestration.artifacts import Row
    from rag_index.tuning.benchmark import BenchmarkReport

LOGGER = "prefect.flow_runs"
SUBFLOW_TRIES = 3


class _RaisedState(logging.Filter):
    """A filter for the stack that Prefect's engine logs as it raises a final state which a flow has returned."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return False for a record that only repeats the final state."""
        return not (record.exc_info and isinstance(record.exc_info[1], FailedRun | CancelledRun | UnfinishedRun))


def end_with_state() -> None:
    """Let the log of this process end with the sentence of the run's state: call it as the flow returns that state.

    For a state other than Completed the engine would go on to log an "unexpected exception" with a stack of 45 lines,
    all of it Prefect's own. There is nobody to catch that exception in a process that a worker has started.
    """
    logger = logging.getLogger(LOGGER)
    if not any(isinstance(one, _RaisedState) for one in logger.filters):
        logger.addFilter(_RaisedState())


def flow_run_id() -> str:
    """Return the id of the flow run that this is called in."""
    return str(runtime.flow_run.id or uuid.uuid4())


def run_name() -> str:
    """Return the name of a flow run over several indexes: "index all", or with the names that were given."""
    flow = str(runtime.flow_run.flow_name).removesuffix("-all")
    names = (runtime.flow_run.parameters or {}).get("indexes")
    return f"{flow} {', '.join(names) if names else 'all'}"


class RunEnd:
    """A run that is shown and reported in Prefect: its progress at once, its end when it has closed all it held open.

    So no index waits for Prefect's server.
    """

    def __init__(self, run: IndexRun) -> None:
        self._run = run
        self._failed: list[Row] = []
        run.logger = get_run_logger()
        run.progress.displays = [open_display(), ArtifactDisplay(run.settings.project, run.index.name)]
        if (whole := current_whole_run()) is not None:
            run.progress.displays.append(whole)

    def note(self) -> None:
        """Take note of what the open ledger says of failed documents, and write the metrics file."""
        if (scan := self._run.scan) is not None:
            self._failed = failed_rows(self._run.ledger, scan.collection.id, self._run.index.name)
        try_to_write_metrics(self._run.settings)

    def state(self) -> State[RunReport]:
        """Report the end, on the terminal and as artifacts, and return the final state of the flow."""
        run, outcome = self._run, self._run.outcome
        wait_for_api()
        run.progress.finish(outcome.sentence())
        names = {"project": run.settings.project, "index": run.index.name}
        if run.scan is not None:
            failed_table(self._failed, **names)
        if (whole := current_whole_run()) is not None:
            whole.add_failed(run.index.name, self._failed)
        run_report(run)
        if outcome.gate is not None:
            gate_table(outcome.gate, **names)
        return report_state(RunReport([outcome], outcome.seconds))


def run_subflow(flow: Callable[..., State[Any]], *arguments: Any) -> State[Any]:
    """Run a flow in this one, and return its final state.

    If Prefect's server goes away just as it begins or ends, a deployed run does it again when the server is back: what
    is committed is not done again.
    """
    tries_left = SUBFLOW_TRIES if is_deployed() else 1
    while True:
        wait_for_api()
        try:
            return flow(*arguments, return_state=True)
        except httpx.TransportError as error:
            tries_left -= 1
            if not tries_left:
                raise
            get_run_logger().warning("Prefect's server went away (%s); the index is run again", error)


def outcome_of(state: State[Any], index: str) -> IndexOutcome:
    """Return the outcome that a subflow's state carries; if it crashed, what its state says."""
    data = getattr(state.data, "result", state.data)
    if isinstance(data, RunReport) and data.indexes:
        return data.indexes[0]
    return IndexOutcome(index, state="failed", message=(state.message or state.name or "").strip().splitlines()[0])


def report_state(report: RunReport) -> State[RunReport]:
    """Return the final state of a flow. A partial run is Failed, so that it is seen in the morning."""
    message = report.sentence()
    if report.state == "completed":
        return Completed(message=message, data=report)
    if report.state == "partial":
        return _failed(f"partially indexed: {message}", report, tag="partial")
    return _failed(message, report)


def superfluous_state(error: IndexLocked) -> State[Any]:
    """Return the final state of a run that found another at its work: a night that was missed, or a run by hand."""
    if is_deployed():
        end_with_state()
    return Cancelled(message=f"another run of all indexes is under way ({error})")


def _failed(message: str, report: Any, *, tag: str | None = None) -> State[Any]:
    """Return a failed state. A tag on the run says what is special about the failure, also in lists of runs.

    The state keeps Prefect's own name: the page of a deployment lists no run whose state has another one.
    """
    if tag:
        tag_run(tag)
    context = FlowRunContext.get()
    if not is_deployed() or (context and context.flow_run and context.flow_run.parent_task_run_id):
        return Failed(message=message, data=report)
    end_with_state()
    return Failed(message=message)  # the engine of a deployment would take data for an exception


def diagnosis_state(project: str, found: list[Diagnosis]) -> State[Diagnosis]:
    """Return the final state of a check-up. Findings make it Failed, so that they are seen."""
    whole = Diagnosis([f for one in found for f in one.findings], [a for one in found for a in one.advice])
    whole.kept = next((one.kept for one in found if one.kept), None)  # it is the project's, and the same in all
    kinds = sorted({f"{finding.index or 'all'}: {finding.kind}" for finding in whole.findings})
    said = (
        f"{len(kinds)} found: {', '.join(kinds)}; `rag-index doctor --repair` corrects them"
        if kinds
        else "Source, ledger and store agree"
    )
    wait_for_api()
    diagnosis_table(whole, said, project=project)
    if kinds:
        return _failed(said, whole, tag="findings")
    return Completed(message=said, data=whole)


def benchmark_state(report: BenchmarkReport, *, project: str) -> State[BenchmarkReport]:
    """Return the final state of a benchmark. Ways that do not make the same points make it Failed."""
    wait_for_api()
    benchmark_table(report, project=project)
    if not report.in_parity:
        return _failed(report.sentence(), report, tag="disagrees")
    return Completed(message=report.sentence(), data=report)
