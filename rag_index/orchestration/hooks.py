"""What a run asks by search: the gate of a rebuild, and what scores mean. Search is loaded only if
there is anything to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.embedders import EmbedderIdentity
from rag_index.components.stores import CALIBRATION, CALIBRATION_RULE, UNLEARNED
from rag_index.etl.collection import record_traits

if TYPE_CHECKING:
    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.stores.protocol import Store
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import IndexSettings, Settings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened, RunOptions
    from rag_index.search.evaluation.gate import Gate


class SearchHooks:
    """The questions of one run, as `etl.publish.Hooks`."""

    def __init__(self, settings: Settings, index: IndexSettings, options: RunOptions) -> None:
        """Read the golden queries of a rebuild's gate: a mistake in them must not wait until all is
        embedded. Raises SettingsError if the golden file cannot be used."""
        self._gate: Gate | None = None
        if index.gate is not None:
            from rag_index.search.evaluation.gate import Gate

            self._gate = Gate(
                settings, index, index.gate, asked=options.full and not options.allow_loss
            )

    def before_publishing(self, opened: Opened, rebuilt: Collection, record: RunRecord) -> str:
        """Return why the gate refuses the rebuilt collection; "" if it does not."""
        self._learn(opened, rebuilt, record)  # first: the gate judges what searches will answer
        if self._gate is None:
            return ""
        from rag_index.search.evaluation.gate import Searched

        name = opened.live_store.aliases().get(opened.alias)
        live = None if name is None else Searched(opened.live_store, name)
        return self._gate.refusal(opened.ledger, rebuilt, record, live=live, store=opened.store)

    def after_run(self, opened: Opened, target: Target, record: RunRecord, *, first: bool) -> None:
        """Learn what scores mean, again once a collection without a result has doubled, and say
        that nothing was compared if the collection is a first one. Before it has learned, the
        weights of others stand."""
        if self._gate is not None and first:
            from rag_index.search.evaluation.gate import NOTHING_LIVE

            record.outcome.say(NOTHING_LIVE)
        self._learn(opened, target.collection, record)

    def _learn(self, opened: Opened, collection: Collection, record: RunRecord) -> None:
        """Learn what the scores of a collection mean, unless it is known."""
        documents = to_learn(opened.ledger, opened.store, collection)
        if not documents:
            return
        metadata = opened.store.points(collection.name).metadata()
        identity = EmbedderIdentity.from_metadata(metadata.get("embedder_identity"))
        if identity is None:  # a newer rag-index made it
            return
        from rag_index.search.evaluation.calibrate import Learner

        record_traits(opened, collection.name, identity)
        learner = Learner(
            opened.settings, opened.index, opened.ledger, opened.store, collection, identity
        )
        learner.learn(documents, record.stopwatch)


def to_learn(ledger: Ledger, store: Store, collection: Collection) -> int:
    """Return the documents of the collection if it should learn now, else 0.

    It should if it never did, or by another rule; and once it has twice the documents of which it
    could not learn.
    """
    known = store.points(collection.name).metadata().get(CALIBRATION, {})
    learned_now = known.get("rule") == CALIBRATION_RULE
    if learned_now and UNLEARNED not in known:
        return 0
    documents = ledger.totals(collection.id).documents
    least = max(1, 2 * known[UNLEARNED]) if learned_now else 1
    return documents if documents >= least else 0
