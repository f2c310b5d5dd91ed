"""The live collection of each index: the model that made its vectors, and what its scores mean."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from rag_index.components.embedders import EmbedderIdentity, knows_english_alone
from rag_index.components.embedders.bm25 import Bm25Encoder, Bm25Model, encoder_of
from rag_index.components.embedders.traits import ModelTraits
from rag_index.components.stores import BM25, CALIBRATION, SEAL, TRAITS, check_alias, find_unlisted
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.components.stores.protocol import StoreReader
    from rag_index.core.settings import Settings

ALIAS_SECONDS = 1.0
"""How long the aliases and metadata of a server are cached, in seconds. Chosen."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of the logistic regression that makes a relevance of a hit's cosine and of the
    evidence of its words: see `relevance`."""

    bias: float
    cosine: float
    words: float
    trusted: bool = True
    """Whether meaning and words agree about the collection's own texts. If not, the dense weight is
    lowered: see `fusion`."""

    @classmethod
    def from_metadata(cls, recorded: Any, *, words: bool) -> Calibration:
        """Return the weights that a collection's metadata has, or else the default ones.

        Args:
            recorded: The entry of the metadata, if there is one.
            words: Whether the collection is searched by words.
        """
        known = recorded if isinstance(recorded, dict) else {}
        own = {field.name: known[field.name] for field in fields(cls) if field.name in known}
        try:
            return cls(**own)
        # The entry is missing, or lacks a weight.
        except TypeError:
            return WITH_WORDS if words else WITHOUT_WORDS


WITH_WORDS = Calibration(-3.7, 6.6, 2.1)
"""About the weights that the local embedder learns from test collections."""
WITHOUT_WORDS = Calibration(-3.0, 6.5, 0.0)
"""The same for collections that are searched by meaning alone."""
WEIGHT_OF_TOKENS = 0.7
"""The dense weight for a model that ignores the order of words. On Cranfield and CISI, wordllama
finds less above it: benchmarks/models.py."""
WEIGHT_OF_ORDER = 0.9
"""The dense weight for a model that reads the order of words. On Cranfield and CISI, bge-small finds
less below it: benchmarks/models.py."""


@dataclass(frozen=True, slots=True)
class LiveCollection:
    """The collection that an index's alias points at."""

    index: str
    collection: str
    fingerprint: str
    embedder: str
    identity: EmbedderIdentity
    encoder: Bm25Encoder | None = None
    """Makes its sparse vectors; None if it has none, so that it is searched by meaning alone."""
    calibration: Calibration = WITH_WORDS
    reads_order: bool = True
    """Whether the order of words matters to the model."""
    english_alone: bool = False
    """Whether the model was trained on English texts alone, as its name shows."""
    restricted: bool = False
    """Whether its documents have groups that may see them, according to its metadata."""
    seal: str = ""
    """The key that seals citations; empty if its metadata has none, so that no citation is valid."""

    @property
    def dense_weight(self) -> float:
        """Return the weight of meaning that fits the model, if neither settings nor caller name
        one."""
        return WEIGHT_OF_ORDER if self.reads_order else WEIGHT_OF_TOKENS


@dataclass(frozen=True, slots=True)
class CachedCollection:
    """A loaded collection, the metadata that it was loaded from, and when they were read
    (`time.monotonic`)."""

    live: LiveCollection
    metadata: Mapping[str, Any]
    read_at: float


class LiveCollections:
    """The live collections of all indexes. Safe to use from several threads.

    What a server returned is used for a second, so that a moved alias, or new groups of documents,
    may go unnoticed for so long. An embedded store is read for each search.

    A search goes to the collection that was looked up, not to the alias, so that the query's vector
    and those of the collection come from one model even if the alias moves meanwhile.
    """

    def __init__(self, settings: Settings, *, pinned: Mapping[str, str] | None = None) -> None:
        """`pinned` has by index a collection that is read in place of the live one."""
        self.seconds = 0.0 if settings.store.url is None else ALIAS_SECONDS
        self._aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._pinned = dict(pinned or {})
        self._names: Mapping[str, str] = {}
        self._names_read_at = -float("inf")
        self._hidden = {index.name for index in settings.indexes if index.asks_database}
        self._cached: dict[str, CachedCollection] = {}

    def names(self, since: float) -> Mapping[str, str] | None:
        """Return the collection's name by index, or None if they were not read after `since`
        (`time.monotonic`)."""
        return self._names if self._names_read_at > since else None

    def read_names(self, store: StoreReader, since: float) -> Mapping[str, str]:
        """Read the name of each index's collection, unless they were read after `since`, and return
        them. Empty indexes are left out.

        If the API key does not list a collection, its name is the alias. Raises what the store
        raises.
        """
        known = self.names(since)
        if known is not None:
            return known
        began = time.monotonic()
        aliases = store.aliases()
        live: dict[str, str] = {}
        for index, alias in self._aliases.items():
            # If the store may not be read, `load` raises the error.
            with suppress(StoreError):
                if alias not in aliases and find_unlisted(store, alias) is None:
                    continue
            live[index] = aliases.get(alias, alias)
        names = live | self._pinned
        self._names = names
        # An embedded store has the metadata at hand.
        if store.embedded:
            self._renew_unchanged(store, names, began)
        self._names_read_at = began
        return names

    def _renew_unchanged(
        self, store: StoreReader, names: Mapping[str, str], read_at: float
    ) -> None:
        """Keep those cached collections whose metadata has not changed."""
        for index, cached in self._cached.copy().items():
            collection = cached.live.collection
            # An error is raised by a search of the index.
            with suppress(StoreError):
                if names.get(index) != collection:
                    continue
                if store.points(collection).metadata() == cached.metadata:
                    self._cached[index] = replace(cached, read_at=read_at)

    def cached(self, index: str, collection: str | None) -> LiveCollection | None:
        """Return the collection of an index, or None if it must be loaded."""
        cached = self._cached.get(index)
        if cached is None or cached.read_at < self._names_read_at:
            return None
        return cached.live if cached.live.collection == collection else None

    def load(self, store: StoreReader, index: str, collection: str) -> LiveCollection:
        """Read a collection's metadata, prepare its points for searches, and return it.

        Raises:
            StoreError: the collection is of another index, or the store cannot be read.
        """
        began = time.monotonic()
        alias = self._aliases[index]
        if collection == alias:
            find_unlisted(store, alias)
        points = store.points(collection)
        metadata = points.metadata()
        if index not in self._pinned:
            check_alias(alias, collection, metadata)
        fingerprint = str(metadata.get("embedder_fingerprint"))
        identity = EmbedderIdentity.from_metadata(metadata.get("embedder_identity"))
        if identity is None or identity.fingerprint != fingerprint:
            raise StoreError(
                f"{collection} does not say what made its vectors: run `rag-index rebuild {index}`"
            )
        bm25 = Bm25Model.from_metadata(metadata.get(BM25))
        # The calibration was learned from all documents, also from hidden ones.
        recorded = None if index in self._hidden else metadata.get(CALIBRATION)
        traits = ModelTraits.from_metadata(metadata.get(TRAITS))
        reads_order = identity.kind != "local" if traits is None else traits.reads_order
        live = LiveCollection(
            index,
            collection,
            fingerprint,
            str(metadata.get("embedder", "another embedder")),
            identity,
            encoder_of(bm25) if bm25 else None,
            Calibration.from_metadata(recorded, words=bm25 is not None),
            reads_order,
            english_alone=knows_english_alone(identity.model),
            restricted=GROUPS_FIELD in (metadata.get("payload_indexes") or {}),
            seal=str(metadata.get(SEAL, "")),
        )
        points.prepare()
        self._cached[index] = CachedCollection(live, metadata, began)
        return live

    def forget(self, indexes: Iterable[str] | None = None) -> None:
        """Drop the cached collections of some indexes, or of all, so that they are loaded again."""
        if indexes is None:
            indexes = list(self._cached)
        for index in indexes:
            self._cached.pop(index, None)
