"""What every store can do, embedded or on a server: its names, and the points of each
collection."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.components.stores.queries import (
    NO_WORDS,
    Conditions,
    PayloadCondition,
    VectorQuery,
    WordCounts,
    WordPlaces,
)
from rag_index.components.stores.reads import PointReader

if TYPE_CHECKING:
    from rag_index.core.documents.batches import CommitMark, PointBatch

__all__ = [
    "NO_WORDS",
    "PayloadCondition",
    "Conditions",
    "PointCollection",
    "PointReader",
    "Store",
    "StoreNames",
    "StoreReader",
    "VectorQuery",
    "WordCounts",
    "WordPlaces",
]


class StoreNames(Protocol):
    """The names in a store: what can be read without a lock."""

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""

    def names(self) -> set[str]:
        """Return the names of all collections."""

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection, None if the store says of this very name that there
        is none.

        A server's lists leave out what the API key may not read, so a name that is missing there
        proves nothing. Raises StoreRefused if the key may not ask.
        """


class StoreReader(StoreNames, Protocol):
    """A store whose points this process reads. All calls may be made from several threads.

    Every call raises StoreUnavailable for faults that may pass, and StoreBusy, StoreRefused or
    StoreError for others.
    """

    embedded: bool
    """True if only one process at a time can write a collection, so that workers cannot."""

    @abstractmethod
    def points(self, name: str) -> PointReader:
        """Return the points of a collection or alias, whether or not there is one: calls raise
        StoreError if not.

        Get them anew for each piece of work, and drop them then. In the embedded store, they are
        bound to what is there when the first call needs it: if others write the store, that is the
        newest state, and it takes space until these points are dropped; a collection that this
        process closes or drops is closed for them, too.
        """

    def wanted(self) -> bool:
        """Return whether another process has come to write what this reader keeps from being
        written in place."""
        return False

    def close(self) -> None:
        """Close the store. Later calls raise StoreError, those on points, too."""


class Store(StoreReader, Protocol):
    """A store that this process may also write."""

    @abstractmethod
    def points(self, name: str) -> PointCollection:
        """Return the points of a collection or alias, as `StoreReader.points` does."""

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False
    ) -> None:
        """Create a collection; on a server also a keyword index on `_rag.key` and an integer index
        on `_rag.chunk`.

        With `sparse`, points can have sparse vectors.

        An existing collection of that name and kind is kept, and the metadata is merged into its
        own. One of another dimension, or without sparse vectors where they are wanted, raises
        StoreMismatch.
        """

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it. A missing collection is not an
        error."""

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step: a reader sees the old or the new one."""

    def hand_over(self) -> None:
        """Let readers of the embedded store have what was written. A server's readers have it at
        once."""

    def let_go(self) -> None:
        """Close the collections of the embedded store that other processes wait for, and a
        connection to a server that was idle for a minute. None may be in use."""


class PointCollection(PointReader, ABC):
    """The points of one collection, which this process may also write.

    Every call raises as those of `PointReader`, or PointsRefused. Every write is complete when the
    call returns: a server has completed it; in the embedded engine it survives the end of the
    process, and a power cut once `flush` has returned. Empty lists do nothing. Vectors are stored
    with length one; payloads are JSON objects.
    """

    @abstractmethod
    def set_metadata(self, metadata: dict[str, Any]) -> None:
        """Merge into the metadata, key by key; a value of None removes the key."""

    def take_settings(self, old: PointReader) -> None:
        """On a server, take what was set by hand on another collection: HNSW, quantization, disk,
        payload indexes.

        That may be on another server, where replicas are that server's own affair. One that cannot
        be read has nothing to give.
        """

    @abstractmethod
    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field: keyword, integer, float, bool or datetime; None removes
        one.

        They spare filters from reading every payload. An index of the same kind is kept; one of
        another kind is replaced. They do not change what a search finds, as long as it compares
        with values of that kind.
        """

    @abstractmethod
    def upsert(self, points: PointBatch) -> None:
        """Write points, replacing those of the same id as a whole, in as many requests as the store
        needs.

        Raises PointsRefused before anything is written if a vector is of another dimension, not
        finite or all zero.
        """

    @abstractmethod
    def update_payloads(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each (point id, payload).

        Raises StoreMismatch for ids that do not exist, once all others are written.
        """

    @abstractmethod
    def delete_points(self, ids: Sequence[str]) -> None:
        """Delete points by id, as `scroll` returns it: the number of a point of another program
        too.

        A missing id is not an error.
        """

    @abstractmethod
    def delete_chunks(self, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on.

        The embedded store reads every payload for this. Use `delete_points` if the ids are known.
        """

    @abstractmethod
    def set_commit_mark(self, commit_mark: CommitMark) -> None:
        """Write the mark of the last commit, durably, and where it stays with the points.

        If an older copy of the points is put in their place, the mark of that time comes with them.
        All points that the commit wrote must be durable already.
        """

    @abstractmethod
    def flush(self) -> None:
        """Make all writes durable. The embedded store writes them to disk; a server has done so
        before it answers."""

    @abstractmethod
    def optimize(self) -> None:
        """Return once the search index (HNSW) is built; until then searches scan.

        The embedded store builds it in a child process, and other calls on this collection wait. A
        server builds it by itself, and this call waits for that.
        """
