"""What a person sees of a run in Prefect: its artifacts, and the state in which it ends.

An index has artifacts under keys of its own, so that its history is together:

<project>-<index>-progress   done of total, failures, time left and rate; updated while the run
lasts <project>-<index>-failed     a table of failed documents: why, how often they were tried, the
command to retry <project>-<index>-report     the run's numbers, and what to do about them
<project>-<index>-gate       a table of the golden queries that a rebuilt collection answers worse
<project>-all-progress       how much of all indexes is done, and of the current one; at the end the
run's message <project>-all-outcome        a table with one row for each index <project>-all-failed
a table of the failed documents of all indexes <project>-doctor             a table of findings
"""

from __future__ import annotations

import logging
import os
import re
import signal
import time
import uuid
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID

import httpx
from prefect import get_client, runtime
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.exceptions import CancelledRun, PrefectException, TerminationSignal, UnfinishedRun
from prefect.logging import get_logger, get_run_logger
from prefect.states import Cancelled, Completed, Crashed, Failed

from rag_index.care.index_status import try_to_write_metrics
from rag_index.components.ledger import Ledger
from rag_index.components.ledger.runs import IndexLease
from rag_index.core.documents.keys import document_id
from rag_index.core.machine import given
from rag_index.core.reports.metrics import report_lines
from rag_index.core.reports.outcome import IndexOutcome, RunReport, count_of
from rag_index.core.reports.progress import Progress, RunRecord, open_display, said_outages
from rag_index.errors import IndexLocked
from rag_index.etl.checks import ServiceChecks
from rag_index.etl.interruption import STOPPED
from rag_index.orchestration.prefect_api import (
    RunFailed,
    impatient,
    is_away,
    result_of,
    wait_for_api,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefect.client.schemas.objects import State

    from rag_index.care.benchmark import BenchmarkReport
    from rag_index.care.doctor import Diagnosis
    from rag_index.core.settings import Settings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened

logger = get_logger("rag_index.artifacts")

Row: TypeAlias = dict[str, Any]

UNANSWERED = (httpx.HTTPError, PrefectException, OSError)
"""What a client of Prefect raises if its server does not answer, or refuses."""
UPDATE_SECONDS = 2.0
TURN_SECONDS = 2.0
MAX_FAILED = 500
MAX_REASON = 300
MAX_WORSE_ROWS = 500
OWN_END: dict[str, Any] = {
    "retries": 0,
    "persist_result": False,
    "result_storage": Path(os.devnull),
}
"""The options by which a flow ends in its own state, whatever a platform sets for all flows. A
retry would wait for a process that has ended, and what a state carries is for its caller, in the
same process. With no storage named here, each flow would ask the server for its default one, and
not begin if that is broken."""
SUBFLOW_TRIES = 3


class ArtifactDisplay:
    """A display that updates a progress artifact, of the flow run that creates it, every two
    seconds at most."""

    def __init__(self, *key: str) -> None:
        self._key = _key(*key, "progress")
        self._id: UUID | None = None
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        """Update the artifact."""
        self.update(progress.percent(), progress.card())

    def announce(self, sentence: str) -> None:
        """Leave a sentence to the log: the artifact has one line, for how far the run is."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """Update the artifact for the last time, to 100% if all is done."""
        said = sentence.removeprefix(
            f"{progress.index}: "
        )  # the artifact has the name of the index already
        self.update(progress.percent(), said, force=True)

    def update(self, percent: float, description: str, *, force: bool = False) -> None:
        """Create the artifact the first time, then update it; without `force`, only if the last
        time is old enough."""
        began = time.monotonic()
        if began < self._next and not force:
            return
        if self._id is None:
            self._id = _send(
                create_progress_artifact, percent, key=self._key, description=description
            )
        else:
            _send(update_progress_artifact, self._id, percent, description=description)
        ended = time.monotonic()
        # A slow server costs a tenth of the time, no more.
        self._next = ended + max(UPDATE_SECONDS, 10 * (ended - began))


def _failed_table(rows: list[Row], *, project: str, index: str = "") -> None:
    of, command = (
        (f" of {index}", f"rag-index status {index} --failed")
        if index
        else ("", "rag-index status --failed")
    )
    said = f"{count_of(len(rows), 'document')}{of} could not be indexed, or lack something"
    if not rows:
        said = f"No document{of} is listed as failed" if index else "No document failed"
    if len(rows) > MAX_FAILED:
        said += f"; the first {MAX_FAILED}, `{command}` lists all"
    _table(said, rows[:MAX_FAILED], project, index or "all", "failed")


def _run_report(project: str, record: RunRecord) -> None:
    outcome, name = record.outcome, record.index
    lines = [f"# {name}: {outcome.state}", "", f"**{outcome.sentence()}**", ""]
    lines += [
        "## Where the time went",
        "",
        *(f"- {line}" for line in report_lines(record.report | {"message": ""})),
    ]
    key = _key(project, name, "report")
    _send(create_markdown_artifact, "\n".join(lines), key=key, description=outcome.sentence())


def _table(said: str, rows: list[Row], *key: str) -> None:
    _send(create_table_artifact, rows, key=_key(*key), description=said)


def _key(*parts: str) -> str:
    """Return a key of lower-case letters, digits and dashes, which is what Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _send(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what the call returns, or None if the server refuses: an artifact never ends the run
    that it shows."""
    try:
        with impatient():
            return call(*arguments, **named)
    except UNANSWERED as error:
        # 503, or no connection: an outage, in which this happens every few seconds, and which
        # `ApiOutage` reports once. 500: the server cannot show this artifact.
        if not is_away(error) or _is_internal(error):
            logger.warning("an artifact could not be sent to the Prefect server: %s", error)
        return None


def _is_internal(error: Exception) -> bool:
    return (
        isinstance(error, httpx.HTTPStatusError)
        and error.response.status_code == httpx.codes.INTERNAL_SERVER_ERROR
    )


@contextmanager
def only_run(settings: Settings) -> Iterator[None]:
    """Let one flow run of the project at a time index everything. One more waits for it and then
    indexes what has changed since; others raise IndexLocked, since that one does their work. The
    ledger decides, not a limit of the deployment: Prefect keeps its slots in the server's memory,
    and kills a run that finds its slot gone, minutes after a restart of the server."""
    with ExitStack() as stack:
        ledger, run = stack.enter_context(closing(Ledger(settings.ledger_url))), flow_run_id()
        name = f"{settings.project} index-all"  # of no alias, because of the space
        with IndexLease(
            ledger, f"{name} next", run, "the next run of all indexes waits in"
        ) as next_one:
            end_died(next_one)
            _wait_for_turn(
                stack, IndexLease(ledger, name, run, "all indexes are being written by"), next_one
            )
        yield


def _wait_for_turn(stack: ExitStack, lease: IndexLease, next_one: IndexLease) -> None:
    said = False
    while True:
        try:
            end_died(stack.enter_context(lease))
            return
        except IndexLocked as error:
            if not said:
                get_run_logger().info("waiting for the run that is under way: %s", error)
            said = True
        next_one.check()
        time.sleep(TURN_SECONDS)


class WholeRun(ArtifactDisplay):
    """A run over several indexes, one after another: it shows their progress, and has what they
    share."""

    def __init__(self, project: str, indexes: int, wait: float = 0.0) -> None:
        """`wait` is how long the run may wait for a service at the start."""
        super().__init__(project, "all")
        self._project, self._indexes, self.checks = project, indexes, ServiceChecks(wait)
        self._done = 0
        self._log = get_run_logger() if FlowRunContext.get() else logger
        self.failed: list[Row] = []
        self.outcomes: dict[str, IndexOutcome] = {}
        self.update(0.0, f"0 of {indexes} indexes")  # it belongs to the flow run over all of them

    def show(self, progress: Progress) -> None:
        """Display how far the current index is."""
        number = f"{self._done + 1} of {self._indexes}, " if self._indexes > 1 else ""
        self.update(
            self._percent(progress.percent()), f"{number}{progress.index}: {progress.card()}"
        )

    def finish(self, progress: Progress, sentence: str) -> None:
        """Take note that an index is done, or of what is kept of it, if its run was stopped."""
        self._done += not progress.stopped
        kept = progress.percent() if progress.stopped else 0.0
        self.update(
            self._percent(kept), f"{self._done} of {self._indexes} indexes, {sentence}", force=True
        )

    def says_outages_of(self, progress: Progress) -> AbstractContextManager[None]:
        """Say in the log of this run, too, who does not answer to the run of an index."""
        say = partial(self._log.warning, "%s: %s", progress.index)
        return said_outages(say, look=lambda: progress.outages, wait=progress.wait)

    def outcome_of(self, state: State[Any], index: str) -> IndexOutcome:
        """Return the outcome that a subflow's state carries; if it crashed, what its state says.
        After an answer of Prefect's server was lost, its client asks again, and is given the state
        without what it carried: the outcome is the one that was noted."""
        report = result_of(state)
        if isinstance(report, RunReport) and report.indexes:
            return report.indexes[0]
        if index in self.outcomes and not (state.is_crashed() or state.is_cancelled()):
            return self.outcomes[index]
        return IndexOutcome(
            index,
            state="failed",
            message=(state.message or state.name or "").strip().splitlines()[0],
        )

    def end(self, report: RunReport, state: State[Any]) -> None:
        """Display how the run ended, once Prefect's server answers. `state` is that of the last
        index."""
        wait_for_api()
        said = report.sentence()
        if state.is_cancelled():  # what is committed of the last index is not in the report
            said = f"{self._done} of {self._indexes} indexes, {state.message}"
        first = {
            "index": "",
            "state": "",
            "failed": 0,
            "message": "",
        }  # the page takes its columns from the first row
        rows = [{**first, **outcome.to_json()} for outcome in report.indexes]
        for row in rows:
            row.pop("gate", None)
            row.pop("undecided", None)  # the message has them
        _table(said, rows, self._project, "all", "outcome")
        _failed_table(self.failed, project=self._project)
        self.update(self._percent(0.0), said, force=True)

    def _percent(self, of_current: float) -> float:
        return min(100.0, (100.0 * self._done + of_current) / max(1, self._indexes))


_CURRENT: ContextVar[WholeRun | None] = ContextVar("the run over several indexes", default=None)
"""A variable, because the run of an index is a flow: Prefect would show in its page whatever a flow
is given."""


def whole_run(project: str, indexes: int, wait: float = 0.0) -> AbstractContextManager[WholeRun]:
    """Let `current_run` return this run within the block."""
    return given(_CURRENT, WholeRun(project, indexes, wait))


def current_run() -> WholeRun | None:
    """Return the run over several indexes that this flow run is a part of, if it is one."""
    return _CURRENT.get()


# How a flow ends


def _repeats_no_state(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], RunFailed | CancelledRun | UnfinishedRun):
        return False
    return not str(record.msg).startswith(
        "Failed to write result"
    )  # there is no storage, as `OWN_END` says


def end_with_state() -> None:
    """Let the log of this process end with the sentence of the run's state: call it as the flow
    returns that state. For a state other than Completed the engine would go on to log an
    "unexpected exception" with a stack of 45 lines, all of it Prefect's own. Nothing catches that
    exception in a process that a worker has started."""
    logging.getLogger("prefect.flow_runs").addFilter(
        _repeats_no_state
    )  # the same function is added once


def end_suspended() -> None:
    """End this flow run if it is a part of one that was suspended: Prefect would take it for dead
    in some minutes."""
    context = FlowRunContext.get()
    if not (context and context.flow_run and context.flow_run.parent_task_run_id):
        return
    said = "suspended with the run that it is a part of; resumed, that goes on in another part"
    with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run_id()), Cancelled(message=said), force=True)


def end_died(lease: IndexLease) -> None:
    """Mark the flow run that died with this lease as Crashed, if Prefect takes it for one that
    runs. Nobody else does so if the process of a part of a run was killed, or the whole machine."""
    if lease.interrupted_run is None:
        return
    said = "its process died; what was committed is kept, and a later run continues from there"
    with suppress(ValueError, *UNANSWERED), impatient(), get_client(sync_client=True) as client:
        run_id = UUID(lease.interrupted_run)  # another id is that of no flow run
        state = client.read_flow_run(run_id).state
        if state is not None and (state.is_running() or state.is_cancelling()):
            client.set_flow_run_state(run_id, Crashed(message=said), force=True)


def flow_run_id() -> str:
    """Return the id of the flow run that this is called in."""
    return str(runtime.flow_run.id or uuid.uuid4())


def run_name() -> str:
    """Return the name of a flow run over several indexes: "index all", or with the names that were
    given."""
    flow = str(runtime.flow_run.flow_name).removesuffix("-all")
    names = (runtime.flow_run.parameters or {}).get("indexes")
    return f"{flow} {', '.join(names) if names else 'all'}"


def shown_record(settings: Settings, index: str, whole: WholeRun | None) -> RunRecord:
    """Return the record of a run whose progress is shown in Prefect, and in that of the `whole`
    run."""
    record = RunRecord(index, get_run_logger())
    record.progress.displays = [
        open_display(),
        ArtifactDisplay(settings.project, index),
        *([whole] if whole else []),
    ]
    return record


def failed_rows(opened: Opened, target: Target | None) -> list[Row]:
    """Return a row for each failed document that the open ledger lists, and write the metrics
    file."""
    try_to_write_metrics(opened.settings)
    if target is None:
        return []
    return [
        {
            "document": document_id(failure.key),
            "kind": failure.kind,
            "reason": " ".join(failure.reason.split())[:MAX_REASON],
            "tries": failure.tries,
            "retry": f"rag-index index-all {opened.index.name} --retry-failed",
            "last tried": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(failure.last_at)),
        }
        for failure in opened.ledger.failures(target.collection.id).values()
        if failure.kind != "skipped"
    ]


def end_state(
    settings: Settings, record: RunRecord, target: Target | None, failed: list[Row]
) -> State[RunReport]:
    """Report the end of a run, on the terminal and as artifacts, and return the final state of the
    flow. Call it when the run has closed all that it held open, so that no index waits for
    Prefect's server."""
    outcome, project, name = record.outcome, settings.project, record.index
    wait_for_api()
    kept = f"; {record.progress.kept()}" if outcome.state == "failed" else ""
    record.progress.finish(f"{outcome.sentence(reason=False)}{kept}")
    if target is not None:
        _failed_table(failed, project=project, index=name)
    whole = current_run()
    if whole is not None:
        whole.failed += [{"index": name, **row} for row in failed]
        whole.outcomes[name] = outcome
    _run_report(project, record)
    if (verdict := outcome.gate) is not None:
        rows = [
            {**one, "lost": ", ".join(one["lost"])}
            for one in verdict.to_json()["worse"][:MAX_WORSE_ROWS]
        ]
        passed = f"{'Passed' if verdict.passed else 'Not passed'} (max_loss {verdict.max_loss:g})"
        _table(f"{passed}: {verdict.sentence()}", rows, project, name, "gate")
    return report_state(RunReport([outcome], outcome.seconds))


def run_subflow(flow: Callable[..., State[Any]], *arguments: Any) -> State[Any]:
    """Run a flow in this one, and return its final state. If Prefect's server goes away just as it
    begins or ends, it is run again when the server is back: what is committed is not done again.
    Raises the TerminationSignal or KeyboardInterrupt that met a serializer of Prefect's, whose
    error would end that flow alone."""
    tries_left = SUBFLOW_TRIES
    while True:
        wait_for_api()
        try:
            state = flow(*arguments, return_state=True)
            run_id = state.state_details.flow_run_id
            get_run_logger().info(
                "%s: %s (flow run %s)", arguments[0], state.message or state.name, run_id
            )
            stopped = STOPPED.search(state.message or "") if state.is_failed() else None
            if stopped is None:
                return state
            by_signal = stopped[1] == TerminationSignal.__name__
            raise TerminationSignal(signal.SIGTERM) if by_signal else KeyboardInterrupt
        except httpx.HTTPError as error:
            tries_left -= 1
            if not (tries_left and is_away(error)):
                raise
            get_run_logger().warning(
                "Prefect's server went away (%s); the index is run again", error
            )


def report_state(report: RunReport) -> State[RunReport]:
    """Return the final state of a flow. A partial run is Failed, so that it is seen in the
    morning."""
    message = report.sentence()
    if report.state == "completed":
        return Completed(message=message, data=report)
    if report.state == "partial":
        return failed_state(f"partially indexed: {message}", report, tag="partial")
    return failed_state(message, report)


def superfluous_state(error: IndexLocked) -> State[Any]:
    """Return the final state of a run that found another at its work: a night that was missed, or a
    run by hand."""
    end_with_state()
    return Cancelled(
        message=(
            f"another run waits already, and will index what has changed until it begins ({error})"
        )
    )


def failed_state(message: str, report: Any = None, *, tag: str | None = None) -> State[Any]:
    """Return a failed state. A tag on the run says what is special about the failure, also in lists
    of runs. The state keeps Prefect's own name: the page of a deployment lists no run whose state
    has another one."""
    if tag:
        _send(_tag_run, tag)
    context = FlowRunContext.get()
    if (
        context
    ):  # Prefect logs the state as INFO, where the page's filter for errors does not show it
        get_run_logger(context).log(logging.WARNING if tag else logging.ERROR, "%s", message)
    end_with_state()
    return Failed(message=message, data=RunFailed(message, report))


def _tag_run(tag: str) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(
            UUID(runtime.flow_run.id), tags=sorted({*runtime.flow_run.tags, tag})
        )


def diagnosis_state(project: str, found: Diagnosis) -> State[Diagnosis]:
    """Return the final state of a check-up. Findings make it Failed, so that they are seen."""
    kinds = sorted({f"{finding.index or 'all'}: {finding.kind}" for finding in found.findings})
    remedy = f"{len(kinds)} found: {', '.join(kinds)}; `rag-index doctor --repair` corrects them"
    said = remedy if kinds else "Source, ledger and store agree"
    wait_for_api()
    rows = [
        *map(asdict, found.findings),
        *({"kind": "advice", **asdict(one)} for one in found.advice),
    ]
    columns = ("index", "kind", "count", "message", "remedy")
    _table(said, [{name: row.get(name) for name in columns} for row in rows], project, "doctor")
    return (
        failed_state(said, found, tag="findings") if kinds else Completed(message=said, data=found)
    )


def benchmark_state(report: BenchmarkReport, *, project: str) -> State[BenchmarkReport]:
    """Return the final state of a benchmark. Ways that do not make the same points make it
    Failed."""
    wait_for_api()
    rows = []
    for one in report.measured:
        row = asdict(one)
        rows.append(row | {name: f"{share:.0%}" for name, share in row.pop("stages").items()})
    _table(report.sentence(), rows, project, report.index, "benchmark")
    if not report.in_parity:
        return failed_state(report.sentence(), report, tag="disagrees")
    return Completed(message=report.sentence(), data=report)
