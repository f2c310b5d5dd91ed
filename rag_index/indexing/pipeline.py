"""A run of one index, as the diagram of the README draws it. What is written, is written in this order.

    read > compare > shard > embed > upsert > commit, page by page;  then delete > verify > publish

`execute` is the run, and `index_pages` its first line. Where its steps are carried out (here, in children, as tasks of
Prefect on Dask workers) is given to it: see `indexing.steps`.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING

from rag_index.chunking import open_chunker
from rag_index.embedders import identify, prefix_warning
from rag_index.errors import RagIndexError, TerminalError
from rag_index.indexing.checks import Question, current_checks
from rag_index.indexing.policies import patience
from rag_index.indexing.scan import Scan
from rag_index.indexing.window import NOT_WRITABLE, Window
from rag_index.ledger.runs import BATCH
from rag_index.reports.progress import watched_outages
from rag_index.settings.index import SQL
from rag_index.sources.pages import PAGE_CHARS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rag_index.documents.batches import Shard, ShardStats, WrittenShard
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.steps import Steps
    from rag_index.reports.outcome import IndexOutcome
    from rag_index.sources import SourcePage

FIRST_ROWS = 2000
ROW_CHARS = 500


def execute(run: IndexRun, steps: Steps, documents: AllDocuments | None = None) -> IndexOutcome:
    """Bring documents of an index up to date, all by default, and return the outcome, which is recorded.

    An error of ours ends in the outcome. Every other is raised after it was recorded, such as KeyboardInterrupt or one
    of Prefect's.
    """
    documents = documents or AllDocuments()
    try:
        with watched_outages(run.progress, run.logger) if run.logger else nullcontext():
            scan = documents.begin(run, steps)
            if scan is not None:
                index_pages(scan, documents.pages(run, steps), steps)
                steps.delete_gone(scan, documents.delete)
                steps.publish(scan, documents.publish)
                # once a night, not with each batch of a watch
                if not run.run_id.startswith(BATCH) and scan.erasure_due:
                    steps.erase(scan)
    except RagIndexError as error:
        if run.logger:
            run.logger.error("%s: %s", type(error).__name__, error, exc_info=error.__cause__)
        current_checks().index_failed(error, embedder_only=run.index.context is None)
        run.error = error
        return run.fail(error)
    except BaseException as error:
        run.fail(error)
        raise
    outcome = run.finish()
    if scan is not None and scan.search_index_due:  # the run is complete: searches scan meanwhile
        steps.build_search_index(scan)
    return outcome


def index_pages(scan: Scan, pages: Iterable[SourcePage], steps: Steps) -> None:
    """Embed, upsert and commit everything in these pages that changed.

    While shards are embedded and written, the next pages are read. What is under way when the pages or a shard raise is
    committed before. Raises as these, and as `commit`.
    """
    window, budget = Window(scan, steps), Budget(scan)

    def push(shard: Shard) -> None:
        budget.check(shard, drain)
        budget.under_way += shard.chars
        scan.mark_pending(shard)
        commit(window.push(shard))

    def commit(shards: Iterable[WrittenShard]) -> None:
        for written in shards:
            scan.commit(written)  # deletes stale chunks, then writes the ledger
            budget.note(written.stats)

    def drain() -> None:
        commit(window.rest())

    try:
        for page in pages:
            for shard in scan.compare(page):
                push(shard)
        for shard in scan.rest():
            push(shard)
    except NOT_WRITABLE:
        raise
    except Exception:
        drain()
        raise
    drain()


class Budget:
    """What embedding has cost in this run, all its indexes together, against `[run] max_cost`."""

    def __init__(self, scan: Scan) -> None:
        self._scan, self._settings, self._checks = scan, scan.run.settings, current_checks()
        self.under_way = 0
        """Characters of the shards that the window was given and that are not committed."""

    def _cost(self, shard: Shard) -> float:
        """Return what the run costs with this shard, if no vector of it or of those under way is known."""
        work = self._scan.run.metrics.work
        repeated = max(1.0, work.sent_chars / max(1, work.chars))  # chunks overlap
        return self._settings.embedder.cost(self._checks.sent_chars + (self.under_way + shard.chars) * repeated)

    def check(self, shard: Shard, drain: Callable[[], None]) -> None:
        """Raise TerminalError if the run may not embed this shard too; `drain` commits what is under way."""
        limit = self._settings.run.max_cost
        if limit is None or self._cost(shard) <= limit:
            return
        drain()  # known vectors cost nothing, so it may have cost less
        if (cost := self._cost(shard)) > limit:
            raise TerminalError(
                f"to embed the next texts too, this run would cost {cost:.2f}, more than [run] max_cost = {limit:g}: "
                "what was embedded is kept, and the next run goes on there"
            )

    def note(self, stats: ShardStats) -> None:
        """Take note of a shard that is committed."""
        self.under_way -= stats.chars
        self._checks.sent_chars += stats.sent_chars


def questions(run: IndexRun, steps: Steps) -> list[Question]:
    """Return what a run asks its services, each with the policy of a run that may wait `[run] wait` seconds."""
    settings, index, wait = run.settings, run.index, patience(run.settings.run.wait)
    asked = [
        Question("source", run.source.check, wait, key="" if index.kind == SQL else ("source", index.name)),
        Question("store", run.store.collections, patience(settings.run.wait, 0)),  # it waits some seconds by itself
    ]
    if index.parts:
        asked.append(Question("parts", run.count_parts, wait, key=("parts", index.name)))
    if steps.count_workers is not None:
        asked.append(Question("workers", steps.count_workers, wait))
    if index.context is not None:
        service = ("context", index.context.model, *(index.context.hosts or []))
        asked.append(Question("context", partial(open_chunker, settings, index), wait, key=service))
    return [*asked, Question("embedder", partial(identify, settings.embedder), wait, kept=True)]


class AllDocuments:
    """All documents of an index. Runs over some documents override every step."""

    def begin(self, run: IndexRun, steps: Steps) -> Scan | None:
        """Check the services, wait `[run] wait` seconds for those that are down, and begin the scan.

        Returns None if there is nothing to do.
        """
        checks = current_checks()
        answers = checks.ask(questions(run, steps), steps.check)
        identity = answers["embedder"]
        chunker = answers.get("context") or open_chunker(run.settings, run.index)
        scan = Scan.begin(run, identity, chunker, workers=steps.workers)
        if not scan.collection.commits and (warning := prefix_warning(run.settings.embedder, identity)):
            if warning not in checks.said:
                run.outcome.say(warning)
            checks.said.add(warning)
        return scan

    def pages(self, run: IndexRun, steps: Steps) -> Iterator[SourcePage]:
        """Yield the pages of the source, which grow from a small first one, so that work begins soon.

        They grow to about `PAGE_CHARS`, so that short texts do not mean many small queries.
        """
        cursor, rows, max_rows, number = None, FIRST_ROWS, run.settings.source.page_rows, 0
        while True:
            number += 1
            with run.stopwatch.stage("fetch"):
                page = steps.fetch(run, number, cursor, min(rows, max_rows))
            yield page
            cursor = page.cursor
            if cursor is None:
                return
            mean = sum(map(len, page.documents.texts)) / max(1, len(page.documents)) + ROW_CHARS
            rows = max(1, min(rows * 4, max_rows, int(PAGE_CHARS / mean)))

    def delete(self, scan: Scan) -> None:
        """Delete what the source no longer has, unless `delete_guard` refuses."""
        scan.delete_gone()

    def publish(self, scan: Scan) -> None:
        """Verify the counts; of a rebuild also a sample and the guards, then move the alias."""
        scan.publish()
