"""Events of a file system: whether something changed that a listing of the folder would show."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import psutil

from rag_index.chunking.code.grammars import MISSING
from rag_index.chunking.code.languages import TEXT, language_of
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from rag_index.settings import IndexSettings

NETWORK = {"9p", "afs", "ceph", "cifs", "davfs", "drvfs", "fuse", "glusterfs", "lustre", "ncpfs", "nfs", "smb", "smb3",
           "smbfs", "vboxsf", "virtiofs", "vmhgfs"}  # fmt: skip
"""Kinds of file systems whose files others change without an event here, without what follows a dot or a number."""
RULES = {".gitignore", "exclude"}
"""Names of files that decide which others are listed."""
DEBOUNCE_MS, STEP_MS = 1000, 50
"""Events that follow each other are one for so long at most, and as long as the pause between two is not longer."""


class FileEvents:
    """The events below a folder. The kernel collects them from the start on."""

    def __init__(self, root: Path, index: IndexSettings) -> None:
        try:
            from watchfiles._rust_notify import RustNotify
        except ImportError as exc:
            raise SettingsError(MISSING.format(name="watchfiles")) from exc
        self._root = f"{root.resolve()}{os.sep}"
        self._index = index
        self._notify = RustNotify([str(root.resolve())], False, False, 0, True, True)
        self.folders: set[str] = {""}
        """The folders that the last listing read. What happens in others does not matter."""
        self._seen = True

    @property
    def seen(self) -> bool:
        """Whether something happened since this was set to False."""
        if not self._seen:
            self.wait(0.0)
        return self._seen

    @seen.setter
    def seen(self, value: bool) -> None:
        self._seen = value

    def wait(self, seconds: float) -> None:
        """Return once something happens that matters, or after this many seconds."""
        found = self._notify.watch(DEBOUNCE_MS, STEP_MS, max(1, round(seconds * 1000)), None)
        if not isinstance(found, str) and any(self._matters(path) for _, path in found):
            self._seen = True

    def close(self) -> None:
        """End the watch of the folder."""
        self._notify.close()

    def _matters(self, path: str) -> bool:
        """Return whether a listing may differ because of an event at this path."""
        below = path.removeprefix(self._root).replace(os.sep, "/")
        folder, _, name = below.rpartition("/")
        folder = f"{folder}/" if folder else ""
        if name in RULES:
            return True
        if folder not in self.folders:
            return False
        is_folder = f"{below}/" in self.folders or os.path.isdir(path)  # noqa: PTH112 - one call for each event
        if is_folder:
            return name != ".git"
        return bool(self._index.include) or language_of(below, self._index.languages) != TEXT


def has_events(root: Path) -> bool:
    """Return False if the folder is on a file system of a network, where others change files unseen."""
    real = f"{root.resolve()}{os.sep}"
    mounts = [part for part in psutil.disk_partitions(all=True) if real.startswith(f"{part.mountpoint.rstrip('/')}/")]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return kind.partition(".")[0].rstrip("0123456789") not in NETWORK and kind not in NETWORK
