"""Who may see a row, as plain data: the columns that may say so, with their values, and what a
person decided.

The rule makes `Candidate`s, a person's answers become `Decisions`, and both speak of columns by
their ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

Result = Literal["understood", "harmless", "asked", "facet"]
"""What the rule says of a candidate; the docstring of `rule` lists the four with their order."""
Kind = Literal["value", "time"]
Use = Literal["title", "text", "leave out"]
Place = Literal["document", "leave out"]

EMPTY, SET, PAST, FUTURE = "empty", "set", "past", "future"
"""No value at all, as people read it, any value, and the two states of a time that is set."""
INVALID = "\ufffd"
"""What stands in a value for bytes that are no text."""
_NEEDS_QUOTES = re.compile(r'[."\s()$]|^$')
_PART_OF_ID = re.compile(r'"((?:[^"]|"")*)"|([^."\s]+)')


def make_id(*names: str) -> str:
    """Return the id of a table or a column: its names, quoted where needed, with dots between.

    >>> make_id("press", "ticket", "extra", "is.private")
    'press.ticket.extra."is.private"'
    """
    written = []
    for name in names:
        if _NEEDS_QUOTES.search(name):
            doubled = name.replace('"', '""')
            written.append(f'"{doubled}"')
        else:
            written.append(name)
    return ".".join(written)


def split_id(text: str) -> list[str]:
    """Return the names of an id; [] if it is none.

    >>> split_id('press.ticket.extra."is.private"')
    ['press', 'ticket', 'extra', 'is.private']
    """
    names, at = [], 0
    while found := _PART_OF_ID.match(text, at):
        names.append(found[2] or found[1].replace('""', '"'))
        at = found.end() + 1
        if at > len(text):
            return names
        if text[at - 1] != ".":
            return []
    return []


@dataclass(frozen=True, slots=True)
class CandidateValue:
    """One value of a candidate, or one of `empty`, `past`, `future` of a time."""

    value: str
    """As in the settings; "" stands for NULL and an empty text."""
    spoken: str
    """As people read it: `yes`, `no`, `empty`, `past`, `3 closed` (the label of a reference), or
    the value."""
    rows: int
    is_shown: bool
    """Whether its rows are shown, after the answers."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A column, or a key of a JSON column, that may say who sees the rows of its table.

    Whole tables that name hidden rows are candidates, too: the column is the one that refers to the
    rows, and the values are `listed` (or `of hidden rows`, for a reference that nobody declared).
    """

    id: str
    """`schema.table.column[.json key]` as `make_id` writes it; the default schema is left out."""
    table: str
    """The name as in `TableUse`."""
    column: str
    result: Result
    why: str
    """By which word or which share the column got its result, to be read after its name."""
    values: tuple[CandidateValue, ...]
    """The most common first."""
    key: str = ""
    """The key of a JSON object, or the keys that lead to a value inside of it, as `make_id` writes
    them: `access.private`."""
    kind: Kind = "value"
    is_answered: bool = False
    hidden: int = 0
    """The rows of indexes that it leaves out, with all that belongs to them; -1 if that is not
    known."""
    of: int = 0
    """The rows that there are of the tables whose rows it decides about."""
    chars: float = 0
    """The characters of text of these tables; 0 if no index reads them."""

    @property
    def is_open(self) -> bool:
        """Return whether a person has to answer it. A value that all rows have needs no answer."""
        if self.result != "asked" or self.is_answered:
            return False
        # the question about a small table has one value, "all"
        return not self.column or sum(one.rows > 0 for one in self.values) > 1

    @property
    def says(self) -> str:
        """Return what hidden rows have: `state is draft or spam`; "" if all rows are shown."""
        out = [one.spoken for one in self.values if not one.is_shown]
        if not out:
            return ""
        named = self.column or self.table
        if self.key:
            named = f"{named}.{self.key}"
        *others, listed = out
        if others:
            listed = f"{', '.join(others)} or {listed}"
        return f"{named} is {listed}"


@dataclass(frozen=True, slots=True)
class ShownAndHidden:
    """What a person said of some values of a candidate, as in the settings; values in neither keep
    what holds."""

    show: frozenset[str] = frozenset()
    hide: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a person decided, checked: every id and every value exists."""

    values: Mapping[str, ShownAndHidden] = field(default_factory=dict)
    """By the id of a candidate."""
    tables: Mapping[str, Place] = field(default_factory=dict)
    """By the name of a table as in `TableUse`."""
    columns: Mapping[str, Use] = field(default_factory=dict)
    """What columns with text are used for, by their ids."""


def answered(one: Candidate, decided: ShownAndHidden) -> Candidate:
    """Return a candidate with what a person decided. A value that is not named keeps what holds."""
    values = []
    for value in one.values:
        keeps = value.is_shown and value.value not in decided.hide
        values.append(replace(value, is_shown=keeps or value.value in decided.show))
    return replace(one, values=tuple(values), is_answered=True)


# --- What the rule looks at, and what it says ---


@dataclass(frozen=True, slots=True)
class SeenValue:
    """One value of a column."""

    value: str
    """As in the settings; "" is no value."""
    spoken: str
    """As people read it."""
    rows: int

    @property
    def is_empty(self) -> bool:
        """Return whether it is no value at all."""
        return self.spoken == EMPTY


@dataclass(frozen=True, slots=True)
class Seen:
    """What the rule looks at: a column, and what is known of its table."""

    named: tuple[str, ...]
    """The words of its name."""
    values: tuple[SeenValue, ...]
    """The most common first."""
    kind: Literal["value", "flag", "time"] = "value"
    """`flag` is a yes and no, `time` one of empty, past and future."""
    noun: tuple[str, ...] = ()
    """What the rows of its table are called."""
    rows: int = 0
    """The rows of its table."""
    is_people: bool = False
    about: frozenset[str] = field(default_factory=frozenset)
    """Words for other things that a column of this table may be about: other columns, and other
    tables."""
    names: tuple[str, ...] = ()
    """What the rows are called that it refers to."""

    @property
    def filled(self) -> list[SeenValue]:
        """Return the values without the lack of one."""
        return [one for one in self.values if not one.is_empty]

    @property
    def empty(self) -> frozenset[str]:
        """Return no value at all, as in the settings, if rows may have none."""
        return frozenset(one.value for one in self.values if one.is_empty)

    @property
    def all_values(self) -> frozenset[str]:
        """Return all values, as in the settings."""
        return frozenset(one.value for one in self.values)

    def rows_of(self, spoken: str) -> int:
        """Return the number of rows with a value as people read it, such as `yes`."""
        return sum(one.rows for one in self.values if one.spoken == spoken)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule says of a column."""

    result: Result
    why: str
    """The word or the share that decided, to be read after the column's name."""
    shown: frozenset[str]
    """The values whose rows are shown."""
    is_decision: bool = True
    """Whether the settings name the values, so that a later one is shown to nobody."""
