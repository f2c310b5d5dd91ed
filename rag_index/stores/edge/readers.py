"""The processes that search an embedded store: the folders with their views, and what they ask of a writer.

    PATH/readers/ID/.lock            held by the reader as long as it lives
    PATH/readers/ID/views/FOLDER     its view of a collection's folder
    PATH/readers/ID/wanted/NAME      a collection that it asks the writer for

Whoever finds the lock of a reader free removes what that reader left.
"""

from __future__ import annotations

import shutil
import threading
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rag_index.database.files import private_folder
from rag_index.errors import StoreBusy
from rag_index.stores.edge.folder import folder_errors
from rag_index.stores.edge.locks import FileLock
from rag_index.stores.edge.shard_files import link_shard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

READERS = "readers"
LOCK_SECONDS = 10.0
"""How long to wait for another process to enter or remove readers, which takes milliseconds."""


class Reader:
    """The folder of one reader of the store at `path`, made when it first links something."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = path / READERS / uuid.uuid4().hex
        self._lock = FileLock(self._folder / ".lock")
        self._entering = threading.Lock()

    def link(self, folder: Path, still_valid: Callable[[], bool]) -> Path | None:
        """Return a new view of a collection's folder; None if a writer has the folder, or it is not `still_valid`.

        Raises StoreError. A folder that does not exist is not linked either.
        """
        self._enter()
        view = self._folder / "views" / folder.name
        lock = FileLock(folder)
        with folder_errors(self._path):
            try:
                if not lock.take(shared=True):
                    return None
            except FileNotFoundError:
                return None
            try:
                if not still_valid():
                    return None
                shutil.rmtree(view, ignore_errors=True)
                link_shard(folder, view)
            except BaseException as exc:
                shutil.rmtree(view, ignore_errors=True)
                if isinstance(exc, FileNotFoundError):  # it was replaced, and is being deleted
                    return None
                raise
            finally:
                lock.release()
        return view

    def want(self, name: str) -> None:
        """Ask the writer to let go of a collection that it writes in place. Raises StoreError."""
        self._enter()
        with folder_errors(self._path):
            (self._folder / "wanted" / name).touch()

    def stop_wanting(self, name: str) -> None:
        """Take back what `want` asked."""
        with suppress(OSError):
            (self._folder / "wanted" / name).unlink(missing_ok=True)

    def close(self) -> None:
        """Remove all views and leave. A second call does nothing."""
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
            with _entering(self._path):
                for folder in (self._folder, self._folder / "views", self._folder / "wanted"):
                    folder.mkdir()
                (self._folder / ".lock").touch()
                self._lock.take()


def remove_dead_readers(path: Path) -> None:
    """Remove what readers left that did not end in order. Raises StoreError."""
    if not (path / READERS).exists():
        return
    with _entering(path):
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


@contextmanager
def _entering(path: Path) -> Iterator[None]:
    """Let no other process enter or remove readers for the time of the block."""
    lock = FileLock(path / READERS)
    with folder_errors(path):
        if not lock.take(wait=LOCK_SECONDS):
            raise StoreBusy(f"the readers of the store at {path} are locked by a process that hangs: end that process")
        try:
            yield
        finally:
            lock.release()
