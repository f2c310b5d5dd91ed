"""Publishing: verify a collection, move the alias to it, keep some older ones; roll back; build the search index. What
the delete guard asks is in `delete_guard`. The gate is a hook of the caller (`hooks`)."""

from __future__ import annotations

import logging
import time
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from rag_index.components.embedders import Embedder, open_embedder
from rag_index.components.stores import BULK, LEFT, OVERTAKEN, find_live, on_server
from rag_index.components.stores.protocol import Store, VectorQuery
from rag_index.core.documents.batches import RESERVED_KEY, text_to_embed
from rag_index.core.documents.keys import point_id
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import SettingsError, StoreError, StoreMismatch
from rag_index.etl.collection import verify_counts
from rag_index.etl.commit import carry_access
from rag_index.etl.delete_guard import DeleteGuard, hidden

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.components.ledger import Collection, Ledger
    from rag_index.etl.run import IndexRun

VERIFIED_SAMPLE = 20
EQUAL_SCORE = 1e-4
"""Scores this close count as equal: exact duplicates find each other."""
logger = logging.getLogger("rag_index.indexing")


def verify_sample(ledger: Ledger, store: Store, index: str, collection: Collection, embedder: Embedder) -> str:
    """Check the counts, and that the first chunks of sampled documents, embedded again, find themselves or an equal.
    Returns the result in one line. Raises StoreMismatch if counts differ, or a sampled chunk does not find itself."""
    documents, points = verify_counts(ledger, store, collection)
    ids = [point_id(index, key, 0) for key in ledger.sample(collection.id, VERIFIED_SAMPLE)]
    chosen = store.retrieve(collection.name, ids)
    ours = [point.payload[RESERVED_KEY] for point in chosen]
    texts = [text_to_embed(one.get("context", ""), one["text"]) for one in ours]
    found = 0
    for point, vector in zip(chosen, embedder.embed_documents(texts) if texts else [], strict=True):
        if isinstance(vector, Exception):
            continue
        hits = store.search(collection.name, VectorQuery(vector, 5))
        best = hits[0].score if hits else 0.0
        found += any(hit.id == point.id for hit in hits) or best >= float(np.dot(vector, vector)) - EQUAL_SCORE
    if found < len(ids):
        raise StoreMismatch(
            f"{collection.name}: {found} of {len(ids)} sampled chunks find themselves; it was not published. "
            "Run again; if it stays so, the embedder gives different vectors for the same text"
        )
    return f"verified {points:,} points of {documents:,} documents, {found} of {len(ids)} sampled found themselves"


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

    Raises SettingsError if there is none to go back to, StoreMismatch if store and ledger do not belong together, so
    that it is unknown which rights to correct, and StoreRestored if the collection was put back to an older copy.
    """
    live = found.name if (found := find_live(store, alias)) else None
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
                f"the ledger does not know {live}, so it is unknown who may see the documents of {now.name}: "
                "run `rag-index doctor --repair` first"
            )
        carry_access(index, ledger, store, before, now)
    store.set_metadata(live, {LEFT: True})  # first, so that a lost alias is not set to it again
    store.set_metadata(now.name, {LEFT: None})
    store.point_alias(alias, now.name)
    return live, now.name, ledger.count_unmatched(now, before).all if before is not None else 0


def counted(run: IndexRun) -> str:
    """Check the counts of a run's collection, and return them in a sentence. Raises as `verify_counts`."""
    documents, points = verify_counts(run.ledger, run.store, run.collection)
    return f"{points:,} points of {documents:,} documents counted, as many as the ledger has"


def publish(run: IndexRun) -> str:
    """Verify the collection of a run; let readers see a rebuilt one, and drop those beyond `keep_previous`. Returns
    what it did. Raises StoreMismatch if store and ledger differ, or if sampled chunks do not find themselves."""
    ledger, collection, published = run.ledger, run.collection, True
    with run.stopwatch.stage("publish"):
        if (rate := run.diff.sharder.measured) is not None:
            ledger.update_collection(collection.id, chars_per_second=rate)
        if run.rebuild:
            if run.bulk and (server := on_server(run.store)) is not None:
                server.collection(collection.name).resume_indexing()
                run.progress.say("waiting for the server to build the search index")
                run.store.optimize(collection.name)
            if published := _publish_rebuilt(run):
                ledger.define(run.alias, run.policies, "policies")
            did = f"{run.outcome.verified}; {collection.name} is {'' if published else 'not '}live now"
        else:
            did = counted(run)
        if run.hooks is not None:
            run.hooks.after_run(run)
    if not run.store.embedded and run.store.metadata(collection.name).get(OVERTAKEN):
        run.outcome.say("an earlier run that had stood still wrote beside this one: the next one compares every point")
    for part, rows in run.part_rows.items():
        ledger.note_size(collection.id, rows, part)
    run.diff.complete(all_read=published)
    return did


def _publish_rebuilt(run: IndexRun) -> bool:
    """Move the alias to the rebuilt collection, unless a guard refuses; say so in the outcome, and return whether."""
    ledger, store, outcome, limits, collection = run.ledger, run.store, run.outcome, run.settings.run, run.collection
    with closing(open_embedder(run.settings.embedder, expected=run.identity)) as embedder:
        outcome.verified = verify_sample(ledger, store, run.index.name, collection, embedder)
    live = None if run.first or run.options.allow_deletes else run.live
    guard = DeleteGuard(ledger, live, limits.delete_guard, hidden=hidden(run)) if live else None
    refused = guard.replacement_refused(collection) if guard else ""
    too_many = outcome.failed > limits.tolerate_failed * max(1, outcome.documents)
    if too_many and not (refused or run.first):  # a first one has nothing better live: what failed is only listed
        refused = (
            f"{outcome.failed:,} documents failed, so the rebuilt {collection.name} was not published; "
            "correct them and run again, or raise tolerate_failed"
        )
    if not refused and run.hooks is not None:
        if run.index.gate is not None:
            run.progress.say("asking whether the rebuilt collection finds as much")
        refused = run.hooks.before_publishing(run, None if run.first else store.aliases().get(run.alias))
    if refused:
        outcome.hold(refused)
        return False
    run.lease.check()  # waiting for the search index, and the gate, may have taken long
    if guard and live:  # the next runs know how large the former collection was
        guard.note_size()
        ledger.copy_sizes(live.id, collection.id)
    publish_collection(ledger, store, collection, keep=run.settings.store.keep_previous)
    return True


def build_search_index(run: IndexRun) -> str:
    """Build the search index of a run's collection, and say so. A failure costs searches time alone: it is logged."""
    name, began = run.collection.name, time.monotonic()
    run.progress.say("building the search index")
    try:
        with run.stopwatch.stage("search index"):
            run.store.optimize(name)
        return f"the search index of {name} was built in {time.monotonic() - began:.1f} s"
    except StoreError as error:
        failed = f"the search index of {name} was not built ({error}); searches scan until the next run builds it"
        (run.logger or logger).warning("%s", failed)
        return failed


def begin_bulk(store: Store, others: Sequence[str], collection: str, *, loaded: bool) -> bool:
    """Turn the search index of a new collection off, and those on again that a run of this index left off. `others` are
    the other collections of the index, and `loaded` says that this run fills the collection in bulk, and publishes it
    at the end. Return whether it has to wait for the search index then. One that holds points and has its search index
    keeps it, such as after an error: turning it off would wait for what the server is building."""
    server = on_server(store)
    if server is None:
        return False
    there = store.collections()
    for other in [*others, *([] if loaded else [collection])]:
        if BULK in there.get(other, {}):
            server.collection(other).resume_indexing()
    if loaded and not store.count(collection):
        server.collection(collection).pause_indexing()
    return loaded


def end_bulk(store: Store, collection: str, index: str) -> None:
    """Turn the search index of a collection on again, however the run ended. A fault is left to the next run."""
    if (server := on_server(store)) is not None:
        try:
            server.collection(collection).resume_indexing()
        except StoreError as error:
            logger.warning("%s has no search index until the next run of %s: %s", collection, index, error)
