"""Publishing: verify a collection, move the alias to it, and keep some older ones. Also: roll back,
and build the search index.

    counts > sample > delete guard > failed documents > gate > alias > drop older collections

A rebuilt collection that does not pass stays beside the live one, which readers go on to see, and
the outcome says why. The delete guard is in `deletes`, and the gate is a hook of the caller
(`Hooks`). A kill before the alias moves leaves the rebuilt collection unfinished, and the next
rebuild goes on with it. A kill after that leaves older collections, which the next publishing
drops.
"""

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
"""Documents of a rebuilt collection that must find themselves. docs/how-it-works.md names it."""
SAMPLE_HITS = 5
"""Hits among which a sampled chunk must be. Chosen; nothing depends on it."""
EQUAL_SCORE = 1e-4
"""Scores this close count as equal: exact duplicates find each other."""


def verify_sample(
    ledger: Ledger, store: Store, index: str, collection: Collection, embedder: Embedder
) -> str:
    """Check the counts, and that the first chunks of sampled documents, embedded again, find
    themselves or an equal. Return the result as a sentence.

    Raises StoreMismatch if the counts differ, or a sampled chunk does not find itself.
    """
    documents, points = verify_counts(ledger, store, collection)
    sampled_keys = ledger.sample(collection.id, VERIFIED_SAMPLE)
    ids = [point_id(index, key, 0) for key in sampled_keys]
    stored = store.points(collection.name)
    sample = stored.retrieve(ids)
    texts: list[str] = []
    for point in sample:
        ours = point.payload[RESERVED_KEY]
        texts.append(text_to_embed(ours.get("context", ""), ours["text"]))
    vectors = embedder.embed_documents(texts) if texts else []
    found = 0
    for point, vector in zip(sample, vectors, strict=True):
        # Its text cannot be embedded any more: it is not found.
        if isinstance(vector, Exception):
            continue
        hits = stored.search(VectorQuery(vector, SAMPLE_HITS))
        if any(hit.id == point.id for hit in hits):
            found += 1
            continue
        # Six documents have the same text: another of them is found, with the score of an equal.
        best = hits[0].score if hits else 0.0
        equal = float(np.dot(vector, vector)) - EQUAL_SCORE
        if best >= equal:
            found += 1
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
    alias = collection.alias
    previous = store.aliases().get(alias)
    store.point_alias(alias, collection.name)
    ledger.update_collection(collection.id, state="ready")
    if collection.elsewhere:
        # `rebuild --to`: the older collections of that store.
        stored = store.collections()
        rows = [row for row in ledger.collections_elsewhere(alias) if _is_in(stored, row)]
    else:
        rows = ledger.collections(alias)
        _forget_older_elsewhere(ledger, alias, previous)
    others = [row for row in rows if row.id != collection.id]
    # Dropped in this order: the oldest first, and last the one that was live until now.
    others.sort(key=lambda row: (row.name == previous, row.id))
    dropped_count = max(0, len(others) - keep)
    for old in others[:dropped_count]:
        store.drop(old.name)
        ledger.drop_collection(old.id)


def _is_in(stored: Mapping[str, Mapping[str, Any]], collection: Collection) -> bool:
    """Return whether a store has a collection, by name and id. `stored` has its metadata."""
    metadata = stored.get(collection.name, {})
    return metadata.get("store_id") == collection.store_id


def _forget_older_elsewhere(ledger: Ledger, alias: str, previous: str | None) -> None:
    """Delete the ledger's rows of older collections in another store, except the newest complete
    one.

    That one is or was live there: with its rows, the settings may name that store again.

    Args:
        previous: The collection that was live in this store until now.
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
    """Make the newest other collection of the alias live.

    Return the name of the collection that was live, the name of the one that is live now, and how
    many documents the former no longer had, which therefore come back. The ledger's rows belong to
    collections, so nothing else has to move.

    If the index has `access`, or its live collection has groups, all documents first get the groups
    that they have there, and those that come back get none: rights that were taken away stay away.

    Raises:
        SettingsError: There is no collection to go back to.
        StoreMismatch: A collection is of another project, or the ledger does not know the live
            collection, so that it is unknown which rights to correct.
        StoreRestored: The collection to go back to was restored from a backup.
    """
    require_own(ledger, store, alias)
    found = find_live(store, alias)
    follow_store(ledger, store, found)
    live = found.name if found is not None else None
    stored = store.collections()
    others: list[Collection] = []
    for row in ledger.collections(alias):
        if row.state == "ready" and row.name != live and row.name in stored:
            others.append(row)
    if live is None or not others:
        raise SettingsError(
            f"there is no earlier collection of {alias} to go back to; [store] keep_previous says"
            " how many are kept"
        )
    now, before = others[-1], ledger.collection(live)
    fields = store.points(live).metadata().get("payload_indexes") or {}
    if access or GROUPS_FIELD in fields:
        if before is None:
            raise StoreMismatch(
                f"the ledger does not know {live}, so it is unknown who may see the documents of"
                f" {now.name}: run `rag-index doctor --repair` first"
            )
        carry_access(index, ledger, store, before, now)
    # Before the alias moves, so that an alias that is lost meanwhile is not set to the former one.
    store.points(live).set_metadata({LEFT: True})
    store.points(now.name).set_metadata({LEFT: None})
    store.point_alias(alias, now.name)
    returned = ledger.count_unmatched(now, before).all if before is not None else 0
    return live, now.name, returned


def counted(opened: Opened, target: Target) -> str:
    """Check the counts of a run's collection, and return them as a sentence. Raises as
    `verify_counts`."""
    ledger, store = opened.ledger, opened.store
    documents, points = verify_counts(ledger, store, target.collection)
    return f"{points:,} points of {documents:,} documents counted, as many as the ledger has"


class Hooks(Protocol):
    """What the caller of a run does with its collections by search, since a run imports no search.

    `search.evaluation.gate` has the gate of a rebuild, and calibrates scores. An error of a search
    ends no run.
    """

    def before_publishing(self, opened: Opened, rebuilt: Collection, record: RunRecord) -> str:
        """Return why the rebuilt collection may not take the place of the live one; "" if it
        may."""

    def after_run(self, opened: Opened, target: Target, record: RunRecord, *, first: bool) -> None:
        """Search at the end of a run over all documents.

        Args:
            first: Whether nothing was live before the run, so that there is nothing to compare.
        """


def publish(
    opened: Opened,
    scan: Scan,
    record: RunRecord,
    hooks: Hooks | None = None,
    *,
    all_deleted: bool = False,
) -> str:
    """Verify the collection of a run, and publish a rebuilt one. Return what was done as a
    sentence.

    Args:
        all_deleted: Whether the index has nothing that the source lacks.

    Raises StoreMismatch if store and ledger differ, or if sampled chunks do not find themselves.
    """
    store, target, outcome = opened.store, scan.target, record.outcome
    collection = target.collection
    is_live = True
    with record.stopwatch.stage("publish"):
        if target.rebuild:
            is_live = _publish_rebuilt(opened, scan, record, hooks)
            if is_live:
                opened.ledger.update_collection(collection.id, policies=scan.policies)
            # "now", or "in http://new:6333" after `rebuild --to`.
            where = "now" if opened.origin is None else f"in {location(opened.settings.store)}"
            became = "live" if is_live else "not live"
            sentence = f"{outcome.verified}; {collection.name} is {became} {where}"
        else:
            sentence = counted(opened, target)
        if hooks is not None:
            first = not (target.rebuild or scan.before.all)
            hooks.after_run(opened, target, record, first=first)
    # A worker of an earlier run has written to the server's collection during this run.
    if not store.embedded and store.points(collection.name).metadata().get(OVERTAKEN):
        outcome.say(
            "an earlier run that had stood still wrote beside this one: the next one compares every"
            " point"
        )
    # Searches do not read another store yet: the time by which they are complete is that of the
    # live collection.
    all_read = is_live and opened.origin is None
    scan.diff.complete(all_read=all_read, all_deleted=all_deleted)
    return sentence


def _publish_rebuilt(opened: Opened, scan: Scan, record: RunRecord, hooks: Hooks | None) -> bool:
    """Move the alias to the rebuilt collection, unless something is against it, which the outcome
    says then. Return whether the collection is live."""
    ledger, store, settings, outcome = opened.ledger, opened.store, opened.settings, record.outcome
    collection = scan.target.collection
    with closing(open_embedder(settings.embedder, expected=scan.target.identity)) as embedder:
        outcome.verified = verify_sample(ledger, store, opened.index.name, collection, embedder)

    # The delete guard: the rebuilt collection lacks too many documents of the live one. With
    # `--allow-deletes` it is not asked.
    live = None if opened.options.allow_deletes else opened.live
    refused = ""
    undecided = IndexedDocuments(0, 0)
    if live is not None:
        hidden = hidden_now(opened, scan, live)
        if outcome.undecided:
            undecided = count_undecided(opened.source, ledger, live)
        guard = DeleteGuard(ledger, live, settings.run.delete_guard, hidden)
        refused = guard.replacement_refused(collection, undecided)
    if not refused:
        refused = _too_many_failed_documents(opened, collection, record)
    if not refused and hooks is not None:
        if opened.index.gate is not None:
            record.progress.say("asking whether the rebuilt collection finds as much")
        refused = hooks.before_publishing(opened, collection, record)
    if refused:
        outcome.hold(refused)
        return False

    # The gate may have taken long.
    opened.lease.check()
    # The next runs know how large the former collection was, so that losses before and after a
    # rebuild count together.
    if live is not None:
        ledger.record_largest_size(live.id, ledger.count_documents(live).when_complete)
        ledger.reduce_size(live.id, undecided.when_complete)
        ledger.copy_sizes(live.id, collection.id)
    publish_collection(ledger, store, collection, keep=settings.store.keep_previous)
    return True


def _too_many_failed_documents(opened: Opened, collection: Collection, record: RunRecord) -> str:
    """Return why a rebuilt collection is not published because of failed documents; "" if it is."""
    outcome = record.outcome
    tolerated = opened.settings.run.tolerate_failed * max(1, outcome.documents)
    if outcome.failed <= tolerated:
        return ""
    return (
        f"{outcome.failed:,} documents failed, so the rebuilt {collection.name} was not"
        " published; correct them and run again, or raise tolerate_failed"
    )


def build_search_index(opened: Opened, name: str, record: RunRecord) -> str:
    """Build the search index of a collection. Return what was done as a sentence.

    A failure costs searches time alone, so it is logged.
    """
    began = time.monotonic()
    record.progress.say("building the search index")
    try:
        with record.stopwatch.stage("search index"):
            opened.store.points(name).optimize()
        return f"the search index of {name} was built in {time.monotonic() - began:.1f} s"
    except StoreError as error:
        warning = (
            f"the search index of {name} was not built ({error}); searches scan until the next run"
            " builds it"
        )
        record.log.warning("%s", warning)
        return warning
