"""What a query finds, to be put in order with any weight of meaning: see `Retriever.candidates`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.retrieve.calibration import with_relevance
from rag_index.retrieve.fusion import best_candidates, order_answers, scorings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.question import Asked
    from rag_index.retrieve.results import SearchHit

KEPT = ("key", "document_id", "chunk")
"""What is kept of a chunk's payload: its place, but no texts, since thousands of queries may be in memory."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers of several indexes to one query, as a rule without texts and payloads."""

    asked: Asked
    fusion: str

    @classmethod
    def of(cls, asked: Asked, fusion: str, *, texts: bool) -> Candidates:
        """Return the candidates of these answers, with `texts` if asked for."""
        for answer in asked.answered if not texts else ():
            answer.points = [_without_texts(point) for point in answer.points]
        return cls(asked, fusion)

    @property
    def errors(self) -> Mapping[str, str]:
        """The reason of each index that gave no answer."""
        return {index: str(error) for index, error in self.asked.errors.items()}

    @property
    def hybrid(self) -> Mapping[str, bool]:
        """Whether words were searched for too, for each index that answered."""
        return {answer.index: answer.hybrid for answer in self.asked.answered}

    @property
    def collections(self) -> Mapping[str, str]:
        """The collection that was searched, for each index that answered."""
        return {answer.index: answer.live.collection for answer in self.asked.answered}

    def documents(self) -> set[tuple[str, str]]:
        """Return the documents (index, document id) that the candidates are chunks of."""
        return {
            (answer.index, str(point.payload[RESERVED_KEY].get("document_id", point.id)))
            for answer in self.asked.answered
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
        return with_relevance(self._hits(None, None), self.asked)

    def _hits(self, dense_weight: float | None, indexes: Sequence[str] | None) -> list[SearchHit]:
        question = self.asked.question
        if dense_weight is not None:
            question = replace(question, dense_weight=dense_weight, name=False)
        chosen = [
            replace(answer, hybrid=answer.hybrid and question.dense_weight < 1)
            for answer in self.asked.answered
            if indexes is None or answer.index in indexes
        ]
        scoring = scorings(chosen, question)
        best = best_candidates(chosen, question, self.fusion, scoring)
        chosen = [replace(answer, points=best[answer.index]) for answer in chosen]
        return order_answers(chosen, question, self.fusion, scoring)[0]


def _without_texts(point: StoredPoint) -> StoredPoint:
    ours = point.payload.get(RESERVED_KEY, {})
    return replace(point, payload={RESERVED_KEY: {name: ours[name] for name in KEPT if name in ours}})
