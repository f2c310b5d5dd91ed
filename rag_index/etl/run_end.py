"""How a run ends: what an error, a stop or a pause leaves in its record and in the ledger."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.ledger.runs import WATCH
from rag_index.components.ledger.tables import DAY
from rag_index.core.recovery import outages
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.progress import report_outages
from rag_index.errors import RagIndexError, TransientError
from rag_index.etl.interruption import RunPaused, stop_in
from rag_index.quotes import described, without_messages

if TYPE_CHECKING:
    from rag_index.components.ledger import Ledger
    from rag_index.core.recovery import Outage
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.checks import ServiceChecks
    from rag_index.etl.opened import Opened

KEEP_DAYS = 90
"""Days for which the ledger keeps runs and tries. Chosen; nothing depends on it."""
logger = logging.getLogger("rag_index.indexing")


@contextmanager
def recorded_end(opened: Opened, record: RunRecord, checks: ServiceChecks) -> Iterator[None]:
    """Record how the block ends, which is a run.

    An error of ours ends in the record, and is not raised. After RunPaused the run counts as
    successful. Every other error is raised after it was recorded, such as KeyboardInterrupt or one
    of Prefect's.
    """
    try:
        yield
    except RagIndexError as error:
        # Such as StoreUnavailable: what was committed is kept, and the next run goes on from there.
        if record.logger:
            record.logger.error(
                "%s: %s", type(error).__name__, error, exc_info=without_messages(error.__cause__)
            )
        checks.on_run_failed(error, embedder_only=opened.index.context is None)
        record.error = error
        _record_failure(opened, record, error)
    except RunPaused:
        record.paused = True
        _record_success(opened, record)
    except BaseException as error:
        _record_failure(opened, record, error)
        raise
    else:
        _record_success(opened, record)


def log_outages(opened: Opened, record: RunRecord) -> AbstractContextManager[None]:
    """Show which services are unavailable while the block runs, and count that time.

    They are logged if the record has a logger: then a person waits for the run.
    """
    wait = opened.settings.run.wait_for_recovery
    progress = record.progress
    progress.wait = wait
    if record.logger is None:
        return nullcontext()

    def look() -> Iterable[Outage]:
        record.note_outages(outages())
        return progress.outages

    return report_outages(partial(record.logger.warning, "%s"), look=look, wait=wait)


def _record_success(opened: Opened, record: RunRecord) -> None:
    """Record the end of a run that did all its steps, or was paused."""
    outcome = record.outcome
    index = opened.index.name
    failed_share = outcome.failed / max(1, outcome.documents)
    if outcome.failed and failed_share > opened.settings.run.tolerate_failed:
        failed = count_of(outcome.failed, "document")
        outcome.hold(f"{failed} failed: `rag-index status {index} --failed` lists them")
    outcome.say(outcome.missing_contexts)
    _record_end(opened, record)
    # A watch has too many runs for that.
    if not opened.run_id.startswith(WATCH):
        prune(opened.ledger)


def _record_failure(opened: Opened, record: RunRecord, error: BaseException) -> None:
    """Record the error that ended a run. What was committed is kept."""
    outcome, progress = record.outcome, record.progress
    stop = stop_in(error)
    outcome.state = "failed"
    outcome.error_class = type(stop or error).__name__
    outcome.message = described(error)
    # A service that the run waited for, for a second at least.
    unavailable_since = error.since if isinstance(error, TransientError) else None
    if unavailable_since is not None and time.time() - unavailable_since >= 1:
        since = time.strftime("%H:%M:%S", time.localtime(unavailable_since))
        outcome.message += f" (waited for it since {since})"
    # Ctrl-C, or a run that was cancelled.
    if stop is not None:
        outcome.message = f"stopped; {progress.kept()}, and the next run continues from there"
        progress.stopped = True
        progress.finish(f"{opened.index.name}: {outcome.message}")
    _record_end(opened, record)


def _record_end(opened: Opened, record: RunRecord) -> None:
    on_server = not opened.store.embedded
    report = record.end(opened.settings.embedder, on_server=on_server)
    state, message = record.outcome.state, record.outcome.message
    opened.ledger.finish_run(opened.run_id, state=state, message=message, report=report)


def prune(ledger: Ledger) -> None:
    """Delete runs, tries and contexts that are older than `KEEP_DAYS` from the ledger.

    Nothing is deleted that a run or a watch still needs. An error is logged. Each deletion is a
    transaction of its own, so an error or a kill leaves the rest to the next run.
    """
    before = max(0.0, ledger.clock() - KEEP_DAYS * DAY)
    try:
        ledger.prune(before)
        ledger.prune_contexts(before)
    except RagIndexError as error:
        logger.warning("what is older than %d days was not deleted: %s", KEEP_DAYS, error)
