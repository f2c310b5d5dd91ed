"""Runs of the command line, in this process until workers are worth their start; then the flow continues.

Starting Prefect, its server and a cluster takes some 14 seconds of processor time: more than most runs have to do.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any

from rag_index.errors import RagIndexError
from rag_index.indexing.run import Continued, RunOptions, open_run
from rag_index.indexing.step_retries import current_checks, shared_checks
from rag_index.indexing.steps import Here
from rag_index.machine import collect_seldom
from rag_index.machine.resources import cpu_count
from rag_index.orchestration.signals import terminable
from rag_index.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.reports.progress import captured_logs, open_display
from rag_index.status.metrics_file import try_to_write_metrics

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.documents.batches import Shard, WrittenShard
    from rag_index.indexing.scan import Scan
    from rag_index.orchestration.launch import FlowStart
    from rag_index.settings import IndexSettings, Settings

START_SECONDS = 10.0
"""What starting Prefect and workers costs, in seconds of one process that embeds: it takes the processors from it."""
MIN_SECONDS_TO_CONTINUE = 2.0
"""The same once they are started: a flow takes about a second to begin and to end."""
logger = logging.getLogger("rag_index.runs")


def run_plainly(
    start: FlowStart, settings: Settings, indexes: Sequence[IndexSettings], options: RunOptions, **parameters: Any
) -> RunReport:
    """Bring these indexes up to date with their source; one that fails does not stop the others.

    If an index turns out to be worth workers, `start` begins, and this process indexes on until it is ready. Then the
    run ends with what is committed, and the flow, which gets the `parameters`, continues with that index, as after any
    stop, and does those that follow.
    """
    began, report = time.monotonic(), RunReport()
    with terminable(), collect_seldom(), start, shared_checks(settings.run.wait):
        for number, index in enumerate(indexes):
            outcome = _run_index(start, settings, index, options)
            if outcome.state == "continued":
                rest: RunReport = start.call(**parameters, indexes=[one.name for one in indexes[number:]])
                rest.indexes[0].add_earlier(outcome)
                report.indexes += rest.indexes
                break
            report.indexes.append(outcome)
    report.seconds = time.monotonic() - began
    return report


def _run_index(start: FlowStart, settings: Settings, index: IndexSettings, options: RunOptions) -> IndexOutcome:
    try:
        with open_run(settings, index.name, options, run_id=str(uuid.uuid4())) as run:
            run.logger, run.progress.displays = logger, [open_display()]
            with captured_logs(run.progress.note_later):
                try:
                    run.execute(HereUntilWorkers(start))
                except Exception as error:  # not one of ours: the other indexes do not pay for it
                    logger.error("%s: %s", type(error).__name__, error, exc_info=True)
                    current_checks().index_failed(error, embedder_only=False)
            run.progress.finish(run.outcome.sentence())
        try_to_write_metrics(settings)
        return run.outcome
    except RagIndexError as error:
        return failed_to_start(index.name, error)


class HereUntilWorkers(Here):
    """Steps in this process, until workers are ready that are worth their start: then the run is `Continued`."""

    def __init__(self, start: FlowStart) -> None:
        super().__init__()
        self._start = start
        self._alone = False

    def write(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[WrittenShard]:
        """Embed and upsert the shards. Raises Continued at the first that is better left to workers."""
        run = scan.run
        self._alone = run.settings.parallel.serial or not run.any_workers
        if not self._alone:
            self._begin_start(scan)  # if all of a large source is new, that is known before the first page
        yield from super().write(scan, self._until_workers(scan, shards))

    def _until_workers(self, scan: Scan, shards: Iterable[Shard]) -> Iterator[Shard]:
        for shard in shards:
            if not self._alone and not shard.in_process and self._better_left(scan):
                with scan.run.stopwatch.stage("workers"):
                    self._start.wait()
                raise Continued("the rest was left to workers")
            yield shard

    def may_end_this_process(self, scan: Scan, shard: Shard) -> bool:
        """Return whether a child process has to embed a shard: a model in this process could end it."""
        apart = not (self._alone or shard.in_process) and not scan.run.settings.embedder.on_servers
        return apart or super().may_end_this_process(scan, shard)

    def _better_left(self, scan: Scan) -> bool:
        """Return whether workers should continue now; begin their start if it is worth it.

        If a person has said how many documents a worker gets, workers get all of them, and the run waits for the start.
        """
        if scan.run.settings.parallel.shard_documents != "auto":
            if not self._start.begun:
                self._start.begin()
            return True
        self._begin_start(scan)
        return self._start.ready and scan.seconds_left >= MIN_SECONDS_TO_CONTINUE

    def _begin_start(self, scan: Scan) -> None:
        """Begin the start of Prefect and workers if the rest of an index is worth it.

        They take a share of the work, n / (n + 1) where this process would otherwise do all of it, which must be more
        than they cost. Workers beyond the processors take no share, unless an embedding server does the work.
        """
        workers = scan.run.metrics.workers
        if not scan.run.settings.embedder.on_servers:
            workers = min(workers, max(1, cpu_count() - 1))
        if not self._start.begun and scan.seconds_left * workers / (workers + 1) >= START_SECONDS:
            scan.run.progress.note_later("starting workers")
            self._start.begin()
