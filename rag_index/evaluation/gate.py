"""The gate of a rebuild: the live and the rebuilt collection are asked the same queries before the alias moves.

The rebuilt one is refused if it measures worse by more than `max_loss`, unless chance explains the difference: queries
whose answers change back and forth lose as often as they gain, and a rebuild that lost nothing must not be stopped. See
`significance` for the test. With too few queries to show even a loss of whole answers of that size, chance is given no
credit, and the measured loss alone decides: who cannot tell does not publish. Nor is a collection published if no query
finds anything in either one, because then the golden file's ids are wrong.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rag_index.errors import SettingsError, TransientError
from rag_index.evaluation.golden import read_golden
from rag_index.evaluation.measures import measure, parse_metric
from rag_index.evaluation.significance import EPSILON, LEVEL, chance_of_loss, needed_queries, smallest_loss
from rag_index.reports.gate import GateVerdict, WorseQuery
from rag_index.retrieve import ALL_GROUPS, Retriever
from rag_index.stores.protocol import lend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.evaluation.golden import GoldenQuery
    from rag_index.settings import GateSettings, IndexSettings, Settings
    from rag_index.stores import Store

LIVE, REBUILT = "live", "rebuilt"
"""The names of the index under which the two collections are searched."""
AT_ONCE = 8
"""Queries that are asked at once."""
TRIES = 3
PAUSE = 2.0
"""Seconds before a search with a passing fault is tried again."""
SECONDS = 120.0
"""How long one search may take: nobody waits for it, and an embedder that is still busy must not stop a rebuild."""

Ranking = tuple[str, ...]
"""The documents found, by id, best first."""


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


def ask_both(
    settings: Settings, index: IndexSettings, queries: Sequence[GoldenQuery], store: Store, *, live: str, rebuilt: str
) -> tuple[list[Ranking], list[Ranking]]:
    """Return what each query finds in the live and in the rebuilt collection of an index.

    Each is searched as the index is, with the model that made it. The store stays open. Raises what a search raises.
    """
    gate = _gate(index)
    limit = parse_metric(gate.metric).cutoff
    both = {LIVE: live, REBUILT: rebuilt}
    patient = _patient(settings, index, len(queries))
    with Retriever(patient, open_store=lambda: lend(store), collections=both) as retriever:

        def find(name: str) -> list[Ranking]:
            return list(threads.map(lambda query: _ranking(retriever, name, query.query, limit), queries))

        with ThreadPoolExecutor(AT_ONCE, "rag-index-gate") as threads:
            return find(LIVE), find(REBUILT)


def _ranking(retriever: Retriever, name: str, query: str, limit: int) -> Ranking:
    """Return the documents that a query finds. A passing fault, such as a busy embedder, is tried again."""
    for tried in range(1, TRIES + 1):
        try:
            result = retriever.search_sync(query, indexes=[name], limit=limit, groups=ALL_GROUPS)
        except TransientError:
            if tried == TRIES:
                raise
            time.sleep(PAUSE * tried)
        else:
            break
    return tuple(hit.document_id for hit in result.hits)


def judge(
    gate: GateSettings, queries: Sequence[GoldenQuery], before: Sequence[Ranking], after: Sequence[Ranking]
) -> GateVerdict:
    """Return the verdict on what the queries found before and after."""
    metric = parse_metric(gate.metric)
    measured = [
        (measure(metric, old, query.relevant), measure(metric, new, query.relevant))
        for query, old, new in zip(queries, before, after, strict=True)
    ]
    differences = [new - old for old, new in measured]
    worse = sorted(
        (
            WorseQuery(query.query, *values, tuple(one for one in old if one in query.relevant and one not in new))
            for query, values, old, new in zip(queries, measured, before, after, strict=True)
            if values[1] < values[0] - EPSILON
        ),
        key=lambda one: one.after - one.before,
    )
    p, needed = chance_of_loss(differences), needed_queries(gate.max_loss)
    enough = needed is not None and len(queries) >= needed
    lost_too_much = -sum(differences) / len(queries) > gate.max_loss + EPSILON
    return GateVerdict(
        metric=str(metric),
        queries=len(queries),
        before=sum(old for old, _ in measured) / len(queries),
        after=sum(new for _, new in measured) / len(queries),
        max_loss=gate.max_loss,
        p=p,
        passed=any(old or new for old, new in measured) and (not lost_too_much or (enough and p > LEVEL)),
        needed=needed,
        smallest=smallest_loss(len(queries)),
        better=sum(difference > EPSILON for difference in differences),
        worse=tuple(worse),
    )


def _gate(index: IndexSettings) -> GateSettings:
    if index.gate is None:
        raise SettingsError(f"index {index.name} has no gate: add a table [indexes.gate] to it")
    return index.gate


def _patient(settings: Settings, index: IndexSettings, queries: int) -> Settings:
    """Return settings with the index under two names, which have time and keep the vectors of all queries."""
    limits = {name: max(SECONDS, getattr(settings.retrieve, name)) for name in ("timeout", "index_timeout")}
    cache = {"cache_size": queries, "cache_seconds": SECONDS * queries}
    both = [index.model_copy(update={"name": name}) for name in (LIVE, REBUILT)]
    retrieve = settings.retrieve.model_copy(update={**limits, **cache})
    return settings.model_copy(update={"indexes": both, "retrieve": retrieve})
