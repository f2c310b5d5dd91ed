"""From points to documents, and from the documents of several indexes to one list.

Two ways to fuse. **Reciprocal rank** (Cormack, Clarke and Büttcher: Reciprocal Rank Fusion outperforms Condorcet and
individual Rank Learning Methods, SIGIR 2009): a document at rank r of a list is worth 1 / (k + r) there, from r = 1,
and the sum over all lists orders them, with k = 60 as in the paper. It looks at ranks alone, so that it may be used
whatever the scores mean. **Score**: the cosine similarity itself, which compares only among vectors of one model.

A document is in one index, so that with reciprocal ranks the first of each index come first, then the second of each,
and so on. Sorting is stable: what is equal keeps the order in which the indexes were asked, and within one index its
ranks.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.retrieve.results import ChunkHit, SearchHit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.documents.batches import StoredPoint

__all__ = ["CHUNKS_SHOWN", "K", "by_rank", "by_score", "documents_of"]

K = 60
CHUNKS_SHOWN = 3
"""Chunks that a hit carries at most."""


def by_rank(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by reciprocal rank: `fused` is 1 / (60 + rank)."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: hit.rank)[:limit]
    return [replace(hit, fused=1 / (K + hit.rank)) for hit in best]


def by_score(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by score: `fused` is the score. All lists must come from one model."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: -hit.score)[:limit]
    return [replace(hit, fused=hit.score) for hit in best]


def documents_of(index: str, points: Iterable[StoredPoint]) -> list[SearchHit]:
    """The documents that some points of an index belong to, best first, each once with its best chunks.

    Points of one score are taken by document and chunk number, so that the order is the same whatever order a store
    gives them in.
    """
    chunks: dict[str, list[StoredPoint]] = {}
    for point in sorted(points, key=_order):
        chunks.setdefault(_key(point), []).append(point)
    return [_hit(index, rank, found) for rank, found in enumerate(chunks.values(), 1)]


def _order(point: StoredPoint) -> tuple[float, str, int]:
    return -point.score, _key(point), point.payload.get(RESERVED_KEY, {}).get("chunk", 0)


def _key(point: StoredPoint) -> str:
    return str(point.payload.get(RESERVED_KEY, {}).get("key", point.id))


def _hit(index: str, rank: int, points: Sequence[StoredPoint]) -> SearchHit:
    best = points[0]
    return SearchHit(
        index,
        str(best.payload.get(RESERVED_KEY, {}).get("document_id", best.id)),
        best.score,
        rank,
        best.payload.get(RESERVED_KEY, {}).get("text", ""),
        {name: value for name, value in best.payload.items() if name != RESERVED_KEY},
        tuple(map(_chunk, points[:CHUNKS_SHOWN])),
    )


def _chunk(point: StoredPoint) -> ChunkHit:
    ours = point.payload.get(RESERVED_KEY, {})
    return ChunkHit(ours.get("chunk", 0), point.score, ours.get("text", ""))
