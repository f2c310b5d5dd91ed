"""What the ledger keeps of documents, collections, failures and runs, as its methods give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from rag_index.documents.batches import FailureKind

__all__ = ["Collection", "FailedDocument", "Known", "RunRecord", "ScanRecord", "Totals"]


class Known(NamedTuple):
    """What the ledger knows of a document. An open one is to be treated as changed."""

    text_hash: bytes
    payload_hash: bytes
    chunks: int
    pending: int


class Totals(NamedTuple):
    """Documents and points of a collection that are done (not open), and how many are open."""

    documents: int
    points: int
    pending: int


class ScanRecord(NamedTuple):
    """What a complete scan leaves to the next: see `indexing.scan_state`. `full_at` is when all was read last."""

    watermark: str
    settings: str
    full_at: float


@dataclass(frozen=True, slots=True)
class Collection:
    """A collection of the store as the ledger knows it."""

    id: int
    alias: str
    name: str
    store_id: str
    embedder_fingerprint: str
    embedder: str
    """What the embedder was, in words."""
    chunking: str
    dimension: int
    state: str
    """`ready`, or `building` beside the one that is shown."""
    created_at: float
    chars_per_second: float | None


@dataclass(frozen=True, slots=True)
class FailedDocument:
    """A document that could not be indexed, and how often it was tried."""

    key: str
    text_hash: bytes
    reason: str
    tries: int
    first_at: float
    last_at: float
    kind: FailureKind = "failed"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run of one index."""

    id: str
    alias: str
    host: str
    pid: int
    started_at: float
    ended_at: float | None
    state: str
    message: str
    report: dict[str, Any]
