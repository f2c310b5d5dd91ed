"""A search as the indexes are asked it, and what each of them answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.embedders.bm25 import is_compound_name
from rag_index.errors import SettingsError
from rag_index.retrieve.access import caller_groups
from rag_index.retrieve.filters import check_fields, conditions_of
from rag_index.stores import NO_WORDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.documents.batches import StoredPoint
    from rag_index.retrieve.access import CallerGroups, Groups
    from rag_index.retrieve.filters import Filter
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import Settings
    from rag_index.stores import Condition, WordCounts

MAX_HITS = 1000
CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document wanted, since several chunks of one document may match."""
MIN_READ = 50
"""Candidates read at least, and compared by soft match."""


@dataclass(frozen=True, slots=True)
class Question:
    """A validated search. `conditions` are the caller's; each index adds its own, by the caller's groups.

    With a `dense_weight` of 1, words are not searched for. `name` says that the query is one compound name, and that
    neither the caller nor the settings chose a weight: source code is then searched with `fusion.NAME_WEIGHT`.
    Without `payloads`, the candidates of a hybrid search come without theirs: `fan_out.load_payloads` reads those of
    the best.
    """

    text: str
    limit: int
    conditions: tuple[Condition, ...]
    timeout: float
    dense_weight: float = 1.0
    name: bool = False
    groups: CallerGroups = frozenset()
    payloads: bool = True
    corrected: Mapping[str, str] = field(default_factory=dict)
    """What is searched for in place of words of the query that no index has: see `spelling`."""

    @property
    def read(self) -> int:
        """How many of the best candidates are read at first."""
        return max(MIN_READ, self.limit * CHUNKS_PER_DOCUMENT)


@dataclass(slots=True)
class IndexAnswer:
    """The answer of one index: its candidates in any order, or an error.

    `live` is the collection that was searched, `seconds` how long that took. If it was searched by words too
    (`hybrid`), every candidate has both scores, the one by words with the `idf` of all indexes asked. `whole` says that
    the candidates have their payloads, and belong to as many documents as wanted, if there are so many. `until` is the
    moment by which the whole search has to end, of time.monotonic(). `commits` is the number of the last commit that
    the search saw; None if it saw all.
    """

    index: str
    points: list[StoredPoint] = field(default_factory=list)
    hybrid: bool = False
    whole: bool = True
    live: LiveCollection | None = None
    seconds: float = 0.0
    counts: WordCounts = NO_WORDS
    """The words of the query as the index counts them."""
    idf: Mapping[int, float] = field(default_factory=dict)
    """The inverse document frequency of each word of the query, in the indexes asked together."""
    until: float = 0.0
    commits: int | None = None
    error: Exception | None = None


def make_question(
    settings: Settings,
    query: str,
    indexes: Sequence[str] | None,
    limit: int,
    given: Filter | None,
    timeout: float | None,
    dense_weight: float | None,
    groups: Groups,
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
    question = Question(query, limit, conditions, timeout or retrieve.timeout, weight, name, caller_groups(groups))
    return question, [index.name for index in searched] if indexes else None
