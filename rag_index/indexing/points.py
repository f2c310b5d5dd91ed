"""Points: made from an embedded shard, written to the store, and deleted from it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from rag_index.documents.access import OF_DOCUMENT, document_part
from rag_index.documents.batches import RESERVED_KEY, PointBatch, WrittenShard
from rag_index.documents.canonical import decode_payload
from rag_index.documents.keys import document_id, point_id
from rag_index.errors import IndexLocked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rag_index.documents.batches import EmbeddedShard
    from rag_index.documents.vectors import SparseVectors
    from rag_index.ledger import Known
    from rag_index.stores import Store

BATCH_POINTS = 1000


def write_shard(store: Store, collection: str, shard: EmbeddedShard, *, epoch: int | None = None) -> WrittenShard:
    """Upsert all points of a shard, make them durable, and return what the ledger needs.

    With `epoch`, refuse to write (IndexLocked) unless the collection belongs to the run of that epoch: workers of a
    dead run may still send shards. Raises what `Store.upsert` raises; nothing that was written then counts as done.
    """
    started = time.perf_counter()
    if epoch is not None and (now := store.metadata(collection).get("epoch")) != epoch:
        raise IndexLocked(f"{collection} is written by a later run (epoch {now}, this is {epoch}): this run ends here")
    for batch in batches(shard):
        store.upsert(collection, batch)
    store.flush(collection)
    documents = shard.documents
    return WrittenShard(
        shard.number,
        documents.keys,
        documents.text_hashes,
        documents.payload_hashes,
        shard.chunk_counts,
        shard.failures,
        shard.stats,
        time.perf_counter() - started,
    )


def batches(shard: EmbeddedShard) -> Iterator[PointBatch]:
    """Yield the points of a shard, at most `BATCH_POINTS` at a time."""
    ids: list[str] = []
    payloads: list[dict[str, Any]] = []
    first = row = 0
    for i, key in enumerate(shard.documents.keys):
        count = len(shard.chunked[i].chunks)
        for number in range(count):
            ids.append(point_id(shard.index, key, number))
            payloads.append(_payload(shard, i, number))
            row += 1
            if len(ids) == BATCH_POINTS:
                yield PointBatch(ids, shard.vectors[first:row], payloads, _rows(shard, first, row))
                ids, payloads, first = [], [], row
    if ids:
        yield PointBatch(ids, shard.vectors[first:row], payloads, _rows(shard, first, row))


def _rows(shard: EmbeddedShard, first: int, last: int) -> SparseVectors | None:
    return shard.sparse.rows(first, last) if shard.sparse is not None else None


def delete_chunks(store: Store, collection: str, index: str, stale: Iterable[tuple[str, int, Known | None]]) -> bool:
    """Delete the chunks of documents from a number on, and return whether there was anything to delete.

    `stale` has (key, first chunk to delete, ledger row). Chunks are deleted by id if the ledger says how many there
    are. A run that died may have left any number of chunks of a pending document: those are searched for, which in the
    embedded store, without an index on the key, reads every payload once.
    """
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


def replaced_payload(old: dict[str, Any], payload: bytes, payload_hash: bytes) -> dict[str, Any]:
    """Return the whole payload of a point whose document changed in its payload alone."""
    before = {name: value for name, value in old[RESERVED_KEY].items() if name not in OF_DOCUMENT}
    own = {name: old[name] for name in before.get("own", ())}
    now = decode_payload(payload)
    ours = {**before, **_take_part(now), "payload_hash": payload_hash.hex()}
    return {**now, **own, RESERVED_KEY: ours}


def _take_part(payload: dict[str, Any]) -> dict[str, Any]:
    """Remove our own part of a document's payload, and return it."""
    part = document_part(payload)
    payload.pop(RESERVED_KEY, None)
    return part


def _payload(shard: EmbeddedShard, i: int, number: int) -> dict[str, Any]:
    documents, document = shard.documents, shard.chunked[i]
    key = documents.keys[i]
    payload = decode_payload(documents.payloads[i])
    ours: dict[str, Any] = {
        **_take_part(payload),
        "key": key,
        "document_id": document_id(key),
        "chunk": number,
        "chunks": len(document.chunks),
        "text": document.chunks[number],
        "text_hash": documents.text_hashes[i].hex(),
        "payload_hash": documents.payload_hashes[i].hex(),
    }
    if document.contexts and document.contexts[number]:
        ours["context"] = document.contexts[number]
    if document.payloads:
        own = decode_payload(document.payloads[number])
        ours |= own.pop(RESERVED_KEY, {})
        ours["own"] = sorted(own)
        payload.update(own)
    payload[RESERVED_KEY] = ours
    return payload
