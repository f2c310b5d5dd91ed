"""From points to documents, and from the documents of several indexes to one list.

There are two ways to fuse. **Reciprocal rank** (Cormack, Clarke and Büttcher: Reciprocal Rank Fusion outperforms
Condorcet and individual Rank Learning Methods, SIGIR 2009): a document at rank r of a list, counted from 1, scores
1 / (k + r) there, and the sum over all lists orders the documents, with k = 60 as in the paper. It looks at ranks
alone, so it works whatever the scores mean. **Score**: the cosine similarity itself, which is comparable only among
vectors of one model.

A document is in one index. So reciprocal rank puts the first hit of each index first, then the second of each, and so
on. Sorting is stable: equal hits keep the order in which the indexes were asked, and their ranks within an index.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rag_index.documents.batches import RESERVED_KEY
from rag_index.retrieve.results import ChunkHit, SearchHit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.documents.batches import StoredPoint

__all__ = ["by_rank", "by_score", "document_hits"]

K = 60
MAX_CHUNKS = 3
"""Chunks that a hit holds at most."""


def by_rank(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by reciprocal rank: `fused` is 1 / (60 + rank)."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: hit.rank)[:limit]
    return [replace(hit, fused=1 / (K + hit.rank)) for hit in best]


def by_score(lists: Iterable[Sequence[SearchHit]], *, limit: int) -> list[SearchHit]:
    """Fuse by score: `fused` is the score. All lists must come from one model."""
    best = sorted((hit for hits in lists for hit in hits), key=lambda hit: -hit.score)[:limit]
    return [replace(hit, fused=hit.score) for hit in best]


def document_hits(index: str, points: Iterable[StoredPoint]) -> list[SearchHit]:
    """Group the points of one index by document. Return each document once, best first, with its best chunks.

    Points with equal scores are ordered by document and chunk number, so that the result does not depend on the order
    in which a store returns them.
    """
    points_by_document: dict[str, list[StoredPoint]] = {}
    for point in sorted(points, key=_sort_key):
        points_by_document.setdefault(_document_key(point), []).append(point)
    return [_hit(index, rank, found) for rank, found in enumerate(points_by_document.values(), 1)]


def _sort_key(point: StoredPoint) -> tuple[float, str, int]:
    return -point.score, _document_key(point), point.payload.get(RESERVED_KEY, {}).get("chunk", 0)


def _document_key(point: StoredPoint) -> str:
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
        tuple(map(_chunk, points[:MAX_CHUNKS])),
    )


def _chunk(point: StoredPoint) -> ChunkHit:
    ours = point.payload.get(RESERVED_KEY, {})
    return ChunkHit(ours.get("chunk", 0), point.score, ours.get("text", ""))
