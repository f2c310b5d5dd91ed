"""One scan of a source: the diff against the ledger, the shards to embed, and the commit of each shard.

The order of writes makes any death harmless: documents are marked pending in the ledger, points are upserted and made
durable, stale chunks are deleted, and the ledger's rows come last.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from rag_index.documents.canonical import byte_count
from rag_index.documents.keys import document_id
from rag_index.embedders.bm25 import bm25_model
from rag_index.errors import SourceUnavailable, StoreError, StoreRestored
from rag_index.evaluation.calibrate import Asked, begin, calibrate
from rag_index.indexing.commit import Committer, outdated_groups, update_payloads
from rag_index.indexing.delete_guard import DeleteGuard, held_back, hidden_by_policies, policy_digest
from rag_index.indexing.diff import Comparison, LedgerScanState, diff
from rag_index.indexing.embed import EmbedJob, VectorReuse, hang_limit, reusable
from rag_index.indexing.erase import erase
from rag_index.indexing.publish import (
    NOTHING_LIVE,
    GoldenWatch,
    begin_bulk,
    make_searchable,
    publish_rebuilt,
    search_index_due,
    useless_indexes,
    verify_counts,
)
from rag_index.indexing.reconcile import reconcile
from rag_index.indexing.sharding import MEAN_CHARS, Sharder, first_rate, most
from rag_index.indexing.steps import Destination
from rag_index.indexing.target import Target, recognised
from rag_index.indexing.tombstones import scopes, without_erased
from rag_index.ledger import reconciled_by
from rag_index.reports.outcome import count_of
from rag_index.settings.index import CODE
from rag_index.sources import SourcePage, scan_settings
from rag_index.sources.attachments import with_files
from rag_index.sources.sql import SqlSource
from rag_index.stores import REST_REMEDY, on_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import DocumentBatch, Failure, Shard, WrittenShard
    from rag_index.embedders import EmbedderIdentity
    from rag_index.indexing.run import IndexRun

LOGGER = logging.getLogger("rag_index.indexing")
LOGGED_REASONS = 20
MUCH_SECONDS = 10.0
"""What is much work for one process: some 50,000 texts of a few sentences for the local embedder."""


class Scan:
    """A scan of one index into one collection, for one run. Not safe to share between threads."""

    has_much = False
    """Whether it is sure before the first page that there is work for another process: the index is new, and large."""

    @classmethod
    def begin(
        cls,
        run: IndexRun,
        identity: EmbedderIdentity,
        chunker: Chunker,
        *,
        workers: int = 1,
        documents: int | None = None,
    ) -> Scan:
        """Choose the collection, and begin the scan of a run. Raises as `indexing.target.Target`.

        `workers` is how many shards will be embedded at a time; `documents` the expected total, if the caller knows it.
        """
        run.metrics.workers = max(1, workers)
        if documents is None:
            documents = 0
            with suppress(SourceUnavailable):  # the scan retries for longer
                documents = run.source.count()
        run.scan = scan = cls(run, identity, chunker)
        run.progress.start(documents)
        if scan.seconds_left >= MUCH_SECONDS:
            scan.has_much = True
            embedder = run.settings.embedder
            scan.sharder.begin_small(embedder.usual_request[1] if embedder.on_servers else 0)
        run.stopwatch.count_rest("start")
        return scan

    def __init__(self, run: IndexRun, identity: EmbedderIdentity, chunker: Chunker) -> None:
        """Choose the collection, bring it and the ledger together, and begin."""
        settings, index, ledger, store = run.settings, run.index, run.ledger, run.store
        single, live = run.single, run.alias in store.aliases()
        self.run, self.chunker = run, chunker
        self.identity = recognised(identity, ledger, store, run.alias)
        target = Target(
            ledger, store, run.alias, self.identity, chunker, bm25_model(index), index.name, scopes(settings, index)
        )
        bulk = settings.store.server.bulk and not store.embedded
        self.first = bulk and not single and not live
        self.rebuild = self.first or (run.options.full and (live or bool(ledger.collections(run.alias))))
        """Whether the collection is a new one, which is published at the end: beside the live one, or the first."""
        self.collection = target.beside(allow_loss=run.options.allow_loss) if self.rebuild else target.current()
        if not (self.rebuild or self._was_restored()):
            verify_counts(ledger, store, self.collection)
        if not single and self.collection.written_by != (written_by := scan_settings(settings, index)):
            ledger.write_by(self.collection, written_by, new=self.rebuild)
        self.epoch = self._configure_server()
        """Written into a server's collection: a server refuses workers of an earlier run by it."""
        make_searchable(store, self.collection.name, self.identity, index.indexed_fields)
        self.guard = DeleteGuard(ledger, self.collection, settings.run.delete_guard)
        self.policies = policy_digest(run.source)
        """The policies by which the database showed rows when the scan began."""
        if not single:
            self.guard.note_size()
        self._reuse = reusable(index.name, ledger, store, run.alias, self.identity) if self.rebuild else None
        if self._reuse is None and self.guard.any_documents and (index.kind == CODE or index.parts or index.has_files):
            self._reuse = VectorReuse(index.name, ledger, store, self.collection, own=True)
        ledger.begin_scan(run.alias)
        self.committer = Committer(index.name, ledger, store, self.collection)
        rate = first_rate(self.identity.kind, index, self.collection.chars_per_second)
        workers, size = run.metrics.workers, settings.parallel.shard_documents
        limits = most(index, self.identity.dimension, workers)
        self.sharder = Sharder(index.name, size, workers=workers, most=limits, chars_per_second=rate)
        self.comparison = Comparison(run, self.collection, rebuild=self.rebuild)
        full = self.rebuild or (self.comparison.must_read_all and not single)
        self._state = LedgerScanState(
            settings, index, run.source, ledger, self.collection.id,
            full=full, retry=run.options.retry_failed, single=single,
        )  # fmt: skip
        self._golden = GoldenWatch(run, self.collection, asks=not (self.rebuild or single))
        self._any_failures = ledger.count_failures(self.collection.id) > 0
        """Whether the ledger lists failed documents, so that pages have to look for theirs."""
        self._suspects: set[str] = set()
        self._calibrating: Future[Asked] | None = None
        self._chars = 0
        """Characters of all documents that have to be embedded, as far as the source was read."""
        self._excluded: list[Failure] = []
        """Indexed documents that a rule of the source now keeps out."""
        self._deletes_done = False
        others = [one.name for one in ledger.collections(run.alias) if one.id != self.collection.id]
        # last: from here on, the end of the run undoes it
        self.bulk = begin_bulk(store, others, self.collection.name, loaded=self.rebuild and bulk)
        """Whether the collection is published once the server has built its search index, which may be off."""

    def _was_restored(self) -> bool:
        """Return whether store and ledger were at different commits, after bringing them together.

        Raises StoreRestored for a run of single documents, which does not read what else has to be indexed again.
        """
        run, collection = self.run, self.collection
        difference = run.ledger.different_commits(collection, run.store.commit_mark(collection.name))
        if not difference:
            return False
        if run.single:
            raise StoreRestored(f"{difference}; {reconciled_by(run.index.name)}")
        run.progress.say("comparing every point with the ledger, because one of them was restored")
        deleted, again = reconcile(run.ledger, run.store, run.index.name, collection, check=run.lease.check)
        run.outcome.deleted += deleted
        found = f"{count_of(again, 'document')} to index again, {count_of(deleted, 'deleted document')} to delete again"
        run.outcome.say(f"{difference}; every point was compared: {found}")
        return True

    def _configure_server(self) -> int:
        """Give a server's collection a new epoch, which is returned, and what `[store.server]` says.

        The epoch is higher than any there, as a ledger may be new. The outcome says what cannot be done and is slow.
        """
        run, name = self.run, self.collection.name
        if (server := on_server(run.store)) is None:
            return 0
        epoch = max(run.lease.epoch, int(run.store.metadata(name).get("epoch") or 0) + 1)
        run.store.set_metadata(name, {"epoch": epoch})
        run.outcome.say(server.configure(name))
        if reason := server.fallback():
            slow = f"{reason}, so points are sent over REST, which is slower: {REST_REMEDY}"
            LOGGER.warning("%s", slow)
            if run.settings.store.server.grpc_port is not None:
                run.outcome.say(slow)  # somebody means it to be used
        return epoch

    def compare(self, page: SourcePage) -> Iterator[Shard]:
        """Compare a page with the ledger, and yield the shards of what has to be embedded that are full now.

        Documents whose payload alone changed, that are empty or that failed too often are dealt with on the way. The
        files of the others are read now.
        """
        page = without_erased(self.run.ledger, self.run.settings, self.run.index, page)
        with self.run.stopwatch.stage("diff"):
            to_embed = self._diff_page(page)
        for documents in with_files(to_embed) if to_embed.files else [to_embed]:
            for shard in self.sharder.add(documents, self._state.pages):
                self._golden.before_writing(more_to_read=True)
                yield self._marked(shard)

    def rest(self) -> list[Shard]:
        """Return the shards of what is left, after the last page."""
        self._golden.before_writing(more_to_read=False)
        run = self.run
        self._calibrating = begin(run.settings, run.index, run.ledger, run.store, self.collection, self.identity)
        return [self._marked(shard) for shard in self.sharder.rest()]

    def _marked(self, shard: Shard) -> Shard:
        return shard if self._suspects.isdisjoint(shard.documents.keys) else replace(shard, suspect=True)

    def _diff_page(self, page: SourcePage) -> DocumentBatch:
        """Compare a page with the ledger, do what needs no embedding, and return what has to be embedded."""
        run, cid, documents, outcome = self.run, self.collection.id, page.documents, self.run.outcome
        run.lease.check()
        unread = self._record_page(page)
        known = run.ledger.known(cid, documents.keys)
        failed = run.ledger.failures(cid, documents.keys) if self._any_failures else {}
        self._suspects.update(key for key, row in known.items() if row.pending)
        self._suspects.update(key for key, failure in failed.items() if failure.kind == "failed")
        changes = diff(documents, known, failed, retry=run.options.retry_failed or self.rebuild)
        self.comparison.note_page(changes, known, failed)
        if run.index.access is not None:  # points of documents that are not up to date soon get their groups now
            known_too = {**known, **run.ledger.known(cid, list(page.groups))}
            if outdated := outdated_groups(page, known_too, set(changes.payload_only.keys)):
                updated = update_payloads(self.committer, outdated, known_too, alone=False)
                known.update(run.ledger.known(cid, sorted(updated & known.keys())))
        run.ledger.note_emptied(changes.emptied)
        with run.ledger.transaction():
            run.ledger.forget_digests_of(cid, [*(row[0] for row in changes.newly_empty), *changes.recovered])
            run.ledger.record(cid, changes.newly_empty)
            if changes.recovered:
                run.ledger.clear_failures(cid, changes.recovered)
        payloads = dict(zip(changes.payload_only.keys, changes.payload_only.payloads, strict=True))
        updated = update_payloads(self.committer, payloads, known)
        damaged = [row for row, key in enumerate(payloads) if key not in updated]
        outcome.unchanged += changes.unchanged
        outcome.empty += changes.empty
        outcome.failed += changes.given_up
        outcome.payload_only += len(changes.payload_only) - len(damaged)
        to_embed = changes.to_embed.plus(changes.payload_only.take(damaged))
        self._chars += sum(map(len, to_embed.texts))
        self._golden.note(len(to_embed))
        self.committer.take(to_embed.keys, known)
        done = len(documents) + len(page.unreadable) + unread - len(to_embed)
        run.progress.advance(done, failed=changes.given_up + sum(f.kind == "failed" for f in page.unreadable))
        self.sharder.expect(max(0, run.progress.total - outcome.documents))
        return to_embed

    def _record_page(self, page: SourcePage) -> int:
        """Note what the page holds, and return how many of its documents were not read."""
        run, documents = self.run, page.documents
        unread, excluded = self._state.see(page, run.outcome)
        self._state.note(page)
        run.metrics.read_bytes += sum(map(byte_count, documents.texts)) + sum(map(len, documents.payloads))
        run.ledger.fail(self.collection.id, page.unreadable)
        self._excluded += excluded
        if self._state.pages == 1 and not run.single:
            for sentence in useless_indexes(documents.payloads, run.index.indexed_fields):
                run.outcome.say(sentence)
        return unread

    @property
    def seconds_left(self) -> float:
        """About how long one process would take for what is left to embed.

        What was not read yet is assumed to have changed as much as what was; before the first page, all of it if the
        collection is new, and else nothing.
        """
        run, seen = self.run, self.run.outcome.documents
        unread = max(0, run.progress.total - seen)
        new = self.rebuild or not self.guard.any_documents
        chars = self._chars * (1 + unread / seen) if seen else unread * MEAN_CHARS * new
        return max(0.0, chars - run.metrics.work.chars) / self.sharder.chars_per_second

    def mark_pending(self, shard: Shard) -> None:
        """Mark a shard's documents in the ledger as about to be written."""
        if self.run.metrics.first_shard_after is None:
            self.run.metrics.first_shard_after = time.monotonic() - self.run.started
        self.committer.mark_pending(shard.documents.keys)

    def job(self, shard: Shard) -> EmbedJob:
        """Return the shard with everything that embedding it needs."""
        run, documents, rate = self.run, shard.documents, self.sharder.chars_per_second
        known = self._reuse.vectors(documents.keys, documents.text_hashes) if self._reuse else {}
        limit = hang_limit(run.settings, run.index, chars=shard.chars, chars_per_second=rate)
        bm25, embedder = bm25_model(run.index), run.settings.embedder
        return EmbedJob(shard, self.chunker, embedder, self.identity, bm25, run.metrics.workers, known, limit)

    @cached_property
    def destination(self) -> Destination:
        """Where the points of this scan are written."""
        store = self.run.store
        return Destination(store, self.collection.name, None if store.embedded else self.epoch)

    def commit(self, written: WrittenShard) -> None:
        """Commit a shard whose points are in the store: delete its stale chunks, then write the ledger's rows.

        Raises IndexLocked where another run has taken the index over, and what store and ledger raise.
        """
        run, stats, failed = self.run, written.stats, sum(failure.kind == "failed" for failure in written.failures)
        with run.stopwatch.stage("commit"):
            run.lease.check()
            new = self.committer.commit(written)
        log, name = run.logger or LOGGER, run.index.name
        for failure in written.failures:  # logs outlive an erasure, so that keys are for debugging alone
            log.debug("%s: document %s %s: %s", name, document_id(failure.key), failure.kind, failure.reason)
        reasons = Counter((failure.kind, failure.reason) for failure in written.failures)
        for (kind, reason), count in reasons.most_common(LOGGED_REASONS):
            log.warning("%s: %s %s: %s", name, count_of(count, "document"), kind, reason)
        run.outcome.add(written, new=new)
        documents = len(written.keys) + failed
        run.metrics.add(written, documents=documents, dimension=self.collection.dimension)
        self.sharder.observe(stats.chars, stats.seconds)
        run.progress.advance(documents, failed=failed)

    def delete_gone(self) -> None:
        """Delete what the source no longer has, and the points of emptied documents, unless `delete_guard` refuses.

        Call it after the last page, when the whole source was seen.
        """
        run, cid = self.run, self.collection.id
        with run.stopwatch.stage("delete"):
            run.lease.check()
            if run.ledger.find_gone(cid) and isinstance(run.source, SqlSource):
                for keys in run.source.keys_now():
                    run.ledger.see(keys, page=0)
                run.ledger.find_gone(cid)
            self.guard.hidden, refused = self.hidden(), ""
            if self.rebuild or run.options.allow_deletes:
                refused = self.guard.allow()
            elif refused := self.guard.hold_back():
                run.outcome.hold_back(run.ledger.count_held(cid), refused)
                run.ledger.define(run.alias, self.policies, "policies")
                return
            self._delete_lost()
            if not self.rebuild:
                run.ledger.define(run.alias, self.policies, "policies")
            run.ledger.forget_unseen_failures(cid)
            held = self.guard.finish()
            run.outcome.hold_back(held, refused or held_back(held, run.index.name))
            self._deletes_done = not run.ledger.count_emptied()  # those must be read again

    def delete_some(self, gone: Sequence[str], *, seen: Sequence[str], named: bool) -> None:
        """Delete documents that the source no longer has, and the points of emptied ones, in a scan of some documents.

        `named` documents may be deleted without the guard: the caller listed them. For a batch of changes, which
        nobody named, `delete_guard` holds, and counts all batches of a day together.
        """
        run, cid = self.run, self.collection.id
        with run.stopwatch.stage("delete"):
            run.lease.check()
            run.ledger.note_gone(gone)
            run.ledger.release(cid, [*seen, *gone], even_lost=named)
            if not named:
                self.guard.hidden = self.hidden()
                run.outcome.hold_back(*self.guard.hold_back_batch())
            self._delete_lost()

    def hidden(self) -> str:
        """Return why what the source lacks may only be hidden; "" if policies and reader stayed what they were."""
        return hidden_by_policies(self.run.ledger, self.run.alias, self.policies, policy_digest(self.run.source))

    def _delete_lost(self) -> None:
        for deleted in self.committer.delete_lost(note=self.comparison.note_deleted):
            self.run.outcome.deleted += deleted
        self.run.ledger.fail(self.collection.id, self._excluded)  # deleting their points took them off the list

    @property
    def search_index_due(self) -> bool:
        """Whether the run should build the search index of the collection. A batch of a watch leaves it to a run."""
        name, dimension = self.collection.name, self.collection.dimension
        return not self.run.single and search_index_due(self.run.store, name, dimension)

    def build_search_index(self) -> None:
        """Build the search index of the collection. A failure costs searches time and nothing else: it is logged."""
        run, name, began = self.run, self.collection.name, time.monotonic()
        log = run.logger or LOGGER
        run.progress.say("building the search index")
        try:
            with run.stopwatch.stage("search index"):
                run.store.optimize(name)
            log.info("the search index of %s was built in %.1f s", name, time.monotonic() - began)
        except StoreError as error:
            remedy = "searches scan until the next run builds it"
            log.warning("the search index of %s was not built (%s); %s", name, error, remedy)

    @property
    def erasure_due(self) -> bool:
        """Whether the run ends with an erasure: `[store] erase` is set, and there is something to erase."""
        run = self.run
        if not run.settings.store.erase or (live := run.live) is None or live.id != self.collection.id:
            return False
        others = (c.id != live.id and c.state == "ready" for c in run.ledger.collections(run.alias))
        pending = run.ledger.pending_erasures(run.alias)
        return any(not pending.pieces.get(one) for one in pending.hashes) or any(others)

    def erase(self) -> None:
        """Erase what was deleted or changed from the store's files. Raises as `indexing.erase.erase`."""
        run = self.run
        with run.stopwatch.stage("erase"):
            erased = erase(run.settings, run.index, run.ledger, run.store, run.lease)
            run.ledger.end_erasure(run.alias, unproven=False)
            self.collection = (erased and run.ledger.collection(erased.collection)) or self.collection

    def publish(self) -> None:
        """Verify the collection; let readers see a rebuilt one, and drop those beyond `keep_previous`.

        Raises StoreMismatch if store and ledger differ, or if sampled chunks do not find themselves.
        """
        run, name, published = self.run, self.collection.name, True
        with run.stopwatch.stage("publish"):
            if (rate := self.sharder.measured) is not None:
                run.ledger.update_collection(self.collection.id, chars_per_second=rate)
            if self.rebuild:
                if self.bulk and (server := on_server(run.store)) is not None:
                    server.resume_indexing(name)
                    run.progress.say("waiting for the server to build the search index")
                    run.store.optimize(name)
                if published := publish_rebuilt(run, self.collection, self.identity, first=self.first):
                    run.ledger.define(run.alias, self.policies, "policies")
            else:
                verify_counts(run.ledger, run.store, self.collection)
                if not self.guard.any_documents and run.index.gate is not None:
                    run.outcome.say(NOTHING_LIVE)
                self._golden.report()
            calibrate(
                run.settings, run.index, run.ledger, run.store, self.collection, self.identity, run.stopwatch,
                self._calibrating,
            )  # fmt: skip
        for part, rows in run.part_rows.items():
            run.ledger.note_size(self.collection.id, rows, part)
        if self._deletes_done:
            self._state.complete()
        if published:
            read_all = self._state.read_all or run.index.kind == CODE
            self.comparison.complete(read_all=read_all, all_deleted=self._deletes_done)
