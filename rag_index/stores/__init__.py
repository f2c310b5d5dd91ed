"""Stores: where points are kept. Embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch, StoredPoint
    from rag_index.settings import StoreSettings

__all__ = ["Condition", "Store", "open_store", "live_aliases"]


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition on a payload field; all conditions of a search must hold.

    `op` is one of `eq` (value), `any` (list of values), `range` (dict of gte, gt, lte, lt: numbers or ISO times),
    `exists` (no value: there, not null, not an empty list) and `not` (value: the field is not equal to it, or is
    missing). Dots in `field` nest. Numbers are equal by value (1 finds 1.0), booleans are no numbers, a list
    matches by any of its elements, a time without offset is UTC.
    """

    field: str
    op: str
    value: Any = None


class Store(Protocol):
    """Collections of points with one unnamed cosine vector each, aliases and collection metadata.

    Every call raises StoreUnavailable for what may pass, StoreBusy, PointsRefused or StoreError for what does not.
    Every writing call is done when it returns: completed by a server; in the embedded engine it survives the end of
    the process, and a power cut once `flush` has returned. Where a call names a collection to read or to write
    points, an alias serves as well. Empty lists of points, ids, keys or payloads are no error and do nothing.
    Vectors are kept with length one; payloads are JSON objects. All calls may be made from several threads.
    """

    embedded: bool
    """True where this process alone can hold the store, so that workers cannot write to it."""

    def create(self, name: str, dimension: int, metadata: dict[str, Any]) -> None:
        """Make a collection; on a server with keyword index on `_rag.key` and integer index on `_rag.chunk`.

        A collection of that name that is there already with the same dimension is kept and its metadata merged;
        one with another dimension raises StoreMismatch.
        """

    def collections(self) -> dict[str, dict[str, Any]]:
        """All collections, by name, with their metadata."""

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of one collection or alias; StoreError where there is none of that name."""

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata, key by key; a value of None removes the key."""

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Make payload indexes, by field: keyword, integer, float, bool or datetime; None removes one.

        Filters then find without looking at every payload. One of the same kind is kept, one of another kind made
        anew. A search is the same with one as without, as long as it compares with values of that kind.
        """

    def drop(self, name: str) -> None:
        """Remove a collection and the aliases that show it; one that is not there is no error."""

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points; those of the same id are replaced whole. Split into requests as the store needs.

        Vectors are validated before anything is written: dimension, finite, not all zero (PointsRefused).
        """

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each (point id, payload).

        Ids that are not there raise StoreMismatch once all others are done.
        """

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete by id; ids that are not there are no error."""

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete all points of these documents, by key, whose chunk number is at or above the one given.

        Embedded this reads every payload once: where ids are known, `delete_points` is the call.
        """

    def flush(self, name: str) -> None:
        """Make all that was written durable (embedded: to disk; a server has done so when it acknowledged)."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Exact number of points, of these document keys where given."""

    def retrieve(self, name: str, ids: Sequence[str], *, vectors: bool = False) -> list[StoredPoint]:
        """The points with these ids that are there, in any order."""

    def scroll(self, name: str, *, vectors: bool = False, page: int = 1000) -> Iterator[StoredPoint]:
        """All points in order of their id, a page in memory at a time."""

    def search(
        self,
        name: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[StoredPoint]:
        """The nearest points of a collection or alias, best first, with score (cosine, -1 to 1)."""

    def optimize(self, name: str) -> None:
        """Have the search index (HNSW) built, and return when it is; until then searches scan.

        Embedded: a child process builds, other calls on this collection wait. A server builds by itself: this waits.
        """

    def indexed(self, name: str) -> bool:
        """False where a search scans more vectors than it should, so that `optimize` helps."""

    def aliases(self) -> dict[str, str]:
        """Alias to collection."""

    def point_alias(self, alias: str, collection: str) -> None:
        """Let the alias show this collection, in one step: a reader sees the old or the new one."""

    def dimension(self, name: str) -> int:
        """The dimension of the collection's vectors."""

    def close(self) -> None:
        """Give the store back."""


def open_store(
    settings: StoreSettings, *, wait: float = 0.0, timeout: float | None = None, patience: float | None = None
) -> Store:
    """The store that the settings name. The embedded one is locked; `wait` seconds for whoever holds it.

    Of a server, a request may take `timeout` seconds (as the settings say), and one with a passing fault is tried
    again for `patience` seconds (30).
    """
    if settings.url is None:
        from rag_index.stores.edge.store import EdgeStore

        return EdgeStore(settings.path, wait=wait)
    from rag_index.stores.server.store import ServerStore

    return ServerStore(
        settings.url,
        api_key=settings.secret_api_key(),
        timeout=settings.timeout if timeout is None else timeout,
        patience=30.0 if patience is None else patience,
    )


def live_aliases(settings: StoreSettings) -> dict[str, str]:
    """Alias to collection, without taking the embedded store's lock: its catalog is replaced as a whole."""
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog

        return Catalog(settings.path / "catalog.json").aliases()
    store = open_store(settings)
    try:
        return store.aliases()
    finally:
        store.close()
