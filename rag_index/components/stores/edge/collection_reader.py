"""What can be read of the embedded store, and of one collection: a shard folder of qdrant-edge, opened when needed.
Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of 768 dimensions). So
work is split into short calls, made one at a time under the collection's own lock, and other threads run in between.

Nothing interrupts a call: a filter on fields without a payload index may take seconds, a disk that does not answer for
ever. So a search calls in a child process, which is ended after the time limit. While one takes long, another process
answers the others."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

import numpy as np
import qdrant_edge as e

from rag_index.components.stores import SPARSE
from rag_index.components.stores.edge.folder import Catalog, engine_errors, require_space
from rag_index.components.stores.protocol import StoreReader
from rag_index.components.stores.reads import SEARCH_EF, LookUp, PointReads
from rag_index.core.documents.vectors import SparseVector
from rag_index.errors import RagIndexError, SearchTimedOut, StoreError

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
    if isinstance(one.vector, SparseVector):
        words = e.SparseVector(list(one.vector.indices), list(one.vector.values))
        query, params = e.Query.Nearest(words, using=SPARSE), e.SearchParams(idf=e.IdfParams(one.corpus))
    else:
        params = e.SearchParams(hnsw_ef=SEARCH_EF, exact=one.exact or bool(one.ids))
        query = e.Query.Nearest(one.vector)
    return e.QueryRequest(
        query=query,
        limit=one.limit,
        filter=engine_filter({"must": [{"has_id": one.ids}]}) if one.ids else one.which,
        params=params,
        with_payload=one.payload,
        with_vector=[SPARSE] if one.words else None,
    )


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
        return super().search(query if self.sparse else replace(query, sparse=None))

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


MAX_PROCESSES = 4
SLOW_SEARCH_SECONDS, SLOW_LOAD_SECONDS = 0.25, 3.0
"""After this time of a call, or of loading a shard for it, the calls that wait get another process."""
LOAD_SECONDS = 600.0
"""How long a shard may take to be loaded, before which nothing can be searched in it."""
ENDING_SECONDS = 2.0
"""A process whose parent has died ends itself so long after a time limit."""
SEARCH_COMMAND = f"import sys; sys.path[:] = sys.argv[3:]; from {__name__} import main; main()"


class SearchProcesses:
    """The processes of one reader, whose calls may take `timeout` seconds each. Safe to use from several threads."""

    def __init__(self, timeout: float) -> None:
        self._timeout = min(timeout, LOAD_SECONDS)
        self._changed = threading.Condition()
        self._processes = [_Process(self._timeout)]
        self._idle = list(self._processes)
        self._closed = False

    def reader(self, name: str, folder: Path, dimension: int, *, sparse: bool = False) -> CollectionReader:
        """Return what reads a shard in these processes. Its calls raise SearchTimedOut, too."""
        return cast("CollectionReader", _RemoteReader(self, (name, folder, dimension, sparse)))

    def call(self, shard: _Shard, method: str, *args: Any, **options: Any) -> Any:
        """Return what a method of the shard's CollectionReader returns, and raise what it raises. Raises SearchTimedOut
        if the call takes too long, or the calls before it, and StoreError if the process dies."""
        process = self._take()
        try:
            return process.call(shard, method, args, options)
        except RagIndexError:
            raise
        except BaseException as exc:
            code = process.kill()  # nobody may get the answer to another's question
            if self._closed:
                raise StoreError("the store is closed") from exc
            if isinstance(exc, TimeoutError):
                raise SearchTimedOut(f"timed out after {self._timeout:g} s") from exc
            if isinstance(exc, EOFError | OSError):
                message = f"the process that searches {shard[0]} ended (exit code {code})"
                raise StoreError(f"{message}: check free memory and disk space") from exc
            raise
        finally:
            with self._changed:
                self._idle.append(process)
                self._changed.notify()

    def close(self) -> None:
        """End the processes, whatever they are doing. Calls under way raise StoreError."""
        with self._changed:
            self._closed = True
            for process in self._processes:
                process.kill()
            self._changed.notify_all()

    def _take(self) -> _Process:
        """Return a process that does nothing else; a new one, if each of them has been busy for some time."""
        deadline = time.monotonic() + self._timeout
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                while self._idle:
                    process = self._idle.pop()
                    if process.alive:
                        process.slow_at = now + SLOW_SEARCH_SECONDS
                        return process
                    self._processes.remove(process)  # killed from outside, perhaps for memory
                due = max((one.slow_at for one in self._processes), default=now)
                if now >= deadline:
                    raise SearchTimedOut(f"timed out after {self._timeout:g} s behind searches that take long")
                if now >= due and len(self._processes) < MAX_PROCESSES:
                    self._processes.append(_Process(self._timeout))
                    self._idle.append(self._processes[-1])
                else:
                    self._changed.wait(min(due if due > now else deadline, deadline) - now)
        raise StoreError("the store is closed")


_Shard = tuple[str, Path, int, bool]
"""Name, folder, dimension, and whether there are sparse vectors."""


class _RemoteReader:
    def __init__(self, processes: SearchProcesses, shard: _Shard) -> None:
        self._processes, self._shard = processes, shard

    def __getattr__(self, method: str) -> Any:
        return partial(self._processes.call, self._shard, method)

    def close(self) -> None:
        """Do nothing: each process closes, before its next call, the shards whose folders are gone."""


class _Process:
    """A child process, used by one thread at a time. `slow_at` is when its call begins to take long."""

    def __init__(self, timeout: float) -> None:
        self.slow_at = time.monotonic()
        self._timeout = timeout
        self._loaded: set[Path] = set()
        self._connection, theirs = Pipe()
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-c", SEARCH_COMMAND, str(theirs.fileno()), str(timeout), *sys.path],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()], process_group=0,  # Ctrl-C ends the parent, and the parent ends this
        )  # fmt: skip
        theirs.close()

    @property
    def alive(self) -> bool:
        return self._child.poll() is None

    def call(self, shard: _Shard, method: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if shard[1] not in self._loaded:
            self.slow_at = time.monotonic() + SLOW_LOAD_SECONDS
            self._ask((shard, "load", (), {}), LOAD_SECONDS)
            self._loaded = {shard[1], *filter(Path.exists, self._loaded)}
            self.slow_at = time.monotonic() + SLOW_SEARCH_SECONDS
        return self._ask((shard, method, args, options), self._timeout) if method != "load" else None

    def kill(self) -> int | None:
        """End the process, which writes nothing that is needed, and return its exit code."""
        self._child.kill()
        with suppress(subprocess.TimeoutExpired):  # a disk that does not answer holds it back
            self._child.wait(ENDING_SECONDS)
        return self._child.returncode

    def _ask(self, request: tuple[Any, ...], seconds: float) -> Any:
        self._connection.send(request)
        if not self._connection.poll(seconds):
            raise TimeoutError
        answer = self._connection.recv()
        if isinstance(answer, RagIndexError):
            raise answer
        return answer


def main() -> None:
    """Answer calls until the parent closes its end: the main function of the child."""
    connection, timeout = Connection(int(sys.argv[1])), float(sys.argv[2])
    readers: dict[Path, CollectionReader] = {}
    with suppress(EOFError, ConnectionError):
        while True:
            (name, folder, dimension, sparse), method, args, options = connection.recv()
            seconds = LOAD_SECONDS if method == "load" else timeout
            signal.setitimer(signal.ITIMER_REAL, seconds + ENDING_SECONDS)  # SIGALRM ends it if the parent has died
            for gone in [one for one in readers if not one.exists()]:
                with suppress(StoreError):
                    readers.pop(gone).close()
            reader = readers.setdefault(folder, CollectionReader(name, folder, dimension, sparse=sparse))
            try:
                found = getattr(reader, method)(*args, **options)
                answer = list(found) if isinstance(found, Iterator) else found
            except RagIndexError as error:
                answer = error
            signal.setitimer(signal.ITIMER_REAL, 0)
            connection.send(answer)
