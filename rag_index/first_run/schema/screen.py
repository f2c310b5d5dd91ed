"""What a person sees of a proposal line by line, and what it means to answer one, in a terminal and on the page."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rag_index.errors import SettingsError, shortened
from rag_index.first_run.schema.proposed import CHOSEN, UNREAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, TableUse

MAX_NAMES = 3
"""A line names at most this many tables or columns."""
MAX_LINES = 7
"""At most this many lines of each kind are shown: the largest. `?` lists all."""
MAX_NAME = 80
UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
ORDER = ("document", "part", "label", "out")
Kind = Literal["rows", "table", "column"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the screen. What is folded is one line of several names."""

    kind: Kind
    names: tuple[str, ...]
    """The tables, or the columns as TABLE.COLUMN."""
    says: str
    """What becomes of a table; of other lines what they are about."""
    searched: bool
    """Whether the rows are documents, the rows in question are shown, the column is searched."""
    note: str = ""
    """What is left out, or what to answer."""
    rows: str = ""
    share: str = ""
    index: str = ""
    is_open: bool = False
    """Whether a person has to answer it."""
    columns: tuple[tuple[str, str], ...] = ()
    """The columns of a document with text, each with what it is used for."""

    @property
    def title(self) -> str:
        """Return the names, the first three if there are more."""
        return _few(self.names)

    @property
    def is_group(self) -> bool:
        """Return whether a person has to list what is folded, to change one of it."""
        return len(self.names) > 1


def lines(first: Proposal, now: Proposal, *, all_of_it: bool = False) -> list[Line]:
    """Return the lines of a proposal: who may see rows, what is open first; tables; columns left out.

    What `first`, the one before any answer, leaves out has a line also where it is searched `now`. `all_of_it` folds
    nothing.
    """
    kept = {one.place for one in now.hidden}
    hidden = _by_place(now.hidden)
    idle = [one for one in hidden if one.rows == 0 and not one.is_asked]
    busy = [_rows_line(one) for one in hidden if one not in idle]
    busy += [_rows_line(one, "shown, as you said") for one in first.hidden if one.place not in kept]
    nothing = [_rows_line(one) for one in idle]
    columns = [_column_line(one, "left out: ") for one in _columns(now)]
    still = {one.names[0] for one in columns}
    used = {one.name for one in now.tables if one.becomes != "out"}
    before = [one for one in _columns(first) if one.place not in still and one.table in used]
    columns += [replace(_column_line(one, "searched, before: "), searched=True) for one in before]
    if all_of_it:
        return [*busy, *nothing, *_tables(now, fold=False), *columns]
    more = _folded("rows", busy[MAX_LINES:], "more of who may see rows")
    more += _folded("rows", nothing, "hide no row today")
    personal = _folded("column", columns[MAX_NAMES:], "more columns left out")
    return [*busy[:MAX_LINES], *more, *_tables(now), *columns[:MAX_NAMES], *personal]


def change(choices: Choices, line: Line) -> Choices:
    """Return the choices with what a line says turned round."""
    return answer(choices, line, show=not line.searched)


def answer(choices: Choices, line: Line, *, show: bool, values: Sequence[str] = ()) -> Choices:
    """Return the choices with the answer to a line: its rows are shown or searched, or not; or those with some values.

    Raises:
        SettingsError: the line folds several things, or has no values.
    """
    if line.is_group:
        raise SettingsError(f"{line.title} share a line: list them with ?, and answer each")
    if values and (line.kind != "rows" or show):
        raise SettingsError(f"{line.title} takes no value")
    on, off = ("include", "exclude") if line.kind == "table" else ("show", "hide")
    (name,) = line.names
    add, names = on if show else off, [f"{name}={value}" for value in values] or [name]
    kept: dict[str, Any] = {
        key: (*(one for one in getattr(choices, key) if one.partition("=")[0] != name), *(names if key == add else ()))
        for key in (on, off)
    }
    uses = {column: use for column, use in choices.uses.items() if column != name}
    return replace(choices, uses=uses, **kept)


def share_sentence(proposal: Proposal) -> str:
    """Return how many tables are searched, and how much of the text."""
    searched, tables = sum(one.becomes != "out" for one in proposal.tables), len(proposal.tables)
    reached = f"{'' if proposal.exact else 'about '}{size(proposal.searched)} of {size(proposal.chars)} of text"
    unread = sum(one.why.startswith(UNREAD) for one in proposal.tables)
    told = f"; {count(unread, 'table')} cannot be read, and {'is' if unread == 1 else 'are'} not counted"
    said = f"{searched:,} of {count(tables, 'table')} {'is' if 1 in (searched, tables) else 'are'} searched: {reached}"
    return said + told * bool(unread)


def left_out(proposal: Proposal) -> list[str]:
    """Return what no search reaches, a sentence each, the largest first."""
    tables: dict[str, list[TableUse]] = {}
    for table in proposal.tables:
        if table.becomes == "out":
            tables.setdefault(table.why, []).append(table)
    found = [(sum(one.chars for one in some), _few([one.name for one in some]), why) for why, some in tables.items()]
    found += [(one.chars, _few([one.place]), one.why) for one in _columns(proposal)]
    ranked = sorted(found, key=lambda one: -one[0])
    return [f"{title}{f' ({size(chars)})' * (chars > 0)}: {why}" for chars, title, why in ranked]


def note(one: HiddenRows) -> str:
    """Return which rows are left out for what a column says, or wait for an answer, and how many they are."""
    out = ", ".join(said for said, _, hidden in one.values if hidden) or one.says.partition(" ")[2]
    rows = f" ({one.rows:,} of {one.of:,})" if one.rows >= 0 else ""
    return f"left out: {out}{rows}" if one.hidden else f"shown, unless you hide {out}{rows}"


def size(chars: int) -> str:
    """Return a number of characters for people."""
    for unit, name in UNITS:
        if (number := chars / unit) >= 0.9995:
            return f"{number:,.0f} {name}" if number >= 99.95 else f"{number:.3g} {name}"
    return f"{chars} B"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _by_place(hidden: Iterable[HiddenRows]) -> list[HiddenRows]:
    """Return what one answer decides together: a column of the owner hides rows of several tables."""
    found: dict[tuple[Any, ...], HiddenRows] = {}
    for one in hidden:
        before = found.get(key := (one.place, one.says, one.hidden))
        rows, of = (before.rows, before.of) if before else (0, 0)
        found[key] = replace(one, rows=rows + one.rows if min(rows, one.rows) >= 0 else -1, of=of + one.of)
    return [*found.values()]


def _rows_line(one: HiddenRows, shown: str = "") -> Line:
    """Return the line of rows that are left out, or wait for an answer, or are shown as a person said."""
    values = [f"{shortened(value, MAX_NAME // 3)} {rows:,}" for value, rows, _ in one.values[:MAX_LINES]]
    says, is_open = " · ".join(values), one.is_asked and not shown
    return Line("rows", (one.place,), says, bool(shown) or not one.hidden, shown or note(one), is_open=is_open)


def _column_line(one: LeftOut, what: str) -> Line:
    return Line("column", (one.place,), f"{f'{size(one.chars)} ' * bool(one.chars)}{what}{one.why}", False)


def _columns(proposal: Proposal) -> list[LeftOut]:
    """Return the columns that are left out, the largest first."""
    return sorted([one for table in proposal.tables for one in table.left_out], key=lambda one: -one.chars)


def _folded(kind: Kind, some: Sequence[Line], says: str) -> list[Line]:
    """Return the line that stands for several, or for one alone."""
    return [Line(kind, tuple(one.names[0] for one in some), says, False)] if some[1:] else [*some]


def _tables(proposal: Proposal, *, fold: bool = True) -> Iterator[Line]:
    """Yield the lines of tables: documents, then what belongs to them, then what is left out, the largest first."""
    groups: dict[str, list[TableUse]] = {}
    whole = max(1, proposal.chars)
    ranked = sorted(proposal.tables, key=lambda one: (ORDER.index(one.becomes), -one.chars))
    for number, one in enumerate(ranked):
        alone = not fold or (one.becomes == "document" and number < MAX_LINES) or one.why == CHOSEN
        shared = {"document": "more documents", "out": "left out"}.get(one.becomes, _becomes(one))
        groups.setdefault(one.name if alone else f"\0{shared}", []).append(one)
    parts = [key for key, some in groups.items() if some[0].becomes in ("part", "label")]
    for key in parts[MAX_NAMES:] if fold else ():
        groups.setdefault("\0belongs to the other documents", []).extend(groups.pop(key))
    for key, group in sorted(groups.items(), key=lambda item: ORDER.index(item[1][0].becomes)):
        chars, rows = sum(one.chars for one in group), sum(one.rows for one in group)
        reasons = Counter(one.why for one in group).most_common(MAX_NAMES)
        left = ", ".join(f"{why} ({number})" for why, number in reasons)
        told = f"left out: {left}" if group[0].becomes == "out" else key[1:]
        share = f"{chars / whole:.0%}" if chars >= whole / 100 else "<1%" * (chars > 0)
        about = "" if all(one.exact for one in group) else "~"
        yield Line(
            "table", tuple(one.name for one in group), told if group[1:] else _becomes(group[0]),
            group[0].becomes == "document", rows=f"{about}{rows:,}", share=share, index=group[0].index,
            columns=tuple(group[0].columns.items()) if len(group) == 1 else (),
        )  # fmt: skip


def _becomes(table: TableUse) -> str:
    """Return what becomes of a table, in words."""
    if table.becomes == "document":
        same = [*filter(str.isalnum, table.index)] == [*filter(str.isalnum, table.name.lower())]
        return "document" if same else f"document (index {table.index})"
    return f"left out: {table.why}" if table.becomes == "out" else f"{table.becomes} of {_few(table.of) or 'others'}"


def _few(names: Iterable[str]) -> str:
    """Return the first names of several, and how many more there are."""
    all_names = [*names]
    named = [shortened(name, MAX_NAME) for name in all_names[:MAX_NAMES]]
    return ", ".join([*named, *([f"{len(all_names) - MAX_NAMES:,} more"] if len(all_names) > MAX_NAMES else [])])
