"""Conditions on payload fields as a filter in Qdrant's JSON, which both engines take, so that both find the same."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.core.documents.canonical import EXACT_IN_FLOAT, comparable_time
from rag_index.errors import StoreError

if TYPE_CHECKING:
    from rag_index.components.stores.protocol import Conditions

Json = dict[str, Any]
"""A filter, or one of its conditions, as Qdrant's REST takes it; bounds in time are `datetime`."""
BOUNDS = ("gte", "gt", "lte", "lt")
INT64 = 2**63
PLAIN_PATH = re.compile(r"[A-Za-z0-9_-]+")

K = TypeVar("K")


def payload_filter(conditions: Conditions) -> Json | None:
    """Return the filter for all of these conditions, or None if there are none.

    Raises StoreError for a condition that is not valid: an unknown op, a range that mixes numbers and times, or a
    value of a type that payloads do not have.
    """
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
                    f"condition on {condition.field} has op {condition.op!r}: use eq, any, range, exists or not"
                )
    return found


def payload_path(field: str) -> str:
    """Return the field as a JSON path of Qdrant. Dots nest; a name of more than letters, digits, _ and - is quoted."""
    parts = field.split(".")
    if '"' in field or not all(parts):
        raise StoreError(f"no condition can be put on payload field {field!r}: rename the column in a query (AS …)")
    return ".".join(part if PLAIN_PATH.fullmatch(part) else f'"{part}"' for part in parts)


def unquoted(path: str) -> str:
    """Return a path without its quotes, which is how an engine may return it."""
    return path.replace('"', "")


def index_changes(
    fields: Mapping[str, str | None], there: Mapping[str, K], kinds: Callable[[str], K]
) -> Iterator[tuple[str, K | None]]:
    """Yield the changes, by path, that give payload indexes these kinds: an index to create, or None to remove one.

    `there` has the indexes that exist, by the path that the engine returns, and `kinds` returns the engine's kind for
    a name. Raises StoreError for an unknown kind.
    """
    from rag_index.core.settings.payload_indexes import (
        PAYLOAD_KINDS,  # here: a process that searches should start at once
    )

    existing = {unquoted(path): kind for path, kind in there.items()}
    for field, kind in fields.items():
        if kind is not None and kind not in PAYLOAD_KINDS:
            raise StoreError(f"payload index on {field}: {kind!r} is not a kind; use {', '.join(PAYLOAD_KINDS)}")
    for path, wanted in [(payload_path(field), kinds(kind) if kind else None) for field, kind in fields.items()]:
        before = existing.get(unquoted(path))
        if before is not None and before != wanted:
            yield path, None
        if wanted is not None and before != wanted:
            yield path, wanted


def match_any(field: str, values: Sequence[str | int]) -> Json:
    """Require the field to be one of these texts, or of these integers of 64 bits."""
    return {"key": field, "match": {"any": list(values)}}


def _empty(field: str) -> Json:
    """Require the field to be missing, null or an empty list."""
    return {"is_empty": {"key": field}}


def _one_of(field: str, values: object) -> Json:
    """Require the field to be one of these values."""
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
                raise StoreError(f"condition on {field}: cannot search for {value!r}, a {type(value).__name__}")
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
        raise StoreError(f"condition on {field}: a range is a dict with some of gte, gt, lte, lt, not {bounds!r}")
    if all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds.values()):
        return {"key": field, "range": {key: _number(field, bound) for key, bound in bounds.items()}}
    if all(isinstance(bound, (str, date)) for bound in bounds.values()):
        return {"key": field, "range": {key: _time(field, bound) for key, bound in bounds.items()}}
    raise StoreError(f"condition on {field}: bounds are all numbers or all ISO times, not {bounds!r}")


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
            raise StoreError(f"condition on {field}: {value!r} is neither a number nor an ISO time") from exc
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
