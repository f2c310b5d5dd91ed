"""Ledger rows made from the store: the payload of each point holds its document's key, hashes and number of chunks.

Nothing is embedded. Documents that are not whole become pending, so the next run writes them again. Documents without
text have no points; the next run records them again.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.indexing.reconcile import content_hash, pages, typed_key
from rag_index.stores.metadata import UNKNOWN

if TYPE_CHECKING:
    from rag_index.documents.batches import StoredPoint
    from rag_index.indexing.scratch import Scratch
    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

HASH_HEX = 32


def adopt(
    scratch: Scratch, ledger: Ledger, store: Store, name: str, *, index: str, alias: str, state: str = "ready"
) -> Collection:
    """Add a collection of the store to the ledger, in place of what the ledger had under this name.

    Rows are collected in temporary tables and written in one transaction, so nobody sees half of them. A collection
    without an id gets one. Raises what store and ledger raise.
    """
    metadata, mark = store.collections()[name], store.commit_mark(name)
    dimension = store.dimension(name)
    for page in pages(store.scroll(name)):
        scratch.add_rebuilt(_document_rows(page, index))
    if not metadata.get("store_id"):
        metadata = {**metadata, "store_id": str(uuid.uuid4()), "alias": alias}
        store.set_metadata(name, {"store_id": metadata["store_id"], "alias": alias})
    with ledger.transaction():
        if (previous := ledger.collection(name)) is not None:
            ledger.drop_collection(previous.id)
        collection = ledger.add_collection(
            alias=alias,
            name=name,
            store_id=metadata["store_id"],
            embedder_fingerprint=metadata.get("embedder_fingerprint") or UNKNOWN,
            embedder=metadata.get("embedder") or UNKNOWN,
            chunking=metadata.get("chunking") or UNKNOWN,
            dimension=dimension,
            state=state,
        )
        ledger.record_commit(collection.id, mark)
        scratch.write_rebuilt(collection.id)
    return collection


def _document_rows(page: list[StoredPoint], index: str) -> list[dict[str, Any]]:
    """Return a row per document from a page of points; points that are not chunks of this index are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for point in page:
        key = typed_key(point, index)
        if key is None:
            continue
        ours = point.payload[RESERVED_KEY]
        text_hash, payload_hash = _parse_hash(ours.get("text_hash")), _parse_hash(ours.get("payload_hash"))
        chunks = ours["chunks"] if type(ours.get("chunks")) is int else 0
        values = {"key": key, "text_hash": text_hash, "payload_hash": payload_hash, "chunks": chunks}
        row = rows.setdefault(key, {**values, "points": 0, "doubtful": 0})
        row["points"] += 1
        row["doubtful"] += any(row[name] != value for name, value in values.items())
        row["doubtful"] += not text_hash or payload_hash.hex() != content_hash(point) or ours["chunk"] >= chunks
    return list(rows.values())


def _parse_hash(value: Any) -> bytes:
    """Return a hash from its hex digits, or empty bytes if `value` is not a hash."""
    try:
        return bytes.fromhex(value) if len(value) == HASH_HEX else b""
    except (TypeError, ValueError):
        return b""
