"""What can be read of the embedded store, and of the points of one collection."""

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
from rag_index.components.stores.edge.shard import Shard
from rag_index.components.stores.protocol import StoreReader
from rag_index.components.stores.queries import SPARSE
from rag_index.components.stores.reads import SEARCH_EF, LookUp, PointReader
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.points import Json
    from rag_index.components.stores.queries import VectorQuery
    from rag_index.core.documents.batches import CommitMark, StoredPoint

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=Shard)
OPERATION_POINTS = 500
"""Points per call of the engine, which bounds how long other threads stand still."""
MAX_SCANNED_KB = 10_000
"""Vectors up to this size are scanned without a search index (the engine's own threshold)."""


def engine_filter(given: Json) -> e.Filter:
    """Return a filter as the engine takes it."""
    found: dict[str, Any] = {
        kind: [*map(_engine_condition, some)] for kind, some in given.items() if some
    }
    return e.Filter(**found)


def _engine_condition(given: Json) -> Any:
    match given:
        case {"key": field, "match": {"any": values}}:
            return e.FieldCondition(field, match=e.MatchAny(values))
        case {"key": field, "match": {"value": truth}}:
            # The binding treats a Python bool as an integer, and a numpy bool as a boolean.
            return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(truth))))
        case {"key": field, "range": bounds}:
            times = {
                key: bound.isoformat()
                for key, bound in bounds.items()
                if isinstance(bound, datetime)
            }
            return e.FieldCondition(
                field, range=e.RangeDateTime(**times) if times else e.RangeFloat(**bounds)
            )
        case {"is_empty": {"key": field}}:
            return e.IsEmptyCondition(field)
        case {"has_id": ids}:
            return e.HasIdCondition(set(ids))
        case {"has_vector": name}:
            return e.HasVectorCondition(name)
        case _:
            return engine_filter(given)


def _query_request(one: LookUp) -> e.QueryRequest:
    vectors = [SPARSE] if one.words else None
    among = [e.Prefetch(**_query(some)) for some in one.among]
    return e.QueryRequest(
        **_query(one), prefetches=among or None, with_payload=one.payload, with_vector=vectors
    )


def _query(one: LookUp) -> dict[str, Any]:
    """Return what a request and a prefetch have in common."""
    if isinstance(one.vector, SparseVector):
        words = e.SparseVector(list(one.vector.indices), list(one.vector.values))
        query, params = (
            e.Query.Nearest(words, using=SPARSE),
            e.SearchParams(idf=e.IdfParams(one.corpus)),
        )
    else:
        query, params = (
            e.Query.Nearest(one.vector),
            e.SearchParams(hnsw_ef=SEARCH_EF, exact=one.exact or bool(one.among)),
        )
    return {"query": query, "limit": one.limit, "filter": one.which, "params": params}


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
        return dict(self._catalog().entry(self.name).metadata)

    def dimension(self) -> int:
        return self._catalog().entry(self.name).dimension

    def commit_mark(self) -> CommitMark:
        return self._catalog().commit_mark(self.name)

    def prepare(self) -> None:
        self._shard().load()

    def seen_commits(self) -> int | None:
        return self._shard().seen_commits

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        if not self._shard().sparse:
            query = replace(query, sparse=None, names=())
        return super().search(query)

    def indexed(self) -> bool:
        shard = self._shard()
        info = shard.ask(lambda engine: engine.info())
        sparse = self._count(e.Filter(must=[e.HasVectorCondition(SPARSE)])) if shard.sparse else 0
        indexed = info.indexed_vectors_count - sparse  # sparse vectors are always indexed
        unindexed = max(0, info.points_count - indexed)
        return bool(unindexed * shard.dimension * 4 <= MAX_SCANNED_KB * 1024)

    def _shard(self) -> S:
        if self._opened is None:
            self._opened = self._open_shard(self.name)
        return self._opened

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
        requests = e.QueryBatchRequest([*map(_query_request, wanted)])
        return self._shard().ask(lambda engine: engine.query_batch(requests))

    def _facet(self, path: str, limit: int, which: e.Filter | None) -> Sequence[Any]:
        request = e.FacetRequest(path, limit=limit, filter=which)
        return [*self._shard().ask(lambda engine: engine.facet(request))]

    def _points_with_words(self) -> int | None:
        shard = self._shard()
        return shard.ask(lambda engine: engine.info().points_count) if shard.sparse else None


def of_catalog(method: Callable[Concatenate[Catalog, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return the method of a store that calls this method of its catalog, as it is on disk now."""

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
        """Return the catalog as it is on disk now. Raises StoreError if the store is closed."""
        if self._closed.is_set():
            raise StoreError(f"the store at {self._path} is closed")
        self._catalog.refresh()
        return self._catalog

    collections = of_catalog(Catalog.collections)
    names = of_catalog(Catalog.names)
    find = of_catalog(Catalog.find)
    aliases = of_catalog(Catalog.aliases)
