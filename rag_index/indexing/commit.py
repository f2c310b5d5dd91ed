"""Documents under way: as the ledger had them before, and what becomes of them once their points are in the store."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from rag_index.documents.keys import document_id
from rag_index.indexing.points import delete_chunks

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import Failure, WrittenShard
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.stores import Store

__all__ = ["Committer"]

logger = logging.getLogger("rag_index.indexing.run")


class Committer:
    """The last two writes of a shard: stale chunks are deleted, then the ledger's rows close its documents."""

    def __init__(self, index: str, ledger: Ledger, store: Store, collection: Collection) -> None:
        self._index = index
        self._ledger = ledger
        self._store = store
        self._collection = collection
        self._before: dict[str, Known | None] = {}

    def take(self, keys: Sequence[str], known: Mapping[str, Known]) -> None:
        """These documents are on their way to be embedded, and are in the ledger as `known` says."""
        self._before.update((key, known.get(key)) for key in keys)

    def commit(self, written: WrittenShard) -> int:
        """A shard's points are in the store: how many of its documents are new."""
        before = {key: self._before.pop(key, None) for key in written.keys}
        self._delete_stale(written, before)
        rows = zip(written.keys, written.text_hashes, written.payload_hashes, written.chunk_counts, strict=True)
        with self._ledger.transaction():
            self._ledger.record(self._collection.id, rows)
            self._note_failures(written.failures)
        return sum(known is None or not known.text_hash for known in before.values())

    def _delete_stale(self, written: WrittenShard, before: dict[str, Known | None]) -> None:
        """Chunks at or above the new count, of documents that may have some: they had more, or were open."""
        name = self._collection.name
        stale = [
            (key, count, known)
            for key, count in zip(written.keys, written.chunk_counts, strict=True)
            if (known := before[key]) is not None and (known.pending or known.chunks > count)
        ]
        if delete_chunks(self._store, name, self._index, stale):
            self._store.flush(name)

    def _note_failures(self, failures: list[Failure]) -> None:
        """Failed documents keep the points they had; their rows are as before the shard was submitted. Incomplete ones
        are done, and listed."""
        if not failures:
            return
        cid = self._collection.id
        lost = [failure.key for failure in failures if failure.kind == "failed"]
        before = {key: self._before.pop(key, None) for key in lost}
        self._ledger.unmark_pending(
            cid,
            known=[key for key, known in before.items() if known is not None and not known.pending],
            new=[key for key, known in before.items() if known is None],
        )
        self._ledger.fail(cid, failures)
        for failure in failures[:20]:
            said = (self._index, document_id(failure.key), failure.kind, failure.reason)
            logger.warning("%s: document %s %s: %s", *said)
