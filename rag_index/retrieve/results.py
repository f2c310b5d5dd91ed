"""The result of a search: hits, the reasons of the indexes that gave none, and how long each stage took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ChunkHit:
    """A chunk that was found in a document: its number, its score and its text."""

    chunk: int
    score: float
    text: str


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A document that was found.

    `score` (-1 to 1) is that of its best chunk, and `text` is that chunk's text: the cosine similarity, and in a hybrid
    search a weighted mean of it and of the BM25 score as a share of the query's best. `rank` counts from 1 in its own
    index; `fused` orders the hits of several indexes. `chunks` are the best chunks found, best first; `payload` holds
    the columns of the source. `cosine` and `bm25` are what meaning and words gave the best chunk, and `matched` the
    words of the query that it has. `rerank_score` is the reranker's number for the best chunk, None if it read none.
    """

    index: str
    document_id: str
    score: float
    rank: int
    text: str
    payload: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[ChunkHit, ...] = ()
    fused: float = 0.0
    cosine: float = 0.0
    bm25: float = 0.0
    matched: tuple[str, ...] = ()
    rerank_score: float | None = None

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the object that `rag-index search --json` prints; `explain` adds ranks, scores and chunks."""
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
                "cosine": round(self.cosine, 6),
                "bm25": round(self.bm25, 6),
                "matched": list(self.matched),
                "chunks": [{"chunk": chunk.chunk, "score": round(chunk.score, 6)} for chunk in self.chunks],
            }
            if self.rerank_score is not None:
                plain["rerank_score"] = round(self.rerank_score, 6)
        return plain


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The result of one search.

    `hits` are best first. `errors` has the reason of each index that gave no answer. `timings_ms` has embed, each index
    by its name (an index named like a stage is "index NAME"), fuse, rerank (if there is a reranker) and total. `fusion`
    says what the hits are ordered by, rank or score. `dense_weight` is the weight of meaning that the scores have, 1 if
    words were not searched for. `collections` has the collection searched, by index. If `reranked`, the best hits are
    in the order of the reranker; `rerank_error` is the reason why they are not, although there is one.
    """

    hits: tuple[SearchHit, ...]
    errors: Mapping[str, str]
    timings_ms: Mapping[str, float]
    fusion: str
    dense_weight: float = 1.0
    collections: Mapping[str, str] = field(default_factory=dict)
    reranked: bool = False
    rerank_error: str = ""

    def to_json(self, *, explain: bool = False) -> dict[str, Any]:
        """Return the object that `rag-index search --json` prints; `errors` and `rerank_error` only if there are."""
        plain: dict[str, Any] = {"hits": [hit.to_json(explain=explain) for hit in self.hits]}
        if self.errors:
            plain["errors"] = dict(self.errors)
        if self.rerank_error:
            plain["rerank_error"] = self.rerank_error
        if explain:
            plain["timings_ms"] = {name: round(value, 3) for name, value in self.timings_ms.items()}
            plain["fusion"] = self.fusion
            plain["dense_weight"] = self.dense_weight
            plain["collections"] = dict(self.collections)
            if self.reranked or self.rerank_error:
                plain["reranked"] = self.reranked
        return plain
