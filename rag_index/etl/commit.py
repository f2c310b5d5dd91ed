"""Commits of a run: points go to the store, then the ledger records their documents.

A shard is written in this order. Store and ledger both keep the mark of the last commit:

    documents pending in the ledger > points upserted > flush > stale chunks deleted > flush
    > commit mark in the store > rows and commit mark in the ledger, in one transaction

Payloads that changed alone, and deletes, keep the same order: pending, store, flush, marks. A run
that ends on the way leaves documents pending, and the next one treats them as changed. So it does
with documents that a comparison of store and ledger made pending (`etl.reconcile`).

A kill leaves, and the next run corrects:

- after the documents became pending: documents to embed again; the store has their former points
- during or after the upsert: the same, with some or all of their new points, which get the same
  ids again
- after stale chunks were deleted: the same, without these chunks
- after the store got the commit mark: the store is one commit ahead, and the documents are still
  pending, which tells it from a ledger that was restored (`Ledger.different_commits`)
- after the ledger's transaction: nothing to correct

What must hold, and a test that fails if it does not:

- A document is pending before its points are written, replaced or deleted.
    `test_the_ledger_says_what_the_store_durably_holds`
- The ledger rows that `commit` compares with are read before the documents become pending.
    `test_a_document_keeps_what_it_had_if_nothing_new_was_written_and_otherwise_loses_all`
- Points are durable before the store gets the commit mark.
    `test_the_ledger_says_what_the_store_durably_holds`
- Stale chunks are deleted before the ledger gets the rows, and durably so before the store gets the
  commit mark.
    `test_chunks_that_a_document_has_no_more_are_deleted_durably`
- Of a document that was pending before, stale chunks are searched for in the store.
    `test_what_a_dead_run_left_is_cleaned_up_durably`
- The store gets the commit mark before the ledger.
    `test_the_ledger_says_what_the_store_durably_holds`
- The ledger gets its rows and its commit mark together, or neither.
    `test_a_commit_that_dies_before_its_mark_is_in_the_ledger_leaves_documents_pending`
- The store is at the ledger's last commit before its commit mark is replaced, which is the only
  trace of a store that was restored from a backup.
    `test_a_store_that_is_put_back_while_a_run_writes_it_ends_the_run`
- A run moves the commit marks on before it writes its first point, so that a copy of the ledger
  from before the run is older than the store.
    `test_a_ledger_that_was_put_back_is_noticed_even_if_the_source_was_too`
- The lease is checked in the transactions that make documents pending and that commit them, and
  before the store gets the commit mark, or counts as restored.
    `test_a_run_whose_lease_was_taken_writes_neither_rows_nor_marks`
    `test_a_run_that_was_frozen_while_it_compared_the_marks_says_that_another_took_over`
- A collection on a server has the run's epoch before a shard is written, and still has it
  afterwards.
    `test_workers_of_a_dead_run_are_refused_by_the_collection`
    `test_what_a_run_wrote_after_it_was_overtaken_is_found_by_the_next_one`
- A run that finds before a commit that another one has taken over its lease records that in the
  server's collection.
    `test_what_a_run_deleted_after_it_was_overtaken_is_found_by_the_next_one`
- A failed document keeps all of its former points, or none.
    `test_a_document_keeps_what_it_had_if_nothing_new_was_written_and_otherwise_loses_all`
- A document gets a new payload hash only if all of its points got the payload.
    `test_what_is_pending_or_lacks_points_is_not_up_to_date_because_its_groups_changed`
"""

from __future__ import annotations

import datetime as dt
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import attrs

from rag_index.components.stores import OVERTAKEN
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, WrittenShard
from rag_index.core.documents.canonical import hash_bytes
from rag_index.core.documents.groups import (
    access_part,
    document_payload,
    groups_in,
    stored_groups,
    with_groups,
)
from rag_index.core.documents.keys import point_id
from rag_index.core.documents.sizes import shows_sizes
from rag_index.errors import IndexLocked, StoreMismatch, StoreRestored
from rag_index.etl.upsert import documents_named, replaced_payload

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from rag_index.components.ledger import Collection, Ledger, RecordedDocument
    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import PointCollection, Store
    from rag_index.core.documents.batches import Failure, Shard

DOCUMENTS_PER_BATCH = 500
"""Documents whose payloads are read, replaced and committed at a time. Chosen; nothing depends on
it."""


@shows_sizes("chunks")
class DocumentRow(NamedTuple):
    """What a commit records of one document, in the order of `Ledger.record`."""

    key: str
    text_hash: bytes
    payload_hash: bytes
    chunks: int


@shows_sizes("first", "end")
@dataclass(frozen=True, slots=True)
class StaleChunks:
    """Chunks of one document to delete."""

    key: str
    first: int
    """The number of the first chunk to delete."""
    end: int | None
    """The number of chunks by the ledger. None if the ledger may not count them all, because the
    document was pending or its process died. The store then searches for them."""


@shows_sizes("is_uncertain")
@dataclass(frozen=True, slots=True)
class FailedWrite:
    """A document of a shard that was not written."""

    key: str
    row: RecordedDocument | None
    """The ledger row before the shard. None if the ledger had none."""
    is_uncertain: bool
    """Whether its process died, or it was pending before the shard. The store may then have points
    that the row does not explain, or lack some."""


@shows_sizes("new", "erasable")
@dataclass(slots=True)
class CommitPlan:
    """What a commit deletes from the store and writes to the ledger, added document by document."""

    stale: list[StaleChunks] = field(default_factory=list)
    new: int = 0
    """The number of documents that had no vectors before."""
    erasable: int = 0
    """The number of documents whose former content stays in the store's files until an erasure."""
    restored: list[str] = field(default_factory=list)
    """Failed documents that keep their points. Their ledger rows become what they were before."""
    dropped: list[str] = field(default_factory=list)
    """Failed documents of which no point is left. Their ledger rows are deleted."""
    crashed: set[str] = field(default_factory=set)
    """Failed documents that were pending before the shard. That counts as a try as well."""

    def add_written(self, document: DocumentRow, row: RecordedDocument | None) -> None:
        """Add a document whose points are in the store; `row` is its former ledger row."""
        # New: the store has no other points of it.
        if row is None:
            self.new += 1
            return

        if row.pending:
            # Pending before the shard: the store may have more chunks than the row counts.
            self.stale.append(StaleChunks(document.key, document.chunks, None))
        elif row.chunks > document.chunks:
            # It had 5 chunks and has 3 now: chunks 3 and 4 are deleted by their ids.
            self.stale.append(StaleChunks(document.key, document.chunks, row.chunks))

        if not row.text_hash:
            # Only pending so far: it was never committed.
            self.new += 1
        elif not row.by_words:
            # It had vectors: its former points were replaced.
            self.erasable += 1
        else:
            # Found by its words until now: it is new to a search by meaning. Only another text
            # counts as former content.
            self.new += 1
            if row.text_hash != document.text_hash:
                self.erasable += 1

    def add_failed_write(self, failed_write: FailedWrite, *, is_damaged: bool) -> None:
        """Add a failed document: it keeps all of its former points, or none.

        Args:
            is_damaged: Whether points of an uncertain document are missing or replaced, or it never
                was committed.
        """
        key, row = failed_write.key, failed_write.row
        if row is not None and row.pending:
            self.crashed.add(key)

        if row is None and not failed_write.is_uncertain:
            # New, and it could not be embedded: nothing of it was written.
            self.dropped.append(key)
        elif row is None:
            # New, and its process died: some of its points may be there.
            self.stale.append(StaleChunks(key, 0, None))
            self.dropped.append(key)
        elif row.by_words:
            # Found by its words until now: it loses its points, because it is listed as failed.
            end = None if failed_write.is_uncertain else row.chunks
            self.stale.append(StaleChunks(key, 0, end))
            self.dropped.append(key)
            self.erasable += 1
        elif not failed_write.is_uncertain:
            # Known, and it could not be embedded: its former points are untouched.
            self.restored.append(key)
        elif is_damaged:
            # Former points are missing or were replaced, or it was never committed: it loses all.
            self.stale.append(StaleChunks(key, 0, None))
            self.dropped.append(key)
        else:
            # All former points are there, as they were: only chunks beyond them are deleted.
            self.stale.append(StaleChunks(key, row.chunks, None))
            self.restored.append(key)


@shows_sizes()
@dataclass(frozen=True, slots=True)
class PayloadChange:
    """New payloads for the points of one document."""

    points: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Pairs of point id and payload."""
    row: DocumentRow | None = None
    """The row to record. None if the document is still not up to date after the change."""


def delete_chunks(points: PointCollection, index: str, stale: Iterable[StaleChunks]) -> bool:
    """Delete stale chunks, and return whether there were any to look for.

    The embedded store has no index on the key: it reads every payload to search for chunks whose
    number is unknown, once for all documents.
    """
    ids: list[str] = []
    first_by_key: dict[str, int] = {}
    for chunks in stale:
        if chunks.end is None:
            first_by_key[chunks.key] = chunks.first
        else:
            ids += [
                point_id(index, chunks.key, number) for number in range(chunks.first, chunks.end)
            ]
    points.delete_points(ids)
    points.delete_chunks(first_by_key)
    return bool(ids or first_by_key)


def next_commit_mark(ledger: Ledger, last: CommitMark) -> CommitMark:
    """Return the commit mark that follows the last one, with the ledger's time."""
    now = dt.datetime.fromtimestamp(ledger.clock(), tz=dt.UTC)
    committed_at = now.isoformat(timespec="microseconds")
    return CommitMark(last.number + 1, committed_at)


@shows_sizes("index", "collection")
@attrs.define(eq=False)
class Committer:
    """The commits of one run to one collection.

    For each shard, `begin_shard` comes first, then its points are written and made durable, then
    `commit` is called.
    """

    index: str
    ledger: Ledger
    store: Store
    collection: Collection
    _lease: IndexLease | None = None
    _rows_before: dict[str, RecordedDocument | None] = attrs.field(factory=dict, init=False)
    """The ledger rows of documents between `begin_shard` and `commit`, as they were before they
    became pending. None if the ledger had no row."""
    _has_moved_commit_mark: bool = attrs.field(default=False, init=False)

    @property
    def points(self) -> PointCollection:
        """The points of the collection."""
        return self.store.points(self.collection.name)

    def begin_shard(self, shard: Shard) -> None:
        """Make the documents of a shard pending, and remember their ledger rows for `commit`."""
        keys = shard.documents.keys
        known = self.ledger.known(self.collection.id, keys)
        for key in keys:
            self._rows_before[key] = known.get(key)
        self.mark_pending(keys)

    def mark_pending(self, keys: Sequence[str]) -> None:
        """Make documents pending in the ledger, before they are written or deleted."""
        with self.ledger.transaction():
            self._check_lease()
            self.ledger.mark_pending(self.collection.id, keys)
        # The first call commits nothing, which moves the commit marks on. If the run dies before
        # its first shard is committed, a copy of the ledger from before the run is then older than
        # the store, and the next run detects that.
        if keys and not self._has_moved_commit_mark:
            with self._committing():
                pass
            self._has_moved_commit_mark = True

    def commit(self, written: WrittenShard, *, by_words: bool = False) -> int:
        """Commit a shard whose points are durable. Return how many of its documents are new.

        Args:
            by_words: Whether the points have no vectors yet. Such documents count as new again once
                they have vectors.
        """
        columns = zip(
            written.keys,
            written.text_hashes,
            written.payload_hashes,
            written.chunk_counts,
            strict=True,
        )
        documents = [DocumentRow(*values) for values in columns]
        plan = CommitPlan()
        for document in documents:
            plan.add_written(document, self._rows_before.pop(document.key, None))
        failed_writes = self._failed_writes(written.failures)
        damaged = self._find_damaged(failed_writes)
        for failed_write in failed_writes:
            plan.add_failed_write(failed_write, is_damaged=failed_write.key in damaged)

        cid, points = self.collection.id, self.points
        if delete_chunks(points, self.index, plan.stale):
            points.flush()
        with self._committing():
            self.ledger.record(cid, documents, by_words=by_words)
            self.ledger.add_erasable(cid, plan.erasable)
            if written.failures:
                self.ledger.unmark_pending(cid, known=plan.restored, new=plan.dropped)
            # By words: the documents are embedded later all the same, and may fail then.
            if written.failures and not by_words:
                self.ledger.fail(cid, written.failures, crashed=plan.crashed)
        return plan.new

    def _failed_writes(self, failures: Iterable[Failure]) -> list[FailedWrite]:
        failed_writes: list[FailedWrite] = []
        for failure in failures:
            # An incomplete document is indexed, and is among the written ones.
            if failure.kind == "failed":
                row = self._rows_before.pop(failure.key, None)
                is_pending = row is not None and bool(row.pending)
                failed_writes.append(
                    FailedWrite(failure.key, row, failure.process_died or is_pending)
                )
        return failed_writes

    def _find_damaged(self, failed_writes: Iterable[FailedWrite]) -> set[str]:
        """Return the uncertain documents whose former points are not all there and unchanged."""
        damaged: set[str] = set()
        committed: dict[str, RecordedDocument] = {}
        for document in failed_writes:
            if not document.is_uncertain:
                continue
            # Without a text hash, the document was never committed: it has no former points.
            if document.row is None or not document.row.text_hash:
                damaged.add(document.key)
            else:
                committed[document.key] = document.row
        if not committed:
            return damaged

        stored = self.stored(committed, list(committed))
        for key, row in committed.items():
            points = stored[key].values()
            is_complete = len(points) >= row.chunks
            is_unchanged = all(_has_hashes(payload, row) for payload in points)
            if not (is_complete and is_unchanged):
                damaged.add(key)
        return damaged

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Run the block as a commit: the store gets the commit mark, then the ledger rows and mark.

        The points must be durable and their documents pending, because a process killed between the
        two writes leaves the store one commit ahead of the ledger.

        Raises:
            IndexLocked: Another run took the lease over.
            StoreMismatch: The ledger no longer has the collection.
            StoreRestored: The store is not at the ledger's last commit. Its commit mark is left as
                it is.
        """
        name = self.collection.name
        self._check_lease_before_commit()
        known = self.ledger.collection(name)
        if known is None:
            url = self.ledger.redacted_url
            raise StoreMismatch(
                f"{name} was dropped from ledger {url} while a run wrote it: run again"
            )
        commit_mark = next_commit_mark(self.ledger, known.commit_mark)
        points = self.points
        difference = self.ledger.different_commits(known, points.commit_mark())
        if difference:
            # A run that was frozen after it read the ledger's row: another one went on meanwhile.
            self._check_lease_before_commit()
            raise StoreRestored(
                f"{difference} while a run wrote it; the next run compares every point"
            )
        points.set_commit_mark(commit_mark)
        with self.ledger.transaction():
            self._check_lease()
            yield
            self.ledger.record_commit(self.collection.id, commit_mark)

    def _check_lease(self) -> None:
        if self._lease is not None:
            self._lease.check()

    def _check_lease_before_commit(self) -> None:
        """Check the lease, and note in a server's collection if another run took it over.

        What this run has just written or deleted may be what the other run wrote, so the next run
        compares every point.
        """
        if self._lease is None:
            return
        try:
            self._lease.check()
        except IndexLocked:
            if not self.store.embedded:
                self.points.set_metadata({OVERTAKEN: self._lease.epoch})
            raise

    def stored(
        self, known: Mapping[str, RecordedDocument], keys: Iterable[str]
    ) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the payloads of the points that the ledger rows `known` count.

        They are ordered by document, then by chunk: `{key: {point id: payload}}`. Missing points
        and points of other programs are left out.
        """
        ids_by_key: dict[str, list[str]] = {}
        all_ids: list[str] = []
        for key in keys:
            numbers = range(known[key].chunks)
            ids_by_key[key] = [point_id(self.index, key, number) for number in numbers]
            all_ids += ids_by_key[key]
        points = self.points.retrieve(all_ids)
        payloads = {point.id: point.payload for point in points if RESERVED_KEY in point.payload}
        stored: dict[str, dict[str, dict[str, Any]]] = {}
        for key, ids in ids_by_key.items():
            stored[key] = {id_: payloads[id_] for id_ in ids if id_ in payloads}
        return stored

    def overwrite(
        self,
        payloads: list[tuple[str, dict[str, Any]]],
        rows: list[DocumentRow],
        *,
        clear_failures: bool = True,
    ) -> None:
        """Replace payloads of points, and record the documents that are up to date then."""
        cid, points = self.collection.id, self.points
        self.mark_pending([row.key for row in rows])
        ids = [id_ for id_, _ in payloads]
        values = [payload for _, payload in payloads]
        with documents_named(ids, values):
            points.update_payloads(payloads)
        points.flush()
        if not rows:
            return
        with self._committing():
            self.ledger.record(cid, rows, clear_failures=clear_failures, by_words=None)
            self.ledger.add_erasable(cid, len(rows))

    def delete_lost(self) -> Iterator[int]:
        """Delete the points of deleted and emptied documents, and commit page by page.

        Yields the number of documents of a page that had points. If the store or the ledger raises,
        the earlier pages stay committed.
        """
        cid, points = self.collection.id, self.points
        while lost := self.ledger.lost(cid):
            keys: list[str] = []
            deleted: list[str] = []
            emptied: list[DocumentRow] = []
            for key, text_hash, payload_hash in lost:
                keys.append(key)
                if text_hash is None:
                    # The source no longer has it: the ledger forgets it.
                    deleted.append(key)
                else:
                    # The source has it without text: it gets a row without chunks.
                    emptied.append(DocumentRow(key, text_hash, payload_hash or b"", 0))
            known = self.ledger.known(cid, keys)
            self.mark_pending(keys)
            stale = [StaleChunks(key, 0, _counted_chunks(known.get(key))) for key in keys]
            delete_chunks(points, self.index, stale)
            points.flush()
            with self._committing():
                self.ledger.forget(cid, deleted)
                self.ledger.record(cid, emptied)
                self.ledger.add_erasable(cid, len(emptied))
            self.ledger.forget_lost(keys)
            yield sum(1 for row in known.values() if row.chunks > 0 or row.pending)


def _counted_chunks(row: RecordedDocument | None) -> int | None:
    """Return how many chunks a document has. None if its ledger row does not count them all."""
    if row is None or row.pending:
        return None
    return row.chunks


def _has_hashes(payload: Mapping[str, Any], row: RecordedDocument) -> bool:
    """Return whether a point was written for the text and payload that a ledger row records."""
    reserved = payload[RESERVED_KEY]
    has_text: bool = reserved.get("text_hash") == row.text_hash.hex()
    has_payload: bool = reserved.get("payload_hash") == row.payload_hash.hex()
    return has_text and has_payload


def update_payloads(
    committer: Committer,
    wanted: Mapping[str, bytes | Sequence[str]],
    known: Mapping[str, RecordedDocument],
    *,
    alone: bool = True,
) -> set[str]:
    """Replace the payloads of documents, or the groups in them.

    Return the documents that are up to date then. The ledger is written last.

    Args:
        wanted: A payload (canonical JSON) or the groups for each document.
        known: The ledger row of each document.
        alone: Whether nothing but the payload has changed. Otherwise the document's failures stay
            listed.

    Raises as `PointCollection.retrieve` and `PointCollection.update_payloads`.
    """
    updated: set[str] = set()
    keys = list(wanted)
    for first in range(0, len(keys), DOCUMENTS_PER_BATCH):
        payloads: list[tuple[str, dict[str, Any]]] = []
        rows: list[DocumentRow] = []
        stored = committer.stored(known, keys[first : first + DOCUMENTS_PER_BATCH])
        for key, points in stored.items():
            change = _payload_change(key, known[key], points, wanted[key])
            payloads += change.points
            if change.row is not None:
                rows.append(change.row)
        committer.overwrite(payloads, rows, clear_failures=alone)
        updated.update(row.key for row in rows)
    return updated


def _payload_change(
    key: str,
    row: RecordedDocument,
    points: Mapping[str, dict[str, Any]],
    wanted: bytes | Sequence[str],
) -> PayloadChange:
    """Return the new payloads of a document's points, for its new payload or its new groups."""
    is_intact = len(points) >= row.chunks and not row.pending
    if isinstance(wanted, bytes):
        # A new payload, but points are missing or pending: the document is not up to date.
        if not is_intact:
            return PayloadChange()
        return _replace_payload(key, row, points, wanted)

    # The groups are the same already, or there are no points.
    groups = list(wanted)
    if all(stored_groups(point) == groups for point in points.values()):
        return PayloadChange()
    # Points are missing, or the document is pending: the points that are there get the groups, and
    # the document is still not up to date.
    if not is_intact:
        return PayloadChange([(id_, _with_access(point, groups)) for id_, point in points.items()])
    # New groups for an intact document: they are part of its payload, and of the payload's hash.
    first_point = next(iter(points.values()))
    payload = with_groups(document_payload(first_point), groups)
    return _replace_payload(key, row, points, payload)


def _replace_payload(
    key: str, row: RecordedDocument, points: Mapping[str, dict[str, Any]], payload: bytes
) -> PayloadChange:
    payload_hash = hash_bytes(payload)
    change = PayloadChange(row=DocumentRow(key, row.text_hash, payload_hash, row.chunks))
    for id_, old in points.items():
        replaced = replaced_payload(old, payload, payload_hash)
        change.points.append((id_, replaced))
    return change


def _with_access(point: Mapping[str, Any], groups: Sequence[str]) -> dict[str, Any]:
    """Return the payload of a point with other groups, and everything else as it is."""
    reserved = {**point[RESERVED_KEY], **access_part(groups)}
    return {**point, RESERVED_KEY: reserved}


def outdated_groups(
    page: SourcePage, known: Mapping[str, RecordedDocument], settled: Container[str]
) -> dict[str, Sequence[str]]:
    """Return the groups of a page's documents whose points may still have other groups.

    Changes of access do not wait for the rest of a document. Its new text is embedded later, or
    never if that fails, and a document that cannot be read keeps its points. Those must not be
    visible by rights that the source has taken away.

    Args:
        settled: Keys of documents whose payload is updated in any case.
    """
    documents = page.documents
    groups: dict[str, Sequence[str]] = {}
    columns = zip(documents.keys, documents.payloads, documents.payload_hashes, strict=True)
    for key, payload, payload_hash in columns:
        row = known.get(key)
        if row is None or key in settled:
            continue
        if row.pending or row.payload_hash != payload_hash:
            groups[key] = groups_in(payload) or ()
    groups.update(page.groups)
    # Only documents with chunks have points to update.
    return {key: value for key, value in groups.items() if key in known and known[key].chunks}


def carry_access(
    index: str, ledger: Ledger, store: Store, live: Collection, other: Collection
) -> None:
    """Give the documents of another collection the groups of the live collection, or none.

    A caller who cannot see a document in the live collection cannot see it in the other one then.

    Raises:
        StoreRestored: The other collection is not at the ledger's last commit.
        StoreError: As the store.
    """
    other_points = store.points(other.name)
    difference = ledger.different_commits(other, other_points.commit_mark())
    if difference:
        raise StoreRestored(
            f"{difference}, so it may show what is closed to everyone: `rag-index rebuild {index}`"
            " replaces it"
        )
    committer = Committer(index, ledger, store, other)
    after = ""
    while rows := ledger.rows(other.id, after=after, limit=DOCUMENTS_PER_BATCH):
        after = rows[-1][0]
        known = dict(rows)
        # Chunks of a pending document that the ledger does not count may have any groups.
        pending = {key: row.chunks for key, row in rows if row.pending}
        other_points.delete_chunks(pending)

        groups: dict[str, Sequence[str]] = {key: () for key, row in rows if row.chunks}
        live_keys = ledger.known(live.id, list(known))
        key_by_id = {point_id(index, key, 0): key for key in live_keys}
        for point in store.points(live.name).retrieve(list(key_by_id)):
            key = key_by_id[point.id]
            if key in groups:
                groups[key] = stored_groups(point.payload) or ()
        update_payloads(committer, groups, known, alone=False)
