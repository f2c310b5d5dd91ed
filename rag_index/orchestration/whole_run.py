"""Runs over several indexes: deployed ones come one at a time, and show of all indexes what each shows of itself.

<project>-all-progress   how much of all indexes is done, and how far the current one is; at the end the run's message
<project>-all-outcome    a table with one row for each index
<project>-all-failed     a table of the failed documents of all indexes
"""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from prefect import runtime

from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.orchestration.api_server import is_deployed, wait_for_api
from rag_index.orchestration.artifacts import ProgressArtifact, failed_table, outcome_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.orchestration.artifacts import Row
    from rag_index.reports.outcome import RunReport
    from rag_index.reports.progress import Progress
    from rag_index.settings import Settings


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
