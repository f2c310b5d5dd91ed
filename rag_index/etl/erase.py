"""Erasing: no file of the store keeps what runs have deleted or changed. Also: dropping a whole
index.

    copy what lives into a new collection -> counts -> alias -> ledger -> drop the former one and
    the kept ones

Engines mark a deleted point and keep its bytes in segments, logs and vectors. A copy of what lives
has none of them. A kill leaves the former collection live, with the copy for the next erasure to
drop, or the copy live: the ledger learns its name when it is next read for writing
(`collection.live_collection`).
"""

from __future__ import annotations

import math
import time
import uuid
from contextlib import closing
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure did: `documents` were deleted or changed since the last one, and `dropped`
    had their texts."""

    index: str
    collection: str
    documents: int
    points: int
    dropped: tuple[str, ...]
    seconds: float
    held_back: int
    """Documents that the source lost and that the delete guard keeps, with all their texts."""


def erase(
    settings: Settings, index: IndexSettings, ledger: Ledger, store: Store, lease: IndexLease
) -> Erased | None:
    """Erase what was deleted from an index or changed in it. Returns None if nothing is indexed.
    The caller holds the lease. Raises IndexLocked if a rebuild is not finished, StoreMismatch if
    store and ledger do not belong together, and what they raise."""
    began, alias = time.perf_counter(), settings.alias(index.name)
    require_own(ledger, store, alias)
    follow_store(ledger, store, find_live(store, alias))
    if (former := live_collection(ledger, store, alias)) is None:
        return None
    if waits := unfinished_rebuild(ledger, store, former, index.name):
        raise IndexLocked(waits)
    kept = [one for one in ledger.collections(alias) if one.id != former.id]
    ours = [
        name
        for name, made in store.collections().items()
        if made.get("alias") == alias and name != former.name
    ]
    for name in set(ours) - {one.name for one in kept}:
        store.drop(name)  # an erasure that was killed made it, or has left it
    documents, name = ledger.erasable(alias).documents, next_name(ledger, alias, store)
    points = _copy(ledger, store, former, name, lease)
    lease.check()
    store.point_alias(alias, name)
    take_name(ledger, former, name, store.points(name).metadata())
    for dropped in [former.name, *ours]:
        store.drop(dropped)
    for one in kept:
        ledger.drop_collection(one.id)
    ledger.prune_contexts(math.inf)
    _forget_queries(settings, index, ledger, former.id)
    ledger.empty_log()
    ledger.end_erasure(former.id)
    seconds, held = round(time.perf_counter() - began, 3), former.held
    return Erased(index.name, name, documents, points, (former.name, *ours), seconds, held)


def unfinished_rebuild(ledger: Ledger, store: StoreNames, live: Collection, index: str) -> str:
    """Return why an erasure has to wait for a rebuild: what that has embedded would be lost. "" if
    there is none."""
    others = (
        one.name
        for one in ledger.collections(live.alias)
        if one.state == "building" and one.id != live.id
    )
    if (name := next((one for one in others if store.find(one) is not None), "")) == "":
        return ""
    return (
        f"the rebuild {name} is not finished, and an erasure waits for it: `rag-index rebuild"
        f" {index}` completes it"
    )


def _forget_queries(settings: Settings, index: IndexSettings, ledger: Ledger, live: int) -> None:
    """Remove queries that have found a document which is gone from the log. Raises SettingsError if
    that fails."""

    def is_gone(document_id: str) -> bool:
        try:
            return not ledger.known(live, possible_document_keys(index.key_columns, document_id))
        except SettingsError:  # an id of other key columns than today's
            return True

    if log := query_log(settings.serve):
        try:
            log.erase(index.name, is_gone)
        except OSError as error:
            raise SettingsError(
                f"[serve] query_log {unwritable(log.path, error, 'name another file')}"
            ) from error


def _copy(ledger: Ledger, store: Store, former: Collection, name: str, lease: IndexLease) -> int:
    """Copy a collection, and return its number of points. Raises StoreError if the copy has another
    number."""
    old_points, new_points = store.points(former.name), store.points(name)
    metadata = old_points.metadata()
    made = {**metadata, "store_id": str(uuid.uuid4()), REPLACES: former.store_id, INDEX_NAME: name}
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
    """Return the collections that store and ledger keep of an index, with what a person should know
    about each. Raises UnknownIndex if there are none. Neither store nor index is locked."""
    alias = settings.alias(name)
    with closing(Ledger(settings.ledger_url)) as ledger, open_names(settings.store) as names:
        stored = _stored(ledger, names, alias)
        collections = dict.fromkeys(stored, "unknown to the ledger")
        for row in (*ledger.collections(alias), *ledger.collections_elsewhere(alias)):
            documents = count_of(ledger.totals(row.id).documents, "document")
            is_here = row.name in stored
            collections[row.name] = (
                documents if is_here else f"{documents}, not in this store, where it stays"
            )
        if collections:
            return ", ".join(f"{one} ({what})" for one, what in collections.items())
        others = [
            *(index.name for index in settings.indexes),
            *unwanted_indexes(settings, ledger, names.aliases()),
        ]
    near = get_close_matches(name, others, n=1, cutoff=0.5)
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
    """Delete the collections of an index in the store of the settings, and what the ledger has of
    it. A death in between leaves what a repetition deletes. Raises IndexLocked, StoreBusy,
    StoreMismatch if a collection is of another project, and what store and ledger raise."""
    alias = settings.alias(name)
    with hold_index(settings, alias) as (ledger, _, store):
        require_own(ledger, store, alias)
        stored = _stored(ledger, store, alias)
        for collection in stored:
            store.drop(collection)
        elsewhere = [row.name for row in ledger.collections_elsewhere(alias)]
        ledger.forget_index(alias)
        ledger.prune_contexts(math.inf)  # they repeat the texts
        return DroppedIndex(stored, elsewhere)


def _stored(ledger: Ledger, store: StoreNames, alias: Alias) -> list[str]:
    known = {collection.name for collection in ledger.collections(alias)}
    found = {
        name: metadata
        for name, metadata in store.collections().items()
        if metadata.get("alias") == alias or name in known
    }
    for name, metadata in found.items():
        check_owner(alias, name, metadata.get(OWNER))
    return list(found)


def erasure_due(opened: Opened, target: Target) -> bool:
    """Return whether there is something to erase after this run of the live collection. A watch
    erases once a day."""
    if (live := opened.live) is None or live.id != target.collection.id:
        return False
    erasable, all_of = opened.ledger.erasable(opened.alias), opened.ledger.collections(opened.alias)
    kept = any(one.state == "ready" and one.id != live.id for one in all_of)
    return bool(erasable.documents or kept) and not (
        erasable.lately and opened.looked_at is not None
    )


def erase_after(opened: Opened, record: RunRecord) -> str:
    """Erase what this run deleted or changed from the files of the store, and say so. Raises as
    `erase`."""
    record.progress.say("copying what lives, so that no file has what was deleted")
    with record.stopwatch.stage("erase"):
        erased = erase(opened.settings, opened.index, opened.ledger, opened.store, opened.lease)
        if erased is None:
            return "nothing is indexed"
    documents, dropped = count_of(erased.documents, "document"), ", ".join(erased.dropped)
    return (
        f"{documents} erased: {erased.points:,} points copied to {erased.collection}, and {dropped}"
        " dropped"
    )
