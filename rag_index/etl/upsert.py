"""The upsert of a run: a shard becomes points, and a destination writes them durably.

    embedded shard > ids and payloads of its chunks > upsert > flush > what the ledger records

If the store is a server, the worker that embedded a shard writes it (`WorkerDestination`).
Otherwise, and for whatever the run's own process embeds, the run writes it (`Destination`).
Repeating an upsert is harmless, because the id of a point follows from index, key and chunk number.
A kill during an upsert leaves pending documents, some of which have new points. The order around
it, and what must hold, stand in `etl.commit`.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from rag_index.components.stores import OVERTAKEN
from rag_index.core.documents.batches import (
    BY_WORDS,
    RESERVED_KEY,
    EmbeddedShard,
    PointBatch,
    WrittenShard,
)
from rag_index.core.documents.canonical import decode_payload, encode_payload, hash_bytes
from rag_index.core.documents.groups import OF_DOCUMENT, document_part
from rag_index.core.documents.keys import document_id, point_id
from rag_index.core.documents.work import Work
from rag_index.core.recovery import downtime
from rag_index.errors import IndexLocked, PointsRefused, RagIndexError
from rag_index.etl.embed import process_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.components.stores.protocol import PointCollection, Store
    from rag_index.core.settings import StoreSettings

CHUNK_HASH = "chunk_hash"
NOT_OF_CHUNK = frozenset({*OF_DOCUMENT, "payload_hash", CHUNK_HASH})
"""Keys of the reserved part of a payload that the chunk hash does not cover."""
POINTS_PER_UPSERT = 1000
"""Points in one request. Chosen; nothing depends on it."""


@attrs.define(eq=False)
class Destination:
    """The collection that a run writes to from its own process.

    On a server, the collection has an epoch, by which writes of workers of earlier runs are
    refused.
    """

    store: Store
    collection: str
    epoch: int | None
    wait: ClassVar[float] = 0.0
    """Prefect's task does not try a write of this process again: `LocalSteps` does, and the store's
    connection waits."""
    _turn: threading.Lock = attrs.field(factory=threading.Lock, init=False)
    _error: BaseException | None = attrs.field(default=None, init=False)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let one shard be written at a time. After an error, waiting shards raise it too."""
        with self._turn:
            if self._error is not None:
                raise self._error
            try:
                yield
            except RagIndexError as error:
                self._error = error
                raise

    def close(self) -> None:
        """Wait for the shard that is being written, then refuse others: the store closes."""
        with self._turn:
            if self._error is None:
                self._error = CancelledError()

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard and make its points durable. Raises as `write_shard` and the store."""
        points = self.store.points(self.collection)
        written = write_shard(points, shard, epoch=self.epoch)
        points.flush()
        return written


@attrs.frozen
class WorkerDestination:
    """The collection of a server, for writes from worker processes."""

    settings: StoreSettings
    collection: str
    epoch: int
    wait: float = 0.0
    """For how many seconds a write is tried again after the server failed first."""

    def write(self, shard: EmbeddedShard) -> WrittenShard:
        """Upsert a shard through this process's connection. Raises as `write_shard`."""
        store = process_store(self.settings)
        return write_shard(store.points(self.collection), shard, epoch=self.epoch)


def write_shard(
    points: PointCollection, shard: EmbeddedShard, *, epoch: int | None = None
) -> WrittenShard:
    """Upsert all points of a shard, and return what the ledger records of it.

    The points are durable after `PointCollection.flush`, and may be committed then. If this
    function raises, nothing that was written counts as done.

    Args:
        epoch: The epoch of this run. Workers of a dead run may still send shards, so the collection
            must belong to this epoch before and after the write. None for the embedded store.

    Raises:
        IndexLocked: The collection belongs to a later run. If that run took over during the write,
            this is noted in the collection, and the next run compares every point.
        StoreError: As `PointCollection.upsert`.
    """
    started = time.perf_counter()
    with downtime() as down:
        _check_epoch(points, epoch)
        for batch in batches(shard):
            with documents_named(batch.ids, batch.payloads):
                points.upsert(batch)
    try:
        _check_epoch(points, epoch)
    except IndexLocked:
        # This process may have stood still since the first check, and have replaced newer points.
        points.set_metadata({OVERTAKEN: epoch})
        raise
    documents = shard.documents
    seconds = time.perf_counter() - started - down.seconds
    written = Work(write_seconds=seconds, chunks=sum(shard.chunk_counts))
    return WrittenShard(
        number=shard.number,
        keys=documents.keys,
        text_hashes=documents.text_hashes,
        payload_hashes=documents.payload_hashes,
        chunk_counts=shard.chunk_counts,
        failures=shard.failures,
        work=shard.work + written,
    )


def _check_epoch(points: PointCollection, epoch: int | None) -> None:
    # The embedded store: one process alone can write it, so it needs no epoch.
    if epoch is None:
        return
    stored_epoch = points.metadata().get("epoch")
    if stored_epoch != epoch:
        raise IndexLocked(
            f"{points.name} is written by a later run (epoch {stored_epoch}, this is {epoch}): this"
            " run ends here"
        )


@contextmanager
def documents_named(ids: Sequence[str], payloads: Sequence[Mapping[str, Any]]) -> Iterator[None]:
    """Name the document in the message of a refused point. Users do not know point ids."""
    try:
        yield
    except PointsRefused as error:
        message = str(error)
        refused_id = next(iter(error.point_ids), "")
        payloads_by_id = dict(zip(ids, payloads, strict=True))
        payload = payloads_by_id.get(refused_id, {})
        document = payload.get(RESERVED_KEY, {}).get("document_id")
        if document:
            message = message.replace(refused_id, f"one of document {document}")
        raise PointsRefused(message, error.point_ids) from error


def batches(shard: EmbeddedShard) -> Iterator[PointBatch]:
    """Yield the points of a shard, at most `POINTS_PER_UPSERT` at a time."""
    points = _points(shard)
    first = 0
    while batch := list(islice(points, POINTS_PER_UPSERT)):
        end = first + len(batch)
        ids = [id_ for id_, _ in batch]
        payloads = [payload for _, payload in batch]
        vectors = None
        if len(shard.vectors):
            vectors = shard.vectors[first:end]
        sparse = None
        if shard.sparse is not None:
            sparse = shard.sparse.rows(first, end)
        yield PointBatch(ids, vectors, payloads, sparse)
        first = end


def _points(shard: EmbeddedShard) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the id and the payload of each chunk, in the order of the shard's vectors."""
    for position, key in enumerate(shard.documents.keys):
        payloads = _payloads(shard, position)
        for number, payload in enumerate(payloads):
            yield point_id(shard.index, key, number), payload


def _payloads(shard: EmbeddedShard, position: int) -> Iterator[dict[str, Any]]:
    """Yield the payload of each chunk of a document.

    A payload has the document's columns, the chunk's own fields, and our reserved part. Values of
    columns are decoded once, and are the same objects in the payloads of all chunks.
    """
    documents = shard.documents
    document = shard.chunked[position]
    columns = decode_payload(documents.payloads[position])
    of_document = document_part(columns)
    columns.pop(RESERVED_KEY, None)
    key = documents.keys[position]
    shown_id = document_id(key)
    text_hash = documents.text_hashes[position].hex()
    payload_hash = documents.payload_hashes[position].hex()

    for number, text in enumerate(document.chunks):
        reserved: dict[str, Any] = {
            **of_document,
            "key": key,
            "document_id": shown_id,
            "chunk": number,
            "chunks": len(document.chunks),
            "text": text,
            "text_hash": text_hash,
            "payload_hash": payload_hash,
        }
        # Context: "Ticket 7, printer of building 3", embedded before the text.
        if document.contexts and document.contexts[number]:
            reserved["context"] = document.contexts[number]
        # Own fields, such as the lines of a function or the author of a comment, replace columns of
        # the same name. `own` lists them, so that an update of the columns keeps them.
        own: dict[str, Any] = {}
        if document.payloads:
            own = decode_payload(document.payloads[number])
            reserved.update(own.pop(RESERVED_KEY, {}))
            reserved["own"] = sorted(own)
        # No vectors yet: the chunk is found by its words alone.
        if not len(shard.vectors):
            reserved[BY_WORDS] = True

        payload = {**columns, **own, RESERVED_KEY: reserved}
        reserved[CHUNK_HASH] = chunk_hash(payload)
        yield payload


def chunk_hash(payload: Mapping[str, Any]) -> str:
    """Hash what a point's payload says of its chunk: its own fields, and ours but this hash."""
    reserved = payload[RESERVED_KEY]
    own_names = reserved.get("own", ())
    hashed = {name: payload.get(name) for name in own_names}
    hashed[RESERVED_KEY] = {
        name: value for name, value in reserved.items() if name not in NOT_OF_CHUNK
    }
    encoded = encode_payload(hashed)
    return hash_bytes(encoded).hex()


def replaced_payload(old: dict[str, Any], payload: bytes, payload_hash: bytes) -> dict[str, Any]:
    """Return the new payload of a point whose document kept its text.

    Args:
        old: The payload of the point, of which the chunk's own fields are kept.
        payload: The new payload of the document, as canonical JSON.
    """
    reserved = {name: value for name, value in old[RESERVED_KEY].items() if name not in OF_DOCUMENT}
    own_names = reserved.get("own", ())
    own = {name: old[name] for name in own_names}
    columns = decode_payload(payload)
    reserved.update(document_part(columns))
    reserved["payload_hash"] = payload_hash.hex()
    columns.pop(RESERVED_KEY, None)
    return {**columns, **own, RESERVED_KEY: reserved}
