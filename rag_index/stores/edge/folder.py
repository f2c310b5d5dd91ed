"""The folder of the embedded store: locks, free space, and errors of filesystem and engine as errors of ours."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shlex
import sys
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

POLL = 0.02
COMMAND_CHARS = 120
PATIENCE = 2.0
"""How long the writer of a collection is waited for in any case: it may be about to close."""
LOCK_SECONDS = 10.0
"""How long to wait for another process that locks the store, which takes milliseconds."""


class FileLock:
    """A lock on a file, or on a folder that exists, held from `take` until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = -1
        """That of the file while this object holds the lock. A child process that inherits it keeps the file locked."""

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self.descriptor >= 0

    def take(self, *, shared: bool = False, wait: float = 0.0) -> bool:
        """Return whether the lock was free within `wait` seconds. Raises OSError if there is no such file."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        deadline = time.monotonic() + wait
        try:
            while not _lock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(POLL)
        except BaseException:
            os.close(descriptor)
            raise
        self.descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock, which a forked child may have inherited. A second call does nothing."""
        if self.held:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = -1


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Let no other process change the catalog or the readers of a store for the time of the block."""
    lock = FileLock(store)
    with folder_errors(store):
        if not lock.take(wait=LOCK_SECONDS):
            raise StoreBusy(f"the store at {store} is locked by a process that hangs: end that process")
        try:
            yield
        finally:
            lock.release()


class WriterLock(FileLock):
    """The lock of the one process that writes a collection, held until `release` or the end of the process.

    Its file names the process. Locking waits up to `wait` seconds, then raises StoreBusy with that name.
    """

    def __init__(self, store: Path, name: str, *, wait: float = 0.0) -> None:
        file = writer_file(store, name)
        super().__init__(file)
        with folder_errors(store):
            file.touch(0o600)
            if not self.take(wait=wait):
                raise StoreBusy(
                    f"collection {name} of the store at {store} is open in {writer(store, name)}: "
                    "wait for it (--wait SECONDS) or use a Qdrant server"
                )
        with suppress(OSError):  # a full disk can still be searched; others are then told of "another process"
            file.write_bytes(_own_name())


def writer_file(store: Path, name: str) -> Path:
    """Return the file that the writer of a collection locks."""
    return store / "writers" / name


def writer(store: Path, name: str) -> str:
    """Return who writes a collection, in words."""
    try:
        found = json.loads(writer_file(store, name).read_bytes())
        pid, command, since = (found[key] for key in ("pid", "command", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return f"process {pid} ({command}) since {since}"


def _own_name() -> bytes:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:COMMAND_CHARS] if sys.argv else ""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "command": command, "since": since}).encode()


def _lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def require_space(folder: Path, needed: int) -> None:
    """Raise StoreError if fewer than `needed` bytes are free on the folder's disk.

    The engine writes through memory maps of sparse files. On a full disk the kernel kills the process (SIGBUS) instead
    of returning an error, so space must be checked before it is used.
    """
    with folder_errors(folder):
        disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise StoreError(
            f"no space left for the store at {folder}: {free / 1e6:.0f} MB are free and {needed / 1e6:.0f} MB are "
            "needed to continue safely; free some, then run again"
        )


def disk_full(text: str) -> bool:
    """Return whether an error's text says that a disk is full."""
    return any(sign in text.lower() for sign in ("no space left", "disk full", "storagefull", "out of disk"))


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that names the folder and the remedy."""
    try:
        yield
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"no space left for the store at {folder}: free some, then run again") from exc
        if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreError(
                f"cannot write to the store at {folder}: {exc.strerror}; "
                "make it writable for this user, set `data` to a folder that is, or set another [store] path"
            ) from exc
        raise StoreError(
            f"the store at {folder} cannot be used: {exc}; set `data` to a folder that can, or set another [store] path"
        ) from exc


@contextmanager
def engine_errors(name: str, folder: Path) -> Iterator[None]:
    """Turn the engine's bare exceptions and panics into errors of ours, for collection `name` with its shard folder."""
    try:
        yield
    except RagIndexError:
        raise
    except BaseException as exc:
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        if disk_full(str(exc)):
            raise StoreError(f"no space left for collection {name} at {folder}: free some, then run again") from exc
        if not folder.exists():
            raise StoreError(f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`") from exc
        raise StoreError(f"the embedded Qdrant failed on {name} at {folder}: {exc}") from exc
