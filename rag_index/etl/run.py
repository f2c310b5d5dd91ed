"""One run of one index.

    check > for each page: fetch > diff > embed > upsert > commit;  then delete > publish > erase

`run_index` is that order. A kill at any point is harmless, because of the order of writes:
documents become pending in the ledger, points are upserted and made durable, stale chunks are
deleted, and the ledger's rows come last (`etl.commit`).

Four objects are given to a run: `steps` carries the steps out, locally or as tasks of Prefect
(`etl.steps`); `record` reports; `interruption` ends the run early (`etl.interruption`); `documents`
are all documents of the index, or a few.

To add a step, write a function whose first argument is the opened run, call it by `steps.call`
below, and add its task to `TASKS` in `tasks/etl.py`. If it comes after the last shard, add it to
`AFTER_THE_SHARDS` in `orchestration/task_steps.py` as well, so that Prefect shows it behind them.
`etl.steps` lists the steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.chunking import open_chunker
from rag_index.components.embedders import prefix_warning
from rag_index.etl.checks import ServiceChecks, questions
from rag_index.etl.deletes import delete_gone
from rag_index.etl.erase import erase_after, erasure_due, unfinished_rebuild
from rag_index.etl.fetch import fetch_page, read_pages
from rag_index.etl.interruption import Interruption
from rag_index.etl.publish import build_search_index, publish
from rag_index.etl.run_end import log_outages, recorded_end
from rag_index.etl.scan import begin_scan
from rag_index.etl.window import Window
from rag_index.etl.words_first import WordsFirst

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import PointCollection
    from rag_index.core.reports.progress import RunRecord
    from rag_index.etl.collection import Target
    from rag_index.etl.deletes import Deleted
    from rag_index.etl.fetch import Fetch
    from rag_index.etl.opened import Opened
    from rag_index.etl.publish import Hooks
    from rag_index.etl.scan import Scan
    from rag_index.etl.steps import Steps

AUTO_MB = 256
"""Megabytes of embedded vectors that searches may scan: about 15 ms a search, where an index takes
minutes to build."""


def run_index(
    opened: Opened,
    steps: Steps,
    record: RunRecord,
    *,
    documents: AllDocuments | None = None,
    interruption: Interruption | None = None,
    hooks: Hooks | None = None,
    checks: ServiceChecks | None = None,
) -> Target | None:
    """Bring documents of an index up to date, all by default.

    Returns the collection that was written to; None if the run ended before it had chosen one. An
    error of ours ends in the record. Every other is raised after it was recorded, such as
    KeyboardInterrupt or one of Prefect's.

    Example:
        with open_index(settings, "comments", RunOptions(), run_id=run_id) as opened:
            run_index(opened, steps, record := RunRecord("comments"))
    """
    documents = documents or AllDocuments()
    interruption = interruption or Interruption()
    checks = checks or ServiceChecks()
    target: Target | None = None

    with recorded_end(opened, record, checks), log_outages(opened, record):
        scan = documents.begin_run(opened, steps, record, checks)
        target = scan.target
        interruption.on_scan_start(scan)

        index_pages(opened, scan, steps, record, documents=documents, interruption=interruption)

        deleted = documents.delete(opened, scan, steps, record)
        documents.publish(opened, scan, steps, record, hooks, deleted)
        erase_if_due(opened, target, steps, record)
        # Rows that are known to have changed are left to the next run.
        record.paused = scan.diff.leaves_some

    # The run is complete and recorded, and searches scan the collection while this takes minutes.
    is_finished = record.error is None and not record.paused
    if target is not None and is_finished and not opened.single:
        build_search_index_if_due(opened, steps, record)
    return target


def index_pages(
    opened: Opened,
    scan: Scan,
    steps: Steps,
    record: RunRecord,
    *,
    documents: AllDocuments | None = None,
    interruption: Interruption | None = None,
) -> None:
    """Fetch each page, compare it with the ledger, and embed, upsert and commit what changed.

    While shards are embedded and written, the next pages are read. If a page or a shard raises, the
    shards under way are committed first. Raises as these, and as `Committer.commit`.
    """
    documents = documents or AllDocuments()
    interruption = interruption or Interruption()
    window = Window(opened, scan, steps, record)
    # The index was never complete: it may be written by its words first.
    if not scan.target.collection.whole_in:
        words_first = WordsFirst(
            opened,
            scan,
            steps,
            record,
            pages=documents.pages,
            before_shard=interruption.before_shard,
            commit_done=window.commit_done,
            to=window.to,
        )
        window.meanwhile = words_first.write_if_due
    # Nothing is indexed yet, so there will be several shards: what embeds them starts while the
    # first page is read and compared.
    if not scan.before.all:
        steps.start()

    def fetch(opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
        interruption.before_page()
        return steps.call(fetch_page, opened, number, cursor, rows)

    with window.committed_at_the_end():
        for page in documents.pages(opened, fetch, record):
            for shard in scan.diff.shards(page):
                interruption.before_shard()
                # This waits while the window is full.
                window.push(shard)
        for shard in scan.diff.sharder.rest():
            interruption.before_shard()
            window.push(shard)


class AllDocuments:
    """All documents of an index. A run over a few documents overrides each method."""

    def begin_run(
        self, opened: Opened, steps: Steps, record: RunRecord, checks: ServiceChecks
    ) -> Scan:
        """Check the services, wait for those that are unavailable, and begin the run."""
        answers = checks.ask(questions(opened, steps))
        identity: EmbedderIdentity = answers["embedder"]
        chunker = answers.get("context") or open_chunker(opened.settings, opened.index)
        part_rows = answers.get("parts")
        scan = begin_scan(
            opened, record, identity, chunker, workers=steps.workers, part_rows=part_rows
        )
        # A new collection: the prefixes are those that its vectors will have.
        is_new = not scan.target.collection.commits
        warning = prefix_warning(opened.settings.embedder, identity) if is_new else ""
        if warning and warning not in checks.warnings:
            checks.warnings.add(warning)
            record.outcome.say(warning)
        return scan

    def pages(self, opened: Opened, fetch: Fetch, record: RunRecord) -> Iterator[SourcePage]:
        """Yield the pages of the source, each read by `fetch`."""

        def timed(opened: Opened, number: int, cursor: object, rows: int) -> SourcePage:
            with record.stopwatch.stage("fetch"):
                return fetch(opened, number, cursor, rows)

        return read_pages(opened, timed)

    def delete(self, opened: Opened, scan: Scan, steps: Steps, record: RunRecord) -> Deleted:
        """Delete what the source no longer has, unless the delete guard refuses."""
        return steps.call(delete_gone, opened, scan, record)

    def publish(
        self,
        opened: Opened,
        scan: Scan,
        steps: Steps,
        record: RunRecord,
        hooks: Hooks | None,
        deleted: Deleted,
    ) -> None:
        """Verify the collection, and let readers see a rebuilt one."""
        note_rate(opened, scan)
        steps.call(publish, opened, scan, record, hooks, all_deleted=deleted.complete)
        for part, rows in scan.part_rows.items():
            opened.ledger.record_largest_size(scan.target.collection.id, rows, part)


def note_rate(opened: Opened, scan: Scan) -> None:
    """Record how many characters per second the run embedded, if it measured that, for the first
    shards of the next run."""
    rate = scan.diff.sharder.measured
    if rate is not None:
        opened.ledger.update_collection(scan.target.collection.id, chars_per_second=rate)


def erase_if_due(opened: Opened, target: Target, steps: Steps, record: RunRecord) -> None:
    """Erase what was deleted or changed, if the settings require it and there is something.

    If an unfinished rebuild prevents it, report that.
    """
    if not opened.settings.store.erase or not erasure_due(opened, target):
        return
    obstacle = unfinished_rebuild(opened.ledger, opened.store, target.collection, opened.index.name)
    if obstacle:
        record.outcome.say(obstacle)
        return
    steps.call(erase_after, opened, record)


def build_search_index_if_due(opened: Opened, steps: Steps, record: RunRecord) -> None:
    """Build the search index of the collection that is live in the store of the run.

    Only the embedded store needs one.
    """
    if not opened.store.embedded:
        return
    name = opened.store.aliases().get(opened.alias, "")
    published = opened.ledger.collection(name)
    if published is not None and search_index_due(opened.store.points(name), published.dimension):
        steps.call_once(build_search_index, opened, name, record)


def search_index_due(points: PointCollection, dimension: int) -> bool:
    """Return whether a run should build the search index of an embedded collection.

    Only a collection with more than 256 MB of vectors needs it. Smaller ones are scanned in
    milliseconds.
    """
    if points.indexed():
        return False
    bytes_of_vectors = points.count() * dimension * 4
    return bytes_of_vectors > AUTO_MB * 1024 * 1024
