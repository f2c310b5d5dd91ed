"""Which documents show a row: changes of rows become changes of documents.

A row of an index's own table is the document of its key. For a row of a table in `depends_on`, the documents that show
it have the same value in `column`. If that column is the key, the value is the id. Otherwise it becomes a look-up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.changes import DocumentChange, LookUp, Received
from rag_index.documents.keys import document_id, encode_key
from rag_index.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rag_index.changes.rows import ReceivedRows, RowChange, RowFeed, WatchedTable
    from rag_index.errors import RagIndexError
    from rag_index.settings import IndexSettings


@dataclass(frozen=True, slots=True)
class RowRoute:
    """What rows of a table mean for the documents of one index."""

    index: IndexSettings
    table: WatchedTable
    keys: tuple[str, ...]
    """The columns of the table whose values make the document id, or the value of `column`."""
    column: str | None = None
    """The column of the index to look up; None if the values of `keys` are the document's key."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What changed rows mean: documents, and look-ups of documents; each once, with the time of the first change."""

    changes: Sequence[DocumentChange]
    look_ups: Sequence[LookUp]
    overflow: Sequence[str]
    """The indexes whose documents cannot be looked up by these rows."""


class Router:
    """Finds the documents that show changed rows, or what to look them up by."""

    def __init__(self, routes: Sequence[RowRoute]) -> None:
        self._routes: dict[WatchedTable, list[RowRoute]] = {}
        for route in routes:
            self._routes.setdefault(route.table, []).append(route)

    def indexes(self, tables: Sequence[WatchedTable]) -> list[str]:
        """Return the names of the indexes that show rows of these tables."""
        return sorted({route.index.name for table in tables for route in self._routes.get(table, ())})

    def all_indexes(self) -> list[str]:
        """Return the names of all indexes."""
        return self.indexes(list(self._routes))

    def route(self, rows: Sequence[RowChange]) -> Routed:
        """Return what these rows mean."""
        documents: dict[tuple[str, str], float] = {}
        look_ups: dict[tuple[str, str, str], float] = {}
        overflow: dict[str, None] = {}
        for row in rows:
            for route in self._routes.get(row.table, ()):
                values, name, at = [row.values[key] for key in route.keys], route.index.name, row.changed_at
                if None in values:  # a document has a whole key, and NULL joins with nothing
                    continue
                try:
                    key = encode_key(values)
                except SourceError:  # a value of a type that no key has
                    overflow[name] = None
                    continue
                if route.column is None:
                    given = document_id(key)
                    documents[name, given] = min(at, documents.get((name, given), at))
                else:
                    sought = (name, route.column, key)
                    look_ups[sought] = min(at, look_ups.get(sought, at))
        return Routed(
            [DocumentChange(*one, at) for one, at in documents.items()],
            [LookUp(*one, at) for one, at in look_ups.items()],
            list(overflow),
        )


class RoutedFeed:
    """A feed of rows as a `ChangeFeed`."""

    def __init__(self, feed: RowFeed, router: Router) -> None:
        self._feed = feed
        self._router = router

    def check(self) -> Mapping[str, RagIndexError]:
        """Check that the feed is set up; return why changes of some indexes are not seen."""
        return {name: error for table, error in self._feed.check().items() for name in self._router.indexes([table])}

    def receive(self, limit: int) -> Received:
        """Return about `limit` changes that are not acknowledged yet, without waiting for any."""
        received = self._feed.receive(limit)
        routed = self._router.route(received.changes)
        lost = dict.fromkeys([*self._router.indexes(received.overflow), *routed.overflow])
        behind = self._router.all_indexes() if received.behind else ()
        through = dict.fromkeys(self._router.all_indexes(), received.through) if received.through else {}
        return Received(routed.changes, received, received.more, tuple(lost), routed.look_ups, behind, through)

    def acknowledge(self, received: Received) -> None:
        """Let the source forget these changes, which are in the inbox now."""
        rows: ReceivedRows = received.position
        self._feed.acknowledge(rows)

    def wait(self, seconds: float) -> None:
        """Return when there may be changes, or after this many seconds."""
        self._feed.wait(seconds)

    def close(self) -> None:
        """Close what the feed holds open."""
        self._feed.close()
