"""What can be read of the embedded store, and of one collection: a shard folder of qdrant-edge, opened when needed.
Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of 768 dimensions). So
work is split into short calls, made one at a time under the collection's own lock, and other threads run in between.

Nothing interrupts a call: a filter on fields without a payload index may take seconds, and this process stands still
meanwhile. What bounds that is the size of the collection: a server is for larger ones."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import qdrant_edge as e

from rag_index.components.stores.edge.folder import Catalog, engine_errors, require_space
from rag_index.components.stores.protocol import StoreReader
from rag_index.components.stores.queries import SPARSE
from rag_index.components.stores.reads import SEARCH_EF, LookUp, PointReads
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.points import Json
    from rag_index.components.stores.protocol import VectorQuery
    from rag_index.core.documents.batches import StoredPoint

P = ParamSpec("P")
R = TypeVar("R")
OPERATION_POINTS = 500
"""Points per call of the engine, which bounds how long other threads stand still."""
LOAD_BYTES = 32 << 20
"""What must be free where a shard is loaded: the engine writes some 10 MB then, and a full disk kills it (SIGBUS)."""
MAX_SCANNED_KB = 10_000
"""Vectors up to this size are scanned without a search index (the engine's own threshold)."""


def engine_filter(given: Json) -> e.Filter:
    """Return a filter as the engine takes it."""
    found: dict[str, Any] = {kind: [*map(_engine_condition, some)] for kind, some in given.items() if some}
    return e.Filter(**found)


def _engine_condition(given: Json) -> Any:
    match given:
        case {"key": field, "match": {"any": values}}:
            return e.FieldCondition(field, match=e.MatchAny(values))
        case {"key": field, "match": {"value": truth}}:
            # The binding treats a Python bool as an integer, and a numpy bool as a boolean.
            return e.FieldCondition(field, match=e.MatchValue(cast("bool", np.bool_(truth))))
        case {"key": field, "range": bounds}:
            times = {key: bound.isoformat() for key, bound in bounds.items() if isinstance(bound, datetime)}
            return e.FieldCondition(field, range=e.RangeDateTime(**times) if times else e.RangeFloat(**bounds))
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
    return e.QueryRequest(**_query(one), prefetches=among or None, with_payload=one.payload, with_vector=vectors)


def _query(one: LookUp) -> dict[str, Any]:
    """Return what a request and a prefetch have in common."""
    if isinstance(one.vector, SparseVector):
        words = e.SparseVector(list(one.vector.indices), list(one.vector.values))
        query, params = e.Query.Nearest(words, using=SPARSE), e.SearchParams(idf=e.IdfParams(one.corpus))
    else:
        query, params = (
            e.Query.Nearest(one.vector),
            e.SearchParams(hnsw_ef=SEARCH_EF, exact=one.exact or bool(one.among)),
        )
    return {"query": query, "limit": one.limit, "filter": one.which, "params": params}


class CollectionReader(PointReads):
    """The points of one shard folder. Safe to use from several threads."""

    ids_at_once = OPERATION_POINTS
    keys_at_once = 10_000

    def __init__(self, name: str, folder: Path, dimension: int, *, sparse: bool = False) -> None:
        super().__init__(name, dimension)
        self.dimension = dimension
        self.sparse = sparse
        self._folder = folder
        self._lock = threading.Lock()
        self._shard: e.EdgeShard | None = None
        self._closed = False

    def load(self) -> None:
        with self._open():
            pass

    def search(self, query: VectorQuery) -> list[StoredPoint]:
        return super().search(query if self.sparse else replace(query, sparse=None, names=()))

    def _filter(self, wanted: Json | None) -> e.Filter | None:
        return engine_filter(wanted) if wanted else None

    def _count(self, which: e.Filter | None) -> int:
        return int(self._ask(lambda shard: shard.count(e.CountRequest(exact=True, filter=which))))

    def _get(self, ids: Sequence[str], *, vectors: bool) -> Sequence[Any]:
        return self._ask(lambda shard: shard.retrieve(list(ids), True, vectors))

    def _page(self, which: Any, *, limit: int, offset: Any = None, vectors: bool) -> tuple[Sequence[Any], Any]:
        request = e.ScrollRequest(offset=offset, limit=limit, filter=which, with_payload=True, with_vector=vectors)
        return self._ask(lambda shard: shard.scroll(request))

    def _look_up(self, wanted: Sequence[LookUp]) -> Sequence[Sequence[Any]]:
        requests = e.QueryBatchRequest([*map(_query_request, wanted)])
        return self._ask(lambda shard: shard.query_batch(requests))

    def _facet(self, path: str, limit: int, which: e.Filter | None) -> Sequence[Any]:
        return [*self._ask(lambda shard: shard.facet(e.FacetRequest(path, limit=limit, filter=which)))]

    def _points_with_words(self) -> int | None:
        return self._ask(lambda shard: shard.info().points_count) if self.sparse else None

    def indexed(self) -> bool:
        info = self._ask(lambda shard: shard.info())
        sparse = self._count(e.Filter(must=[e.HasVectorCondition(SPARSE)])) if self.sparse else 0
        indexed = info.indexed_vectors_count - sparse  # sparse vectors are always indexed
        unindexed = max(0, info.points_count - indexed)
        return bool(unindexed * self.dimension * 4 <= MAX_SCANNED_KB * 1024)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._close_shard()

    @contextmanager
    def _open(self) -> Iterator[e.EdgeShard]:
        with self._lock, engine_errors(self.name, self._folder):
            yield self._loaded()

    def _ask(self, ask: Callable[[e.EdgeShard], R]) -> R:
        with self._open() as shard:
            return ask(shard)

    def _loaded(self) -> e.EdgeShard:
        self._check_open()
        if self._shard is None:
            require_space(self._folder.parent, LOAD_BYTES)
            self._shard = e.EdgeShard.load(str(self._folder))
        return self._shard

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"collection {self.name} was closed or dropped")

    def _close_shard(self) -> None:
        shard, self._shard = self._shard, None
        if shard is not None:
            with engine_errors(self.name, self._folder):
                shard.flush()
                shard.close()


def of_catalog(method: Callable[Concatenate[Catalog, P], R]) -> Callable[Concatenate[Any, P], R]:
    """Return the method of a store that calls this method of its catalog, as it is on disk now."""

    def call(store: EdgeReads, /, *args: P.args, **named: P.kwargs) -> R:
        return method(store.known(), *args, **named)

    return call


class EdgeReads(StoreReader):
    """The reading part of the Store protocol. Subclasses open collections."""

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
    commit_mark = of_catalog(Catalog.commit_mark)

    def metadata(self, name: str) -> dict[str, Any]:
        return dict(self.known().entry(name).metadata)

    def dimension(self, name: str) -> int:
        return self.known().entry(name).dimension
