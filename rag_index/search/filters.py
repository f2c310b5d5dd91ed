"""Filters of Python, settings and the command line, turned into conditions for stores.

    {"priority": "high"}                            equal
    {"priority": ["high", "urgent"]}                any of these
    {"created_at": {"gte": "2024-01-01", "lt": …}}  range (gte, gt, lte, lt) of numbers or times
    {"author": {"exists": True}}                    present and not null; False: missing, null or
                                                    empty
    {"priority": {"not": "low"}}                    not equal, or missing; a list: none of these

All fields must match. A text for a field that holds numbers alone is read as a number, and one for
a field of booleans as true or false.

On the command line: `priority=high`, `priority=high,urgent`, `created_at>=2024-01-01`,
`ticket_id<=20`, `priority!=low`, `author` (exists) and `!author` (does not exist). There, a value
that looks like a number, or is true or false, matches numbers or booleans as well as text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from rag_index.components.stores.points import BOUNDS, INT64, payload_filter
from rag_index.components.stores.protocol import PayloadCondition
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.settings.parts import PAYLOAD_KINDS
from rag_index.errors import SettingsError, StoreError

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings

Filter = Mapping[str, Any] | str | Iterable[PayloadCondition | str]
"""A table of fields, conditions, or text as on the command line."""

FILTER_WORDS = (*BOUNDS, "eq", "any", "not", "exists")
COMPARISON = re.compile(r"(?P<field>[^=<>!]+)(?P<op>>=|<=|!=|==|=|>|<)(?P<value>.*)", re.DOTALL)
EXISTENCE = re.compile(r"(?P<no>!?)(?P<field>[^=<>!]+)")
MAX_DIGITS = 1000
"""Longer integers are read as floats. Chosen; Python converts none that is much longer."""
MAX_CONDITIONS = 30
"""Conditions of a filter at most. Chosen; each on a field without a payload index costs a reading of
all payloads."""
MAX_FILTER_VALUES = 1000
"""Values of a filter at most. Chosen."""
NUMBERS = frozenset({"integer", "float"})
"""The kinds of fields that hold numbers alone."""
SHOWN_CHARS = 60
"""Characters of a value that a message has at most. Chosen."""
NUMBER = re.compile(r"[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?")
INTEGER = re.compile(r"[+-]?\d+")


def conditions_of(
    given: Filter | None, indexes: Sequence[IndexSettings] = ()
) -> tuple[PayloadCondition, ...]:
    """Return the conditions of a filter on these indexes.

    Raises:
        SettingsError: the filter is not valid.
    """
    found = list(_conditions(given))
    values = sum(len(condition.value) if _is_list(condition.value) else 1 for condition in found)
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


def _conditions(given: Filter | None) -> Iterator[PayloadCondition]:
    if given is None:
        return
    # A table: {"priority": "high"}.
    if isinstance(given, Mapping):
        for field, wanted in given.items():
            yield from _field_conditions(str(field), wanted)
        return
    # Conditions or texts, or one of them: ["priority=high", "author"], "priority=high".
    for item in given if _is_list(given) else [given]:
        yield item if isinstance(item, PayloadCondition) else _parse(item)


def required_conditions(index: IndexSettings) -> tuple[PayloadCondition, ...]:
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


def check_fields(conditions: Sequence[PayloadCondition], indexes: Sequence[IndexSettings]) -> None:
    """Raise SettingsError if no index has a field, or if its payload index is of another kind than
    the compared values."""
    for condition in conditions:
        check_field(condition.field, indexes, "filter")
        for index in indexes:
            _check_kind(condition, index.indexed_fields.get(condition.field))


def check_field(field: str, indexes: Sequence[IndexSettings], purpose: str) -> None:
    """Raise SettingsError unless an index has the field. Our own part of the payload is no field."""
    is_ours = field.partition(".")[0] == RESERVED_KEY
    if not is_ours and any(index.has_field(field) for index in indexes):
        return
    fields: set[str] = set()
    for index in indexes:
        fields.update(index.fields or ())
    owner = f"index {indexes[0].name} has" if len(indexes) == 1 else "the indexes have"
    known = " none; `payload` in the settings names them"
    if fields:
        known = f": {', '.join(sorted(fields))}"
    raise SettingsError(f"there is no field {field!r} to {purpose} by; {owner}{known}")


def _check_kind(condition: PayloadCondition, kind: str | None) -> None:
    """Check a comparison against the kind of the field's payload index, which answers for the whole
    field.

    A payload index of times would read numbers as times, and one of numbers would read times as
    numbers.
    """
    compared = condition.value
    is_range = condition.op == "range"
    if is_range:
        compared = list(compared.values())
    values = compared if _is_list(compared) else [compared]
    has_numbers = any(map(_is_number, values))
    # In a range, a text is a time.
    time_types = (date, str) if is_range else date
    has_times = any(isinstance(value, time_types) for value in values)
    ordered = PAYLOAD_KINDS[kind].ordered if kind else ""
    if (ordered == "times" and has_numbers) or (ordered == "numbers" and has_times):
        raise SettingsError(
            f"field {condition.field} has a payload index of kind {kind}: compare it with {ordered}"
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _typed(condition: PayloadCondition, indexes: Sequence[IndexSettings]) -> PayloadCondition:
    """Return the condition with its texts as the values that the field holds.

    Texts stay as they are unless all indexes with the field hold numbers there, or all hold
    booleans.

    Raises:
        SettingsError: a text is no such value.
    """
    field, wanted = condition.field, condition.value
    kinds = {index.kind_of(field) for index in indexes if index.has_field(field)}
    is_boolean = kinds == {"bool"}
    is_number = bool(kinds) and kinds <= NUMBERS
    if not is_boolean and not is_number:
        return condition

    def typed(value: object) -> object:
        if not isinstance(value, str):
            return value
        found = _boolean(value) if is_boolean else _number(value)
        if found is None:
            expected = "true or false" if is_boolean else "a number"
            shown = value if len(value) <= SHOWN_CHARS else f"{value[:SHOWN_CHARS]}…"
            kind = " or ".join(sorted(map(str, kinds)))
            raise SettingsError(
                f"filter on {field}: {shown!r} is not {expected}, and the field has the kind {kind}"
            )
        return found

    # A range: {"gte": "10"}.
    if isinstance(wanted, Mapping):
        bounds = {word: typed(value) for word, value in wanted.items()}
        return PayloadCondition(field, condition.op, bounds)
    # Several values: ["10", "20"].
    if _is_list(wanted):
        return PayloadCondition(field, condition.op, [typed(value) for value in wanted])
    # One value: "10".
    return PayloadCondition(field, condition.op, typed(wanted))


def _field_conditions(field: str, wanted: Any) -> Iterator[PayloadCondition]:
    """Yield the conditions of one field of a table."""
    if not isinstance(wanted, Mapping):
        wanted = {"any": list(wanted)} if _is_list(wanted) else {"eq": wanted}
    unknown = [word for word in wanted if word not in FILTER_WORDS]
    if unknown or not wanted:
        wrong = unknown[0] if unknown else "an empty table"
        raise SettingsError(
            f"filter on {field}: {wrong!r} is not known; use {', '.join(FILTER_WORDS)}"
        )
    bounds = {word: value for word, value in wanted.items() if word in BOUNDS}
    if bounds:
        yield PayloadCondition(field, "range", bounds)
    for word in ("eq", "any"):
        if word in wanted:
            yield PayloadCondition(field, word, wanted[word])
    if "not" in wanted:
        excluded = wanted["not"]
        yield PayloadCondition(field, "not", list(excluded) if _is_list(excluded) else excluded)
    if "exists" in wanted:
        exists = wanted["exists"]
        if not isinstance(exists, bool):
            raise SettingsError(f"filter on {field}: exists is true or false, not {exists!r}")
        yield PayloadCondition(field, "exists") if exists else PayloadCondition(field, "eq", None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _parse(text: object) -> PayloadCondition:
    """Return the condition of a text as on the command line."""
    if not isinstance(text, str):
        example = 'a table such as {"priority": "high"}, or "priority=high"'
        raise SettingsError(f"a filter cannot be {text!r}: give {example}")
    comparison = COMPARISON.fullmatch(text.strip())
    existence = EXISTENCE.fullmatch(text.strip())
    # `priority=high`, `created_at>=2024-01-01`
    if comparison is not None:
        return _parse_comparison(comparison)
    # `author`, `!author`
    if existence is not None:
        field = existence["field"].strip()
        if existence["no"]:
            return PayloadCondition(field, "eq", None)
        return PayloadCondition(field, "exists")
    raise SettingsError(
        f"filter {text!r} is not known; write it as field=value, field>=value or field!=value"
    )


def _parse_comparison(found: re.Match[str]) -> PayloadCondition:
    field, op, value = found["field"].strip(), found["op"], found["value"].strip()
    # `ticket_id<=20`: a range with one end.
    if op[0] in "><":
        word = "gt" if op[0] == ">" else "lt"
        if op.endswith("="):
            word += "e"
        number = _number(value)
        return PayloadCondition(field, "range", {word: value if number is None else number})
    # `priority=high,urgent`, `priority!=low`: each value as text, and as the number or boolean that
    # it looks like.
    values: list[str | float | bool] = []
    for part in map(str.strip, value.split(",")):
        values.append(part)
        number = _number(part)
        if number is not None:
            values.append(number)
        elif part in ("true", "false"):
            values.append(part == "true")
    return PayloadCondition(field, "not" if op == "!=" else "any", values)


def _number(text: str) -> int | float | None:
    """Return the number that a text is; None if it is none. An integer of 64 bits stays an
    integer."""
    digits = text.strip()
    if not NUMBER.fullmatch(digits):
        return None
    if INTEGER.fullmatch(digits) and len(digits) < MAX_DIGITS:
        integer = int(digits)
        if -INT64 <= integer < INT64:
            return integer
    number = float(digits)
    return number if math.isfinite(number) else None


def _boolean(text: str) -> bool | None:
    """Return the boolean that a text is; None if it is none."""
    values = {"true": True, "false": False}
    return values.get(text.strip().casefold())
