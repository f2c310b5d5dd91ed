"""The embedded store: Qdrant inside this process (qdrant-edge). One process at a time writes, others may search.

    PATH/.lock              the writer of the store
    PATH/.batch             locked by a batch of a watch that waits for the writer
    PATH/catalog.json       collections, metadata, aliases
    PATH/collections/NAME   the shard folder of a collection; NAME~… is one that was made as a copy
    PATH/readers/ID         a process that searches, see `reader.py`
    PATH/trash/             shard folders that are being deleted

The catalog decides which collections exist. A crash left behind any folder that has no entry.
"""

from __future__ import annotations

import re
import shutil
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rag_index.database.files import leftovers, private_folder
from rag_index.errors import RagIndexError, StoreBusy, StoreError, StoreMismatch
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.collection import EdgeCollection, create_shard
from rag_index.stores.edge.collection_reader import EdgeReads
from rag_index.stores.edge.folder import BRIEF_POLL, FolderLock, batch_waits, folder_errors, holder
from rag_index.stores.edge.shard_files import (
    COPY_MARK,
    MARK,
    WriteClaim,
    is_being_written,
    read_mark,
    remove_dead_readers,
    viewed_folders,
    wanted_collections,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from rag_index.documents.batches import PointBatch
    from rag_index.documents.commits import CommitMark

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MIN_FREE = 128 * 1024 * 1024
LOOK_SECONDS = 0.1
"""How often to look whether a reader wants a collection that is written in place, or a batch the folder."""
HAND_OVER_SECONDS = 1.0
"""How long a batch that waits has for taking the folder once it is free."""
BATCH_LIMIT = 600.0
"""How long a batch may have the folder: it takes some seconds, unless its process was stopped or waits for ever."""


class EdgeStore(EdgeReads):
    """The Store protocol on a folder of this machine.

    Opening locks the folder, and raises StoreBusy if another process does not release it within `wait` seconds (one
    that opened it as `brief`, for a batch: within `brief_wait` seconds). One that `lets_batches_in` gives the folder to
    another process that wants to write a batch into other collections, and takes it back, at most half of the time. Its
    own calls wait meanwhile, and raise StoreBusy once it was not given back for `BATCH_LIMIT` seconds.
    Writes raise StoreError while fewer than `min_free` bytes are free on the disk. Other threads can search while
    points are written; during `optimize` the calls on that one collection wait. Other processes search with an
    `EdgeReader`, and find what was written once this store is closed.
    """

    def __init__(
        self,
        path: Path,
        *,
        wait: float = 0.0,
        brief: bool = False,
        brief_wait: float = 0.0,
        lets_batches_in: bool = False,
        min_free: int = MIN_FREE,
    ) -> None:
        self._path = path
        self._min_free = min_free
        self._brief, self._lets_batches_in = brief, lets_batches_in
        self._next_batch = 0.0
        """When the next batch may come in, by the monotonic clock."""
        self._folders = path / "collections"
        self._trash = path / "trash"
        with folder_errors(path):
            private_folder(path)
        self._folder_lock = FolderLock(
            path, wait=wait, brief=brief, brief_wait=brief_wait, lets_batches_in=lets_batches_in
        )
        try:
            with folder_errors(path):
                self._folders.mkdir(exist_ok=True)
                self._trash.mkdir(exist_ok=True)
            self._empty_trash()
            for leftover in (*leftovers(path / "catalog.json"), *self._folders.glob(f"*/.{MARK}.*.tmp")):
                leftover.unlink(missing_ok=True)
            self._catalog = Catalog(path / "catalog.json")
            remove_dead_readers(path)
            self._finish_for_killed_writer()
        except BaseException:
            self._folder_lock.release()
            raise
        self._mutex = threading.RLock()
        self._open: dict[str, EdgeCollection] = {}
        self._closed = threading.Event()
        self._lost = ""
        """Why the folder was not taken back from a batch."""
        self._watching = False
        if lets_batches_in:
            self._watch()

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection, or keep the existing one of that name and kind and merge its metadata.

        Nothing can be set by hand on a collection of this store, so `like` has nothing to give.
        """
        if not NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a collection: use letters, digits, _ - and .")
        with self._mutex:
            self._check_open()
            if name in self._catalog:
                found = self._catalog.entry(name)
                if found.dimension != dimension:
                    raise StoreMismatch(
                        f"collection {name} holds {found.dimension}-d vectors, not {dimension}-d: "
                        "run `rag-index rebuild`"
                    )
                if sparse and not found.sparse:
                    raise StoreMismatch(f"collection {name} has no sparse vectors: run `rag-index rebuild`")
                self._catalog.merge_metadata(name, metadata)
                return
            folder = self._folders / name
            self._discard(folder)
            if name in viewed_folders(self._path):  # a reader still has the one that was dropped
                folder = self._folders / f"{name}{COPY_MARK}{uuid.uuid4().hex[:8]}"
            create_shard(folder, dimension, sparse=sparse, min_free=self._min_free)
            self._catalog.add(name, dimension, metadata, sparse=sparse, folder=folder.name)

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata; a value of None removes the key."""
        with self._mutex:
            self._check_open()
            self._catalog.merge_metadata(name, metadata)

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field and kind; None removes one."""
        self._get(name).index_fields(fields)

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it."""
        with self._mutex:
            self._check_open()
            if name not in self._catalog:
                return
            entry = self._catalog.entry(name)
            self._catalog.remove(name)
            collection = self._open.pop(name, None)
            if collection is not None:
                collection.abandon()
            for folder in {entry.folder, entry.newest}:
                self._discard(self._folders / folder)

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points; all are checked before the first is written."""
        self._get(name).upsert(points)

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each point. Raises StoreMismatch for points that do not exist."""
        self._get(name).update_payloads(payloads)

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete points by id."""
        self._get(name).delete_points(ids)

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete the points of these documents, by key, from the given chunk number on."""
        self._get(name).delete_chunks(first)

    def commit_mark(self, name: str) -> CommitMark:
        """Return the mark of the last commit, which is in the collection's folder."""
        with self._mutex, folder_errors(self._path):
            self._check_open()
            return read_mark(self._folders / self._catalog.entry(name).newest)

    def seen_commits(self, name: str) -> int | None:
        """Return None: whoever writes sees all."""
        return None

    def set_commit_mark(self, name: str, mark: CommitMark) -> None:
        """Write the mark of the last commit."""
        self._get(name).set_commit_mark(mark)

    def flush(self, name: str) -> None:
        """Write everything to disk, so that it survives a power cut."""
        self._get(name).flush()

    def optimize(self, name: str) -> None:
        """Build the search index (HNSW) of a collection; until then every search scans."""
        self._get(name).optimize(inherit=self._folder_lock.descriptor)

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step."""
        with self._mutex:
            self._check_open()
            self._catalog.point_alias(alias, collection)

    def close(self) -> None:
        """Flush, close, let readers have what was written, and release the lock. A second call does nothing."""
        with self._mutex:
            if self._closed.is_set():
                return
            self._closed.set()
            with ExitStack() as stack:
                stack.callback(self._folder_lock.release)
                for collection in self._open.values():
                    stack.callback(collection.close)
                self._open.clear()

    def _known(self) -> Catalog:
        self._check_open()
        return self._catalog

    @contextmanager
    def _lend(self, name: str) -> Iterator[EdgeCollection]:
        yield self._get(name)

    def _get(self, name: str) -> EdgeCollection:
        with self._mutex:
            self._check_open()
            resolved = self._catalog.resolve(name)
            if resolved not in self._open:
                self._open[resolved] = self._collection(resolved)
                if self._brief:
                    self._open[resolved].prepare()
                self._watch()
            return self._open[resolved]

    def _collection(self, name: str) -> EdgeCollection:
        entry = self._catalog.entry(name)
        claim = WriteClaim(name, self._path, self._catalog, min_free=self._min_free, discard=self._discard)
        return EdgeCollection(name, claim, entry.dimension, min_free=self._min_free, sparse=entry.sparse)

    def _watch(self) -> None:
        """Start the thread that lets readers and batches in, once."""
        if not self._watching:
            self._watching = True
            threading.Thread(target=self._let_others_in, name="rag-index-readers", daemon=True).start()

    def _let_others_in(self) -> None:
        while not self._closed.wait(LOOK_SECONDS):
            with suppress(OSError):  # a reader that leaves
                for name in wanted_collections(self._path):
                    with self._mutex:
                        collection = self._open.get(name)
                    if collection is not None:
                        collection.let_readers_in()
            if self._lets_batches_in and time.monotonic() >= self._next_batch and batch_waits(self._path):
                self._let_batch_in()

    def _let_batch_in(self) -> None:
        """Give the folder to a batch of another process that waits, and take it back."""
        with self._mutex:
            with ExitStack() as stack:
                paused = [stack.enter_context(collection.paused()) for collection in self._open.values()]
                if self._closed.is_set() or not all(paused):
                    return
                began = time.monotonic()
                self._folder_lock.release()
                try:
                    while batch_waits(self._path) and time.monotonic() < began + HAND_OVER_SECONDS:
                        time.sleep(BRIEF_POLL)
                    self._folder_lock = FolderLock(self._path, wait=BATCH_LIMIT, lets_batches_in=True)
                    self._catalog.refresh()
                    self._finish_for_killed_writer()
                except (RagIndexError, OSError) as error:
                    self._lose_folder(error)
                self._next_batch = 2 * time.monotonic() - began
            if self._lost:
                for collection in self._open.values():
                    collection.abandon()

    def _lose_folder(self, error: Exception) -> None:
        """Let every call raise from now on, those too that wait for a collection: the folder is not ours any more."""
        self._lost = str(error)
        if isinstance(error, StoreBusy):
            self._lost = (
                f"the store at {self._path} was given to a batch of {holder(self._path)}, and not given back for "
                f"{BATCH_LIMIT:.0f} s: let that process go on or end it, then run again"
            )
        self._closed.set()
        for collection in self._open.values():
            collection.lost = self._lost

    def _finish_for_killed_writer(self) -> None:
        """Complete what a killed writer wrote, let readers have it, and delete copies that it did not finish."""
        for name, entry in self._catalog.entries().items():
            if entry.writing and not is_being_written(self._folders / entry.writing):
                collection = self._collection(name)
                try:
                    collection.complete()
                    collection.close()
                except RagIndexError:  # whoever uses the collection is told
                    collection.abandon()
        named = {folder for entry in self._catalog.entries().values() for folder in (entry.folder, entry.newest)}
        for folder in self._folders.glob(f"*{COPY_MARK}*"):
            if folder.name not in named:
                self._discard(folder)

    def _check_open(self) -> None:
        if self._lost:
            raise StoreBusy(self._lost)
        if self._closed.is_set():
            raise StoreError(f"the store at {self._path} is closed")

    def _discard(self, folder: Path) -> None:
        """Delete a shard folder. It is renamed first, so that half a folder is never taken for a collection."""
        with folder_errors(self._path):
            if folder.exists():
                folder.rename(self._trash / f"{folder.name}-{uuid.uuid4().hex}")
        self._empty_trash()

    def _empty_trash(self) -> None:
        for folder in self._trash.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
