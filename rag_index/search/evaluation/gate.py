"""The gate of a rebuild: the live and the rebuilt collection are asked the same queries before the
alias moves.

Both are searched as `Retriever.search` does it with these settings, and each with the model that
made it. The rebuilt collection is refused if the mean recall@10 of the golden queries fell by more
than `max_loss` and at least two queries lost (`max_loss = 0`: one). Nor is it published if no query
finds anything in either collection, because then the ids of the golden file are wrong. A run is
given the gate by `orchestration.hooks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.stores import lend
from rag_index.core.reports.outcome import EPSILON, GateVerdict, WorseQuery
from rag_index.errors import RagIndexError, RerankerError, SettingsError
from rag_index.search import ALL_GROUPS, Retriever
from rag_index.search.evaluation.evaluation import ask_all, patient
from rag_index.search.evaluation.golden import (
    GoldenQuery,
    possible_keys,
    read_golden,
    without_documents,
)
from rag_index.search.evaluation.measures import Metric, measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import StoreReader
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import GateSettings, IndexSettings, Settings

NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"

METRIC = Metric("recall", 10)
Ranking = tuple[str, ...]
"""The documents that a query finds, by id, best first."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A golden query, and what it finds in the live collection and in the rebuilt one."""

    query: GoldenQuery
    live: Ranking
    rebuilt: Ranking


@dataclass(frozen=True, slots=True)
class Searched:
    """A collection to ask, and the store that has it."""

    store: StoreReader
    collection: str


def check_gate(settings: Settings, index: IndexSettings, gate: GateSettings) -> list[GoldenQuery]:
    """Return the golden queries of an index's gate. Raises SettingsError if the golden file cannot
    be used."""
    path = settings.folder / gate.queries.expanduser()
    place = f"index {index.name}, [indexes.gate]"
    try:
        queries = read_golden(path, index.name)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    if not queries:
        raise SettingsError(
            f"{place}: {path} has no query for this index; leave out their index, or name"
            f" {index.name}"
        )
    return queries


def gone_documents(
    ledger: Ledger, index: IndexSettings, collection_id: int, queries: Sequence[GoldenQuery]
) -> tuple[str, ...]:
    """Return the relevant documents, by id, that the source does not have, as far as a collection's
    scan has seen."""
    relevant = {document_id for query in queries for document_id in query.relevant}
    possible = {document_id: possible_keys(index, document_id) for document_id in sorted(relevant)}
    every = [key for keys in possible.values() for key in keys]
    there = ledger.known(collection_id, every).keys() | ledger.failures(collection_id, every).keys()
    return tuple(document_id for document_id, keys in possible.items() if there.isdisjoint(keys))


def ask(
    settings: Settings,
    index: IndexSettings,
    queries: Sequence[GoldenQuery],
    *,
    live: Searched,
    rebuilt: Searched,
) -> list[Compared]:
    """Ask the live and the rebuilt collection of an index the same queries, as the index is
    searched.

    Raises what a search raises, and RerankerError if the reranker of the settings fails.
    """
    texts = [query.query for query in queries]
    before, after = (find_all(settings, index, texts, searched) for searched in (live, rebuilt))
    return [Compared(*one) for one in zip(queries, before, after, strict=True)]


def find_all(
    settings: Settings, index: IndexSettings, texts: Sequence[str], searched: Searched
) -> list[Ranking]:
    """Return what a collection of an index finds for each query. The store stays open.

    Raises as `ask`.
    """
    alone = patient(settings).model_copy(update={"indexes": [index]})
    collections = {index.name: searched.collection}
    with Retriever(
        alone, open_store=partial(lend, searched.store), collections=collections
    ) as retriever:

        async def search(query: str) -> Ranking:
            result = await retriever.search(
                query, indexes=[index.name], limit=METRIC.cutoff, groups=ALL_GROUPS
            )
            if result.rerank_error:
                raise RerankerError(f"the hits are not reranked: {result.rerank_error}")
            return tuple(hit.document_id for hit in result.hits)

        found = list[Ranking]()
        for answer in retriever.run(ask_all(search, texts)):
            if isinstance(answer, RagIndexError):
                raise answer
            found.append(answer)
        return found


def judge(
    gate: GateSettings, compared: Sequence[Compared], gone: Sequence[str] = ()
) -> GateVerdict:
    """Return the verdict on what the queries found in both collections. There must be at least one
    query."""
    worse, better = list[WorseQuery](), 0
    total_before = total_after = 0.0
    for one in compared:
        relevant = one.query.relevant
        before = measure(METRIC, one.live, relevant)
        after = measure(METRIC, one.rebuilt, relevant)
        total_before += before
        total_after += after
        if after < before - EPSILON:
            lost = tuple(
                found for found in one.live if found in relevant and found not in one.rebuilt
            )
            worse.append(WorseQuery(one.query.query, before, after, lost))
        elif after > before + EPSILON:
            better += 1
    worse.sort(key=lambda query: query.after - query.before)
    count = len(compared)
    return GateVerdict(
        metric=str(METRIC),
        queries=count,
        max_loss=gate.max_loss,
        before=total_before / count,
        after=total_after / count,
        better=better,
        worse=tuple(worse),
        gone=tuple(gone),
    )


class Gate:
    """The gate of one run of an index that has one, which asks if the run is a rebuild that is to
    be `asked` about."""

    def __init__(
        self, settings: Settings, index: IndexSettings, gate: GateSettings, *, asked: bool
    ) -> None:
        """Read the golden queries. Raises SettingsError if the golden file cannot be used."""
        self._settings, self._index, self._gate, self._asked = settings, index, gate, asked
        self._queries = check_gate(settings, index, gate) if asked else []

    def refusal(
        self,
        ledger: Ledger,
        rebuilt: Collection,
        record: RunRecord,
        *,
        live: Searched | None,
        store: StoreReader,
    ) -> str:
        """Return why the gate refuses the rebuilt collection, if it does, or if the two cannot be
        compared."""
        index, outcome = self._index.name, record.outcome
        if live is None or not self._asked:
            outcome.say(NOTHING_LIVE if live is None else NOT_ASKED)
            return ""
        gone = gone_documents(ledger, self._index, rebuilt.id, self._queries)
        queries = (
            without_documents(self._queries, gone) or self._queries
        )  # if all are gone, the verdict says so
        try:
            with record.stopwatch.stage("gate"):
                after = Searched(store, rebuilt.name)
                compared = ask(self._settings, self._index, queries, live=live, rebuilt=after)
        except RagIndexError as error:
            return (
                f"the gate could not compare {live.collection} with the rebuilt {rebuilt.name},"
                f" which was not published ({error}): make both searchable and run again, or run"
                f" `rag-index rebuild {index} --allow-loss`"
            )
        verdict = outcome.gate = judge(self._gate, compared, gone)
        if not verdict.passed:
            return verdict.refusal(rebuilt.name, index)
        outcome.verified += f"; {verdict.sentence()}"
        for note in verdict.notes():
            outcome.say(note)
        return ""
