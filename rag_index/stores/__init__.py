"""Stores of points: embedded Qdrant (`edge`) or a Qdrant server (`server`), behind one protocol.

Here are the protocol, the conditions of searches, the keys of a collection's metadata, and how a store is opened.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from rag_index.errors import StoreMismatch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import CommitMark, PointBatch, StoredPoint
    from rag_index.documents.vectors import SparseVector
    from rag_index.settings import StoreSettings
    from rag_index.stores.server.store import ServerStore

REST_REMEDY = "set [store.server] grpc_port to the port where it does (0 if REST is meant)"
"""What to do if a server does not answer gRPC."""
RENAME = "give this project another name (`project`, the first line of the settings)"
"""What to do if another project or program has a name that this one needs."""
LOOK_SECONDS = 2.0
"""How long a request of a command that only shows the status may take; it is repeated for half as long."""

SPARSE = "bm25"
"""The name of a point's sparse vector."""
BM25 = "bm25"
"""Key for the model that made the sparse vectors; a collection without them does not have it."""
CALIBRATION = "calibration"
"""Key for the weights of the calibrated score; a collection that has not learned any does not have it."""
UNLEARNED = "documents"
"""Stands there instead of weights if nothing could be learned: how many documents the collection had."""
BULK = "indexing_threshold"
"""Key for what a server's `indexing_threshold` was before a run turned it off to load the collection; else missing."""
MAKER_KEYS = ("embedder_fingerprint", "chunking")
"""Keys that identify what made the vectors and the chunks; the ledger has columns of the same names."""
UNKNOWN = "unknown"
"""Value of a maker key if neither ledger nor store knows the maker, or if they disagree."""
NAME = "name"
"""Key for the collection's own name, for whoever may read it by its alias alone."""
LEFT = "rolled_back"
"""Key that is true if a rollback has left this collection for an older one; else missing."""
MOVED_TO = "moved_to"
"""Key in the metadata of a collection that was moved: the location of the store that holds it now."""
MOVED_ID = "moved_store_id"
"""Key for the `store_id` that a collection had before it was moved, or will get when the move is complete."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on a payload field. A point is found if it meets all conditions of a search.

    `op` is one of `eq` (value), `any` (list of values), `range` (dict of gte, gt, lte, lt: numbers or ISO times),
    `exists` (no value: present, not null, not an empty list) and `not` (value: the field is not equal to it, or is
    missing; a list: to none of its values). The value None is equal to what is missing, null or an empty list. Dots in
    `field` lead into nested objects. Numbers are compared by value (1 matches 1.0; Qdrant's own match would not),
    booleans are not numbers, a list matches by any of its elements, a time without an offset is UTC, and one without a
    time of day midnight.
    """

    field: str
    op: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A search for the `limit` nearest points to a vector. With `sparse` it is hybrid: see `StoreReader.search`."""

    vector: NDArray[np.float32]
    limit: int
    sparse: SparseVector | None = None
    conditions: Sequence[Condition] = ()
    exact: bool = False
    """Whether every vector is compared, whatever search index there is."""
    payload: bool = True
    """Whether the points of a hybrid search come with their payloads; those of others always do."""


@dataclass(frozen=True, slots=True)
class WordCounts:
    """The number of points of a collection, and by word (a dimension of the sparse vectors) of those that have it."""

    points: int
    having: Mapping[int, int]


WordPlaces = dict[int, list[str]]
"""The ids of points by a word that they have."""
NO_WORDS = WordCounts(0, {})


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


class StoreReader(StoreNames, Protocol):
    """What can be read of collections of points with one unnamed cosine vector each, aliases and metadata.

    A collection made for it has a sparse vector (`SPARSE`) with each point too, whose values a search multiplies by
    the inverse document frequency in the whole collection.

    Every call raises StoreUnavailable for faults that may pass, and StoreBusy, StoreRefused or StoreError for others.
    A call that reads points takes an alias in place of a collection. Empty lists of ids or keys do nothing and are not
    an error. All calls may be made from several threads.
    """

    embedded: bool
    """True if only one process at a time can write a collection, so that workers cannot."""

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias. Raises StoreError if there is none of that name."""

    def prepare(self, name: str) -> None:
        """Make the next call that reads points wait for nothing: the embedded store loads the collection."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions, in any order."""

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions in order of their id, with one page in memory at a time."""

    def search(self, name: str, query: VectorQuery) -> list[StoredPoint]:
        """Return the nearest points of a collection or alias, best first, with score (cosine, -1 to 1).

        With a sparse vector, return the `limit` nearest points and the `limit` best by sparse vector, each once, with
        both scores and in no order. A point that has none of the words scores 0 by them. If the collection has no
        sparse vectors, or the query none, only the nearest are searched for.
        """

    def word_counts(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordCounts:
        """Return about how many points have each of these words, as the inverse document frequency tells.

        A word that no point has which meets the conditions counts 0. It costs a small search for each word. A
        collection without sparse vectors has no words.
        """

    def find_words(self, name: str, words: Sequence[int], conditions: Sequence[Condition] = ()) -> WordPlaces:
        """Return which of these words points have that meet the conditions, each with the ids of 100 points, or of all.

        It costs a search or two, however many words are asked for.
        """

    def facet(self, name: str, field: str, *, limit: int, conditions: Sequence[Condition] = ()) -> dict[str, int]:
        """Return about how many points that meet the conditions have each value of a field, the `limit` most frequent.

        The most frequent comes first. A point with a list of values counts for each. Raises StoreError if the field has
        no keyword index.
        """

    def indexed(self, name: str) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""

    def seen_commits(self, name: str) -> int | None:
        """Return the number of the last commit that the last read of this thread has seen; None if it saw all."""

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""

    def close(self) -> None:
        """Close the store."""


class Store(StoreReader, Protocol):
    """A store that this process may also write.

    Every call raises StoreUnavailable for faults that may pass, and StoreBusy, StoreRefused, PointsRefused or
    StoreError for others.
    Every write is complete when the call returns: a server has completed it; in the embedded engine it survives the
    end of the process, and survives a power cut once `flush` has returned. A call that writes points takes an alias in
    place of a collection. Empty lists of points, ids, keys or payloads do nothing and are not an error. Vectors are
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

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field: keyword, integer, float, bool or datetime; None removes one.

        They spare filters from reading every payload. An index of the same kind is kept; one of another kind is
        replaced. They do not change what a search finds, as long as it compares with values of that kind.
        """

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it. A missing collection is not an error."""

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points, replacing those of the same id as a whole, in as many requests as the store needs.

        Raises PointsRefused before anything is written if a vector is of another dimension, not finite or all zero.
        """

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each (point id, payload).

        Raises StoreMismatch for ids that do not exist, once all others are written.
        """

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete points by id, as `scroll` returns it: the number of a point of another program too.

        A missing id is not an error.
        """

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on.

        The embedded store reads every payload for this. Use `delete_points` if the ids are known.
        """

    def set_commit_mark(self, name: str, mark: CommitMark) -> None:
        """Write the mark of a collection's last commit, durably, and where it stays with the points.

        If an older copy of the points is put in their place, the mark of that time comes with them. All points that the
        commit wrote must be durable already.
        """

    def flush(self, name: str) -> None:
        """Make all writes durable. The embedded store writes them to disk; a server has done so before it answers."""

    def optimize(self, name: str) -> None:
        """Return once the search index (HNSW) is built; until then searches scan.

        The embedded store builds it in a child process, and other calls on this collection wait. A server builds it
        by itself, and this call waits for that.
        """

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step: a reader sees the old or the new one."""


def on_server(store: StoreReader) -> ServerStore | None:
    """Return the store as one on a server, whose collections have settings, and None if it is embedded."""
    return None if store.embedded else cast("ServerStore", store)


class _Lent:
    """A store without its `close`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def close(self) -> None:
        """Do nothing: the owner closes the store."""


def lend(store: Store) -> Store:
    """Return the store for somebody who closes what they use, such as a Retriever; it is the owner's to close."""
    return cast("Store", _Lent(store))


class LiveName(NamedTuple):
    """The live collection of an alias: its name, and the name to read it by.

    That is the alias if the API key may read no more; whose lists then leave the alias and the collection out.
    """

    name: str
    readable: str


def open_store(settings: StoreSettings, *, wait: float = 0.0, writes: bool = False) -> Store:
    """Open the store that the settings name.

    Each collection of the embedded one is locked when it is first used; `wait` is how long to wait for its holder. With
    `writes`, each is made ready to be written by then. A request to a server with a passing fault is retried for 30
    seconds, and for as long as the server asks for pauses.
    """
    if settings.url is None:
        from rag_index.stores.edge.store import EdgeStore

        return EdgeStore(settings.path, wait=wait, writes=writes)
    return _open_server(settings)


def open_reader(
    settings: StoreSettings, *, wait: float = 0.0, timeout: float | None = None, patience: float | None = None
) -> StoreReader:
    """Open the store that the settings name for reading. The embedded one may be written by another process meanwhile.

    `wait` is how long that process may take to let go of a collection. A request to a server may take `timeout`
    seconds (default: as the settings say), and is retried for `patience` seconds (default: as for `open_store`). An
    embedded store with a `timeout` is read in other processes, because nothing else can end a call.
    """
    if settings.url is None:
        from rag_index.stores.edge.reader import EdgeReader

        return EdgeReader(settings.path, wait=wait, timeout=timeout)
    return _open_server(settings, timeout=timeout, patience=patience)


def _open_server(
    settings: StoreSettings, *, timeout: float | None = None, patience: float | None = None
) -> ServerStore:
    from rag_index.stores.server.store import ServerStore

    timeout, key = settings.timeout if timeout is None else timeout, settings.secret_api_key()
    return ServerStore(str(settings.url), api_key=key, timeout=timeout, patience=patience, settings=settings.server)


@contextmanager
def open_names(settings: StoreSettings, *, brief: bool = False) -> Iterator[StoreNames]:
    """Open the names in the store. A server has `LOOK_SECONDS` to answer if `brief`, else as long as for a run."""
    if settings.url is None:
        from rag_index.stores.edge.catalog import Catalog

        yield Catalog(settings.path)
        return
    with closing(_open_to_look(settings) if brief else _open_server(settings)) as store:
        yield store


def _open_to_look(settings: StoreSettings) -> ServerStore:
    return _open_server(settings, timeout=min(settings.timeout, LOOK_SECONDS), patience=LOOK_SECONDS / 2)


def live_aliases(settings: StoreSettings, asked: Iterable[str] = ()) -> dict[str, str]:
    """Return the collection of each alias, without locking the embedded store. Those `asked` need not be listed.

    A server has `LOOK_SECONDS` to answer, because a person waits. Raises as `find_unlisted`.
    """
    with open_names(settings, brief=True) as store:
        found = store.aliases()
        for alias in asked:
            if alias not in found and (live := find_unlisted(store, alias)) is not None:
                found[alias] = live.name
        return found


def find_live(store: StoreNames, alias: str) -> LiveName | None:
    """Return the live collection of an alias, None if the store says that there is none. Raises as `find_unlisted`."""
    if (name := store.aliases().get(alias)) is not None:
        return LiveName(name, name)
    return find_unlisted(store, alias)


def find_unlisted(store: StoreNames, alias: str) -> LiveName | None:
    """Return the live collection of an alias that the store does not list, None if there is none.

    Raises StoreRefused if the API key may not ask for the alias, and StoreMismatch if a collection of another program
    has its name.
    """
    if (metadata := store.find(alias)) is None:
        return None
    if metadata.get("alias") != alias:
        raise StoreMismatch(
            f"the store has a collection named {alias}, which rag-index did not make, and searches need this name as "
            f"an alias: remove that collection, or {RENAME}"
        )
    return LiveName(metadata.get(NAME, alias), alias)


def count_indexed(settings: StoreSettings, names: Iterable[str]) -> dict[str, int]:
    """Return about how many points of each of these collections a server's search index has.

    It is empty for the embedded store, and leaves collections out that do not exist. A server has `LOOK_SECONDS` to
    answer. Raises as `StoreReader`.
    """
    if settings.url is None:
        return {}
    with closing(_open_to_look(settings)) as store:
        there = store.names()
        return {name: store.count_indexed(name) for name in names if name in there}


def commit_marks(settings: StoreSettings, names: Iterable[str]) -> dict[str, CommitMark]:
    """Return the marks of the last commits of those of these collections that exist, without locking an embedded store.

    A server has `LOOK_SECONDS` to answer. Raises as `StoreReader`.
    """
    with open_names(settings, brief=True) as store:
        there = store.names()
        return {name: store.commit_mark(name) for name in names if name in there}
