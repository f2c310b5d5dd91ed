"""Which collection a run writes to, and whether it is the one that the ledger knows.

    owner > live collection > fits the settings? > restored from a backup? > counts > epoch > indexes

The alias alone says which collection is live. A first collection is live from the start; a rebuild
makes a new one beside it, which a kill leaves for the next rebuild to go on with.

Two projects may need one alias (`settings.alias`), and what is another's is never written, moved or
dropped. A collection has its owner in its metadata (`stores.OWNER`). A collection is identified by
its `store_id`, which ledger and store keep, never by its name alone.
"""

from __future__ import annotations

import logging
import re
import uuid
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import attrs

from rag_index.components import stores
from rag_index.components.embedders import EmbedderIdentity, identify
from rag_index.components.embedders.bm25 import bm25_model
from rag_index.components.embedders.identity import IN_PROCESS
from rag_index.components.embedders.traits import ModelTraits, measure_traits
from rag_index.components.ledger import reconciled_by
from rag_index.components.sources import scan_settings
from rag_index.core.documents import INDEX_VERSION
from rag_index.core.documents.vectors import PROBE
from rag_index.core.reports.outcome import count_of
from rag_index.errors import (
    FingerprintChanged,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreRestored,
)
from rag_index.etl.reconcile import Comparison, commit_difference

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.components.chunking import Chunker
    from rag_index.components.embedders import Embedder
    from rag_index.components.embedders.bm25 import Bm25Model
    from rag_index.components.ledger import Collection, Ledger
    from rag_index.components.ledger.runs import IndexLease
    from rag_index.components.stores.protocol import PointCollection, Store, StoreNames
    from rag_index.core.reports.progress import RunRecord
    from rag_index.core.settings import Alias, EmbedderSettings
    from rag_index.etl.opened import Opened

logger = logging.getLogger("rag_index.indexing")


def live_collection(ledger: Ledger, store: StoreNames, alias: Alias) -> Collection | None:
    """Return the live collection of an alias, None where nothing is indexed yet.

    Raises:
        StoreMismatch: Store and ledger do not belong together, or a collection of another program
            has the alias's name.
        StoreRefused: The API key may not see what the alias points at.
    """
    live = stores.find_live(store, alias)
    if live is None:
        lost = [row for row in ledger.collections(alias) if row.state == "ready"]
        if lost:
            raise StoreMismatch(
                f"the ledger knows collection {lost[-1].name}, the store has none live as {alias}:"
                " another store? `rag-index doctor` looks closer, `rag-index rebuild` starts"
                " afresh. If the former settings named another store that has it, name that again,"
                " and type `rag-index rebuild --to` there"
            )
        return None
    metadata = live.metadata
    collection = ledger.collection(live.name)
    if collection is None:
        # An erasure was killed after the alias moved: the ledger's rows have the former name.
        former = _copied(ledger, metadata)
        if former is not None:
            collection = take_name(ledger, former, live.name, metadata)
    if collection is None:
        raise StoreMismatch(
            f"{live.name} is live as {alias} in the store, and ledger {ledger.redacted_url} does"
            " not know it: name the ledger that does, or let `rag-index doctor --repair` make its"
            " rows from the store; `rag-index rebuild --allow-loss` starts afresh"
        )
    if metadata.get("store_id") != collection.store_id:
        raise StoreMismatch(
            f"collection {live.name} of the store is not the one that the ledger knows (its id is"
            f" {metadata.get('store_id')}, not {collection.store_id}): is it another store or"
            " another ledger? `rag-index doctor` looks closer, `rag-index rebuild --allow-loss`"
            " starts afresh"
        )
    return collection


def require_own(ledger: Ledger, store: Store, alias: Alias) -> None:
    """Raise StoreMismatch if a collection of an alias is of another project or index.

    These are the collections that were made for the alias, that it points at, and that the ledger
    has for it. Call it before an index is written, moved or dropped.
    """
    names = {collection.name for collection in ledger.collections(alias)}
    names.add(store.aliases().get(alias, ""))
    for name, metadata in store.collections().items():
        made_for = metadata.get("alias")
        # The alias or the ledger leads to it, and its metadata name no alias.
        lacks_alias = name in names and not made_for
        if made_for == alias or lacks_alias:
            stores.check_owner(alias, name, metadata.get(stores.OWNER))


def follow_store(ledger: Ledger, store: StoreNames, live: stores.LiveName | None) -> None:
    """Let the ledger follow the settings to the store of a `rebuild --to`, or back.

    The ledger's rows of collections in another store have the flag `elsewhere`. If the live
    collection of this store has it, the settings have changed: the collections of this store lose
    the flag, and all others get it. Call it before collections are chosen or dropped.
    """
    row = ledger.collection(live.name) if live is not None else None
    if live is None or row is None or not row.elsewhere:
        return
    # A name is no identity: the other store may have a collection of this name that is another's.
    if row.store_id == live.metadata.get("store_id"):
        ids = [metadata.get("store_id") for metadata in store.collections().values()]
        ledger.follow_store(row.alias, [str(store_id) for store_id in ids if store_id])


def next_name(ledger: Ledger, alias: str, *where: StoreNames) -> str:
    """Return the name of the next collection of an alias.

    Neither the ledger, for any store, nor a store of `where` has it or a later one. The first is
    "desk_tickets__1" for the alias "desk_tickets".
    """
    rows = (*ledger.collections(alias), *ledger.collections_elsewhere(alias))
    names = [collection.name for collection in rows]
    for store in where:
        names += store.collections()
    last = 0
    for name in names:
        match = re.fullmatch(rf"{re.escape(alias)}__(\d+)", name)
        if match:
            last = max(last, int(match[1]))
    return f"{alias}__{last + 1}"


def take_name(
    ledger: Ledger, former: Collection, name: str, metadata: Mapping[str, Any]
) -> Collection | None:
    """Let the ledger's rows of a collection describe its copy, and return the collection under its
    new name."""
    ledger.update_collection(former.id, name=name, store_id=str(metadata["store_id"]))
    return ledger.collection(name)


def _copied(ledger: Ledger, metadata: Mapping[str, Any]) -> Collection | None:
    """Return the ledger's collection of which an erasure made a copy with this metadata."""
    original_id = metadata.get(stores.REPLACES)
    for collection in ledger.collections():
        if collection.store_id == original_id:
            return collection
    return None


def recognised(
    identity: EmbedderIdentity, ledger: Ledger, store: StoreNames, alias: str
) -> EmbedderIdentity:
    """Return the identity that a collection of the same model records; without one, the given
    identity.

    A model without a digest is recognised by the vector of a probe, which differs in its last bits
    each time. The first one that was recorded counts, so that equal models have one fingerprint.
    """
    if not identity.digest.startswith(PROBE):
        return identity
    # Those of the alias first, the newest first.
    collections = sorted(ledger.collections(), key=lambda row: (row.alias != alias, -row.id))
    for collection in collections:
        metadata: Mapping[str, Any] = {}
        # An index of others, which the API key may not read.
        with suppress(StoreRefused):
            metadata = store.find(collection.name) or {}
        recorded = _recorded(metadata)
        if recorded is not None and recorded.same_model(identity):
            return recorded
    return identity


def on_its_processor(identity: EmbedderIdentity, metadata: Mapping[str, Any]) -> EmbedderIdentity:
    """Return the identity of a model in the process with the probe of the processor that began a
    collection.

    Every other processor is compared with that one. Place and revision of the model stay those of
    `identity`. Raises ProcessorDiffers if its vectors differ too much.
    """
    recorded = _recorded(metadata)
    # A new collection, a model on a server, or another model.
    if recorded is None or not recorded.probe or recorded.fingerprint != identity.fingerprint:
        return identity
    recorded.require_processor(identity)
    return replace(identity, probe=recorded.probe, processor=recorded.processor)


def recorded_revision(settings: EmbedderSettings, store: StoreNames, alias: Alias) -> str:
    """Return the commit of the model hub that an index was made with, if the settings name its
    model; else "".

    So the files stay the same when the hub gets others, on this machine and on each that downloads
    them later.
    """
    if settings.kind != IN_PROCESS:
        return ""
    live = stores.find_live(store, alias)
    if live is None:
        return ""
    recorded = _recorded(live.metadata)
    return recorded.revision_for(settings) if recorded else ""


def _recorded(metadata: Mapping[str, Any]) -> EmbedderIdentity | None:
    return EmbedderIdentity.from_metadata(metadata.get("embedder_identity"))


def identify_for(opened: Opened) -> EmbedderIdentity:
    """Return the identity of a run's embedder. Raises as `Embedder.identity`, and what the store
    raises."""
    return identify(opened.settings.embedder, revision=revision_of(opened))


def revision_of(opened: Opened) -> str:
    """Return the commit of the model hub that a run asks for; "" for the present one.

    A rebuild takes that, unless it is made in another store, which reuses the vectors of the live
    collection.
    """
    if opened.options.full and opened.origin is None:
        return ""
    return recorded_revision(opened.settings.embedder, opened.live_store, opened.alias)


def check_fits(
    collection: Collection,
    identity: EmbedderIdentity,
    chunker: Chunker,
    bm25: Bm25Model | None,
    *,
    index: str,
) -> None:
    """Raise FingerprintChanged if the settings would not make the vectors and chunks that the
    collection has."""
    reason = mismatch(collection, identity, chunker, bm25)
    if not reason:
        return
    # An outdated collection fits no settings.
    otherwise = "" if collection.outdated else ", or restore the settings"
    raise FingerprintChanged(f"{reason}: run `rag-index rebuild {index}`{otherwise}")


@attrs.frozen
class CollectionMaker:
    """Chooses the collection of a run, and makes it if there is none."""

    opened: Opened
    identity: EmbedderIdentity
    chunker: Chunker
    bm25: Bm25Model | None
    """What makes the words of its chunks, if they have any."""

    def current(self) -> Collection:
        """Return the collection to bring up to date: the live one, created now if there is none.

        Raises:
            FingerprintChanged: The settings do not fit it.
            StoreMismatch: As `live_collection`.
        """
        ledger, store, alias = self.opened.ledger, self.opened.store, self.opened.alias
        live = live_collection(ledger, store, alias)
        if live is None:
            # The ledger may have one that a killed run did not create in the store.
            unfinished = [row for row in ledger.collections(alias) if self._fits(row)]
            live = self._create(unfinished[-1] if unfinished else self._add_to_ledger())
            store.point_alias(alias, live.name)
        # It is new, or the last publishing was killed after the alias moved.
        if live.state == "building":
            ledger.update_collection(live.id, state="ready")
        check_fits(live, self.identity, self.chunker, self.bm25, index=self.opened.index.name)
        return live

    def beside(self) -> Collection:
        """Return the collection of a rebuild: an unfinished one that fits, or a new one.

        Other unfinished ones are dropped. It gets what was set by hand on the live one.

        Raises:
            StoreMismatch: The ledger does not know the live collection, without `allow_loss`:
                another machine may keep it up to date. Or as `_published_there`.
        """
        opened, ledger, alias = self.opened, self.opened.ledger, self.opened.alias
        live = stores.find_live(opened.live_store, alias)
        if live is not None:
            self._require_known(live)
        if opened.origin is None:
            published, rows = live, ledger.collections(alias)
        else:
            published, rows = self._published_there(live), ledger.collections_elsewhere(alias)
        # A published one may be "building" still, if its publishing was killed.
        published_name = published.name if published is not None else None
        building = [row for row in rows if row.state == "building" and row.name != published_name]
        fitting = [row for row in building if self._fits(row) and self._is_intact(row)]
        # The newest one that fits is gone on with, and the others are dropped.
        unfinished = fitting[-1] if fitting else None
        for row in building:
            if row != unfinished:
                self._forget(row)
        return self._create(unfinished or self._add_to_ledger(), like=live)

    def _require_known(self, live: stores.LiveName) -> None:
        """Raise StoreMismatch if the ledger did not make a collection, unless `allow_loss`."""
        opened, ledger = self.opened, self.opened.ledger
        if opened.options.allow_loss or _is_known(ledger, live):
            return
        raise StoreMismatch(
            f"{live.name} is live as {opened.alias}, and ledger {ledger.redacted_url} did not make"
            " it: another machine may keep it up to date. `rag-index doctor --repair` makes the"
            f" ledger know it, and `rag-index rebuild {opened.index.name} --allow-loss` takes its"
            " place"
        )

    def _published_there(self, live: stores.LiveName | None) -> stores.LiveName | None:
        """Return what the alias of the index points at in the other store, None if nothing.

        Raises:
            StoreError: Nothing is live in the store of the settings.
            StoreMismatch: The other store is the same one or a copy of it, or somebody else has the
                alias there.
        """
        opened, index = self.opened, self.opened.index.name
        if live is None:
            raise StoreError(
                f"index {index} is empty: there is nothing to take to another store. Name that one"
                f" in [store], and `rag-index index {index}` fills it"
            )
        place = stores.location(opened.settings.store)
        published = stores.find_live(opened.store, opened.alias)
        if published is None:
            return None
        if published.metadata.get("store_id") == live.metadata.get("store_id"):
            raise StoreMismatch(
                f"--to {place}: {live.name} is there already, so that is the store of the settings "
                "under another address, or a copy of it: name another store"
            )
        # Another program's alias has no metadata of ours, and is not taken from it.
        is_ours = published.metadata.get("alias") == opened.alias
        if _is_known(opened.ledger, published) or (is_ours and opened.options.allow_loss):
            return published
        takes = ", and --allow-loss takes its place" if is_ours else ""
        raise StoreMismatch(
            f"--to {place} has an alias {opened.alias} that points at {published.name}, which"
            f" ledger {opened.ledger.redacted_url} did not make: remove it there, or"
            f" {stores.RENAME}{takes}"
        )

    def _forget(self, collection: Collection) -> None:
        """Drop an unfinished collection from the ledger, and from this store if it has it."""
        store = self.opened.store
        found = store.find(collection.name)
        if found is not None and found.get("store_id") == collection.store_id:
            store.drop(collection.name)
        self.opened.ledger.drop_collection(collection.id)

    def _fits(self, collection: Collection) -> bool:
        reason = mismatch(collection, self.identity, self.chunker, self.bm25)
        return not reason

    def _add_to_ledger(self) -> Collection:
        opened, ledger, alias = self.opened, self.opened.ledger, self.opened.alias
        require_own(ledger, opened.store, alias)
        name = next_name(ledger, alias, opened.store, opened.live_store)
        return ledger.add_collection(
            alias=alias,
            name=name,
            store_id=str(uuid.uuid4()),
            embedder_fingerprint=self.identity.fingerprint,
            embedder=str(self.identity),
            chunking=_chunking(self.chunker, self.bm25),
            dimension=self.identity.dimension,
            state="building",
            elsewhere=int(opened.origin is not None),
        )

    def _create(self, collection: Collection, *, like: stores.LiveName | None = None) -> Collection:
        opened, store = self.opened, self.opened.store
        metadata = store.find(collection.name)
        if metadata is not None and metadata.get("store_id") != collection.store_id:
            raise StoreMismatch(
                f"the store has a collection {collection.name} that the ledger did not make; remove"
                f" it from the store, or {stores.RENAME}"
            )
        before = like.metadata if like is not None else {}
        made: dict[str, Any] = {}
        for name in ("store_id", "alias", "embedder", *stores.MAKER_KEYS):
            made[name] = getattr(collection, name)
        # Citations of the live collection hold for the rebuilt one.
        made[stores.SEAL] = before.get(stores.SEAL, collection.store_id)
        made[stores.OWNER] = opened.alias.owner
        # A search needs it as soon as an alias points at the collection.
        made["embedder_identity"] = asdict(self.identity)
        if self.bm25 is not None:
            made[stores.BM25] = asdict(self.bm25)
        made |= self._learned(collection, before)
        sparse = self.bm25 is not None
        store.create(collection.name, collection.dimension, made, sparse=sparse)
        if like is not None:
            # What a person set on the live collection, such as quantization.
            live_points = opened.live_store.points(like.name)
            store.points(collection.name).take_settings(live_points)
        return collection

    def _learned(self, collection: Collection, before: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was learned of the live collection, for a copy in another store.

        With the same chunks and vectors, its scores mean the same. A rebuild in the same store
        learns anew.
        """
        is_same = all(before.get(key) == getattr(collection, key) for key in stores.MAKER_KEYS)
        if self.opened.origin is None or not is_same:
            return {}
        learned = (stores.CALIBRATION, stores.TRAITS)
        return {key: before[key] for key in learned if key in before}

    def _is_intact(self, collection: Collection) -> bool:
        """Return whether an unfinished rebuild can be gone on with."""
        ledger, store = self.opened.ledger, self.opened.store
        metadata = store.find(collection.name)
        # The store has no such collection, or another one of this name.
        if metadata is None or metadata.get("store_id") != collection.store_id:
            return False
        # A worker of an earlier run has written to it beside a later run.
        if metadata.get(stores.OVERTAKEN):
            return False
        # It was begun on a processor on which the model gives other vectors.
        begun_with = _recorded(metadata)
        if begun_with is not None and not begun_with.same_processor(self.identity):
            return False
        # Store or ledger was restored from a backup.
        commit_mark = store.points(collection.name).commit_mark()
        return not ledger.different_commits(collection, commit_mark)


def _is_known(ledger: Ledger, live: stores.LiveName) -> bool:
    """Return whether the ledger made a collection, by its name and its id."""
    known = ledger.collection(live.name)
    if known is None:
        return False
    # A collection without an id is known by its name.
    store_id = live.metadata.get("store_id") or known.store_id
    return bool(store_id == known.store_id)


def _chunking(chunker: Chunker, bm25: Bm25Model | None) -> str:
    """Return everything that decides the chunks of a collection and their words, as the ledger
    keeps it, such as "text/1000/100/index-4"."""
    parts = [chunker.fingerprint]
    if bm25 is not None:
        parts.append(bm25.fingerprint)
    parts.append(f"index-{INDEX_VERSION}")
    return "/".join(parts)


def mismatch(
    collection: Collection, identity: EmbedderIdentity, chunker: Chunker, bm25: Bm25Model | None
) -> str:
    """Return why the settings would not make the vectors and chunks that the collection has; "" if
    they would."""
    if collection.outdated:
        return collection.outdated
    chunking = _chunking(chunker, bm25)
    if collection.chunking != chunking:
        return (
            f"{collection.name} was chunked as {collection.chunking}"
            f" (kind/chunk_chars/chunk_overlap/context/bm25/version), settings say {chunking}"
        )
    has_same_model = collection.embedder_fingerprint == identity.fingerprint
    if not has_same_model or collection.dimension != identity.dimension:
        return f"{collection.name} holds vectors of {collection.embedder}; settings say {identity}"
    return ""


def same_vectors(made_by: EmbedderIdentity | None, identity: EmbedderIdentity) -> bool:
    """Return whether an embedder makes the vectors that another one made.

    The prefix of queries is in no vector.
    """
    if made_by is None:
        return False
    with_its_prefix = replace(identity, query_prefix=made_by.query_prefix)
    return made_by.same_model(with_its_prefix)


def embedded_anew(live: stores.LiveName, identity: EmbedderIdentity, collection: Collection) -> str:
    """Return what has to be embedded for another store although the live collection has it.

    It is empty if nothing has.
    """
    if not same_vectors(_recorded(live.metadata), identity):
        made_by = live.metadata.get("embedder", "another embedder")
        return (
            f"{live.name} holds vectors of {made_by}, settings say {identity}: every text is"
            " embedded"
        )
    chunking = live.metadata.get("chunking")
    if chunking != collection.chunking:
        return (
            f"{live.name} was chunked as {chunking}, settings say {collection.chunking}: each chunk"
            " whose text differs is embedded"
        )
    return ""


@attrs.frozen
class Target:
    """What a run writes to."""

    collection: Collection
    identity: EmbedderIdentity
    """The embedder, as the collection records it."""
    chunker: Chunker
    rebuild: bool
    """Whether the collection is a new one beside the live one, which is published at the end."""
    epoch: int | None = None
    """The number in a server's collection by which it refuses workers of an earlier run."""


def choose(
    opened: Opened, record: RunRecord, identity: EmbedderIdentity, chunker: Chunker
) -> Target:
    """Choose the collection of a run, and bring it and the ledger together.

    Raises:
        FingerprintChanged, StoreError, …: As `CollectionMaker`.
        StoreMismatch: Store and ledger differ.
        StoreRestored: One of them was restored from a backup, in a run of single documents.
    """
    settings, index, ledger, store = opened.settings, opened.index, opened.ledger, opened.store
    if not opened.single:
        require_own(ledger, store, opened.alias)
    live = stores.find_live(opened.live_store, opened.alias)
    if opened.origin is None:
        follow_store(ledger, store, live)

    identity = recognised(identity, ledger, opened.live_store, opened.alias)
    maker = CollectionMaker(opened, identity, chunker, bm25_model(index))
    # `rebuild` of an index that has nothing yet is a first run.
    is_first = live is None and not ledger.collections(opened.alias)
    rebuild = opened.origin is not None or (opened.options.full and not is_first)
    collection = maker.beside() if rebuild else maker.current()
    if opened.origin is not None and live is not None:
        record.progress.announce(embedded_anew(live, identity, collection))
    identity = on_its_processor(identity, store.points(collection.name).metadata())

    # A restored collection was compared point by point.
    if not rebuild and not _was_restored(opened, record, collection):
        verify_counts(ledger, store, collection)
    if not opened.single:
        written_by = scan_settings(settings, index)
        if collection.written_by != written_by:
            ledger.write_by(collection, written_by, new=rebuild)
    epoch = _begin_on_server(opened, record, collection.name)
    points = store.points(collection.name)
    make_searchable(points, identity, index.indexed_fields, opened.alias.owner)
    return Target(collection, identity, chunker, rebuild, epoch)


def _was_restored(opened: Opened, record: RunRecord, collection: Collection) -> bool:
    """Return whether store or ledger was restored from a backup. If so, they are brought together.

    Raises StoreRestored in a run of single documents, which does not read what else has to be
    indexed again.
    """
    ledger, store, index = opened.ledger, opened.store, opened.index.name
    difference = commit_difference(ledger, store, collection)
    if not difference:
        return False
    if opened.single:
        raise StoreRestored(f"{difference}; {reconciled_by(index)}")
    record.progress.say("comparing every point with the ledger")
    comparison = Comparison(ledger, store, index, collection, check=opened.lease.check)
    comparison.read_points()
    deleted, pending = comparison.mend()
    record.outcome.deleted += deleted
    to_index = count_of(pending, "document")
    to_delete = count_of(deleted, "deleted document")
    found = f"{to_index} to index again, {to_delete} to delete again"
    record.outcome.say(f"{difference}; every point was compared: {found}")
    return True


def _begin_on_server(opened: Opened, record: RunRecord, name: str) -> int | None:
    """Give a server's collection a new epoch, and return it. None for the embedded store.

    The outcome lists what the server cannot do, and what is slow.
    """
    store = opened.store
    server = stores.on_server(store)
    if server is None:
        return None
    epoch = raise_epoch(store.points(name), opened.lease)
    record.outcome.say(server.points(name).notes())
    reason = server.fallback()
    if reason:
        slow = f"{reason}, so points are sent over REST, which is slower: {stores.REST_REMEDY}"
        logger.warning("%s", slow)
        # The settings require gRPC.
        if opened.settings.store.server.grpc_port is not None:
            record.outcome.say(slow)
    return epoch


def raise_epoch(points: PointCollection, lease: IndexLease) -> int:
    """Give a collection a new epoch, and return it. Shards that workers of an earlier run still
    send are refused by it."""
    former = int(points.metadata().get("epoch") or 0)
    # A new ledger counts from 1, whatever the collection has.
    epoch = max(lease.epoch, former + 1)
    points.set_metadata({"epoch": epoch})
    return epoch


def make_searchable(
    points: PointCollection,
    identity: EmbedderIdentity,
    fields: Mapping[str, str],
    owner: Mapping[str, str] | None = None,
) -> None:
    """Write name, model and owner into the collection's metadata, and give it exactly the settings'
    payload indexes.

    Indexes that a person made are left alone. Call it at the beginning of a run. It changes nothing
    unless the collection is new or the settings changed.
    """
    metadata = points.metadata()
    before: Mapping[str, str] = metadata.get("payload_indexes") or {}
    if dict(before) != dict(fields):
        # None removes an index that the settings no longer have.
        removed: dict[str, str | None] = dict.fromkeys(before)
        points.index_fields({**removed, **fields})
    wanted: dict[str, Any] = {
        stores.INDEX_NAME: points.name,
        "embedder_identity": asdict(identity),
        "payload_indexes": dict(fields),
    }
    if owner:
        wanted[stores.OWNER] = owner
    if any(metadata.get(key) != value for key, value in wanted.items()):
        points.set_metadata(wanted)


def record_traits(store: Store, collection: str, embedder: Embedder) -> None:
    """Measure the model of a collection and record its traits there, unless a run did so before.

    If the model cannot be measured, whatever a plug-in raises, searches do without the traits, and
    the next run tries again.
    """
    points = store.points(collection)
    recorded = points.metadata().get(stores.TRAITS)
    if ModelTraits.from_metadata(recorded) is not None:
        return
    with suppress(Exception):
        traits = measure_traits(embedder)
        points.set_metadata({stores.TRAITS: asdict(traits)})


def verify_counts(ledger: Ledger, store: Store, collection: Collection) -> tuple[int, int]:
    """Return the numbers of documents and of points. Raises StoreMismatch if the store has another
    number of points than the ledger."""
    name = collection.name
    totals = ledger.totals(collection.id)
    points = store.points(name)
    stored = points.count()
    # Of pending documents, the store may have any number of points.
    if totals.pending:
        stored -= points.count(keys=ledger.pending_keys(collection.id))
    if stored == totals.points:
        return totals.documents, stored
    raise StoreMismatch(
        f"{name} holds {stored:,} points, the ledger explains {totals.points:,}: does another"
        " program write to it? `rag-index doctor` shows the difference, `rag-index doctor"
        " --repair` corrects it"
    )
