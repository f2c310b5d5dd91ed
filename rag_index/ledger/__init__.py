"""The ledger: what is indexed, in which collection and with which hashes; what failed; which runs there were.

Rows belong to a collection, not to an index, and the store's alias alone says which collection is live. A document is
marked pending before it is written. A row that is not pending is exactly what the store holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.ledger.collections import CollectionRows, unwanted_indexes
from rag_index.ledger.deletions import DeletionRows
from rag_index.ledger.documents import DocumentRows
from rag_index.ledger.inbox import InboxRows
from rag_index.ledger.records import (
    Channels,
    Collection,
    Counts,
    FailedDocument,
    Known,
    MissedDocument,
    Reached,
    RunRecord,
    ScanRecord,
    Totals,
    WaitingChange,
    WaitingLookUp,
    WatchRecord,
)
from rag_index.ledger.runs import RunRows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rag_index.documents.batches import CommitMark

__all__ = [
    "Channels",
    "Collection",
    "Counts",
    "FailedDocument",
    "Known",
    "Ledger",
    "MissedDocument",
    "Reached",
    "RunRecord",
    "ScanRecord",
    "Totals",
    "WaitingChange",
    "WaitingLookUp",
    "WatchRecord",
    "reconciled_by",
    "unwanted_indexes",
]


class Ledger(CollectionRows, DocumentRows, DeletionRows, RunRows, InboxRows):
    """One connection to the ledger's database, which threads of a process may share.

    Its methods raise LedgerUnavailable if another try may help, and LedgerError (or LedgerTooNew) if not.
    """

    def find_restored(
        self, indexes: Mapping[str, str], read_marks: Callable[[Iterable[str]], Mapping[str, CommitMark]]
    ) -> dict[str, str]:
        """Return what a person should know of indexes whose store and ledger are at different commits, by their name.

        `indexes` has the live collection of each, and `read_marks` returns the marks that the store has. A run may be
        writing, so a difference counts if a second look shows the same.
        """
        found: list[dict[str, str]] = []
        for _ in range(2):
            marks = read_marks(indexes.values()) if indexes else {}
            rows = {name: self.collection(live) for name, live in indexes.items() if live in marks}
            found.append({name: self.different_commits(row, marks[row.name]) for name, row in rows.items() if row})
            indexes = {name: indexes[name] for name, difference in found[-1].items() if difference}
        first, again = found
        return {name: f"{first[name]}; {reconciled_by(name)}" for name in indexes if again[name] == first[name]}


def reconciled_by(index: str) -> str:
    """Return what to do if store and ledger are at different commits."""
    return f"`rag-index index {index}` compares every point, and indexes again what differs"
