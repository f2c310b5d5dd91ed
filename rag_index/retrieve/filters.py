"""Filters as a person writes them, in Python, in settings and on the command line, as conditions that stores know.

    {"priority": "high"}                            equal
    {"priority": ["high", "urgent"]}                any of these
    {"created_at": {"gte": "2024-01-01", "lt": …}}  range (gte, gt, lte, lt), of numbers or of times
    {"author": {"exists": True}}                    there and not null; False: missing, null or empty
    {"priority": {"not": "low"}}                    not equal, or missing; a list: none of these

All fields must hold. On the command line: `priority=high`, `priority=high,urgent`, `created_at>=2024-01-01`,
`ticket_id<=20`, `priority!=low`, `author` (exists) and `!author` (does not); what looks like a number or is true or
false there finds numbers or booleans as well as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from rag_index.errors import SettingsError, StoreError
from rag_index.stores import Condition
from rag_index.stores.conditions import payload_filter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from rag_index.settings import IndexSettings

__all__ = ["Filter", "check_fields", "conditions_of", "parse_filters", "required_conditions"]

Filter = Mapping[str, Any]

BOUNDS = ("gte", "gt", "lte", "lt")
WORDS = (*BOUNDS, "eq", "any", "not", "exists")
TEXT = re.compile(r"(?P<field>[^=<>!]+?)\s*(?P<op>>=|<=|!=|==|=|>|<)\s*(?P<value>.*)", re.DOTALL)
BARE = re.compile(r"(?P<no>!?)\s*(?P<field>[^=<>!]+)")
NUMBER = re.compile(r"[+-]?(\d+|\d*\.\d+|\d+\.)([eE][+-]?\d+)?")


def conditions_of(given: Filter | Sequence[Condition] | None) -> tuple[Condition, ...]:
    """The conditions of a filter, or those given.

    Raises:
        SettingsError: it says something that cannot be.
    """
    if not isinstance(given, Mapping):
        return _checked(given or ())
    return _checked([condition for field, wanted in given.items() for condition in _conditions(str(field), wanted)])


def parse_filters(texts: Iterable[str]) -> tuple[Condition, ...]:
    """The conditions that the texts of a command line say.

    Raises:
        SettingsError: a text is none.
    """
    return _checked([condition for text in texts for condition in _parsed(text)])


def required_conditions(index: IndexSettings) -> tuple[Condition, ...]:
    """What every search of an index is narrowed to, as its settings say.

    Raises:
        SettingsError: it cannot be, or names a field that the index does not have: nothing is searched then.
    """
    try:
        conditions = conditions_of(index.required_filter)
        check_fields(conditions, [index])
    except SettingsError as exc:
        raise SettingsError(f"required_filter of index {index.name}: {exc}") from exc
    return conditions


def check_fields(conditions: Sequence[Condition], indexes: Sequence[IndexSettings]) -> None:
    """Raise SettingsError for a field that none of the indexes has, or that is compared as its index cannot."""
    fields = sorted({field for index in indexes for field in index.payload})
    for condition in conditions:
        if condition.field not in fields and condition.field.split(".")[0] not in fields:
            where = f"index {indexes[0].name} has" if len(indexes) == 1 else "the indexes have"
            there = f"{where}: {', '.join(fields)}" if fields else f"{where} none; `payload` in the settings names them"
            raise SettingsError(f"there is no field {condition.field!r} to filter by; {there}")
        for index in indexes:
            _check_kind(condition, index.indexed_fields.get(condition.field))


def _check_kind(condition: Condition, kind: str | None) -> None:
    """A payload index answers for the whole field: one of times takes numbers for times, and the other way round."""
    compared = condition.value
    ranged = condition.op == "range"
    values = compared.values() if ranged else compared if condition.op == "any" else [compared]
    numbers = any(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    times = any(isinstance(value, date) or (ranged and isinstance(value, str)) for value in values)
    if (kind == "datetime" and numbers) or (kind in ("integer", "float") and times):
        raise SettingsError(
            f"field {condition.field} has a payload index of kind {kind}: compare it with "
            f"{'times' if kind == 'datetime' else 'numbers'}"
        )


def _conditions(field: str, wanted: Any) -> Iterable[Condition]:
    if isinstance(wanted, Mapping):
        yield from _worded(field, wanted)
    elif _is_list(wanted):
        yield Condition(field, "any", list(wanted))
    else:
        yield Condition(field, "eq", wanted)


def _worded(field: str, wanted: Mapping[str, Any]) -> Iterable[Condition]:
    unknown = [word for word in wanted if word not in WORDS]
    if unknown or not wanted:
        raise SettingsError(
            f"filter on {field}: {unknown[0] if unknown else 'an empty table'!r} is not known; use {', '.join(WORDS)}"
        )
    bounds = {word: value for word, value in wanted.items() if word in BOUNDS}
    if bounds:
        yield Condition(field, "range", bounds)
    if "eq" in wanted:
        yield Condition(field, "eq", wanted["eq"])
    if "any" in wanted:
        yield Condition(field, "any", wanted["any"])
    if "not" in wanted:
        value = wanted["not"]
        yield from (Condition(field, "not", one) for one in (list(value) if _is_list(value) else [value]))
    if "exists" in wanted:
        if not isinstance(wanted["exists"], bool):
            raise SettingsError(f"filter on {field}: exists is true or false, not {wanted['exists']!r}")
        yield Condition(field, "exists") if wanted["exists"] else Condition(field, "eq", None)


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _parsed(text: str) -> Iterable[Condition]:
    found = TEXT.fullmatch(text.strip())
    if found is None:
        bare = BARE.fullmatch(text.strip())
        if bare is None:
            raise SettingsError(f"filter {text!r} is not known; write it as field=value, field>=value or field!=value")
        yield Condition(bare["field"].strip(), "eq", None) if bare["no"] else Condition(bare["field"], "exists")
        return
    field, op, value = found["field"].strip(), found["op"], found["value"]
    if op in (">=", ">", "<=", "<"):
        word = {">": "gt", "<": "lt"}[op[0]] + ("e" if op.endswith("=") else "")
        yield Condition(field, "range", {word: _number(value) if NUMBER.fullmatch(value) else value})
        return
    values = [typed for part in value.split(",") for typed in _typed(part.strip())]
    if op == "!=":
        yield from (Condition(field, "not", one) for one in values)
    else:
        yield Condition(field, "any", values)


def _typed(text: str) -> list[Any]:
    """What a text may mean: itself, and the number or the boolean that it looks like."""
    if NUMBER.fullmatch(text) and abs(_number(text)) < 2**63:
        return [text, _number(text)]
    return [text, text == "true"] if text in ("true", "false") else [text]


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)


def _checked(conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    try:
        payload_filter(conditions, _Nothing())
    except StoreError as exc:
        raise SettingsError(str(exc)) from exc
    return tuple(conditions)


class _Nothing:
    """A dialect that makes nothing: conditions are checked before any store is asked."""

    def keywords(self, field: str, values: list[str]) -> None:
        """Nothing."""

    def truth(self, field: str, value: bool) -> None:
        """Nothing."""

    def integer(self, field: str, value: int) -> None:
        """Nothing."""

    def numbers(self, field: str, bounds: Mapping[str, float]) -> None:
        """Nothing."""

    def times(self, field: str, bounds: Mapping[str, datetime]) -> None:
        """Nothing."""

    def empty(self, field: str) -> None:
        """Nothing."""

    def group(self, must: list[None], should: list[None], must_not: list[None]) -> None:
        """Nothing."""
