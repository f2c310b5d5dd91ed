"""The store on a Qdrant server, through qdrant-client."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from qdrant_client import QdrantClient, models

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.errors import StoreError
from rag_index.settings.sections import ServerSettings
from rag_index.stores.points import engine_ids
from rag_index.stores.server import writes
from rag_index.stores.server.collections import Collections
from rag_index.stores.server.filter import key_filter
from rag_index.stores.server.info import has_sparse, vector_params
from rag_index.stores.server.limits import KnownLimits, Limits
from rag_index.stores.server.link import Link
from rag_index.stores.server.reads import Reads
from rag_index.stores.server.requests import Requests
from rag_index.stores.server.search import id_batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import CommitMark, PointBatch
    from rag_index.documents.vectors import SparseVector
    from rag_index.stores import Condition

T = TypeVar("T")

DEFAULT = ServerSettings()


class ServerStore:
    """The Store protocol on a Qdrant server, 1.16 or newer.

    It connects with the first call. Each call retries passing faults for `patience` seconds, as `Link` does. Safe to
    use from several threads; picklable, with a new connection in the process that unpickles it.
    """

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
        grpc_port: int | None = None,
        settings: ServerSettings = DEFAULT,
    ) -> None:
        port = settings.grpc_port if grpc_port is None else grpc_port
        self._open(Link(url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=port), settings)
        self._remake: partial[ServerStore] | None = partial(
            ServerStore, url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=port, settings=settings
        )

    @classmethod
    def from_client(cls, client: QdrantClient, *, patience: float | None = None) -> ServerStore:
        """Make a store on an existing client, such as `QdrantClient(":memory:")`. It is not picklable."""
        store = cls.__new__(cls)
        store._remake = None
        store._open(Link("the given client", patience=patience, client=client), DEFAULT)
        return store

    def _open(self, link: Link, settings: ServerSettings) -> None:
        self._link = link
        self._requests = Requests(link)
        self._collections = Collections(self._requests, settings)
        self._limits = KnownLimits(self._requests.info)
        self._reads = Reads(self._requests, self._limits, settings)

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        if self._remake is None:
            raise TypeError("a store made from a client cannot be pickled: make it from a URL")
        return self._remake, ()

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection as the settings say, or keep the existing one of that name and kind.

        Metadata is merged. It gets what was set by hand on the collection `like`.
        """
        self._collections.create(name, dimension, metadata, sparse=sparse, like=like)

    def configure(self, name: str) -> str:
        """Give a collection what `[store.server]` says; return what a person should know of it."""
        return self._collections.configure(name)

    def pause_indexing(self, name: str) -> None:
        """Turn the building of the search index off until `resume_indexing`."""
        self._collections.pause_indexing(name)

    def resume_indexing(self, name: str) -> None:
        """Turn the building of the search index on again if `pause_indexing` turned it off."""
        self._collections.resume_indexing(name)

    def fallback(self) -> str:
        """Return why points are not written over gRPC, "" if they are."""
        return self._link.fallback()

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self._requests.names()):
            try:
                found[name] = dict(self._requests.info(name).config.metadata or {})
            except StoreError:
                if name in self._requests.names():  # else it was dropped meanwhile
                    raise
        return found

    def names(self) -> set[str]:
        """Return the names of all collections, for less than `collections` costs."""
        return self._requests.names()

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection or alias, None if the server says that there is none of this name."""
        exists = self._requests.ask(lambda client: client.collection_exists(name))
        return self.metadata(name) if exists else None

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias."""
        return dict(self._requests.info(name).config.metadata or {})

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata; a value of None removes the key."""
        self._requests.update(name, metadata=metadata)

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field and kind; None removes one."""
        self._collections.index_fields(name, fields)

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it."""
        self._requests.ask(lambda client: client.delete_collection(name))

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points; all are checked before the first is sent. Raises PointsRefused once all others are written."""
        if len(points):
            info = self._requests.info(name)
            writes.upsert(
                self._link,
                name,
                vector_params(name, info).size,
                points,
                sparse=has_sparse(info),
                most=Limits.of(info).writes,
            )

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each point. Raises StoreMismatch for points that do not exist."""
        if payloads:
            limits = Limits.of(self._requests.info(name))
            most = max(1, min(limits.writes, limits.ids) // 2)  # a request that is refused has used up a part of them
            writes.update_payloads(self._link, name, payloads, most=most)

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete points by id."""

        def delete(limits: Limits) -> None:
            for batch in id_batches(engine_ids(ids), limits.writes):
                writes.delete(self._link, name, models.PointIdsList(points=list(batch)))

        self._limits.within(name, delete)

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on."""
        by_number: dict[int, list[str]] = defaultdict(list)
        for key, number in first.items():
            by_number[number].append(key)

        def delete(limits: Limits) -> None:
            for number, keys in by_number.items():
                for batch in id_batches(keys, min(limits.values, limits.writes)):
                    selector = models.FilterSelector(filter=key_filter(RESERVED_KEY, batch, number))
                    writes.delete(self._link, name, selector)

        self._limits.within(name, delete)

    def commit_mark(self, name: str) -> CommitMark:
        """Return the mark of the last commit, which is in a point without a vector."""
        return self._reads.commit_mark(name)

    def set_commit_mark(self, name: str, mark: CommitMark) -> None:
        """Write the mark of the last commit."""
        writes.set_commit_mark(self._link, name, mark)

    def flush(self, name: str) -> None:
        """Do nothing: the server has completed writes in its log."""

    def prepare(self, name: str) -> None:
        """Do nothing: a server is ready."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        return self._reads.count(name, keys)

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""
        return self._requests.count_sparse(name) if self.has_sparse(name) else 0

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        return self._reads.retrieve(name, ids, vectors=vectors, conditions=conditions)

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, with one page in memory at a time."""
        return self._reads.scroll(name, vectors=vectors, page=page, conditions=conditions)

    def search(
        self,
        name: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[StoredPoint]:
        """Return the nearest points, best first, in as many pages as the server's limits need."""
        return self._reads.search(name, vector, limit=limit, conditions=conditions, exact=exact)

    def search_hybrid(
        self,
        name: str,
        vector: NDArray[np.float32],
        sparse: SparseVector,
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
        payload: bool = True,
    ) -> list[StoredPoint]:
        """Return the best points by either vector, each once, with both scores."""
        return self._reads.search_hybrid(
            name, vector, sparse, limit=limit, conditions=conditions, exact=exact, payload=payload
        )

    def optimize(self, name: str) -> None:
        """Wait until the server, by itself, has built the search index. Raises StoreUnavailable if it stops to."""
        self._collections.wait_until_indexed(name)

    def indexed(self, name: str) -> bool:
        """Return False if the server is still building, or a search scans more vectors than it should."""
        return self._collections.indexed(name)

    def count_indexed(self, name: str) -> int:
        """Return about how many points the search index has."""
        return self._collections.count_indexed(name)

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""
        answer = self._requests.ask(lambda client: client.get_aliases())
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step."""
        current = self.aliases().get(alias)
        if current == collection:
            return
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        changes: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=create)]
        if current is not None:
            changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        self._requests.ask(lambda client: client.update_collection_aliases(changes))

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""
        return vector_params(name, self._requests.info(name)).size

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""
        return has_sparse(self._requests.info(name))

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._link.close()
