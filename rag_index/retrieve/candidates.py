"""The candidates of one query, which can be put in order with any weight of meaning against words.

The candidates of a hybrid search do not depend on the weight: each of the two vectors proposes its best chunks, and
every chunk gets both scores. With a weight of 1 the order is that of a search by meaning alone, since no chunk that
only the words propose is closer than those that the meaning proposes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.retrieve.answers import order_answers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.question import IndexAnswer, Question

KEPT = ("key", "document_id", "chunk")
"""What is kept of a chunk's payload: its place, but no texts, since thousands of queries may be in memory."""


@dataclass(frozen=True, slots=True)
class Candidates:
    """The answers of several indexes to one query, without texts and payloads."""

    question: Question
    answers: Sequence[IndexAnswer]
    fusion: str

    @classmethod
    def of(cls, question: Question, answers: Sequence[IndexAnswer], fusion: str) -> Candidates:
        """Return the candidates of these answers."""
        lean = [replace(answer, points=[_without_texts(point) for point in answer.points]) for answer in answers]
        return cls(question, lean, fusion)

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

    def ranked(self, dense_weight: float, indexes: Sequence[str] | None = None) -> list[tuple[str, str]]:
        """Return the documents (index, document id) as a search of these indexes (default: all) shows them, best first.

        Raises SettingsError if the settings ask for a fusion that these indexes do not allow.
        """
        chosen = [
            replace(answer, hybrid=answer.hybrid and dense_weight < 1)
            for answer in self.answers
            if answer.error is None and (indexes is None or answer.index in indexes)
        ]
        ordered = order_answers(chosen, replace(self.question, dense_weight=dense_weight), self.fusion)
        return [(hit.index, hit.document_id) for hit in ordered.hits]


def _without_texts(point: StoredPoint) -> StoredPoint:
    ours = point.payload.get(RESERVED_KEY, {})
    return replace(point, payload={RESERVED_KEY: {name: ours[name] for name in KEPT if name in ours}})
