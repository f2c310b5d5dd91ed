"""Runs of the command line, by the plain driver until workers are worth their start; then the flow takes them over.

Starting Prefect, its server and a cluster takes some 14 seconds of processor time: more than most runs have to do.
"""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import ExitStack, closing
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.embedders import identify, open_embedder
from rag_index.errors import RagIndexError
from rag_index.indexing.driver import finish_scan, index_pages, pages
from rag_index.indexing.retries import with_retries
from rag_index.indexing.run import open_run
from rag_index.machine.memory import collect_seldom
from rag_index.orchestration.hand_over import handed_over
from rag_index.orchestration.service_checks import RETRY_SECONDS, current_checks, patience, shared_checks
from rag_index.orchestration.signals import terminable
from rag_index.reports.displays import open_display
from rag_index.reports.log_notes import captured_logs
from rag_index.reports.outage_watch import watched_outages
from rag_index.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.settings.index import SQL
from rag_index.status.metrics_file import write_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rag_index.indexing.run import IndexRun, RunOptions
    from rag_index.indexing.scan import Scan
    from rag_index.orchestration.launch import FlowStart
    from rag_index.settings import IndexSettings, Settings

T = TypeVar("T")

START_SECONDS = 10.0
"""What starting Prefect and workers costs, in seconds of one process that embeds: it takes the processors from it."""
MIN_SECONDS_TO_HAND_OVER = 2.0
"""The same once they are started: a flow takes about a second to begin and to end."""
logger = logging.getLogger("rag_index.runs")


def run_plainly(
    start: FlowStart, settings: Settings, indexes: Sequence[IndexSettings], options: RunOptions, **parameters: Any
) -> RunReport:
    """Bring these indexes up to date with their source; one that fails does not stop the others.

    If an index turns out to be worth workers, `start` begins, and this process indexes on until it is ready. Then the
    flow, which gets the `parameters`, continues with that index, and does those that follow.
    """
    began = time.monotonic()
    with terminable(), collect_seldom(), start, shared_checks(settings.run.wait):
        report = _PlainRun(start, settings, options, parameters).run(indexes)
    report.seconds = time.monotonic() - began
    return report


class _PlainRun:
    """A run over several indexes, one after another."""

    def __init__(self, start: FlowStart, settings: Settings, options: RunOptions, parameters: dict[str, Any]) -> None:
        self._start = start
        self._settings = settings
        self._options = options
        self._parameters = parameters

    def run(self, indexes: Sequence[IndexSettings]) -> RunReport:
        """Run the indexes and return the report."""
        report = RunReport()
        for number, index in enumerate(indexes):
            outcome = self._index(index, [one.name for one in indexes[number:]])
            if isinstance(outcome, RunReport):
                report.indexes += outcome.indexes
                break
            report.indexes.append(outcome)
        return report

    def _index(self, index: IndexSettings, rest: list[str]) -> IndexOutcome | RunReport:
        """Return the outcome of an index, or the report of the flow that took it over with the `rest`."""
        run_id = str(uuid.uuid4())
        try:
            with ExitStack() as stack:
                run = stack.enter_context(open_run(self._settings, index.name, self._options, run_id=run_id))
                if outcome := self._reported(run):
                    return outcome
                held_open = stack.pop_all()
        except RagIndexError as error:
            return failed_to_start(index.name, error)
        with handed_over(run, held_open):
            with run.stopwatch.stage("workers"):
                self._start.wait()
            report: RunReport = self._start.call(**self._parameters, indexes=rest)
        return report

    def _reported(self, run: IndexRun) -> IndexOutcome | None:
        """Return the outcome of an index and report it; None if the flow has to continue."""
        run.progress.displays = [open_display()]
        try:
            with captured_logs(run.progress.note_later), watched_outages(run.progress, logger):
                if not self._steps(run):
                    return None
            outcome = run.finish()
        except Exception as error:
            logger.error("%s: %s", type(error).__name__, error, exc_info=True)
            current_checks().forget()
            outcome = run.fail(error)
        except BaseException as error:
            run.fail(error)
            raise
        run.progress.finish(outcome.sentence())
        try:
            write_metrics(run.settings)
        except OSError as error:
            logger.warning("[run] metrics_file %s cannot be written: %s", error.filename, error.strerror)
        return outcome

    def _steps(self, run: IndexRun) -> bool:
        """Do the steps of the flow, and return whether all are done, and nothing is left to the flow."""
        scan = _begin(run)
        settings = run.settings.embedder
        alone = run.settings.parallel.serial or not run.any_workers
        apart = not alone and settings.kind != "ollama"  # a model in this process could end it
        if not alone:
            self._begin_start(scan)  # if all of a large source is new, that is known before the first page
        with closing(open_embedder(settings, expected=scan.identity)) as embedder:
            done = index_pages(
                scan, pages(scan), embedder,
                in_child=lambda shard: apart and not shard.in_process,
                hand_over=lambda shard: not alone and not shard.in_process and self._takes_over(scan),
            )  # fmt: skip
        if done:
            finish_scan(scan)
        return done

    def _takes_over(self, scan: Scan) -> bool:
        """Return whether the flow should take over now; begin its start if it is worth it.

        If a person has said how many documents a worker gets, workers get all of them, and the run waits for the start.
        """
        if scan.run.settings.parallel.shard_documents != "auto":
            if not self._start.begun:
                self._start.begin_beside()
            return True
        self._begin_start(scan)
        return self._start.ready and scan.seconds_left >= MIN_SECONDS_TO_HAND_OVER

    def _begin_start(self, scan: Scan) -> None:
        """Begin the start of the flow if the rest of the index is worth it."""
        if not self._start.begun and _worth_workers(scan):
            scan.run.progress.note_later("starting workers")
            self._start.begin_beside()


def _worth_workers(scan: Scan) -> bool:
    """Return whether the rest of an index is worth the start of Prefect and workers.

    They take a share of the work, n / (n + 1) where this process would otherwise do all of it, which must be more than
    they cost.
    """
    workers = scan.run.metrics.workers
    return scan.seconds_left * workers / (workers + 1) >= START_SECONDS


def _begin(run: IndexRun) -> Scan:
    """Check the services as the flow does, wait for them as long as it does, and begin the scan."""
    index, settings, checks = run.index, run.settings, current_checks()

    def ask(call: Callable[[], T], *, min_retries: int = 1) -> Callable[[], T]:
        retries, seconds = patience(settings.run.wait, min_retries=min_retries)
        return partial(with_retries, call, retries=retries, delay=lambda _: RETRY_SECONDS, within=seconds)

    checks.check("source" if index.kind == SQL else ("source", index.name), ask(run.source.check))
    checks.check("store", ask(run.store.collections, min_retries=0))
    chunker = (
        run.open_chunker()
        if index.context is None
        else checks.check(("context", index.context.model, *(index.context.hosts or [])), ask(run.open_chunker))
    )
    identity = checks.remember("embedder", ask(lambda: identify(settings.embedder)))
    return run.begin(identity, chunker, workers=run.own_workers())
