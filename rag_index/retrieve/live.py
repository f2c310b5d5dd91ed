"""Which collection each index shows, and of which model its vectors are."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.embedders import EmbedderIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rag_index.settings import Settings
    from rag_index.stores import Store

__all__ = ["Directory", "LiveCollection"]

METADATA_SECONDS = 60.0
"""What a collection says of its model never changes; one of the same name could be made anew."""


@dataclass(frozen=True, slots=True)
class LiveCollection:
    """What an index shows. `identity` is None where the collection does not say it, made by an older rag-index."""

    index: str
    collection: str
    fingerprint: str
    embedder: str
    identity: EmbedderIdentity | None


class Directory:
    """Looks up what indexes show, and remembers it for `seconds`: that long a moved alias may go unnoticed.

    Searches go to the collection that was looked up and not to the alias, so that the vector of a query and those of
    the collection are of one model, whatever the alias does meanwhile. Safe from several threads.
    """

    def __init__(self, settings: Settings, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._aliases = {index.name: settings.alias(index.name) for index in settings.indexes}
        self._seconds, self._clock = seconds, clock
        self._looked = -float("inf")
        self._collections: Mapping[str, str] = {}
        self._described: dict[str, tuple[float, LiveCollection]] = {}

    def remembered(self) -> Mapping[str, str] | None:
        """Index to collection, None where it must be looked up (again)."""
        return self._collections if self._clock() - self._looked < self._seconds else None

    def look(self, store: Store) -> Mapping[str, str]:
        """Index to collection, as it is now; an index that shows nothing is not in it. Raises as a store does."""
        began = self._clock()
        aliases = store.aliases()
        self._collections = {index: aliases[alias] for index, alias in self._aliases.items() if alias in aliases}
        self._looked = began
        return self._collections

    def collection(self, index: str) -> str | None:
        """What an index showed when it was looked up last."""
        return self._collections.get(index)

    def described(self, index: str, collection: str) -> LiveCollection | None:
        """What is known of an index's collection, None where it must be read (again)."""
        read_at, live = self._described.get(index, (0.0, None))
        fresh = live is not None and live.collection == collection and self._clock() - read_at < METADATA_SECONDS
        return live if fresh else None

    def describe(self, store: Store, index: str, collection: str) -> LiveCollection:
        """Read what a collection says of its model. Raises as a store does."""
        began = self._clock()
        metadata = store.metadata(collection)
        fingerprint = str(metadata.get("embedder_fingerprint"))
        identity = _identity(metadata.get("embedder_identity"))
        if identity is not None and identity.fingerprint != fingerprint:
            identity = None
        live = LiveCollection(
            index, collection, fingerprint, str(metadata.get("embedder", "another embedder")), identity
        )
        self._described[index] = (began, live)
        return live

    def forget(self, index: str | None = None) -> None:
        """Read of an index (of all) what it is again when it is asked the next time."""
        for name in [index] if index else list(self._described):
            self._described.pop(name, None)

    def fingerprints(self) -> set[str] | None:
        """Of all models that may be searched; None while it is not known of every index."""
        described = self._described.copy()
        known = self._collections.keys() <= described.keys()
        return {live.fingerprint for _, live in described.values()} if known else None


def _identity(said: Any) -> EmbedderIdentity | None:
    try:
        return EmbedderIdentity(**said)
    except TypeError:
        return None
