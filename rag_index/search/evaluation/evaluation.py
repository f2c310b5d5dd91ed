"""Evaluation: how well golden queries find their documents, by meaning, by words and by both.

Each index is measured, and all of them together. Nobody waits for a single query here: each has
more time than a search, and is repeated after a transient error.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.errors import RagIndexError, SettingsError, TransientError
from rag_index.search import ALL_GROUPS, Retriever
from rag_index.search.evaluation.measures import Estimate, Metric, estimate, measure
from rag_index.search.fusion import dense_weight, ranked

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from rag_index.core.settings import Settings
    from rag_index.search.evaluation.golden import GoldenQuery
    from rag_index.search.question import Asked

    Answer = Asked | RagIndexError
    """The candidates of a query, or the error if no index answers."""
    Document = tuple[str, str]
    """An index and the id of a document in it."""
    Wanted = Mapping[str, Mapping[Document, int]]
    """The grade of each document that a query should find, by the text of the query."""

T = TypeVar("T")

QUERIES_AT_ONCE = 8
"""Searches that run concurrently. Chosen; nothing depends on it."""
FIRST_QUERIES = 3
"""Queries that run one after another until one succeeds. If none does, the others do not run."""
TRIES, PAUSE = 3, 2.0
"""Attempts at a query with a transient error, and the seconds before the second of them."""
MIN_SEARCH_SECONDS = 120.0
"""Time limit of a search, if that of the settings is shorter."""
MAX_FOUND = 3
"""First hits that are listed for a poor query. Chosen; nothing depends on it."""

DENSE, SPARSE, HYBRID = "dense", "sparse", "hybrid"
"""The ways to search: by meaning alone, by words alone, and by both with the weight of the
settings."""

PARTIAL = 3
"""Exit code if an index did not answer every query."""


@dataclass(frozen=True, slots=True)
class Way:
    """A way to search, with an estimate for each metric."""

    way: str
    dense_weight: float
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Place:
    """A document and its rank, counted from 1; None if it is not among the hits."""

    index: str
    document_id: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class PoorQuery:
    """A query with low values: its values, the ranks of its relevant documents, and its first
    hits."""

    query: str
    metrics: Mapping[str, float]
    relevant: tuple[Place, ...]
    found: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """One index, or all together (None): the ways to search it, and its worst queries."""

    index: str | None
    queries: int
    ways: tuple[Way, ...]
    worst: tuple[PoorQuery, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The result of an evaluation. `errors` has a sentence for each index that did not answer every
    query."""

    scopes: tuple[Scope, ...]
    errors: Mapping[str, str] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """3 if an index did not answer every query, else 0."""
        return PARTIAL if self.errors else 0

    def to_json(self) -> dict[str, Any]:
        """Return the object that `rag-index evaluate --json` prints, without errors if there are
        none."""
        members = asdict(self)
        if not self.errors:
            del members["errors"]
        return members


@dataclass(frozen=True, slots=True)
class _Judged:
    """A query that all indexes of a scope answered, and the grades of its documents there."""

    query: str
    found: Asked
    indexes: tuple[str, ...]
    relevant: Mapping[Document, int]


@dataclass(frozen=True, slots=True)
class _Measured:
    """The hits of all judged queries for one way to search, and their values."""

    hits: list[list[Document]]
    values: dict[str, list[float]]
    """A value for each query, by metric."""


def evaluate(
    settings: Settings,
    golden: Iterable[GoldenQuery],
    indexes: Sequence[str],
    metrics: Sequence[Metric],
    *,
    worst: int = 5,
) -> Evaluation:
    """Run the golden queries on these indexes, and measure their hits.

    Args:
        worst: How many poor queries of each scope are listed: those with the lowest values, by the
            first metric first.

    Raises:
        SettingsError: The queries do not fit the indexes.
        RagIndexError: No index answers; the error is that of a search.
    """
    wanted = _wanted(golden, indexes, settings)
    limit = max(metric.cutoff for metric in metrics)
    with Retriever(patient(settings)) as retriever:
        # Rights do not count: documents of all groups are found.
        candidates = partial(retriever.candidates, indexes=indexes, limit=limit, groups=ALL_GROUPS)
        answers: list[Answer] = retriever.run(ask_all(candidates, list(wanted)))
    scopes = list[Scope]()
    for index, judged in _scopes(wanted, answers, indexes).items():
        # No query of this scope was answered: `errors` has the reason.
        if judged:
            scopes.append(_measure(index, judged, metrics, worst))
    return Evaluation(tuple(scopes), _errors(answers, indexes))


def _wanted(golden: Iterable[GoldenQuery], indexes: Sequence[str], settings: Settings) -> Wanted:
    """Return the documents that each query should find in these indexes. Equal queries are merged.

    Raises SettingsError if a query names an unknown index, if a query names none although there are
    several, and if no query is left.
    """
    found: dict[str, dict[Document, int]] = {}
    for query in golden:
        if query.index is None and len(indexes) > 1:
            raise SettingsError(
                f"the query {query.query!r} names no index, but {len(indexes)} are evaluated: add"
                ' "index" to its line, or name one index with --index'
            )
        index = indexes[0] if query.index is None else settings.index(query.index).name
        # A query for an index that is not evaluated.
        if index not in indexes:
            continue
        relevant = found.setdefault(query.query, {})
        for document_id, grade in query.relevant.items():
            relevant[index, document_id] = grade
    if not found:
        raise SettingsError(
            f"no query has a relevant document in {', '.join(indexes)}: name other indexes with"
            " --index"
        )
    return found


def _scopes(
    wanted: Wanted, answers: Sequence[Answer], indexes: Sequence[str]
) -> dict[str | None, list[_Judged]]:
    """Return the judged queries of each index, and if there are several, last those of all
    together (None)."""
    scopes: dict[str | None, tuple[str, ...]] = {index: (index,) for index in indexes}
    if len(indexes) > 1:
        scopes[None] = tuple(indexes)
    judged: dict[str | None, list[_Judged]] = {name: [] for name in scopes}
    for (query, documents), found in zip(wanted.items(), answers, strict=True):
        if isinstance(found, RagIndexError):
            continue
        for name, own in scopes.items():
            relevant = {
                document: grade for document, grade in documents.items() if document[0] in own
            }
            # A query counts in a scope only if each of its indexes answered.
            if relevant and found.answers.keys() >= set(own):
                judged[name].append(_Judged(query, found, own, relevant))
    return judged


def _measure(
    index: str | None, judged: Sequence[_Judged], metrics: Sequence[Metric], worst: int
) -> Scope:
    """Return the values of each way to search, and the worst queries of the usual one."""
    weights = _weights(judged[0])
    measured = {way: _measured(way, weight, judged, metrics) for way, weight in weights.items()}
    ways = list[Way]()
    for way, weight in weights.items():
        own = measured[way].values
        estimates = {metric: estimate(values) for metric, values in own.items()}
        ways.append(Way(way, weight, estimates))
    # The last way is that of searches.
    usual = measured[ways[-1].way]
    return Scope(index, len(judged), tuple(ways), _poor_queries(judged, usual, worst))


def _weights(first: _Judged) -> dict[str, float]:
    """Return the dense weight of each way to search. The last way is that of searches.

    Args:
        first: Any query of the scope: the weights do not depend on it.
    """
    answers = [first.found.answers[index] for index in first.indexes]
    # All indexes have vectors alone.
    if not any(answer.hybrid for answer in answers):
        return {DENSE: 1.0}
    usual = min(dense_weight(answer, first.found.question) for answer in answers)
    return {DENSE: 1.0, SPARSE: 0.0, HYBRID: usual}


def _measured(
    way: str, weight: float, judged: Sequence[_Judged], metrics: Sequence[Metric]
) -> _Measured:
    """Return the hits and the values of one way to search."""
    # Each index has its own weight in a hybrid search.
    fixed_weight = None if way == HYBRID else weight
    hits = [ranked(query.found, fixed_weight, query.indexes) for query in judged]
    values = dict[str, list[float]]()
    for metric in metrics:
        values[str(metric)] = [
            measure(metric, own, query.relevant) for query, own in zip(judged, hits, strict=True)
        ]
    return _Measured(hits, values)


def _poor_queries(
    judged: Sequence[_Judged], measured: _Measured, most: int
) -> tuple[PoorQuery, ...]:
    """Return the queries with the lowest values, by the first metric first, without perfect
    ones."""
    poor = list[PoorQuery]()
    for number, (query, hits) in enumerate(zip(judged, measured.hits, strict=True)):
        own = {metric: values[number] for metric, values in measured.values.items()}
        if min(own.values()) >= 1:
            continue
        rounded = {metric: round(value, 6) for metric, value in own.items()}
        relevant = tuple(Place(*document, _rank(document, hits)) for document in query.relevant)
        found = tuple(Place(*document, rank) for rank, document in enumerate(hits[:MAX_FOUND], 1))
        poor.append(PoorQuery(query.query, rounded, relevant, found))
    poor.sort(key=lambda query: tuple(query.metrics.values()))
    return tuple(poor[:most])


def _rank(document: Document, hits: Sequence[Document]) -> int | None:
    if document not in hits:
        return None
    return hits.index(document) + 1


def _errors(answers: Sequence[Answer], indexes: Sequence[str]) -> dict[str, str]:
    """Return a sentence for each index with unanswered queries: how many, and the most common
    reason."""
    reasons: dict[str, Counter[str]] = {index: Counter() for index in indexes}
    for found in answers:
        # If no index answered, the error is that of all.
        failed = dict.fromkeys(indexes, found) if isinstance(found, RagIndexError) else found.errors
        for index, reason in failed.items():
            reasons[index][str(reason)] += 1
    sentences = dict[str, str]()
    for index, counts in reasons.items():
        if counts:
            commonest, _ = counts.most_common(1)[0]
            sentences[index] = f"{counts.total():,} of {len(answers):,} queries: {commonest}"
    return sentences


def patient(settings: Settings) -> Settings:
    """Return settings whose searches have at least `MIN_SEARCH_SECONDS`."""
    timeout = max(MIN_SEARCH_SECONDS, settings.retrieve.timeout)
    retrieve = settings.retrieve.model_copy(update={"timeout": timeout})
    return settings.model_copy(update={"retrieve": retrieve})


async def ask_all(
    ask: Callable[[str], Awaitable[T]], queries: Sequence[str]
) -> list[T | RagIndexError]:
    """Return the answer or the error of each query, after repeating those with transient errors.

    Raises the error of the first query if none of the first few succeeds.
    """
    free = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def ask_patiently(query: str) -> T | RagIndexError:
        tries = 0
        async with free:
            while True:
                tries += 1
                try:
                    return await ask(query)
                except RagIndexError as error:
                    if tries == TRIES or not isinstance(error, TransientError):
                        return error
                await asyncio.sleep(PAUSE * tries)

    # One after another until one succeeds: an index that cannot be searched is reported soon.
    first: list[T | RagIndexError] = []
    for query in queries[:FIRST_QUERIES]:
        answer = await ask_patiently(query)
        first.append(answer)
        if not isinstance(answer, RagIndexError):
            break
    failed = [answer for answer in first if isinstance(answer, RagIndexError)]
    if failed and len(failed) == len(first):
        raise failed[0]
    others = await asyncio.gather(*map(ask_patiently, queries[len(first) :]))
    return [*first, *others]
