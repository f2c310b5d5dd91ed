"""The mutable part of a scan: how far it is, and what it has to remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rag_index.documents.batches import Failure


@dataclass(slots=True)
class ScanProgress:
    """How far a scan is, and what it has to remember."""

    pages: int = 0
    any_failures: bool = False
    """Whether the ledger lists failed documents, so that pages have to look for theirs."""
    suspects: set[str] = field(default_factory=set)
    """Documents that must not be embedded in this process: see `indexing.child`."""
    chars: int = 0
    """Characters of all documents that have to be embedded, as far as the source was read."""
    excluded: list[Failure] = field(default_factory=list)
    """Indexed documents that a rule of the source now keeps out."""
    emptied: set[str] = field(default_factory=set)
    """Documents with points that have no text any more, or that a rule of the source now keeps out."""
    deletes_done: bool = False
