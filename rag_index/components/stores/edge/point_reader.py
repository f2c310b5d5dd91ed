"""Reading the embedded store, and the points of one collection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, cast

import numpy as np
import qdrant_edge as e

from rag_index.components.stores.edge.folder import Catalog
from rag_index.components.stores.edge.shard import ShardFolder
from rag_index.components.stores.protocol import StoreReader
from rag_index.components.stores.queries import SPARSE
from rag_index.components.stores.reads import SEARCH_EF, LookUp, PointReader
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.points import Json
    from rag_index.components.stores.queries import VectorQuery
    from rag_index.core.documents.batches import CommitMark

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=ShardFolder)
OPERATION_POINTS = 500
"""Points per call of the engine. It bounds how long other threads wait for the interpreter."""
MAX_SCANNED_KB = 10_000
"""Kilobytes of vectors that are scanned without a search index: the engine's own threshold."""


def engine_filter(given: Json) -> e.Filter:
    """Return a filter as the engine takes it."""
    found: dict[str, Any] = {}
    for kind, conditions in given.items():
        if conditions:
            found[kind] = list(map(_engine_condition, conditions))
    return e.Filter(**found)


def _engine_condition(given: Json) -> Any:
    match given:
        case {"key": field, "match": {"any": values}}:
            return e.FieldCondition(field, match=e.MatchAny(values))
        case {"key": field, "match": {"value": truth}}:
            # The binding treats a Python bool as an integer, and a numpy bool as a boolean.
            return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(truth))))
        case {"key": field, "range": bounds}:
            # All bounds are times, or all are numbers.
            times = {
                k: bound.isoformat() for k, bound in bounds.items() if isinstance(bound, datetime)
            }
            if times:
                return e.FieldCondition(field, range=e.RangeDateTime(**times))
            return e.FieldCondition(field, range=e.RangeFloat(**bounds))
        case {"is_empty": {"key": field}}:
            return e.IsEmptyCondition(field)
        case {"has_id": ids}:
            return e.HasIdCondition(set(ids))
        case {"has_vector": name}:
            return e.HasVectorCondition(name)
        case _:
            return engine_filter(given)


def _query_request(look_up: LookUp) -> e.QueryRequest:
    among = [e.Prefetch(**_query(first)) for first in look_up.among]
    return e.QueryRequest(
        **_query(look_up),
        prefetches=among or None,
        with_payload=look_up.payload,
        with_vector=[SPARSE] if look_up.words else None,
    )


def _query(look_up: LookUp) -> dict[str, Any]:
    """Return the arguments that a request and a prefetch have in common."""
    found: dict[str, Any] = {"limit": look_up.limit, "filter": look_up.which}
    vector = look_up.vector
    if isinstance(vector, SparseVector):
        words = e.SparseVector(list(vector.indices), list(vector.values))
        found["query"] = e.Query.Nearest(words, using=SPARSE)
        found["params"] = e.SearchParams(idf=e.IdfParams(look_up.corpus))
    else:
        # The points of a prefetch are few: each is compared.
        is_exact = look_up.exact or bool(look_up.among)
        found["query"] = e.Query.Nearest(vector)
        found["params"] = e.SearchParams(hnsw_ef=SEARCH_EF, exact=is_exact)
    return found


class EdgePointReader(PointReader, Generic[S]):
    """The points of one collection in a folder of this machine.

    Its shard is opened with the first call that needs it. Later calls use the same one: they raise
    StoreError if it was closed or dropped meanwhile, and see nothing of a newer view or collection
    that has taken its place.
    """

    ids_at_once = OPERATION_POINTS
    keys_at_once = 10_000

    def __init__(
        self, name: str, catalog: Callable[[], Catalog], open_shard: Callable[[str], S]
    ) -> None:
        """`catalog` returns the catalog as it is on disk now; `open_shard` opens the shard of a
        collection or alias."""
        super().__init__(name)
        self._catalog = catalog
        self._open_shard = open_shard
        self._opened: S | None = None

    def metadata(self) -> dict[str, Any]:
        entry = self._catalog().entry(self.name)
        return dict(entry.metadata)

    def dimension(self) -> int:
        return self._catalog().entry(self.name).dimension

    def commit_mark(self) -> CommitMark:
        return self._catalog().commit_mark(self.name)

    def prepare(self) -> None:
        self._shard().load()

    def seen_commits(self) -> int | None:
        return self._shard().seen_commits

    def indexed(self) -> bool:
        shard = self._shard()
        info = shard.ask(lambda engine: engine.info())
        # Sparse vectors are always indexed, and the engine counts them too.
        sparse = 0
        if shard.sparse:
            has_words = e.HasVectorCondition(SPARSE)
            sparse = self._count(e.Filter(must=[has_words]))
        indexed = info.indexed_vectors_count - sparse
        unindexed = max(0, info.points_count - indexed)
        scanned_bytes = unindexed * shard.dimension * 4
        return bool(scanned_bytes <= MAX_SCANNED_KB * 1024)

    def _shard(self) -> S:
        if self._opened is None:
            self._opened = self._open_shard(self.name)
        return self._opened

    def _look_ups(self, query: VectorQuery) -> list[LookUp]:
        # The engine refuses words for a collection without sparse vectors.
        if not self._shard().sparse:
            query = replace(query, sparse=None, names=())
        return super()._look_ups(query)

    def _query_dimension(self) -> int | None:
        return self._shard().dimension

    def _filter(self, wanted: Json | None) -> e.Filter | None:
        return engine_filter(wanted) if wanted else None

    def _count(self, which: e.Filter | None) -> int:
        request = e.CountRequest(exact=True, filter=which)
        return int(self._shard().ask(lambda engine: engine.count(request)))

    def _get(self, ids: Sequence[str], *, vectors: bool) -> Sequence[Any]:
        return self._shard().ask(lambda engine: engine.retrieve(list(ids), True, vectors))

    def _page(
        self, which: Any, *, limit: int, offset: Any = None, vectors: bool
    ) -> tuple[Sequence[Any], Any]:
        request = e.ScrollRequest(
            offset=offset, limit=limit, filter=which, with_payload=True, with_vector=vectors
        )
        return self._shard().ask(lambda engine: engine.scroll(request))

    def _look_up(self, wanted: Sequence[LookUp]) -> Sequence[Sequence[Any]]:
        requests = list(map(_query_request, wanted))
        batch = e.QueryBatchRequest(requests)
        return self._shard().ask(lambda engine: engine.query_batch(batch))

    def _facet(self, path: str, limit: int, which: e.Filter | None) -> Sequence[Any]:
        request = e.FacetRequest(path, limit=limit, filter=which)
        return [*self._shard().ask(lambda engine: engine.facet(request))]

    def _points_with_words(self) -> int | None:
        shard = self._shard()
        if not shard.sparse:
            return None
        return shard.ask(lambda engine: engine.info().points_count)


def of_catalog(method: Callable[Concatenate[Catalog, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return the method of a store that calls this method of its catalog, after a refresh from
    disk."""

    def call(store: EdgeReads, /, *args: P.args, **named: P.kwargs) -> R:
        return method(store.known(), *args, **named)

    return call


class EdgeReads(StoreReader):
    """The reading part of the Store protocol. Subclasses open shards."""

    embedded = True

    def __init__(self, path: Path) -> None:
        self._path, self._catalog = path, Catalog(path)
        self._closed = threading.Event()

    def known(self) -> Catalog:
        """Return the catalog, refreshed from disk. Raises StoreError if the store is closed."""
        if self._closed.is_set():
            raise StoreError(f"the store at {self._path} is closed")
        self._catalog.refresh()
        return self._catalog

    collections = of_catalog(Catalog.collections)
    names = of_catalog(Catalog.names)
    find = of_catalog(Catalog.find)
    aliases = of_catalog(Catalog.aliases)
