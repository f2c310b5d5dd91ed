"""Artifacts: what a person sees of a run in Prefect's UI. An index has its own key, so that its history is together.

<project>-<index>-progress   done of total, failures, time left and rate; updated while the run lasts
<project>-<index>-failed     a table of failed documents: why, how often they were tried, the command to retry
<project>-<index>-report     the run's numbers, and what to do about them
<project>-<index>-gate       a table of the golden queries that a rebuilt collection answers worse
<project>-all-progress       how much of all indexes is done, and of the current one; at the end the run's message
<project>-all-outcome        a table with one row for each index
<project>-all-failed         a table of the failed documents of all indexes
<project>-doctor             a table of findings
"""

from __future__ import annotations

import re
import time
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
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
from prefect.exceptions import PrefectException
from prefect.logging import get_logger

from rag_index.documents.keys import document_id
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.orchestration.api_server import impatient, is_deployed, wait_for_api
from rag_index.reports.outcome import count_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.doctor.findings import Diagnosis
    from rag_index.indexing.run import IndexRun
    from rag_index.reports.outcome import GateVerdict, IndexOutcome, RunReport
    from rag_index.reports.progress import Progress
    from rag_index.settings import Settings
    from rag_index.tuning.benchmark import BenchmarkReport

logger = get_logger("rag_index.artifacts")

Row: TypeAlias = dict[str, Any]
"""A row of a table artifact, by column."""

UPDATE_SECONDS = 2.0
MAX_FAILED = 500
"""Rows of the table of failed documents; `rag-index failed` has no limit."""
MAX_REASON = 300
MAX_WORSE = 500
"""Rows of the table of a gate; `rag-index report --json` has no limit."""


def artifact_key(*parts: str) -> str:
    """Return a key of lower-case letters, digits and dashes, which is what Prefect allows."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


class ProgressArtifact:
    """A progress artifact that is updated every two seconds at most. It belongs to the flow run that creates it."""

    def __init__(self, *key: str) -> None:
        self._key = artifact_key(*key)
        self._id: UUID | None = None
        self._next = 0.0

    def update(self, percent: float, description: str, *, force: bool = False) -> None:
        """Create the artifact the first time, then update it; without `force`, only if the last time is old enough."""
        began = time.monotonic()
        if began < self._next and not force:
            return
        if self._id is None:
            self._id = _send(create_progress_artifact, percent, key=self._key, description=description)
        else:
            _send(update_progress_artifact, self._id, percent, description=description)
        ended = time.monotonic()
        # A slow server costs a tenth of the time, no more.
        self._next = ended + max(UPDATE_SECONDS, 10 * (ended - began))


class ArtifactDisplay:
    """A display that updates the progress artifact of an index."""

    def __init__(self, project: str, index: str) -> None:
        self._artifact = ProgressArtifact(project, index, "progress")

    def show(self, progress: Progress) -> None:
        """Update the artifact."""
        self._artifact.update(progress.percent(), progress.card())

    def finish(self, progress: Progress, sentence: str) -> None:
        """Update the artifact for the last time, to 100% if all is done."""
        said = sentence.removeprefix(f"{progress.index}: ")  # the artifact has the name of the index already
        self._artifact.update(progress.percent(), said, force=True)


def failed_rows(ledger: Ledger, collection_id: int, index: str) -> list[Row]:
    """Return a row for each document of an index that is listed as failed."""
    return [
        {
            "document": document_id(failure.key),
            "kind": failure.kind,
            "reason": " ".join(failure.reason.split())[:MAX_REASON],
            "tries": failure.tries,
            "retry": f"rag-index retry-failed {index}",
            "last tried": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(failure.last_at)),
        }
        for failure in ledger.failures(collection_id).values()
        if failure.kind != "skipped"
    ]


def failed_table(rows: list[Row], *, project: str, index: str = "") -> None:
    """Create the table of the failed documents of an index, or of all indexes of a run."""
    of, command = (f" of {index}", f"rag-index failed {index}") if index else ("", "rag-index failed")
    said = f"{count_of(len(rows), 'document')}{of} could not be indexed, or lack something"
    if not rows:
        said = f"No document{of} is listed as failed" if index else "No document failed"
    if len(rows) > MAX_FAILED:
        said += f"; the first {MAX_FAILED}, `{command}` lists all"
    _table(said, rows[:MAX_FAILED], project, index or "all", "failed")


def run_report(run: IndexRun) -> None:
    """Create the report of a run: its numbers, and what to do about them."""
    key = artifact_key(run.settings.project, run.index.name, "report")
    _send(create_markdown_artifact, _report_text(run), key=key, description=run.outcome.sentence())


def _report_text(run: IndexRun) -> str:
    """Return the report as Markdown."""
    outcome = run.outcome
    values = outcome.to_json()
    state, message = values.pop("state"), values.pop("message", "")
    for name in ("index", "gate"):
        values.pop(name, None)
    embedded = outcome.new + outcome.changed
    if embedded and outcome.seconds:
        values["documents embedded a second"] = round(embedded / outcome.seconds, 1)
    lines = [f"# {outcome.index}: {state}", ""]
    if message:
        lines += [f"**{message}**", ""]
    if run.scan is not None:
        collection = run.scan.collection
        lines += [f"Collection `{collection.name}`, alias `{run.alias}`; vectors of {collection.embedder}.", ""]
    lines += ["| | |", "|---|---:|"]
    lines += [f"| {name.replace('_', ' ')} | {_number(value)} |" for name, value in values.items()]
    metrics = run.metrics
    if metrics.stages:
        whole = max(outcome.seconds, sum(metrics.stages.values()), 0.001)
        lines += ["", "## Where the time went", "", "| stage | seconds | share |", "|---|---:|---:|"]
        lines += [f"| {name} | {took:.1f} | {took / whole:.0%} |" for name, took in metrics.stages.items()]
        if metrics.shards:
            busy = f"Workers were busy for {metrics.utilisation:.0%} of the time that they were available"
            memory = f"took at most {metrics.peak_memory / 1e6:.0f} MB each"
            lines += ["", f"{busy}, did the work of {metrics.speed_up:.1f} processes, and {memory}."]
        if metrics.symbols:
            lines += ["", "| symbols | |", "|---|---:|"]
            lines += [f"| {kind} | {count:,} |" for kind, count in sorted(metrics.symbols.items())]
    if advice := _advice(outcome):
        lines += ["", "## What to do", "", *[f"- {line}" for line in advice]]
    return "\n".join(lines)


def gate_table(verdict: GateVerdict, *, project: str, index: str) -> None:
    """Create the table of the golden queries that got worse."""
    rows = [{**one.to_json(), "lost": ", ".join(one.lost)} for one in verdict.poorest.worse[:MAX_WORSE]]
    said = f"{'Passed' if verdict.passed else 'Not passed'} (max_loss {verdict.max_loss:g}): {verdict.sentence()}"
    _table(said, rows, project, index, "gate")


def outcome_table(report: RunReport, *, project: str) -> None:
    """Create a table of the outcome of each index."""
    _table(report.sentence(), [_row(outcome) for outcome in report.indexes], project, "all", "outcome")


def tag_run(tag: str) -> None:
    """Add a tag to this flow run."""
    tags = {*runtime.flow_run.tags, tag}
    _send(_set_tags, runtime.flow_run.id, sorted(tags))


def _set_tags(run_id: str, tags: list[str]) -> None:
    with get_client(sync_client=True) as client:
        client.update_flow_run(UUID(run_id), tags=tags)


def benchmark_table(report: BenchmarkReport, *, project: str) -> None:
    """Create a table with one row for each way that a benchmark measured."""
    rows = []
    for one in report.measured:
        row = one.to_json()
        stages, memory = row.pop("stages"), row.pop("memory_mb")
        rows.append(row | {name: f"{share:.0%}" for name, share in stages.items()} | {"memory MB": str(memory)})
    _table(report.sentence(), rows, project, report.index, "benchmark")


def diagnosis_table(diagnosis: Diagnosis, said: str, *, project: str) -> None:
    """Create a table of what the doctor found."""
    found = diagnosis.to_json()
    rows = [*found["findings"], *({"kind": "advice", **advice} for advice in found["advice"])]
    columns = [{name: row.get(name) for name in ("index", "kind", "count", "message", "remedy")} for row in rows]
    _table(said, columns, project, "doctor")


def _table(said: str, rows: list[Row], *key: str) -> None:
    _send(create_table_artifact, rows, key=artifact_key(*key), description=said)


def _send(call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Return what the call returns, or None if the server refuses: an artifact never ends the run that it shows."""
    try:
        with impatient():
            return call(*arguments, **named)
    except (httpx.HTTPError, PrefectException, OSError) as error:
        logger.warning("an artifact could not be sent to the Prefect server: %s", error)
        return None


def _row(outcome: IndexOutcome) -> Row:
    """Return an outcome with what matters first. The page takes its columns from the first row."""
    row = {"message": "", **outcome.to_json()}
    row.pop("gate", None)
    return {name: row.pop(name) for name in ("index", "state", "failed", "message")} | row


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int | float) else str(value)


def _advice(outcome: IndexOutcome) -> list[str]:
    name = outcome.index
    advice = []
    if outcome.failed:
        advice.append(
            f"`rag-index failed {name}` lists the failed documents; each run tries them again, five times at most, "
            f"`rag-index retry-failed {name}` at once"
        )
    if outcome.state == "failed":
        advice.append(
            f"What was committed is kept: correct the cause, then `rag-index index {name}` continues from there"
        )
    if outcome.new or outcome.changed:
        advice.append(f"For speed: {outcome.advice}")
    return advice


@contextmanager
def only_run(settings: Settings) -> Iterator[None]:
    """Let one deployed run of the project at a time index everything. Raises IndexLocked in others.

    The ledger decides, not a limit of the deployment: Prefect 3.8.8 keeps its slots in the server's memory, and kills a
    run that finds its slot gone, minutes after a restart of the server.
    """
    with ExitStack() as stack:
        if is_deployed():
            ledger = stack.enter_context(closing(Ledger(settings.ledger_url)))
            name = f"{settings.project} index-all"  # of no alias, because of the space
            stack.enter_context(IndexLease(ledger, name, str(runtime.flow_run.id)))
        yield


class WholeRun:
    """A display of progress over several indexes, one after another, that also collects their failed documents."""

    def __init__(self, project: str, indexes: int) -> None:
        self._project = project
        self._indexes = indexes
        self._done = 0
        self._failed: list[Row] = []
        self._artifact = ProgressArtifact(project, "all", "progress")

    def begin(self) -> None:
        """Create the artifact. Call it in the flow run over all indexes: the artifact belongs to it from then on."""
        self._artifact.update(0.0, f"0 of {self._indexes} indexes")

    def show(self, progress: Progress) -> None:
        """Display how far the current index is."""
        number = f"{self._done + 1} of {self._indexes}, " if self._indexes > 1 else ""
        self._artifact.update(self._percent(progress.percent()), f"{number}{progress.index}: {progress.card()}")

    def finish(self, progress: Progress, sentence: str) -> None:
        """Take note that an index is done."""
        self._done += 1
        self._artifact.update(self._percent(0.0), f"{self._done} of {self._indexes} indexes, {sentence}", force=True)

    def add_failed(self, index: str, rows: list[Row]) -> None:
        """Take note of failed documents of an index."""
        self._failed += [{"index": index, **row} for row in rows]

    def end(self, report: RunReport) -> None:
        """Display how the run ended, once Prefect's server answers."""
        wait_for_api()
        outcome_table(report, project=self._project)
        failed_table(self._failed, project=self._project)
        self._artifact.update(self._percent(0.0), report.sentence(), force=True)

    def _percent(self, of_current: float) -> float:
        return min(100.0, (100.0 * self._done + of_current) / max(1, self._indexes))


_CURRENT: ContextVar[WholeRun | None] = ContextVar("the run over several indexes", default=None)


@contextmanager
def whole_run(project: str, indexes: int) -> Iterator[WholeRun]:
    """Give the runs of single indexes within the block a display of the whole: see `current_whole_run`."""
    whole = WholeRun(project, indexes)
    whole.begin()
    token = _CURRENT.set(whole)
    try:
        yield whole
    finally:
        _CURRENT.reset(token)


def current_whole_run() -> WholeRun | None:
    """Return the run over several indexes that this is a part of; None if there is none."""
    return _CURRENT.get()
