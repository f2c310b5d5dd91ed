"""The folder of the embedded store: locks, free space, and errors of filesystem and engine as errors of ours."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
import socket
import sys
import time
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.errors import RagIndexError, StoreBusy, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

BATCH = ".batch"
"""The file that a batch locks while it waits for the folder."""
POLL = 0.1
COMMAND_CHARS = 120
BRIEF_POLL = 0.01
"""A holder that writes one batch after another unlocks the folder in between for some times as long."""
ASK_SECONDS = 5.0
"""How long a batch waits for a holder that lets batches in."""
NAMELESS_SECONDS = 5.0
"""How long a holder without a name is waited for: it has just locked the folder, or is about to unlock it."""
FILE_POLL = 0.01


class FolderLock:
    """An exclusive lock on `FOLDER/.lock`, held until `release` or the end of the process, however it ends.

    The file names the holder. Locking waits up to `wait` seconds, then raises StoreBusy with the holder's name; for a
    holder that is `brief` it waits `brief_wait` seconds, if that is more. A holder that `lets_batches_in` looks at
    `batch_waits`, and releases the lock for a while. Whoever is `brief` itself asks for that, and waits `ASK_SECONDS`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        wait: float = 0.0,
        brief: bool = False,
        brief_wait: float = 0.0,
        lets_batches_in: bool = False,
    ) -> None:
        self._folder, self._asks = folder, brief
        self._own = _own_process(brief=brief, lets_batches_in=lets_batches_in)
        waits = {"brief": max(wait, brief_wait), "lets_batches_in": max(wait, ASK_SECONDS if brief else 0.0)}
        with folder_errors(folder):
            self._file: int | None = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _asking(folder) if brief else nullcontext():
                self._lock(self._file, wait, waits)
        except BaseException:
            self._close()
            raise

    @property
    def descriptor(self) -> int:
        """The locked file's descriptor. A child process that inherits it keeps the folder locked while it runs."""
        if self._file is None:
            raise StoreError(f"the store at {self._folder} is closed")
        return self._file

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
        self._close()

    def _lock(self, file: int, wait: float, waits: Mapping[str, float]) -> None:
        began = time.monotonic()
        until = began + wait
        nameless = 0.0
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as exc:
                content = os.pread(file, 4096, 0)
                nameless = 0.0 if content else nameless or time.monotonic()
                soon = [began + waits[kind] for kind in waits if _is_holder(kind, content)]
                soon += [nameless + NAMELESS_SECONDS] if nameless else []
                end = max([until, *soon])
                until = end if self._asks else until  # while the holder lets it in, the file names nobody
                left = end - time.monotonic()
                if left <= 0:
                    raise StoreBusy(self._busy_message(file)) from exc
                time.sleep(min(BRIEF_POLL if soon else POLL, left))
            except OSError as exc:
                raise StoreError(f"cannot lock the store at {self._folder}: {exc.strerror}; use a local disk") from exc
        with suppress(OSError):  # a full disk can still be searched; others are then told of "another process"
            os.ftruncate(file, 0)
            os.pwrite(file, self._own, 0)

    def _busy_message(self, file: int) -> str:
        return (
            f"the store at {self._folder} is open in {_holder(os.pread(file, 4096, 0))}: "
            "wait for it (--wait SECONDS) or use a Qdrant server"
        )

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def batch_waits(folder: Path) -> bool:
    """Return whether a batch of another process waits for the lock of the store's folder."""
    lock = FileLock(folder / BATCH)
    try:
        return not lock.take(shared=True)
    except FileNotFoundError:
        return False
    finally:
        lock.release()


@contextmanager
def _asking(folder: Path) -> Iterator[None]:
    """Ask the holder of the lock to let a batch in, for the time of the block or until this process dies."""
    with folder_errors(folder):
        (folder / BATCH).touch()
        lock = FileLock(folder / BATCH)
        lock.take()  # another batch that waits asks for both
    try:
        yield
    finally:
        lock.release()


def _own_process(*, brief: bool, lets_batches_in: bool) -> bytes:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]) if sys.argv else ""
    return json.dumps(
        {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "command": command[:COMMAND_CHARS],
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "brief": brief,
            "lets_batches_in": lets_batches_in,
        }
    ).encode()


def _is_holder(kind: str, content: bytes) -> bool:
    """Return whether the holder unlocks the folder soon: it is `brief`, or `lets_batches_in`."""
    try:
        return bool(json.loads(content).get(kind))
    except (ValueError, AttributeError):
        return False


def holder(folder: Path) -> str:
    """Return who holds the lock of the store's folder, in words."""
    try:
        return _holder((folder / ".lock").read_bytes())
    except OSError:
        return "another process"


def _holder(content: bytes) -> str:
    try:
        found = json.loads(content)
        pid, host, command, since = (found[key] for key in ("pid", "host", "command", "since"))
    except (ValueError, KeyError, TypeError):
        return "another process"
    where = "" if host == socket.gethostname() else f" on {host}"
    if not where and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
        return (
            f"a child of process {pid} ({command}), which has ended; it started {since} and frees the store when done"
        )
    return f"process {pid}{where} ({command}) since {since}"


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
        if exc.errno in (errno.ENOTDIR, errno.EEXIST):
            raise StoreError(
                f"the store at {folder} is not a folder: {exc.filename} is a file; set another [store] path"
            ) from exc
        raise StoreError(f"the store at {folder} cannot be used: {exc}") from exc


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


class FileLock:
    """A lock on a file, or on a folder that exists, held from `take` until `release` or the end of the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def take(self, *, shared: bool = False, wait: float = 0.0) -> bool:
        """Return whether the lock was free within `wait` seconds. Raises OSError if there is no such file."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        deadline = time.monotonic() + wait
        try:
            while not _locked(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX):
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    return False
                time.sleep(FILE_POLL)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def engine_errors(name: str, folder: Path) -> Iterator[None]:
    """Turn the engine's bare exceptions and panics into errors of ours."""
    try:
        yield
    except RagIndexError:
        raise
    except BaseException as exc:
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        raise store_error(str(exc), name, folder) from exc


def store_error(message: str, name: str, folder: Path) -> StoreError:
    """Return our error for the engine's message on collection `name`, whose shard is in `folder`."""
    if "WouldBlock" in message:
        return StoreBusy(f"collection {name} at {folder} is open in another process: wait for it")
    if disk_full(message):
        return StoreError(f"no space left for collection {name} at {folder}: free some, then run again")
    if re.search("permission denied|read-only file system", message, re.IGNORECASE):
        return StoreError(f"cannot write to {folder} ({message}): make it writable for this user")
    if "does not exist" in message:
        return StoreError(f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`")
    return StoreError(f"the embedded Qdrant failed on {name} at {folder}: {message}")
