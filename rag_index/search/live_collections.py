"""The live collection of each index: the model that made its vectors, and what its scores mean."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, fields
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
"""How long what a server says of aliases and collections is cached."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """The weights of a logistic regression, which makes one relevance of a hit's cosine and its
    words."""

    bias: float
    cosine: float
    words: float
    trusted: bool = True
    """Whether meaning and words agree about the collection's own texts. If not, meaning counts
    less."""

    @classmethod
    def from_metadata(cls, recorded: Any, *, words: bool) -> Calibration:
        """Return the recorded weights, or those that stand for a collection without, which may have
        `words` or not."""
        known = recorded if isinstance(recorded, dict) else {}
        own = {field.name: known[field.name] for field in fields(cls) if field.name in known}
        try:
            return cls(**own)
        except TypeError:
            return WITH_WORDS if words else WITHOUT_WORDS


WITH_WORDS, WITHOUT_WORDS = Calibration(-3.7, 6.6, 2.1), Calibration(-3.0, 6.5, 0.0)
"""About what the local embedder learns from test collections."""
WEIGHT_OF_TOKENS, WEIGHT_OF_ORDER = 0.7, 0.9
"""The weight of meaning against words for a model that is a bag of tokens, and for one that reads
the order of words. On Cranfield and CISI, bge-small finds less below .9, and wordllama less above
.7: benchmarks/models.py."""


@dataclass(frozen=True, slots=True)
class LiveCollection:
    """The collection that an index's alias points at."""

    index: str
    collection: str
    fingerprint: str
    embedder: str
    identity: EmbedderIdentity
    encoder: Bm25Encoder | None = None
    """What made the sparse vectors; None if the collection has none, and is searched by meaning
    alone."""
    calibration: Calibration = WITH_WORDS
    """What the calibrated score of its hits is made of."""
    reads_order: bool = True
    """Whether the order of words matters to the model."""
    english_alone: bool = False
    """Whether the model has learned from English texts alone, as its name says."""
    restricted: bool = False
    """Whether its documents have groups that may see them, as the collection itself says."""
    seal: str = ""
    """What seals citations; "" if the collection does not say it, so that none is known."""

    @property
    def dense_weight(self) -> float:
        """Return the weight of meaning that fits the model, if neither settings nor caller name
        one."""
        return WEIGHT_OF_ORDER if self.reads_order else WEIGHT_OF_TOKENS


class LiveCollections:
    """The live collections of all indexes, as the store said within the last second: a moved alias,
    or groups that documents got, may go unnoticed so long. An embedded store is asked for each
    search.

    A search goes to the collection that was looked up, not to the alias, so that the query's vector
    and those of the collection come from one model even if the alias moves meanwhile. Safe to use
    from several threads.
    """

    def __init__(self, settings: Settings, *, pinned: Mapping[str, str] | None = None) -> None:
        """`pinned` names the collection of an index in place of the live one."""
        self.seconds = 0.0 if settings.store.url is None else ALIAS_SECONDS
        self._aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._pinned = dict(pinned or {})
        self._names: Mapping[str, str] = {}
        self._names_read_at = -float("inf")
        self._hidden = {index.name for index in settings.indexes if index.asks_database}
        self._loaded: dict[str, tuple[float, LiveCollection, Mapping[str, Any]]] = {}

    def names(self, since: float) -> Mapping[str, str] | None:
        """Return the collection's name by index, None if that was not read since a moment of
        time.monotonic()."""
        return self._names if self._names_read_at > since else None

    def read_names(self, store: StoreReader, since: float) -> Mapping[str, str]:
        """Return the name to read each index's collection by, without empty indexes, unless it was
        read since.

        That is the alias for a collection that the API key does not list. Raises what the store
        raises.
        """
        if (known := self.names(since)) is not None:
            return known
        began = time.monotonic()
        aliases = store.aliases()
        live = {}
        for index, alias in self._aliases.items():
            with suppress(StoreError):  # if the store may not be asked, `load` says so
                if alias not in aliases and find_unlisted(store, alias) is None:
                    continue
            live[index] = aliases.get(alias, alias)
        self._names = names = live | self._pinned
        if store.embedded:  # it has the metadata at hand
            for index, (_, loaded, metadata) in self._loaded.copy().items():
                with suppress(StoreError):  # a search of the index says so
                    if names.get(index) != loaded.collection:
                        continue
                    if store.points(loaded.collection).metadata() == metadata:
                        self._loaded[index] = began, loaded, metadata
        self._names_read_at = began
        return names

    def cached(self, index: str, collection: str | None) -> LiveCollection | None:
        """Return what is known of an index's collection, or None if it must be loaded."""
        known = self._loaded.get(index)
        if known is None or known[0] < self._names_read_at or known[1].collection != collection:
            return None
        return known[1]

    def load(self, store: StoreReader, index: str, collection: str) -> LiveCollection:
        """Read from a collection's metadata which model made it, and whether its documents have
        groups; prepare it.

        Raises StoreError if it is of another index, and what the store raises.
        """
        began = time.monotonic()
        if collection == (alias := self._aliases[index]):
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
        embedder = str(metadata.get("embedder", "another embedder"))
        bm25 = Bm25Model.from_metadata(metadata.get(BM25))
        encoder = encoder_of(bm25) if bm25 else None
        restricted = GROUPS_FIELD in (metadata.get("payload_indexes") or {})
        recorded = (
            None if index in self._hidden else metadata.get(CALIBRATION)
        )  # it was learned from all documents
        calibration = Calibration.from_metadata(recorded, words=bm25 is not None)
        seal, english = str(metadata.get(SEAL, "")), knows_english_alone(identity.model)
        traits = ModelTraits.from_metadata(metadata.get(TRAITS))
        reads_order = identity.kind != "local" if traits is None else traits.reads_order
        live = LiveCollection(
            index,
            collection,
            fingerprint,
            embedder,
            identity,
            encoder,
            calibration,
            reads_order,
            english_alone=english,
            restricted=restricted,
            seal=seal,
        )
        points.prepare()
        self._loaded[index] = began, live, metadata
        return live

    def forget(self, indexes: Iterable[str] | None = None) -> None:
        """Drop the cached metadata of some indexes, or of all, so that it is loaded again when
        needed."""
        for name in list(self._loaded) if indexes is None else indexes:
            self._loaded.pop(name, None)
