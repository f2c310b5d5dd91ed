"""The ledger: what is indexed, in which collection and with which hashes; what failed; which runs there were.

Rows belong to a collection, not to an index, and the store's alias alone says which collection is live. A document is
marked pending before it is written. A row that is not pending is exactly what the store holds.
"""

from __future__ import annotations

from rag_index.ledger.collections import CollectionRows, unwanted_indexes
from rag_index.ledger.deletions import DeletionRows
from rag_index.ledger.documents import DocumentRows
from rag_index.ledger.files import FileRows
from rag_index.ledger.mended import MendedRows
from rag_index.ledger.pruning import PrunedRows
from rag_index.ledger.records import (
    Collection,
    Counts,
    FailedDocument,
    Known,
    MissedDocument,
    RunRecord,
    ScanRecord,
    Totals,
    WaitingChange,
    WaitingLookUp,
    WatchRecord,
)
from rag_index.ledger.runs import RunRows
from rag_index.ledger.watches import WatchRows

__all__ = [
    "Collection",
    "Counts",
    "FailedDocument",
    "Known",
    "Ledger",
    "MissedDocument",
    "RunRecord",
    "ScanRecord",
    "Totals",
    "WaitingChange",
    "WaitingLookUp",
    "WatchRecord",
    "unwanted_indexes",
]


class Ledger(CollectionRows, DocumentRows, FileRows, DeletionRows, RunRows, PrunedRows, MendedRows, WatchRows):
    """One connection to the ledger's database, which threads of a process may share.

    Its methods raise LedgerUnavailable if another try may help, and LedgerError (or LedgerTooNew) if not.
    """
