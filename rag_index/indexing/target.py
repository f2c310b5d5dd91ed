"""Which collection a run writes to, and whether it is the one that the ledger knows.

The alias alone says what is shown. A first collection is shown from the start; a rebuild makes a new one beside it.
"""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING

from rag_index.documents.canonical import VERSION
from rag_index.errors import FingerprintChanged, StoreMismatch

if TYPE_CHECKING:
    from rag_index.chunking import Chunker
    from rag_index.embedders import EmbedderIdentity
    from rag_index.ledger import Collection, Ledger
    from rag_index.stores import Store

__all__ = ["Target", "live_collection"]


def live_collection(ledger: Ledger, store: Store, alias: str) -> Collection | None:
    """Return the live collection of an alias, None where nothing is indexed yet.

    Raises:
        StoreMismatch: store and ledger do not belong together.
    """
    name = store.aliases().get(alias)
    if name is None:
        lost = [c for c in ledger.collections(alias) if c.state == "ready"]
        if lost:
            raise StoreMismatch(
                f"the ledger knows collection {lost[-1].name}, the store shows none as {alias}: is it another store? "
                "`rag-index doctor` looks closer, `rag-index rebuild` makes the index anew"
            )
        return None
    collection = ledger.collection(name)
    if collection is None:
        raise StoreMismatch(
            f"the store shows {name} as {alias}, and ledger {ledger.redacted_url} does not know it: is it another "
            "ledger? `rag-index doctor --repair` rebuilds the ledger from the store, `rag-index rebuild` the index"
        )
    _same_store(store, collection)
    return collection


class Target:
    """Chooses and makes the collections of one index."""

    def __init__(
        self,
        ledger: Ledger,
        store: Store,
        alias: str,
        identity: EmbedderIdentity,
        chunker: Chunker,
        *,
        index: str | None = None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._alias = alias
        self._index = index or alias  # for messages: what a person types
        self._identity = identity
        self._chunking = f"{chunker.fingerprint}/canonical-{VERSION}"

    def current(self) -> Collection:
        """The collection to bring up to date: the one that is shown, made now where there is none.

        Raises:
            FingerprintChanged: it was made by another embedder, or cut otherwise.
            StoreMismatch: store and ledger do not belong together.
        """
        live = live_collection(self._ledger, self._store, self._alias)
        if live is not None and live.state == "building":  # the last publishing died in the middle
            self._ledger.update_collection(live.id, state="ready")
        if live is None:
            unfinished = [c for c in self._ledger.collections(self._alias) if self.fits(c)]
            live = self._made(unfinished[-1] if unfinished else self._noted())
            self._store.point_alias(self._alias, live.name)
            self._ledger.update_collection(live.id, state="ready")
        if not self.fits(live):
            raise FingerprintChanged(self._mismatch(live))
        self._check_counts(live)
        return live

    def beside(self) -> Collection:
        """The collection of a rebuild: the unfinished one that fits, or a new one. Others unfinished are dropped."""
        live = self._store.aliases().get(self._alias)
        unfinished = [c for c in self._ledger.collections(self._alias) if c.state == "building"]
        building = [c for c in unfinished if c.name != live]  # shown: its publishing died in the middle
        fitting = [c for c in building if self.fits(c) and self._is_there(c)]
        for collection in building:
            if collection not in fitting[-1:]:
                self._store.drop(collection.name)
                self._ledger.drop_collection(collection.id)
        return fitting[-1] if fitting else self._made(self._noted())

    def fits(self, collection: Collection) -> bool:
        """Whether the settings would make the vectors and chunks that the collection has."""
        return (
            collection.embedder_fingerprint == self._identity.fingerprint
            and collection.chunking == self._chunking
            and collection.dimension == self._identity.dimension
        )

    def _noted(self) -> Collection:
        """A new collection in the ledger, under the next free number."""
        numbers = [int(m[1]) for name in self._store.collections() if (m := self._numbered(name))]
        numbers += [int(m[1]) for c in self._ledger.collections(self._alias) if (m := self._numbered(c.name))]
        return self._ledger.add_collection(
            alias=self._alias,
            name=f"{self._alias}__{max(numbers, default=0) + 1}",
            store_id=str(uuid.uuid4()),
            embedder_fingerprint=self._identity.fingerprint,
            embedder=str(self._identity),
            chunking=self._chunking,
            dimension=self._identity.dimension,
            state="building",
        )

    def _made(self, collection: Collection) -> Collection:
        """The collection in the store; one that is there already under this id is kept."""
        metadata = self._store.collections().get(collection.name)
        if metadata is not None and metadata.get("store_id") != collection.store_id:
            raise StoreMismatch(
                f"the store has a collection {collection.name} that the ledger did not make; remove it from the store, "
                "or give this project another name ([settings] project)"
            )
        self._store.create(
            collection.name,
            collection.dimension,
            {
                "store_id": collection.store_id,
                "alias": collection.alias,
                "embedder_fingerprint": collection.embedder_fingerprint,
                "embedder": collection.embedder,
                "chunking": collection.chunking,
            },
        )
        return collection

    def _is_there(self, collection: Collection) -> bool:
        metadata = self._store.collections().get(collection.name)
        return metadata is not None and metadata.get("store_id") == collection.store_id

    def _numbered(self, name: str) -> re.Match[str] | None:
        return re.fullmatch(rf"{re.escape(self._alias)}__(\d+)", name)

    def _check_counts(self, collection: Collection) -> None:
        """What is not open is exactly what the store holds."""
        totals = self._ledger.totals(collection.id)
        stored = self._store.count(collection.name)
        if totals.pending:
            stored -= self._store.count(collection.name, keys=self._ledger.pending_keys(collection.id))
        if stored != totals.points:
            raise StoreMismatch(
                f"collection {collection.name} holds {stored:,} points, the ledger explains {totals.points:,}: "
                "`rag-index doctor` shows the difference, `rag-index doctor --repair` mends it, "
                "`rag-index rebuild` makes the index anew"
            )

    def _mismatch(self, collection: Collection) -> str:
        index = self._index
        if collection.chunking != self._chunking:
            was, now = collection.chunking, self._chunking
            return (
                f"{collection.name} was cut as {was} (version/chunk_chars/chunk_overlap/context), settings say {now}: "
                f"`rag-index rebuild {index}` makes it anew, or put the settings back"
            )
        return (
            f"{collection.name} holds vectors of {collection.embedder}; settings say {self._identity}: "
            f"`rag-index rebuild {index}` makes it anew, or put the settings back"
        )


def _same_store(store: Store, collection: Collection) -> None:
    metadata = store.collections().get(collection.name, {})
    if moved_to := metadata.get("moved_to"):
        raise StoreMismatch(f"collection {collection.name} was carried to {moved_to}: name that in [store]")
    if metadata.get("store_id") != collection.store_id:
        raise StoreMismatch(
            f"collection {collection.name} of the store is not the one that the ledger knows (its id is "
            f"{metadata.get('store_id')}, not {collection.store_id}): is it another store or another ledger? "
            "`rag-index doctor` looks closer, `rag-index rebuild` makes the index anew"
        )
