"""What a person sees of a proposal line by line, and what it means to change a line, in a terminal and on the page."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rag_index.errors import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, TableUse

MAX_ALIKE = 3
"""More tables that become the same share a line, and a line names at most this many."""
MIN_SHARE = 0.01
"""A table with this share of all text has a line of its own."""
MAX_COLUMNS = 12
"""At most this many lines of columns are shown: the largest."""
MAX_NAME = 80
UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
ORDER = ("document", "part", "label", "out")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen. Lines that say the same of several tables are one."""

    kind: Literal["table", "condition", "column"]
    names: tuple[str, ...]
    """The tables, or the columns as TABLE.COLUMN."""
    says: str
    """What becomes of a table; of other lines the whole sentence."""
    searched: bool
    """Whether the rows are documents, the hidden rows are shown, the column is searched."""
    note: str = ""
    """A question about the line."""
    rows: str = ""
    share: str = ""
    index: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    """The columns of a document with text, each with what it is used for."""

    @property
    def title(self) -> str:
        """Return the names, those of the largest three if there are more."""
        return _few(self.names)

    @property
    def is_group(self) -> bool:
        """Return whether a person has to list the tables first, to change one of them."""
        return self.kind == "table" and len(self.names) > 1


def lines(first: Proposal, now: Proposal, listed: Sequence[str] = ()) -> list[Line]:
    """Return the lines of a proposal: tables, conditions, columns left out.

    What `first`, the one before any change, leaves out has a line also where it is searched `now`. Each of the tables
    `listed` has a line of its own.
    """
    found, rows = [*_tables(now, listed)], {one.name for one in now.tables if one.becomes in ORDER[:2]}
    for hidden in _alike(_hidden(now)):
        note = " ".join(dict.fromkeys(filter(None, [one.question for one in hidden])))
        found.append(Line("condition", _places(hidden), says(hidden), False, note))
    kept = {one.places for one in _hidden(now)}
    for hidden in _alike(one for one in _hidden(first) if one.places not in kept and one.table in rows):
        found.append(Line("condition", _places(hidden), says(hidden, "shown"), True))
    for out in _alike(_left_out(now))[:MAX_COLUMNS]:
        found.append(Line("column", _places(out), f"{_title(out)}: {_sized(out)}left out: {out[0].why}", False))
    kept = {one.places for one in _left_out(now)}
    used = {one.name for one in now.tables if one.becomes != "out"}
    for out in _alike(one for one in _left_out(first) if one.places not in kept and one.table in used):
        found.append(Line("column", _places(out), f"{_title(out)}: {_sized(out)}searched", True))
    return found


def change(choices: Choices, line: Line) -> Choices:
    """Return the choices with what a line says turned round: the opposite choice goes, or else one is added."""
    on, off = ("include", "exclude") if line.kind == "table" else ("show", "hide")
    add, drop = (off, on) if line.searched else (on, off)
    chosen: dict[str, tuple[str, ...]] = {add: getattr(choices, add), drop: getattr(choices, drop)}
    kept = tuple(name for name in chosen[drop] if name not in line.names)
    more: Any = {add: (*chosen[add], *line.names)} if kept == chosen[drop] else {drop: kept}
    uses = {name: use for name, use in choices.uses.items() if name not in line.names}
    return replace(choices, uses=uses, **more)


def share_sentence(proposal: Proposal) -> str:
    """Return how many tables are searched, and how much of the text."""
    searched, tables = sum(one.becomes != "out" for one in proposal.tables), len(proposal.tables)
    reached = f"{'' if proposal.exact else 'about '}{size(proposal.searched)} of {size(proposal.chars)} of text"
    return f"{searched:,} of {count(tables, 'table')} {'is' if 1 in (searched, tables) else 'are'} searched: {reached}"


def left_out(proposal: Proposal) -> list[str]:
    """Return what no search reaches, a sentence each, the largest first."""
    tables: dict[str, list[TableUse]] = {}
    for table in proposal.tables:
        if table.becomes == "out":
            tables.setdefault(table.why, []).append(table)
    found = [(sum(one.chars for one in some), _few([one.name for one in some]), why) for why, some in tables.items()]
    found += [(sum(one.chars for one in some), _title(some), some[0].why) for some in _alike(_left_out(proposal))]
    ranked = sorted(found, key=lambda one: -one[0])
    return [f"{title}{f' ({size(chars)})' * (chars > 0)}: {why}" for chars, title, why in ranked]


def says(hidden: Sequence[HiddenRows], verb: str = "hidden") -> str:
    """Return a condition for people, of one table or of several that have the same."""
    rows = f"{sum(one.rows for one in hidden):,}" if all(one.rows >= 0 for one in hidden) else "some"
    tables = _few([one.table for one in hidden])
    return f"{tables}: {rows} of {sum(one.of for one in hidden):,} {verb}: {hidden[0].says}"


def size(chars: int) -> str:
    """Return a number of characters for people."""
    for unit, name in UNITS:
        if (number := chars / unit) >= 0.9995:
            return f"{number:,.0f} {name}" if number >= 99.95 else f"{number:.3g} {name}"
    return f"{chars} B"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _tables(proposal: Proposal, listed: Sequence[str]) -> Iterator[Line]:
    """Yield the lines of tables: documents, then what belongs to them, then what is left out, the largest first."""
    whole = max(1, proposal.chars)
    alike: dict[tuple[str, str], list[TableUse]] = {}
    for one in sorted(proposal.tables, key=lambda one: (ORDER.index(one.becomes), -one.chars)):
        alone = one.becomes == "document" or one.chars >= MIN_SHARE * whole or one.name in listed
        alike.setdefault((_becomes(one), one.name * alone), []).append(one)
    for (words, _), some in alike.items():
        for group in [some] if len(some) > MAX_ALIKE else [[one] for one in some]:
            chars, rows = sum(one.chars for one in group), sum(one.rows for one in group)
            share = f"{chars / whole:.0%}" if chars >= MIN_SHARE * whole else "<1%" * (chars > 0)
            about = "" if all(one.exact for one in group) else "~"
            columns = tuple(group[0].columns.items()) if len(group) == 1 else ()
            yield Line(
                "table", tuple(one.name for one in group), words, group[0].becomes == "document",
                rows=f"{about}{rows:,}", share=share, index=group[0].index, columns=columns,
            )  # fmt: skip


def _becomes(table: TableUse) -> str:
    """Return what becomes of a table, in words."""
    if table.becomes == "document":
        same = [*filter(str.isalnum, table.index)] == [*filter(str.isalnum, table.name.lower())]
        return "document" if same else f"document (index {table.index})"
    return f"left out: {table.why}" if table.becomes == "out" else f"{table.becomes} of {_few(table.of)}"


def _few(names: Sequence[str]) -> str:
    """Return the first names of several, and how many more there are."""
    named = [shortened(name, MAX_NAME) for name in names[:MAX_ALIKE]]
    return ", ".join([*named, *([f"{len(names) - MAX_ALIKE:,} more"] if len(names) > MAX_ALIKE else [])])


def _hidden(proposal: Proposal) -> list[HiddenRows]:
    return [one for table in proposal.tables for one in table.hidden]


def _left_out(proposal: Proposal) -> list[LeftOut]:
    return [one for table in proposal.tables for one in table.left_out]


def _alike(some: Iterable[Any]) -> list[list[Any]]:
    """Return conditions or columns in groups of those that say the same, the largest first."""
    groups: dict[Any, list[Any]] = {}
    for one in some:
        groups.setdefault(one.like, []).append(one)
    return sorted(groups.values(), key=lambda group: -sum(one.amount for one in group))


def _places(some: Sequence[HiddenRows] | Sequence[LeftOut]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for one in some for name in one.places))


def _title(some: Sequence[LeftOut]) -> str:
    """Return the name of a column, of one table or of several that have it."""
    return _few(some[0].places) if len(some) == 1 else f"{some[0].column} of {_few([one.table for one in some])}"


def _sized(some: Sequence[LeftOut]) -> str:
    return f"{size(chars)} " if (chars := sum(one.chars for one in some)) else ""
