"""What a search reads of one index, in a thread: its candidates, and what the best of them hold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.vectors import SparseVector
from rag_index.embedders.bm25 import Bm25Encoder
from rag_index.retrieve.calibration import with_relevance
from rag_index.retrieve.fusion import best_candidates, count_documents, order_answers, scorings
from rag_index.retrieve.question import CHUNKS_PER_DOCUMENT
from rag_index.retrieve.soft_match import add_soft_match, relative_idf
from rag_index.stores import NO_WORDS, VectorQuery

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.access import AccessRules
    from rag_index.retrieve.concurrency import StoreHolder
    from rag_index.retrieve.live import LiveCollection
    from rag_index.retrieve.question import IndexAnswer, Question
    from rag_index.retrieve.results import SearchHit
    from rag_index.stores import WordCounts, WordPlaces

MIN_CANDIDATES = 50
"""Chunks requested at least by each vector of a hybrid search: the best of both together may be far down in each."""

MAX_POINTS = 10_000
"""Points requested at most, when the chunks of long documents fill the answer."""
KEPT = ("key", "document_id", "chunk")
"""What is kept of a chunk's payload: its place, but no texts, since thousands of queries may be in memory."""


def is_hybrid(question: Question, live: LiveCollection) -> bool:
    """Return whether a collection is searched by words too."""
    return live.bm25 is not None and question.dense_weight < 1


class IndexReader:
    """A reader of any index, under the conditions that the caller's groups set."""

    def __init__(self, access: AccessRules, store_holder: StoreHolder) -> None:
        self._access, self._store_holder = access, store_holder

    def word_counts(self, question: Question, live: LiveCollection) -> WordCounts:
        """Return in how many chunks of an index the words of a question are, 0 for one that the caller sees in none."""
        own = self._access.conditions(live, question.groups)
        if not live.bm25 or own is None:
            return NO_WORDS
        with self._store_holder.borrow() as store:
            return store.word_counts(live.collection, Bm25Encoder(live.bm25).query(question.text).indices, own)

    def find_words(self, question: Question, answer: IndexAnswer, words: Sequence[int]) -> WordPlaces:
        """Return which of these words chunks have that the caller may see, with the ids of 100 of these, or of all."""
        own = self._access.conditions(answer.live, question.groups) if answer.live else None
        if own is None or answer.live is None:
            return {}
        with self._store_holder.borrow() as store:
            return store.find_words(answer.live.collection, words, own)

    def candidates(
        self,
        question: Question,
        live: LiveCollection,
        vector: NDArray[np.float32],
        answer: IndexAnswer,
    ) -> list[StoredPoint]:
        """Return the candidates of an index: chunks of at least as many documents as wanted.

        The answer is told which commit they have. Payloads that are read later have it, too.

        A word counts with its idf in all indexes, which the answer has, in place of that in this one.
        """
        own = self._access.conditions(live, question.groups)
        if own is None:
            return []
        conditions = (*own, *question.conditions)
        limit = question.limit * CHUNKS_PER_DOCUMENT
        sparse = None
        if is_hybrid(question, live) and live.bm25:
            words, factors = Bm25Encoder(live.bm25).query(question.text), relative_idf(answer.counts, answer.idf)
            sparse = SparseVector(words.indices, tuple(factors.get(word, 1.0) for word in words.indices))
            limit = max(limit, MIN_CANDIDATES)
        with self._store_holder.borrow() as store:
            while True:
                query = VectorQuery(vector, limit, sparse, conditions, payload=question.payloads)
                points = store.search(live.collection, query)
                answer.commits = store.seen_commits(live.collection)
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


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers of several indexes to one query, as a rule without texts and payloads."""

    question: Question
    answers: Sequence[IndexAnswer]
    fusion: str

    @classmethod
    def of(cls, question: Question, answers: Sequence[IndexAnswer], fusion: str, *, texts: bool) -> Candidates:
        """Return the candidates of these answers, with their soft match, and with `texts` if asked for."""
        add_soft_match(question.text, answers)
        if not texts:
            answers = [replace(one, points=[_without_texts(point) for point in one.points]) for one in answers]
        return cls(question, answers, fusion)

    @property
    def errors(self) -> Mapping[str, str]:
        """The reason of each index that gave no answer."""
        return {answer.index: str(answer.error) for answer in self.answers if answer.error is not None}

    @property
    def hybrid(self) -> Mapping[str, bool]:
        """Whether words were searched for too, for each index that answered."""
        return {answer.index: answer.hybrid for answer in self.answers if answer.error is None}

    @property
    def collections(self) -> Mapping[str, str]:
        """The collection that was searched, for each index that answered."""
        return {answer.index: answer.live.collection for answer in self.answers if answer.live}

    def documents(self) -> set[tuple[str, str]]:
        """Return the documents (index, document id) that the candidates are chunks of."""
        return {
            (answer.index, str(point.payload[RESERVED_KEY].get("document_id", point.id)))
            for answer in self.answers
            for point in answer.points
        }

    def ranked(self, dense_weight: float | None = None, indexes: Sequence[str] | None = None) -> list[tuple[str, str]]:
        """Return the documents (index, document id) as a search of these indexes (default: all) shows them, best first.

        Without a `dense_weight` it is a search that leaves the weight to the settings.

        Raises SettingsError if the settings ask for a fusion that these indexes do not allow.
        """
        return [(hit.index, hit.document_id) for hit in self._hits(dense_weight, indexes)]

    def hits(self) -> list[SearchHit]:
        """Return the hits of a search that leaves the weight to the settings, with their relevance.

        The candidates must have texts.
        """
        answered = [answer for answer in self.answers if answer.error is None]
        return with_relevance(self._hits(None, None), answered, self.question.text)

    def _hits(self, dense_weight: float | None, indexes: Sequence[str] | None) -> list[SearchHit]:
        question = self.question
        if dense_weight is not None:
            question = replace(question, dense_weight=dense_weight, name=False)
        chosen = [
            replace(answer, hybrid=answer.hybrid and question.dense_weight < 1)
            for answer in self.answers
            if answer.error is None and (indexes is None or answer.index in indexes)
        ]
        scoring = scorings(chosen, question)
        best = best_candidates(chosen, question, self.fusion, scoring)
        chosen = [replace(answer, points=best[answer.index]) for answer in chosen]
        return order_answers(chosen, question, self.fusion, scoring).hits


def _without_texts(point: StoredPoint) -> StoredPoint:
    ours = point.payload.get(RESERVED_KEY, {})
    return replace(point, payload={RESERVED_KEY: {name: ours[name] for name in KEPT if name in ours}})
