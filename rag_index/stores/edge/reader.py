"""The embedded store for a process that only searches: any number of them read while one process writes.

A reader has a view of each collection that it uses, and never a lock on the store. When a writer is done, the catalog
names another folder; the next search then loads a view of that one, and searches go on in the old one meanwhile.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rag_index.database.files import private_folder
from rag_index.errors import StoreError
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.folder import folder_errors
from rag_index.stores.edge.processes import SearchProcesses
from rag_index.stores.edge.reading import CollectionReader, UnwrittenCollection
from rag_index.stores.edge.views import View, ViewLoader, finish_for_killed_writer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import StoredPoint
    from rag_index.documents.vectors import SparseVector
    from rag_index.stores import Condition

FRESH_SECONDS = 2.0
"""How long a search waits for the newest state of a collection before it goes to the one that is loaded."""
LOADERS = 8


class EdgeReader:
    """The reading part of the Store protocol, for a process that searches while another one may write.

    If a process writes a collection in place, and does not let go of it within `wait` seconds (10 at least), a search
    raises StoreBusy. With a `timeout`, each call is made in another process, and raises SearchTimedOut after so many
    seconds; without one, a call may take as long as it likes, and stops all of this process. Safe to use from several
    threads.
    """

    embedded = True

    def __init__(self, path: Path, *, wait: float = 0.0, timeout: float | None = None) -> None:
        self._path = path
        with folder_errors(path):
            private_folder(path)
        self._catalog = Catalog(path / "catalog.json")
        if any(entry.writing for entry in self._catalog.entries().values()):
            finish_for_killed_writer(path)
        self._processes = None if timeout is None else SearchProcesses(timeout)
        self._loader = ViewLoader(path, wait=wait, make=self._processes.reader if self._processes else CollectionReader)
        self._threads = ThreadPoolExecutor(LOADERS, "rag-index-view")
        self._mutex = threading.Lock()
        self._views: dict[str, View] = {}
        self._loading: dict[str, Future[None]] = {}
        self._closed = False

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""
        return self._fresh().collections()

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection, None if there is none of this name."""
        return self._fresh().find(name)

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias."""
        return dict(self._fresh().entry(name).metadata)

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""
        return self._fresh().aliases()

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""
        return self._fresh().entry(name).dimension

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""
        return self._fresh().entry(name).sparse

    def prepare(self, name: str) -> None:
        """Load the newest state of a collection or alias, once a process that writes it lets go of it."""
        with self._lend(name):
            pass

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Return the exact number of points, of these document keys if given."""
        with self._lend(name) as collection:
            return collection.count(keys)

    def count_sparse(self, name: str) -> int:
        """Return the exact number of points that have a sparse vector."""
        with self._lend(name) as collection:
            return collection.count_sparse()

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Sequence[Condition] = ()
    ) -> list[StoredPoint]:
        """Return the points with these ids that exist and meet the conditions."""
        with self._lend(name) as collection:
            return collection.retrieve(ids, vectors=vectors, conditions=conditions)

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Sequence[Condition] = ()
    ) -> Iterator[StoredPoint]:
        """Return all points that meet the conditions, as they were when the first was read."""
        with self._lend(name) as collection:
            yield from collection.scroll(vectors=vectors, page=page, conditions=conditions)

    def search(
        self,
        name: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[StoredPoint]:
        """Return the nearest points, best first."""
        with self._lend(name) as collection:
            return collection.search(vector, limit=limit, conditions=conditions, exact=exact)

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
        with self._lend(name) as collection:
            return collection.search_hybrid(
                vector, sparse, limit=limit, conditions=conditions, exact=exact, payload=payload
            )

    def indexed(self, name: str) -> bool:
        """Return False if a search scans more vectors than it should, so that `optimize` helps."""
        with self._lend(name) as collection:
            return collection.indexed()

    def close(self) -> None:
        """Close and remove all views. A second call does nothing."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            views = list(self._views.values())
            self._views.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._processes:
            self._processes.close()
        for view in views:
            view.close()
        self._loader.close()

    def _fresh(self) -> Catalog:
        """Return the catalog as it is on disk now."""
        self._check_open()
        self._catalog.refresh()
        return self._catalog

    @contextmanager
    def _lend(self, name: str) -> Iterator[CollectionReader]:
        """Lend the view of a collection or alias for the time of the block: the newest, if it is there in time."""
        resolved = self._fresh().resolve(name)
        if (entry := self._catalog.entry(resolved)).unwritten:
            yield UnwrittenCollection(resolved, self._path, entry.dimension, sparse=entry.sparse)
            return
        with self._mutex:
            view = self._views.get(resolved)
            entry = self._catalog.entry(resolved)
            loading = None if view is not None and view.folder == entry.folder else self._start_loading(resolved)
            self._retire_dropped()
        if loading is not None:
            older = view is not None and view.made == entry.made
            with suppress(TimeoutError, CancelledError):
                loading.result(FRESH_SECONDS if older else None)
        with self._mutex:
            self._check_open()
            lent = self._views.get(resolved)
            if lent is None:
                raise StoreError(f"collection {resolved} was dropped")
            lent.users += 1
        try:
            yield lent.collection
        finally:
            with self._mutex:
                lent.users -= 1
                done = lent.retired and not lent.users
            if done:
                lent.close()

    def _start_loading(self, name: str) -> Future[None]:
        """Return the loading of a view that is under way, or start it."""
        self._check_open()
        if name not in self._loading:
            self._loading[name] = self._threads.submit(self._load, name)
        return self._loading[name]

    def _load(self, name: str) -> None:
        view = None
        try:
            view = self._loader.load(name)
        finally:
            with self._mutex:
                self._loading.pop(name, None)
                if view is not None and not self._closed:
                    old, self._views[name], view = self._views.get(name), view, None
                    self._retire(old)
            if view is not None:
                view.close()

    def _retire_dropped(self) -> None:
        """Retire the views of collections that the catalog no longer has."""
        for name in [name for name in self._views if name not in self._catalog]:
            self._retire(self._views.pop(name))

    def _retire(self, view: View | None) -> None:
        """Close a view that is no longer used, once nobody uses it."""
        if view is not None:
            view.retired = True
            if not view.users:
                self._threads.submit(view.close)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store at {self._path} is closed")
