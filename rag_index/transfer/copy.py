"""One collection's points made the same in another store: what differs is written or deleted, the rest left alone.

Both stores give points in order of their id, so that two streams side by side show every difference, with a page of
each in memory. A pass that finds none is the proof that all is there, bit by bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from rag_index.documents.batches import PointBatch
from rag_index.errors import StoreError
from rag_index.transfer.export import line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rag_index.documents.batches import StoredPoint
    from rag_index.stores import Store

__all__ = ["CopyCounts", "copy_points"]

BATCH_POINTS = 500
PASSES = 3
"""The first writes, the second sees that nothing differs; one more where something did."""
LAST_BITS = 2e-7
"""Of a value of a vector of length one: twice the distance between float32 numbers just below 1, and a little."""


@dataclass(frozen=True, slots=True)
class CopyCounts:
    """How many points were written or deleted, and how many vectors the new store rounded in their last bits."""

    sent: int = 0
    rounded: int = 0


def copy_points(old: Store, new: Store, name: str, tell: Callable[[int], None] = lambda _: None) -> CopyCounts:
    """Let collection `name` hold in `new` what it holds in `old`.

    Qdrant keeps vectors of length one bit by bit; where a store makes them so once more, what comes back may differ
    in the last bits, is left so, and is counted. `tell` is given the number of points compared, after each batch.
    Raises what the stores raise, and StoreError where the two still differ at the end.
    """
    sent = 0
    for number in range(PASSES):
        differing, rounded = _one_pass(old, new, name, tell, again=number > 0)
        sent += differing
        if not differing:
            break
    else:
        raise StoreError(f"{name} in the new store differs after {PASSES} passes: does another program write to it?")
    here, there = old.count(name), new.count(name)
    if here != there:
        raise StoreError(f"the new store counts {there:,} points in {name}, not {here:,}: run the same command again")
    new.flush(name)
    return CopyCounts(sent, rounded)


def _one_pass(old: Store, new: Store, name: str, tell: Callable[[int], None], *, again: bool) -> tuple[int, int]:
    """Write and delete what differs, how many points did; `again`: last bits are left, and counted as rounded."""
    here = old.scroll(name, vectors=True, page=BATCH_POINTS)
    there = new.scroll(name, vectors=True, page=BATCH_POINTS)
    missing: list[StoredPoint] = []
    surplus: list[str] = []
    differing = rounded = 0
    for number, (point, other) in enumerate(_side_by_side(here, there), 1):
        if point is None and other is not None:
            surplus.append(other.id)
        elif point is not None and other is not None and again and _nearly_equal(point, other):
            rounded += line(point) != line(other)
        elif point is not None and (other is None or line(point) != line(other)):
            missing.append(point)
        if len(missing) + len(surplus) == BATCH_POINTS:
            differing += _write(new, name, missing, surplus)
            missing, surplus = [], []
        if number % BATCH_POINTS == 0:
            tell(number)
    return differing + _write(new, name, missing, surplus), rounded


def _side_by_side(
    here: Iterator[StoredPoint], there: Iterator[StoredPoint]
) -> Iterator[tuple[StoredPoint | None, StoredPoint | None]]:
    """Two streams in order of id: for each id the points that they have of it."""
    point, other = next(here, None), next(there, None)
    while point is not None or other is not None:
        if other is None or (point is not None and point.id < other.id):
            yield point, None
            point = next(here, None)
        elif point is None or other.id < point.id:
            yield None, other
            other = next(there, None)
        else:
            yield point, other
            point, other = next(here, None), next(there, None)


def _nearly_equal(point: StoredPoint, other: StoredPoint) -> bool:
    """Equal but for the last bits of vectors."""
    if line(replace(point, vector=None)) != line(replace(other, vector=None)):
        return False
    return bool(np.allclose(point.vector or [], other.vector or [], rtol=0, atol=LAST_BITS))


def _write(store: Store, name: str, missing: list[StoredPoint], surplus: list[str]) -> int:
    if missing:
        vectors = np.asarray([point.vector for point in missing], dtype=np.float32)
        store.upsert(name, PointBatch([point.id for point in missing], vectors, [point.payload for point in missing]))
    store.delete_points(name, surplus)
    return len(missing) + len(surplus)
