"""Filters as people write them, in Python, in settings and on the command line, turned into
conditions for stores.

    {"priority": "high"}                            equal {"priority": ["high", "urgent"]}
    any of these {"created_at": {"gte": "2024-01-01", "lt": …}}  range (gte, gt, lte, lt) of numbers
    or times {"author": {"exists": True}}                    present and not null; False: missing,
    null or empty {"priority": {"not": "low"}}                    not equal, or missing; a list:
    none of these

All fields must match. A text for a field that holds numbers alone is read as a number, and one for
a field of booleans as true or false. On the command line: `priority=high`, `priority=high,urgent`,
`created_at>=2024-01-01`, `ticket_id<=20`, `priority!=low`, `author` (exists) and `!author` (does
not). There a value that looks like a number, or is true or false, also matches numbers or booleans,
besides text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rag_index.components.stores.points import BOUNDS, INT64, payload_filter
from rag_index.components.stores.protocol import Condition
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings

Filter = Mapping[str, Any] | str | Iterable[Condition | str]
"""A table of fields, conditions, or text as on the command line."""

FILTER_WORDS = (*BOUNDS, "eq", "any", "not", "exists")
COMPARISON = re.compile(r"(?P<field>[^=<>!]+)(?P<op>>=|<=|!=|==|=|>|<)(?P<value>.*)", re.DOTALL)
EXISTENCE = re.compile(r"(?P<no>!?)(?P<field>[^=<>!]+)")
MAX_DIGITS = 1000
"""Python converts no integer that is much longer."""
MAX_CONDITIONS, MAX_FILTER_VALUES = 30, 1000
"""What a filter may have. Each condition on a field without a payload index costs a reading of all
payloads."""
NUMBERS = frozenset({"integer", "float"})
"""The kinds of fields that hold numbers alone."""
SHOWN_CHARS = 60
"""Characters of a value that a message shows."""
NUMBER = re.compile(r"[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?")
WHOLE = re.compile(r"[+-]?\d+")


def conditions_of(
    given: Filter | None, indexes: Sequence[IndexSettings] = ()
) -> tuple[Condition, ...]:
    """Return the conditions of a filter on these indexes. Raises SettingsError if it is not
    valid."""
    if isinstance(given, Mapping):
        found = [
            one for field, wanted in given.items() for one in _field_conditions(str(field), wanted)
        ]
    else:
        items = [] if given is None else given if _is_list(given) else [given]
        found = [item if isinstance(item, Condition) else _parse(item) for item in items]
    values = sum(len(one.value) if _is_list(one.value) else 1 for one in found)
    if len(found) > MAX_CONDITIONS or values > MAX_FILTER_VALUES:
        raise SettingsError(
            f"a filter has at most {MAX_CONDITIONS} conditions with {MAX_FILTER_VALUES:,} values in"
            f" all, and this one has {len(found):,} with {values:,}: search several times, or put"
            " what belongs together into one field"
        )
    found = [_typed(condition, indexes) for condition in found]
    try:
        payload_filter(found)
    except StoreError as exc:
        raise SettingsError(str(exc)) from exc
    return tuple(found)


def required_conditions(index: IndexSettings) -> tuple[Condition, ...]:
    """Return the conditions that the index's settings add to every search of it.

    Raises SettingsError if the required filter is not valid, or names a field that the index does
    not have.
    """
    try:
        conditions = conditions_of(index.required_filter, [index])
        check_fields(conditions, [index])
    except SettingsError as exc:
        raise SettingsError(f"required_filter of index {index.name}: {exc}") from exc
    return conditions


def check_fields(conditions: Sequence[Condition], indexes: Sequence[IndexSettings]) -> None:
    """Raise SettingsError unless an index has each field, and no payload index answers a comparison
    wrongly."""
    for condition in conditions:
        check_field(condition.field, indexes, "filter")
        for index in indexes:
            _check_kind(condition, index.indexed_fields.get(condition.field))


def check_field(field: str, indexes: Sequence[IndexSettings], purpose: str) -> None:
    """Raise SettingsError unless an index has a field, which none has for our own part of the
    payload."""
    ours = field.partition(".")[0] == RESERVED_KEY
    if ours or not any(index.has_field(field) for index in indexes):
        fields = sorted({known for index in indexes for known in index.fields or ()})
        owner = f"index {indexes[0].name} has" if len(indexes) == 1 else "the indexes have"
        known = (
            f": {', '.join(fields)}" if fields else " none; `payload` in the settings names them"
        )
        raise SettingsError(f"there is no field {field!r} to {purpose} by; {owner}{known}")


def _check_kind(condition: Condition, kind: str | None) -> None:
    """Check a comparison against the kind of payload index, which answers for the whole field.

    An index of times would take numbers for times, and an index of numbers would take times for
    numbers.
    """
    compared = condition.value
    is_range = condition.op == "range"
    values = compared.values() if is_range else compared if _is_list(compared) else [compared]
    numbers = any(
        isinstance(value, int | float) and not isinstance(value, bool) for value in values
    )
    times = any(
        isinstance(value, date) or (is_range and isinstance(value, str)) for value in values
    )
    ordered = PAYLOAD_KINDS[kind].ordered if kind else ""
    if (ordered == "times" and numbers) or (ordered == "numbers" and times):
        raise SettingsError(
            f"field {condition.field} has a payload index of kind {kind}: compare it with {ordered}"
        )


def _typed(condition: Condition, indexes: Sequence[IndexSettings]) -> Condition:
    """Return the condition with its texts as the values that the field holds, if all indexes that
    have the field hold numbers there, or all hold booleans. Raises SettingsError for a text that is
    no such value."""
    field, wanted = condition.field, condition.value
    kinds = {index.kind_of(field) for index in indexes if index.has_field(field)}
    if not kinds or None in kinds or not (kinds <= NUMBERS or kinds == {"bool"}):
        return condition

    def typed(value: object) -> object:
        if not isinstance(value, str):
            return value
        found = _boolean(value) if kinds == {"bool"} else _number(value)
        if found is None:
            expected = "true or false" if kinds == {"bool"} else "a number"
            shown = value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}…"
            kind = " or ".join(sorted(map(str, kinds)))
            raise SettingsError(
                f"filter on {field}: {shown!r} is not {expected}, and the field has the kind {kind}"
            )
        return found

    # a range: {"gte": "10"}
    if isinstance(wanted, Mapping):
        return Condition(
            field, condition.op, {word: typed(value) for word, value in wanted.items()}
        )
    # several values: ["10", "20"]
    if _is_list(wanted):
        return Condition(field, condition.op, [typed(value) for value in wanted])
    # one value: "10"
    return Condition(field, condition.op, typed(wanted))


def _field_conditions(field: str, wanted: Any) -> Iterable[Condition]:
    if not isinstance(wanted, Mapping):
        wanted = {"any": list(wanted)} if _is_list(wanted) else {"eq": wanted}
    unknown = [word for word in wanted if word not in FILTER_WORDS]
    if unknown or not wanted:
        wrong = unknown[0] if unknown else "an empty table"
        raise SettingsError(
            f"filter on {field}: {wrong!r} is not known; use {', '.join(FILTER_WORDS)}"
        )
    if bounds := {word: value for word, value in wanted.items() if word in BOUNDS}:
        yield Condition(field, "range", bounds)
    for word in ("eq", "any", "not"):
        if word in wanted:
            value = wanted[word]
            yield Condition(
                field, word, list(value) if word == "not" and _is_list(value) else value
            )
    if "exists" in wanted:
        if not isinstance(wanted["exists"], bool):
            raise SettingsError(
                f"filter on {field}: exists is true or false, not {wanted['exists']!r}"
            )
        yield Condition(field, "exists") if wanted["exists"] else Condition(field, "eq", None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _parse(text: object) -> Condition:
    if not isinstance(text, str):
        example = 'a table such as {"priority": "high"}, or "priority=high"'
        raise SettingsError(f"a filter cannot be {text!r}: give {example}")
    found = COMPARISON.fullmatch(text.strip())
    if found is None:
        existence = EXISTENCE.fullmatch(text.strip())
        if existence is None:
            raise SettingsError(
                f"filter {text!r} is not known; write it as field=value, field>=value or"
                " field!=value"
            )
        field = existence["field"].strip()
        return Condition(field, "eq", None) if existence["no"] else Condition(field, "exists")
    field, op, value = found["field"].strip(), found["op"], found["value"].strip()
    if op[0] in "><":
        word = {">": "gt", "<": "lt"}[op[0]] + ("e" if op.endswith("=") else "")
        number = _number(value)
        return Condition(field, "range", {word: value if number is None else number})
    values: list[str | float | bool] = []
    for part in map(str.strip, value.split(",")):
        values.append(part)
        number = _number(part)
        if number is not None:
            values.append(number)
        elif part in ("true", "false"):
            values.append(part == "true")
    return Condition(field, "not" if op == "!=" else "any", values)


def _number(text: str) -> int | float | None:
    """Return the number that a text has, as an integer if it has 64 bits at most; None if it has
    none."""
    digits = text.strip()
    if not NUMBER.fullmatch(digits):
        return None
    if WHOLE.fullmatch(digits) and len(digits) < MAX_DIGITS:
        whole = int(digits)
        if -INT64 <= whole < INT64:
            return whole
    number = float(digits)
    return number if math.isfinite(number) else None


def _boolean(text: str) -> bool | None:
    """Return whether a text says true or false; None if it says neither."""
    return {"true": True, "false": False}.get(text.strip().casefold())
