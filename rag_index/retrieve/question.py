"""A search as the indexes are asked it, and what each of them answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypedDict

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.documents.vectors import SparseVector
from rag_index.embedders.bm25 import Bm25Encoder, is_compound_name
from rag_index.errors import SettingsError
from rag_index.retrieve.access import CallerGroups, Groups, caller_groups
from rag_index.retrieve.concurrency import Deadline
from rag_index.retrieve.filters import Filter, check_fields, conditions_of
from rag_index.stores import NO_WORDS, Condition, WordCounts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.retrieve.fusion import Scoring
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import Settings

Fusion = Literal["auto", "rank", "score"]

MAX_HITS = 1000
CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document wanted, since several chunks of one document may match."""


class SearchOptions(TypedDict, total=False):
    """The arguments of `Retriever.search` besides the query: what each of them means is said there."""

    indexes: Sequence[str] | None
    limit: int
    filter: Filter | None
    groups: Groups
    timeout: float | None
    fusion: Fusion | None
    dense_weight: float | None
    rerank: bool | None
    after: str | None
    max_age: float | str | None
    min_score: float | None
    collapse: str | None


@dataclass(frozen=True, slots=True)
class Question:
    """A validated search. `conditions` are the caller's; each index adds its own, by the caller's groups.

    With a `dense_weight` of 1, words are not searched for. `name` says that the query is one compound name, and that
    neither the caller nor the settings chose a weight: source code is then searched with `fusion.NAME_WEIGHT`.
    Without `payloads`, the candidates of a hybrid search come without theirs, and those of the best are read.
    """

    text: str
    limit: int
    conditions: tuple[Condition, ...]
    deadline: Deadline
    dense_weight: float = 1.0
    name: bool = False
    groups: CallerGroups = frozenset()
    payloads: bool = True
    corrected: Mapping[str, str] = field(default_factory=dict)
    """What is searched for in place of words of the query that no index has: see `spelling`."""


@dataclass(slots=True)
class IndexAnswer:
    """The candidates of one index, in any order.

    If it is searched by words too (`hybrid`), every candidate has both scores, the one by words with the inverse
    document frequency in all the indexes asked.
    """

    index: str
    live: LiveCollection
    """The collection that is searched."""
    own: tuple[Condition, ...]
    """The conditions that the settings and the caller's groups add."""
    hybrid: bool
    counts: WordCounts = NO_WORDS
    """The words of the query as the index counts them."""
    points: list[StoredPoint] = field(default_factory=list)
    whole: bool = True
    """Whether the points came with their payloads."""
    limit: int = 0
    """How many points were asked for by each vector."""
    commits: int | None = None
    """The number of the last commit that the search saw; None if it saw all."""
    seconds: float = 0.0
    """How long the search took."""

    def words(self, text: str) -> SparseVector:
        """Return the words of a text as the collection has them."""
        return Bm25Encoder(self.live.bm25).query(text) if self.live.bm25 else SparseVector((), ())


@dataclass(slots=True)
class Asked:
    """A question on its way to indexes, and what each of these `indexes` answers: candidates, or an error."""

    question: Question
    fusion: str
    """How the hits of several indexes are put in one order."""
    indexes: list[str]
    answers: dict[str, IndexAnswer] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)
    vectors: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """The vector of the question, by the fingerprint of the model."""
    idf: Mapping[int, float] = field(default_factory=dict)
    """The inverse document frequency of each word of the question, in the indexes together."""
    scoring: Mapping[str, Scoring] = field(default_factory=dict)
    embed_seconds: float = 0.0

    @property
    def answered(self) -> list[IndexAnswer]:
        """Return the answers in the order in which the indexes were asked."""
        return [self.answers[index] for index in self.indexes if index in self.answers]

    def fail(self, index: str, error: Exception) -> None:
        """Take an error for the answer of an index."""
        self.errors[index] = error
        self.answers.pop(index, None)

    def documents(self) -> set[tuple[str, str]]:
        """Return the documents (index, document id) that the candidates are chunks of."""
        return {
            (answer.index, str(point.payload[RESERVED_KEY].get("document_id", point.id)))
            for answer in self.answered
            for point in answer.points
        }


def make_question(
    settings: Settings,
    query: str,
    *,
    indexes: Sequence[str] | None,
    limit: int,
    groups: Groups,
    given: Filter | None = None,
    timeout: float | None = None,
    dense_weight: float | None = None,
) -> tuple[Question, list[str] | None]:
    """Return the question that the arguments of a search make, and the indexes that it names, if it names any.

    Raises SettingsError for an argument that is not valid.
    """
    if not query.strip():
        raise SettingsError("the text to search for is empty")
    if not 1 <= limit <= MAX_HITS:
        raise SettingsError(f"limit is from 1 to {MAX_HITS:,}, not {limit}")
    if timeout is not None and not timeout > 0:
        raise SettingsError(f"timeout is a number of seconds above 0, not {timeout}")
    if dense_weight is not None and not 0 <= dense_weight <= 1:
        raise SettingsError(f"dense_weight is from 0 (words alone) to 1 (meaning alone), not {dense_weight}")
    if indexes is not None and not indexes:
        raise SettingsError("`indexes` names no index: name those to search, or leave it out to search all")
    searched = settings.named([indexes] if isinstance(indexes, str) else indexes)
    conditions = conditions_of(given)
    check_fields(conditions, searched)
    retrieve = settings.retrieve
    weight = settings.dense_weight if dense_weight is None else dense_weight
    name = dense_weight is None and retrieve.dense_weight is None and is_compound_name(query)
    deadline = Deadline.after(timeout or retrieve.timeout)
    question = Question(query, limit, conditions, deadline, weight, name, caller_groups(groups))
    return question, [index.name for index in searched] if indexes else None
