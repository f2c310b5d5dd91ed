"""Folders and files that hold texts, and so are their owner's alone: ledger, contexts, points, Prefect's database."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["private_file", "private_folder"]

OWNER_FOLDER = 0o700
OWNER_FILE = 0o600


def private_folder(folder: Path) -> None:
    """Create a folder, and the missing ones above it, for the owner alone; close an existing one to all others.

    An existing folder that others may not enter keeps its mode: if a group may, somebody chose that. Raises OSError.
    """
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    for path in reversed(missing):
        path.mkdir(mode=OWNER_FOLDER, exist_ok=True)
    folder.mkdir(exist_ok=True)  # raises if it is a file
    _close_to_others(folder, OWNER_FOLDER)


def private_file(path: Path) -> None:
    """Create an empty file for the owner alone, with the folders above it; close an existing one to all others.

    SQLite gives the files that it makes beside a database the mode of the database. Raises OSError.
    """
    if not path.parent.exists():
        private_folder(path.parent)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_RDONLY | os.O_CLOEXEC, OWNER_FILE))
    for file in (path, *path.parent.glob(f"{path.name}-*")):
        _close_to_others(file, OWNER_FILE)


def _close_to_others(path: Path, mode: int) -> None:
    """Set the mode if others than owner and group may use the file. Where that is refused, it stays as it is."""
    with suppress(OSError):
        if path.stat().st_mode & stat.S_IRWXO:
            path.chmod(mode)
