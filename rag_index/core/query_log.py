"""The query log: a file of JSON lines with what callers of the service searched for, and which
documents they opened from the page.

It holds personal data. Only its owner may read it, entries are kept for some days, and an erasure
removes the entries that name the document.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import json
import os
from collections import Counter
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from rag_index.core.files import private_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from rag_index.core.settings.sections import ServeSettings

KEPT_DAYS = 30
"""Days for which an entry is kept: the period that docs/service.md promises."""
COMMONEST = 10
"""Queries that `not_found` returns at most: `status` lists ten, as docs/service.md promises."""


class QueryLog:
    """A log of queries in a file. Several processes may write it. Its methods raise OSError."""

    def __init__(self, path: Path, days: int) -> None:
        self.path, self._days = path, days
        self._pruned = dt.date.min

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry with the present time. The first entry of each day also removes the
        entries that are too old."""
        now = dt.datetime.now(dt.UTC)
        if self._pruned != now.date():
            oldest = (now - dt.timedelta(days=self._days)).isoformat()
            self._keep(lambda entry: str(entry.get("time", "")) >= oldest)
            self._pruned = now.date()
        timed = {"time": now.isoformat(timespec="seconds"), **entry}
        line = json.dumps(timed, ensure_ascii=False, default=str)
        with self._open() as file:
            file.seek(0, os.SEEK_END)
            file.write(f"{line}\n")

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries, the oldest first. A line that a crash cut off is left out."""
        if not self.path.exists():
            return []
        found = []
        for line in self.path.read_text("utf-8", "replace").split("\n"):
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, dict):
                    found.append(entry)
        return found

    def not_found(self) -> list[tuple[str, int]]:
        """Return the commonest queries that found nothing, with how often each was asked. Queries
        that differ in case are one; the latest spelling is returned."""
        spelling: dict[str, str] = {}
        counts: Counter[str] = Counter()
        for entry in self.entries():
            query = str(entry.get("query", ""))
            if entry.get("found") is False and query.strip():
                folded = query.casefold()
                spelling[folded] = query
                counts[folded] += 1
        return [(spelling[folded], count) for folded, count in counts.most_common(COMMONEST)]

    def opened(self) -> list[tuple[str, str]]:
        """Return pairs of a query and the document that a person opened from its hits, as
        `index/id`, each pair once."""
        opened = [entry for entry in self.entries() if "opened" in entry]
        pairs = [(str(entry["query"]), str(entry["opened"])) for entry in opened]
        return list(dict.fromkeys(pairs))

    def erase(self, index: str, is_gone: Callable[[str], bool]) -> int:
        """Remove the entries that name a deleted document of the index: as a hit, as the opened
        document, or as the one whose like was searched. `is_gone` returns whether the document with
        this id is deleted. Return the number of removed entries."""
        if not self.path.exists():
            return 0
        prefix = f"{index}/"

        def stays(entry: Mapping[str, Any]) -> bool:
            named = [*entry.get("hits", ()), entry.get("opened", ""), entry.get("like", "")]
            for document in map(str, named):
                # comments/17 is document 17 of the index comments
                if document.startswith(prefix) and is_gone(document.removeprefix(prefix)):
                    return False
            return True

        return self._keep(stays)

    def _keep(self, stays: Callable[[Mapping[str, Any]], bool]) -> int:
        """Remove all other entries in place, so that no other file has them. Return the number of
        removed entries."""
        with self._open() as file:
            before = self.entries()
            kept = [entry for entry in before if stays(entry)]
            if len(kept) < len(before):
                for entry in kept:
                    file.write(f"{json.dumps(entry, ensure_ascii=False)}\n")
                file.truncate()
        return len(before) - len(kept)

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        """Open the file for the owner alone, and lock out other writers during the block."""
        private_file(self.path)
        with self.path.open("r+", encoding="utf-8", errors="surrogatepass") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def query_log(settings: ServeSettings) -> QueryLog | None:
    """Return the query log of the settings; None if they name none."""
    if settings.query_log is None:
        return None
    return QueryLog(settings.query_log, KEPT_DAYS)
