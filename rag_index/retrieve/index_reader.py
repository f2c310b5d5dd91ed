"""What a search reads of one index, in a thread: its candidates, and what the best of them hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.documents.sparse import SparseVector
from rag_index.embedders.bm25 import Bm25Encoder
from rag_index.retrieve.fusion import count_documents

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.access import AccessRules
    from rag_index.retrieve.live import LiveCollection
    from rag_index.retrieve.question import IndexAnswer, Question
    from rag_index.retrieve.store_holder import StoreHolder

CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document wanted, since several chunks of one document may match."""
MIN_CANDIDATES = 30
"""Chunks requested at least by each vector of a hybrid search: the best of both together may be far down in each."""
MAX_POINTS = 10_000
"""Points requested at most, when the chunks of long documents fill the answer."""
NO_WORDS = SparseVector((), ())


def is_hybrid(question: Question, live: LiveCollection) -> bool:
    """Return whether a collection is searched by words too."""
    return live.bm25 is not None and question.dense_weight < 1


class IndexReader:
    """A reader of any index, under the conditions that the caller's groups set."""

    def __init__(self, access: AccessRules, store_holder: StoreHolder) -> None:
        self._access, self._store_holder = access, store_holder

    def candidates(self, question: Question, live: LiveCollection, vector: NDArray[np.float32]) -> list[StoredPoint]:
        """Return the candidates of an index: chunks of at least as many documents as wanted."""
        own = self._access.conditions(live, question.groups)
        if own is None:
            return []
        conditions = (*own, *question.conditions)
        limit = question.limit * CHUNKS_PER_DOCUMENT
        sparse = NO_WORDS
        if is_hybrid(question, live) and live.bm25:
            sparse = Bm25Encoder(live.bm25).query(question.text)
            limit = max(limit, MIN_CANDIDATES)
        with self._store_holder.borrow() as store:
            while True:
                if sparse:
                    points = store.search_hybrid(
                        live.collection, vector, sparse, limit=limit, conditions=conditions, payload=question.payloads
                    )
                else:
                    points = store.search(live.collection, vector, limit=limit, conditions=conditions)
                if not question.payloads and sparse:
                    return points
                if count_documents(points) >= question.limit or len(points) < limit or limit >= MAX_POINTS:
                    return points
                limit = min(limit * 4, MAX_POINTS)

    def payloads(self, question: Question, answer: IndexAnswer, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Read payloads under the same conditions as the candidates."""
        own = self._access.conditions(answer.live, question.groups) if answer.live else None
        if own is None or answer.live is None:
            return {}
        conditions = (*own, *question.conditions)
        with self._store_holder.borrow() as store:
            found = store.retrieve(answer.live.collection, ids, conditions=conditions)
        return {point.id: point.payload for point in found}
