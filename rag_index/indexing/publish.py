"""Publishing: verify a collection, move the alias to it, keep some older collections, drop the rest; and roll back.

The guards of publishing (too many failed, too few left) are in `guards.py`; `rebuilt.py` asks them in order.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import RESERVED_KEY, text_to_embed
from rag_index.documents.keys import point_id
from rag_index.embedders import open_embedder
from rag_index.errors import RagIndexError, SettingsError, StoreMismatch
from rag_index.evaluation.gate import ask_both, judge
from rag_index.indexing.delete_guard import DeleteGuard, too_few_left, too_many_failed
from rag_index.indexing.payload_updates import carry_access
from rag_index.indexing.search_index import build_index
from rag_index.settings.index import GROUPS_FIELD
from rag_index.stores import VectorQuery
from rag_index.stores.metadata import LEFT

if TYPE_CHECKING:
    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.indexing.run import IndexRun
    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

SAMPLE = 20
TIE = 1e-4
"""Scores this close count as equal: exact duplicates find each other."""
NOTHING_LIVE = "the gate had nothing to compare with, because no collection was live"
NOT_ASKED = "the gate was not asked (--allow-loss)"
OTHER_REMEDIES = (": put it back, or rebuild", ": put the settings back, or rebuild", ": rebuild the index")
"""How errors of searches tell a person to rebuild, which is what this run does already."""


@dataclass(frozen=True, slots=True)
class Verification:
    """What was checked before an alias moved."""

    documents: int
    points: int
    sampled: int
    found: int

    def sentence(self) -> str:
        """Return the result in one line."""
        return (
            f"verified {self.points:,} points of {self.documents:,} documents, "
            f"{self.found} of {self.sampled} sampled found themselves"
        )


def verify_counts(ledger: Ledger, store: Store, collection: Collection) -> tuple[int, int]:
    """Return the number of documents and points, after checking that the store holds what the ledger says.

    Raises:
        StoreMismatch: it does not.
    """
    totals = ledger.totals(collection.id)
    stored = store.count(collection.name)
    if totals.pending:
        stored -= store.count(collection.name, keys=ledger.pending_keys(collection.id))
    if stored != totals.points:
        raise StoreMismatch(
            f"after the run {collection.name} holds {stored:,} points, the ledger explains {totals.points:,}: "
            "another program writes to it? `rag-index doctor` shows the difference"
        )
    return totals.documents, stored


def verify_sample(ledger: Ledger, store: Store, index: str, collection: Collection, embedder: Embedder) -> Verification:
    """Check the counts, and that the first chunks of sampled documents, embedded again, find themselves or an equal.

    Raises:
        StoreMismatch: counts differ, or a sampled chunk does not find itself.
    """
    documents, points = verify_counts(ledger, store, collection)
    ids = [point_id(index, key, 0) for key in ledger.sample(collection.id, SAMPLE)]
    chosen = store.retrieve(collection.name, ids)
    ours = [point.payload[RESERVED_KEY] for point in chosen]
    texts = [text_to_embed(one.get("context", ""), one["text"]) for one in ours]
    found = 0
    for point, vector in zip(chosen, embedder.embed_documents(texts) if texts else [], strict=True):
        if isinstance(vector, Exception):
            continue
        hits = store.search(collection.name, VectorQuery(vector, 5))
        best = hits[0].score if hits else 0.0
        found += any(hit.id == point.id for hit in hits) or best >= float(np.dot(vector, vector)) - TIE
    if found < len(ids):
        raise StoreMismatch(
            f"{collection.name}: {found} of {len(ids)} sampled chunks find themselves; it was not published. "
            "Run again; if it stays so, the embedder gives different vectors for the same text"
        )
    return Verification(documents, points, len(ids), found)


def publish_collection(ledger: Ledger, store: Store, collection: Collection, *, keep: int) -> None:
    """Make `collection` live, in one step for readers; keep the newest `keep` others of its alias and drop the rest."""
    previous = store.aliases().get(collection.alias)
    store.point_alias(collection.alias, collection.name)
    ledger.update_collection(collection.id, state="ready")
    others = [c for c in ledger.collections(collection.alias) if c.id != collection.id]
    others.sort(key=lambda c: (c.name == previous, c.id))
    for old in others[: max(0, len(others) - keep)]:
        store.drop(old.name)
        ledger.drop_collection(old.id)


def roll_back(ledger: Ledger, store: Store, alias: str, index: str, *, access: bool = False) -> tuple[str, str, int]:
    """Make the newest other collection of the alias live; return the names of the one before and the one now live.

    The ledger's rows belong to collections, so nothing else has to move. Also return how many documents the former no
    longer had, which therefore come back. If the index has `access`, or its live collection has groups, all documents
    first get the groups that they have there, and those that come back get none: rights that were taken away stay away.

    Raises:
        SettingsError: there is none to go back to.
        StoreMismatch: nobody knows which rights to correct: store and ledger do not belong together, or the collection
            was put back to an older copy.
    """
    live = store.aliases().get(alias)
    there = store.collections()
    others = [c for c in ledger.collections(alias) if c.state == "ready" and c.name != live and c.name in there]
    if live is None or not others:
        raise SettingsError(
            f"there is no earlier collection of {alias} to go back to; [store] keep_previous says how many are kept"
        )
    now, before = others[-1], ledger.collection(live)
    if access or GROUPS_FIELD in (store.metadata(live).get("payload_indexes") or {}):
        if before is None:
            raise StoreMismatch(
                f"the ledger does not know {live}, so nobody knows who may see what {now.name} holds: "
                "run `rag-index doctor --repair` first"
            )
        carry_access(index, ledger, store, before, now)
    store.set_metadata(live, {LEFT: True})  # first, so that a lost alias is not set to it again
    store.set_metadata(now.name, {LEFT: None})
    store.point_alias(alias, now.name)
    return live, now.name, ledger.count_unmatched(now, before).all if before is not None else 0


def refused_by_gate(run: IndexRun, rebuilt: Collection) -> str:
    """Ask the gate of the index, and return why the rebuilt collection is not published; "" if it may be.

    The verdict goes into the outcome. If the collections cannot be asked, that is a reason too.
    """
    gate, index, outcome = run.index.gate, run.index.name, run.outcome
    if gate is None:
        return ""
    if run.options.allow_loss:
        outcome.say(NOT_ASKED)
        return ""
    live = run.store.aliases().get(run.alias)
    if live is None:
        outcome.say(NOTHING_LIVE)
        return ""
    run.progress.say(f"asking {len(run.golden):,} golden queries")
    try:
        with run.stopwatch.stage("gate"):
            found = ask_both(run.settings, run.index, run.golden, run.store, live=live, rebuilt=rebuilt.name)
    except RagIndexError as error:
        return (
            f"the gate could not compare {live} with the rebuilt {rebuilt.name}, which was not published "
            f"({_cause(error)}): make both searchable and run again, or run `rag-index rebuild {index} --allow-loss`"
        )
    outcome.gate = verdict = judge(gate, run.golden, *found)
    if not verdict.passed:
        return verdict.refusal(rebuilt.name, index)
    outcome.verified += f"; {verdict.sentence()}"
    for note in verdict.notes():
        outcome.say(note)
    return ""


def note_first(run: IndexRun) -> None:
    """Say that the first collection of an index with a gate went live without a comparison."""
    if run.index.gate is not None:
        run.outcome.say(NOTHING_LIVE)


def _cause(error: RagIndexError) -> str:
    """Return what went wrong, without a remedy for somebody who only searches."""
    cause = str(error)
    for remedy in OTHER_REMEDIES:
        cause = cause.partition(remedy)[0]
    return cause


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
