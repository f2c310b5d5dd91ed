"""The end of a rebuild: the collection is verified, asked for by every guard, and made live if none refuses."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from rag_index.embedders import open_embedder
from rag_index.indexing.bulk import build_index
from rag_index.indexing.delete_guard import DeleteGuard
from rag_index.indexing.gate import note_first, refused_by_gate
from rag_index.indexing.guards import too_few_left, too_many_failed
from rag_index.indexing.publish import publish_collection, verify_sample

if TYPE_CHECKING:
    from rag_index.embedders import EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection


def publish_rebuilt(
    run: IndexRun, collection: Collection, identity: EmbedderIdentity, *, first: bool, bulk: bool
) -> bool:
    """Move the alias to the rebuilt collection, unless a guard refuses, which the outcome then says.

    Args:
        run: The run that rebuilt it.
        collection: The new collection.
        identity: That of the embedder that embedded it.
        first: Whether no collection is live, so that there is nothing to compare it with.
        bulk: Whether its search index has to be built first.

    Returns whether the alias was moved. Raises StoreMismatch if store and ledger differ, or if sampled chunks do not
    find themselves.
    """
    keep, limits = run.settings.store.keep_previous, run.settings.run
    if bulk:
        build_index(run, collection)
    with closing(open_embedder(run.settings.embedder, expected=identity)) as embedder:
        verified = verify_sample(run.ledger, run.store, run.index.name, collection, embedder)
    run.outcome.verified = verified.sentence()
    if first:  # nothing better is live: as without bulk, what failed is only listed
        note_first(run)
        publish_collection(run.ledger, run.store, collection, keep=keep)
        return True
    live = run.ledger.collection(run.store.aliases().get(run.alias, ""))
    guard = None if live is None or run.options.allow_deletes else DeleteGuard(run.ledger, live, limits.delete_guard)
    refused = _refused(run, collection, guard)
    if refused:
        run.outcome.hold(refused)
        return False
    if guard is not None:
        guard.hand_over(collection)
    publish_collection(run.ledger, run.store, collection, keep=keep)
    return True


def _refused(run: IndexRun, collection: Collection, guard: DeleteGuard | None) -> str:
    """Return why the collection must not go live; "" if no guard refuses."""
    name, outcome, limits = collection.name, run.outcome, run.settings.run
    refused = ""
    if guard is not None:
        refused = too_few_left(name, guard.loss_by(collection), limits.delete_guard)
    refused = refused or too_many_failed(name, outcome.failed, outcome.documents, limits.tolerate_failed)
    return refused or refused_by_gate(run, collection)
