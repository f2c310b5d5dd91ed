"""Views of the collections of an embedded store: how a reader gets one, and what it has of it."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.errors import StoreBusy, StoreError
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.folder import holder
from rag_index.stores.edge.readers import Reader
from rag_index.stores.edge.store import EdgeStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rag_index.stores.edge.reading import CollectionReader

POLL = 0.02
ASK_SECONDS = 10.0
"""How long a writer may take to let go of a collection that it writes in place: a batch and a flush, at most."""


@dataclass(slots=True)
class View:
    """A collection as it was when a reader linked it, and how many calls use it now."""

    folder: str
    made: str
    path: Path
    collection: CollectionReader
    users: int = 0
    retired: bool = False
    """Whether a newer view has taken its place, so that its last user closes it."""

    def close(self) -> None:
        """Close the shard and remove the view."""
        with suppress(StoreError):
            self.collection.close()
        shutil.rmtree(self.path, ignore_errors=True)


class ViewLoader:
    """What makes the views of one reader. Safe to use from several threads, one for each collection.

    `make` makes the reader of a view's shard, as CollectionReader does.
    """

    def __init__(self, path: Path, *, wait: float, make: Callable[..., CollectionReader]) -> None:
        self._path, self._wait, self._make = path, max(wait, ASK_SECONDS), make
        self._reader = Reader(path)
        self._closed = threading.Event()

    def load(self, name: str) -> View:
        """Return a view of the newest state of a collection that the catalog names, with its shard loaded.

        If a process writes the collection in place, that process is asked to let go of it. Raises StoreBusy if it does
        not, and StoreError.
        """
        catalog = Catalog(self._path / "catalog.json")
        deadline = time.monotonic() + self._wait
        try:
            while not self._closed.is_set():
                catalog.refresh()
                if catalog.entry(name).in_place:
                    self._ask_writer(catalog, name)
                elif view := self._link(catalog, name):
                    return view
                if time.monotonic() >= deadline:
                    raise self._busy(name)
                self._closed.wait(POLL)
        finally:
            self._reader.stop_wanting(name)
        raise StoreError(f"the store at {self._path} is closed")

    def close(self) -> None:
        """Stop loading, and remove all views. Their collections must be closed."""
        self._closed.set()
        self._reader.close()

    def _link(self, catalog: Catalog, name: str) -> View | None:
        """Return a view; None if the collection has changed meanwhile."""
        entry = catalog.entry(name)
        folder = self._path / "collections" / entry.folder

        def still_valid() -> bool:
            catalog.refresh()
            return catalog.entry(name) == entry

        path = self._reader.link(folder, still_valid)
        if path is None:
            if not folder.exists() and still_valid():
                raise StoreError(f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`")
            return None
        view = View(entry.folder, entry.made, path, self._make(name, path, entry.dimension, sparse=entry.sparse))
        try:
            view.collection.load()
        except BaseException:
            view.close()
            raise
        return view

    def _ask_writer(self, catalog: Catalog, name: str) -> None:
        """Ask the writer to let go of the collection, or complete what a killed writer wrote."""
        if finish_for_killed_writer(self._path):
            catalog.refresh()
            if catalog.entry(name).in_place:
                raise StoreError(
                    f"collection {name} was being written by a process that was killed, and cannot be loaded: "
                    "run `rag-index rebuild`"
                )
            return
        self._reader.want(name)

    def _busy(self, name: str) -> StoreBusy:
        return StoreBusy(
            f"collection {name} of the store at {self._path} is being written by {holder(self._path)}, which does "
            "not let go of it: wait for it (--wait SECONDS) or use a Qdrant server"
        )


def finish_for_killed_writer(path: Path) -> bool:
    """Complete what a killed writer wrote; return False if a process has the store open for writing."""
    try:
        EdgeStore(path).close()
    except StoreBusy:
        return False
    return True
