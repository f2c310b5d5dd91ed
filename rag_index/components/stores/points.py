"""Points in either store: checked before a write, scaled to length one, and read back. Conditions
on them become a filter in Qdrant's JSON, which both engines take."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rag_index.components.stores.queries import SPARSE
from rag_index.core.documents.batches import PointBatch, StoredPoint
from rag_index.core.documents.canonical import EXACT_IN_FLOAT, comparable_time
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.errors import PointsRefused, StoreError, StoreMismatch
from rag_index.quotes import without_values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.components.stores.queries import Conditions

T = TypeVar("T")
COMMIT_MARK_ID = "144e64f0-d381-5f7b-850f-5592f8c27ef2"
"""The point in which a server keeps the commit mark of a collection. It has no vector, so no search
finds it. The metadata cannot have the mark: if a snapshot is recovered into an existing collection,
the points go back and the metadata stays."""

ROUNDED = 1e-7
"""The largest difference of a length from one that is only rounding. Such a vector stays unchanged,
so a copy is equal bit by bit."""

NUMBER_TEXT = re.compile(r"0|[1-9][0-9]{0,19}")
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Json = dict[str, Any]
"""A filter, or one of its conditions, as Qdrant's REST takes it. Times are `datetime`."""
BOUNDS = ("gte", "gt", "lte", "lt")
INT64 = 2**63
PLAIN_PATH = re.compile(r"[A-Za-z0-9_-]+")
K = TypeVar("K")


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in parts of at most `size`, one part per request."""
    starts = range(0, len(items), size)
    return (items[start : start + size] for start in starts)


def check_ids(ids: Sequence[str]) -> None:
    """Raise PointsRefused for ids that are not UUIDs as text in lower case with dashes."""
    bad: list[str] = []
    for point_id in ids:
        if not (isinstance(point_id, str) and UUID_TEXT.fullmatch(point_id)):
            bad.append(str(point_id))
    if bad:
        message = f"{len(bad)} point ids are not UUIDs, the first is {bad[0]!r}"
        raise PointsRefused(message, tuple(bad))


def engine_ids(ids: Sequence[str]) -> list[int | str]:
    """Return ids that a store returned as text in the form that the engine takes: UUIDs as text,
    numbers as integers. rag-index makes only UUIDs, but other programs may have added points with
    numbers. Raises PointsRefused for other texts."""
    found: list[int | str] = []
    for point_id in ids:
        found.append(int(point_id) if NUMBER_TEXT.fullmatch(point_id) else point_id)
    check_ids([point_id for point_id in found if isinstance(point_id, str)])
    return found


def require_payloads(bad: Sequence[tuple[str, Exception]]) -> None:
    """Raise PointsRefused if there are points whose payloads cannot be stored, each with the
    reason."""
    if not bad:
        return
    first, reason = bad[0]
    raise PointsRefused(
        f"payloads of {len(bad)} points cannot be stored, the first is {first}:"
        f" {without_values(str(reason))}",
        tuple(point_id for point_id, _ in bad),
    )


def require_present(missing: Sequence[str], name: str) -> None:
    """Raise StoreMismatch if points of a collection are missing whose payloads were to be
    replaced."""
    if missing:
        raise StoreMismatch(
            f"{len(missing)} points that should be in {name} are missing, the first is"
            f" {missing[0]}: run `rag-index doctor`"
        )


def unit_vectors(
    points: PointBatch, dimension: int, name: str, *, sparse: bool
) -> NDArray[np.float32] | None:
    """Check the vectors of a batch and return them with length one (float32, shape (len(points),
    dimension)); None if it has none.

    The engine scales vectors for cosine, but leaves very short ones unchanged and overflows on very
    long ones. So they are scaled here, in float64. Raises PointsRefused with the ids of bad points:
    another dimension, values that are not finite, all zero, ids that are not UUIDs, or sparse
    vectors for a collection without (`sparse`).
    """
    vectors = None if points.vectors is None else np.asarray(points.vectors)
    problem = ""
    if points.sparse is not None and not sparse:
        problem = "has no sparse vectors"
    if vectors is not None and vectors.shape[1:] != (dimension,):
        problem = f"holds {dimension}-d vectors and the shape of these is {vectors.shape}"
    if problem:
        message = (
            f"collection {name} {problem}: run `rag-index rebuild` for this index after a change of"
            " model"
        )
        raise PointsRefused(message, tuple(points.ids))
    check_ids(points.ids)
    return None if vectors is None else _unit(vectors, points.ids)


def unit_query(vector: NDArray[np.float32], dimension: int | None, name: str) -> list[float]:
    """Check a query vector and return it with length one. Raises StoreError if a search cannot use
    it. Without a dimension, the server decides whether it fits."""
    query = np.asarray(vector)
    if query.ndim != 1 or dimension not in (None, len(query)):
        raise StoreError(
            f"collection {name} has no vectors of the query's shape {query.shape}: "
            "search with the model that made the index"
        )
    try:
        [unit] = _unit(query[np.newaxis, :], ["query"])
    except PointsRefused as exc:
        raise StoreError(
            "the query's vector is all zero or not finite: check the embedder"
        ) from exc
    return list(unit.tolist())


def _unit(vectors: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float64)
    is_finite = np.logical_and.reduce(np.isfinite(wide), axis=1)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    usable = is_finite & (lengths > 0) & np.isfinite(lengths)
    if not usable.all():
        bad: list[int] = np.flatnonzero(~usable).tolist()
        first = bad[0]
        what = "all zero" if bool(is_finite[first]) else "not finite"
        message = (
            f"{len(bad)} vectors cannot be stored, the first (point {ids[first]}) is {what}: check"
            " the embedder"
        )
        raise PointsRefused(message, tuple(ids[row] for row in bad))
    unit: NDArray[np.float32] = (wide / lengths[:, np.newaxis]).astype(np.float32)
    is_unit = np.abs(lengths - 1) <= ROUNDED
    unit[is_unit] = vectors[is_unit]
    return unit


def stored_point(record: Any, score: float = 0.0) -> StoredPoint:
    """Return a point that either engine returned (id, payload, vector)."""
    vector = record.vector
    sparse = None
    # A collection with sparse vectors has named ones; the name of the dense vector is "".
    if isinstance(vector, dict):
        found = vector.get(SPARSE)
        if found is not None:
            sparse = SparseVector(tuple(found.indices), tuple(found.values))
        vector = vector.get("")
    return StoredPoint(str(record.id), record.payload or {}, vector, score, sparse)


def count_having(points: int, word: int, found: Sequence[StoredPoint]) -> int:
    """Return how many of `points` points have a word, from the best point of a search for it alone.
    `found` is empty if no point has it.

    The score of that point is its weight of the word times idf = ln((n - m + 0.5) / (m + 0.5) + 1):
    m of n points have the word.
    """
    if not found:
        return 0
    best = found[0]
    if best.sparse is None:
        return 0
    weights = dict(zip(best.sparse.indices, best.sparse.values, strict=True))
    weight = weights.get(word, 0.0)
    if not weight:
        return 0
    # Solved for m: exp(idf) = (n + 1) / (m + 0.5).
    having = (points + 1) / math.exp(best.score / weight) - 0.5
    return max(1, round(having))


def batches_of(points: Sequence[StoredPoint]) -> Iterator[PointBatch]:
    """Yield points that were read with their vectors as batches to write: first those with a
    vector, then those without."""
    with_vector = [point for point in points if point.vector is not None]
    without = [point for point in points if point.vector is None]
    for some in (with_vector, without):
        if not some:
            continue
        vectors = [point.vector for point in some if point.vector is not None]
        matrix = np.asarray(vectors, dtype=np.float32) if vectors else None
        rows = [point.sparse or SparseVector((), ()) for point in some]
        sparse = SparseVectors.from_rows(rows) if any(rows) else None
        ids = [point.id for point in some]
        payloads = [point.payload for point in some]
        yield PointBatch(ids, matrix, payloads, sparse)


def payload_filter(conditions: Conditions) -> Json | None:
    """Return the filter for all of these conditions; None if there are none. Raises StoreError for
    an invalid condition: an unknown op, a range that mixes numbers and times, or a value of a type
    that payloads do not have."""
    if not conditions:
        return None
    found: Json = {"must": [], "must_not": []}
    for condition in conditions:
        field, value = payload_path(condition.field), condition.value
        match condition.op:
            case "eq":
                found["must"].append(_one_of(field, [value]))
            case "not":
                listed = isinstance(value, list | tuple | set | frozenset)
                found["must_not"].append(_one_of(field, value if listed else [value]))
            case "any":
                found["must"].append(_one_of(field, value))
            case "range":
                found["must"].append(_range(field, value))
            case "exists":
                found["must_not"].append(_empty(field))
            case _:
                raise StoreError(
                    f"condition on {condition.field} has op {condition.op!r}: use eq, any, range,"
                    " exists or not"
                )
    return found


def payload_path(field: str) -> str:
    """Return the field as a JSON path of Qdrant. Dots nest; a name of more than letters, digits, _
    and - is quoted: `meta."state name"`."""
    names = field.split(".")
    if '"' in field or not all(names):
        raise StoreError(
            f"no condition can be put on payload field {field!r}: rename the column in a query"
            " (AS …)"
        )
    quoted = [name if PLAIN_PATH.fullmatch(name) else f'"{name}"' for name in names]
    return ".".join(quoted)


def unquoted(path: str) -> str:
    """Return a path without its quotes, which is how an engine may return it."""
    return path.replace('"', "")


def index_changes(
    fields: Mapping[str, str | None], there: Mapping[str, K], kinds: Callable[[str], K]
) -> Iterator[tuple[str, K | None]]:
    """Yield the changes, by path, that give payload indexes these kinds: an index to create, or
    None to remove one.

    Args:
        fields: The kind of each field, or None for no index.
        there: The existing indexes, by the path that the engine returns.
        kinds: Returns the engine's kind for the name of one.

    Raises:
        StoreError: The name of a kind is unknown.
    """
    # Imported late, so that a process that searches starts at once.
    from rag_index.core.settings.parts import PAYLOAD_KINDS

    for field, kind in fields.items():
        if kind is not None and kind not in PAYLOAD_KINDS:
            raise StoreError(
                f"payload index on {field}: {kind!r} is not a kind; use {', '.join(PAYLOAD_KINDS)}"
            )
    # All paths and kinds are checked before the first change.
    wanted_kinds: list[tuple[str, K | None]] = []
    for field, kind in fields.items():
        wanted_kinds.append((payload_path(field), kinds(kind) if kind else None))
    existing = {unquoted(path): kind for path, kind in there.items()}
    for path, wanted in wanted_kinds:
        before = existing.get(unquoted(path))
        # An index of another kind is removed first.
        if before is not None and before != wanted:
            yield path, None
        if wanted is not None and before != wanted:
            yield path, wanted


def match_any(field: str, values: Sequence[str | int]) -> Json:
    """Return the condition that the field is one of these texts, or of these integers of 64
    bits."""
    match = {"any": list(values)}
    return {"key": field, "match": match}


def _empty(field: str) -> Json:
    return {"is_empty": {"key": field}}


def _one_of(field: str, values: object) -> Json:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise StoreError(f"condition on {field}: `any` needs a list of values, not {values!r}")
    texts: list[str] = []
    large: list[int] = []
    rest: list[Json] = []
    numbers: set[float] = set()
    times: set[datetime] = set()
    for value in values:
        match value:
            case None:
                rest.append(_empty(field))
            case str():
                # A payload may have "20240501" as it is, or as the time "2024-05-01T00:00:00".
                texts += dict.fromkeys([value, comparable_time(value)])
            case bool():
                rest.append({"key": field, "match": {"value": value}})
            case int() if not -INT64 <= value < INT64:
                raise StoreError(f"condition on {field}: {value} has more than 64 bits")
            # A range compares floats, which are not exact here: payloads have such numbers as
            # integers.
            case int() | float() if EXACT_IN_FLOAT <= abs(value) < INT64 or value == -INT64:
                large.append(int(value))
            # 1 is 1.0.
            case int() | float():
                numbers.add(_number(field, value))
            case date():
                times.add(_time(field, value))
            case _:
                raise StoreError(
                    f"condition on {field}: cannot search for {value!r}, a {type(value).__name__}"
                )
    found = [match_any(field, listed) for listed in (texts, large) if listed]
    found += [_equal(field, number) for number in numbers]
    found += [_equal(field, time) for time in times]
    found += rest
    # An empty list of values matches nothing.
    found = found or [match_any(field, [])]
    return found[0] if len(found) == 1 else {"should": found}


def _equal(field: str, value: float | datetime) -> Json:
    """Return the condition that the field is this number or time by value, as 1 is 1.0."""
    bounds = {"gte": value, "lte": value}
    return {"key": field, "range": bounds}


def _range(field: str, bounds: object) -> Json:
    if not isinstance(bounds, dict) or not bounds or not set(bounds) <= set(BOUNDS):
        raise StoreError(
            f"condition on {field}: a range is a dict with some of gte, gt, lte, lt, not {bounds!r}"
        )
    values = list(bounds.values())
    found: dict[str, float | datetime] = {}
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        for key, value in bounds.items():
            found[key] = _number(field, value)
    elif all(isinstance(value, (str, date)) for value in values):
        for key, value in bounds.items():
            found[key] = _time(field, value)
    else:
        raise StoreError(
            f"condition on {field}: bounds are all numbers or all ISO times, not {bounds!r}"
        )
    return {"key": field, "range": found}


def _number(field: str, value: float) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise StoreError(f"condition on {field}: {value} is not a number to compare with")
    return number


def _time(field: str, value: str | date) -> datetime:
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as exc:
            raise StoreError(
                f"condition on {field}: {value!r} is neither a number nor an ISO time"
            ) from exc
    # A date is its midnight.
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    # A time without an offset is UTC.
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
