"""Runs of the command line without Prefect, whose start alone takes longer than most runs have to do."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError
from rag_index.indexing.pipeline import AllDocuments, execute
from rag_index.indexing.run import RunOptions, open_run
from rag_index.indexing.step_retries import current_checks, shared_checks
from rag_index.machine import collect_seldom, terminable
from rag_index.orchestration.cluster import Workers, counting, run_workers
from rag_index.reports.outcome import IndexOutcome, RunReport, failed_to_start
from rag_index.reports.progress import captured_logs, open_display

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.settings import IndexSettings, Settings

logger = logging.getLogger("rag_index.runs")


def run_plainly(settings: Settings, indexes: Sequence[IndexSettings], options: RunOptions) -> RunReport:
    """Bring these indexes up to date with their source; one that fails does not stop the others.

    Workers are started once they are worth it, for all indexes that follow, or those of `[parallel] address` are used.
    """
    began, report = time.monotonic(), RunReport()
    with (
        terminable(),
        collect_seldom(),
        run_workers(settings) as workers,
        shared_checks(settings.run.wait),
    ):
        for index in indexes:
            report.indexes.append(_run_index(settings, index, options, workers))
    report.seconds = time.monotonic() - began
    return report


def _run_index(settings: Settings, index: IndexSettings, options: RunOptions, workers: Workers) -> IndexOutcome:
    try:
        with open_run(settings, index.name, options, run_id=str(uuid.uuid4())) as run:
            run.logger, run.progress.displays = logger, [open_display()]
            with captured_logs(run.progress.note_later):
                try:
                    execute(run, AllDocuments(workers=counting(settings.parallel)), grow=workers.grow)
                except Exception as error:  # not one of ours: the other indexes do not pay for it
                    logger.error("%s: %s", type(error).__name__, error, exc_info=True)
                    current_checks().index_failed(error, embedder_only=False)
            run.progress.finish(run.outcome.sentence(reason=False))
        if settings.run.metrics_file is not None:
            from rag_index.status.metrics_file import try_to_write_metrics  # it imports more than most runs need

            try_to_write_metrics(settings)
        return run.outcome
    except RagIndexError as error:
        return failed_to_start(index.name, error)
