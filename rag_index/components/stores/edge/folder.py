"""The folder of the embedded store: its locks, free space and errors, its catalog, and the files of
a shard folder. In a shard folder are marker files beside the engine's own files, copies that a
writer changes, and views of readers. The engine writes its files in place, so a file that two
folders share must not be written. What it corrects when it loads a shard (versions of deleted
points, counters) is in small files. A view has copies of those, and shares the rest."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rag_index.core.documents.batches import CommitMark
from rag_index.core.files import (
    DISK_FULL,
    NOT_ALLOWED,
    file_stamp,
    replace_file,
    sync_path,
    unwritable,
)
from rag_index.errors import RagIndexError, StoreBusy, StoreError, StoreMismatch, StoreRefused
from rag_index.quotes import without_values

ELSEWHERE = "set `data` or [store] path to another folder"
NOT_ALLOWED_WORDS = ("Permission denied", "Read-only file system")
LOCK_POLL = 0.02
COMMAND_CHARS = 120
WRITER_PATIENCE = 5.0
"""How long the writer of a collection is waited for in any case: it may be about to close, or a
watch that lets go."""
WANTED_SECONDS = 0.5
"""How often a process that waits for the writer of a collection says so."""
LET_GO_SECONDS = 0.3
"""How long a writer waits for an idle reader to let go of a collection, before it writes a copy."""
LOCK_SECONDS = 10.0
"""How long to wait for another process that locks the store, which takes milliseconds."""
COMMIT_FILE = "commit.json"
"""The file with the collection's last commit. It is in the shard folder, so a copy of the folder
has it too."""
UNWRITTEN = "unwritten"
"""The file that says that the shard never had a point. A view of it keeps no process from writing
in place."""
UNFLUSHED = "unflushed"
"""The file that says that the log has writes that the rest of the files may lack: loading the shard
repeats them."""
CONFIG = "edge_config.json"
LOG = "wal"
CORRECTED = (".versions",)
"""The ends of the names of files that the engine may correct when it loads a shard."""
MIN_LINKED = 256 * 1024
"""Smaller files are copied into a view, which takes no longer than linking them."""
CATALOG_VERSION = 2


class FileLock:
    """A lock on a file, or on a folder that exists, held from `take` until `release` or the end of
    the process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.descriptor = -1
        """That of the file while this object holds the lock. A child process that inherits it keeps
        the file locked."""

    @property
    def held(self) -> bool:
        return self.descriptor >= 0

    def take(self, *, shared: bool = False, wait: float = 0.0) -> bool:
        """Return whether the lock was free within `wait` seconds. Raises OSError if there is no
        such file."""
        descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        deadline = time.monotonic() + wait
        try:
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(
                        descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
                    )
                    self.descriptor = descriptor
                    return True
                if time.monotonic() >= deadline:
                    return False
                time.sleep(LOCK_POLL)
        finally:
            if self.descriptor != descriptor:
                os.close(descriptor)

    def release(self) -> None:
        """Release the lock, which a forked child may have inherited. A second call does nothing."""
        if self.held:
            fcntl.flock(self.descriptor, fcntl.LOCK_UN)
            os.close(self.descriptor)
            self.descriptor = -1


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Let no other process change the catalog or the readers of a store for the time of the
    block."""
    lock = FileLock(store)
    with folder_errors(store):
        if not lock.take(wait=LOCK_SECONDS):
            raise StoreBusy(
                f"the store at {store} is locked by a process that hangs: end that process"
            )
        try:
            yield
        finally:
            lock.release()


class WriterLock(FileLock):
    """The lock of the one process that writes a collection, held until `release` or the end of the
    process. Its file names the process. Locking waits up to `wait` seconds, then raises StoreBusy
    with that name."""

    def __init__(self, store: Path, name: str, *, wait: float = 0.0) -> None:
        file = writer_file(store, name)
        super().__init__(file)
        with folder_errors(store):
            file.touch(0o600)
            if not self.take() and not self._ask_for_it(wanted_file(store, name), wait):
                raise StoreBusy(
                    f"collection {name} of the store at {store} is open in {writer(store, name)}: "
                    "wait for it (--wait SECONDS) or use a Qdrant server"
                )
            wanted_file(store, name).unlink(missing_ok=True)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "command": _command(), "since": since}
        # On a full disk the collection can still be searched. Messages of other processes then
        # name "another process".
        with suppress(OSError):
            file.write_text(json.dumps(holder))

    def touch(self) -> None:
        """Let readers know that the collection is about to be written: idle ones let go of it."""
        with folder_errors(self._path):
            self._path.touch()

    def _ask_for_it(self, asked: Path, wait: float) -> bool:
        """Return whether the lock was free within `wait` seconds. A watch that holds it sees that
        it is `asked` for."""
        end = time.monotonic() + wait
        while (left := end - time.monotonic()) > 0:
            asked.touch(0o600)
            if self.take(wait=min(left, WANTED_SECONDS)):
                return True
        return False


def _command() -> str:
    """Return the command of this process without options, their values and URLs, which may be
    secret: "rag-index index-all comments"."""
    words = [Path(sys.argv[0] if sys.argv else "").name]
    for word, before in zip(sys.argv[1:], sys.argv, strict=False):
        if not (word.startswith("-") or before.startswith("-")):
            words.append(re.sub(r"://.*", "://…", word))
    return shlex.join(words)[:COMMAND_CHARS]


def writer_file(store: Path, name: str) -> Path:
    """Return the file that the writer of a collection locks."""
    return store / "writers" / name


def wanted_file(store: Path, name: str) -> Path:
    """Return the file that says that another process waits to write the collection."""
    return store / "writers" / f"{name}~wanted"


def writer(store: Path, name: str) -> str:
    """Return who writes a collection, in words."""
    try:
        found = json.loads(writer_file(store, name).read_bytes())
        pid, command, since = (found[key] for key in ("pid", "command", "since"))
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    return f"process {pid} ({command}) since {since}"


def last_writer(store: Path, name: str) -> int:
    """Return a number that changes when a process comes to write a collection."""
    try:
        return writer_file(store, name).stat().st_mtime_ns
    except OSError:
        return 0


def require_space(folder: Path, needed: int) -> None:
    """Raise StoreError if fewer than `needed` bytes are free on the folder's disk. The engine
    writes through memory maps of sparse files. On a full disk the kernel kills the process (SIGBUS)
    instead of returning an error, so space must be checked before it is used."""
    with folder_errors(folder):
        disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    if free < needed:
        raise StoreRefused(
            f"no space left for the store at {folder}: {free / 1e6:.0f} MB are free and"
            f" {needed / 1e6:.0f} MB are needed to continue safely; free some, then run again"
        )


def disk_full(text: str) -> bool:
    """Return whether an error's text says that a disk is full."""
    lower = text.lower()
    signs = ("no space left", "disk full", "storagefull", "out of disk")
    return any(sign in lower for sign in signs)


@contextmanager
def folder_errors(folder: Path) -> Iterator[None]:
    """Turn an OSError of the block into a StoreError that names the folder and the remedy."""
    try:
        yield
    except OSError as exc:
        if exc.errno in DISK_FULL:
            raise StoreRefused(
                f"no space left for the store at {folder}: free some, then run again"
            ) from exc
        if exc.errno in NOT_ALLOWED:
            raise StoreRefused(f"the store {unwritable(folder, exc, ELSEWHERE)}") from exc
        raise StoreError(
            f"the store at {folder} cannot be used: {exc}; set `data` to a folder that can, or set"
            " another [store] path"
        ) from exc


@contextmanager
def engine_errors(name: str, folder: Path) -> Iterator[None]:
    """Turn the engine's bare exceptions and panics into errors of ours, for collection `name` with
    its shard folder."""
    try:
        yield
    except RagIndexError:
        raise
    except BaseException as exc:
        if not isinstance(exc, Exception) and type(exc).__name__ != "PanicException":
            raise
        if disk_full(str(exc)):
            raise StoreRefused(
                f"no space left for collection {name} at {folder}: free some, then run again"
            ) from exc
        if reason := next((words for words in NOT_ALLOWED_WORDS if words in str(exc)), ""):
            raise StoreRefused(
                f"the store {unwritable(folder, OSError(reason), ELSEWHERE)}"
            ) from exc
        if not folder.exists():
            raise StoreError(
                f"the folder of collection {name}, {folder}, is gone: run `rag-index rebuild`"
            ) from exc
        raise StoreError(
            f"the embedded Qdrant failed on {name} at {folder}: {without_values(str(exc))}"
        ) from exc


def allocated_bytes(folder: Path) -> int:
    """Return how much of the disk a folder takes; the engine's files are sparse."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(file.stat().st_blocks * 512 for file in files)


def read_commit_mark(folder: Path) -> CommitMark:
    """Return the mark of the last commit whose points the folder has; number 0 if there is none.
    Raises OSError."""
    try:
        return CommitMark.parse(json.loads((folder / COMMIT_FILE).read_bytes()))
    except (FileNotFoundError, ValueError):
        return CommitMark()


def write_commit_mark(folder: Path, commit_mark: CommitMark) -> None:
    """Write the commit mark, so that a power cut leaves the old or the new one. Raises OSError."""
    content = json.dumps(asdict(commit_mark)).encode()
    replace_file(folder / COMMIT_FILE, content)


def note_writing(folder: Path) -> None:
    """Record on disk that the shard is about to be written. Raises OSError."""
    (folder / UNFLUSHED).touch()
    (folder / UNWRITTEN).unlink(missing_ok=True)
    sync_path(folder)


def copy_shard(source: Path, target: Path) -> None:
    """Copy a shard folder that no process writes, with its log, and flush the copy to disk. Raises
    OSError."""
    for file, copy in _walk(source, target):
        _copy(file, copy, sync=True)
    for folder in (target.parent, target, *(path for path in target.rglob("*") if path.is_dir())):
        sync_path(folder)


def link_shard(source: Path, target: Path) -> None:
    """Fill an empty folder with hard links to the shard's large files, and copies of the small ones
    but the log. No process may write the source's files while this view exists, unless the shard
    never had a point: then all are copied. The engine keeps no log for it, so that it reserves no
    space. Raises OSError."""
    small = sys.maxsize if (source / UNWRITTEN).exists() else MIN_LINKED
    for file, copy in _walk(source, target, without=LOG):
        if file.stat().st_blocks * 512 < small or file.name.endswith(CORRECTED):
            _copy(file, copy)
        else:
            os.link(file, copy)
    with suppress(ValueError):  # the engine says that it is damaged
        config = json.loads((target / CONFIG).read_bytes())
        (target / CONFIG).write_text(json.dumps({**config, "wal_enabled": False}))


def _walk(source: Path, target: Path, *, without: str = "") -> Iterator[tuple[Path, Path]]:
    """Create the folders of the source in the target; yield each file and the path that it has
    there."""
    for folder, folders, files in os.walk(source, onerror=_raise):
        here = target / os.path.relpath(folder, source)
        here.mkdir(exist_ok=True)
        if without in folders and here == target:
            folders.remove(without)
        for name in files:
            yield Path(folder, name), here / name


def _raise(error: OSError) -> None:
    raise error


def _copy(source: Path, target: Path, *, sync: bool = False) -> None:
    """Copy a file without its holes. The kernel shares the data where the filesystem can (Btrfs,
    XFS)."""
    with source.open("rb") as old, target.open("xb") as new:
        size, end = os.fstat(old.fileno()).st_size, 0
        os.ftruncate(new.fileno(), size)
        while end < size:
            try:
                start = os.lseek(old.fileno(), end, os.SEEK_DATA)
            except OSError as exc:
                if exc.errno != errno.ENXIO:
                    raise
                break  # nothing but a hole
            end = os.lseek(old.fileno(), start, os.SEEK_HOLE)
            while start < end:
                copied = os.copy_file_range(old.fileno(), new.fileno(), end - start, start, start)
                if not copied:
                    raise OSError(
                        errno.EIO, "a file of the store became shorter while it was copied"
                    )
                start += copied
        if sync:
            os.fsync(new.fileno())


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A collection: the dimension of its vectors, its metadata, and whether its points have sparse
    vectors too."""

    dimension: int
    metadata: dict[str, Any]
    sparse: bool
    folder: str
    """The folder that readers link."""
    made: str
    """What tells a collection from an earlier one of the same name."""
    writing: str = ""
    """The copy of the folder that a writer changes or, if it was killed, has changed."""

    @property
    def newest(self) -> str:
        """The folder with all writes."""
        return self.writing or self.folder


class Catalog:
    """The catalog of a store, as `StoreNames`. A change is on disk before a reader sees it; one
    that fails is none. What other processes changed is read by `refresh`, and before each change.
    Safe to use from several threads."""

    def __init__(self, store: Path) -> None:
        self._store = store
        self._file = store / "catalog.json"
        self._lock = threading.RLock()
        self._state: tuple[dict[str, CatalogEntry], dict[str, str]] = {}, {}
        """Collections and aliases, replaced together."""
        self._load()

    def refresh(self) -> None:
        with self._lock:
            if file_stamp(self._file) != self._stamp:
                self._load()

    def entries(self) -> dict[str, CatalogEntry]:
        return dict(self._state[0])

    def names(self) -> set[str]:
        return set(self._state[0])

    def collections(self) -> dict[str, dict[str, Any]]:
        return {name: deepcopy(entry.metadata) for name, entry in self._state[0].items()}

    def find(self, name: str) -> dict[str, Any] | None:
        return self.collections().get(name)

    def commit_mark(self, name: str) -> CommitMark:
        with folder_errors(self._store):
            return read_commit_mark(self.folder(self.entry(name).newest))

    def aliases(self) -> dict[str, str]:
        return dict(self._state[1])

    def resolve(self, name: str) -> str:
        """Return the collection that a name or an alias stands for. Raises StoreError if there is
        none."""
        entries, aliases = self._state
        found = aliases.get(name, name)
        if found not in entries:
            known = ", ".join(sorted({*entries, *aliases})) or "none"
            raise StoreError(
                f"no collection or alias {name!r} in the store (it has: {known}): run the index"
                " first"
            )
        return found

    def entry(self, name: str) -> CatalogEntry:
        with self._lock:
            return self._state[0][self.resolve(name)]

    def folder(self, name: str) -> Path:
        return self._store / "collections" / name

    def add(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False
    ) -> None:
        """Add a collection, whose folder has its own name. Raises StoreMismatch if the name is an
        alias."""
        with self._changing() as (entries, aliases):
            if name in aliases:
                raise StoreMismatch(
                    f"{name} is an alias of {aliases[name]}: a collection cannot have the same name"
                )
            entries[name] = CatalogEntry(
                dimension, _without_none(metadata), sparse, name, made=uuid.uuid4().hex[:8]
            )

    def set_folders(self, name: str, *, folder: str, writing: str) -> None:
        """Set the folder of a collection that readers link, and its copy that is written; "" if
        there is none."""
        with self._changing() as (entries, _):
            entries[name] = replace(entries[name], folder=folder, writing=writing)

    def merge_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        with self._changing() as (entries, _):
            name = self.resolve(name)
            entry = entries[name]
            merged = _without_none({**entry.metadata, **metadata})
            entries[name] = replace(entry, metadata=merged)

    def remove(self, name: str) -> None:
        with self._changing() as (entries, aliases):
            del entries[name]
            for alias in [alias for alias, target in aliases.items() if target == name]:
                del aliases[alias]

    def point_alias(self, alias: str, collection: str) -> None:
        with self._changing() as (entries, aliases):
            if collection not in entries:
                raise StoreError(
                    f"alias {alias} cannot point at {collection!r}: there is no such collection"
                )
            if alias in entries:
                raise StoreMismatch(
                    f"{alias} is a collection: an alias cannot have the same name; drop or"
                    " rename it"
                )
            aliases[alias] = collection

    @contextmanager
    def _changing(self) -> Iterator[tuple[dict[str, CatalogEntry], dict[str, str]]]:
        """Give the block what is on disk, and write what it has changed. No other process may
        change it meanwhile."""
        with self._lock, locked(self._store):
            self.refresh()
            entries, aliases = dict(self._state[0]), dict(self._state[1])
            yield entries, aliases
            if (entries, aliases) == self._state:
                return
            collections = {name: asdict(entry) for name, entry in entries.items()}
            document = {"version": CATALOG_VERSION, "collections": collections, "aliases": aliases}
            try:
                content = json.dumps(
                    document, ensure_ascii=False, indent=1, allow_nan=False
                ).encode()
            except (TypeError, ValueError) as exc:
                raise StoreError(f"collection metadata must be JSON: {exc}") from exc
            with folder_errors(self._store):
                replace_file(self._file, content)
            self._load()

    def _load(self) -> None:
        with folder_errors(self._store):
            # Before reading: if the file is replaced in between, it is read again.
            self._stamp = file_stamp(self._file)
            if self._stamp is None:
                self._state = {}, {}
                return
            content = self._file.read_bytes()
        try:
            document = json.loads(content)
            if document["version"] > CATALOG_VERSION:
                raise StoreError(
                    f"{self._file} was written by a newer rag-index (version"
                    f" {document['version']}): upgrade rag-index"
                )
            entries = {
                name: CatalogEntry(**found) for name, found in document["collections"].items()
            }
            self._state = entries, dict(document["aliases"])
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise StoreError(
                f"{self._file} cannot be read ({exc!r}): restore it from a backup, "
                "or remove the store's folder and run `rag-index rebuild`"
            ) from exc


def _without_none(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}
