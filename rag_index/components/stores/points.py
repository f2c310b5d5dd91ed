"""Points in either store: checked before a write, scaled to length one, and read back; and
conditions on them as a filter in Qdrant's JSON, which both engines take."""

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
MARK_ID = "144e64f0-d381-5f7b-850f-5592f8c27ef2"
"""The point in which a server keeps the mark of a collection's last commit. It has no vector, so no
search finds it. The metadata would not do: where a snapshot is recovered into a collection that
exists, its points go back and its metadata stays."""

ROUNDED = 1e-7
"""A length this close to one differs only by rounding. Such a vector stays unchanged, so a copy is
equal bit by bit."""

NUMBER_TEXT = re.compile(r"0|[1-9][0-9]{0,19}")
UUID_TEXT = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
Json = dict[str, Any]
"""A filter, or one of its conditions, as Qdrant's REST takes it; bounds in time are `datetime`."""
BOUNDS = ("gte", "gt", "lte", "lt")
INT64 = 2**63
PLAIN_PATH = re.compile(r"[A-Za-z0-9_-]+")
K = TypeVar("K")


def parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the items in parts of at most `size`, as one request may have them."""
    return (items[start : start + size] for start in range(0, len(items), size))


def check_ids(ids: Sequence[str]) -> None:
    """Raise PointsRefused for ids that are not UUID text in its usual form (lower case, with
    dashes)."""
    bad = tuple(str(i) for i in ids if not (isinstance(i, str) and UUID_TEXT.fullmatch(i)))
    if bad:
        raise PointsRefused(f"{len(bad)} point ids are not UUIDs, the first is {bad[0]!r}", bad)


def engine_ids(ids: Sequence[str]) -> list[int | str]:
    """Return ids, as a store returns them in text, in the form that the engine takes: UUIDs, and
    numbers as integers. rag-index makes UUIDs alone, but other programs may have added points with
    numbers. Raises PointsRefused for others."""
    found: list[int | str] = [int(i) if NUMBER_TEXT.fullmatch(i) else i for i in ids]
    check_ids([i for i in found if isinstance(i, str)])
    return found


def require_payloads(bad: Sequence[tuple[str, Exception]]) -> None:
    """Raise PointsRefused if there are points, each with the reason, whose payloads cannot be
    stored."""
    if bad:
        first, reason = bad[0]
        raise PointsRefused(
            f"payloads of {len(bad)} points cannot be stored, the first is {first}:"
            f" {without_values(str(reason))}",
            tuple(point_id for point_id, _ in bad),
        )


def require_present(missing: Sequence[str], name: str) -> None:
    """Raise StoreMismatch if points of a collection are missing, whose payloads should have been
    replaced."""
    if missing:
        raise StoreMismatch(
            f"{len(missing)} points that should be in {name} are missing, the first is"
            f" {missing[0]}: run `rag-index doctor`"
        )


def unit_vectors(
    points: PointBatch, dimension: int, name: str, *, sparse: bool
) -> NDArray[np.float32] | None:
    """Check the vectors of a batch, if it has any, and return them with length one (float32, shape
    (len(points), dimension)). The engine scales vectors for cosine anyway, but leaves very short
    ones as they are and overflows on very long ones, so it is done here, in float64. Raises
    PointsRefused with the ids of bad points: another dimension, values that are not finite, all
    zero, ids that are not UUIDs, or sparse vectors for a collection without (`sparse`)."""
    vectors, problem = None if points.vectors is None else np.asarray(points.vectors), ""
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
    """Check a query vector and return it with length one. Raises StoreError if it cannot be
    searched with. Without a dimension, the server decides whether it fits."""
    query = np.asarray(vector)
    if query.ndim != 1 or dimension not in (None, len(query)):
        raise StoreError(
            f"collection {name} has no vectors of the query's shape {query.shape}: "
            "search with the model that made the index"
        )
    try:
        return list(_unit(query[np.newaxis, :], ["query"])[0].tolist())
    except PointsRefused as exc:
        raise StoreError(
            "the query's vector is all zero or not finite: check the embedder"
        ) from exc


def _unit(vectors: NDArray[np.float32], ids: Sequence[str]) -> NDArray[np.float32]:
    wide = vectors.astype(np.float64)
    finite = np.logical_and.reduce(np.isfinite(wide), axis=1)
    lengths = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    usable = finite & (lengths > 0) & np.isfinite(lengths)
    if not usable.all():
        bad: list[int] = np.flatnonzero(~usable).tolist()
        what = "all zero" if bool(finite[bad[0]]) else "not finite"
        raise PointsRefused(
            f"{len(bad)} vectors cannot be stored, the first (point {ids[bad[0]]}) is {what}: check"
            " the embedder",
            tuple(ids[i] for i in bad),
        )
    unit: NDArray[np.float32] = (wide / lengths[:, np.newaxis]).astype(np.float32)
    kept = np.abs(lengths - 1) <= ROUNDED
    unit[kept] = vectors[kept]
    return unit


def stored_point(record: Any, score: float = 0.0) -> StoredPoint:
    """Return a point that either engine gave (id, payload, vector), with what it has of payload and
    vectors."""
    vector, sparse = record.vector, None
    if isinstance(vector, dict):
        found = vector.get(SPARSE)
        sparse = (
            SparseVector(tuple(found.indices), tuple(found.values)) if found is not None else None
        )
        vector = vector.get("")
    return StoredPoint(str(record.id), record.payload or {}, vector, score, sparse)


def count_having(points: int, word: int, found: Sequence[StoredPoint]) -> int:
    """Return how many points have a word, from the best point that a search for it alone found, if
    any. Its score is its own weight of the word times idf = ln((n - m + 0.5) / (m + 0.5) + 1): m
    points of n have the word."""
    if not found or found[0].sparse is None:
        return 0
    weight = dict(zip(found[0].sparse.indices, found[0].sparse.values, strict=True)).get(word, 0.0)
    return max(1, round((points + 1) / math.exp(found[0].score / weight) - 0.5)) if weight else 0


def batches_of(points: Sequence[StoredPoint]) -> Iterator[PointBatch]:
    """Yield points that were read with their vectors as batches to write: those that have none come
    apart."""
    for some in (
        [one for one in points if one.vector is not None],
        [one for one in points if one.vector is None],
    ):
        vectors = [point.vector for point in some if point.vector is not None]
        rows = [point.sparse or SparseVector((), ()) for point in some]
        sparse = SparseVectors.from_rows(rows) if any(rows) else None
        if some:
            matrix = np.asarray(vectors, dtype=np.float32) if vectors else None
            yield PointBatch(
                [point.id for point in some], matrix, [point.payload for point in some], sparse
            )


def payload_filter(conditions: Conditions) -> Json | None:
    """Return the filter for all of these conditions, or None if there are none. Raises StoreError
    for a condition that is not valid: an unknown op, a range that mixes numbers and times, or a
    value of a type that payloads do not have."""
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
    and - is quoted."""
    parts = field.split(".")
    if '"' in field or not all(parts):
        raise StoreError(
            f"no condition can be put on payload field {field!r}: rename the column in a query"
            " (AS …)"
        )
    return ".".join(part if PLAIN_PATH.fullmatch(part) else f'"{part}"' for part in parts)


def unquoted(path: str) -> str:
    """Return a path without its quotes, which is how an engine may return it."""
    return path.replace('"', "")


def index_changes(
    fields: Mapping[str, str | None], there: Mapping[str, K], kinds: Callable[[str], K]
) -> Iterator[tuple[str, K | None]]:
    """Yield the changes, by path, that give payload indexes these kinds: an index to create, or
    None to remove one. `there` has the indexes that exist, by the path that the engine returns, and
    `kinds` returns the engine's kind for a name. Raises StoreError for an unknown kind."""
    from rag_index.core.settings.parts import (
        PAYLOAD_KINDS,  # here: a process that searches should start at once
    )

    existing = {unquoted(path): kind for path, kind in there.items()}
    for field, kind in fields.items():
        if kind is not None and kind not in PAYLOAD_KINDS:
            raise StoreError(
                f"payload index on {field}: {kind!r} is not a kind; use {', '.join(PAYLOAD_KINDS)}"
            )
    for path, wanted in [
        (payload_path(field), kinds(kind) if kind else None) for field, kind in fields.items()
    ]:
        before = existing.get(unquoted(path))
        if before is not None and before != wanted:
            yield path, None
        if wanted is not None and before != wanted:
            yield path, wanted


def match_any(field: str, values: Sequence[str | int]) -> Json:
    """Require the field to be one of these texts, or of these integers of 64 bits."""
    return {"key": field, "match": {"any": list(values)}}


def _empty(field: str) -> Json:
    return {"is_empty": {"key": field}}


def _one_of(field: str, values: object) -> Json:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise StoreError(f"condition on {field}: `any` needs a list of values, not {values!r}")
    texts, whole, rest = list[str](), list[int](), list[Json]()
    numbers, times = set[float](), set[datetime]()
    for value in values:
        match value:
            case None:
                rest.append(_empty(field))
            case str():
                texts += dict.fromkeys([value, comparable_time(value)])
            case bool():
                rest.append({"key": field, "match": {"value": value}})
            case int() if not -INT64 <= value < INT64:
                raise StoreError(f"condition on {field}: {value} has more than 64 bits")
            case int() | float() if EXACT_IN_FLOAT <= abs(value) < INT64 or value == -INT64:
                whole.append(int(value))
            case int() | float():
                numbers.add(_number(field, value))
            case date():
                times.add(_time(field, value))
            case _:
                raise StoreError(
                    f"condition on {field}: cannot search for {value!r}, a {type(value).__name__}"
                )
    found = [match_any(field, listed) for listed in (texts, whole) if listed]
    found += [_equal(field, number) for number in numbers]
    found += [_equal(field, time) for time in times]
    found = found + rest or [match_any(field, [])]
    return found[0] if len(found) == 1 else {"should": found}


def _equal(field: str, value: float | datetime) -> Json:
    """Require the field to be this number or time by value, as 1 is 1.0."""
    return {"key": field, "range": {"gte": value, "lte": value}}


def _range(field: str, bounds: object) -> Json:
    if not isinstance(bounds, dict) or not bounds or not set(bounds) <= set(BOUNDS):
        raise StoreError(
            f"condition on {field}: a range is a dict with some of gte, gt, lte, lt, not {bounds!r}"
        )
    if all(
        isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds.values()
    ):
        return {
            "key": field,
            "range": {key: _number(field, bound) for key, bound in bounds.items()},
        }
    if all(isinstance(bound, (str, date)) for bound in bounds.values()):
        return {"key": field, "range": {key: _time(field, bound) for key, bound in bounds.items()}}
    raise StoreError(
        f"condition on {field}: bounds are all numbers or all ISO times, not {bounds!r}"
    )


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
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
