"""The gate of a rebuild: golden queries search the live and the rebuilt collection before the alias
moves.

Both are searched as by `Retriever.search` with these settings, each with the model that made it.
The rebuilt collection is refused if the mean recall@10 of the golden queries fell by more than
`max_loss` and at least two queries lost (`max_loss = 0`: one). It is also refused if no query finds
anything in either collection, because then the ids of the golden file are wrong.
`orchestration.hooks` passes the gate to a run.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import chain
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
"""The ids of the documents that a query finds, best first."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A golden query, with its hits in the live collection and in the rebuilt one."""

    query: GoldenQuery
    live: Ranking
    rebuilt: Ranking


@dataclass(frozen=True, slots=True)
class Searched:
    """A collection to search, and the store that has it."""

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
    """Return the ids of relevant documents that the source did not have when a collection was
    filled."""
    relevant = set[str]()
    for query in queries:
        relevant.update(query.relevant)
    possible = {document_id: possible_keys(index, document_id) for document_id in sorted(relevant)}
    keys = list(chain.from_iterable(possible.values()))
    # The source also has the failed documents.
    known = ledger.known(collection_id, keys).keys()
    failed = ledger.failures(collection_id, keys).keys()
    existing = known | failed
    return tuple(document_id for document_id, own in possible.items() if existing.isdisjoint(own))


def ask(
    settings: Settings,
    index: IndexSettings,
    queries: Sequence[GoldenQuery],
    *,
    live: Searched,
    rebuilt: Searched,
) -> list[Compared]:
    """Run the same queries on the live and the rebuilt collection, as the index is searched.

    Raises what a search raises, and RerankerError if the reranker of the settings fails.
    """
    texts = [query.query for query in queries]
    before = find_all(settings, index, texts, live)
    after = find_all(settings, index, texts, rebuilt)
    compared = list[Compared]()
    for query, found_before, found_after in zip(queries, before, after, strict=True):
        compared.append(Compared(query, found_before, found_after))
    return compared


def find_all(
    settings: Settings, index: IndexSettings, texts: Sequence[str], searched: Searched
) -> list[Ranking]:
    """Return the hits of each query in a collection of an index. The store stays open.

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
    """Return the verdict on the hits in both collections.

    Args:
        compared: The queries, at least one.
        gone: Relevant documents that the source does not have.
    """
    worse = list[WorseQuery]()
    better = 0
    total_before = total_after = 0.0
    for query in compared:
        relevant = query.query.relevant
        before = measure(METRIC, query.live, relevant)
        after = measure(METRIC, query.rebuilt, relevant)
        total_before += before
        total_after += after
        if after < before - EPSILON:
            left = relevant.keys() - set(query.rebuilt)
            lost = tuple(document_id for document_id in query.live if document_id in left)
            worse.append(WorseQuery(query.query.query, before, after, lost))
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
    """The gate of one run of an index."""

    def __init__(
        self, settings: Settings, index: IndexSettings, gate: GateSettings, *, asked: bool
    ) -> None:
        """Read the golden queries. Raises SettingsError if the golden file cannot be used.

        Args:
            asked: Whether to run the queries: in a rebuild without `--allow-loss`.
        """
        self._settings = settings
        self._index = index
        self._gate = gate
        self._asked = asked
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
        """Return why the rebuilt collection is not published; "" if it is.

        It is refused by the verdict, or if the two collections cannot be compared.
        """
        index = self._index.name
        outcome = record.outcome
        if live is None:
            outcome.say(NOTHING_LIVE)
            return ""
        if not self._asked:
            outcome.say(NOT_ASKED)
            return ""
        gone = gone_documents(ledger, self._index, rebuilt.id, self._queries)
        # If the source has none of the documents, all queries run, and the verdict has the reason.
        queries = without_documents(self._queries, gone) or self._queries
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
