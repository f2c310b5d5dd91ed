"""The embedded store for a process that only searches: any number of them read while one process
writes a collection. A reader has a view of each collection that it uses: a folder of its own in
`readers`, and a shared lock on the shard folder, so that no process writes it. When a writer is
done, the catalog names another folder, or the same one was written in place before there was a
view. The next search then loads a new view; others go on in the old one."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import uuid
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

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
    read_commit_mark,
    writer,
)
from rag_index.components.stores.edge.point_reader import EdgePointReader, EdgeReads
from rag_index.components.stores.edge.shard import ShardFolder
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.core.machine import in_thread
from rag_index.errors import StoreBusy, StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.edge.folder import CatalogEntry

WRITE_SECONDS = 10.0
"""How long a writer may take from its first write to the flush, after which it lets readers in: a
batch, at most."""
FRESH_SECONDS = 2.0
"""How long a search waits for the newest state of a collection before it goes to the one that is
loaded."""


class View(ShardFolder):
    """The shard of a collection as it was when a reader linked it. It is closed when nobody has it
    any more."""

    def __init__(
        self, name: str, entry: CatalogEntry, folder: Path, path: Path, written_by: int
    ) -> None:
        """`folder` is the shard folder, and `path` the folder of the view, which is still to be
        filled from it. `written_by` is the `last_writer` of the collection."""
        super().__init__(name, path, entry.dimension, sparse=entry.sparse)
        self.entry = entry
        self.path = path
        self.written_by = written_by
        self.seen_commits: int = 0
        self.own = FileLock(path)
        """Says that the process of the view lives."""
        self.shared = FileLock(folder)
        """Keeps writers away from the files that the view shares with the shard folder."""
        self._process = os.getpid()

    @property
    def is_unwritten(self) -> bool:
        """Whether its collection was never written, so that the view shares no file with it."""
        return (self.path / UNWRITTEN).exists()

    def close(self) -> None:
        with suppress(StoreError):
            super().close()
        shutil.rmtree(self.path, ignore_errors=True)
        self.own.release()
        self.shared.release()

    def __del__(self) -> None:
        # A forked child may drop its copy of a view that its parent uses. At the end of the
        # process, the modules that this needs may be gone; the next process that opens the store
        # deletes the folder then.
        if not sys.is_finalizing() and os.getpid() == self._process and not self.closed:
            self.close()


class EdgeReader(EdgeReads):
    """A store for a process that searches while others may write. Safe to use from several threads.
    If a process writes a collection in place, and does not let readers in within `wait` seconds (10
    at least), searches raise StoreBusy."""

    def __init__(self, path: Path, *, wait: float = 0.0) -> None:
        EdgeStore(
            path
        ).close()  # it completes what a killed writer wrote, and deletes what dead readers left
        super().__init__(path)
        self._wait = max(wait, WRITE_SECONDS)
        self._mutex = threading.Lock()
        self._views: dict[str, View] = {}
        self._loading: dict[str, Future[None]] = {}

    def points(self, name: str) -> EdgePointReader[View]:
        """Return the points of a collection or alias: the newest, if they are there in time.

        They stay what they are, and keep their view, until they are dropped. So get them anew for
        each search.
        """
        return EdgePointReader(name, self.known, self._view)

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

    def _view(self, name: str) -> View:
        """Return the view of a collection or alias: the newest, if it is there in time."""
        name = self.known().resolve(name)
        entry = self._catalog.entry(name)
        with folder_errors(self._path):
            commits = read_commit_mark(self._catalog.folder(entry.folder)).number
        self._renew(name, entry)
        with self._mutex:
            self.known()
            view = self._views.get(name)
            if view is None:
                raise StoreError(f"collection {name} was dropped")
            # Nobody writes the points of a view that is shown, but the mark of the last commit may
            # come after them.
            if self._is_shown(entry, view):
                view.seen_commits = max(view.seen_commits, commits)
            return view

    def _renew(self, name: str, entry: CatalogEntry) -> None:
        """Load the newest view of a collection, if it is not there. An older one makes the wait
        short."""
        with self._mutex:
            for dropped in self._views.keys() - self._catalog.names():
                del self._views[dropped]
            view = self._views.get(name)
            if view is not None and self._is_shown(entry, view):
                return
            has_older = view is not None and view.entry.made == entry.made
            loading = self._start_loading(name)
        with suppress(TimeoutError):
            loading.result(FRESH_SECONDS if has_older else None)

    def _start_loading(self, name: str) -> Future[None]:
        self.known()
        if name not in self._loading:
            self._loading[name] = in_thread(partial(self._load, name), "rag-index-view")
        return self._loading[name]

    def _load(self, name: str) -> None:
        """Put the newest view in the place of the one before, which is closed once nobody reads
        it."""
        view = before = None
        try:
            view = self._newest_view(name)
        finally:
            with self._mutex:
                self._loading.pop(name, None)
                if view is not None and not self._closed.is_set():
                    # A reference, so that the former view is not closed within the lock.
                    before = self._views.get(name)
                    self._views[name] = view
        del before

    def _newest_view(self, name: str) -> View:
        """Return a view of the newest state, with its shard loaded. Raises StoreBusy if a writer
        lets no reader in."""
        deadline = time.monotonic() + self._wait
        while not self._closed.is_set():
            self._catalog.refresh()
            if view := self._link(name, self._catalog.entry(name)):
                return view
            if time.monotonic() >= deadline:
                raise StoreBusy(
                    f"collection {name} of the store at {self._path} is being written by"
                    f" {writer(self._path, name)}, which does not let go of it: wait for it (--wait"
                    " SECONDS) or use a Qdrant server"
                )
            self._closed.wait(LOCK_POLL)
        raise StoreError(f"the store at {self._path} is closed")

    def _link(self, name: str, entry: CatalogEntry) -> View | None:
        """Return a view; None if a process writes the folder, or the collection has changed
        meanwhile."""
        folder, path = self._catalog.folder(entry.folder), self._path / "readers" / uuid.uuid4().hex
        view = View(name, entry, folder, path, last_writer(self._path, name))
        with ExitStack() as stack, engine_errors(name, folder):
            stack.callback(view.close)
            try:
                if not view.shared.take(shared=True):
                    return None
                if (folder / UNFLUSHED).exists():
                    view.shared.release()  # a killed writer left it; a process that completes it now is waited for
                    with suppress(StoreBusy), closing(EdgeStore(self._path)) as store:
                        if (folder / UNFLUSHED).exists():  # not even opening the store has done it
                            store.open_shard(name).complete()
                    return None
                with locked(self._path):
                    path.mkdir(mode=0o700)
                    view.own.take()
                link_shard(folder, path)
            except FileNotFoundError:
                if self._is_shown(self.known().entry(name), view):
                    raise
                return None
            if view.is_unwritten:
                view.shared.release()
            if not self._is_shown(self.known().entry(name), view):
                return None
            view.seen_commits = read_commit_mark(path).number
            view.load()
            stack.pop_all()
            return view

    def _is_shown(self, entry: CatalogEntry, view: View) -> bool:
        """Return whether a view is of the folder that readers link now."""
        if (view.entry.folder, view.entry.made) != (entry.folder, entry.made):
            return False
        # The view of a collection without any write is a copy. The first write replaces it.
        unwritten = self._catalog.folder(entry.folder) / UNWRITTEN
        return view.is_unwritten == unwritten.exists()
