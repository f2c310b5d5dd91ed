"""Erasing: no file of the store keeps what runs have deleted or changed. Also: dropping an index.

    copy the live points into a new collection > counts > alias > ledger > drop the former
    collection and kept ones

Engines mark a deleted point and keep its bytes in segments, logs and vectors. A copy of the live
points has none of them. A kill before the alias moves leaves the former collection live, and the
next erasure drops the copy. A kill after that leaves the copy live: a run or an erasure gives the
ledger its name (`collection.live_collection`), and the next erasure drops the former collection.
"""

from __future__ import annotations

import math
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rag_index.components.ledger import Collection, Ledger, unwanted_indexes
from rag_index.components.stores import (
    BM25,
    INDEX_NAME,
    OWNER,
    REPLACES,
    check_owner,
    find_live,
    open_names,
)
from rag_index.components.stores.points import batches_of
from rag_index.core.documents.keys import possible_document_keys
from rag_index.core.files import unwritable
from rag_index.core.query_log import query_log
from rag_index.core.reports.outcome import count_of
from rag_index.core.reports.progress import counted
from rag_index.errors import IndexLocked, SettingsError, StoreError, UnknownIndex
from rag_index.etl.collection import (
    follow_store,
    live_collection,
    next_name,
    require_own,
    take_name,
    verify_counts,
)
from rag_index.etl.opened import hold_index
from rag_index.etl.reconcile import pages

if TYPE_CHECKING:
    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.stores.protocol import Store, StoreNames
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Alias, IndexSettings, Settings
    from rag_index.etl.collection import Target
    from rag_index.etl.opened import Opened

ERASE_POINTS = 500
"""Points that are copied at a time. Chosen; nothing depends on it."""
NEAR_NAME = 0.5
"""How similar the name of an index must be to be suggested (difflib). Chosen; nothing depends on
it."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did."""

    index: str
    collection: str
    """The new collection, which is live."""
    documents: int
    """Documents that were deleted or changed since the last erasure."""
    points: int
    """Points that were copied."""
    dropped: tuple[str, ...]
    """The collections that had the former texts."""
    seconds: float
    held_back: int
    """Documents that the source lost and that the delete guard keeps, with all their texts."""


def erase(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, lease: IndexLease
) -> Erased | None:
    """Erase what was deleted from an index or changed in it. Return None if nothing is indexed.

    The caller holds the lease.

    Raises:
        IndexLocked: A rebuild is not finished.
        StoreMismatch: Store and ledger do not belong together.
        StoreError, LedgerError, …: As store and ledger.
    """
    began = time.perf_counter()
    alias = settings.alias(index.name)
    require_own(ledger, store, alias)
    follow_store(ledger, store, find_live(store, alias))
    former = live_collection(ledger, store, alias)
    if former is None:
        return None
    obstacle = unfinished_rebuild(ledger, store, former, index.name)
    if obstacle:
        raise IndexLocked(obstacle)

    kept = [row for row in ledger.collections(alias) if row.id != former.id]
    kept_names = {row.name for row in kept}
    others: list[str] = []
    for name, metadata in store.collections().items():
        if metadata.get("alias") == alias and name != former.name:
            others.append(name)
    # Made or left by an erasure that was killed.
    for name in set(others) - kept_names:
        store.drop(name)

    documents = ledger.erasable(alias).documents
    copy = next_name(ledger, alias, store)
    points = _copy(ledger, store, former, copy, lease)
    lease.check()
    store.point_alias(alias, copy)
    take_name(ledger, former, copy, store.points(copy).metadata())
    for name in [former.name, *others]:
        store.drop(name)
    for row in kept:
        ledger.drop_collection(row.id)
    # Contexts, logged queries and the ledger's log have texts of documents, too.
    ledger.prune_contexts(math.inf)
    _forget_queries(settings, index, ledger, former.id)
    ledger.empty_log()
    ledger.end_erasure(former.id)
    seconds = round(time.perf_counter() - began, 3)
    dropped = (former.name, *others)
    return Erased(index.name, copy, documents, points, dropped, seconds, former.held)


def unfinished_rebuild(ledger: Ledger, store: StoreNames, live: Collection, index: str) -> str:
    """Return why an erasure has to wait for a rebuild; "" if there is none.

    The erasure would drop what the rebuild has embedded.
    """
    for row in ledger.collections(live.alias):
        is_unfinished = row.state == "building" and row.id != live.id
        if is_unfinished and store.find(row.name) is not None:
            return (
                f"the rebuild {row.name} is not finished, and an erasure waits for it:"
                f" `rag-index rebuild {index}` completes it"
            )
    return ""


def _forget_queries(settings: Settings, index: IndexSettings, ledger: Ledger, live: int) -> None:
    """Remove the queries from the log that have found a deleted document. Raises SettingsError if
    that fails."""

    def is_gone(document_id: str) -> bool:
        try:
            keys = possible_document_keys(index.key_columns, document_id)
        except SettingsError:
            # An id of former key columns.
            return True
        return not ledger.known(live, keys)

    log = query_log(settings.serve)
    if log is None:
        return
    try:
        log.erase(index.name, is_gone)
    except OSError as error:
        reason = unwritable(log.path, error, "name another file")
        raise SettingsError(f"[serve] query_log {reason}") from error


def _copy(ledger: Ledger, store: Store, former: Collection, name: str, lease: IndexLease) -> int:
    """Copy a collection, and return its number of points. Raises StoreError if the copy has another
    number."""
    old_points, new_points = store.points(former.name), store.points(name)
    metadata = old_points.metadata()
    made = {**metadata, "store_id": str(uuid.uuid4()), INDEX_NAME: name}
    # By this, the ledger's rows are found again if the erasure is killed after the alias moved.
    made[REPLACES] = former.store_id
    store.create(name, former.dimension, made, sparse=BM25 in metadata)
    new_points.take_settings(old_points)
    if fields := metadata.get("payload_indexes"):
        new_points.index_fields(fields)
    stored = pages(old_points.scroll(vectors=True, page=ERASE_POINTS), ERASE_POINTS)
    for points in counted(stored, "points copied", old_points.count, len):
        lease.check()
        for batch in batches_of(points):
            new_points.upsert(batch)
    new_points.flush()
    new_points.set_commit_mark(old_points.commit_mark())
    verify_counts(ledger, store, former)
    copied = new_points.count()
    if copied != old_points.count():
        raise StoreError(
            f"{name} has {copied:,} points and not those of {former.name}: nothing was erased; run"
            " it again"
        )
    if old_points.indexed():
        new_points.optimize()
    return copied


def kept_index(settings: Settings, name: str) -> str:
    """Return the collections that store and ledger keep of an index, each with its number of
    documents, as a sentence. Neither store nor index is locked.

    Raises UnknownIndex if there are none.
    """
    alias = settings.alias(name)
    with closing(Ledger(settings.ledger_url)) as ledger, open_names(settings.store) as names:
        stored = _stored(ledger, names, alias)
        collections = dict.fromkeys(stored, "unknown to the ledger")
        for row in (*ledger.collections(alias), *ledger.collections_elsewhere(alias)):
            documents = count_of(ledger.totals(row.id).documents, "document")
            if row.name not in stored:
                documents = f"{documents}, not in this store, where it stays"
            collections[row.name] = documents
        if collections:
            return ", ".join(f"{kept} ({what})" for kept, what in collections.items())
        others = [index.name for index in settings.indexes]
        others += unwanted_indexes(settings, ledger, names.aliases())
    near = get_close_matches(name, others, n=1, cutoff=NEAR_NAME)
    hint = f", did you mean {near[0]!r}?" if near and near[0] != name else ""
    raise UnknownIndex(
        f"nothing is kept of an index {name!r}{hint}; the indexes are {', '.join(others)}"
    )


@dataclass(frozen=True, slots=True)
class DroppedIndex:
    """What `drop` deleted, and what it left."""

    collections: list[str]
    """The collections that were deleted from the store of the settings."""
    elsewhere: list[str]
    """The collections of the index in another store, which keeps their texts."""

    @property
    def sentence(self) -> str:
        """Return what was deleted, and what is left to delete."""
        deleted = f"deleted {', '.join(self.collections) or 'its rows of the ledger'}."
        if not self.elsewhere:
            return deleted
        left = ", ".join(self.elsewhere)
        return (
            f"{deleted} Another store keeps {left}: name it in the settings, and drop the index"
            " there."
        )


def drop_index(settings: Settings, name: str) -> DroppedIndex:
    """Delete the collections of an index in the store of the settings, and the ledger's rows of it.

    A kill leaves a part of them, which a repetition deletes.

    Raises:
        StoreMismatch: A collection is of another project.
        IndexLocked, StoreBusy, …: As `hold_index`, store and ledger.
    """
    alias = settings.alias(name)
    with hold_index(settings, alias) as (ledger, _, store):
        require_own(ledger, store, alias)
        stored = _stored(ledger, store, alias)
        for collection in stored:
            store.drop(collection)
        elsewhere = [row.name for row in ledger.collections_elsewhere(alias)]
        ledger.forget_index(alias)
        # Contexts repeat the texts.
        ledger.prune_contexts(math.inf)
        return DroppedIndex(stored, elsewhere)


def _stored(ledger: Ledger, store: StoreNames, alias: Alias) -> list[str]:
    """Return the collections of an alias in a store. Raises StoreMismatch if one is of another
    project."""
    known = {row.name for row in ledger.collections(alias)}
    found: dict[str, dict[str, Any]] = {}
    for name, metadata in store.collections().items():
        if metadata.get("alias") == alias or name in known:
            found[name] = metadata
    for name, metadata in found.items():
        check_owner(alias, name, metadata.get(OWNER))
    return list(found)


def erasure_due(opened: Opened, target: Target) -> bool:
    """Return whether there is something to erase after this run of the live collection. A watch
    erases once a day."""
    live = opened.live
    if live is None or live.id != target.collection.id:
        return False
    erasable = opened.ledger.erasable(opened.alias)
    # A kept collection has texts that were deleted since it was live.
    is_any_kept = False
    for row in opened.ledger.collections(opened.alias):
        if row.state == "ready" and row.id != live.id:
            is_any_kept = True
    if not (erasable.documents or is_any_kept):
        return False
    is_watch = opened.looked_at is not None
    return not (is_watch and erasable.lately)


def erase_after(opened: Opened, record: RunRecord) -> str:
    """Erase what this run deleted or changed from the files of the store. Return what was done as a
    sentence. Raises as `erase`."""
    record.progress.say("copying what lives, so that no file has what was deleted")
    with record.stopwatch.stage("erase"):
        erased = erase(opened.settings, opened.index, opened.ledger, opened.store, opened.lease)
        if erased is None:
            return "nothing is indexed"
    documents = count_of(erased.documents, "document")
    dropped = ", ".join(erased.dropped)
    return (
        f"{documents} erased: {erased.points:,} points copied to {erased.collection}, and {dropped}"
        " dropped"
    )
