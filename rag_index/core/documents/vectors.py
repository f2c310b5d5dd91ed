"""Vectors: the checks that each must pass before it is used, shorter ones, sparse ones, and digests
made of one."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

import numpy as np

from rag_index.errors import EmbedderError

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROBE = "~"
"""The beginning of a digest that is made of a vector."""
PROBE_COMPONENTS = 64
MIN_COSINE = 0.99


def usable_rows(matrix: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return, for a matrix of shape (n, dimension), which rows are finite and not all zero, as
    shape (n,)."""
    return np.asarray(np.isfinite(matrix).all(axis=1) & matrix.any(axis=1), dtype=np.bool_)


def broken_reason(vector: NDArray[np.float32], dimension: int | None) -> str | None:
    """Return why a vector cannot be right, as words that follow "a vector of"; None if nothing is
    wrong with it."""
    if dimension is not None and vector.shape != (dimension,):
        return f"{vector.size} dimensions instead of {dimension}"
    if not np.isfinite(vector).all():
        return "values that are not finite"
    return None if vector.any() else "nothing but zeros"


def shorten(vector: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Return the first `dimensions` components, scaled to unit length: what a Matryoshka model's
    shorter vector is. Without `dimensions` the vector stays as it is. Raises EmbedderError if it
    has fewer."""
    if dimensions is None:
        return vector
    if vector.size < dimensions:
        raise EmbedderError(
            f"the model returns vectors of {vector.size} dimensions: set [embedder] dimensions to"
            f" {vector.size} or less"
        )
    cut = vector[:dimensions]
    length = np.linalg.norm(cut.astype(np.float64))
    return (cut / length).astype(np.float32) if np.isfinite(length) and length else cut


def probe_digest(vector: NDArray[np.float32]) -> str:
    """Return the digest `~` and 64 components in base64 for a model known by a vector; see
    `same_digest`."""
    part = vector[:PROBE_COMPONENTS].astype(np.float64)
    levels = np.round(127 * part / max(float(np.abs(part).max()), 1e-30)).astype(np.int8)
    return PROBE + base64.urlsafe_b64encode(levels.tobytes()).decode()


def same_digest(one: str, other: str) -> bool:
    """Return whether two digests are of one model. Those of `probe_digest` are if the cosine of
    their vectors is at least `MIN_COSINE`, since batches, GPUs and number formats change a vector a
    little."""
    if one == other or not (one.startswith(PROBE) and other.startswith(PROBE)):
        return one == other
    raw = (base64.urlsafe_b64decode(digest[1:]) for digest in (one, other))
    first, second = (np.frombuffer(part, dtype=np.int8).astype(np.float64) for part in raw)
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return first.shape == second.shape and bool(first @ second >= MIN_COSINE * lengths)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """One sparse vector: dimensions in ascending order, each once, and the value at each
    (float32)."""

    indices: tuple[int, ...]
    values: tuple[float, ...]

    def __bool__(self) -> bool:
        return bool(self.indices)


@dataclass(frozen=True, slots=True)
class SparseVectors:
    """Sparse vectors in compressed rows. Row i has the dimensions `indices[offsets[i]:offsets[i +
    1]]` (uint32, ascending) and the values at the same places of `values` (float32). A row may be
    empty."""

    offsets: NDArray[np.int64]
    indices: NDArray[np.uint32]
    values: NDArray[np.float32]

    @classmethod
    def from_rows(cls, rows: Sequence[SparseVector]) -> SparseVectors:
        """Return the rows as columns."""
        return cls.from_lists([row.indices for row in rows], [row.values for row in rows])

    @classmethod
    def from_lists(
        cls, indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]]
    ) -> SparseVectors:
        """Return the columns of rows that are given by their dimensions and their values."""
        offsets = [0, *accumulate(map(len, indices))]
        return cls(
            np.asarray(offsets, dtype=np.int64),
            np.fromiter(chain.from_iterable(indices), dtype=np.uint32, count=offsets[-1]),
            np.fromiter(chain.from_iterable(values), dtype=np.float32, count=offsets[-1]),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> SparseVector:
        """Return one row."""
        first, last = self.offsets[number], self.offsets[number + 1]
        return SparseVector(
            tuple(self.indices[first:last].tolist()), tuple(self.values[first:last].tolist())
        )

    def lists(self) -> Iterator[tuple[list[int], list[float]]]:
        """Yield the dimensions and the values of each row, as lists. Every row passes here on its
        way to a store."""
        indices, values = self.indices.tolist(), self.values.tolist()
        for first, last in pairwise(self.offsets.tolist()):
            yield indices[first:last], values[first:last]

    def rows(self, first: int, last: int) -> SparseVectors:
        """Return the rows from `first` to before `last`."""
        offsets = self.offsets[first : last + 1]
        begin, end = offsets[0], offsets[-1]
        return SparseVectors(offsets - begin, self.indices[begin:end], self.values[begin:end])
