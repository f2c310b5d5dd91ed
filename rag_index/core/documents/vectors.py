"""Vectors: the checks that each must pass before use, shortening, sparse vectors, and digests that
identify a model by a vector."""

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
"""The beginning of a digest that is made from a vector."""
PROBE_COMPONENTS = 64
"""Components of the vector in such a digest, which is stored."""
MIN_COSINE = 0.99
"""The least cosine of two digests of one model: batches, GPUs and number formats change a vector a
little."""


def usable_rows(matrix: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return, for a matrix of shape (n, dimension), which rows are finite and not all zero, as
    shape (n,)."""
    is_finite = np.isfinite(matrix).all(axis=1)
    has_values = matrix.any(axis=1)
    return np.asarray(is_finite & has_values, dtype=np.bool_)


def broken_reason(vector: NDArray[np.float32], dimension: int | None) -> str | None:
    """Return why a vector cannot be right, as words that follow "a vector of"; None if it is
    right."""
    if dimension is not None and vector.shape != (dimension,):
        return f"{vector.size} dimensions instead of {dimension}"
    if not np.isfinite(vector).all():
        return "values that are not finite"
    return None if vector.any() else "nothing but zeros"


def shorten(vector: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """Return the first `dimensions` components, scaled to unit length: the shorter vector of a
    Matryoshka model. Without `dimensions` the vector is unchanged. Raises EmbedderError if it has
    fewer."""
    if dimensions is None:
        return vector
    if vector.size < dimensions:
        raise EmbedderError(
            f"the model returns vectors of {vector.size} dimensions: set [embedder] dimensions to"
            f" {vector.size} or less"
        )
    cut = vector[:dimensions]
    length = np.linalg.norm(cut.astype(np.float64))
    # The check of vectors will report a broken one.
    if not np.isfinite(length) or not length:
        return cut
    return (cut / length).astype(np.float32)


def probe_digest(vector: NDArray[np.float32]) -> str:
    """Return a digest that identifies a model by one of its vectors: `~` and 64 components of 8
    bits in base64. Compare it by `same_digest`."""
    part = vector[:PROBE_COMPONENTS].astype(np.float64)
    largest = max(float(np.abs(part).max()), 1e-30)
    levels = np.round(127 * part / largest).astype(np.int8)
    return PROBE + base64.urlsafe_b64encode(levels.tobytes()).decode()


def same_digest(one: str, other: str) -> bool:
    """Return whether two digests are of one model. Those of `probe_digest` are if the cosine of
    their vectors is at least `MIN_COSINE`."""
    if one == other:
        return True
    if not (one.startswith(PROBE) and other.startswith(PROBE)):
        return False
    first = _probe_components(one)
    second = _probe_components(other)
    if first.shape != second.shape:
        return False
    lengths = np.linalg.norm(first) * np.linalg.norm(second)
    return bool(first @ second >= MIN_COSINE * lengths)


def _probe_components(digest: str) -> NDArray[np.float64]:
    raw = base64.urlsafe_b64decode(digest.removeprefix(PROBE))
    return np.frombuffer(raw, dtype=np.int8).astype(np.float64)


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A sparse vector: dimensions in ascending order, each once, and the value at each
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
        indices = [row.indices for row in rows]
        values = [row.values for row in rows]
        return cls.from_lists(indices, values)

    @classmethod
    def from_lists(
        cls, indices: Sequence[Sequence[int]], values: Sequence[Sequence[float]]
    ) -> SparseVectors:
        """Return rows, given by their dimensions and their values, as columns."""
        offsets = np.asarray([0, *accumulate(map(len, indices))], dtype=np.int64)
        total = int(offsets[-1])
        return cls(
            offsets,
            np.fromiter(chain.from_iterable(indices), dtype=np.uint32, count=total),
            np.fromiter(chain.from_iterable(values), dtype=np.float32, count=total),
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def row(self, number: int) -> SparseVector:
        """Return one row."""
        first = self.offsets[number]
        last = self.offsets[number + 1]
        indices = self.indices[first:last].tolist()
        values = self.values[first:last].tolist()
        return SparseVector(tuple(indices), tuple(values))

    def lists(self) -> Iterator[tuple[list[int], list[float]]]:
        """Yield the dimensions and the values of each row. This is a hot loop: each row passes it
        on its way to a store."""
        indices = self.indices.tolist()
        values = self.values.tolist()
        for first, last in pairwise(self.offsets.tolist()):
            yield indices[first:last], values[first:last]

    def rows(self, first: int, last: int) -> SparseVectors:
        """Return the rows from `first` to before `last`."""
        offsets = self.offsets[first : last + 1]
        begin = offsets[0]
        end = offsets[-1]
        return SparseVectors(offsets - begin, self.indices[begin:end], self.values[begin:end])
