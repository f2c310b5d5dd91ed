"""One run of one index, told once.

    read > compare > embed > upsert > commit, page by page;  then delete > verify > publish

`execute` is the run. `index_pages` is its first line: the scan compares, and the window embeds, upserts and commits. A
first run with a slow embedder first writes everything by its words (`words_first`).
Any death is harmless by the order of writes: documents are marked pending in the ledger, points are upserted and made
durable, stale chunks are deleted, and the ledger's rows come last. Where the steps are carried out (here, in children,
as tasks of Prefect on Dask workers) is given to it: see `etl.steps`.
"""

from __future__ import annotations

import logging
import re
import time
from asyncio import CancelledError
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import prefix_warning
from rag_index.components.ledger.runs import WATCH
from rag_index.components.ledger.tables import DAY
from rag_index.components.sources.pages import PAGE_CHARS
from rag_index.core.recovery import outages
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.progress import said_outages
from rag_index.errors import RagIndexError, TransientError
from rag_index.etl.erase import erasure_due, unfinished_rebuild
from rag_index.etl.scan import Scan, begin
from rag_index.etl.steps import ServiceChecks, questions
from rag_index.etl.window import NOT_WRITABLE, Window
from rag_index.etl.words_first import WordsFirst
from rag_index.quotes import described, without_messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.ledger import Ledger
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import Store
    from rag_index.core.recovery import Outage
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.steps import Steps
    from rag_index.etl.words_first import Fetch

FIRST_PAGE_ROWS, MAX_PAGE_ROWS = 2000, 20_000
ROW_CHARS = 500
KEEP_DAYS = 90
AUTO_MB = 256
"""Megabytes of embedded vectors that searches may scan: about 15 ms a search, where an index takes minutes to build."""
STOPPED = re.compile(r"Error calling function .*: (KeyboardInterrupt|TerminationSignal):")
"""What Pydantic says of a Ctrl-C or SIGTERM inside a function that it calls, in an error of its own."""
logger = logging.getLogger("rag_index.indexing")


class RunPaused(Exception):
    """Raised by `AllDocuments.go_on`: the run ends here. What it did is committed, and another run goes on from it."""


def execute(
    opened: Opened,
    steps: Steps,
    record: RunRecord,
    *,
    documents: AllDocuments | None = None,
    hooks: Hooks | None = None,
    checks: ServiceChecks | None = None,
) -> Target | None:
    """Bring documents of an index up to date, all by default, and return what was written to; None if the run ended
    before it had chosen that. An error of ours ends in the record. Every other is raised after it was recorded, such as
    KeyboardInterrupt or one of Prefect's.

        with open_index(settings, "comments", RunOptions(), run_id=run_id) as opened:
            execute(opened, steps, record := RunRecord("comments"))
    """
    documents, checks = documents or AllDocuments(), checks or ServiceChecks()
    scan: Scan | None = None

    def look() -> Iterable[Outage]:
        record.note_outages(outages())
        return progress.outages

    log, progress, wait = record.logger, record.progress, opened.settings.run.wait_for_recovery
    progress.wait = wait
    try:
        with said_outages(partial(log.warning, "%s"), look=look, wait=wait) if log else nullcontext():
            scan = documents.begin(opened, steps, record, checks)
            index_pages(opened, scan, steps, record, documents)
            documents.end(opened, scan, steps, record, hooks)
    except RagIndexError as error:
        if record.logger:
            record.logger.error("%s: %s", type(error).__name__, error, exc_info=without_messages(error.__cause__))
        checks.index_failed(error, embedder_only=opened.index.context is None)
        record.error = error
        _fail(opened, record, error)
        return scan.target if scan else None
    except RunPaused:
        record.paused = True
    except BaseException as error:
        _fail(opened, record, error)
        raise
    _finish(opened, record)
    if scan and opened.store.embedded and not (opened.single or record.paused):
        live = opened.live
        if live and search_index_due(opened.store, live.name, live.dimension):
            steps.build_search_index(opened, live.name, record)  # the run is complete: searches scan meanwhile
    return scan.target if scan else None


def index_pages(opened: Opened, scan: Scan, steps: Steps, record: RunRecord, documents: AllDocuments) -> None:
    """Embed, upsert and commit everything in the pages of a run that changed. While shards are embedded and written,
    the next pages are read. What is under way when the pages or a shard raise is committed before. Raises as these, and
    as `Committer.commit`."""
    window = Window(opened, scan, steps, record)
    if not scan.target.collection.whole_in:
        calls = documents.pages, documents.go_on, window.commit_done
        window.meanwhile = WordsFirst(opened, scan, steps, record, *calls, window.to).write_if_due
    if not scan.before.all:
        steps.start()  # while the first page is read and compared
    try:
        for page in documents.pages(opened, steps.fetch, record):
            for shard in scan.diff.shards(page):
                documents.go_on()
                window.push(shard)  # waits while the window is full
        for shard in scan.diff.sharder.rest():
            documents.go_on()
            window.push(shard)
    except NOT_WRITABLE:
        raise
    except Exception as error:
        if stop_in(error) is None:
            window.drain()
        raise
    window.finish()


class AllDocuments:
    """All documents of an index. Runs over some documents override every step."""

    def begin(self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks) -> Scan:
        """Check the services, wait for those that are down, and begin the run."""
        answers = checks.ask(questions(opened, steps))
        identity: EmbedderIdentity = answers["embedder"]
        chunker = answers.get("context") or open_chunker(opened.settings, opened.index)
        scan = begin(opened, record, identity, chunker, workers=steps.workers, part_rows=answers.get("parts"))
        if not scan.target.collection.commits and (warning := prefix_warning(opened.settings.embedder, identity)):
            if warning not in checks.said:
                record.outcome.say(warning)
            checks.said.add(warning)
        return scan

    def pages(self, opened: Opened, fetch: Fetch, record: RunRecord) -> Iterator[SourcePage]:
        """Yield the pages of the source, which grow from a small first one, so that work begins soon. They grow to
        about `PAGE_CHARS`, so that short texts do not mean many small queries."""
        cursor, rows, number = None, FIRST_PAGE_ROWS, 0
        while True:
            number += 1
            with record.stopwatch.stage("fetch"):
                page = fetch(opened, number, cursor, min(rows, MAX_PAGE_ROWS))
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
            rows = max(1, min(rows * 4, MAX_PAGE_ROWS, int(PAGE_CHARS / mean)))

    def go_on(self) -> None:
        """Return at once: another shard is about to begin. RunPaused ends the run before that."""

    def end(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord, hooks: Hooks | None) -> None:
        """Delete what the source no longer has, publish what was written, and erase what the settings say."""
        ledger, cid = opened.ledger, scan.target.collection.id
        deleted = steps.delete_gone(opened, scan, record)
        if (rate := scan.diff.sharder.measured) is not None:
            ledger.update_collection(cid, chars_per_second=rate)
        steps.publish(opened, scan, record, hooks, all_deleted=deleted.complete)
        for part, rows in scan.part_rows.items():
            ledger.note_size(cid, rows, part)
        erase_if_due(opened, scan.target, steps, record)


def erase_if_due(opened: Opened, target: Target, steps: Steps, record: RunRecord) -> None:
    """Erase what was deleted or changed, if the settings say so and there is something. What waits is said."""
    if opened.settings.store.erase and erasure_due(opened, target):
        if waits := unfinished_rebuild(opened.ledger, opened.store, target.collection, opened.index.name):
            record.outcome.say(waits)
        else:
            steps.erase(opened, record)


def search_index_due(store: Store, collection: str, dimension: int) -> bool:
    """Return whether a run should build the search index. Only an embedded collection with more than 256 MB of vectors
    needs it: smaller ones are scanned in milliseconds, and a server builds by itself."""
    if not store.embedded or store.indexed(collection):
        return False
    return store.count(collection) * dimension * 4 > AUTO_MB * 1024 * 1024


def _finish(opened: Opened, record: RunRecord) -> None:
    """Record the end of a run that did all its steps."""
    outcome, index = record.outcome, opened.index.name
    if outcome.failed and outcome.failed / max(1, outcome.documents) > opened.settings.run.tolerate_failed:
        failed = count_of(outcome.failed, "document")
        outcome.hold(f"{failed} failed: `rag-index status {index} --failed` lists them")
    outcome.say(outcome.missing_contexts)
    _record_end(opened, record)
    if not opened.run_id.startswith(WATCH):  # there are too many of these
        prune(opened.ledger)


def stop_in(error: BaseException | None) -> BaseException | None:
    """Return the Ctrl-C or SIGTERM that an error is, or was made of: inside a serializer it becomes another error, of
    which the words alone tell if that writes JSON."""
    if isinstance(error, Exception):
        cause = error.__cause__
        if cause is None and STOPPED.search(str(error)):
            return KeyboardInterrupt()
        return None if isinstance(cause, CancelledError) else stop_in(cause)  # of the latter a time limit is made
    return error


def _fail(opened: Opened, record: RunRecord, error: BaseException) -> None:
    """Record the error that ended a run. What was committed is kept."""
    outcome, progress, stop = record.outcome, record.progress, stop_in(error)
    outcome.error_class = type(stop or error).__name__
    reason = described(error)
    if isinstance(error, TransientError) and error.since is not None and time.time() - error.since >= 1:
        reason += f" (waited for it since {time.strftime('%H:%M:%S', time.localtime(error.since))})"
    if stop:
        kept, progress.stopped = progress.kept(), True
        reason = f"stopped; {kept}, and the next run continues from there"
        progress.finish(f"{opened.index.name}: {reason}")
    outcome.state, outcome.message = "failed", reason
    _record_end(opened, record)


def _record_end(opened: Opened, record: RunRecord) -> None:
    report = record.end(opened.settings.embedder, on_server=not opened.store.embedded)
    outcome = record.outcome
    opened.ledger.finish_run(opened.run_id, state=outcome.state, message=outcome.message, report=report)


def prune(ledger: Ledger) -> None:
    """Delete rows of the ledger that are older than `KEEP_DAYS`, and contexts. A fault is left to the next run.
    Each deletion is a transaction of its own, so a death in the middle leaves the rest to the next run, too. Nothing is
    deleted that a run or a watch still needs."""
    before = max(0.0, ledger.clock() - KEEP_DAYS * DAY)
    try:
        ledger.prune(before)
        ledger.prune_contexts(before)
    except RagIndexError as error:
        logger.warning("what is older than %d days was not deleted: %s", KEEP_DAYS, error)
