"""The gate of a rebuild: the live and the rebuilt collection are asked the same queries before the alias moves.

They are asked as the index is searched, and by meaning alone and by words alone: golden queries that words answer would
not notice that meaning is lost. The rebuilt one is refused if it measures worse in one of these ways by more than
`max_loss`, unless chance explains that: queries whose answers change back and forth lose as often as they gain. The
test (see `significance`) is of the metric plus the reciprocal rank of the first relevant document, since ranks change
before answers are lost. The ways share its level, so a rebuild that lost nothing is refused at most once in 20. With
`max_loss` 0, chance is given no credit. Nor is a collection published if no query finds anything in either one, because
then the golden file's ids are wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rag_index.documents.keys import key_parts, possible_keys
from rag_index.errors import SettingsError, TransientError
from rag_index.evaluation.golden import read_golden
from rag_index.evaluation.measures import Metric, measure, parse_metric
from rag_index.evaluation.significance import EPSILON, LEVEL, chance_of_loss, needed_queries
from rag_index.reports.outcome import MEANING, SEARCH, WORDS, GateVerdict, WayVerdict, WorseQuery
from rag_index.retrieve import ALL_GROUPS, Retriever
from rag_index.stores import lend

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.ledger import Ledger
    from rag_index.retrieve.results import SearchResult
    from rag_index.settings import GateSettings, IndexSettings, Settings
    from rag_index.stores import Store

WAYS: dict[str, float | None] = {SEARCH: None, MEANING: 1.0, WORDS: 0.0}
"""The weight of meaning by way of searching; None is that of the settings."""
AT_ONCE = 8
"""Queries that are asked at once."""
TRIES = 3
PAUSE = 2.0
"""Seconds before a search with a passing fault is tried again."""
SECONDS = 120.0
"""How long one search may take: nobody waits for it, and an embedder that is still busy must not stop a rebuild."""

Ranking = tuple[str, ...]
"""The documents found, by id, best first."""
Answers = Mapping[str, Sequence[Ranking]]
"""What each query finds, by way of searching."""


def check_gate(settings: Settings, index: IndexSettings) -> list[GoldenQuery]:
    """Return the golden queries of an index's gate; none if it has no gate.

    Raises SettingsError if the golden file or the metric cannot be used.
    """
    path = settings.golden_file(index)
    if path is None or index.gate is None:
        return []
    place = f"index {index.name}, [indexes.gate]"
    try:
        parse_metric(index.gate.metric)
        queries = [one for one in read_golden(path) if one.index in (None, index.name)]
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    if not queries:
        raise SettingsError(f"{place}: {path} has no query for this index; leave out their index, or name {index.name}")
    return queries


def gone_documents(
    ledger: Ledger, index: IndexSettings, collection_id: int, queries: Sequence[GoldenQuery]
) -> tuple[str, ...]:
    """Return the relevant documents, by id, that the source does not have, as far as a collection's scan has seen."""
    possible: dict[str, list[str]] = {}
    for document_id in sorted({one for query in queries for one in query.relevant}):
        try:
            possible[document_id] = list(possible_keys(key_parts(document_id, index.key_columns or ["id"])))
        except SettingsError:
            possible[document_id] = []  # no document of this index can have such an id
    every = [key for keys in possible.values() for key in keys]
    there = ledger.known(collection_id, every).keys() | ledger.failures(collection_id, every).keys()
    return tuple(document_id for document_id, keys in possible.items() if there.isdisjoint(keys))


def ask(
    settings: Settings, index: IndexSettings, queries: Sequence[GoldenQuery], store: Store, collections: Sequence[str]
) -> list[Answers]:
    """Return what each query finds in each of these collections of an index, by each way of searching.

    Each is searched as the index is, with the model that made it, and by meaning and words alone if it has both. The
    store stays open. Raises what a search raises.
    """
    limit = parse_metric(_gate(index).metric).cutoff
    both = {f"collection {number}": name for number, name in enumerate(collections)}
    patiently = patient(settings, index, both, len(queries))
    with Retriever(patiently, open_store=lambda: lend(store), collections=both) as retriever:

        def find(name: str) -> Answers:
            found = list(threads.map(lambda query: _rankings(retriever, name, query.query, limit), queries))
            return {way: [one[way] for one in found] for way in WAYS if all(way in one for one in found)}

        with ThreadPoolExecutor(AT_ONCE, "rag-index-gate") as threads:
            return [find(name) for name in both]


def _rankings(retriever: Retriever, name: str, query: str, limit: int) -> dict[str, Ranking]:
    """Return the documents that a query finds, by each way of searching that there is."""
    found: dict[str, Ranking] = {}
    for way, weight in WAYS.items():
        result = _search(retriever, name, query, limit, weight)
        if way == WORDS and result.dense_weight == 1:  # words were not searched for, and meaning was asked already
            del found[MEANING]
            return found
        found[way] = tuple(hit.document_id for hit in result.hits)
    return found


def _search(retriever: Retriever, name: str, query: str, limit: int, weight: float | None) -> SearchResult:
    """Search. A passing fault, such as a busy embedder, is tried again."""
    for tried in range(1, TRIES):
        try:
            return retriever.search_sync(query, indexes=[name], limit=limit, groups=ALL_GROUPS, dense_weight=weight)
        except TransientError:
            time.sleep(PAUSE * tried)
    return retriever.search_sync(query, indexes=[name], limit=limit, groups=ALL_GROUPS, dense_weight=weight)


def judge(
    gate: GateSettings, queries: Sequence[GoldenQuery], before: Answers, after: Answers, gone: Sequence[str] = ()
) -> GateVerdict:
    """Return the verdict on what the queries found before and after, by the ways that both have."""
    ways = [way for way in WAYS if way in before and way in after]
    level = LEVEL / len(ways)
    found = tuple(_judge_way(gate, queries, way, before[way], after[way], level) for way in ways)
    return GateVerdict(str(parse_metric(gate.metric)), len(queries), gate.max_loss, found, tuple(gone))


def _judge_way(
    gate: GateSettings,
    queries: Sequence[GoldenQuery],
    way: str,
    before: Sequence[Ranking],
    after: Sequence[Ranking],
    level: float,
) -> WayVerdict:
    metric = parse_metric(gate.metric)
    first = Metric("MRR", metric.cutoff)
    measured, ranked = [], []
    for query, old, new in zip(queries, before, after, strict=True):
        values = measure(metric, old, query.relevant), measure(metric, new, query.relevant)
        measured.append(values)
        ranked.append(
            (values[0] + measure(first, old, query.relevant), values[1] + measure(first, new, query.relevant))
        )
    worse = [
        WorseQuery(query.query, *values, tuple(one for one in old if one in query.relevant and one not in new))
        for query, values, old, new in zip(queries, measured, before, after, strict=True)
        if values[1] < values[0] - EPSILON
    ]
    differences = [new - old for old, new in ranked]
    p, count = chance_of_loss(differences), len(queries)
    total, found = sum(old for old, _ in measured), sum(old for old, _ in ranked)
    loss = (total - sum(new for _, new in measured)) / count
    lost_too_much = loss > gate.max_loss + EPSILON
    squares = sum(difference**2 for difference in differences) / count
    lost = found / total if total else 1.0
    return WayVerdict(
        way=way,
        before=total / count,
        after=total / count - loss,
        p=p,
        passed=not (lost_too_much and (p <= level or gate.max_loss == 0)),
        needed=needed_queries(2 * gate.max_loss, level=level, lost=lost, squares=squares),
        better=sum(new > old + EPSILON for old, new in measured),
        worse=tuple(sorted(worse, key=lambda one: one.after - one.before)),
    )


def _gate(index: IndexSettings) -> GateSettings:
    if index.gate is None:
        raise SettingsError(f"index {index.name} has no gate: add a table [indexes.gate] to it")
    return index.gate


def patient(settings: Settings, index: IndexSettings, names: Iterable[str], queries: int) -> Settings:
    """Return settings with the index under these names, which have time and keep the vectors of all queries."""
    limits = {name: max(SECONDS, getattr(settings.retrieve, name)) for name in ("timeout", "index_timeout")}
    cache = {"cache_size": queries, "cache_seconds": SECONDS * queries}
    indexes = [index.model_copy(update={"name": name}) for name in names]
    retrieve = settings.retrieve.model_copy(update={**limits, **cache})
    return settings.model_copy(update={"indexes": indexes, "retrieve": retrieve})
