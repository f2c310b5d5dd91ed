"""The ledger: what is indexed in which collection, what failed, and which runs there were.

A database in SQLite or PostgreSQL. Rows belong to a collection, not to an index; the alias in the
store alone decides which collection is live. This package imports `core`, and no other component.

Orders that must hold, and the test that fails if one does not:
- A document is pending before its points are written or deleted, and is recorded once they are
  durable; a row that is not pending is exactly what the store holds:
  tests/reliability/test_order_of_writes.py.
- A commit marks the store, then the ledger, in one transaction with its rows: the same file. The
  lease is checked in that transaction: tests/reliability/test_lock.py.
- Buckets are opened before anything is written: tests/etl/test_digest.py.
- A scan is recorded as complete after its last deletion: test_order_of_writes.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from rag_index.components.ledger.documents import DocumentRows
from rag_index.components.ledger.runs import RunRows, WatchRows
from rag_index.components.ledger.tables import (
    Collection,
    FailedDocument,
    IndexedDocuments,
    Reached,
    RecordedDocument,
    RunRow,
    Totals,
    WatchRecord,
    metadata,
    scans,
)
from rag_index.core.database import redacted_url

if TYPE_CHECKING:
    from rag_index.core.documents.batches import CommitMark
    from rag_index.core.settings import Settings

__all__ = [
    "Collection",
    "FailedDocument",
    "IndexedDocuments",
    "RecordedDocument",
    "Ledger",
    "Reached",
    "RunRow",
    "Totals",
    "WatchRecord",
    "missing_ledger",
    "reconciled_by",
    "unwanted_indexes",
]


class Ledger(DocumentRows, RunRows, WatchRows):
    """One connection to the ledger's database, which the threads of a process may share.

    Raises:
        LedgerUnavailable: By all methods, if another attempt may help.
        LedgerError: By all methods, if not.

    Example:
        with closing(Ledger(settings.ledger_url)) as ledger:
            collection = ledger.collection("desk_tickets__3")
    """

    def write_by(self, collection: Collection, settings: str, *, new: bool) -> None:
        """Record by which settings a collection is written from now on.

        Args:
            settings: A hash of them.
            new: Whether the collection has no documents yet. One that has some may have documents
                by both settings, so it is not complete until a scan is.
        """
        with self.transaction():
            self.update_collection(collection.id, written_by=settings)
            if not new:
                self.drop_position(collection.alias)

    def forget_index(self, alias: str) -> None:
        """Delete everything about an index but its lease.

        The epoch of the lease must stay: late writes of former runs are refused by it.
        """
        with self.transaction():
            for collection in (*self.collections(alias), *self.collections_elsewhere(alias)):
                self.drop_collection(collection.id)
            if not self._is_sqlite:
                self.forget_scans(scans.c.alias == alias)
            for table in metadata.sorted_tables:
                if "alias" in table.c:
                    self._write(table.delete().where(table.c.alias == alias))

    def find_restored(
        self,
        indexes: Mapping[str, str],
        read_commit_marks: Callable[[Iterable[str]], Mapping[str, CommitMark]],
    ) -> dict[str, str]:
        """Return a message for each index whose store and ledger are at different commits.

        A run may commit at this moment, so a difference counts only if a second look finds it too.

        Args:
            indexes: The name of the live collection of each index.
            read_commit_marks: Returns the commit marks in the store by name of collection.
                Collections that the store does not have are missing.
        """
        first = self._find_different(indexes, read_commit_marks)
        different = {name: live for name, live in indexes.items() if name in first}
        second = self._find_different(different, read_commit_marks)
        messages: dict[str, str] = {}
        for name, difference in second.items():
            if difference == first[name]:
                messages[name] = f"{difference}; {reconciled_by(name)}"
        return messages

    def _find_different(
        self,
        indexes: Mapping[str, str],
        read_commit_marks: Callable[[Iterable[str]], Mapping[str, CommitMark]],
    ) -> dict[str, str]:
        """Return how store and ledger differ now, for each index where they do."""
        # Without an index, the store is not opened.
        if not indexes:
            return {}
        marks = read_commit_marks(indexes.values())
        collections: dict[str, Collection] = {}
        for name, live in indexes.items():
            collection = self.collection(live) if live in marks else None
            if collection is not None:
                collections[name] = collection
        differences: dict[str, str] = {}
        for name, collection in collections.items():
            difference = self.different_commits(collection, marks[collection.name])
            if difference:
                differences[name] = difference
        return differences


def reconciled_by(index: str) -> str:
    """Return what to do if store and ledger are at different commits."""
    return f"`rag-index index {index}` compares every point, and indexes again what differs"


def missing_ledger(settings: Settings, live: Mapping[str, str]) -> str:
    """Return a message about a ledger that does not exist although indexes are live; empty if none
    is, as before the first run.

    Args:
        live: The name of the live collection of each alias of the store.
    """
    collections = [live[alias] for alias in settings.aliases if alias in live]
    if not collections:
        return ""
    return (
        f"ledger {redacted_url(settings.ledger_url)} does not exist, although the store has"
        f" {', '.join(collections)}: correct [ledger] url; or, if the ledger was lost,"
        " `rag-index doctor --repair` makes it from the store"
    )


def unwanted_indexes(settings: Settings, ledger: Ledger, live: Mapping[str, str]) -> dict[str, str]:
    """Return a message for each index that is kept although the settings no longer have it.

    Args:
        live: The name of the live collection of each alias of the store.
    """
    prefix = settings.alias("")
    wanted = {settings.alias(index.name) for index in settings.indexes}
    unwanted: dict[str, str] = {}
    for alias, name in sorted(live.items()):
        index = alias.removeprefix(prefix)
        # "desk_tickets" is wanted; "shop_orders" is of another project.
        if alias in wanted or index == alias:
            continue
        # "desk_old_tickets" may be of a project "desk_old" with another ledger.
        collection = ledger.collection(name)
        if collection is None or collection.alias != alias:
            continue
        found = f"{settings.path.name} has no such index, but {name} keeps its texts"
        unwanted[index] = f"{found}: `rag-index drop {index}` deletes them"
    return unwanted
