"""What every store can do, embedded or on a server: its protocol."""

# mypy: disable-error-code="empty-body"
# What a collection does by itself has a docstring here, and no body (`of_collection`).
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from rag_index.components.stores.queries import NO_WORDS, Condition, Conditions, VectorQuery, WordCounts, WordPlaces

if TYPE_CHECKING:
    from rag_index.components.stores.reads import PointReads
    from rag_index.core.documents.batches import CommitMark, PointBatch, StoredPoint


__all__ = [
    "NO_WORDS", "Condition", "Conditions", "Store", "StoreNames", "StoreReader", "VectorQuery", "WordCounts",
    "WordPlaces", "of_collection",
]  # fmt: skip

F = TypeVar("F", bound=Callable[..., Any])


def of_collection(method: F) -> F:
    """Let the collection that a store's method names do what the method says."""

    def call(store: StoreReader, name: str, /, *args: Any, **named: Any) -> Any:
        with store.lend(name) as collection:
            return getattr(collection, method.__name__)(*args, **named)

    return cast("F", call)


class StoreNames(Protocol):
    """The names in a store: what can be read without a lock."""

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""

    def names(self) -> set[str]:
        """Return the names of all collections."""

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection, None if the store says of this very name that there is none.

        A server's lists leave out what the API key may not read, so a name that is missing there proves nothing. Raises
        StoreRefused if the key may not ask.
        """

    def commit_mark(self, name: str) -> CommitMark:
        """Return what `Store.set_commit_mark` wrote last, or a mark of no commit."""


class StoreReader(StoreNames):
    """What can be read of collections of points with one unnamed cosine vector each, aliases and metadata.

    A collection made for it has a sparse vector (`SPARSE`) with each point too, whose values a search multiplies by
    the inverse document frequency in the collection, or in a part of it.

    Every call raises StoreUnavailable for faults that may pass, and StoreBusy, StoreRefused or StoreError for others.
    A call that reads points takes an alias in place of a collection. Empty lists of ids or keys do nothing and are not
    an error. All calls may be made from several threads.
    """

    embedded: bool
    """True if only one process at a time can write a collection, so that workers cannot."""

    @abstractmethod
    def lend(self, name: str) -> AbstractContextManager[PointReads]:
        """Lend a collection or alias for the time of the block."""

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias. Raises StoreError if there is none of that name."""

    def wanted(self) -> bool:
        """Return whether another process has come to write what this reader keeps from being written in place."""
        return False

    def prepare(self, name: str) -> None:
        """Make the next call that reads points wait for nothing: the embedded store loads the collection."""
        with self.lend(name):
            pass

    @of_collection
    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""

    @of_collection
    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Conditions = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions, in any order."""

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions in order of their id, with one page in memory at a time."""
        with self.lend(name) as collection:
            yield from collection.scroll(vectors=vectors, page=page, conditions=conditions)

    @of_collection
    def search(self, name: str, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points of a collection or alias, best first, with score (cosine, -1 to 1).

        With a sparse vector, too, return the `limit` nearest points, the `limit` best by words and what the names in
        the query find, each once, with the cosine and the sparse vector, which says what words a point has. Those
        without a vector come last: they are `by_words`, and as far away as the farthest of the others. With a sparse
        vector alone, return the best by words, whose score is that of the words. One request asks for all that.
        """

    @of_collection
    def word_counts(self, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        """Return how many points that meet the conditions have each word, as the inverse document frequency tells.

        A server before 1.19 counts all points, but 0 for a word that none has which meets the conditions. It costs a
        small search for each word. A collection without sparse vectors has no words.
        """

    @of_collection
    def find_words(self, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, each with the ids of 100 points, or of all.

        It costs a search or two, however many words are asked for.
        """

    @of_collection
    def facet(self, name: str, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field, the `limit` most frequent.

        The most frequent comes first. A point with a list of values counts for each. Raises StoreError if the field has
        no keyword index.
        """

    @of_collection
    def indexed(self, name: str) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""

    def seen_commits(self, name: str) -> int | None:
        """Return the number of the last commit that the last read of this thread has seen; None if it saw all."""
        return None

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""

    def close(self) -> None:
        """Close the store."""


class Store(StoreReader):
    """A store that this process may also write.

    Every call raises as those of `StoreReader`, or PointsRefused. Every write is complete when the call returns: a
    server has completed it; in the embedded engine it survives the end of the process, and a power cut once `flush` has
    returned. A call that writes points takes an alias in place of a collection, and empty lists do nothing. Vectors are
    stored with length one; payloads are JSON objects.
    """

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection; on a server also a keyword index on `_rag.key` and an integer index on `_rag.chunk`.

        With `sparse`, points can have sparse vectors. On a server it gets what was set by hand on the collection
        `like`: HNSW, quantization, disk, payload indexes.

        An existing collection of that name and kind is kept, and the metadata is merged into its own. One of another
        dimension, or without sparse vectors where they are wanted, raises StoreMismatch.
        """

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata, key by key; a value of None removes the key."""

    @of_collection
    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field: keyword, integer, float, bool or datetime; None removes one.

        They spare filters from reading every payload. An index of the same kind is kept; one of another kind is
        replaced. They do not change what a search finds, as long as it compares with values of that kind.
        """

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it. A missing collection is not an error."""

    @of_collection
    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points, replacing those of the same id as a whole, in as many requests as the store needs.

        Raises PointsRefused before anything is written if a vector is of another dimension, not finite or all zero.
        """

    @of_collection
    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each (point id, payload).

        Raises StoreMismatch for ids that do not exist, once all others are written.
        """

    @of_collection
    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete points by id, as `scroll` returns it: the number of a point of another program too.

        A missing id is not an error.
        """

    @of_collection
    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on.

        The embedded store reads every payload for this. Use `delete_points` if the ids are known.
        """

    @of_collection
    def set_commit_mark(self, name: str, mark: CommitMark) -> None:
        """Write the mark of a collection's last commit, durably, and where it stays with the points.

        If an older copy of the points is put in their place, the mark of that time comes with them. All points that the
        commit wrote must be durable already.
        """

    @of_collection
    def flush(self, name: str) -> None:
        """Make all writes durable. The embedded store writes them to disk; a server has done so before it answers."""

    @of_collection
    def optimize(self, name: str) -> None:
        """Return once the search index (HNSW) is built; until then searches scan.

        The embedded store builds it in a child process, and other calls on this collection wait. A server builds it
        by itself, and this call waits for that.
        """

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step: a reader sees the old or the new one."""

    def hand_over(self) -> None:
        """Let readers of the embedded store have what was written. A server's readers have it at once."""

    def let_go(self) -> None:
        """Close the collections of the embedded store that other processes wait for, and a connection to a server that
        was idle for a minute. None may be in use."""
