"""Vectors that need not be made again, because a collection has one of the same text.

A rebuild reuses vectors of the live collection, also for documents that have another key there. A run over source code
reuses those of its own collection: of a changed file only the symbols whose text changed are embedded, and of a renamed
file none.

A vector is reused if the chunk's text and the embedder's fingerprint are the same, whatever became of payloads, chunk
sizes or chunk numbers. The copy is equal bit by bit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import RESERVED_KEY, text_to_embed
from rag_index.documents.keys import point_id
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rag_index.embedders import EmbedderIdentity
    from rag_index.ledger import Collection, Known, Ledger
    from rag_index.stores import Store

logger = logging.getLogger("rag_index.indexing.vector_reuse")


class VectorReuse:
    """A lookup of vectors in `collection`, which holds `index` and was made by the embedder that is used now.

    A document whose text another document has is looked up under that one's key as well. With `own`, `collection` is
    the one that the run writes to: pending documents still have points there, each with the text of its vector.
    """

    def __init__(self, index: str, ledger: Ledger, store: Store, collection: Collection, *, own: bool = False) -> None:
        self._index = index
        self._ledger = ledger
        self._store = store
        self._collection = collection
        self._own = own

    def vectors(self, keys: Sequence[str], text_hashes: Sequence[bytes] = ()) -> dict[str, NDArray[np.float32]]:
        """Return vectors by embedded text, of all chunks that these documents (with these texts) have there."""
        known = self._ledger.known(self._collection.id, keys)
        if text_hashes:
            known |= self._renamed(keys, text_hashes, known)
        ids = [
            point_id(self._index, key, number)
            for key, row in known.items()
            if self._own or not row.pending
            for number in range(row.chunks)
        ]
        found: dict[str, NDArray[np.float32]] = {}
        for first in range(0, len(ids), 1000):
            try:
                stored = self._store.retrieve(self._collection.name, ids[first : first + 1000], vectors=True)
            except StoreError as error:  # an unreadable collection is what a rebuild is for
                logger.warning("vectors of %s cannot be reused: %s", self._collection.name, error)
                return found
            for point in stored:
                if point.vector is not None:
                    ours = point.payload[RESERVED_KEY]
                    text = text_to_embed(ours.get("context", ""), ours["text"])
                    found[text] = np.asarray(point.vector, dtype=np.float32)
        return found

    def _renamed(self, keys: Sequence[str], text_hashes: Sequence[bytes], known: dict[str, Known]) -> dict[str, Known]:
        """Return the ledger's rows of documents with the same text as one of the new documents, under another key."""
        texts = zip(keys, text_hashes, strict=True)
        new = {text for key, text in texts if key not in known or not known[key].chunks}
        return self._ledger.known(self._collection.id, self._ledger.keys_of_texts(self._collection.id, sorted(new)))


def reusable(index: str, ledger: Ledger, store: Store, alias: str, identity: EmbedderIdentity) -> VectorReuse | None:
    """Return the lookup for a rebuild of `index`: the live collection of `alias`, if the same embedder made it."""
    live = ledger.collection(store.aliases().get(alias, ""))
    if live is None:
        return None
    metadata = store.metadata(live.name)  # the ledger alone is not enough: its row may belong to another store
    if (metadata.get("store_id"), metadata.get("embedder_fingerprint")) != (live.store_id, identity.fingerprint):
        return None
    return VectorReuse(index, ledger, store, live)
