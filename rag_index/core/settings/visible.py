"""`[indexes.visible.NAME]`: which values of a column are shown and which are hidden, and the
`$visible(NAME)` by which SQL refers to such a decision."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from rag_index.core.settings.parts import Section

TIME_STATES = ("empty", "past", "future")
"""The values of a column of kind `time`."""
_QUOTED = r'"(?:[^"]|"")*"'
_NAME_PART = re.compile(rf'({_QUOTED}|[^".]+)(?:\.|\Z)')
_TOKEN = re.compile(
    rf"(?:(?P<alias>{_QUOTED}|`[^`]*`|\w+)\s*\.\s*)?\$visible\(\s*(?P<name>(?:{_QUOTED}|[^()\"])+?)\s*\)"
)
"""`$visible(NAME)`, or `alias.$visible(NAME)`."""


def _as_text(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # 3 is "3"
    if isinstance(value, str | bool):
        return value
    raise ValueError(f"holds {value}; write the value as a text, as the database shows it")


_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "integer"}, {"type": "boolean"}]})
Value = Annotated[bool | str, BeforeValidator(_as_text), _SCHEMA]
"""A value of a column as a text. "" stands for NULL and for an empty text."""


def texts_of(values: Iterable[bool | str]) -> tuple[str, ...]:
    """Return the texts of values as databases show them: "true" and "1" for yes, "false" and "0"
    for no."""
    found: dict[str, None] = {}
    for value in values:
        if value is True:
            found.update(dict.fromkeys(("true", "1")))
        elif value is False:
            found.update(dict.fromkeys(("false", "0")))
        else:
            found[str(value)] = None
    return tuple(found)


class VisibleSettings(Section):
    """`[indexes.visible.NAME]`: the decision on the values of one column."""

    show: list[Value]
    """The values whose rows are shown, as texts: `["open", "0", ""]`. The empty text stands for
    NULL, too."""
    hide: list[Value] = Field(default=[])
    """The values whose rows are hidden. A value in neither list is shown to nobody, and reported
    until a list names it."""
    kind: Literal["value", "time"] = "value"
    """What is compared: the `value`, or whether a `time` is `empty`, `past` or `future` when a run
    reads it."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Return the texts of the values whose rows are shown."""
        return texts_of(self.show)

    @property
    def hidden(self) -> tuple[str, ...]:
        """Return the texts of the values whose rows are hidden."""
        return texts_of(self.hide)

    @model_validator(mode="after")
    def _check_values(self) -> VisibleSettings:
        if not self.show:
            raise ValueError(
                "show is empty, so that no row would be shown; name the values to show"
            )
        for value in self.shown:
            if value in self.hidden:
                raise ValueError(
                    f"value {value!r} is in show and in hide; remove it from one of them"
                )
        for value in (*self.shown, *self.hidden):
            if self.kind == "time" and value not in TIME_STATES:
                known = ", ".join(TIME_STATES)
                raise ValueError(
                    f"value {value!r} is no state of a time; with kind = 'time' use {known}"
                )
            if "\0" in value:
                raise ValueError(
                    f"value {value!r} holds a NUL character, which no text has; remove it"
                )
        return self


def name_parts(name: str) -> list[str]:
    """Return the parts of a name between its dots. A part with a dot or a quote stands in quotes.

    Raises:
        ValueError: The name is not well formed.

    Example:
        name_parts('extra."a.b"')  # ["extra", "a.b"]
    """
    parts: list[str] = []
    end = 0
    while end < len(name):
        found = _NAME_PART.match(name, end)
        if found is None:
            break
        part = found[1]
        if part.startswith('"'):
            part = part[1:-1].replace('""', '"')
        parts.append(part)
        end = found.end()
    if not parts or end < len(name) or name.endswith("."):
        raise ValueError(
            f"visible {name!r} is no name of a column; write column, column.key or table.column,"
            " and quote a part that has a dot: 'column.\"a.b\"'"
        )
    return parts


def replace_tokens(sql: str, conditions: Mapping[tuple[str, str], str]) -> str:
    """Return SQL with a condition in place of each `$visible(NAME)`. `conditions` has them by name
    and alias ("" if there is none)."""

    def condition(found: re.Match[str]) -> str:
        alias = found["alias"] or ""
        return conditions[found["name"], alias]

    return _TOKEN.sub(condition, sql)


def tokens_of(sql: str | None) -> Iterator[tuple[str, str]]:
    """Yield the name and the alias of each `$visible(NAME)` in SQL; the alias is "" if there is
    none."""
    for found in _TOKEN.finditer(sql or ""):
        alias = found["alias"] or ""
        yield found["name"], alias


def check_visible(visible: Mapping[str, VisibleSettings], texts: Mapping[str, str | None]) -> None:
    """Check the names of decisions, and that each `$visible(NAME)` in one of these SQL texts names
    one.

    Args:
        visible: The decisions by name.
        texts: SQL texts of an index by the key that holds them.

    Raises:
        ValueError: A name is not well formed, or names no decision.
    """
    for name in visible:
        name_parts(name)
    for key, sql in texts.items():
        for name, _alias in tokens_of(sql):
            if name not in visible:
                known = ", ".join(visible) or "none"
                raise ValueError(
                    f"{key} refers to $visible({name}), which no table [indexes.visible] declares"
                    f" ({known}); declare it, or correct the name"
                )


def sql_texts(index: Any) -> dict[str, str | None]:
    """Return the SQL of an index or a part, by its key in the settings; None where a key is not
    set."""
    texts: dict[str, str | None] = {"where": index.where}
    for key in ("query", "access"):
        texts[key] = getattr(index, key, None)
    for name, join in index.joins.items():
        texts[f"joins.{name}.where"] = join.where
    parts: Sequence[Any] = getattr(index, "parts", ())
    for number, part in enumerate(parts):
        for key, sql in sql_texts(part).items():
            texts[f"parts[{number}].{key}"] = sql
    return texts
