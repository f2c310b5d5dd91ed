"""The requests of a search to a store: conditions, and queries by vector and by words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.documents.vectors import SparseVector

SPARSE = "bm25"
"""The name of a point's sparse vector."""


@dataclass(frozen=True, slots=True)
class PayloadCondition:
    """A condition on a payload field. A point is found if it meets all conditions of a search.

    `op` is one of `eq` (value), `any` (list of values), `range` (dict of gte, gt, lte, lt: numbers
    or ISO times), `exists` (no value: present, not null, not an empty list) and `not` (value: the
    field is not equal to it, or is missing; a list: to none of its values). The value None is equal
    to what is missing, null or an empty list. Dots in `field` lead into nested objects. Numbers are
    compared by value (1 matches 1.0; Qdrant's own match would not), booleans are not numbers, a
    list matches by any of its elements, a time without an offset is UTC, and one without a time of
    day midnight.
    """

    field: str
    op: str
    value: Any = None


Conditions = Sequence[PayloadCondition]


NAMED = 100
"""Points that are looked up for each name in a query. Chosen."""


@dataclass(frozen=True, slots=True)
class VectorQuery:
    """A search for the `limit` nearest points to a vector, for the `limit` best by words
    (`sparse`), or for both at once: see `PointReader.search`."""

    vector: NDArray[np.float32] | None
    limit: int
    sparse: SparseVector | None = None
    conditions: Conditions = ()
    exact: bool = False
    """Whether every vector is compared, even if there is a search index."""
    payload: bool = True
    corpus: Conditions = ()
    """The conditions on the points among which words are counted. A server before 1.19 counts all
    points."""
    names: Sequence[SparseVector] = ()
    """The words of each name in the query. The `NAMED` best points by each are found in
    addition."""


@dataclass(frozen=True, slots=True)
class WordCounts:
    """The number of points of a collection, and by word (a dimension of the sparse vectors) of
    those that have it."""

    points: int
    having: Mapping[int, int]


WordPlaces = dict[int, list[str]]
"""The ids of points by a word that they have."""
NO_WORDS = WordCounts(0, {})
