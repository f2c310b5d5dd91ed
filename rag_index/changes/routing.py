"""Which documents show a row: changes of rows become changes of documents.

A row of an index's own table is the document of its key. For a row of a table in `depends_on`, the documents that show
it have the same value in `column`. If that column is the key, the value is the id. Otherwise the source is asked which
documents have it now, and the index which documents had it when they were indexed: a join may no longer give them.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rag_index.changes import DocumentChange, Received
from rag_index.documents.batches import RESERVED_KEY
from rag_index.documents.canonical import decode_payload, encode_payload
from rag_index.documents.keys import document_id, encode_key
from rag_index.sources.sql import SqlSource
from rag_index.stores import Condition, open_reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.changes.rows import ReceivedRows, RowChange, RowFeed, WatchedTable
    from rag_index.settings import IndexSettings, Settings

__all__ = ["RoutedFeed", "Router", "RowRoute"]

STORE_SECONDS = 30.0
"""How long a batch that is being written may keep the embedded store from being read."""
CONDITION_VALUES = 100
"""Values of one condition that the store is asked for."""


@dataclass(frozen=True, slots=True)
class RowRoute:
    """What rows of a table mean for the documents of one index."""

    index: IndexSettings
    table: WatchedTable
    keys: tuple[str, ...]
    """The columns of the table whose values make the document id, or the value of `column`."""
    column: str | None = None
    """The column of the index to look up; None if the values of `keys` are the document's key."""


@dataclass(slots=True)
class _LookUp:
    """Values of a column of an index whose documents are sought, and the time of the first change."""

    changed_at: float
    values: dict[Any, None] = field(default_factory=dict)


class Router:
    """Finds the documents that show changed rows."""

    def __init__(self, settings: Settings, routes: Sequence[RowRoute]) -> None:
        self._settings = settings
        self._routes: dict[WatchedTable, list[RowRoute]] = {}
        for route in routes:
            self._routes.setdefault(route.table, []).append(route)
        self._sources: dict[str, SqlSource] = {}

    def indexes(self, tables: Sequence[WatchedTable]) -> list[str]:
        """Return the names of the indexes that show rows of these tables."""
        return sorted({route.index.name for table in tables for route in self._routes.get(table, ())})

    def documents(self, rows: Sequence[RowChange]) -> tuple[list[DocumentChange], list[str]]:
        """Return the documents that show these rows, and the indexes of which they are too many to be named.

        Raises SourceUnavailable, SourceError, StoreUnavailable, StoreBusy or StoreError.
        """
        changes: dict[tuple[str, str], DocumentChange] = {}
        look_ups: dict[tuple[str, str], _LookUp] = {}
        for row in rows:
            for route in self._routes.get(row.table, ()):
                values = [row.values[name] for name in route.keys]
                if None in values:  # a document has a whole key, and NULL joins with nothing
                    continue
                if route.column is None:
                    _add(changes, route.index.name, encode_key(values), row.changed_at)
                else:
                    sought = look_ups.setdefault((route.index.name, route.column), _LookUp(row.changed_at))
                    sought.values[values[0]] = None
                    sought.changed_at = min(sought.changed_at, row.changed_at)
        overflow: list[str] = []
        for (name, column), sought in look_ups.items():
            if name not in overflow and not self._look_up(name, column, sought, changes):
                overflow.append(name)
        return [change for change in changes.values() if change.index not in overflow], overflow

    def close(self) -> None:
        """Close the sources."""
        for source in self._sources.values():
            source.close()
        self._sources.clear()

    def _look_up(self, name: str, column: str, sought: _LookUp, changes: dict[tuple[str, str], DocumentChange]) -> bool:
        """Add the documents that have, or had, one of the values. Return False if they are more than a burst."""
        index = self._settings.index(name)
        most = self._settings.watch.burst_documents
        found = 0
        values = list(sought.values)
        for keys in (self._in_source(index, column, values), self._in_store(index, column, values)):
            for key in keys:
                found += _add(changes, name, key, sought.changed_at)
                if found > most:
                    return False
        return True

    def _in_source(self, index: IndexSettings, column: str, values: Sequence[Any]) -> Iterator[str]:
        """Yield the typed keys of the documents that have one of the values now."""
        if index.name not in self._sources:
            timeout = self._settings.source.timeout
            self._sources[index.name] = SqlSource(self._settings.source_url, index, timeout=timeout)
        yield from self._sources[index.name].keys_with(column, values)

    def _in_store(self, index: IndexSettings, column: str, values: Sequence[Any]) -> Iterator[str]:
        """Yield the typed keys of the documents that had one of the values when they were indexed."""
        if column not in index.payload:
            return
        alias = self._settings.alias(index.name)
        stored = [decode_payload(encode_payload({column: value}))[column] for value in values]
        with closing(open_reader(self._settings.store, wait=STORE_SECONDS)) as reader:
            if alias not in reader.aliases():
                return
            for first in range(0, len(stored), CONDITION_VALUES):
                wanted = Condition(column, "any", stored[first : first + CONDITION_VALUES])
                for point in reader.scroll(alias, conditions=[wanted]):
                    yield str(point.payload[RESERVED_KEY]["key"])


def _add(changes: dict[tuple[str, str], DocumentChange], index: str, key: str, changed_at: float) -> bool:
    """Add a document, by its typed key, with the time of its first change. Return whether it is a new one."""
    given = document_id(key)
    known = changes.get((index, given))
    if known is None or changed_at < known.changed_at:
        changes[index, given] = DocumentChange(index, given, changed_at)
    return known is None


class RoutedFeed:
    """A feed of rows as a `ChangeFeed`."""

    def __init__(self, feed: RowFeed, router: Router) -> None:
        self._feed = feed
        self._router = router

    def check(self) -> None:
        """As `ChangeFeed.check`."""
        self._feed.check()

    def receive(self, limit: int) -> Received:
        """As `ChangeFeed.receive`. Also raises StoreUnavailable, StoreBusy and StoreError."""
        received = self._feed.receive(limit)
        changes, overflow = self._router.documents(received.changes)
        lost = [*self._router.indexes(received.overflow), *overflow]
        return Received(changes, received, received.more, tuple(dict.fromkeys(lost)))

    def acknowledge(self, received: Received) -> None:
        """As `ChangeFeed.acknowledge`."""
        rows: ReceivedRows = received.position
        self._feed.acknowledge(rows)

    def wait(self, seconds: float) -> None:
        """As `ChangeFeed.wait`."""
        self._feed.wait(seconds)

    def backlog(self) -> int | None:
        """As `ChangeFeed.backlog`."""
        return self._feed.backlog()

    def close(self) -> None:
        """As `ChangeFeed.close`."""
        self._feed.close()
        self._router.close()
