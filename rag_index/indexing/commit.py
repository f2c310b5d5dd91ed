"""The commit of a shard: the last two writes, after its points are in the store."""

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

LOGGED_FAILURES = 20
logger = logging.getLogger("rag_index.indexing")


class Committer:
    """Deletes the stale chunks of a shard's documents, then writes the ledger's rows, which end their being pending."""

    def __init__(self, index: str, ledger: Ledger, store: Store, collection: Collection) -> None:
        self._index = index
        self._ledger = ledger
        self._store = store
        self._collection = collection
        self._before: dict[str, Known | None] = {}

    def take(self, keys: Sequence[str], known: Mapping[str, Known]) -> None:
        """Remember how the ledger has these documents now, before they are marked pending."""
        self._before.update((key, known.get(key)) for key in keys)

    def commit(self, written: WrittenShard) -> int:
        """Commit a shard whose points are in the store, and return how many of its documents are new."""
        before = {key: self._before.pop(key, None) for key in written.keys}
        self._delete_stale(written, before)
        rows = zip(written.keys, written.text_hashes, written.payload_hashes, written.chunk_counts, strict=True)
        with self._ledger.transaction():
            self._ledger.record(self._collection.id, rows)
            self._record_failures(written.failures)
        return sum(known is None or not known.text_hash for known in before.values())

    def _delete_stale(self, written: WrittenShard, before: dict[str, Known | None]) -> None:
        """Delete chunks at or above the new count, of documents that had more chunks or were pending."""
        name = self._collection.name
        stale = [
            (key, count, known)
            for key, count in zip(written.keys, written.chunk_counts, strict=True)
            if (known := before[key]) is not None and (known.pending or known.chunks > count)
        ]
        if delete_chunks(self._store, name, self._index, stale):
            self._store.flush(name)

    def _record_failures(self, failures: list[Failure]) -> None:
        """List failed and incomplete documents.

        A failed document keeps the points that it had, and its row becomes what it was before the shard was submitted.
        An incomplete one is indexed all the same.
        """
        if not failures:
            return
        cid = self._collection.id
        failed = [failure.key for failure in failures if failure.kind == "failed"]
        before = {key: self._before.pop(key, None) for key in failed}
        self._ledger.unmark_pending(
            cid,
            known=[key for key, known in before.items() if known is not None and not known.pending],
            new=[key for key, known in before.items() if known is None],
        )
        self._ledger.fail(cid, failures)
        for failure in failures[:LOGGED_FAILURES]:
            details = (self._index, document_id(failure.key), failure.kind, failure.reason)
            logger.warning("%s: document %s %s: %s", *details)
