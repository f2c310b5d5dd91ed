"""The store on a Qdrant server, through qdrant-client."""

from __future__ import annotations

import logging
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from qdrant_client import QdrantClient, models

from rag_index.documents.batches import RESERVED_KEY, StoredPoint
from rag_index.errors import PointsRefused, StoreError, StoreMismatch, StoreRefused, StoreUnavailable
from rag_index.stores import SPARSE
from rag_index.stores.conditions import payload_filter, payload_path, unquoted
from rag_index.stores.hybrid import LookUp, hybrid_points
from rag_index.stores.points import check_ids, engine_ids, stored_point, unit_query
from rag_index.stores.server import writes
from rag_index.stores.server.carry_over import carry_over
from rag_index.stores.server.filter import ServerDialect, key_filter
from rag_index.stores.server.info import has_sparse, is_indexed, vector_params
from rag_index.stores.server.limits import KnownLimits, Limits
from rag_index.stores.server.link import Link
from rag_index.stores.server.payload_index import payload_kind
from rag_index.stores.server.search import HybridSearch, meeting, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.sparse import SparseVector
    from rag_index.stores import Condition

__all__ = ["ServerStore"]

logger = logging.getLogger("rag_index.stores")

T = TypeVar("T")

BATCH_IDS = 1000
"""Ids or keys per request."""
INDEXING_WAIT = 600.0
POLL = 0.5


class ServerStore:
    """The Store protocol on a Qdrant server, 1.16 or newer.

    It connects with the first call. Each call retries passing faults for `patience` seconds. Safe to use from several
    threads; picklable, with a new connection in the process that unpickles it.
    """

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float = 30.0,
        grpc_port: int | None = None,
    ) -> None:
        self._link = Link(url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=grpc_port)
        self._limits = KnownLimits(self._info)
        self._remake: partial[ServerStore] | None = partial(
            ServerStore, url, api_key=api_key, timeout=timeout, patience=patience, grpc_port=grpc_port
        )

    @classmethod
    def from_client(cls, client: QdrantClient, *, patience: float = 30.0) -> ServerStore:
        """Make a store on an existing client, such as `QdrantClient(":memory:")`. It is not picklable."""
        store = cls.__new__(cls)
        store._remake = None
        store._limits = KnownLimits(store._info)
        store._link = Link("the given client", patience=patience, client=client)
        return store

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        if self._remake is None:
            raise TypeError("a store made from a client cannot be pickled: make it from a URL")
        return self._remake, ()

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection, or keep the existing one of that name and kind and merge its metadata.

        It gets what was set by hand on the collection `like`.
        """
        given = {key: value for key, value in metadata.items() if value is not None}
        if name not in self._names():
            vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
            words = {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if sparse else None
            try:
                self._ask(
                    lambda client: client.create_collection(
                        name, vectors_config=vectors, sparse_vectors_config=words, metadata=given
                    )
                )
            except StoreError:
                if name not in self._names():  # else it exists: created by another process, or the answer was lost
                    raise
        info = self._info(name)
        found = vector_params(name, info)
        if found.size != dimension or found.distance != models.Distance.COSINE:
            raise StoreMismatch(
                f"collection {name} holds {found.size}-d vectors ({found.distance.value}), not {dimension}-d (Cosine): "
                "run `rag-index rebuild`"
            )
        if sparse and not has_sparse(info):
            raise StoreMismatch(f"collection {name} has no sparse vectors: run `rag-index rebuild`")
        kinds = {"key": models.PayloadSchemaType.KEYWORD, "chunk": models.PayloadSchemaType.INTEGER}
        for field, kind in kinds.items():
            if f"{RESERVED_KEY}.{field}" not in info.payload_schema:
                self._index_payload(name, f"{RESERVED_KEY}.{field}", kind)
        if metadata and (info.config.metadata or {}) != given:
            self.set_metadata(name, metadata)
        if like is not None:
            self._carry_over(like, name)

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self._names()):
            try:
                found[name] = dict(self._info(name).config.metadata or {})
            except StoreError:
                if name in self._names():  # else it was dropped meanwhile
                    raise
        return found

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias."""
        return dict(self._info(name).config.metadata or {})

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata; a value of None removes the key."""
        self._ask(lambda client: client.update_collection(name, metadata=metadata))

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field and kind; None removes one."""
        kinds = {payload_path(field): payload_kind(field, kind) if kind else None for field, kind in fields.items()}
        existing = {unquoted(field): found.data_type for field, found in self._info(name).payload_schema.items()}
        for field, kind in kinds.items():
            before = existing.get(unquoted(field))
            if before is not None and before != kind:
                self._unindex_payload(name, field)
            if kind is not None and before != kind:
                self._index_payload(name, field, kind)

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it."""
        self._ask(lambda client: client.delete_collection(name))

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points; all are checked before the first is sent. Raises PointsRefused once all others are written."""
        if len(points):
            info = self._info(name)
            writes.upsert(
                self._link,
                name,
                vector_params(name, info).size,
                points,
                sparse=has_sparse(info),
                most=Limits.of(info).upsert,
            )

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each point. Raises StoreMismatch for points that do not exist."""
        writes.update_payloads(self._link, name, payloads)

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete points by id."""
        for batch in _batches(engine_ids(ids)):
            writes.delete(self._link, name, models.PointIdsList(points=list(batch)))

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on."""
        by_number: dict[int, list[str]] = defaultdict(list)
        for key, number in first.items():
            by_number[number].append(key)

        def delete(limits: Limits) -> None:
            for number, keys in by_number.items():
                for batch in _batches(keys, limits.values):
                    selector = models.FilterSelector(filter=key_filter(RESERVED_KEY, batch, number))
                    writes.delete(self._link, name, selector)

        self._limits.within(name, delete)

    def flush(self, name: str) -> None:
        """Do nothing: the server has completed writes in its log."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        if keys is None:
            return self._count(name, None)
        unique = list(dict.fromkeys(keys))

        def count(limits: Limits) -> int:
            return sum(self._count(name, key_filter(RESERVED_KEY, batch)) for batch in _batches(unique, limits.values))

        return self._limits.within(name, count)

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""
        return self._count_sparse(name) if self.has_sparse(name) else 0

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        check_ids(ids)
        if conditions:
            wanted: Any = payload_filter(conditions, ServerDialect())
            ask = partial(meeting, name=name, ids=ids, wanted=wanted, vectors=vectors)
            found = self._limits.within(name, lambda limits: self._ask(lambda client: ask(client, limits=limits)))
            return list(map(stored_point, found))
        return [point for batch in _batches(ids) for point in self._retrieve(name, list(batch), vectors)]

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, with one page in memory at a time."""
        wanted = cast("models.Filter | None", payload_filter(conditions, ServerDialect()))
        offset: models.ExtendedPointId | None = None
        while True:
            ask = partial(self._page, name, offset, page, vectors, wanted)
            records, offset = self._limits.within(name, ask)
            yield from map(stored_point, records)
            if offset is None:
                return

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
        query = unit_query(vector, None, name)
        query_filter = cast("models.Filter | None", payload_filter(conditions, ServerDialect()))

        def search(limits: Limits) -> list[models.ScoredPoint]:
            return self._ask(
                lambda client: nearest(
                    client, name, query, limit=limit, query_filter=query_filter, exact=exact, limits=limits
                )
            )

        return [stored_point(point, point.score) for point in self._limits.within(name, search)]

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
        if not sparse:
            return self.search(name, vector, limit=limit, conditions=conditions, exact=exact)
        search = HybridSearch(
            unit_query(vector, None, name),
            models.SparseVector(indices=list(sparse.indices), values=list(sparse.values)),
            cast("models.Filter | None", payload_filter(conditions, ServerDialect())),
            exact=exact,
            payload=payload,
        )

        def look_up(wanted: Sequence[LookUp], limits: Limits) -> list[list[StoredPoint]]:
            found = self._ask(lambda client: search.look_up(client, name, wanted, limits))
            return [[stored_point(point, point.score) for point in points] for points in found]

        return self._limits.within(name, lambda limits: hybrid_points(partial(look_up, limits=limits), limit))

    def optimize(self, name: str) -> None:
        """Wait until the server, by itself, has built the search index. Raises StoreUnavailable after 600 s."""
        deadline = self._link.clock() + INDEXING_WAIT
        while not self.indexed(name):
            if self._link.clock() > deadline:
                raise StoreUnavailable(
                    f"Qdrant is still building the search index of {name} after {INDEXING_WAIT:.0f} s"
                )
            self._link.sleep(POLL)

    def indexed(self, name: str) -> bool:
        """Return False if the server is still building, or a search scans more vectors than it should."""
        info = self._info(name)
        return is_indexed(name, info, self._count_sparse(name) if has_sparse(info) else 0)

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""
        answer = self._ask(lambda client: client.get_aliases())
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
        self._ask(lambda client: client.update_collection_aliases(changes))

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""
        return vector_params(name, self._info(name)).size

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""
        return has_sparse(self._info(name))

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._link.close()

    def _ask(self, ask: Callable[[QdrantClient], T]) -> T:
        """Make a request that writes no points, so that no point is at fault if it is refused."""
        try:
            return self._link.call(ask)
        except PointsRefused as exc:
            raise StoreRefused(str(exc)) from exc

    def _carry_over(self, old: str, name: str) -> None:
        """Give a collection what was set by hand on another one. One that cannot be read has nothing to give."""
        try:
            info = self._info(old)
        except StoreError as exc:
            logger.warning("settings of collection %s are not carried over to %s: %s", old, name, exc)
            return
        self._ask(lambda client: carry_over(client, info, name))

    def _names(self) -> set[str]:
        return {found.name for found in self._ask(lambda client: client.get_collections()).collections}

    def _info(self, name: str) -> models.CollectionInfo:
        return self._ask(lambda client: client.get_collection(name))

    def _index_payload(self, name: str, field: str, kind: models.PayloadSchemaType) -> None:
        self._ask(lambda client: client.create_payload_index(name, field, field_schema=kind, wait=True))

    def _unindex_payload(self, name: str, field: str) -> None:
        self._ask(lambda client: client.delete_payload_index(name, field, wait=True))

    def _count(self, name: str, count_filter: models.Filter | None) -> int:
        return self._ask(lambda client: client.count(name, count_filter=count_filter, exact=True)).count

    def _count_sparse(self, name: str) -> int:
        condition: Any = models.HasVectorCondition(has_vector=SPARSE)
        return self._count(name, models.Filter(must=[condition]))

    def _retrieve(self, name: str, ids: list[str], vectors: bool) -> list[StoredPoint]:
        records = self._ask(lambda client: client.retrieve(name, ids, with_payload=True, with_vectors=vectors))
        return [stored_point(record) for record in records]

    def _page(
        self,
        name: str,
        offset: models.ExtendedPointId | None,
        page: int,
        vectors: bool,
        wanted: models.Filter | None,
        limits: Limits,
    ) -> tuple[list[models.Record], models.ExtendedPointId | None]:
        limit = min(page, limits.page)
        options: dict[str, Any] = {"scroll_filter": wanted, "with_payload": True, "with_vectors": vectors}
        return cast(
            "tuple[list[models.Record], models.ExtendedPointId | None]",
            self._ask(lambda client: client.scroll(name, offset=offset, limit=limit, **options)),
        )


def _batches(items: Sequence[T], most: int = BATCH_IDS) -> Iterator[Sequence[T]]:
    size = min(most, BATCH_IDS)
    return (items[start : start + size] for start in range(0, len(items), size))
