"""One run of one index: what it holds open, and each step of it as one method, in the order in which flows call them.

    begin -> (plan -> submit -> settle)* -> delete_gone -> verify -> publish -> outcome

The order of writes makes any death harmless: documents are marked open in the ledger, points are upserted and made
durable, stale chunks deleted, and the ledger's rows come last.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_index.chunking import open_chunker
from rag_index.embedders import open_embedder
from rag_index.errors import RagIndexError, SourceUnavailable
from rag_index.indexing.commit import Committer
from rag_index.indexing.deletes import delete_gone_documents, deleted
from rag_index.indexing.diff import compare
from rag_index.indexing.guards import deletion_refused, too_few_left, too_many_failed
from rag_index.indexing.payloads import update_payloads
from rag_index.indexing.publish import publish_collection, verify_counts, verify_sample
from rag_index.indexing.scan_state import LedgerScanState
from rag_index.indexing.search_index import make_searchable
from rag_index.indexing.sharding import Sharder, first_rate, max_chars
from rag_index.indexing.target import Target
from rag_index.indexing.vector_reuse import VectorReuse, reusable
from rag_index.ledger import Ledger
from rag_index.ledger.lease import IndexLease
from rag_index.machine.resources import cpu_count, load, worker_memory, workers_for
from rag_index.reports.advice import advice
from rag_index.reports.metrics import RunMetrics, Stopwatch
from rag_index.reports.outcome import IndexOutcome
from rag_index.reports.progress import Progress
from rag_index.settings.index import CODE
from rag_index.sources import open_source
from rag_index.sources.sql import not_unique
from rag_index.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import Failure, Shard, WrittenShard
    from rag_index.embedders import EmbedderIdentity
    from rag_index.errors import NoWorkers
    from rag_index.ledger import Collection
    from rag_index.settings import IndexSettings, Settings
    from rag_index.sources import Source, SourcePage
    from rag_index.stores import Store

__all__ = ["IndexRun", "RunOptions", "open_run"]


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What one run does differently from the settings."""

    full: bool = False
    allow_deletes: bool = False
    retry_failed: bool = False


class IndexRun:
    """See the module. Not safe to share between threads."""

    def __init__(
        self,
        settings: Settings,
        index: IndexSettings,
        options: RunOptions,
        *,
        run_id: str,
        source: Source,
        ledger: Ledger,
        lease: IndexLease,
        store: Store,
    ) -> None:
        self.settings = settings
        self.index = index
        self.options = options
        self.run_id = run_id
        self.source = source
        self.ledger = ledger
        self.lease = lease
        self.store = store
        self.alias = settings.alias(index.name)
        self.outcome = IndexOutcome(index.name)
        self.progress = Progress(index.name)
        count = workers_for(settings.parallel, worker_memory(settings.embedder))
        self.workers = 1 if settings.parallel.serial else count
        self.watch = Stopwatch()
        self.metrics = RunMetrics(workers=self.workers)
        self.epoch = 0
        """Written into a server's collection: workers of another run are refused by it."""
        self.in_process = False
        """So little is to be embedded, seen when the whole source was, that starting workers would cost more."""
        self._started = time.monotonic()
        self._page = 0
        self._scan_complete = False
        self._kept_out: list[Failure] = []
        self._rebuild = options.full

    @cached_property
    def chunker(self) -> Chunker:
        """Who cuts documents. Asks the model that writes contexts, where the index has one, and raises as that does."""
        return open_chunker(self.settings, self.index)

    # begin

    def begin(self, identity: EmbedderIdentity, *, documents: int | None = None) -> None:
        """Choose the collection, look at the totals, make ready for a scan; of so many documents, where that is known.
        Raises as `Target` does."""
        self.identity = identity
        target = Target(self.ledger, self.store, self.alias, identity, self.chunker, index=self.index.name)
        known = self.alias in self.store.aliases() or bool(self.ledger.collections(self.alias))
        self._rebuild = self._rebuild and known
        self.collection: Collection = target.beside() if self._rebuild else target.current()
        if not self.store.embedded:
            earlier = self.store.metadata(self.collection.name).get("epoch") or 0
            self.epoch = max(self.lease.epoch, int(earlier) + 1)  # a new ledger counts from one again
            self.store.set_metadata(self.collection.name, {"epoch": self.epoch})
        make_searchable(self.store, self.collection.name, identity, self.index.indexed_fields)
        self.reuse = reusable(self.index.name, self.ledger, self.store, self.alias, identity) if self._rebuild else None
        self.committer = Committer(self.index.name, self.ledger, self.store, self.collection)
        before = self.ledger.totals(self.collection.id)
        self._documents_before = before.documents + before.pending
        if self.index.kind == CODE and self.reuse is None and self._documents_before:
            self.reuse = VectorReuse(self.index.name, self.ledger, self.store, self.collection, own=True)
        self.ledger.begin_scan()
        self._any_failures = self.ledger.count_failures(self.collection.id) > 0
        parallel = self.settings.parallel
        self.sharder = Sharder(
            self.index.name,
            documents=None if parallel.shard_documents == "auto" else parallel.shard_documents,
            seconds=parallel.shard_seconds,
            min_documents=parallel.min_shard_documents,
            most=parallel.max_shard_documents,
            chars_per_second=first_rate(identity.kind, self.index, self.collection.chars_per_second),
            workers=self.workers,
            max_chars=max_chars(self.index),
        )
        self.changes = LedgerScanState(
            self.source, self.index, self.ledger, self.collection.id,
            full=self._rebuild, retry=self.options.retry_failed,
        )  # fmt: skip
        self.progress.start(self._expected() if documents is None else documents)

    def _expected(self) -> int:
        """How many documents there are; 0 where the source cannot say now, since the scan tries longer than this."""
        try:
            return self.source.count()
        except SourceUnavailable:
            return 0

    # plan and submit

    def shards(self, pages: Iterable[SourcePage]) -> Iterator[Shard]:
        """All that has to be embedded, in shards, while pages are read."""
        for page in pages:
            yield from self.plan(page)
        few = self.metrics.first_shard_after is None and self.settings.parallel.workers == "auto"
        self.in_process = self.in_process or (few and self.settings.parallel.shard_documents == "auto")
        yield from self.sharder.rest()

    def plan(self, page: SourcePage) -> list[Shard]:
        """Hold a page against the ledger, do what needs no embedding, give the shards that are full."""
        with self.watch.stage("diff"):
            return list(self._plan(page))

    def _plan(self, page: SourcePage) -> Iterator[Shard]:
        self.lease.check()
        self._page += 1
        documents, cid, index = page.documents, self.collection.id, self.index.name
        unreadable = [failure.key for failure in page.unreadable]
        if twice := self.ledger.see([*documents.keys, *unreadable, *page.unread], page=self._page):
            raise not_unique(self.index, twice[0])
        self.changes.note(page, self.outcome)
        known = self.ledger.known(cid, documents.keys)
        failed = self.ledger.failures(cid, documents.keys) if self._any_failures else {}
        plan = compare(documents, known, failed, retry=self.options.retry_failed or self._rebuild)
        outcome = self.outcome
        outcome.documents += len(documents) + len(unreadable)
        outcome.unchanged += plan.unchanged
        outcome.empty += plan.empty
        outcome.failed += plan.given_up
        outcome.count(page.unreadable)
        self.ledger.fail(cid, page.unreadable)
        self._keep_out(page.unreadable)
        self.ledger.note_emptied(plan.emptied)
        self.ledger.record(cid, plan.newly_empty)
        if plan.recovered:
            self.ledger.clear_failures(cid, plan.recovered)
        damaged = update_payloads(index, self.ledger, self.store, self.collection, plan.payload_only, known)
        outcome.payload_only += len(plan.payload_only) - len(damaged)
        to_embed = plan.to_embed.plus(plan.payload_only.take(damaged))
        self.committer.take(to_embed.keys, known)
        settled = len(documents) + len(unreadable) + len(page.unread) - len(to_embed)
        self.progress.advance(settled, failed=plan.given_up + sum(f.kind == "failed" for f in page.unreadable))
        self.sharder.expect(max(0, self.progress.total - outcome.documents))
        yield from self.sharder.add(to_embed)

    def _keep_out(self, failures: list[Failure]) -> None:
        """What a rule of the source keeps out now, and was indexed before, is deleted as an emptied text is."""
        skipped = {failure.key: failure for failure in failures if failure.kind == "skipped"}
        known = self.ledger.known(self.collection.id, list(skipped)) if skipped else {}
        indexed = [key for key, row in known.items() if row.chunks or row.pending]
        self.ledger.note_emptied([(key, b"", b"") for key in indexed])
        self._kept_out += [skipped[key] for key in indexed]

    def submit(self, shard: Shard) -> Shard:
        """Mark a shard's documents as about to be written."""
        if self.metrics.first_shard_after is None:
            self.metrics.first_shard_after = time.monotonic() - self._started
        self.ledger.mark_pending(self.collection.id, shard.documents.keys)
        return shard

    def known_vectors(self, shard: Shard) -> dict[str, NDArray[np.float32]]:
        """Vectors of the shard's texts that are there already, by text as it is sent."""
        documents = shard.documents
        return self.reuse.vectors(documents.keys, documents.text_hashes) if self.reuse else {}

    def go_on_alone(self, error: NoWorkers) -> None:
        """Embed in this process from here on, since there are no others: late is better than not at all."""
        self.in_process = True
        self.workers = self.metrics.workers = 1
        self.outcome.message = f"it was indexed in one process: {error}"
        self.progress.say("no workers, going on in one process")

    # settle

    def commit(self, written: WrittenShard) -> None:
        """A shard's points are in the store: delete stale chunks, then write the ledger's rows."""
        with self.watch.stage("commit"):
            self._commit(written)
        self.metrics.add(written.stats, sum(written.chunk_counts))

    def _commit(self, written: WrittenShard) -> None:
        self.lease.check()
        outcome = self.outcome
        new = self.committer.commit(written)
        self._any_failures = self._any_failures or bool(written.failures)
        outcome.new += new
        outcome.changed += len(written.keys) - new
        outcome.count(written.failures)
        outcome.chunks_embedded += sum(written.chunk_counts) - written.stats.reused
        outcome.contexts_made += written.stats.contexts_made
        outcome.contexts_cached += written.stats.contexts_cached
        outcome.contexts_missing += written.stats.contexts_missing
        self.sharder.observe(written.stats.chars, written.stats.seconds)
        failed = sum(failure.kind == "failed" for failure in written.failures)
        self.progress.advance(len(written.keys) + failed, failed=failed)

    # the end

    def delete_gone(self) -> None:
        """After a scan that came to its end: delete what the source has no more, and points of emptied texts."""
        with self.watch.stage("delete"):
            self._delete_gone()

    def _delete_gone(self) -> None:
        self.lease.check()
        cid = self.collection.id
        deletions = self.ledger.count_gone(cid) + self.ledger.count_emptied()
        refused = deletion_refused(deletions, self._documents_before, self.settings.run.delete_guard)
        if refused and not self.options.allow_deletes:
            self._hold(refused)
            return
        self._scan_complete = True
        for count in delete_gone_documents(self.ledger, self.store, self.collection, self.index.name):
            self.outcome.deleted += count
        self.ledger.fail(cid, self._kept_out)  # deleting what they had took them off the list
        self.ledger.forget_unseen_failures(cid)

    def delete(self, keys: Sequence[str]) -> None:
        """Where single documents were asked for: delete these, which the source has no more, and points of emptied
        texts. The rest of the index was not looked at, and stays as it is."""
        with self.watch.stage("delete"):
            self.lease.check()
            for count in deleted(self.ledger, self.store, self.collection, self.index.name, keys):
                self.outcome.deleted += count

    def verify(self) -> None:
        """See that the store holds what the ledger says. Raises StoreMismatch."""
        with self.watch.stage("publish"):
            verify_counts(self.ledger, self.store, self.collection)

    def verify_and_publish(self) -> None:
        """See that the store holds what the ledger says; show a rebuilt collection, drop what is beyond keep_previous.

        Raises:
            StoreMismatch: store and ledger differ, or sampled chunks do not find themselves.
        """
        with self.watch.stage("publish"):
            self._verify_and_publish()

    def _verify_and_publish(self) -> None:
        self.ledger.update_collection(self.collection.id, chars_per_second=self.sharder.chars_per_second)
        if not self._rebuild:
            verify_counts(self.ledger, self.store, self.collection)
            return
        embedder = open_embedder(self.settings.embedder, expected=self.identity)
        try:
            verified = verify_sample(self.ledger, self.store, self.index.name, self.collection, embedder)
        finally:
            embedder.close()
        self.outcome.verified = verified.sentence()
        self._publish(verified.documents)

    def _publish(self, documents: int) -> None:
        live = self.ledger.collection(self.store.aliases().get(self.alias, ""))
        before = self.ledger.totals(live.id).documents if live else 0
        name, limits = self.collection.name, self.settings.run
        refused = too_many_failed(name, self.outcome.failed, self.outcome.documents, limits.tolerate_failed)
        if not self.options.allow_deletes:
            refused = too_few_left(name, documents, before, limits.delete_guard) or refused
        if refused:
            self._hold(refused)
            return
        publish_collection(self.ledger, self.store, self.collection, keep=self.settings.store.keep_previous)

    def _hold(self, message: str) -> None:
        self.outcome.message = "; ".join(filter(None, [self.outcome.message, message]))
        self.outcome.state = "partial"

    def finish(self) -> IndexOutcome:
        """All steps are done: the outcome."""
        outcome = self.outcome
        outcome.seconds = time.monotonic() - self._started
        share = outcome.failed / max(1, outcome.documents)
        if outcome.failed and share > self.settings.run.tolerate_failed:
            s = "s" if outcome.failed != 1 else ""
            self._hold(f"{outcome.failed:,} document{s} failed: `rag-index failed {self.index.name}` lists them")
        outcome.message = "; ".join(filter(None, [outcome.message, outcome.lacking]))
        if self._scan_complete:
            self.changes.complete()
        self._note(outcome)
        return outcome

    def fail(self, error: BaseException) -> IndexOutcome:
        """The run ends here; what was done is kept."""
        outcome = self.outcome
        outcome.seconds = time.monotonic() - self._started
        outcome.state = "failed"
        outcome.message = str(error) if isinstance(error, RagIndexError) else f"{type(error).__name__}: {error}"
        outcome.exit_code = getattr(error, "exit_code", 1)
        self._note(outcome)
        return outcome

    def _note(self, outcome: IndexOutcome) -> None:
        """Figures, advice and outcome into the ledger."""
        metrics = self.metrics
        metrics.documents, metrics.seconds, metrics.stages = outcome.documents, outcome.seconds, {**self.watch.seconds}
        metrics.load, metrics.processors = load(), cpu_count()
        self.advice = advice(metrics, self.settings.embedder)
        report = {**outcome.to_json(), "metrics": metrics.to_json(), "advice": self.advice}
        self.ledger.finish_run(self.run_id, state=outcome.state, message=outcome.message, report=report)


@contextmanager
def open_run(settings: Settings, name: str, options: RunOptions, *, run_id: str) -> Iterator[IndexRun]:
    """Open all that a run needs, in the order in which it is taken: source, ledger, lock, store.

    Raises UnknownIndex, SettingsError, SourceError, LedgerError, IndexLocked, StoreBusy and their transient kin.
    """
    index = settings.index(name)
    with ExitStack() as stack:
        source: Any = stack.enter_context(closing(open_source(settings, index)))
        ledger: Any = stack.enter_context(closing(Ledger(settings.ledger_url)))
        lease = stack.enter_context(IndexLease(ledger, settings.alias(name), run_id))
        store: Any = stack.enter_context(closing(open_store(settings.store, wait=settings.run.wait)))
        ledger.start_run(run_id, settings.alias(name), host=socket.gethostname(), pid=os.getpid())
        yield IndexRun(settings, index, options, run_id=run_id, source=source, ledger=ledger, lease=lease, store=store)
