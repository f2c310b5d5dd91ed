"""The log of queries: a file of JSON lines with what callers of the service asked, and what they
opened from the page.

It is personal data: only its owner may read it, entries are kept for some days, and an erasure
takes those out that name the document.
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
COMMONEST = 10


class QueryLog:
    """A log of queries in a file. Several processes may write it. Its methods raise OSError."""

    def __init__(self, path: Path, days: int) -> None:
        self.path, self._days = path, days
        self._pruned = dt.date.min

    def add(self, entry: Mapping[str, Any]) -> None:
        """Append an entry with the time of now; each day, entries that are too old are removed
        first."""
        now = dt.datetime.now(dt.UTC)
        if self._pruned != now.date():
            oldest = (now - dt.timedelta(days=self._days)).isoformat()
            self._keep(lambda one: str(one.get("time", "")) >= oldest)
            self._pruned = now.date()
        line = json.dumps(
            {"time": now.isoformat(timespec="seconds"), **entry}, ensure_ascii=False, default=str
        )
        with self._open() as file:
            file.seek(0, os.SEEK_END)
            file.write(f"{line}\n")

    def entries(self) -> list[dict[str, Any]]:
        """Return the entries, the oldest first. A line that a crash cut off is left out."""
        found = []
        for line in (
            self.path.read_text("utf-8", "replace").split("\n") if self.path.exists() else ()
        ):
            with suppress(ValueError):
                if isinstance(one := json.loads(line), dict):
                    found.append(one)
        return found

    def not_found(self) -> list[tuple[str, int]]:
        """Return the commonest queries that found nothing, with how often each was asked."""
        asked = [str(one.get("query", "")) for one in self.entries() if one.get("found") is False]
        written = {query.casefold(): query for query in asked}
        counts = Counter(query.casefold() for query in asked if query.strip())
        return [(written[query], count) for query, count in counts.most_common(COMMONEST)]

    def opened(self) -> list[tuple[str, str]]:
        """Return the queries that found what was opened, each once with `index/id` of what that
        was."""
        return list(
            dict.fromkeys(
                (str(one["query"]), str(one["opened"])) for one in self.entries() if "opened" in one
            )
        )

    def erase(self, index: str, is_gone: Callable[[str], bool]) -> int:
        """Remove the entries that have a document of the index among their hits, or as the one that
        was opened, of whose id `is_gone` says that it is gone. Return how many."""

        def stays(entry: Mapping[str, Any]) -> bool:
            places = map(
                str, [*entry.get("hits", ()), entry.get("opened", ""), entry.get("like", "")]
            )
            return not any(
                is_gone(one.removeprefix(f"{index}/"))
                for one in places
                if one.startswith(f"{index}/")
            )

        return self._keep(stays) if self.path.exists() else 0

    def _keep(self, stays: Callable[[Mapping[str, Any]], bool]) -> int:
        """Leave the entries that stay, in place: no other file has what is removed. Return how many
        were removed."""
        with self._open() as file:
            before = self.entries()
            kept = [one for one in before if stays(one)]
            if len(kept) < len(before):
                file.writelines(f"{json.dumps(one, ensure_ascii=False)}\n" for one in kept)
                file.truncate()
        return len(before) - len(kept)

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        """Open the file for the owner alone, and keep other writers out for the time of the
        block."""
        private_file(self.path)
        with self.path.open("r+", encoding="utf-8", errors="surrogatepass") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield file


def query_log(settings: ServeSettings) -> QueryLog | None:
    """Return the log that the settings name, if they name one."""
    return None if settings.query_log is None else QueryLog(settings.query_log, KEPT_DAYS)
