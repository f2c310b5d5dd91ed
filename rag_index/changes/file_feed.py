"""Changed files of a folder of source code.

A change is a difference between two listings of the folder, by the rules and stamps of any scan. So a renamed folder, a
file that an editor replaces, another branch or a changed .gitignore need no rules of their own. The first listing is
compared with the ledger: nothing that changed before the watch began is missed.

Events of the file system only say when to list again. Where there are none, such as on a network folder, it is listed
every few seconds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from rag_index.changes import DocumentChange, Received
from rag_index.chunking.code.languages import MISSING
from rag_index.documents.keys import document_id
from rag_index.errors import RagIndexError, SettingsError
from rag_index.ledger.tables import Position
from rag_index.sources.code import CodeSource
from rag_index.stores import live_aliases

if TYPE_CHECKING:
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings

NETWORK = {"9p", "afs", "ceph", "cifs", "davfs", "drvfs", "fuse", "glusterfs", "lustre", "ncpfs", "nfs", "smb", "smb3",
           "smbfs", "vboxsf", "virtiofs", "vmhgfs"}  # fmt: skip
"""Kinds of file systems whose files others change without an event here, without what follows a dot or a number."""
DEBOUNCE_MS, STEP_MS = 1000, 50
"""Events that follow each other are one for so long at most, and as long as the pause between two is not longer."""
MAX_FILES = 2000
"""More changed files than this are left to an ordinary run, which parses on all workers."""
SWEEP_SECONDS = 600.0
"""Seconds after which the folder is listed without an event: a system under load may drop events."""
SHARE = 0.1
"""The share of the time that listing may take."""


class FileEvents:
    """The events below a folder. The kernel collects them from the start on."""

    def __init__(self, root: Path) -> None:
        try:
            from watchfiles import Change, DefaultFilter
            from watchfiles._rust_notify import RustNotify
        except ImportError as exc:
            raise SettingsError(MISSING.format(name="watchfiles")) from exc
        self._root = f"{root.resolve()}{os.sep}"
        self._matters = partial(DefaultFilter(), Change.modified)  # not `.git`, `node_modules` and their like
        self._notify = RustNotify([str(root.resolve())], False, False, 0, True, True)

    def happen(self, seconds: float) -> bool:
        """Return True once something happens that matters, and False after this many seconds."""
        found = self._notify.watch(DEBOUNCE_MS, STEP_MS, max(1, round(seconds * 1000)), None)
        return not isinstance(found, str) and any(self._matters(path.removeprefix(self._root)) for _, path in found)

    def close(self) -> None:
        """End the watch of the folder."""
        self._notify.close()


def has_events(root: Path) -> bool:
    """Return False if the folder is on a file system of a network, where others change files unseen."""
    real = f"{root.resolve()}{os.sep}"
    mounts = [part for part in psutil.disk_partitions(all=True) if real.startswith(f"{part.mountpoint.rstrip('/')}/")]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else ""
    return kind.partition(".")[0].rstrip("0123456789") not in NETWORK and kind not in NETWORK


class FileFeed:
    """The files of one index of source code, as a `ChangeFeed`."""

    def __init__(
        self, settings: Settings, index: IndexSettings, ledger: Ledger, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings, self._index, self._ledger, self._clock = settings, index, ledger, clock
        self._root = settings.root(index)
        self._source = CodeSource(self._root, index)
        self._stamps: Mapping[str, str] | None = None
        """The stamps of the files by typed key, in the last listing that was acknowledged."""
        self._due = True
        """Whether something has happened since the last listing, or that was not acknowledged."""
        self._events: FileEvents | None = None
        self._no_events = "" if has_events(self._root) else "it is on a network, which has no events"
        self._next = self._sweep = float("-inf")
        """When the folder may be listed again, and when it has to be."""

    @property
    def note(self) -> str:
        """What a person should know about this folder; "" if events say when it changes."""
        if not self._no_events:
            return ""
        seconds = self._settings.watch.poll_seconds
        return f"index {self._index.name}: {self._root} is listed every {seconds:g} s or less often: {self._no_events}"

    def check(self) -> Mapping[str, RagIndexError]:
        self._source.check()
        if self._events is None and not self._no_events:
            try:
                self._events, self._due = FileEvents(self._root), True
            except OSError as error:
                self._no_events = f"its events cannot be had ({error.strerror or error})"
        return {}

    def receive(self, limit: int) -> Received:
        """Return what differs from the last listing, at most `MAX_FILES` changes."""
        due = self._due or self._clock() >= self._sweep or self._events is None or self._events.happen(0.0)
        if self._clock() < self._next or not due:
            self._due = due
            return Received(())
        started, now, name = self._clock(), time.time(), self._index.name
        self._due = True
        _, stamps, kept = self._source.stamps()
        pause = (self._clock() - started) / SHARE
        if self._events is None:
            pause = max(pause, self._settings.watch.poll_seconds)
        self._next, self._sweep = self._clock() + pause, self._clock() + SWEEP_SECONDS
        before = self._stamps if self._stamps is not None else self._in_ledger(stamps)
        gone = before.keys() - stamps.keys()
        if kept:  # folders that could not be read
            gone = {
                key for key in gone if kept.isdisjoint(f"{one.as_posix()}/" for one in Path(document_id(key)).parents)
            }
        stamps |= {key: before[key] for key in before.keys() - stamps.keys() - gone}
        changed = [*gone, *(key for key, stamp in stamps.items() if before.get(key) != stamp)]
        if len(changed) > MAX_FILES:
            return Received((), stamps, overflow=(name,))
        changes = [DocumentChange(name, document_id(key), now) for key in sorted(changed)]
        return Received(changes, stamps, through={name: Position(now, how="files")})

    def acknowledge(self, received: Received) -> None:
        if received.position is not None:
            self._stamps, self._due = received.position, False

    def wait(self, seconds: float) -> None:
        early = self._next - self._clock()
        if self._events is None or self._due or early > 0:
            time.sleep(max(0.0, min(seconds, early)))
        else:
            self._due = self._events.happen(seconds)

    def close(self) -> None:
        if self._events is not None:
            self._events.close()
        self._source.close()

    def _in_ledger(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """Return the stamps that the ledger has of these files, and an empty one for each other known document."""
        live = live_aliases(self._settings.store).get(self._settings.alias(self._index.name))
        collection = self._ledger.collection(live) if live else None
        if collection is None:
            return {}
        known = dict.fromkeys(self._ledger.keys_under(collection.id, ""), "")
        return known | self._ledger.committed_stamps(collection.id, list(stamps))
