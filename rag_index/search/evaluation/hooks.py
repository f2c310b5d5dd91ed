"""What a run asks its collections by search: the gate of a rebuild, golden queries, and what scores mean.

A caller hands these to a run (`etl.hooks`), so that nothing of the run knows a search.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rag_index.errors import RagIndexError
from rag_index.search.evaluation.calibrate import Asked, Learner
from rag_index.search.evaluation.gate import Answers, ask, check_gate, gone_documents, judge
from rag_index.search.evaluation.golden import GoldenQuery, without_documents

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future

    from rag_index.components.embedders import EmbedderIdentity
    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.reports.metrics import Stopwatch
    from rag_index.core.reports.outcome import IndexOutcome
    from rag_index.core.settings import IndexSettings, Settings

MUCH = 0.1
"""An ordinary run that writes a greater share of the documents asks the golden queries, before and after."""
NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"


class Written(Protocol):
    """As much of a run as is asked about."""

    ledger: Ledger
    store: Store
    collection: Collection
    identity: EmbedderIdentity
    outcome: IndexOutcome
    stopwatch: Stopwatch


class SearchHooks:
    """The questions of one run. The gate decides; golden queries of an ordinary run refuse nothing.

    What a query finds before a run can be asked only while nothing is written.
    """

    def __init__(self, settings: Settings, index: IndexSettings, rebuilds: bool) -> None:
        """Read the golden queries if the run `rebuilds`: a mistake in them must not wait until all is embedded.

        Raises SettingsError if golden file or metric cannot be used.
        """
        self._settings, self._index, self._asks_gate = settings, index, rebuilds
        self._queries: Sequence[GoldenQuery] = check_gate(settings, index) if rebuilds else ()
        self._before: Answers | None = None
        self._documents = 0
        self._had_any = False
        self._calibrating: Future[Asked] | None = None

    def begin(self, run: Written, *, live: bool) -> None:
        """Take note of what is asked. Golden queries are asked of a `live` collection that has documents."""
        self._run, self._live, self._collection = run, live, run.collection
        self._learner = Learner(self._settings, self._index, run.ledger, run.store, run.collection, run.identity)
        if live and self._index.gate is not None:
            self._documents = run.ledger.totals(run.collection.id).documents
            self._had_any = self._documents > 0

    def before_writing(self) -> None:
        """Ask the golden queries: much may change, because the source is not read yet."""
        if self._before is None and self._documents:
            self._before = self._ask()

    def when_read(self, documents: int) -> None:
        """Ask the golden queries if much will change; have servers embed the calibration beside the last documents."""
        if self._is_much(documents):
            self.before_writing()
        self._calibrating = self._learner.begin()

    def before_publishing(self, live: str | None) -> str:
        """Return why the gate refuses the rebuilt collection, if it does, or if the two cannot be compared."""
        gate, index, outcome = self._index.gate, self._index.name, self._run.outcome
        if gate is None:
            return ""
        if live is None or not self._asks_gate:
            outcome.say(NOTHING_LIVE if live is None else NOT_ASKED)
            return ""
        rebuilt = self._collection
        gone = gone_documents(self._run.ledger, self._index, rebuilt.id, self._queries)
        queries = without_documents(self._queries, gone) or self._queries  # if all are gone, the verdict says so
        try:
            with self._run.stopwatch.stage("gate"):
                before, after = ask(self._settings, self._index, queries, self._run.store, [live, rebuilt.name])
        except RagIndexError as error:
            return (
                f"the gate could not compare {live} with the rebuilt {rebuilt.name}, which was not published "
                f"({error}): make both searchable and run again, or run `rag-index rebuild {index} --allow-loss`"
            )
        verdict = outcome.gate = judge(gate, queries, before, after, gone)
        if not verdict.passed:
            return verdict.refusal(rebuilt.name, index)
        outcome.verified += f"; {verdict.sentence()}"
        for note in verdict.notes():
            outcome.say(note)
        return ""

    def after_run(self, documents: int) -> None:
        """Ask again if much has changed, say what that did to the golden queries, and learn what scores mean."""
        if self._live and self._index.gate is not None:
            if not self._had_any:
                self._run.outcome.say(NOTHING_LIVE)
            self._report(documents)
        self._learner.learn(self._run.stopwatch, self._calibrating)

    def _report(self, documents: int) -> None:
        gate, before = self._index.gate, self._before
        if gate is None or before is None or not self._is_much(documents) or (after := self._ask()) is None:
            return
        gone = gone_documents(self._run.ledger, self._index, self._collection.id, self._queries)
        rows = [row for row, query in enumerate(self._queries) if not set(query.relevant) <= set(gone)]
        if rows:
            left = without_documents(self._queries, gone)
            old, new = ({way: [found[row] for row in rows] for way, found in one.items()} for one in (before, after))
            verdict = self._run.outcome.gate = judge(gate, left, old, new, gone)
            found = verdict.sentence() if verdict.passed or not verdict.search.before else verdict.fall()
            self._run.outcome.say(f"{documents:,} documents were written where there were {self._documents:,}: {found}")
            for note in verdict.notes():
                self._run.outcome.say(note)

    def _is_much(self, documents: int) -> bool:
        return documents > MUCH * self._documents

    def _ask(self) -> Answers | None:
        try:
            self._queries = self._queries or check_gate(self._settings, self._index)
            with self._run.stopwatch.stage("gate"):
                return ask(self._settings, self._index, self._queries, self._run.store, [self._collection.name])[0]
        except RagIndexError as error:
            self._run.outcome.say(f"golden queries were not asked: {error}")
            self._documents = 0  # and they are not asked again
            return None
