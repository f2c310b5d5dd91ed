"""What a run does by search: the gate of a rebuild, and the calibration of scores.

Search is imported only if a run needs it.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from rag_index.components.embedders import EmbedderIdentity, open_embedder
from rag_index.components.stores import CALIBRATION, CALIBRATION_RULE, UNLEARNED
from rag_index.errors import RagIndexError
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
    """The `etl.publish.Hooks` of one run."""

    def __init__(self, settings: Settings, index: IndexSettings, options: RunOptions) -> None:
        """Read the golden queries of a rebuild's gate, so that a mistake in them is found before
        everything is embedded. Raises SettingsError if the golden file cannot be used."""
        self._gate: Gate | None = None
        if index.gate is not None:
            from rag_index.search.evaluation.gate import Gate

            is_asked = options.full and not options.allow_loss
            self._gate = Gate(settings, index, index.gate, asked=is_asked)

    def before_publishing(self, opened: Opened, rebuilt: Collection, record: RunRecord) -> str:
        """Return why the gate refuses the rebuilt collection; "" if it does not."""
        # The gate judges the answers of searches, which depend on the calibration.
        self._learn(opened, rebuilt, record)
        if self._gate is None:
            return ""
        from rag_index.search.evaluation.gate import Searched

        name = opened.live_store.aliases().get(opened.alias)
        live = None if name is None else Searched(opened.live_store, name)
        return self._gate.refusal(opened.ledger, rebuilt, record, live=live, store=opened.store)

    def after_run(self, opened: Opened, target: Target, record: RunRecord, *, first: bool) -> None:
        """Calibrate the scores of the collection, if that is due. If it is a first one, report that
        the gate compared nothing."""
        if self._gate is not None and first:
            from rag_index.search.evaluation.gate import NOTHING_LIVE

            record.outcome.say(NOTHING_LIVE)
        self._learn(opened, target.collection, record)

    def _learn(self, opened: Opened, collection: Collection, record: RunRecord) -> None:
        """Calibrate the scores of a collection, if that is due."""
        documents = to_learn(opened.ledger, opened.store, collection)
        if not documents:
            return
        metadata = opened.store.points(collection.name).metadata()
        identity = EmbedderIdentity.from_metadata(metadata.get("embedder_identity"))
        # A later version of rag-index made it.
        if identity is None:
            return
        from rag_index.search.evaluation.calibrate import Learner

        # If the embedder fails, nothing is recorded, and the next run tries again.
        with (
            record.stopwatch.stage("gate"),
            suppress(RagIndexError),
            closing(open_embedder(opened.settings.embedder, expected=identity)) as embedder,
        ):
            record_traits(opened.store, collection.name, embedder)
            learner = Learner(opened.index, opened.ledger, opened.store, collection, embedder)
            learner.learn(documents)


def to_learn(ledger: Ledger, store: Store, collection: Collection) -> int:
    """Return the number of documents of the collection if its calibration is due, else 0."""
    known = store.points(collection.name).metadata().get(CALIBRATION, {})
    is_present_rule = known.get("rule") == CALIBRATION_RULE
    # It is calibrated.
    if is_present_rule and UNLEARNED not in known:
        return 0
    # It is not yet, or by a former rule. If it had too few documents, it is tried again once it has
    # twice as many.
    least = 1
    if is_present_rule:
        least = max(1, 2 * known[UNLEARNED])
    documents = ledger.totals(collection.id).documents
    return documents if documents >= least else 0
