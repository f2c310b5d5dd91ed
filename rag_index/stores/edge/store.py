"""The embedded store: Qdrant inside this process (qdrant-edge), one process at a time.

    PATH/.lock              who holds the store
    PATH/catalog.json       collections, metadata, aliases
    PATH/collections/NAME   a shard folder each
    PATH/trash/             dropped shard folders on their way out

A collection is what the catalog says: a folder without an entry is what a crash left behind.
"""

from __future__ import annotations

import re
import shutil
import threading
import uuid
from typing import TYPE_CHECKING, Any

from rag_index.errors import StoreError, StoreMismatch
from rag_index.stores.edge.catalog import Catalog
from rag_index.stores.edge.collection import EdgeCollection
from rag_index.stores.edge.folder import FolderLock, folder_errors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import PointBatch, StoredPoint
    from rag_index.stores import Condition

__all__ = ["EdgeStore"]

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
MIN_FREE = 128 * 1024 * 1024


class EdgeStore:
    """The Store protocol on a folder of this machine.

    Opening takes the folder's lock: StoreBusy where another process has it and does not let go within `wait`
    seconds. Writes stop with StoreError while fewer than `min_free` bytes are free on the disk. Searching goes on
    in other threads while points are written; during `optimize` the calls on that one collection wait.
    """

    embedded = True

    def __init__(self, path: Path, *, wait: float = 0.0, min_free: int = MIN_FREE) -> None:
        self._path = path
        self._min_free = min_free
        self._folders = path / "collections"
        self._trash = path / "trash"
        with folder_errors(path):
            path.mkdir(parents=True, exist_ok=True)
        self._held = FolderLock(path, wait=wait)
        try:
            with folder_errors(path):
                self._folders.mkdir(exist_ok=True)
                self._trash.mkdir(exist_ok=True)
            self._empty_trash()
            self._catalog = Catalog(path / "catalog.json")
        except BaseException:
            self._held.release()
            raise
        self._mutex = threading.RLock()
        self._open: dict[str, EdgeCollection] = {}
        self._closed = False

    def create(self, name: str, dimension: int, metadata: dict[str, Any]) -> None:
        """Make a collection, or keep the one of that name and dimension and merge its metadata."""
        if not NAME.fullmatch(name):
            raise StoreError(f"{name!r} cannot name a collection: use letters, digits, _ - and .")
        with self._mutex:
            self._check_open()
            if name in self._catalog:
                found = self._catalog.entry(name).dimension
                if found != dimension:
                    raise StoreMismatch(
                        f"collection {name} holds {found}-d vectors, not {dimension}-d: run `rag-index rebuild`"
                    )
                self._catalog.merge_metadata(name, metadata)
                return
            self._discard(name)
            made = self._collection(name, dimension)
            made.create()
            try:
                self._catalog.add(name, dimension, metadata)
            except BaseException:
                made.close()
                raise
            self._open[name] = made

    def collections(self) -> dict[str, dict[str, Any]]:
        """All collections, by name, with their metadata."""
        with self._mutex:
            return {name: entry.metadata for name, entry in self._catalog.collections().items()}

    def metadata(self, name: str) -> dict[str, Any]:
        """The metadata of one collection or alias."""
        with self._mutex:
            self._check_open()
            return dict(self._catalog.entry(name).metadata)

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata; a value of None removes the key."""
        with self._mutex:
            self._check_open()
            self._catalog.merge_metadata(name, metadata)

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Make payload indexes by field and kind; None removes one."""
        self._get(name).index_fields(fields)

    def drop(self, name: str) -> None:
        """Remove a collection and the aliases that show it."""
        with self._mutex:
            self._check_open()
            if name not in self._catalog:
                return
            self._catalog.remove(name)
            opened = self._open.pop(name, None)
            if opened is not None:
                opened.close()
            self._discard(name)

    def upsert(self, name: str, points: PointBatch) -> None:
        """Write points, all checked before the first is written."""
        self._get(name).upsert(points)

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """Replace the whole payload of each point; StoreMismatch for those that are not there."""
        self._get(name).update_payloads(payloads)

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        """Delete by id."""
        self._get(name).delete_points(ids)

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        """Delete all points of these documents, by key, from the chunk number given on."""
        self._get(name).delete_chunks(first)

    def flush(self, name: str) -> None:
        """Make all that was written survive a power cut."""
        self._get(name).flush()

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        """Exact number of points, of these document keys where given."""
        return self._get(name).count(keys)

    def retrieve(self, name: str, ids: Sequence[str], *, vectors: bool = False) -> list[StoredPoint]:
        """The points with these ids that are there."""
        return self._get(name).retrieve(ids, vectors=vectors)

    def scroll(self, name: str, *, vectors: bool = False, page: int = 1000) -> Iterator[StoredPoint]:
        """All points in order of their id, a page in memory at a time."""
        return self._get(name).scroll(vectors=vectors, page=page)

    def search(
        self,
        name: str,
        vector: NDArray[np.float32],
        *,
        limit: int,
        conditions: Sequence[Condition] = (),
        exact: bool = False,
    ) -> list[StoredPoint]:
        """The nearest points, best first."""
        return self._get(name).search(vector, limit=limit, conditions=conditions, exact=exact)

    def optimize(self, name: str) -> None:
        """Build the search index (HNSW) of a collection; until then every search scans."""
        self._get(name).optimize(inherit=self._held.descriptor)

    def indexed(self, name: str) -> bool:
        """False where searching scans more vectors than it should: `optimize` helps."""
        return self._get(name).indexed()

    def aliases(self) -> dict[str, str]:
        """Alias to collection."""
        with self._mutex:
            return self._catalog.aliases()

    def point_alias(self, alias: str, collection: str) -> None:
        """Let the alias show this collection, in one step."""
        with self._mutex:
            self._check_open()
            self._catalog.point_alias(alias, collection)

    def dimension(self, name: str) -> int:
        """The dimension of the collection's vectors."""
        with self._mutex:
            return self._catalog.entry(name).dimension

    def close(self) -> None:
        """Flush, close and let the next process in; a second call does nothing."""
        with self._mutex:
            if self._closed:
                return
            self._closed = True
            try:
                for opened in self._open.values():
                    opened.close()
            finally:
                self._open.clear()
                self._held.release()

    def _get(self, name: str) -> EdgeCollection:
        with self._mutex:
            self._check_open()
            resolved = self._catalog.resolve(name)
            if resolved not in self._open:
                self._open[resolved] = self._collection(resolved, self._catalog.entry(resolved).dimension)
            return self._open[resolved]

    def _collection(self, name: str, dimension: int) -> EdgeCollection:
        return EdgeCollection(name, self._folders / name, dimension, min_free=self._min_free)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(f"the store at {self._path} is closed")

    def _discard(self, name: str) -> None:
        """Remove a shard folder: renamed first, so that half of one is never taken for a collection."""
        folder = self._folders / name
        with folder_errors(self._path):
            if folder.exists():
                folder.rename(self._trash / f"{name}-{uuid.uuid4().hex}")
        self._empty_trash()

    def _empty_trash(self) -> None:
        for folder in self._trash.iterdir():
            shutil.rmtree(folder, ignore_errors=True)
