"""The gate of a rebuild: the live and the rebuilt collection are asked the same queries before the alias moves.

They are asked as the index is searched, and by meaning alone and by words alone: golden queries that words answer would
not notice that meaning is lost. The rebuilt one is refused if it measures worse in one of these ways by more than
`max_loss`, unless chance explains that: queries whose answers change back and forth lose as often as they gain. The
test (see `chance_of_loss`) is of the metric plus the reciprocal rank of the first relevant document, since ranks change
before answers are lost. The ways share its level, so a rebuild that lost nothing is refused at most once in 20. With
`max_loss` 0, chance is given no credit. Nor is a collection published if no query finds anything in either one, because
then the golden file's ids are wrong. A run is given the gate by `orchestration.hooks`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from rag_index.components.stores import lend
from rag_index.core.reports.outcome import MEANING, SEARCH, WORDS, GateVerdict, WayVerdict, WorseQuery
from rag_index.errors import RagIndexError, SettingsError
from rag_index.search import Retriever
from rag_index.search.evaluation.evaluation import collect, patient
from rag_index.search.evaluation.golden import GoldenQuery, possible_keys, read_golden, without_documents
from rag_index.search.evaluation.measures import (
    EPSILON,
    LEVEL,
    Metric,
    chance_of_loss,
    measure,
    needed_queries,
)
from rag_index.search.fusion import ranked
from rag_index.search.question import Asked

if TYPE_CHECKING:
    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import GateSettings, IndexSettings, Settings

NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"

METRIC = Metric("recall", 10)
WAYS: dict[str, float | None] = {SEARCH: None, MEANING: 1.0, WORDS: 0.0}
"""The weight of meaning by way of searching; None is that of the settings."""
Ranking = tuple[str, ...]
"""The documents found, by id, best first."""
Answers = Mapping[str, Sequence[Ranking]]
"""What each query finds, by way of searching."""


def check_gate(settings: Settings, index: IndexSettings, gate: GateSettings) -> list[GoldenQuery]:
    """Return the golden queries of an index's gate. Raises SettingsError if the golden file cannot be used."""
    path = settings.folder / gate.queries.expanduser()
    place = f"index {index.name}, [indexes.gate]"
    try:
        queries = read_golden(path, index.name)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    if not queries:
        raise SettingsError(f"{place}: {path} has no query for this index; leave out their index, or name {index.name}")
    return queries


def gone_documents(
    ledger: Ledger, index: IndexSettings, collection_id: int, queries: Sequence[GoldenQuery]
) -> tuple[str, ...]:
    """Return the relevant documents, by id, that the source does not have, as far as a collection's scan has seen."""
    possible = {one: possible_keys(index, one) for one in sorted({one for query in queries for one in query.relevant})}
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
    named = {f"collection {number}": name for number, name in enumerate(collections)}
    copies = [index.model_copy(update={"name": name}) for name in named]
    searched, texts = patient(settings).model_copy(update={"indexes": copies}), [query.query for query in queries]
    answers: list[Answers] = []
    with Retriever(searched, open_store=partial(lend, store), collections=named) as retriever:
        for name in named:
            found = list[Asked]()
            for one in retriever.run(collect(retriever, texts, [name], METRIC.cutoff)):
                if isinstance(one, RagIndexError):
                    raise one
                found.append(one)
            ways = WAYS if all(answer.hybrid for one in found for answer in one.answered) else {SEARCH: None}
            answers.append({way: [tuple(id_ for _, id_ in ranked(one, ways[way])) for one in found] for way in ways})
    return answers


def judge(
    gate: GateSettings, queries: Sequence[GoldenQuery], before: Answers, after: Answers, gone: Sequence[str] = ()
) -> GateVerdict:
    """Return the verdict on what the queries found before and after, by the ways that both have."""
    ways = [way for way in WAYS if way in before and way in after]
    level = LEVEL / len(ways)
    found = tuple(
        _judge_way(gate, level, way, list(zip(queries, before[way], after[way], strict=True))) for way in ways
    )
    return GateVerdict(str(METRIC), len(queries), gate.max_loss, found, tuple(gone))


def _judge_way(
    gate: GateSettings, level: float, way: str, found: Sequence[tuple[GoldenQuery, Ranking, Ranking]]
) -> WayVerdict:
    first, count = Metric("MRR", METRIC.cutoff), len(found)
    measured = [(measure(METRIC, old, one.relevant), measure(METRIC, new, one.relevant)) for one, old, new in found]
    ranked = [
        (was + measure(first, old, one.relevant), now + measure(first, new, one.relevant))
        for (one, old, new), (was, now) in zip(found, measured, strict=True)
    ]
    worse = [
        WorseQuery(query.query, was, now, tuple(one for one in old if one in query.relevant and one not in new))
        for (query, old, new), (was, now) in zip(found, measured, strict=True)
        if now < was - EPSILON
    ]
    differences = [new - old for old, new in ranked]
    total, found_before = sum(old for old, _ in measured), sum(old for old, _ in ranked)
    p, loss = chance_of_loss(differences), (total - sum(new for _, new in measured)) / count
    return WayVerdict(
        way=way,
        before=total / count,
        after=total / count - loss,
        p=p,
        passed=loss <= gate.max_loss + EPSILON or (p > level and gate.max_loss > 0),
        needed=needed_queries(
            2 * gate.max_loss,
            level=level,
            lost=found_before / total if total else 1.0,
            squares=sum(difference**2 for difference in differences) / count,
        ),
        better=sum(new > old + EPSILON for old, new in measured),
        worse=tuple(sorted(worse, key=lambda one: one.after - one.before)),
    )


class Gate:
    """The gate of one run of an index that has one, which asks if the run is a rebuild that is to be `asked` about."""

    def __init__(self, settings: Settings, index: IndexSettings, gate: GateSettings, *, asked: bool) -> None:
        """Read the golden queries. Raises SettingsError if the golden file cannot be used."""
        self._settings, self._index, self._gate, self._asked = settings, index, gate, asked
        self._queries = check_gate(settings, index, gate) if asked else []

    def refusal(self, ledger: Ledger, store: Store, rebuilt: Collection, live: str | None, record: RunRecord) -> str:
        """Return why the gate refuses the rebuilt collection, if it does, or if the two cannot be compared."""
        index, outcome = self._index.name, record.outcome
        if live is None or not self._asked:
            outcome.say(NOTHING_LIVE if live is None else NOT_ASKED)
            return ""
        gone = gone_documents(ledger, self._index, rebuilt.id, self._queries)
        queries = without_documents(self._queries, gone) or self._queries  # if all are gone, the verdict says so
        try:
            with record.stopwatch.stage("gate"):
                before, after = ask(self._settings, self._index, queries, store, [live, rebuilt.name])
        except RagIndexError as error:
            return (
                f"the gate could not compare {live} with the rebuilt {rebuilt.name}, which was not published "
                f"({error}): make both searchable and run again, or run `rag-index rebuild {index} --allow-loss`"
            )
        verdict = outcome.gate = judge(self._gate, queries, before, after, gone)
        if not verdict.passed:
            return verdict.refusal(rebuilt.name, index)
        outcome.verified += f"; {verdict.sentence()}"
        for note in verdict.notes():
            outcome.say(note)
        return ""
