"""One shard folder of qdrant-edge, loaded when it is first used, and the one that this process
writes.

Every call of the engine holds Python's GIL from beginning to end (30 ms for a thousand points of
768 dimensions). So work is split into short calls, made one at a time under the shard's own lock,
and other threads run in between.

Nothing interrupts a call: a filter on fields without a payload index may take seconds, and this
process stands still meanwhile. What bounds that is the size of the collection: a server is for
larger ones."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import qdrant_edge as e

from rag_index.components.stores.edge.folder import (
    LET_GO_SECONDS,
    UNFLUSHED,
    UNWRITTEN,
    FileLock,
    WriterLock,
    allocated_bytes,
    copy_shard,
    engine_errors,
    folder_errors,
    note_writing,
    require_space,
    write_commit_mark,
)
from rag_index.components.stores.queries import SPARSE
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.edge.folder import Catalog
    from rag_index.core.documents.batches import CommitMark

R = TypeVar("R")
LOAD_BYTES = 32 << 20
"""What must be free where a shard is loaded: the engine writes some 10 MB then, and a full disk
kills it (SIGBUS)."""
BUILD_INDEX = """\
import sys
import qdrant_edge
shard = qdrant_edge.EdgeShard.load(sys.argv[1])
shard.optimize()
shard.flush()
shard.close()
"""
COPY_SEPARATOR = "~"
"""What follows the collection in the name of a copied folder. No collection's name contains it."""
FLUSH_POINTS = 20_000
"""Points written between flushes, unless the caller asks for one before; more would make the next
open slow."""


def create_shard(folder: Path, dimension: int, *, sparse: bool, min_free: int) -> None:
    """Create a shard folder, which must not exist. Raises StoreError.

    There is no index on key and chunk number, as a server has: it would be in memory and grow with
    the points. The engine could do without its log, since the ledger waits for `flush`; but then a
    kill leaves points with the vector of a document's new text and the payload of its old one.

    Once the search index is built, ids and words are read from their files as they are needed.
    Otherwise every process that opens the shard would have all of them in memory.
    """
    require_space(folder.parent, min_free)
    vectors = e.EdgeVectorParams(size=dimension, distance=e.Distance.Cosine)
    cold = e.Memory.Cold
    words = None
    if sparse:
        words = {SPARSE: e.EdgeSparseVectorParams(modifier=e.Modifier.Idf, memory=cold)}
    config = e.EdgeConfig(vectors=vectors, sparse_vectors=words, id_tracker_memory=cold)
    with folder_errors(folder), engine_errors(folder.name, folder):
        shard = e.EdgeShard.create(str(folder), config)
        shard.flush()
        shard.close()
        (folder / UNWRITTEN).touch()


class ShardFolder:
    """The shard folder of one collection. Safe to use from several threads."""

    seen_commits: int | None = None
    """The number of the last commit that the folder is sure to have. None: it has all of them."""

    def __init__(self, name: str, folder: Path, dimension: int, *, sparse: bool = False) -> None:
        self.name = name
        self.dimension = dimension
        self.sparse = sparse
        self.closed = False
        self._folder = folder
        self._lock = threading.Lock()
        self._engine: e.EdgeShard | None = None

    def load(self) -> None:
        with self.open():
            pass

    @contextmanager
    def open(self) -> Iterator[e.EdgeShard]:
        """Lend the engine's shard, loaded, for the time of the block. Other threads wait meanwhile.

        Raises StoreError if this shard is closed.
        """
        with self._lock, engine_errors(self.name, self._folder):
            yield self._loaded()

    def ask(self, ask: Callable[[e.EdgeShard], R]) -> R:
        with self.open() as engine:
            return ask(engine)

    def close(self) -> None:
        """Close the shard once the call under way has ended. Later calls raise StoreError."""
        with self._lock:
            self.closed = True
            self._close_engine()

    def _loaded(self) -> e.EdgeShard:
        self._check_open()
        if self._engine is None:
            require_space(self._folder.parent, LOAD_BYTES)
            self._engine = e.EdgeShard.load(str(self._folder))
        return self._engine

    def _check_open(self) -> None:
        if self.closed:
            raise StoreError(f"collection {self.name} was closed or dropped")

    def _close_engine(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            with engine_errors(self.name, self._folder):
                engine.flush()
                engine.close()


class WritableShardFolder(ShardFolder):
    """The shard folder of a collection that this process alone may write. Safe to use from several
    threads.

    A folder is never written while a reader has a view of it, which is a shared lock on it. Without
    readers, this changes the folder in place, and keeps readers away from the first write until the
    next flush. Otherwise it changes a copy, which takes the folder's place when this is closed. The
    catalog always names the folder with all writes.

    `discard` deletes a folder that no process needs by its name any more.
    """

    def __init__(
        self,
        name: str,
        catalog: Catalog,
        lock: WriterLock,
        *,
        min_free: int,
        discard: Callable[[Path], None],
    ) -> None:
        entry = catalog.entry(name)
        super().__init__(name, catalog.folder(entry.newest), entry.dimension, sparse=entry.sparse)
        self._catalog, self._writer_lock = catalog, lock
        self._min_free, self._discard = min_free, discard
        self._copied = bool(entry.writing)
        """Whether the folder is a copy, perhaps of a writer that was killed, which no reader can
        have."""
        self._is_intact = False
        """Whether the folder could be loaded, or copied."""
        self._in_place = FileLock(self._folder)
        """Held from the first write in place until the next flush."""
        self._unflushed = 0

    def require_space(self, more: int = 0) -> None:
        """Raise StoreError if a write could fill the disk. `more` is what it may need, in bytes."""
        require_space(self._folder.parent, self._min_free + more)

    def update(self, operation: e.UpdateOperation, points: int = 0) -> None:
        """Apply an operation of the engine, which writes so many points."""
        with self.open_to_write(points) as engine:
            engine.update(operation)

    @contextmanager
    def open_to_write(self, points: int = 0) -> Iterator[e.EdgeShard]:
        """Lend the engine's shard in a folder that no other process searches. Work under way in
        this process has ended. The block writes so many `points`."""
        with self._lock, engine_errors(self.name, self._folder):
            self._claim()
            yield self._loaded()
            self._unflushed += points
            if self._unflushed >= FLUSH_POINTS:
                self._flush()

    def set_commit_mark(self, commit_mark: CommitMark) -> None:
        with self._lock, folder_errors(self._folder):
            self._check_open()
            write_commit_mark(self._folder, commit_mark)

    def flush(self) -> None:
        with self._lock:
            self._flush()

    def optimize(self) -> None:
        """Build the search index in a child process, which keeps the collection locked as long as
        it runs. It builds in a copy, so that other processes can search meanwhile. The shard is
        closed in this process, and other calls on this collection wait. Raises StoreError if the
        child fails."""
        with self._lock:
            self._check_open()
            self._close_engine()
            if not self._copied:
                self._move_to_copy()
            self.require_space(2 * allocated_bytes(self._folder))
            command = [sys.executable, "-P", "-c", BUILD_INDEX, str(self._folder)]
            inherited = [self._writer_lock.descriptor]
            child = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                pass_fds=inherited,
                check=False,
            )
            if child.returncode:
                # A killed process has written nothing.
                killed = f"ended by signal {-child.returncode}"
                reason = (child.stderr.strip().splitlines() or [killed])[-1]
                raise StoreError(
                    f"the search index of {self.name} was not built ({reason}), and searches work"
                    " without it: check free memory and disk space, then run `rag-index` again"
                )
            self._let_readers_in()

    def complete(self) -> None:
        """Complete what a killed writer wrote: loading the shard repeats what its log has. Raises
        StoreError."""
        with self.open_to_write():
            pass

    def close(self) -> None:
        """Flush and close the shard, and let readers have what was written."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
            try:
                self._close_engine()
                self._hand_over()
            finally:
                self._release()

    def hand_over(self) -> None:
        """Let readers have what was written, while the shard stays open."""
        with self._lock:
            self._check_open()
            self._flush()
            self._hand_over()

    def _hand_over(self) -> None:
        """Let the copy, if there is a complete one, replace the folder that readers link."""
        if not (self._copied and self._is_intact):
            return
        old = self._catalog.entry(self.name).folder
        self._catalog.set_folders(self.name, folder=self._folder.name, writing="")
        self._copied = False
        self._in_place = FileLock(self._folder)
        self._discard(self._catalog.folder(old))

    def abandon(self) -> None:
        """Close the shard of a collection that the catalog no longer has, or that cannot be
        loaded."""
        with self._lock:
            self.closed = True
            try:
                super()._close_engine()
            finally:
                self._release()

    def _release(self) -> None:
        self._in_place.release()
        self._writer_lock.release()

    def _loaded(self) -> e.EdgeShard:
        engine = super()._loaded()
        self._is_intact = True
        return engine

    def _claim(self) -> None:
        """Make the folder one that no reader uses: take it from them, or copy it."""
        if self._copied or self._in_place.held:
            return
        # Idle readers release the folder.
        self._writer_lock.touch()
        if self._in_place.take(wait=LET_GO_SECONDS):
            note_writing(self._folder)
        else:
            # A reader searches it at the moment.
            self._close_engine()
            self._move_to_copy()

    def _move_to_copy(self) -> None:
        """Copy the folder, whose shard is closed; the copy is written from now on. Raises
        StoreError if the disk has no room for it."""
        source = self._folder
        target = self._catalog.folder(f"{self.name}{COPY_SEPARATOR}{uuid.uuid4().hex[:8]}")
        with folder_errors(source):
            require_space(source.parent, self._min_free + allocated_bytes(source))
            try:
                copy_shard(source, target)
                note_writing(target)
                self._catalog.set_folders(self.name, folder=source.name, writing=target.name)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
        self._folder = target
        self._copied = True
        self._is_intact = True

    def _flush(self) -> None:
        if self._engine is not None:
            with engine_errors(self.name, self._folder):
                self._engine.flush()
            self._let_readers_in()

    def _close_engine(self) -> None:
        if self._engine is not None:
            super()._close_engine()
            self._let_readers_in()

    def _let_readers_in(self) -> None:
        """Let readers have views of the folder: all that was written is flushed."""
        self._unflushed = 0
        with folder_errors(self._folder):
            (self._folder / UNFLUSHED).unlink(missing_ok=True)
        self._in_place.release()
