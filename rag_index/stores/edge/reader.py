"""The embedded store for a process that only searches: any number of them read while one process writes.

A reader has a view of each collection that it uses, and never a lock on the store. When a writer is done, the catalog
names another folder; the next search then loads a view of that one, and searches go on in the old one meanwhile. Where
a collection is written in place, the reader asks the writer to let go of it (`WriteClaim`).
"""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.database.files import private_folder
from rag_index.errors import StoreBusy, StoreError
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.collection_reader import CollectionReader, EdgeReads, UnwrittenCollection
from rag_index.stores.edge.folder import FileLock, folder_errors, holder
from rag_index.stores.edge.processes import SearchProcesses
from rag_index.stores.edge.shard_files import READERS, entering, link_shard, read_mark, remove_dead_readers
from rag_index.stores.edge.store import EdgeStore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path


POLL = 0.02
ASK_SECONDS = 10.0
"""How long a writer may take to let go of a collection that it writes in place: a batch and a flush, at most."""
FRESH_SECONDS = 2.0
"""How long a search waits for the newest state of a collection before it goes to the one that is loaded."""
LOADERS = 8


@dataclass(slots=True)
class View:
    """A collection as it was when a reader linked it, and how many calls use it now."""

    folder: str
    made: str
    path: Path
    collection: CollectionReader
    commits: int
    """The number of the last commit that it has."""
    users: int = 0
    retired: bool = False
    """Whether a newer view has taken its place, so that its last user closes it."""

    def close(self) -> None:
        """Close the shard and remove the view."""
        with suppress(StoreError):
            self.collection.close()
        shutil.rmtree(self.path, ignore_errors=True)


class Views:
    """The views of one reader, in a folder that is made when it first links something.

    `make` makes the reader of a view's shard, as CollectionReader does. Safe to use from several threads, one for each
    collection.
    """

    def __init__(self, path: Path, *, wait: float, make: Callable[..., CollectionReader]) -> None:
        self._path, self._wait, self._make = path, max(wait, ASK_SECONDS), make
        self._folder = path / READERS / uuid.uuid4().hex
        self._lock = FileLock(self._folder / ".lock")
        self._entering = threading.Lock()
        self._closed = threading.Event()

    def load(self, name: str) -> View:
        """Return a view of the newest state of a collection that the catalog names, with its shard loaded.

        If a process writes the collection in place, that process is asked to let go of it. Raises StoreBusy if it does
        not, and StoreError.
        """
        self._enter()
        catalog = Catalog(self._path / "catalog.json")
        deadline = time.monotonic() + self._wait
        wanted = self._folder / "wanted" / name
        try:
            while not self._closed.is_set():
                catalog.refresh()
                if catalog.entry(name).in_place:
                    self._ask_writer(catalog, name, wanted)
                elif view := self._link(catalog, name):
                    return view
                if time.monotonic() >= deadline:
                    raise StoreBusy(
                        f"collection {name} of the store at {self._path} is being written by {holder(self._path)}, "
                        "which does not let go of it: wait for it (--wait SECONDS) or use a Qdrant server"
                    )
                self._closed.wait(POLL)
        finally:
            with suppress(OSError):
                wanted.unlink(missing_ok=True)
        raise StoreError(f"the store at {self._path} is closed")

    def close(self) -> None:
        """Stop loading, remove all views and leave. Their collections must be closed. A second call does nothing."""
        self._closed.set()
        if self._lock.held:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._lock.release()

    def _enter(self) -> None:
        """Make the folder, once, and remove what dead readers left."""
        with self._entering:
            if self._lock.held:
                return
            with folder_errors(self._path):
                private_folder(self._folder.parent)
            remove_dead_readers(self._path)
            with entering(self._path):
                for folder in (self._folder, self._folder / "views", self._folder / "wanted"):
                    folder.mkdir()
                (self._folder / ".lock").touch()
                self._lock.take()

    def _link(self, catalog: Catalog, name: str) -> View | None:
        """Return a view; None if a writer has the folder, or the collection has changed meanwhile."""
        entry = catalog.entry(name)
        folder = self._path / "collections" / entry.folder
        path, lock = self._folder / "views" / folder.name, FileLock(folder)
        with folder_errors(self._path):
            try:
                if not lock.take(shared=True):
                    return None
                catalog.refresh()
                if catalog.entry(name) != entry:
                    return None
                shutil.rmtree(path, ignore_errors=True)
                link_shard(folder, path)
            except FileNotFoundError as exc:
                catalog.refresh()
                if not folder.exists() and catalog.entry(name) == entry:  # else it was replaced, and is being deleted
                    message = f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`"
                    raise StoreError(message) from exc
                return None
            finally:
                lock.release()
        reader = self._make(name, path, entry.dimension, sparse=entry.sparse)
        with folder_errors(self._path):
            view = View(entry.folder, entry.made, path, reader, read_mark(path).number)
        try:
            view.collection.load()
        except BaseException:
            view.close()
            raise
        return view

    def _ask_writer(self, catalog: Catalog, name: str, wanted: Path) -> None:
        """Ask the writer to let go of the collection, or complete what a killed writer wrote."""
        if finish_for_killed_writer(self._path):
            catalog.refresh()
            if catalog.entry(name).in_place:
                raise StoreError(
                    f"collection {name} was being written by a process that was killed, and cannot be loaded: "
                    "run `rag-index rebuild`"
                )
            return
        with folder_errors(self._path):
            wanted.touch()


def finish_for_killed_writer(path: Path) -> bool:
    """Complete what a killed writer wrote; return False if a process has the store open for writing."""
    try:
        EdgeStore(path).close()
    except StoreBusy:
        return False
    return True


class EdgeReader(EdgeReads):
    """A store for a process that searches while another one may write.

    If a process writes a collection in place, and does not let go of it within `wait` seconds (10 at least), a search
    raises StoreBusy. With a `timeout`, each call is made in another process, and raises SearchTimedOut after so many
    seconds; without one, a call may take as long as it likes, and stops all of this process. Safe to use from several
    threads.
    """

    def __init__(self, path: Path, *, wait: float = 0.0, timeout: float | None = None) -> None:
        self._path = path
        with folder_errors(path):
            private_folder(path)
        self._catalog = Catalog(path / "catalog.json")
        if any(entry.writing for entry in self._catalog.entries().values()):
            finish_for_killed_writer(path)
        self._processes = None if timeout is None else SearchProcesses(timeout)
        make = self._processes.reader if self._processes else CollectionReader
        self._linked = Views(path, wait=wait, make=make)
        self._threads = ThreadPoolExecutor(LOADERS, "rag-index-view")
        self._mutex = threading.Lock()
        self._views: dict[str, View] = {}
        self._loading: dict[str, Future[None]] = {}
        self._seen = threading.local()
        self._closed = False

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
        self._linked.close()

    def seen_commits(self, name: str) -> int | None:
        """Return the number of the last commit in the view that the last call of this thread read; 0 if none has."""
        return getattr(self._seen, "commits", 0)

    def _known(self) -> Catalog:
        """Return the catalog as it is on disk now."""
        self._check_open()
        self._catalog.refresh()
        return self._catalog

    @contextmanager
    def _lend(self, name: str) -> Iterator[CollectionReader]:
        """Lend the view of a collection or alias for the time of the block: the newest, if it is there in time."""
        resolved = self._known().resolve(name)
        if (entry := self._catalog.entry(resolved)).unwritten:
            self._seen.commits = 0
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
            self._seen.commits = lent.commits
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
            view = self._linked.load(name)
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
