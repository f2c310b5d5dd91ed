"""What a person sees of a run in Prefect: its artifacts, and the state in which it ends.

An index has artifacts under keys of its own, so that its history is together:

    PROJECT-INDEX-progress   done of total, failures, time left and rate; updated during the run
    PROJECT-INDEX-failed     a table of failed documents: reason, tries, the command to retry
    PROJECT-INDEX-report     the metrics of the run, and advice
    PROJECT-INDEX-gate       a table of the golden queries that a rebuilt collection answers worse
    PROJECT-all-progress     how much of all indexes is done, and of the current one; at the end the
                             run's message
    PROJECT-all-outcome      a table with one row for each index
    PROJECT-all-failed       a table of the failed documents of all indexes
    PROJECT-doctor           a table of findings

An artifact never ends the run that it shows: if the server refuses it, that is logged.
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
from rag_index.core.reports.progress import Progress, RunRecord, open_display, report_outages
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
"""Errors of a client of Prefect whose server does not answer, or refuses."""
UPDATE_SECONDS = 2.0
"""Seconds between two updates of a progress artifact, at least. Chosen; nothing depends on it."""
TURN_SECONDS = 2.0
"""Seconds between two tries to get the lease of all indexes. Chosen; nothing depends on it."""
MAX_FAILED = 500
"""Rows of failed documents in an artifact. Chosen; nothing depends on it."""
MAX_REASON = 300
"""Characters of a reason in an artifact. Chosen; nothing depends on it."""
MAX_WORSE_ROWS = 500
"""Rows of golden queries in an artifact. Chosen; nothing depends on it."""
OWN_END: dict[str, Any] = {
    "retries": 0,
    "persist_result": False,
    "result_storage": Path(os.devnull),
}
"""The options by which a flow ends in its own state, whatever a platform sets for all flows. A
retry would wait for a process that has ended, and the data of a state are for its caller, in the
same process. Without a storage in these options, each flow would request the default one from the
server, and not begin if that is broken."""
SUBFLOW_TRIES = 3
"""How often the run of an index is tried if Prefect's server becomes unavailable. Chosen; nothing
depends on it."""


class ArtifactDisplay:
    """A display that updates a progress artifact of its flow run, every two seconds at most."""

    def __init__(self, *key: str) -> None:
        self._key = _key(*key, "progress")
        self._id: UUID | None = None
        self._next = 0.0

    def show(self, progress: Progress) -> None:
        """Update the artifact."""
        self.update(progress.percent(), progress.card())

    def announce(self, sentence: str) -> None:
        """Do nothing: the log has the sentence, and the artifact has one line, for progress."""

    def finish(self, progress: Progress, sentence: str) -> None:
        """Update the artifact for the last time, to 100% if all is done."""
        # The artifact has the name of the index already.
        description = sentence.removeprefix(f"{progress.index}: ")
        self.update(progress.percent(), description, force=True)

    def update(self, percent: float, description: str, *, force: bool = False) -> None:
        """Create the artifact the first time, then update it.

        Args:
            force: Whether it is updated even if the last update is recent.
        """
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


def _failed_documents_table(rows: list[Row], *, project: str, index: str = "") -> None:
    """Create the table of failed documents of an index, or of all indexes ("")."""
    command = f"rag-index status {index} --failed" if index else "rag-index status --failed"
    of_index = f" of {index}" if index else ""
    if rows:
        failed = count_of(len(rows), "document")
        sentence = f"{failed}{of_index} could not be indexed, or lack something"
    elif index:
        sentence = f"No document of {index} is listed as failed"
    else:
        sentence = "No document failed"
    if len(rows) > MAX_FAILED:
        sentence += f"; the first {MAX_FAILED}, `{command}` lists all"
    _table(sentence, rows[:MAX_FAILED], project, index or "all", "failed")


def _run_report(project: str, record: RunRecord) -> None:
    outcome, name = record.outcome, record.index
    sentence = outcome.sentence()
    lines = [f"# {name}: {outcome.state}", "", f"**{sentence}**", "", "## Where the time went", ""]
    # The message stands above already.
    report = record.report | {"message": ""}
    lines += [f"- {line}" for line in report_lines(report)]
    key = _key(project, name, "report")
    _send(create_markdown_artifact, "\n".join(lines), key=key, description=sentence)


def _table(description: str, rows: list[Row], *key: str) -> None:
    """Create a table artifact."""
    name = _key(*key)
    _send(create_table_artifact, rows, key=name, description=description)


def _key(*parts: str) -> str:
    """Return a key of lower-case letters, digits and dashes, which is what Prefect allows."""
    name = "-".join(parts).lower()
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-")


def _send(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what the call returns, or None if Prefect's server does not answer or refuses."""
    try:
        with impatient():
            return call(*arguments, **named)
    except UNANSWERED as error:
        # 503, or no connection: an outage, which `ApiOutage` reports once. 500, or 422: the server
        # cannot take this artifact.
        if not is_away(error) or _is_internal(error):
            logger.warning("an artifact could not be sent to the Prefect server: %s", error)
        return None


def _is_internal(error: Exception) -> bool:
    if not isinstance(error, httpx.HTTPStatusError):
        return False
    return error.response.status_code == httpx.codes.INTERNAL_SERVER_ERROR


@contextmanager
def only_run(settings: Settings) -> Iterator[None]:
    """Let one flow run of the project at a time index everything.

    A second one waits for it, and then indexes what has changed since. A third one raises
    IndexLocked, since the second one does its work.

    Leases of the ledger decide, not a limit of the deployment: Prefect keeps its slots in the
    server's memory, and kills a run whose slot is lost, minutes after a restart of the server.
    """
    run = flow_run_id()
    # The space keeps it from being an alias.
    name = f"{settings.project} index-all"
    with ExitStack() as stack:
        ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
        waiting = IndexLease(ledger, f"{name} next", run, "the next run of all indexes waits in")
        running = IndexLease(ledger, name, run, "all indexes are being written by")
        with waiting:
            end_crashed_run(waiting)
            _wait_for_lease(stack, running, waiting)
        yield


def _wait_for_lease(stack: ExitStack, running: IndexLease, waiting: IndexLease) -> None:
    """Enter `running` in the stack once no other run holds it. Raises IndexLocked if this run loses
    the lease `waiting` before."""
    is_logged = False
    while True:
        try:
            end_crashed_run(stack.enter_context(running))
            return
        except IndexLocked as error:
            if not is_logged:
                get_run_logger().info("waiting for the run that is under way: %s", error)
            is_logged = True
        waiting.check()
        time.sleep(TURN_SECONDS)


class MultiIndexRun(ArtifactDisplay):
    """A run over several indexes, one after another: it shows their progress, and has their common
    checks."""

    def __init__(self, project: str, indexes: int, wait: float = 0.0) -> None:
        """Create the artifact. `wait` is the time in seconds that the run may wait for a service at
        the start."""
        super().__init__(project, "all")
        self._project, self._indexes, self.checks = project, indexes, ServiceChecks(wait)
        self._done = 0
        self._log = get_run_logger() if FlowRunContext.get() else logger
        self.failed_documents: list[Row] = []
        self.outcomes: dict[str, IndexOutcome] = {}
        # Now, so that the artifact belongs to this flow run and not to that of an index.
        self.update(0.0, f"0 of {indexes} indexes")

    def show(self, progress: Progress) -> None:
        """Display how far the current index is."""
        number = f"{self._done + 1} of {self._indexes}, " if self._indexes > 1 else ""
        description = f"{number}{progress.index}: {progress.card()}"
        self.update(self._percent(progress.percent()), description)

    def finish(self, progress: Progress, sentence: str) -> None:
        """Display that an index is done, or how much of it is committed if its run was stopped."""
        committed = 0.0
        if progress.stopped:
            committed = progress.percent()
        else:
            self._done += 1
        description = f"{self._done} of {self._indexes} indexes, {sentence}"
        self.update(self._percent(committed), description, force=True)

    def log_outages_of(self, progress: Progress) -> AbstractContextManager[None]:
        """Log the outages that the run of an index meets in the log of this run as well."""
        log = partial(self._log.warning, "%s: %s", progress.index)
        return report_outages(log, look=lambda: progress.outages, wait=progress.wait)

    def outcome_of(self, state: State[Any], index: str) -> IndexOutcome:
        """Return the outcome of an index, whose subflow ended in this state."""
        report = result_of(state)
        if isinstance(report, RunReport) and report.indexes:
            return report.indexes[0]
        # An answer of Prefect's server was lost, and its client requested the state again, which has
        # no data then.
        if index in self.outcomes and not (state.is_crashed() or state.is_cancelled()):
            return self.outcomes[index]
        # It crashed, or did not begin.
        lines = (state.message or state.name or "").strip().splitlines()
        return IndexOutcome(index, state="failed", message=lines[0])

    def end(self, report: RunReport, state: State[Any]) -> None:
        """Display how the run ended, once Prefect's server answers.

        Args:
            state: The final state of the last index.
        """
        wait_for_api()
        sentence = report.sentence()
        # The report does not have what is committed of the last index.
        if state.is_cancelled():
            sentence = f"{self._done} of {self._indexes} indexes, {state.message}"
        # Prefect's page shows the columns of the first row, in its order.
        columns = {"index": "", "state": "", "failed": 0, "message": ""}
        rows: list[Row] = []
        for outcome in report.indexes:
            row = {**columns, **outcome.to_json()}
            # The message has them.
            row.pop("gate", None)
            row.pop("undecided", None)
            rows.append(row)
        _table(sentence, rows, self._project, "all", "outcome")
        _failed_documents_table(self.failed_documents, project=self._project)
        self.update(self._percent(0.0), sentence, force=True)

    def _percent(self, of_current: float) -> float:
        """Return how much of all indexes is done, from 0 to 100."""
        done = 100.0 * self._done + of_current
        return min(100.0, done / max(1, self._indexes))


_CURRENT: ContextVar[MultiIndexRun | None] = ContextVar(
    "the run over several indexes", default=None
)
"""A context variable, because the run of an index is a flow, and Prefect's page would show an
argument of it."""


def multi_index_run(
    project: str, indexes: int, wait: float = 0.0
) -> AbstractContextManager[MultiIndexRun]:
    """Let `current_multi_run` return this run within the block."""
    return given(_CURRENT, MultiIndexRun(project, indexes, wait))


def current_multi_run() -> MultiIndexRun | None:
    """Return the run over several indexes that this flow run is a part of, if it is one."""
    return _CURRENT.get()


# How a flow ends


def _repeats_no_state(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], RunFailed | CancelledRun | UnfinishedRun):
        return False
    # There is no storage (`OWN_END`).
    return not str(record.msg).startswith("Failed to write result")


def end_with_state() -> None:
    """Let the log of this process end with the message of the flow's final state.

    Call it before the flow returns that state. For a state other than Completed, the engine would
    log an "unexpected exception" with a stack of 45 lines of Prefect's own, because nothing catches
    that exception in a process that a worker has started.
    """
    # Adding the same function again has no effect.
    logging.getLogger("prefect.flow_runs").addFilter(_repeats_no_state)


def end_suspended() -> None:
    """End this flow run if its parent run was suspended: Prefect would mark it as crashed in some
    minutes."""
    context = FlowRunContext.get()
    if not (context and context.flow_run and context.flow_run.parent_task_run_id):
        return
    message = "suspended with the run that it is a part of; resumed, that goes on in another part"
    with suppress(*UNANSWERED), impatient(), get_client(sync_client=True) as client:
        run_id = UUID(flow_run_id())
        client.set_flow_run_state(run_id, Cancelled(message=message), force=True)


def end_crashed_run(lease: IndexLease) -> None:
    """Set the flow run that held this lease when it was killed to Crashed, if Prefect shows it as
    running.

    Prefect does not do so if the process of a subflow was killed, or the machine.
    """
    if lease.interrupted_run is None:
        return
    message = "its process died; what was committed is kept, and a later run continues from there"
    # ValueError: a run without Prefect has an id that is no UUID.
    with suppress(ValueError, *UNANSWERED), impatient(), get_client(sync_client=True) as client:
        run_id = UUID(lease.interrupted_run)
        state = client.read_flow_run(run_id).state
        if state is not None and (state.is_running() or state.is_cancelling()):
            client.set_flow_run_state(run_id, Crashed(message=message), force=True)


def flow_run_id() -> str:
    """Return the id of the present flow run, or a new one outside of any."""
    run_id = runtime.flow_run.id
    return str(run_id or uuid.uuid4())


def run_name() -> str:
    """Return the name of a flow run over several indexes: "index all", or "index notes, people" if
    names were given."""
    flow = str(runtime.flow_run.flow_name).removesuffix("-all")
    parameters = runtime.flow_run.parameters or {}
    names = parameters.get("indexes")
    indexes = ", ".join(names) if names else "all"
    return f"{flow} {indexes}"


def shown_record(settings: Settings, index: str, parent: MultiIndexRun | None) -> RunRecord:
    """Return the record of a run whose progress Prefect shows, also as a part of the `parent` run
    over several indexes."""
    record = RunRecord(index, get_run_logger())
    record.progress.displays = [open_display(), ArtifactDisplay(settings.project, index)]
    if parent is not None:
        record.progress.displays.append(parent)
    return record


def failed_document_rows(opened: Opened, target: Target | None) -> list[Row]:
    """Return a row for each failed or incomplete document of the ledger, and write the metrics
    file."""
    try_to_write_metrics(opened.settings)
    if target is None:
        return []
    rows: list[Row] = []
    for failure in opened.ledger.failures(target.collection.id).values():
        # A rule of the source excludes it.
        if failure.kind == "skipped":
            continue
        reason = " ".join(failure.reason.split())
        last_tried = time.gmtime(failure.last_at)
        row: Row = {
            "document": document_id(failure.key),
            "kind": failure.kind,
            "reason": reason[:MAX_REASON],
            "tries": failure.tries,
            "retry": f"rag-index index-all {opened.index.name} --retry-failed",
            "last tried": time.strftime("%Y-%m-%d %H:%M UTC", last_tried),
        }
        rows.append(row)
    return rows


def end_state(
    settings: Settings, record: RunRecord, target: Target | None, failed_documents: list[Row]
) -> State[RunReport]:
    """Report the end of a run, on the terminal and as artifacts, and return the final state of the
    flow.

    Call it when the run has closed what it held open, so that no lease is held while this waits for
    Prefect's server.
    """
    outcome, project, name = record.outcome, settings.project, record.index
    wait_for_api()
    kept = f"; {record.progress.kept()}" if outcome.state == "failed" else ""
    record.progress.finish(f"{outcome.sentence(reason=False)}{kept}")
    if target is not None:
        _failed_documents_table(failed_documents, project=project, index=name)
    parent = current_multi_run()
    if parent is not None:
        parent.failed_documents += [{"index": name, **row} for row in failed_documents]
        parent.outcomes[name] = outcome
    _run_report(project, record)
    verdict = outcome.gate
    if verdict is not None:
        worse = verdict.to_json()["worse"][:MAX_WORSE_ROWS]
        rows = [{**query, "lost": ", ".join(query["lost"])} for query in worse]
        passed = "Passed" if verdict.passed else "Not passed"
        sentence = f"{passed} (max_loss {verdict.max_loss:g}): {verdict.sentence()}"
        _table(sentence, rows, project, name, "gate")
    return report_state(RunReport([outcome], outcome.seconds))


def run_subflow(flow: Callable[..., State[Any]], *arguments: Any) -> State[Any]:
    """Run a flow in this one, and return its final state.

    If Prefect's server becomes unavailable as the flow begins or ends, the flow is run again when
    the server answers. Committed documents are not indexed again. Raises TerminationSignal or
    KeyboardInterrupt if a serializer of Prefect made that an error, which would end the inner flow
    alone.
    """
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
    """Return the final state of a flow. It is Failed for a partial run, so that people notice."""
    message = report.sentence()
    if report.state == "completed":
        return Completed(message=message, data=report)
    if report.state == "partial":
        return failed_state(f"partially indexed: {message}", report, tag="partial")
    return failed_state(message, report)


def superfluous_state(error: IndexLocked) -> State[Any]:
    """Return the final state of a run whose work another run, which waits already, will do."""
    end_with_state()
    return Cancelled(
        message=(
            f"another run waits already, and will index what has changed until it begins ({error})"
        )
    )


def failed_state(message: str, report: Any = None, *, tag: str | None = None) -> State[Any]:
    """Return a failed state.

    Args:
        tag: A tag for the flow run, by which lists of runs show what kind of failure it is. The
            state keeps Prefect's own name, since the page of a deployment lists no run whose state
            has another one.
    """
    if tag:
        _send(_tag_run, tag)
    context = FlowRunContext.get()
    # Prefect logs the state as INFO, which the page's filter for errors does not show.
    if context:
        level = logging.WARNING if tag else logging.ERROR
        get_run_logger(context).log(level, "%s", message)
    end_with_state()
    return Failed(message=message, data=RunFailed(message, report))


def _tag_run(tag: str) -> None:
    with get_client(sync_client=True) as client:
        run_id = UUID(runtime.flow_run.id)
        tags = {*runtime.flow_run.tags, tag}
        client.update_flow_run(run_id, tags=sorted(tags))


def diagnosis_state(project: str, found: Diagnosis) -> State[Diagnosis]:
    """Return the final state of the flow `doctor`. It is Failed if there are findings, so that people
    notice."""
    kinds = sorted({f"{finding.index or 'all'}: {finding.kind}" for finding in found.findings})
    sentence = "Source, ledger and store agree"
    if kinds:
        listed = ", ".join(kinds)
        sentence = f"{len(kinds)} found: {listed}; `rag-index doctor --repair` corrects them"
    wait_for_api()
    values = [asdict(finding) for finding in found.findings]
    values += [{"kind": "advice", **asdict(advice)} for advice in found.advice]
    columns = ("index", "kind", "count", "message", "remedy")
    rows: list[Row] = []
    for row in values:
        rows.append({name: row.get(name) for name in columns})
    _table(sentence, rows, project, "doctor")
    if kinds:
        return failed_state(sentence, found, tag="findings")
    return Completed(message=sentence, data=found)


def benchmark_state(report: BenchmarkReport, *, project: str) -> State[BenchmarkReport]:
    """Return the final state of the flow `benchmark`. It is Failed if the measured runs did not
    write the same points."""
    wait_for_api()
    rows: list[Row] = []
    for measured in report.measured:
        row = asdict(measured)
        stages = row.pop("stages")
        row |= {name: f"{share:.0%}" for name, share in stages.items()}
        rows.append(row)
    _table(report.sentence(), rows, project, report.index, "benchmark")
    if not report.in_parity:
        return failed_state(report.sentence(), report, tag="disagrees")
    return Completed(message=report.sentence(), data=report)
