"""How much of the text of a database a search reaches with the proposed indexes, and what it does not reach."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.parts import FILE
from rag_index.first_run.schema.catalog import spoken_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rag_index.first_run.schema.proposed_index import ProposedIndex
    from rag_index.first_run.schema.subjects import Subject

GOAL = 0.97
"""Tables that are left out for a doubtful reason are added, the largest first, until a search reaches this share."""
MIN_SHARE, MIN_CHARS = 0.01, 200
"""Smaller tables are not worth an index of their own."""
LARGE = 0.2
"""The share of all text that is not left out because of a table's name."""
SIZES = ((1_000_000, "MB"), (1_000, "kB"))


@dataclass(frozen=True, slots=True)
class Missing:
    """Columns of a table with text that no search reaches."""

    table: str
    columns: tuple[str, ...]
    rows: int
    chars: int


@dataclass(frozen=True, slots=True)
class Coverage:
    """The text of a database, and what of it a search does not reach, the largest first."""

    chars: int
    missing: list[Missing]
    hidden: Sequence[Missing] = ()
    """The indexed columns' characters in rows that may not be shown, with the columns that hide them, if counted."""

    @property
    def share(self) -> float:
        """Return the share of characters that a search reaches."""
        return 1 - sum(one.chars for one in (*self.missing, *self.hidden)) / self.chars if self.chars else 1.0

    def sentences(self, left_out: Mapping[str, str]) -> list[str]:
        """Return the share, and the three largest things that are not reached, with what adds each."""
        told = (
            "secrets, what is personal or private, names alone, copies, logs and what is for programs are not counted"
        )
        hidden = ""
        if self.hidden:
            most = max(self.hidden, key=lambda one: one.chars)
            hidden = f"; {size(sum(one.chars for one in self.hidden))} of it are in rows that conditions hide, most "
            hidden += f"in {most.table}, by {', '.join(most.columns)}: see its `where`"
        found = [f"A search reaches {self.share:.1%} of the {size(self.chars)} of text ({told}){hidden}"]
        for one in self.missing[:3]:
            why = left_out.get(one.table)
            what = f"{one.table} ({', '.join(one.columns)}): {spoken_rows(one.rows)}, {size(one.chars)}"
            then = f"it {why}; --add {one.table} adds it" if why else "other columns of it are searched"
            found.append(f"Not reached: {what}; {then}")
        return found


def size(chars: int) -> str:
    """Return a number of characters for people."""
    return next((f"{chars / n:,.1f} {unit}" for n, unit in SIZES if chars >= n), f"{chars} characters")


def coverage(
    subjects: Sequence[Subject],
    indexes: Sequence[ProposedIndex],
    chars: Callable[[Subject], dict[str, int]],
    *,
    shown_share: Callable[[Subject], float] | None = None,
) -> Coverage:
    """Return what of the texts of these tables some indexes reach; `chars` counts those of each column.

    Names of rows without another text count if the rows are documents. With `shown_share`, which says what share of the
    rows of a table conditions show, the others are not reached.
    """
    shown = shown_columns(indexes)
    indexed = {index.tables[0] for index in indexes}
    total, hidden, missing = 0, [], []
    for subject in subjects:
        columns = text_columns(subject)
        counted = chars(subject) if columns and (subject.says_something or subject.full_name in indexed) else {}
        total += sum(counted.values())
        place = (subject.schema, subject.name)
        left = [name for name in columns if counted.get(name, 1) and (*place, name) not in shown]
        if shown_share and subject.conditions:
            lost = (1 - shown_share(subject)) * sum(counted[name] for name in counted if name not in left)
            by = tuple(dict.fromkeys(one.column for one in subject.conditions))
            hidden += [Missing(subject.full_name, by, subject.rows, round(lost))] if lost else []
        if left and counted:
            missing.append(Missing(subject.full_name, tuple(left), subject.rows, sum(counted[name] for name in left)))
    return Coverage(total, sorted(missing, key=lambda one: -one.chars), hidden)


def text_columns(subject: Subject) -> list[str]:
    """Return the columns that people read, without the names of persons and without files, whose text is not known."""
    titles = [] if subject.is_people else subject.title_columns
    found = [subject.profiles[name] for name in [*titles, *subject.prose]]
    return [one.name for one in found if one.is_text and one.form != FILE]


def shown_columns(indexes: Sequence[ProposedIndex]) -> set[tuple[str | None, str, str]]:
    """Return the columns whose text some indexes show: schema, table, column. The default schema is None, too."""
    shown = {found for index in indexes for found in _shown(index.settings)}
    return shown | {(None, table, column) for _, table, column in shown}


def _shown(place: Mapping[str, Any], schema: str | None = None) -> Iterator[tuple[str | None, str, str]]:
    """Yield the columns whose text an index or a part of it shows: schema, table, column."""
    schema, joins = place.get("schema", schema), place.get("joins", {})
    text = place.get("text", [])
    title = place.get("title") or ""
    templates, names = ([title, text], []) if isinstance(text, str) else ([title], [*text])
    for template in templates:
        names += re.findall(r"\{([^{}]+)\}", template) or [template]
    for name in names:
        through, _, column = name.rpartition(".")
        table = joins.get(through, place)
        yield table.get("schema", schema), table["table"], column if table is not place else name
    for part in place.get("parts", ()):
        yield from _shown(part, schema)
