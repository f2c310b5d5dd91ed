"""How well an index, or all at once, find what they should: by meaning, by words and by both, side
by side.

No person waits for the many queries: each has more time than a search, and is asked again after a
passing fault.
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
    """What a query finds, or why no index answers it."""
    Document = tuple[str, str]
    """An index and the id of a document in it."""
    Wanted = Mapping[str, Mapping[Document, int]]
    """The grade of each document that a query should find, by the text of the query."""

T = TypeVar("T")

QUERIES_AT_ONCE = 8
FIRST_QUERIES = 3
"""Queries that are asked one after another, until one is answered: if none is, the others are not
asked."""
TRIES, PAUSE = 3, 2.0
"""How often a query with a passing fault is asked, and the seconds before it is tried again."""
MIN_SEARCH_SECONDS = 120.0
"""How long one search may take, unless the settings give it longer."""
MAX_FOUND = 3

DENSE, SPARSE, HYBRID = "dense", "sparse", "hybrid"
"""The ways to search: by meaning alone, by words alone, and by both with the weight of the
settings."""

PARTIAL = 3


@dataclass(frozen=True, slots=True)
class Way:
    """A way to search, and how good it is: an estimate for each metric."""

    way: str
    dense_weight: float
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, slots=True)
class Place:
    """A document and its rank, None if it is not among the hits that were asked for."""

    index: str
    document_id: str
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class PoorQuery:
    """A query that does badly: its measures, where its relevant documents are, and what was found
    first instead."""

    query: str
    metrics: Mapping[str, float]
    relevant: tuple[Place, ...]
    found: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Scope:
    """One index, or all at once (None): the ways to search it side by side, and the queries that do
    worst."""

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
        """Return the object that `rag-index evaluate --json` prints; what there is nothing to say
        about is left out."""
        return {name: value for name, value in asdict(self).items() if value or name == "scopes"}


@dataclass(frozen=True, slots=True)
class _Judged:
    """A query that all `indexes` of a scope answered, and what it should find there."""

    query: str
    found: Asked
    indexes: tuple[str, ...]
    relevant: Mapping[Document, int]


def evaluate(
    settings: Settings,
    golden: Iterable[GoldenQuery],
    indexes: Sequence[str],
    metrics: Sequence[Metric],
    *,
    worst: int = 5,
) -> Evaluation:
    """Ask these indexes the golden queries, and measure what they find; the first metric decides
    which do `worst`.

    Raises SettingsError if the queries do not fit the indexes, and as a search does if no index
    answers.
    """
    wanted = _wanted(golden, indexes, settings)
    limit = max(metric.cutoff for metric in metrics)
    with Retriever(patient(settings)) as retriever:
        # documents of all groups are found
        candidates = partial(retriever.candidates, indexes=indexes, limit=limit, groups=ALL_GROUPS)
        answers: list[Answer] = retriever.run(ask_all(candidates, list(wanted)))
    scopes = tuple(
        _measure(name, judged, metrics, worst)
        for name, judged in _scopes(wanted, answers, indexes).items()
        if judged
    )
    return Evaluation(scopes, _errors(answers, indexes))


def _wanted(golden: Iterable[GoldenQuery], indexes: Sequence[str], settings: Settings) -> Wanted:
    """Return the documents that each query should find in these indexes. Equal queries are merged.

    Raises SettingsError if a query names an unknown index, or none although there are several, or
    if no query is left.
    """
    found: dict[str, dict[Document, int]] = {}
    for one in golden:
        if one.index is None and len(indexes) > 1:
            raise SettingsError(
                f"the query {one.query!r} names no index, but {len(indexes)} are evaluated: add"
                ' "index" to its line, or name one index with --index'
            )
        index = indexes[0] if one.index is None else settings.index(one.index).name
        if index in indexes:
            relevant = found.setdefault(one.query, {})
            relevant.update(
                {(index, document_id): grade for document_id, grade in one.relevant.items()}
            )
    if not found:
        raise SettingsError(
            f"no query has a relevant document in {', '.join(indexes)}: name other indexes with"
            " --index"
        )
    return found


def _scopes(
    wanted: Wanted, answers: Sequence[Answer], indexes: Sequence[str]
) -> dict[str | None, list[_Judged]]:
    """Return the judged queries of each index, and of several indexes those of all of them, at the
    end."""
    scopes: dict[str | None, tuple[str, ...]] = {index: (index,) for index in indexes}
    if len(indexes) > 1:
        scopes[None] = tuple(indexes)
    judged: dict[str | None, list[_Judged]] = {name: [] for name in scopes}
    for (query, documents), found in zip(wanted.items(), answers, strict=True):
        for name, of in scopes.items():
            relevant = {
                document: grade for document, grade in documents.items() if document[0] in of
            }
            if (
                relevant
                and not isinstance(found, RagIndexError)
                and found.answers.keys() >= set(of)
            ):
                judged[name].append(_Judged(query, found, of, relevant))
    return judged


def _measure(
    index: str | None, judged: Sequence[_Judged], metrics: Sequence[Metric], most: int
) -> Scope:
    """Return the measures of each way of searching, and the queries with the lowest, the first
    metric first."""
    first = judged[0]
    hybrid = any(first.found.answers[one].hybrid for one in first.indexes)
    answers = [first.found.answers[one] for one in first.indexes]
    usual = min(dense_weight(answer, first.found.question) for answer in answers)
    weights = {DENSE: 1.0, SPARSE: 0.0, HYBRID: usual} if hybrid else {DENSE: 1.0}
    found: list[list[Document]] = []
    measured: dict[str, dict[str, list[float]]] = {}
    for way, weight in weights.items():  # the last way is that of searches
        found = [
            ranked(one.found, None if way == HYBRID else weight, one.indexes) for one in judged
        ]
        pairs = [(documents, one.relevant) for documents, one in zip(found, judged, strict=True)]
        measured[way] = {
            str(metric): [measure(metric, *pair) for pair in pairs] for metric in metrics
        }
    ways = tuple(
        Way(way, weights[way], {metric: estimate(values) for metric, values in own.items()})
        for way, own in measured.items()
    )
    poor = [
        PoorQuery(
            one.query,
            {str(metric): round(value, 6) for metric, value in zip(metrics, values, strict=True)},
            tuple(
                Place(*of, documents.index(of) + 1 if of in documents else None)
                for of in one.relevant
            ),
            tuple(Place(*of, rank) for rank, of in enumerate(documents[:MAX_FOUND], 1)),
        )
        for one, documents, values in zip(
            judged, found, zip(*measured[way].values(), strict=True), strict=True
        )
        if min(values) < 1
    ]
    worst = sorted(poor, key=lambda query: tuple(query.metrics.values()))[:most]
    return Scope(index, len(judged), ways, tuple(worst))


def _errors(answers: Sequence[Answer], indexes: Sequence[str]) -> dict[str, str]:
    """Return a sentence for each index that left queries unanswered: how many, and the most common
    reason."""
    reasons: dict[str, Counter[str]] = {index: Counter() for index in indexes}
    for one in answers:
        failed = dict.fromkeys(indexes, one) if isinstance(one, RagIndexError) else one.errors
        for index, reason in failed.items():
            reasons[index][str(reason)] += 1
    return {
        index: f"{found.total():,} of {len(answers):,} queries: {found.most_common(1)[0][0]}"
        for index, found in reasons.items()
        if found
    }


def patient(settings: Settings) -> Settings:
    """Return settings for searches that have time."""
    limits = {"timeout": max(MIN_SEARCH_SECONDS, settings.retrieve.timeout)}
    return settings.model_copy(update={"retrieve": settings.retrieve.model_copy(update=limits)})


async def ask_all(
    ask: Callable[[str], Awaitable[T]], queries: Sequence[str]
) -> list[T | RagIndexError]:
    """Ask each query, again if its fault may pass, and return its answer or its error.

    Raises the error of the first query if none of the first few is answered.
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

    # One after another until one is answered: an index that cannot be searched at all says so soon.
    first = list[T | RagIndexError]()
    for query in queries[:FIRST_QUERIES]:
        first.append(await ask_patiently(query))
        if not isinstance(first[-1], RagIndexError):
            break
    failed = [answer for answer in first if isinstance(answer, RagIndexError)]
    if failed and len(failed) == len(first):
        raise failed[0]
    others = await asyncio.gather(*map(ask_patiently, queries[len(first) :]))
    return [*first, *others]
