"""The files of a shard folder: marks beside the engine's own, copies that a writer changes, and views of readers.

The engine writes its files in place, so a file that two folders share must not be written. What it corrects when it
loads a shard (versions of deleted points, counters) is in small files. A view has copies of those, and shares the rest.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rag_index.database.files import replace_file
from rag_index.documents.batches import CommitMark

if TYPE_CHECKING:
    from collections.abc import Iterator

MARK = "commit.json"
"""The file with the collection's last commit. It is in the shard folder, so whoever copies that copies it too."""
UNWRITTEN = "unwritten"
"""The file that says that the shard never had a point: nobody need load it to know that."""
UNFLUSHED = "unflushed"
"""The file that says that the log has writes that the rest of the files may lack: loading the shard repeats them."""
CONFIG = "edge_config.json"
LOG = "wal"
CORRECTED = (".versions",)
"""The ends of the names of files that the engine may correct when it loads a shard."""
MIN_LINKED = 256 * 1024
"""Smaller files are copied into a view, which takes no longer than linking them."""


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


def note_writing(folder: Path) -> None:
    """Note, durably, that the shard is about to be written. Raises OSError."""
    (folder / UNFLUSHED).touch()
    (folder / UNWRITTEN).unlink(missing_ok=True)
    _sync(folder)


def copy_shard(source: Path, target: Path) -> None:
    """Copy a shard folder that nobody writes, its log too. The copy is on disk when this returns. Raises OSError."""
    for file, copy in _walk(source, target):
        _copy(file, copy, sync=True)
    for folder in (target.parent, target, *(path for path in target.rglob("*") if path.is_dir())):
        _sync(folder)


def link_shard(source: Path, target: Path) -> None:
    """Fill an empty folder with hard links to the shard's large files, and copies of the small ones but the log.

    Nobody may write the source's files as long as this view exists. The engine keeps no log for it, so that it reserves
    no space. Raises OSError.
    """
    for file, copy in _walk(source, target, without=LOG):
        if file.stat().st_blocks * 512 < MIN_LINKED or file.name.endswith(CORRECTED):
            _copy(file, copy)
        else:
            os.link(file, copy)
    with suppress(ValueError):  # the engine says that it is damaged
        config = json.loads((target / CONFIG).read_bytes())
        (target / CONFIG).write_text(json.dumps({**config, "wal_enabled": False}))


def _walk(source: Path, target: Path, *, without: str = "") -> Iterator[tuple[Path, Path]]:
    """Create the folders of the source in the target; yield each file and the path that it has there."""
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
