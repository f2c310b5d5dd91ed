"""One scan of a source: the diff against the ledger, the shards to embed, and the commit of each shard.

The order of writes makes any death harmless: documents are marked pending in the ledger, points are upserted and made
durable, stale chunks are deleted, and the ledger's rows come last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rag_index.documents.canonical import byte_count
from rag_index.embedders.bm25 import bm25_model
from rag_index.indexing.commit import outdated_groups, update_access, update_payloads
from rag_index.indexing.delete_guard import held_back
from rag_index.indexing.diff import diff
from rag_index.indexing.embed import EmbedJob, hang_limit
from rag_index.indexing.publish import NOTHING_LIVE, GoldenWatch, calibrate, publish_rebuilt, verify_counts
from rag_index.indexing.search_index import build_search_index, search_index_due, useless_indexes
from rag_index.indexing.sharding import MEAN_CHARS
from rag_index.settings.index import CODE
from rag_index.sources.sql import not_unique
from rag_index.stores import server_collections

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.chunking import Chunker
    from rag_index.documents.batches import Failure, Shard, WrittenShard
    from rag_index.embedders import EmbedderIdentity
    from rag_index.errors import NoWorkers
    from rag_index.indexing.commit import Committer
    from rag_index.indexing.delete_guard import DeleteGuard
    from rag_index.indexing.diff import Comparison, LedgerScanState, PageDiff
    from rag_index.indexing.embed import VectorReuse
    from rag_index.indexing.run import IndexRun
    from rag_index.indexing.sharding import Sharder
    from rag_index.indexing.steps import Steps
    from rag_index.ledger import Collection, Known
    from rag_index.sources import SourcePage


@dataclass(frozen=True, slots=True)
class Scan:
    """A scan of one index into one collection, made by `IndexRun.begin`. Not safe to share between threads."""

    run: IndexRun
    identity: EmbedderIdentity
    chunker: Chunker
    collection: Collection
    rebuild: bool
    """Whether the collection is a new one, which is published at the end: beside the live one, or the first."""
    first: bool
    """Whether no collection is live, so that the new one has nothing to be compared with."""
    bulk: bool
    """Whether the collection is published once the server has built its search index, which may be off until then."""
    epoch: int
    """Written into a server's collection: a server refuses workers of an earlier run by it. 0 in an embedded store."""
    guard: DeleteGuard
    sharder: Sharder
    committer: Committer
    state: LedgerScanState
    reuse: VectorReuse | None
    comparison: Comparison
    golden: GoldenWatch | None
    """Asks golden queries before and after an ordinary run, if the index has a gate."""
    _progress: ScanProgress

    def shards(self, pages: Iterable[SourcePage]) -> Iterator[Shard]:
        """Read pages, and yield everything that has to be embedded, in shards.

        Documents whose payload alone changed, that are empty or that failed too often are dealt with on the way.
        If the size of shards is `auto`, and the whole source does not fill one, the shards are marked `in_process`:
        starting workers, however many, would take longer than embedding.
        """
        any_shard = False
        for page in pages:
            with self.run.stopwatch.stage("diff"):
                shards = list(self._diff_page(page))
            if shards and self.golden is not None:
                self.golden.before_writing(more_to_read=True)
            any_shard = any_shard or bool(shards)
            yield from shards
        parallel = self.run.settings.parallel
        in_process = not any_shard and parallel.shard_documents == "auto" and not parallel.address
        if self.golden is not None:
            self.golden.before_writing(more_to_read=False)
        for shard in self.sharder.rest():
            yield replace(shard, in_process=in_process)

    @property
    def seconds_left(self) -> float:
        """About how long one process would take for what is left to embed.

        What was not read yet is assumed to have changed as much as what was; before the first page, all of it if the
        collection is new, and else nothing.
        """
        run, seen = self.run, self.run.outcome.documents
        unread = max(0, run.progress.total - seen)
        new = self.rebuild or not self.guard.any_documents
        chars = self._progress.chars * (1 + unread / seen) if seen else unread * MEAN_CHARS * new
        return max(0.0, chars - run.metrics.chars) / self.sharder.chars_per_second

    def index(self, pages: Iterable[SourcePage], steps: Steps) -> None:
        """Embed, upsert and commit everything in these pages that changed. Raises as the steps and `commit`."""
        for written in steps.write(self, self.shards(pages)):
            self.commit(written)

    def _diff_page(self, page: SourcePage) -> Iterator[Shard]:
        """Compare a page with the ledger, do what needs no embedding, and yield the shards that are full."""
        run, cid, documents = self.run, self.collection.id, page.documents
        run.lease.check()
        known, unread = self._record_page(page)
        if self._progress.pages == 1 and not run.options.single:
            for sentence in useless_indexes(documents.payloads, run.index.indexed_fields):
                run.outcome.say(sentence)
        failed = run.ledger.failures(cid, documents.keys) if self._progress.any_failures else {}
        self._progress.suspects.update(key for key, row in known.items() if row.pending)
        self._progress.suspects.update(key for key, failure in failed.items() if failure.kind == "failed")
        changes = diff(documents, known, failed, retry=run.options.retry_failed or self.rebuild)
        self.comparison.note_page(changes, known, failed)
        if run.index.access is not None:
            self._update_access(page, known, changes)
        run.ledger.note_emptied(changes.emptied)
        self._progress.emptied.update(row[0] for row in changes.emptied)
        self._record_settled(changes)
        damaged = update_payloads(self.committer, changes.payload_only, known)
        outcome = run.outcome
        outcome.unchanged += changes.unchanged
        outcome.empty += changes.empty
        outcome.failed += changes.given_up
        outcome.payload_only += len(changes.payload_only) - len(damaged)
        to_embed = changes.to_embed.plus(changes.payload_only.take(damaged))
        self._progress.chars += sum(map(len, to_embed.texts))
        if self.golden is not None:
            self.golden.note(len(to_embed))
        self.committer.take(to_embed.keys, known)
        done = len(documents) + len(page.unreadable) + unread - len(to_embed)
        run.progress.advance(done, failed=changes.given_up + sum(f.kind == "failed" for f in page.unreadable))
        all_new = not known and run.progress.total >= outcome.documents
        self.sharder.expect(max(0, run.progress.total - outcome.documents), all_new=all_new)
        yield from self.sharder.add(to_embed)

    def _record_settled(self, changes: PageDiff) -> None:
        """Record documents that are empty and have no points, and those that no longer differ from their points."""
        ledger, cid = self.run.ledger, self.collection.id
        with ledger.transaction():
            ledger.forget_digests_of(cid, [*(row[0] for row in changes.newly_empty), *changes.recovered])
            ledger.record(cid, changes.newly_empty)
            if changes.recovered:
                ledger.clear_failures(cid, changes.recovered)

    def _update_access(self, page: SourcePage, known: dict[str, Known], changes: PageDiff) -> None:
        """Give points of documents that are not up to date soon the groups that may see them now; update `known`."""
        run, cid = self.run, self.collection.id
        known_too = {**known, **run.ledger.known(cid, list(page.groups))}
        outdated = outdated_groups(page, known_too, set(changes.payload_only.keys))
        if outdated:
            updated = update_access(self.committer, outdated, known_too)
            known.update(run.ledger.known(cid, sorted(updated & known.keys())))

    def _record_page(self, page: SourcePage) -> tuple[dict[str, Known], int]:
        """Note what the page holds. Return what the ledger knows of its documents, and how many were not read."""
        run, documents = self.run, page.documents
        self._progress.pages += 1
        unreadable = [failure.key for failure in page.unreadable]
        keys = [*documents.keys, *unreadable, *page.unread]
        buckets = [page.digests[key].bucket for key in keys] if page.digests else None
        if twice := run.ledger.see(keys, page=self._progress.pages, buckets=buckets):
            raise not_unique(run.index, twice[0])
        unread = self.state.note(page, run.outcome)
        run.metrics.read_bytes += sum(map(byte_count, documents.texts)) + sum(map(len, documents.payloads))
        run.outcome.documents += len(documents) + len(unreadable)
        run.outcome.count(page.unreadable)
        run.ledger.fail(self.collection.id, page.unreadable)
        self._exclude(page.unreadable)
        return run.ledger.known(self.collection.id, documents.keys), unread

    def _exclude(self, failures: list[Failure]) -> None:
        """Mark indexed documents for deletion that a rule of the source now excludes."""
        skipped = {failure.key: failure for failure in failures if failure.kind == "skipped"}
        known = self.run.ledger.known(self.collection.id, list(skipped)) if skipped else {}
        indexed = [key for key, row in known.items() if row.chunks or row.pending]
        self.run.ledger.note_emptied([(key, b"", b"") for key in indexed])
        self._progress.emptied.update(indexed)
        self._progress.excluded += [skipped[key] for key in indexed]

    def is_suspect(self, shard: Shard) -> bool:
        """Return whether a document of the shard may kill the process that embeds it: see `indexing.child`."""
        return not self._progress.suspects.isdisjoint(shard.documents.keys)

    def label(self, number: int) -> str:
        """Return the name of a shard for people: "comments 31 of 140", or without the total while that is unknown."""
        total = self.sharder.total
        return f"{self.run.index.name} {number}" + (f" of {total}" if total is not None and total >= number else "")

    def mark_pending(self, shard: Shard) -> None:
        """Mark a shard's documents in the ledger as about to be written."""
        if self.run.metrics.first_shard_after is None:
            self.run.metrics.first_shard_after = time.monotonic() - self.run.started
        self.committer.mark_pending(shard.documents.keys)

    def job(self, shard: Shard) -> EmbedJob:
        """Return the shard with everything that embedding it needs."""
        settings, documents = self.run.settings, shard.documents
        known = self.reuse.vectors(documents.keys, documents.text_hashes) if self.reuse else {}
        workers = self.run.metrics.workers
        rate = self.sharder.chars_per_second
        limit = hang_limit(settings, self.run.index, chars=shard.chars, chars_per_second=rate)
        bm25 = bm25_model(self.run.index)
        return EmbedJob(shard, self.chunker, settings.embedder, self.identity, bm25, workers, known, limit)

    def continue_alone(self, error: NoWorkers) -> None:
        """Note that this process embeds the rest, because workers do not start: late is better than not at all."""
        self.run.metrics.workers = 1
        self.run.outcome.say(f"it was indexed in one process: {error}")
        self.run.progress.say("no workers, continuing in one process")

    def commit(self, written: WrittenShard) -> None:
        """Commit a shard whose points are in the store: delete its stale chunks, then write the ledger's rows.

        Raises IndexLocked where another run has taken the index over, and what store and ledger raise.
        """
        run, stats = self.run, written.stats
        with run.stopwatch.stage("commit"):
            run.lease.check()
            new = self.committer.commit(written)
        run.outcome.add(written, new=new)
        run.metrics.add(
            stats,
            documents=len(written.keys) + sum(failure.kind == "failed" for failure in written.failures),
            chunks=sum(written.chunk_counts),
            dimension=self.collection.dimension,
            write_seconds=written.write_seconds,
        )
        self.sharder.observe(stats.chars, stats.seconds)
        failed = sum(failure.kind == "failed" for failure in written.failures)
        run.progress.advance(len(written.keys) + failed, failed=failed)

    def delete_gone(self) -> None:
        """Delete what the source no longer has, and the points of emptied documents, unless `delete_guard` refuses.

        Call it after the last page, when the whole source was seen.
        """
        run, cid = self.run, self.collection.id
        with run.stopwatch.stage("delete"):
            run.lease.check()
            refused = ""
            if self.rebuild or run.options.allow_deletes:
                refused = self.guard.allow()
            elif refused := self.guard.hold_back():
                run.outcome.hold_back(run.ledger.count_held(cid), refused)
                return
            note = self.comparison.note_deleted
            for deleted in self.committer.delete_gone(note=note):
                run.outcome.deleted += deleted
            run.ledger.fail(cid, self._progress.excluded)  # deleting their points took them off the list
            run.ledger.forget_unseen_failures(cid)
            held = self.guard.finish()
            run.outcome.hold_back(held, refused or held_back(held, run.index.name))
            self._progress.deletes_done = not run.ledger.count_emptied()  # those must be read again

    def delete(self, keys: Sequence[str]) -> None:
        """Delete these documents, which the source no longer has, and the points of emptied ones.

        For single documents: the rest of the index was not looked at and stays as it is.
        """
        run = self.run
        with run.stopwatch.stage("delete"):
            run.lease.check()
            run.ledger.release_seen(self.collection.id)  # whoever names a document allows its deletion
            for deleted in self.committer.delete_named(keys):
                run.outcome.deleted += deleted

    def delete_changed(self, keys: Sequence[str], *, seen: Sequence[str]) -> None:
        """Delete these documents, which the source no longer has, and the points of emptied ones, unless refused.

        For a batch of changes, which nobody named: `delete_guard` holds, and counts all batches of a day together.
        The documents `seen` are no longer held back, unless they are empty.
        """
        run, cid = self.run, self.collection.id
        with run.stopwatch.stage("delete"):
            run.lease.check()
            lost = {*keys, *self._progress.emptied}
            run.ledger.release_named(cid, sorted(set(seen) - lost))
            lost -= run.ledger.held_of(cid, sorted(lost))
            if lost and (refused := self.guard.hold_back_named(sorted(lost))):
                run.outcome.hold_back(len(lost), refused)
            held = run.ledger.held_of(cid, keys)
            gone = [key for key in keys if key not in held]
            for deleted in self.committer.delete_named(gone):
                run.outcome.deleted += deleted
            run.ledger.fail(cid, self._progress.excluded)  # deleting their points took them off the list

    @property
    def search_index_due(self) -> bool:
        """Whether the run should build the search index of the collection."""
        dimension, mode = self.collection.dimension, self.run.settings.store.hnsw
        return search_index_due(self.run.store, self.collection.name, dimension, mode)

    def build_search_index(self, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        """Build the search index of the collection. A failure is logged."""
        self.run.progress.say("building the search index")
        with self.run.stopwatch.stage("search index"):
            build_search_index(self.run.store, self.collection.name, self.run.index.name, logger)

    def verify(self) -> None:
        """Check that the store holds what the ledger says. Raises StoreMismatch."""
        with self.run.stopwatch.stage("publish"):
            verify_counts(self.run.ledger, self.run.store, self.collection)

    def publish(self) -> None:
        """Verify the collection; let readers see a rebuilt one, and drop those beyond `keep_previous`.

        Raises:
            StoreMismatch: store and ledger differ, or sampled chunks do not find themselves.
        """
        run, published = self.run, True
        with run.stopwatch.stage("publish"):
            if (rate := self.sharder.measured) is not None:
                run.ledger.update_collection(self.collection.id, chars_per_second=rate)
            if self.rebuild:
                if self.bulk and (server := server_collections(run.store)) is not None:
                    server.resume_indexing(self.collection.name)
                    run.progress.say("waiting for the server to build the search index")
                    run.store.optimize(self.collection.name)
                publication = publish_rebuilt(run, self.collection, self.identity, first=self.first)
                run.outcome.note_publication(publication)
                published = not publication.refused
            else:
                verify_counts(run.ledger, run.store, self.collection)
                if not self.guard.any_documents and run.index.gate is not None:
                    run.outcome.say(NOTHING_LIVE)
                if self.golden is not None:
                    self.golden.report()
            if not run.options.single:
                calibrate(run, self.collection)
        for part, rows in run.part_rows.items():
            run.ledger.note_size(self.collection.id, rows, part)
        if self._progress.deletes_done:
            self.state.complete()
        if published:
            read_all, all_deleted = self.state.read_all or run.index.kind == CODE, self._progress.deletes_done
            self.comparison.complete(read_all=read_all, all_deleted=all_deleted)


@dataclass(slots=True)
class ScanProgress:
    """How far a scan is, and what it has to remember."""

    pages: int = 0
    any_failures: bool = False
    """Whether the ledger lists failed documents, so that pages have to look for theirs."""
    suspects: set[str] = field(default_factory=set)
    """Documents that must not be embedded in this process: see `indexing.child`."""
    chars: int = 0
    """Characters of all documents that have to be embedded, as far as the source was read."""
    excluded: list[Failure] = field(default_factory=list)
    """Indexed documents that a rule of the source now keeps out."""
    emptied: set[str] = field(default_factory=set)
    """Documents with points that have no text any more, or that a rule of the source now keeps out."""
    deletes_done: bool = False
