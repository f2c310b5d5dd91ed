"""Changed files of a folder of source code.

A change is a difference between two listings of the folder, by the rules and stamps of any scan. So a renamed folder, a
file that an editor replaces, another branch or a changed .gitignore need no rules of their own. The first listing is
compared with the ledger: nothing that changed before the watch began is missed.

The folder is listed every few seconds. Events of the file system would only say when to list, and not on a network.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_index.changes import DocumentChange, Received
from rag_index.changes.poll import IndexFeed
from rag_index.documents.keys import document_id
from rag_index.ledger.tables import Position
from rag_index.sources.code import CodeSource

if TYPE_CHECKING:
    from rag_index.errors import RagIndexError
    from rag_index.ledger import Ledger
    from rag_index.settings import IndexSettings, Settings

MAX_FILES = 2000
"""More changed files than this are left to an ordinary run, which parses on all workers."""
SHARE = 0.02
"""The share of the time that listing may take."""


class FileFeed(IndexFeed):
    """The files of one index of source code, as a `ChangeFeed`."""

    def __init__(self, settings: Settings, index: IndexSettings, ledger: Ledger, **how: Any) -> None:
        super().__init__(settings, index, ledger, **how)
        self._source = CodeSource(settings.root(index), index)
        self._stamps: Mapping[str, str] | None = None
        """The stamps of the files by typed key, in the last listing that was acknowledged."""

    def check(self) -> Mapping[str, RagIndexError]:
        self._source.check()
        return {}

    def receive(self, limit: int) -> Received:
        """Return what differs from the last listing, at most `MAX_FILES` changes, if it is time to list."""
        began, now, name = self._clock(), time.time(), self._index.name
        if began < self._next_look:
            return Received(())
        stamps, unreadable = self._source.stamps()
        self._rest(began, SHARE)
        before = self._stamps if self._stamps is not None else self._in_ledger(stamps)
        for key in before.keys() - stamps.keys():
            if not unreadable.isdisjoint(f"{one.as_posix()}/" for one in Path(document_id(key)).parents):
                stamps[key] = before[key]
        changed = sorted(key for key in before.keys() | stamps.keys() if before.get(key) != stamps.get(key))
        if len(changed) > MAX_FILES:
            return Received((), stamps, overflow=(name,))
        changes = [DocumentChange(name, document_id(key), now) for key in changed]
        return Received(changes, stamps, through={name: Position(now, how="files")})

    def acknowledge(self, received: Received) -> None:
        if received.position is not None:
            self._stamps = received.position

    def close(self) -> None:
        self._source.close()

    def _in_ledger(self, stamps: Mapping[str, str]) -> dict[str, str]:
        """Return the stamps that the ledger has of these files, and an empty one for each other known document."""
        if (collection := self._live_collection()) is None:
            return {}
        known = dict.fromkeys(self._ledger.keys_under(collection.id, ""), "")
        return known | self._ledger.committed_stamps(collection.id, list(stamps))
