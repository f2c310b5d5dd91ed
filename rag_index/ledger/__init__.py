"""The ledger: what is indexed, in which collection, with which hashes; what failed; what ran.

Rows belong to a collection, not to an index, and the store's alias alone says which collection is shown. A document
that is about to be written is marked open first; a row that is not open is exactly what the store holds.
"""

from __future__ import annotations

from rag_index.ledger.collections import CollectionRows
from rag_index.ledger.documents import DocumentRows
from rag_index.ledger.files import FileRows
from rag_index.ledger.records import Collection, FailedDocument, Known, RunRecord, ScanRecord, Totals
from rag_index.ledger.runs import RunRows

__all__ = ["Collection", "FailedDocument", "Known", "Ledger", "RunRecord", "ScanRecord", "Totals"]


class Ledger(CollectionRows, DocumentRows, FileRows, RunRows):
    """One connection to the ledger's database; safe to share between threads of a process.

    Raises LedgerUnavailable where another try may help, LedgerError (LedgerTooNew) where not.
    """
