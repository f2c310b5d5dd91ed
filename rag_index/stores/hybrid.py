"""Searching by two vectors of one collection: the candidates of both, each with both scores.

A candidate that one vector alone has found is looked up by the other, so that a fusion compares like with like. It
takes at most two rounds of requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.documents.batches import StoredPoint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class LookUp:
    """A search by one of the two vectors: the best points of all, with payload, or the scores of some, without."""

    sparse: bool
    limit: int
    ids: tuple[str, ...] = ()


def hybrid_points(look_up: Callable[[Sequence[LookUp]], list[list[StoredPoint]]], limit: int) -> list[StoredPoint]:
    """Return the `limit` best points by either vector, each once, with both scores.

    `look_up` does some searches in one round, and returns the points of each. Raises what it raises.
    """
    near, worded = look_up([LookUp(sparse=False, limit=limit), LookUp(sparse=True, limit=limit)])
    cosines = {point.id: point.score for point in near}
    bm25 = {point.id: point.score for point in worded}
    wanted: list[LookUp] = []
    if len(worded) == limit and (ids := tuple(cosines.keys() - bm25.keys())):  # fewer: no other point has the words
        wanted.append(LookUp(sparse=True, limit=len(ids), ids=ids))
    if ids := tuple(bm25.keys() - cosines.keys()):
        wanted.append(LookUp(sparse=False, limit=len(ids), ids=ids))
    for asked, points in zip(wanted, look_up(wanted) if wanted else (), strict=True):
        (bm25 if asked.sparse else cosines).update((point.id, point.score) for point in points)
    candidates = {point.id: point for point in (*near, *worded)}
    return [
        StoredPoint(point.id, point.payload, score=cosines[point.id], bm25=bm25.get(point.id, 0.0))
        for point in candidates.values()
        if point.id in cosines  # else it was deleted between the rounds
    ]
