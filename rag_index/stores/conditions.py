"""Conditions on payload fields, translated so that both engines find the same.

A `Dialect` makes an engine's own filter objects; `payload_filter` decides which ones.

- Numbers are compared by value: 1 matches 1 and 1.0 (Qdrant's own match would not). Booleans are not numbers.
- A field that holds a list matches if one of its elements does.
- A time is ISO text. Without an offset it is UTC; without a time of day it is midnight.
- `exists` means: present, not null and not an empty list. `not` also finds points that lack the field; of a list, it
  excludes each value.
- `eq` None means: missing, null or empty.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from rag_index.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.stores import Condition

BOUNDS = ("gte", "gt", "lte", "lt")
EXACT_IN_FLOAT = 2**53
PLAIN = re.compile(r"[A-Za-z0-9_-]+")

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V", float, datetime)


class Dialect(Protocol[T]):
    """A maker of one engine's filter objects (T). `field` is a path that the engine can read."""

    def keywords(self, field: str, values: list[str]) -> T:
        """Require the field to be one of these strings."""

    def truth(self, field: str, value: bool) -> T:
        """Require the field to be this boolean."""

    def integers(self, field: str, values: list[int]) -> T:
        """Require the field to be one of these integers (64 bits)."""

    def numbers(self, field: str, bounds: Mapping[str, float]) -> T:
        """Require the field to be a number within the bounds (gte, gt, lte, lt)."""

    def times(self, field: str, bounds: Mapping[str, datetime]) -> T:
        """Require the field to be a time within the bounds."""

    def empty(self, field: str) -> T:
        """Require the field to be missing, null or an empty list."""

    def group(self, must: list[T], should: list[T], must_not: list[T]) -> T:
        """Require all of must, one of should and none of must_not; an empty list requires nothing."""


def payload_filter(conditions: Sequence[Condition], dialect: Dialect[T]) -> T | None:
    """Return the engine's filter for all of these conditions, or None if there are none.

    Raises StoreError for a condition that is not valid: an unknown op, a range that mixes numbers and times, or a
    value of a type that payloads do not have.
    """
    if not conditions:
        return None
    must: list[T] = []
    must_not: list[T] = []
    for condition in conditions:
        field = payload_path(condition.field)
        match condition.op:
            case "eq":
                must.append(_one_of(dialect, field, [condition.value]))
            case "not":
                listed = isinstance(condition.value, list | tuple | set | frozenset)
                must_not.append(_one_of(dialect, field, condition.value if listed else [condition.value]))
            case "any":
                must.append(_one_of(dialect, field, condition.value))
            case "range":
                must.append(_range(dialect, field, condition.value))
            case "exists":
                must_not.append(dialect.empty(field))
            case _:
                raise StoreError(
                    f"condition on {condition.field} has op {condition.op!r}: use eq, any, range, exists or not"
                )
    return dialect.group(must, [], must_not)


def payload_path(field: str) -> str:
    """Return the field as a JSON path of Qdrant. Dots nest; a name of more than letters, digits, _ and - is quoted."""
    parts = field.split(".")
    if '"' in field or not all(parts):
        raise StoreError(f"no condition can be put on payload field {field!r}: rename the column in a query (AS …)")
    return ".".join(part if PLAIN.fullmatch(part) else f'"{part}"' for part in parts)


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
    from rag_index.settings.index import PAYLOAD_KINDS  # here, since a process that searches should start at once

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


def _one_of(dialect: Dialect[T], field: str, values: object) -> T:
    """Require the field to be one of these values, with as few conditions as there can be.

    A condition on a field without a payload index makes the engine read every payload again.
    """
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise StoreError(f"condition on {field}: `any` needs a list of values, not {values!r}")
    texts, whole, rest = list[str](), list[int](), list[T]()
    numbers, times = set[float](), set[datetime]()
    for value in values:
        match value:
            case None:
                rest.append(dialect.empty(field))
            case str():
                texts.append(value)
            case bool():
                rest.append(dialect.truth(field, value))
            case int() if abs(value) > EXACT_IN_FLOAT:
                if not -(2**63) <= value < 2**63:
                    raise StoreError(f"condition on {field}: {value} has more than 64 bits")
                whole.append(value)
            case int() | float():
                numbers.add(_number(field, value))
            case date():
                times.add(_time(field, value))
            case _:
                raise StoreError(f"condition on {field}: cannot search for {value!r}, a {type(value).__name__}")
    found = [
        *([dialect.integers(field, whole)] if whole else []),
        *([_nearby(dialect, partial(dialect.numbers, field), sorted(numbers))] if numbers else []),
        *([_nearby(dialect, partial(dialect.times, field), sorted(times))] if times else []),
        *rest,
    ]
    if texts or not found:
        found.insert(0, dialect.keywords(field, texts))
    return found[0] if len(found) == 1 else dialect.group([], found, [])


def _nearby(dialect: Dialect[T], within: Callable[[Mapping[str, V]], T], values: Sequence[V]) -> T:
    """Require the field to be one of these numbers or times, in their order.

    Equality by value is a range for each. Behind a range around them all there are two halves, and so on, so that most
    points are compared with few: the engine looks at `should` before `must`.
    """
    around = within({"gte": values[0], "lte": values[-1]})
    if len(values) == 1:
        return around
    middle = len(values) // 2
    halves = [_nearby(dialect, within, half) for half in (values[:middle], values[middle:])]
    return dialect.group([dialect.group([], halves, [])], [around], [])


def _range(dialect: Dialect[T], field: str, bounds: object) -> T:
    if not isinstance(bounds, dict) or not bounds or not set(bounds) <= set(BOUNDS):
        raise StoreError(f"condition on {field}: a range is a dict with some of gte, gt, lte, lt, not {bounds!r}")
    if all(isinstance(bound, (int, float)) and not isinstance(bound, bool) for bound in bounds.values()):
        return dialect.numbers(field, {key: _number(field, bound) for key, bound in bounds.items()})
    if all(isinstance(bound, (str, date)) for bound in bounds.values()):
        return dialect.times(field, {key: _time(field, bound) for key, bound in bounds.items()})
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
