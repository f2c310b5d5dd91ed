"""Publishing: verify a collection, move the alias to it, keep some older ones; roll back; build the
search index. What the delete guard asks is in `deletes`. The gate is a hook of the caller
(`hooks`)."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from rag_index.components.embedders import Embedder, open_embedder
from rag_index.components.ledger.tables import IndexedDocuments
from rag_index.components.stores import LEFT, OVERTAKEN, find_live, location
from rag_index.components.stores.protocol import Store, VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, text_to_embed
from rag_index.core.documents.keys import point_id
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import SettingsError, StoreError, StoreMismatch
from rag_index.etl.collection import follow_store, require_own, verify_counts
from rag_index.etl.commit import carry_access
from rag_index.etl.deletes import DeleteGuard, count_undecided, hidden_now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Alias
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened
    from rag_index.etl.scan import Scan

VERIFIED_SAMPLE = 20
EQUAL_SCORE = 1e-4
"""Scores this close count as equal: exact duplicates find each other."""


def verify_sample(
    ledger: Ledger, store: Store, index: str, collection: Collection, embedder: Embedder
) -> str:
    """Check the counts, and that the first chunks of sampled documents, embedded again, find
    themselves or an equal. Returns the result in one line. Raises StoreMismatch if counts differ,
    or a sampled chunk does not find itself."""
    documents, points = verify_counts(ledger, store, collection)
    ids = [point_id(index, key, 0) for key in ledger.sample(collection.id, VERIFIED_SAMPLE)]
    chosen = store.points(collection.name).retrieve(ids)
    ours = [point.payload[RESERVED_KEY] for point in chosen]
    texts = [text_to_embed(one.get("context", ""), one["text"]) for one in ours]
    found = 0
    for point, vector in zip(chosen, embedder.embed_documents(texts) if texts else [], strict=True):
        if isinstance(vector, Exception):
            continue
        hits = store.points(collection.name).search(VectorQuery(vector, 5))
        best = hits[0].score if hits else 0.0
        found += (
            any(hit.id == point.id for hit in hits)
            or best >= float(np.dot(vector, vector)) - EQUAL_SCORE
        )
    if found < len(ids):
        raise StoreMismatch(
            f"{collection.name}: {found} of {len(ids)} sampled chunks find themselves; it was not"
            " published. Run again; if it stays so, the embedder gives different vectors for the"
            " same text"
        )
    return (
        f"verified {points:,} points of {documents:,} documents, {found} of {len(ids)} sampled"
        " found themselves"
    )


def publish_collection(ledger: Ledger, store: Store, collection: Collection, *, keep: int) -> None:
    """Make `collection` live in this store, in one step for readers.

    The newest `keep` others of its alias there are kept, and the rest is dropped.
    """
    alias, previous = collection.alias, store.aliases().get(collection.alias)
    store.point_alias(alias, collection.name)
    ledger.update_collection(collection.id, state="ready")
    if collection.elsewhere:
        there = store.collections()
        rows = [c for c in ledger.collections_elsewhere(alias) if _is_in(there, c)]
    else:
        rows = ledger.collections(alias)
        _forget_older_elsewhere(ledger, alias, previous)
    others = [c for c in rows if c.id != collection.id]
    others.sort(key=lambda c: (c.name == previous, c.id))
    for old in others[: max(0, len(others) - keep)]:
        store.drop(old.name)
        ledger.drop_collection(old.id)


def _is_in(stored: Mapping[str, Mapping[str, Any]], collection: Collection) -> bool:
    """Return whether a store, of which this is the metadata, has a collection by name and id."""
    return stored.get(collection.name, {}).get("store_id") == collection.store_id


def _forget_older_elsewhere(ledger: Ledger, alias: str, previous: str | None) -> None:
    """Delete the ledger's rows of older collections in another store, except the newest complete
    one.

    That one is or was live there: with its rows, the settings may name that store again.
    `previous` names the collection that was live here until now.
    """
    replaced = ledger.collection(previous) if previous is not None else None
    if replaced is None:
        return
    elsewhere = ledger.collections_elsewhere(alias)
    newest_ready = max((row.id for row in elsewhere if row.state == "ready"), default=0)
    for row in elsewhere:
        if row.id < replaced.id and row.id != newest_ready:
            ledger.drop_collection(row.id)


def roll_back(
    ledger: Ledger, store: Store, alias: Alias, index: str, *, access: bool = False
) -> tuple[str, str, int]:
    """Make the newest other collection of the alias live; return the names of the one before and
    the one now live.

    The ledger's rows belong to collections, so nothing else has to move. Also return how many
    documents the former no longer had, which therefore come back. If the index has `access`, or its
    live collection has groups, all documents first get the groups that they have there, and those
    that come back get none: rights that were taken away stay away.

    Raises SettingsError if there is none to go back to, StoreMismatch if store and ledger do not
    belong together, so that it is unknown which rights to correct, or if a collection is of another
    project, and StoreRestored if the collection was put back to an older copy.
    """
    require_own(ledger, store, alias)
    found = find_live(store, alias)
    follow_store(ledger, store, found)
    live = found.name if found is not None else None
    there = store.collections()
    others = [
        c
        for c in ledger.collections(alias)
        if c.state == "ready" and c.name != live and c.name in there
    ]
    if live is None or not others:
        raise SettingsError(
            f"there is no earlier collection of {alias} to go back to; [store] keep_previous says"
            " how many are kept"
        )
    now, before = others[-1], ledger.collection(live)
    if access or GROUPS_FIELD in (store.points(live).metadata().get("payload_indexes") or {}):
        if before is None:
            raise StoreMismatch(
                f"the ledger does not know {live}, so it is unknown who may see the documents of"
                f" {now.name}: run `rag-index doctor --repair` first"
            )
        carry_access(index, ledger, store, before, now)
    store.points(live).set_metadata(
        {LEFT: True}
    )  # first, so that a lost alias is not set to it again
    store.points(now.name).set_metadata({LEFT: None})
    store.point_alias(alias, now.name)
    return live, now.name, ledger.count_unmatched(now, before).all if before is not None else 0


def counted(opened: Opened, target: Target) -> str:
    """Check the counts of a run's collection, and return them in a sentence. Raises as
    `verify_counts`."""
    documents, points = verify_counts(opened.ledger, opened.store, target.collection)
    return f"{points:,} points of {documents:,} documents counted, as many as the ledger has"


class Hooks(Protocol):
    """Questions that the caller of a run asks its collections by search; the run itself knows no
    search. `search.evaluation.gate` has the gate of a rebuild, and what scores mean. An error of a
    question ends no run."""

    def before_publishing(self, opened: Opened, rebuilt: Collection, record: RunRecord) -> str:
        """Return why the rebuilt collection may not take the place of the live one; "" if it
        may."""

    def after_run(self, opened: Opened, target: Target, record: RunRecord, *, first: bool) -> None:
        """Ask at the end of a run over all documents. `first` says that nothing was live to compare
        with."""


def publish(
    opened: Opened,
    scan: Scan,
    record: RunRecord,
    hooks: Hooks | None = None,
    *,
    all_deleted: bool = False,
) -> str:
    """Verify the collection of a run; let readers see a rebuilt one, and drop those beyond
    `keep_previous`. Returns what it did. Raises StoreMismatch if store and ledger differ, or if
    sampled chunks do not find themselves. `all_deleted` says that the index has nothing that the
    source lacks."""
    ledger, store, target, outcome, live = (
        opened.ledger,
        opened.store,
        scan.target,
        record.outcome,
        True,
    )
    collection = target.collection
    with record.stopwatch.stage("publish"):
        if target.rebuild:
            if live := _publish_rebuilt(opened, scan, record, hooks):
                ledger.update_collection(collection.id, policies=scan.policies)
            where = "now" if opened.origin is None else f"in {location(opened.settings.store)}"
            did = f"{outcome.verified}; {collection.name} is {'' if live else 'not '}live {where}"
        else:
            did = counted(opened, target)
        if hooks is not None:
            first = not (target.rebuild or scan.before.all)
            hooks.after_run(opened, target, record, first=first)
    if not store.embedded and store.points(collection.name).metadata().get(OVERTAKEN):
        outcome.say(
            "an earlier run that had stood still wrote beside this one: the next one compares every"
            " point"
        )
    # Searches do not read another store yet: the time by which they are complete is that of the
    # live collection.
    scan.diff.complete(all_read=live and opened.origin is None, all_deleted=all_deleted)
    return did


def _publish_rebuilt(opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None) -> bool:
    """Move the alias to the rebuilt collection, unless a guard refuses; say so in the outcome, and
    return whether."""
    ledger, store, settings, outcome = opened.ledger, opened.store, opened.settings, record.outcome
    collection = scan.target.collection
    with closing(open_embedder(settings.embedder, expected=scan.target.identity)) as embedder:
        outcome.verified = verify_sample(ledger, store, opened.index.name, collection, embedder)
    refused, undecided = "", IndexedDocuments(0, 0)
    if live := None if opened.options.allow_deletes else opened.live:
        former = DeleteGuard(
            ledger, live, settings.run.delete_guard, hidden_now(opened, scan, live)
        )
        if outcome.undecided:
            undecided = count_undecided(opened.source, ledger, live)
        refused = former.replacement_refused(collection, undecided)
    too_many = outcome.failed > settings.run.tolerate_failed * max(1, outcome.documents)
    if too_many and not refused:
        refused = (
            f"{outcome.failed:,} documents failed, so the rebuilt {collection.name} was not"
            " published; correct them and run again, or raise tolerate_failed"
        )
    if not refused and hooks is not None:
        if opened.index.gate is not None:
            record.progress.say("asking whether the rebuilt collection finds as much")
        refused = hooks.before_publishing(opened, collection, record)
    if refused:
        outcome.hold(refused)
        return False
    opened.lease.check()  # the gate may have taken long
    if live:  # the next runs know how large the former collection was
        ledger.record_size(live.id, ledger.count_documents(live).when_complete)
        ledger.reduce_size(live.id, undecided.when_complete)
        ledger.copy_sizes(live.id, collection.id)
    publish_collection(ledger, store, collection, keep=settings.store.keep_previous)
    return True


def build_search_index(opened: Opened, name: str, record: RunRecord) -> str:
    """Build the search index of a collection, and say so. A failure costs searches time alone: it
    is logged."""
    began = time.monotonic()
    record.progress.say("building the search index")
    try:
        with record.stopwatch.stage("search index"):
            opened.store.points(name).optimize()
        return f"the search index of {name} was built in {time.monotonic() - began:.1f} s"
    except StoreError as error:
        failed = (
            f"the search index of {name} was not built ({error}); searches scan until the next run"
            " builds it"
        )
        record.log.warning("%s", failed)
        return failed
