"""The embedded store: Qdrant inside this process (qdrant-edge). One process writes a collection,
others may search it.

    PATH/catalog.json       collections, metadata, aliases PATH/collections/NAME   the shard folder
    of a collection; NAME~… is one that was made as a copy PATH/writers/NAME       locked by the
    process that writes the collection; beside it NAME~wanted, if others wait PATH/readers/ID
    the view of a process that searches, see `reader.py` PATH/trash/             shard folders that
    are being deleted

The catalog decides which collections exist. A crash left behind any folder that has no entry.
"""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from rag_index.components.stores.edge.edge_points import EdgePoints
from rag_index.components.stores.edge.folder import (
    UNFLUSHED,
    WRITER_PATIENCE,
    Catalog,
    FileLock,
    WriterLock,
    folder_errors,
    locked,
    note_writing,
    wanted_file,
)
from rag_index.components.stores.edge.point_reader import EdgeReads, of_catalog
from rag_index.components.stores.edge.shard import COPY_SEPARATOR, WritableShardFolder, create_shard
from rag_index.components.stores.protocol import Store
from rag_index.core.files import leftovers, private_folder
from rag_index.errors import RagIndexError, StoreBusy, StoreError, StoreMismatch

COLLECTION_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MIN_FREE = 128 * 1024 * 1024
"""Bytes of the disk that must be free for a write. Chosen: the engine writes through memory maps,
and a full disk kills the process."""


class EdgeStore(EdgeReads, Store):
    """The Store protocol on a folder of this machine.

    The first use of a collection locks it until the store is closed, and raises StoreBusy if
    another process does not release it within `wait` seconds. Other processes search it meanwhile
    with an `EdgeReader`. Other threads can search while points are written; during `optimize` the
    calls on that one collection wait. Writes raise StoreError while fewer than `min_free` bytes are
    free on the disk.
    """

    def __init__(self, path: Path, *, wait: float = 0.0, min_free: int = MIN_FREE) -> None:
        self._wait, self._min_free = wait, min_free
        self._trash = path / "trash"
        with folder_errors(path):
            for folder in (
                path,
                path / "collections",
                path / "writers",
                path / "readers",
                self._trash,
            ):
                private_folder(folder)
        super().__init__(path)
        self._mutex = threading.RLock()
        self._open: dict[str, WritableShardFolder] = {}
        self._clean_up()

    def points(self, name: str) -> EdgePoints:
        """Return the points of a collection or alias; with their first use, this process alone may
        write them."""
        return EdgePoints(name, self.known, self.open_shard)

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False
    ) -> None:
        if not COLLECTION_NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a collection: use letters, digits, _ - and .")
        with self._mutex:
            if name not in self.known().names():
                lock = WriterLock(self._path, name, wait=self._wait)
                try:
                    # Unless another process has created it meanwhile.
                    if name not in self.known().names():
                        folder = self._catalog.folder(name)
                        self._discard(folder)
                        create_shard(folder, dimension, sparse=sparse, min_free=self._min_free)
                        self._catalog.add(name, dimension, metadata, sparse=sparse)
                finally:
                    lock.release()
            found = self._catalog.entry(name)
            if found.dimension != dimension:
                raise StoreMismatch(
                    f"collection {name} holds {found.dimension}-d vectors, not {dimension}-d: run"
                    " `rag-index rebuild`"
                )
            if sparse and not found.sparse:
                raise StoreMismatch(
                    f"collection {name} has no sparse vectors: run `rag-index rebuild`"
                )
            self._catalog.merge_metadata(name, metadata)

    def drop(self, name: str) -> None:
        with self._mutex:
            if name not in self.known().names():
                return
            shard = self.open_shard(name)
            entry = self._catalog.entry(name)
            # After a kill, the next opening of the store finds this mark and cleans up.
            with folder_errors(self._path), suppress(FileNotFoundError):
                note_writing(self._catalog.folder(entry.folder))
            self._catalog.remove(name)
            del self._open[name]
            shard.abandon()
            for folder in {entry.folder, entry.newest}:
                self._discard(self._catalog.folder(folder))

    point_alias = of_catalog(Catalog.point_alias)

    def close(self) -> None:
        with self._mutex, ExitStack() as stack:
            self._closed.set()
            while self._open:
                stack.callback(self._open.popitem()[1].close)

    def hand_over(self) -> None:
        with self._mutex:
            for shard in self._open.values():
                shard.hand_over()

    def let_go(self) -> None:
        with self._mutex:
            for name in [name for name in self._open if wanted_file(self._path, name).exists()]:
                self._open.pop(name).close()

    def open_shard(self, name: str) -> WritableShardFolder:
        """Return the shard of a collection or alias; this process alone has it until it is closed.

        Raises StoreBusy if another process has it.
        """
        with self._mutex:
            name = self.known().resolve(name)
            if name not in self._open:
                lock = WriterLock(self._path, name, wait=max(self._wait, WRITER_PATIENCE))
                self._open[name] = self._shard(name, lock)
            return self._open[name]

    def _shard(self, name: str, lock: WriterLock) -> WritableShardFolder:
        try:
            self._catalog.refresh()
            return WritableShardFolder(
                name, self._catalog, lock, min_free=self._min_free, discard=self._discard
            )
        except BaseException:
            lock.release()
            raise

    def _clean_up(self) -> None:
        """Complete what killed writers wrote, let readers have it, and delete what dead processes
        left."""
        with locked(self._path):
            for leftover in leftovers(self._path / "catalog.json"):
                leftover.unlink()
            for view in (self._path / "readers").iterdir():
                lock = FileLock(view)
                with suppress(FileNotFoundError):  # its reader has just closed it
                    if lock.take():
                        shutil.rmtree(view, ignore_errors=True)
                lock.release()
        self._empty_trash()
        published = {entry.folder for entry in self._catalog.entries().values()}
        for folder in self._catalog.folder("").iterdir():
            copied = COPY_SEPARATOR in folder.name and folder.name not in published
            if copied or (folder / UNFLUSHED).exists():
                with suppress(StoreBusy):  # its writer lives
                    self._finish(folder)

    def _finish(self, folder: Path) -> None:
        """Complete what a killed writer wrote to a folder, or delete the copy that it did not
        finish."""
        name = folder.name.partition(COPY_SEPARATOR)[0]
        lock = WriterLock(self._path, name)
        self._catalog.refresh()
        entry = self._catalog.entries().get(name)
        if entry is not None and folder.name == entry.newest:
            shard = self._shard(name, lock)
            try:
                shard.complete()
                shard.close()
            except RagIndexError:  # a use of the collection raises it
                shard.abandon()
            return
        try:
            if entry is None or folder.name != entry.folder:
                self._discard(folder)
        finally:
            lock.release()

    def _discard(self, folder: Path) -> None:
        """Delete a shard folder. It is renamed first, so that half a folder is never taken for a
        collection."""
        # Another process may discard it at the same time.
        with folder_errors(self._path), suppress(FileNotFoundError):
            folder.rename(self._trash / f"{folder.name}-{uuid.uuid4().hex}")
        self._empty_trash()

    def _empty_trash(self) -> None:
        for folder in self._trash.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
