"""What a run writes: the points of embedded shards, then commits, whose mark store and ledger both keep. Payloads are
also updated alone, without embedding, if only other columns or access rights changed."""

from __future__ import annotations

import datetime as dt
import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from rag_index.components.ledger import Collection, Known, Ledger
from rag_index.components.stores import OVERTAKEN
from rag_index.core.documents.batches import BY_WORDS, RESERVED_KEY, CommitMark, EmbeddedShard, PointBatch, WrittenShard
from rag_index.core.documents.canonical import decode_payload, encode_payload, hash_bytes
from rag_index.core.documents.groups import (
    OF_DOCUMENT,
    access_part,
    document_part,
    document_payload,
    groups_in,
    stored_groups,
    with_groups,
)
from rag_index.core.documents.keys import document_id, point_id
from rag_index.core.documents.sizes import shows_sizes
from rag_index.core.recovery import downtime
from rag_index.errors import IndexLocked, PointsRefused, RagIndexError, StoreMismatch, StoreRestored
from rag_index.etl.embed import process_store

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.sources import SourcePage
    from rag_index.components.stores.protocol import Store
    from rag_index.core.documents.batches import Shard
    from rag_index.core.settings import StoreSettings

CHUNK_HASH = "chunk_hash"
NEW = Known(b"", b"", 0, 1)
"""The row of a document that the ledger does not know."""
UPSERT_POINTS = 1000
AT_A_TIME = 500


@attrs.define(eq=False)
class Destination:
    """The collection that a run writes to. A server's has an epoch, by which it refuses workers of earlier runs."""

    store: Store
    collection: str
    epoch: int | None
    wait: ClassVar[float] = 0.0  # its connection waits
    _turn: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one shard be written at a time. After an error, the shards that wait get the same error at once."""
        with self._turn:
            if self._error is not None:
                raise self._error
            try:
                yield
            except RagIndexError as error:
                self._error = error
                raise

    def close(self) -> None:
        """Wait for the shard that is being written, and refuse all others, because the store closes."""
        with self._turn:
            self._error = self._error or CancelledError()

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard and make its points durable. Raises as `write_shard` and `Store.flush`."""
        written = write_shard(self.store, self.collection, shard, epoch=self.epoch)
        self.store.flush(self.collection)
        return written


@attrs.frozen
class WorkerDestination:
    """The collection of a server that workers write to, as `Destination` is for the run's process."""

    settings: StoreSettings
    collection: str
    epoch: int
    wait: float = 0.0
    """For how many seconds a write is tried again after the server failed first."""

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard by this process's connection. Raises as `write_shard`: IndexLocked, if the collection belongs
        to a later run."""
        return write_shard(process_store(self.settings), self.collection, shard, epoch=self.epoch)


def write_shard(store: Store, collection: str, shard: EmbeddedShard, *, epoch: int | None = None) -> WrittenShard:
    """Upsert all points of a shard, and return what the ledger needs once they are durable (`Store.flush`). With
    `epoch`, refuse to write (IndexLocked) unless the collection belongs to the run of that epoch: workers of a dead run
    may still send shards. If a later run took over meanwhile, that is noted, and the
    next run compares every point. Raises what `Store.upsert` raises; nothing that was written then counts as done."""
    started = time.perf_counter()
    with downtime() as down:
        _check_epoch(store, collection, epoch)
        for batch in batches(shard):
            with documents_named(batch.ids, batch.payloads):
                store.upsert(collection, batch)
    try:
        _check_epoch(store, collection, epoch)
    except IndexLocked:  # it stood still since the first look, and may have written over what is newer
        store.set_metadata(collection, {OVERTAKEN: epoch})
        raise
    documents = shard.documents
    columns = documents.keys, documents.text_hashes, documents.payload_hashes, shard.chunk_counts
    seconds = time.perf_counter() - started - down.seconds
    return WrittenShard(shard.number, *columns, shard.failures, shard.stats, seconds)


def _check_epoch(store: Store, collection: str, epoch: int | None) -> None:
    if epoch is not None and (now := store.metadata(collection).get("epoch")) != epoch:
        raise IndexLocked(f"{collection} is written by a later run (epoch {now}, this is {epoch}): this run ends here")


@contextmanager
def documents_named(ids: Sequence[str], payloads: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Name the document in a message about a refused point: nobody knows points by their ids."""
    try:
        yield
    except PointsRefused as error:
        message, first = str(error), next(iter(error.point_ids), "")
        payload = dict(zip(ids, payloads, strict=True)).get(first, {})
        if document := payload.get(RESERVED_KEY, {}).get("document_id"):
            message = message.replace(first, f"one of document {document}")
        raise PointsRefused(message, error.point_ids) from error


def batches(shard: EmbeddedShard) -> Iterator[PointBatch]:
    """Yield the points of a shard, at most `UPSERT_POINTS` at a time."""
    chunks = [(row, number) for row, document in enumerate(shard.chunked) for number in range(len(document.chunks))]
    for first in range(0, len(chunks), UPSERT_POINTS):
        some = chunks[first : first + UPSERT_POINTS]
        last = first + len(some)
        ids = [point_id(shard.index, shard.documents.keys[row], number) for row, number in some]
        payloads = [_payload(shard, row, number) for row, number in some]
        sparse = shard.sparse.rows(first, last) if shard.sparse is not None else None
        yield PointBatch(ids, shard.vectors[first:last] if len(shard.vectors) else None, payloads, sparse)


def delete_chunks(store: Store, collection: str, index: str, stale: Iterable[tuple[str, int, Known | None]]) -> bool:
    """Delete the chunks of documents from a number on, and return whether there was anything to delete. `stale` has
    (key, first chunk to delete, ledger row). Chunks are deleted by id if the ledger says how many there are. A run that
    died may have left any number of chunks of a pending document: those are searched for, which in the embedded store,
    without an index on the key, reads every payload once."""
    ids: list[str] = []
    unknown: dict[str, int] = {}
    for key, first, known in stale:
        if known is None or known.pending:
            unknown[key] = first
        else:
            ids += [point_id(index, key, number) for number in range(first, known.chunks)]
    store.delete_points(collection, ids)
    store.delete_chunks(collection, unknown)
    return bool(ids or unknown)


def chunk_hash(payload: Mapping[str, Any]) -> str:
    """Return the hash of what a point's payload says about its chunk, without fields of the document and this hash."""
    ours = payload[RESERVED_KEY]
    own = {name: payload.get(name) for name in ours.get("own", ())}
    said = {name: value for name, value in ours.items() if name not in (*OF_DOCUMENT, "payload_hash", CHUNK_HASH)}
    return hash_bytes(encode_payload({**own, RESERVED_KEY: said})).hex()


def replaced_payload(old: dict[str, Any], payload: bytes, payload_hash: bytes) -> dict[str, Any]:
    """Return the new payload of a point whose document kept its text."""
    before = {name: value for name, value in old[RESERVED_KEY].items() if name not in OF_DOCUMENT}
    own = {name: old[name] for name in before.get("own", ())}
    now = decode_payload(payload)
    ours = {**before, **document_part(now), "payload_hash": payload_hash.hex()}
    now.pop(RESERVED_KEY, None)
    return {**now, **own, RESERVED_KEY: ours}


def _payload(shard: EmbeddedShard, row: int, number: int) -> dict[str, Any]:
    documents, document = shard.documents, shard.chunked[row]
    key = documents.keys[row]
    payload = decode_payload(documents.payloads[row])
    ours: dict[str, Any] = {
        **(document_part(payload) if RESERVED_KEY in payload else {}),
        "key": key,
        "document_id": document_id(key),
        "chunk": number,
        "chunks": len(document.chunks),
        "text": document.chunks[number],
        "text_hash": documents.text_hashes[row].hex(),
        "payload_hash": documents.payload_hashes[row].hex(),
    }
    payload.pop(RESERVED_KEY, None)
    if document.contexts and document.contexts[number]:
        ours["context"] = document.contexts[number]
    if document.payloads:
        own = decode_payload(document.payloads[number])
        ours |= own.pop(RESERVED_KEY, {})
        ours["own"] = sorted(own)
        payload.update(own)
    if not len(shard.vectors):
        ours[BY_WORDS] = True
    payload[RESERVED_KEY] = ours
    ours[CHUNK_HASH] = chunk_hash(payload)
    return payload


def next_mark(ledger: Ledger, last: CommitMark) -> CommitMark:
    """Return the mark of the commit after the last one."""
    now = dt.datetime.fromtimestamp(ledger.clock(), tz=dt.UTC)
    return CommitMark(last.number + 1, now.isoformat(timespec="microseconds"))


@shows_sizes("index", "collection")
@attrs.define(eq=False)
class Committer:
    """Everything that one run writes to a collection: documents become pending, then their points, then the rows."""

    index: str
    ledger: Ledger
    store: Store
    collection: Collection
    _lease: IndexLease | None = None
    _before: dict[str, Known | None] = attrs.field(factory=dict, init=False)
    _has_begun: bool = attrs.field(default=False, init=False)

    def begin(self, shard: Shard) -> None:
        """Mark the documents of a shard as about to be written, and remember what the ledger had of them before."""
        keys = shard.documents.keys
        known = self.ledger.known(self.collection.id, keys)
        self._before.update((key, known.get(key)) for key in keys)
        self.mark_pending(keys)

    def mark_pending(self, keys: Sequence[str]) -> None:
        """Mark documents in the ledger as about to be written, or deleted. The first call commits nothing, which moves
        the marks on: if the run dies before its first commit, a copy of the ledger from before the run is older than
        the store, and seen to be."""
        with self.ledger.transaction():
            if self._lease is not None:
                self._lease.check()
            self.ledger.mark_pending(self.collection.id, keys)
        if keys and not self._has_begun:
            with self._committing():
                pass
            self._has_begun = True

    @contextmanager
    def _committing(self) -> Iterator[None]:
        """Commit what was written to the store: mark it there, then write the rows of the block and the mark to the
        ledger. What was written must be durable, and its documents pending, because a kill between the two leaves the
        store one commit ahead. Raises StoreRestored if the store is not at the ledger's last commit, before its mark is
        overwritten, and IndexLocked if another run took the lease over. On a server that is noted, and the next run
        compares every point: what this one has just written or deleted may be what the other one wrote."""
        ledger, store, lease, name = self.ledger, self.store, self._lease, self.collection.name
        if lease is not None:
            try:
                lease.check()
            except IndexLocked:
                if not store.embedded:
                    store.set_metadata(name, {OVERTAKEN: lease.epoch})
                raise
        known = ledger.collection(name)
        if known is None:
            raise StoreMismatch(f"{name} was dropped from ledger {ledger.redacted_url} while a run wrote it: run again")
        mark = next_mark(ledger, known.commit_mark)
        if difference := ledger.different_commits(known, store.commit_mark(name)):
            raise StoreRestored(f"{difference} while a run wrote it; the next run compares every point")
        store.set_commit_mark(name, mark)
        with ledger.transaction():
            if lease is not None:
                lease.check()
            yield
            ledger.record_commit(self.collection.id, mark)

    def commit(self, written: WrittenShard, *, by_words: bool = False) -> int:
        """Commit a shard whose points are in the store, and return how many of its documents are new. Those that were
        written `by_words` alone count as new once they have vectors.

        For documents that had more chunks, or were pending, the chunks at or above the new count are deleted. The row
        of a failed document becomes what it was before it was marked pending, if it keeps its points, and unknown if
        not: if its process died, in this run or before, it may have some new points. Then those beyond its former ones
        are deleted if these are all there, and otherwise all are. An incomplete document is indexed all the same. One
        that had points without vectors loses them if it fails, and is listed once it cannot be embedded.
        """
        before = {key: self._before.pop(key, None) for key in written.keys}
        failed = {f.key: self._before.pop(f.key, None) for f in written.failures if f.kind == "failed"}
        counts = zip(written.keys, written.chunk_counts, strict=True)
        stale: list[tuple[str, int, Known | None]] = [
            (key, count, row) for key, count in counts if (row := before[key]) and (row.pending or row.chunks > count)
        ]
        died = {failure.key for failure in written.failures if failure.died}
        uncertain = {key: row or NEW for key, row in failed.items() if key in died or (row and row.pending)}
        worded = {key: row for key, row in failed.items() if row and row.by_words}
        lost = self._not_intact(uncertain) | worded.keys()
        stale += [(key, 0, row) for key, row in worded.items() if key not in uncertain]
        stale += [(key, 0 if key in lost else row.chunks, None) for key, row in uncertain.items()]
        if delete_chunks(self.store, self.collection.name, self.index, stale):
            self.store.flush(self.collection.name)
        kept = [key for key, row in failed.items() if row and key not in lost]
        crashed = {key for key, row in failed.items() if row and row.pending}
        rows = zip(written.keys, written.text_hashes, written.payload_hashes, written.chunk_counts, strict=True)
        now = dict(zip(written.keys, written.text_hashes, strict=True))
        was = {key: row for key, row in before.items() if row is not None and row.text_hash}
        erasable = [key for key, row in was.items() if not row.by_words or row.text_hash != now[key]]
        with self._committing():
            self.ledger.record(self.collection.id, rows, by_words=by_words)
            self.ledger.note_erasable(self.collection.id, len(erasable) + len(worded))
            if written.failures:
                new = [key for key in failed if key not in kept]
                self.ledger.unmark_pending(self.collection.id, known=kept, new=new)
                if not by_words:  # they are embedded all the same
                    self.ledger.fail(self.collection.id, written.failures, crashed=crashed)
        return len(before) - sum(not row.by_words for row in was.values())

    def _not_intact(self, rows: Mapping[str, Known]) -> set[str]:
        stored = self.stored(rows, list(rows)) if rows else {}
        found: set[str] = set()
        for key, row in rows.items():
            hashes = row.text_hash.hex(), row.payload_hash.hex()
            ours = [payload[RESERVED_KEY] for payload in stored[key].values()]
            same = all((one.get("text_hash"), one.get("payload_hash")) == hashes for one in ours)
            if not (row.text_hash and same and len(ours) >= row.chunks):
                found.add(key)
        return found

    def stored(self, known: Mapping[str, Known], keys: Iterable[str]) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the payloads of our points that the ledger explains, by document and id, in the order of chunks."""
        ids = {key: [point_id(self.index, key, number) for number in range(known[key].chunks)] for key in keys}
        points = self.store.retrieve(self.collection.name, [i for some in ids.values() for i in some])
        found = {point.id: point.payload for point in points if RESERVED_KEY in point.payload}
        return {key: {i: found[i] for i in some if i in found} for key, some in ids.items()}

    def overwrite(
        self,
        payloads: list[tuple[str, dict[str, Any]]],
        rows: list[tuple[str, bytes, bytes, int]],
        *,
        clear_failures: bool = True,
    ) -> None:
        """Replace payloads of points, and record the `rows` of the documents that are up to date now."""
        self.mark_pending([row[0] for row in rows])
        with documents_named([point for point, _ in payloads], [payload for _, payload in payloads]):
            self.store.update_payloads(self.collection.name, payloads)
        self.store.flush(self.collection.name)
        if rows:
            with self._committing():
                self.ledger.record(self.collection.id, rows, clear_failures=clear_failures, by_words=None)
                self.ledger.note_erasable(self.collection.id, len(rows))

    def delete_lost(self) -> Iterator[int]:
        """Delete what the ledger has as gone, and the points of what it has as emptied; yield how many had points.
        Raises as the store and the ledger do; what was deleted by then is committed."""
        cid, name = self.collection.id, self.collection.name
        while lost := self.ledger.lost(cid):
            keys = [key for key, _, _ in lost]
            gone = [key for key, text_hash, _ in lost if text_hash is None]
            emptied = [(key, text, payload or b"", 0) for key, text, payload in lost if text is not None]
            known = self.ledger.known(cid, keys)
            self.mark_pending(keys)
            delete_chunks(self.store, name, self.index, ((key, 0, known.get(key)) for key in keys))
            self.store.flush(name)
            with self._committing():
                self.ledger.forget(cid, gone)
                self.ledger.record(cid, emptied)
                self.ledger.note_erasable(cid, len(emptied))
            self.ledger.forget_lost(keys)
            yield sum(row.chunks > 0 or row.pending for row in known.values())


def update_payloads(
    committer: Committer, wanted: Mapping[str, bytes | Sequence[str]], known: Mapping[str, Known], *, alone: bool = True
) -> set[str]:
    """Replace the payloads of documents, or the groups in them, and return the documents that are up to date now.
    `wanted` has a payload or groups for each document, and `known` its ledger row. The ledger is written last. If the
    points of a document are not as the ledger says, only its groups are replaced. Failures stay listed, unless the
    payload `alone` has changed. Raises as `Store.retrieve` and `Store.update_payloads`."""
    updated: set[str] = set()
    keys = list(wanted)
    for first in range(0, len(keys), AT_A_TIME):
        payloads: list[tuple[str, dict[str, Any]]] = []
        done: list[tuple[str, bytes, bytes, int]] = []
        for key, points in committer.stored(known, keys[first : first + AT_A_TIME]).items():
            row, payload = known[key], wanted[key]
            whole = len(points) >= row.chunks and not row.pending
            if not isinstance(payload, bytes):
                groups = payload
                if all(stored_groups(point) == list(groups) for point in points.values()):
                    continue
                if not whole:  # what a dead run left: it stays as it is otherwise
                    access = access_part(groups)
                    payloads += [(i, {**p, RESERVED_KEY: {**p[RESERVED_KEY], **access}}) for i, p in points.items()]
                    continue
                payload = with_groups(document_payload(next(iter(points.values()))), groups)
            if whole:
                payload_hash = hash_bytes(payload)
                payloads += [(i, replaced_payload(old, payload, payload_hash)) for i, old in points.items()]
                done.append((key, row.text_hash, payload_hash, row.chunks))
        committer.overwrite(payloads, done, clear_failures=alone)
        updated.update(row[0] for row in done)
    return updated


def outdated_groups(page: SourcePage, known: Mapping[str, Known], settled: Container[str]) -> dict[str, Sequence[str]]:
    """Return the groups of those documents of a page, by key, whose points may have others until they are written.
    `settled` are documents whose payload is updated in any case. Changes of access do not wait for the rest: a document
    whose text changed too is embedded later, perhaps never if that fails, and one that cannot be read keeps the points
    that it has. Rights that the source has taken away must not show it meanwhile."""
    documents = page.documents
    found = {
        key: groups_in(payload) or ()
        for key, payload, payload_hash in zip(documents.keys, documents.payloads, documents.payload_hashes, strict=True)
        if key not in settled and (row := known.get(key)) and (row.pending or row.payload_hash != payload_hash)
    }
    return {key: groups for key, groups in {**found, **page.groups}.items() if key in known and known[key].chunks}


def carry_access(index: str, ledger: Ledger, store: Store, live: Collection, other: Collection) -> None:
    """Give the documents of another collection of the index the groups that they have in the live one, or none. A
    caller who cannot see a document in the live one cannot see it in the other. Chunks of a dead run that the ledger
    does not explain are deleted, because they may have any groups. Raises StoreRestored, and what the store raises."""
    if difference := ledger.different_commits(other, store.commit_mark(other.name)):
        raise StoreRestored(
            f"{difference}, so it may show what is closed to everyone: `rag-index rebuild {index}` replaces it"
        )
    after, committer = "", Committer(index, ledger, store, other)
    while rows := ledger.rows(other.id, after=after, limit=AT_A_TIME):
        after, known = rows[-1][0], dict(rows)
        store.delete_chunks(other.name, {key: row.chunks for key, row in rows if row.pending})
        shown = {point_id(index, key, 0): key for key in ledger.known(live.id, list(known))}
        groups: dict[str, Sequence[str]] = {key: () for key, row in rows if row.chunks}
        for point in store.retrieve(live.name, list(shown)):
            if shown[point.id] in groups:
                groups[shown[point.id]] = stored_groups(point.payload) or ()
        update_payloads(committer, groups, known, alone=False)
