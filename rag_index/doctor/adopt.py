"""A ledger made anew from what the store holds: every point says its document's key, hashes and number of chunks.

Nothing is embedded. Documents that are not whole get a row that is to be written, so that the next run makes them
anew; documents without text, which have no points, are noted again by the next run.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from rag_index.doctor.collection_state import UNKNOWN
from rag_index.doctor.compare import content_hash, pages, typed_key
from rag_index.documents.batches import RESERVED_KEY

if TYPE_CHECKING:
    from rag_index.doctor.scratch import Scratch
    from rag_index.documents.batches import StoredPoint
    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

__all__ = ["adopt"]

HASH_HEX = 32


def adopt(
    scratch: Scratch, ledger: Ledger, store: Store, name: str, *, index: str, alias: str, state: str = "ready"
) -> Collection:
    """Let the ledger know a collection of the store; whatever it had under this name is forgotten.

    Row by row in temporary tables first, then in one transaction: a ledger that is half made is never seen. A
    collection without an id gets one. Raises as store and ledger do.
    """
    metadata = store.collections()[name]
    dimension = store.dimension(name)
    for page in pages(store.scroll(name)):
        scratch.see_rebuilt(_rows(page, index))
    if not metadata.get("store_id"):
        metadata = {**metadata, "store_id": str(uuid.uuid4()), "alias": alias}
        store.set_metadata(name, {"store_id": metadata["store_id"], "alias": alias})
    with ledger.transaction():
        if (before := ledger.collection(name)) is not None:
            ledger.drop_collection(before.id)
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
        scratch.keep_rebuilt(collection.id)
    return collection


def _rows(page: list[StoredPoint], index: str) -> list[dict[str, Any]]:
    """What the points of a page say, a row for each document; points that are no chunks of this index are left out."""
    rows: dict[str, dict[str, Any]] = {}
    for point in page:
        key = typed_key(point, index)
        if key is None:
            continue
        ours = point.payload[RESERVED_KEY]
        text_hash, payload_hash = _hash(ours.get("text_hash")), _hash(ours.get("payload_hash"))
        chunks = ours["chunks"] if type(ours.get("chunks")) is int else 0
        said = {"key": key, "text_hash": text_hash, "payload_hash": payload_hash, "chunks": chunks}
        row = rows.setdefault(key, {**said, "points": 0, "doubtful": 0})
        row["points"] += 1
        row["doubtful"] += any(row[name] != value for name, value in said.items())
        row["doubtful"] += not text_hash or payload_hash.hex() != content_hash(point) or ours["chunk"] >= chunks
    return list(rows.values())


def _hash(value: Any) -> bytes:
    """A hash from its hex digits; empty where it is none."""
    try:
        return bytes.fromhex(value) if len(value) == HASH_HEX else b""
    except (TypeError, ValueError):
        return b""
