"""The embedded store for a process that only searches: any number of them read while one process writes a collection. A
reader has a view of each collection that it uses: a folder of its own in `readers`, and a shared lock on the shard
folder, so that no process writes it. When a writer is done, the catalog names another folder, or the same one was
written in place before there was a view. The next search then loads a new view; others go on in the old one."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.components.stores.edge.collection_reader import CollectionReader, EdgeReads
from rag_index.components.stores.edge.folder import (
    LOCK_POLL,
    UNFLUSHED,
    UNWRITTEN,
    FileLock,
    engine_errors,
    folder_errors,
    last_writer,
    link_shard,
    locked,
    read_mark,
    writer,
)
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.machine import in_thread
from rag_index.errors import StoreBusy, StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.edge.folder import CatalogEntry

WRITE_SECONDS = 10.0
"""How long a writer may take from its first write to the flush, after which it lets readers in: a batch, at most."""
FRESH_SECONDS = 2.0
"""How long a search waits for the newest state of a collection before it goes to the one that is loaded."""


@dataclass(slots=True)
class View:
    """A collection as it was when a reader linked it, and how many calls use it now."""

    entry: CatalogEntry
    path: Path
    locks: tuple[FileLock, FileLock]
    """Locks on its own folder, which says that its process lives, and on the shard folder, which keeps writers away."""
    collection: CollectionReader
    written_by: object = None
    """The `last_writer` of the collection when the view was made."""
    commits: int = 0
    """The number of the last commit that it has."""
    users: int = 0
    retired: bool = False
    """Whether a newer view has taken its place, so that its last user closes it."""

    @property
    def is_unwritten(self) -> bool:
        """Whether its collection was never written, so that the view shares no file with it."""
        return (self.path / UNWRITTEN).exists()

    def close(self) -> None:
        with suppress(StoreError):
            self.collection.close()
        shutil.rmtree(self.path, ignore_errors=True)
        for lock in self.locks:
            lock.release()


class EdgeReader(EdgeReads):
    """A store for a process that searches while others may write. Safe to use from several threads. If a process writes
    a collection in place, and does not let readers in within `wait` seconds (10 at least), searches raise StoreBusy."""

    def __init__(self, path: Path, *, wait: float = 0.0) -> None:
        EdgeStore(path).close()  # it completes what a killed writer wrote, and deletes what dead readers left
        super().__init__(path)
        self._wait = max(wait, WRITE_SECONDS)
        self._mutex = threading.Lock()
        self._views: dict[str, View] = {}
        self._loading: dict[str, Future[None]] = {}
        self._seen = threading.local()

    def close(self) -> None:
        with self._mutex:
            if self._closed.is_set():
                return
            self._closed.set()
            views = list(self._views.values())
            self._views.clear()
        for view in views:
            view.close()

    def wanted(self) -> bool:
        with self._mutex:
            views = self._views.copy()
        return any(last_writer(self._path, name) != view.written_by for name, view in views.items())

    def seen_commits(self, name: str) -> int | None:
        return getattr(self._seen, "commits", 0)

    @contextmanager
    def lend(self, name: str) -> Iterator[CollectionReader]:
        """Lend the view of a collection or alias for the time of the block: the newest, if it is there in time."""
        name = self.known().resolve(name)
        entry = self._catalog.entry(name)
        with folder_errors(self._path):
            commits = read_mark(self._catalog.folder(entry.folder)).number
        with self._mutex:
            view = self._views.get(name)
            loading = None if view is not None and self._is_shown(entry, view) else self._start_loading(name)
            for dropped in self._views.keys() - self._catalog.names():
                self._retire(self._views.pop(dropped))
        if loading is not None:
            older = view is not None and view.entry.made == entry.made
            with suppress(TimeoutError):
                loading.result(FRESH_SECONDS if older else None)
        with self._mutex:
            self.known()
            lent = self._views.get(name)
            if lent is None:
                raise StoreError(f"collection {name} was dropped")
            lent.users += 1
            if self._is_shown(entry, lent):  # nobody writes its points, but the last commit's mark may come after them
                lent.commits = max(lent.commits, commits)
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
        self.known()
        if name not in self._loading:
            self._loading[name] = in_thread(partial(self._load, name), "rag-index-view")
        return self._loading[name]

    def _load(self, name: str) -> None:
        view = None
        try:
            view = self._newest_view(name)
        finally:
            with self._mutex:
                self._loading.pop(name, None)
                if view is not None and not self._closed.is_set():
                    old, self._views[name], view = self._views.get(name), view, None
                    self._retire(old)
            if view is not None:
                view.close()

    def _newest_view(self, name: str) -> View:
        """Return a view of the newest state, with its shard loaded. Raises StoreBusy if a writer lets no reader in."""
        deadline = time.monotonic() + self._wait
        while not self._closed.is_set():
            self._catalog.refresh()
            if view := self._link(name, self._catalog.entry(name)):
                return view
            if time.monotonic() >= deadline:
                raise StoreBusy(
                    f"collection {name} of the store at {self._path} is being written by {writer(self._path, name)}, "
                    "which does not let go of it: wait for it (--wait SECONDS) or use a Qdrant server"
                )
            self._closed.wait(LOCK_POLL)
        raise StoreError(f"the store at {self._path} is closed")

    def _link(self, name: str, entry: CatalogEntry) -> View | None:
        """Return a view; None if a process writes the folder, or the collection has changed meanwhile."""
        folder, path = self._catalog.folder(entry.folder), self._path / "readers" / uuid.uuid4().hex
        own, shared = FileLock(path), FileLock(folder)
        collection = CollectionReader(name, path, entry.dimension, sparse=entry.sparse)
        view = View(entry, path, (own, shared), collection, last_writer(self._path, name))
        with ExitStack() as stack, engine_errors(name, folder):
            stack.callback(view.close)
            try:
                if not shared.take(shared=True):
                    return None
                if (folder / UNFLUSHED).exists():
                    shared.release()  # a killed writer left it; a process that completes it now is waited for
                    with suppress(StoreBusy), closing(EdgeStore(self._path)) as store:
                        if (folder / UNFLUSHED).exists():  # not even opening the store has done it
                            with store.lend(name) as whole:
                                whole.complete()
                    return None
                with locked(self._path):
                    path.mkdir(mode=0o700)
                    own.take()
                link_shard(folder, path)
            except FileNotFoundError:
                if self._is_shown(self.known().entry(name), view):
                    raise
                return None
            if view.is_unwritten:
                shared.release()
            if not self._is_shown(self.known().entry(name), view):
                return None
            view.commits = read_mark(path).number
            view.collection.load()
            stack.pop_all()
            return view

    def _is_shown(self, entry: CatalogEntry, view: View) -> bool:
        same = (view.entry.folder, view.entry.made) == (entry.folder, entry.made)
        return same and view.is_unwritten == (self._catalog.folder(entry.folder) / UNWRITTEN).exists()

    def _retire(self, view: View | None) -> None:
        """Close a view that is no longer used, once no search uses it."""
        if view is not None:
            view.retired = True
            if not view.users:
                in_thread(view.close, "rag-index-view")
