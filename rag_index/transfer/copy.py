"""Copy of one collection's points to another store: writes or deletes the points that differ, and keeps the rest.

Both stores return points in order of their id, so two streams side by side show every difference with one page of each
in memory. A pass that finds no difference proves that the copy is complete, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import PointBatch
from rag_index.documents.vectors import SparseVector, SparseVectors
from rag_index.errors import StoreError
from rag_index.transfer.export import json_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.documents.batches import StoredPoint
    from rag_index.stores import Store

BATCH_POINTS = 500
PASSES = 3
"""The first pass writes and the second finds no difference; the third is for a second pass that did find some."""
NO_WORDS = SparseVector((), ())
LAST_BITS = 2e-7
"""Tolerance for a value of a unit vector: a little over twice the distance between float32 numbers just below 1."""


@dataclass(frozen=True, slots=True)
class CopyCounts:
    """Numbers of points written or deleted, and of vectors whose last bits the new store rounded."""

    sent: int = 0
    rounded: int = 0


def copy_points(old: Store, new: Store, name: str, on_progress: Callable[[int], None] = lambda _: None) -> CopyCounts:
    """Make collection `name` hold in `new` what it holds in `old`.

    Qdrant keeps unit vectors bit by bit. A store that normalizes them again may return different last bits; these are
    left as they are and counted. `on_progress` is called with the number of points compared, after each batch.
    Raises what the stores raise, and StoreError if the two still differ at the end.
    """
    sent = 0
    for number in range(PASSES):
        differing, rounded = _copy_once(old, new, name, on_progress, allow_rounding=number > 0)
        sent += differing
        if not differing:
            break
    else:
        raise StoreError(
            f"{name} in the new store still differs after {PASSES} passes; stop other programs that write to it, "
            "then run the same command again"
        )
    old_count, new_count = old.count(name), new.count(name)
    if old_count != new_count:
        raise StoreError(
            f"the new store counts {new_count:,} points in {name}, not {old_count:,}; run the same command again"
        )
    new.flush(name)
    return CopyCounts(sent, rounded)


def _copy_once(
    old: Store, new: Store, name: str, on_progress: Callable[[int], None], *, allow_rounding: bool
) -> tuple[int, int]:
    """Write and delete what differs; return how many points differed, and how many vectors are rounded.

    With `allow_rounding`, vectors that differ only in their last bits are left alone and counted as rounded.
    """
    old_points = old.scroll(name, vectors=True, page=BATCH_POINTS)
    new_points = new.scroll(name, vectors=True, page=BATCH_POINTS)
    missing: list[StoredPoint] = []
    surplus: list[str] = []
    differing = rounded = 0
    for number, (point, copy) in enumerate(_pair_by_id(old_points, new_points), 1):
        if point is None and copy is not None:
            surplus.append(copy.id)
        elif point is not None and copy is not None and allow_rounding and _nearly_equal(point, copy):
            rounded += json_line(point) != json_line(copy)
        elif point is not None and (copy is None or json_line(point) != json_line(copy)):
            missing.append(point)
        if len(missing) + len(surplus) == BATCH_POINTS:
            differing += _write(new, name, missing, surplus)
            missing, surplus = [], []
        if number % BATCH_POINTS == 0:
            on_progress(number)
    return differing + _write(new, name, missing, surplus), rounded


def _pair_by_id(
    old_points: Iterator[StoredPoint], new_points: Iterator[StoredPoint]
) -> Iterator[tuple[StoredPoint | None, StoredPoint | None]]:
    """Yield for each id its points in two streams that are in order of id; None if a stream does not have it."""
    point, copy = next(old_points, None), next(new_points, None)
    while point is not None or copy is not None:
        if copy is None or (point is not None and point.id < copy.id):
            yield point, None
            point = next(old_points, None)
        elif point is None or copy.id < point.id:
            yield None, copy
            copy = next(new_points, None)
        else:
            yield point, copy
            point, copy = next(old_points, None), next(new_points, None)


def _nearly_equal(point: StoredPoint, copy: StoredPoint) -> bool:
    """Return whether two points are equal except for the last bits of their vectors."""
    if json_line(replace(point, vector=None)) != json_line(replace(copy, vector=None)):
        return False
    return bool(np.allclose(point.vector or [], copy.vector or [], rtol=0, atol=LAST_BITS))


def _write(store: Store, name: str, missing: list[StoredPoint], surplus: list[str]) -> int:
    """Upsert the missing points and delete the surplus ones; return their number."""
    if missing:
        vectors = np.asarray([point.vector for point in missing], dtype=np.float32)
        ids, payloads = [point.id for point in missing], [point.payload for point in missing]
        rows = [point.sparse or NO_WORDS for point in missing]
        sparse = SparseVectors.from_rows(rows) if any(rows) else None
        store.upsert(name, PointBatch(ids, vectors, payloads, sparse))
    store.delete_points(name, surplus)
    return len(missing) + len(surplus)
