"""The files of a shard folder: who may write them, copies that a writer changes, and views of readers.

The engine writes its files in place, so a file that two folders share must not be written. What it corrects when it
loads a shard (versions of deleted points, counters) is in small files. A view has copies of those, and shares the rest.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.database.files import replace_file
from rag_index.documents.commits import CommitMark
from rag_index.errors import StoreBusy
from rag_index.stores.edge.folder import FileLock, folder_errors, require_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.stores.edge.catalog import Catalog

MARK = "commit.json"
"""The file with the collection's last commit. It is in the shard folder, so whoever copies that copies it too."""
CONFIG = "edge_config.json"
LOG = "wal"
CORRECTED = (".versions",)
"""The ends of the names of files that the engine may correct when it loads a shard."""
MIN_LINKED = 256 * 1024
"""Smaller files are copied into a view, which takes no longer than linking them."""
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""What filesystems say that cannot link. A view then has copies."""

READERS = "readers"
LOCK_SECONDS = 10.0
"""How long to wait for another process to enter or remove readers, which takes milliseconds."""
COPY_MARK = "~"
"""What follows the collection in the name of a copied folder. No collection's name contains it."""
LINK_SECONDS = 1.0
"""How long to wait for a reader that is linking the folder. After that it counts as one that has a view."""


def allocated_bytes(folder: Path) -> int:
    """Return how much of the disk a folder takes; the engine's files are sparse."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file())


def read_mark(folder: Path) -> CommitMark:
    """Return the mark of the last commit whose points the folder has. Raises OSError."""
    try:
        return CommitMark.parse(json.loads((folder / MARK).read_bytes()))
    except (FileNotFoundError, ValueError):
        return CommitMark()


def write_mark(folder: Path, mark: CommitMark) -> None:
    """Write the mark of the last commit, so that a power cut leaves the old or the new one. Raises OSError."""
    replace_file(folder / MARK, json.dumps(asdict(mark)).encode())


def copy_shard(source: Path, target: Path) -> None:
    """Copy a shard folder that nobody writes, its log too. The copy is on disk when this returns. Raises OSError."""
    for file, copy in _walk(source, target):
        _copy(file, copy, sync=True)
    for folder in (target.parent, target, *(path for path in target.rglob("*") if path.is_dir())):
        _sync(folder)


def link_shard(source: Path, target: Path) -> None:
    """Make a folder that shows the shard, with hard links to its large files and without a log. Raises OSError.

    Nobody may write the source's files as long as the view exists. The engine keeps no log for it, so that it reserves
    no space.
    """
    for file, copy in _walk(source, target, without=LOG):
        if file.stat().st_blocks * 512 < MIN_LINKED or file.name.endswith(CORRECTED):
            _copy(file, copy)
            continue
        try:
            os.link(file, copy)
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            _copy(file, copy)
    with suppress(ValueError):  # the engine says that it is damaged
        config = json.loads((target / CONFIG).read_bytes())
        (target / CONFIG).write_text(json.dumps({**config, "wal_enabled": False}))


def _walk(source: Path, target: Path, *, without: str = "") -> Iterator[tuple[Path, Path]]:
    """Create the folders of the source in the target; yield each file and the path that it has there."""
    for folder, folders, files in os.walk(source, onerror=_raise):
        here = target / os.path.relpath(folder, source)
        here.mkdir(parents=True)
        if without in folders and here == target:
            folders.remove(without)
        for name in files:
            yield Path(folder, name), here / name


def _raise(error: OSError) -> None:
    raise error


def _copy(source: Path, target: Path, *, sync: bool = False) -> None:
    """Copy a file without its holes. The kernel shares the data where the filesystem can (Btrfs, XFS)."""
    with source.open("rb") as old, target.open("xb") as new:
        size = os.fstat(old.fileno()).st_size
        os.ftruncate(new.fileno(), size)
        for start, end in _extents(old.fileno(), size):
            _copy_range(old.fileno(), new.fileno(), start, end)
        if sync:
            os.fsync(new.fileno())


def _extents(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the ranges of a file that hold data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # nothing but a hole
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


def _copy_range(old: int, new: int, start: int, end: int) -> None:
    while start < end:
        copied = os.copy_file_range(old, new, end - start, start, start)
        if not copied:
            raise OSError(errno.EIO, "a file of the store became shorter while it was copied")
        start += copied


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_dead_readers(path: Path) -> None:
    """Remove what readers left that did not end in order. Raises StoreError."""
    if not (path / READERS).exists():
        return
    with entering(path):
        for folder in (path / READERS).iterdir():
            lock = FileLock(folder / ".lock")
            try:
                dead = lock.take()
            except FileNotFoundError:  # it died while it entered
                dead = True
            if dead:
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def viewed_folders(path: Path) -> set[str]:
    """Return the names of the collections' folders that readers, alive or dead, have views of."""
    return {view.name for view in (path / READERS).glob("*/views/*")}


def wanted_collections(path: Path) -> set[str]:
    """Return the names of the collections that readers ask a writer for."""
    return {asked.name for asked in (path / READERS).glob("*/wanted/*")}


def is_being_written(folder: Path) -> bool:
    """Return whether the writer of a collection's folder lives: it has let a batch of another collection in."""
    lock = FileLock(folder)
    try:
        return not lock.take()
    except FileNotFoundError:
        return False
    finally:
        lock.release()


@contextmanager
def entering(path: Path) -> Iterator[None]:
    """Let no other process enter or remove readers for the time of the block."""
    lock = FileLock(path / READERS)
    with folder_errors(path):
        if not lock.take(wait=LOCK_SECONDS):
            raise StoreBusy(f"the readers of the store at {path} are locked by a process that hangs: end that process")
        try:
            yield
        finally:
            lock.release()


class WriteClaim:
    """The claim of the one writer on the folder of one collection. The collection calls it under its own lock.

    No folder is written while a reader has a view of it. Without readers the writer changes the folder in place, as the
    catalog then says; otherwise it changes a copy, which `publish` puts in the folder's place. A kill at any moment
    leaves the name of the folder with all writes in the catalog.

    `discard` deletes a folder that no process needs by its name any more.
    """

    def __init__(
        self, name: str, path: Path, catalog: Catalog, *, min_free: int, discard: Callable[[Path], None]
    ) -> None:
        self._name, self._path, self._catalog = name, path, catalog
        self._min_free, self._discard = min_free, discard
        self._lock: FileLock | None = None
        self._held = False

    @property
    def folder(self) -> Path:
        """The folder with all writes."""
        return self._folder(self._catalog.entry(self._name).newest)

    @property
    def viewed(self) -> bool:
        """Whether a reader, alive or dead, has a view of the folder."""
        return self.folder.name in viewed_folders(self._path)

    @property
    def held(self) -> bool:
        """Whether the folder may be written."""
        return self._held

    @property
    def in_place(self) -> bool:
        """Whether the folder that readers would link is being written."""
        return self._held and self._catalog.entry(self._name).in_place

    def take_in_place(self) -> bool:
        """Return whether the folder itself may be written from now on: no reader has a view of it.

        The shard must be loaded: if a writer was killed, that has completed what it wrote.
        """
        entry = self._catalog.entry(self._name)
        if entry.writing and not entry.in_place:  # a copy that a killed writer left, which no reader can have
            self._hold(self.folder)
            return True
        with folder_errors(self._path):
            remove_dead_readers(self._path)
            lock = FileLock(self.folder)
            if not lock.take(wait=LINK_SECONDS):
                return False
        try:
            if self.viewed:
                lock.release()
                return False
            self._catalog.set_folders(self._name, folder=self.folder.name, writing=self.folder.name)
        except BaseException:
            lock.release()
            raise
        self._lock, self._held = lock, True
        return True

    def move_to_copy(self) -> None:
        """Copy the folder; the copy may be written from now on. The shard must be flushed and closed.

        Raises StoreError if the disk has no room for it.
        """
        source = self.folder
        target = self._folder(f"{self._name}{COPY_MARK}{uuid.uuid4().hex[:8]}")
        with folder_errors(self._path):
            require_space(self._path, self._min_free + allocated_bytes(source))
            try:
                copy_shard(source, target)
                self._hold(target)  # before the catalog names it: it might seem to be left by a killed writer
                self._catalog.set_folders(self._name, folder=source.name, writing=target.name)
            except BaseException:
                self.release()
                shutil.rmtree(target, ignore_errors=True)
                raise

    def publish(self) -> None:
        """Let readers have everything that was written, and give the claim back. The shard must be flushed.

        A copy must be closed too. Without a claim this does nothing.
        """
        if not self._held:
            return
        entry = self._catalog.entry(self._name)
        self._catalog.set_folders(self._name, folder=entry.newest, writing="")
        self.release()
        if entry.newest != entry.folder:
            self._discard(self._folder(entry.folder))

    def release(self) -> None:
        """Unlock the folder. Without `publish`, the catalog still says that it was being written."""
        self._held = False
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _hold(self, folder: Path) -> None:
        """Lock a folder that nobody else uses, so that other processes see that its writer lives."""
        lock = FileLock(folder)
        with folder_errors(self._path):
            if not lock.take(wait=LINK_SECONDS):
                raise StoreBusy(f"{folder} is being written by another process: wait until that has ended")
        self._lock, self._held = lock, True

    def _folder(self, name: str) -> Path:
        return self._path / "collections" / name
