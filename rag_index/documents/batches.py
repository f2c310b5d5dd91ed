"""What travels between the stages, as columns: a page of the source, a shard of work, an embedded shard, points, hits.

A document is `(index, key)`. Its key is kept in two forms: `key`, the typed form (JSON: `1` is not `"1"`; see
`canonical.encode_key`), which identifies it in hashes, point ids and the ledger; and the document id that people see
(`canonical.document_id`). Columns of one object always have the same length and order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ContextCounts",
    "ChunkedDocument",
    "EmbeddedShard",
    "Failure",
    "FailureKind",
    "Hit",
    "DocumentBatch",
    "PointBatch",
    "RESERVED_KEY",
    "Shard",
    "ShardStats",
    "StoredPoint",
    "WrittenShard",
    "text_to_embed",
]

RESERVED_KEY = "_rag"
"""The one payload key that is ours: a dict with key, document_id, chunk, chunks, text, text_hash, payload_hash.

Where a chunk has them also `context`, words that were embedded before its text, and `own`, the names of payload fields
that are the chunk's and not the document's.
"""

FailureKind = Literal["failed", "skipped", "incomplete"]
"""`failed`: it could not be indexed; `skipped`: a rule of its source keeps it out; `incomplete`: it is indexed, and
something that would have been better is missing."""


@dataclass(frozen=True, slots=True)
class DocumentBatch:
    """Documents as read from a source: typed keys, texts as they will be sent, payloads as canonical JSON."""

    keys: list[str]
    texts: list[str]
    payloads: list[bytes]
    text_hashes: list[bytes]
    payload_hashes: list[bytes]

    def __len__(self) -> int:
        return len(self.keys)

    def take(self, rows: list[int]) -> DocumentBatch:
        """The documents at these positions, in this order."""
        return DocumentBatch(
            [self.keys[i] for i in rows],
            [self.texts[i] for i in rows],
            [self.payloads[i] for i in rows],
            [self.text_hashes[i] for i in rows],
            [self.payload_hashes[i] for i in rows],
        )

    def plus(self, other: DocumentBatch) -> DocumentBatch:
        """These documents, then those of `other`."""
        return DocumentBatch(
            self.keys + other.keys,
            self.texts + other.texts,
            self.payloads + other.payloads,
            self.text_hashes + other.text_hashes,
            self.payload_hashes + other.payload_hashes,
        )


@dataclass(frozen=True, slots=True)
class Shard:
    """One worker's piece of work: changed documents worth some seconds of embedding."""

    index: str
    number: int
    documents: DocumentBatch
    chars: int
    """Characters of all texts together."""


@dataclass(frozen=True, slots=True)
class ContextCounts:
    """Chunks whose context a model wrote now, was there already, or could not be had."""

    made: int = 0
    cached: int = 0
    missing: int = 0


@dataclass(frozen=True, slots=True)
class ChunkedDocument:
    """A document in chunks, as columns. `contexts` and `payloads` are empty lists where chunks have none."""

    chunks: list[str]
    contexts: list[str] = field(default_factory=list)
    """What is embedded before each chunk's text, and never shown as the source's words; "" where it has none."""
    payloads: list[bytes] = field(default_factory=list)
    """Payload fields of each chunk's own, as canonical JSON; they go over the document's."""
    incomplete: str = ""
    """What is missing though the document can be indexed, in words for a person."""
    context_counts: ContextCounts = ContextCounts()
    symbols: dict[str, int] = field(default_factory=dict)
    """How many symbols of each kind it has, where it is source code."""

    def __reduce__(self) -> tuple[type[ChunkedDocument], tuple[Any, ...]]:
        """Brief, since a shard has thousands: a dataclass looks its fields up for each."""
        more = (self.contexts, self.payloads, self.incomplete, self.context_counts, self.symbols)
        return ChunkedDocument, (self.chunks, *more) if more != NO_MORE else (self.chunks,)

    def sent(self) -> list[str]:
        """The texts that are embedded, one a chunk."""
        if not self.contexts:
            return self.chunks
        return [text_to_embed(*both) for both in zip(self.contexts, self.chunks, strict=True)]


NO_MORE: tuple[Any, ...] = ([], [], "", ContextCounts(), {})


def text_to_embed(context: str, chunk: str) -> str:
    """What is embedded of a chunk."""
    return f"{context}\n\n{chunk}" if context else chunk


@dataclass(frozen=True, slots=True)
class Failure:
    """A document that could not be indexed, or not as it should be, and why, in words for a person."""

    key: str
    reason: str
    text_hash: bytes = b""
    kind: FailureKind = "failed"


@dataclass(frozen=True, slots=True)
class ShardStats:
    """What embedding a shard cost."""

    seconds: float = 0.0
    """Wall seconds in the worker, chunking and embedding."""
    embed_seconds: float = 0.0
    """Of these, seconds in which an embedding request or call was under way."""
    texts: int = 0
    """Texts sent to the embedder (equal ones once)."""
    repeated: int = 0
    """Chunks that shared the vector of an equal text."""
    reused: int = 0
    """Chunks whose vector was there already."""
    requests: int = 0
    retries: int = 0
    rate_limited: int = 0
    chars: int = 0
    chunk_seconds: float = 0.0
    """Of `seconds`, those of cutting, and of writing contexts."""
    contexts_made: int = 0
    contexts_cached: int = 0
    contexts_missing: int = 0
    host_seconds: dict[str, float] = field(default_factory=dict)
    """By host of the embedder: seconds in which a request was under way there."""
    worker: str = ""
    """Where it ran: host and process id."""
    symbols: dict[str, int] = field(default_factory=dict)
    """Symbols of source code, by kind."""
    peak_memory: int = 0
    """Bytes that the worker's process had resident at most so far."""


@dataclass(frozen=True, slots=True)
class EmbeddedShard:
    """A shard with its chunks and their vectors.

    `documents` holds the documents that succeeded, `cuts` the chunks of each (at least one); the rows of `vectors`
    (float32, shape (number of chunks, dimension)) follow in the same order, documents one after another. `failures`
    holds the others, and those of the succeeded that are incomplete.
    """

    index: str
    number: int
    documents: DocumentBatch
    chunked: list[ChunkedDocument]
    vectors: NDArray[np.float32]
    failures: list[Failure]
    stats: ShardStats

    @property
    def chunk_counts(self) -> list[int]:
        """How many chunks each document has."""
        return [len(document.chunks) for document in self.chunked]

    @property
    def chunks(self) -> list[str]:
        """The texts of all chunks, as the rows of `vectors`."""
        return [chunk for document in self.chunked for chunk in document.chunks]


@dataclass(frozen=True, slots=True)
class PointBatch:
    """Points for the store: ids (UUID text), vectors (float32, shape (len(ids), dimension)), payloads."""

    ids: list[str]
    vectors: NDArray[np.float32]
    payloads: list[dict[str, Any]]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point as the store has it; `vector` only where it was asked for."""

    id: str
    payload: dict[str, Any]
    vector: list[float] | None = None
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A search result: the best chunk of a document, and the payload columns of the source."""

    index: str
    document_id: str
    score: float
    text: str
    payload: dict[str, Any] = field(default_factory=dict)
    chunk: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """What is left of an embedded shard once its points are in the store: what the ledger has to note."""

    number: int
    keys: list[str]
    text_hashes: list[bytes]
    payload_hashes: list[bytes]
    chunk_counts: list[int]
    failures: list[Failure]
    stats: ShardStats
    write_seconds: float = 0.0
