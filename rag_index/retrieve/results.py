"""What a search gives: hits, the reasons of those indexes that gave none, and how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ChunkHit", "SearchHit", "SearchResult"]


@dataclass(frozen=True, slots=True)
class ChunkHit:
    """A chunk of a document that was found: its number, its score, its text."""

    chunk: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A document that was found.

    `score` is the cosine similarity (-1 to 1) of its best chunk, whose text `text` is; `rank` counts from 1 in its
    own index; `fused` is what hits of several indexes are ordered by. `chunks` are its chunks that were found, best
    first; `payload` is the columns of the source.
    """

    index: str
    document_id: str
    score: float
    rank: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[ChunkHit, ...] = ()
    fused: float = 0.0

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """As `rag-index search --json` prints it; with `explain` rank, fused score and chunks as well."""
        plain = {
            "index": self.index,
            "document_id": self.document_id,
            "score": round(self.score, 6),
            "text": self.text,
            "payload": dict(self.payload),
        }
        if explain:
            plain |= {
                "rank": self.rank,
                "fused": round(self.fused, 6),
                "chunks": [{"chunk": chunk.chunk, "score": round(chunk.score, 6)} for chunk in self.chunks],
            }
        return plain


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The answer to one search.

    `hits` are best first. `errors` says for each index that gave no answer why. `timings_ms` has embed, each index
    by its name (an index named as a stage is "index NAME"), fuse and total. `fusion` is how the order was made, rank
    or score; `collections` is what was searched, by index.
    """

    hits: tuple[SearchHit, ...]
    errors: Mapping[str, str]
    timings_ms: Mapping[str, float]
    fusion: str
    collections: Mapping[str, str] = field(default_factory=dict)

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """As `rag-index search --json` prints it: `errors` only where there are some."""
        plain: dict[str, Any] = {"hits": [hit.to_json(explain=explain) for hit in self.hits]}
        if self.errors:
            plain["errors"] = dict(self.errors)
        if explain:
            plain["timings_ms"] = {name: round(value, 3) for name, value in self.timings_ms.items()}
            plain["fusion"] = self.fusion
            plain["collections"] = dict(self.collections)
        return plain
