"""A proposal as people and programs see it: the lines of the terminal, and the JSON that `init` and
the page use."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from rag_index.errors import SettingsError, shortened
from rag_index.first_run.schema.answers import Answer, ValuesAnswer, values_of
from rag_index.first_run.schema.documents import squeezed
from rag_index.first_run.schema.proposed import UNREAD

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rag_index.first_run.schema.candidates import Candidate, CandidateValue
    from rag_index.first_run.schema.proposed import ColumnUse, Proposal, TableUse

MAX_QUESTIONS = 12
"""Questions that a person sees at first; the rest follows `more`."""
MAX_DECIDED = 5
MAX_TABLES = 7
MAX_COLUMNS = 3
"""Other lines that a person sees at first: a screen of 200 tables has 40 lines."""
MAX_VALUES = 7
MAX_NAMES = 3
"""Values, names of tables, and reasons to leave them out, in one line."""
MAX_NAME_CHARS = 80
UNITS = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))
ORDER = ("document", "part", "label", "out")
Kind = Literal["question", "decided", "table", "column", "folded"]


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the terminal: something that a person can answer, or what is folded until
    `more`."""

    kind: Kind
    id: str
    """What answers it; "" for what is folded."""
    says: str
    rows: str = ""
    """Of a table, as `share`."""
    share: str = ""


# --- The lines of the terminal ---


def lines(first: Proposal, now: Proposal, *, all_of_it: bool = False) -> list[Line]:
    """Return the questions, what names and values decide, the tables, and the columns that are left
    out.

    What the first proposal asks or leaves out keeps its line after it is answered. `all_of_it`
    folds nothing, and lists the columns by which no row is left out, too.
    """
    places = {one.id: place for place, one in enumerate(first.ranked)}
    # numbers stay the same from one answer to the next; what an answer led to is last
    used = [one for one in now.ranked if one.chars]
    used.sort(key=lambda one: places.get(one.id, len(places)))
    asked = [one for one in used if one.result == "asked"]
    decided = [one for one in used if one.result != "asked" and (one.says or one.is_answered)]
    if all_of_it:
        decided += [one for one in used if one not in asked and one not in decided]
    questions = _folded(
        _candidate_lines("question", asked), MAX_QUESTIONS, "more questions", all_of_it
    )
    known = _folded(_candidate_lines("decided", decided), MAX_DECIDED, "more", all_of_it)
    tables = _table_lines(now, all_of_it=all_of_it)
    columns = _folded(_column_lines(first, now), MAX_COLUMNS, "more columns", all_of_it)
    return [*questions, *known, *tables, *columns]


def _folded(found: Sequence[Line], limit: int, noun: str, all_of_it: bool) -> list[Line]:
    """Return the first lines, and one for the others."""
    hidden = len(found) - limit
    if all_of_it or hidden <= 0:
        return [*found]
    rest = Line("folded", "", f"{hidden:,} {noun}")
    return [*found[:limit], rest]


def _candidate_lines(kind: Kind, candidates: Iterable[Candidate]) -> list[Line]:
    return [Line(kind, one.id, treatment(one)) for one in candidates]


def treatment(candidate: Candidate) -> str:
    """Return what holds for the values that there are: `shown: no 812 · left out: yes 9`."""
    there = [one for one in candidate.values if one.rows]
    shown = [one for one in there if one.is_shown]
    hidden = [one for one in there if not one.is_shown]
    found = []
    if shown:
        found.append(f"shown: {_counts(shown)}")
    if hidden:
        found.append(f"left out: {_counts(hidden)}")
    return " · ".join(found)


def _counts(values: Sequence[CandidateValue]) -> str:
    """Return values with their rows: `open 30, closed 12`."""
    listed = []
    for value in values:
        spoken = shortened(value.spoken, MAX_NAME_CHARS // 3)
        listed.append(f"{spoken} {value.rows:,}")
    return _listed(listed, MAX_VALUES)


def _table_lines(now: Proposal, *, all_of_it: bool) -> list[Line]:
    """Return the lines of tables: documents, their parts and labels, and the largest of those that
    are left out."""
    ranked = sorted(now.tables, key=lambda one: (ORDER.index(one.becomes), -one.chars))
    searched = [one for one in ranked if one.becomes != "out"]
    left_out = [one for one in ranked if one.becomes == "out"]
    if all_of_it:
        return [_table_line(one, now) for one in ranked]
    large = [one for one in left_out if one.chars][:MAX_COLUMNS]
    small = [one for one in left_out if one not in large]
    found = [_table_line(one, now) for one in [*searched[:MAX_TABLES], *large]]
    more = searched[MAX_TABLES:]
    if more:
        names = _listed([one.name for one in more], MAX_NAMES)
        found.append(Line("folded", "", f"{len(more):,} more searched: {names}"))
    if small:
        reasons = Counter(one.why for one in small).most_common(MAX_NAMES)
        folded_for = "; ".join(f"{why} ({number:,})" for why, number in reasons)
        found.append(Line("folded", "", f"{count(len(small), 'table')} left out: {folded_for}"))
    return found


def _table_line(table: TableUse, now: Proposal) -> Line:
    percent = table.chars / max(1, now.chars)
    share = ""
    if percent >= 0.01:
        share = f"{percent:.0%}"
    elif table.chars:
        share = "<1%"
    rows = f"{table.rows:,}" if table.exact else f"~{table.rows:,}"
    return Line("table", table.name, _becomes(table), rows, share)


def _becomes(table: TableUse) -> str:
    """Return what becomes of a table, in words."""
    if table.becomes == "out":
        return f"left out: {table.why}"
    if table.becomes == "document":
        own_name = squeezed(table.index) == squeezed(table.name.lower())
        return "document" if own_name else f"document (index {table.index})"
    return f"{table.becomes} of {_listed(table.of, MAX_NAMES) or 'others'}"


def _column_lines(first: Proposal, now: Proposal) -> list[Line]:
    """Return the lines of columns that are left out, or were before an answer, the largest
    first."""
    before = {one.id for one in _columns_left_out(first)}
    found = []
    for column in sorted(_columns(now), key=lambda one: -one.chars):
        if column.use == "leave out":
            found.append(Line("column", column.id, f"{size(column.chars)} left out: {column.why}"))
        elif column.id in before:
            found.append(Line("column", column.id, f"{size(column.chars)} searched, as you said"))
    return found


def _columns(proposal: Proposal) -> list[ColumnUse]:
    """Return the columns with text of all tables that are searched."""
    found: list[ColumnUse] = []
    for table in proposal.tables:
        if table.becomes != "out":
            found += table.columns
    return found


def _columns_left_out(proposal: Proposal) -> list[ColumnUse]:
    return [one for one in _columns(proposal) if one.use == "leave out"]


# --- Answers ---


def answer_to(line: Line, now: Proposal, *, show: bool, values: str = "") -> Answer:
    """Return the answer to a line: its rows are shown, or those with some values (`held, taken
    down`), or not.

    Raises:
        SettingsError: there is no such value, or the answer has to name one.
    """
    candidate = next((one for one in now.candidates if one.id == line.id), None)
    if line.kind in ("question", "decided") and candidate is not None:
        return _values_answer(candidate, show=show, values=values)
    if values:
        raise SettingsError(f"{line.id} takes no value")
    if line.kind == "table":
        return "document" if show else "leave out"
    return "text" if show else "leave out"


def _values_answer(candidate: Candidate, *, show: bool, values: str) -> ValuesAnswer:
    """Return what is shown and hidden of a candidate once these values are: all, if none is
    named."""
    every = {one.value for one in candidate.values}
    changed: set[str] = set()
    for named in _named(candidate, values) if values else ():
        # "held, taken down"
        changed |= values_of(candidate, named)
    if not values and show:
        changed = every
    elif not values:
        spoken = ", ".join(one.spoken for one in candidate.values)
        raise SettingsError(
            f"which rows of {candidate.id} are left out? Name the values after it: {spoken}"
        )
    shown = {one.value for one in candidate.values if one.is_shown}
    shown = shown | changed if show else shown - changed
    hidden = every - shown
    return ValuesAnswer(show=tuple(sorted(shown)), hide=tuple(sorted(hidden)))


def _named(candidate: Candidate, values: str) -> list[str]:
    """Return the values that a person typed: one that may have commas itself, or several with
    commas between."""
    if any(values in (one.spoken, one.value) for one in candidate.values):
        return [values]
    return [one.strip() for one in values.split(",")]


def why(proposal: Proposal, column: str) -> tuple[list[str], dict[str, Any]]:
    """Return for people and as JSON which result a column got, by which word or share, and what
    holds.

    Raises:
        SettingsError: the database has no such column.
    """
    candidates = {one.id: one for one in proposal.candidates}
    if column in candidates:
        found = candidates[column]
        lines = [f"{found.id}: {found.result}: it {found.why}", treatment(found)]
        return lines, candidate_json(found)
    if column in proposal.excused:
        reason = proposal.excused[column]
        line = f"{column}: no question: it {reason}"
        return [line], {"id": column, "result": "none", "why": reason}
    near = get_close_matches(column, [*candidates, *proposal.excused], MAX_NAMES)
    hint = f": near ones are {', '.join(near)}" if near else ""
    raise SettingsError(f"there is no column {column}{hint}")


def documents_about(proposal: Proposal, line: Line) -> set[str]:
    """Return the tables whose documents show the rows that a line is about."""
    tables = {one.table for one in proposal.candidates if one.id == line.id}
    found = set[str]()
    for table in proposal.tables:
        ids = {table.name, *(column.id for column in table.columns)}
        if table.name in tables or line.id in ids:
            found |= {table.name, *table.of}
    return found


# --- JSON ---


def to_json(proposal: Proposal) -> dict[str, Any]:
    """Return what programs read of a proposal; docs/json.md explains the keys.

    Open questions come first, then what leaves rows out, then the columns by which nothing is left
    out.
    """
    asked = proposal.questions
    rest = [one for one in proposal.ranked if one not in asked]
    rest.sort(key=lambda one: not one.says)
    found: dict[str, Any] = {}
    found["questions"] = [candidate_json(one) for one in [*asked, *rest]]
    found["tables"] = [{"id": one.name} | asdict(one) for one in proposal.tables]
    found["indexes"] = [{"name": one.name} | one.settings for one in proposal.indexes]
    found["notes"] = proposal.notes
    found["chars"] = proposal.chars
    found["searched"] = proposal.searched
    return found


def candidate_json(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as a question: what it is, why, and what holds."""
    found = asdict(candidate)
    found["chars"] = round(candidate.chars)
    found["is_open"] = candidate.is_open and candidate.chars > 0
    return found


# --- Sentences ---


def share_sentence(proposal: Proposal) -> str:
    """Return how many tables are searched, and how much of the text."""
    searched = sum(one.becomes != "out" for one in proposal.tables)
    tables = len(proposal.tables)
    verb = "is" if 1 in (searched, tables) else "are"
    about = "" if proposal.exact else "about "
    reached = f"{about}{size(proposal.searched)} of {size(proposal.chars)} of text"
    sentence = f"{searched:,} of {count(tables, 'table')} {verb} searched: {reached}"
    unread = sum(one.why.startswith(UNREAD) for one in proposal.tables)
    if unread == 1:
        sentence += "; 1 table cannot be read, and is not counted"
    elif unread:
        sentence += f"; {unread:,} tables cannot be read, and are not counted"
    return sentence


def left_out(proposal: Proposal) -> list[str]:
    """Return what no search reaches, a sentence each, the largest first."""
    tables: dict[str, list[TableUse]] = {}
    for table in proposal.tables:
        if table.becomes == "out":
            tables.setdefault(table.why, []).append(table)
    found = []
    for reason, some in tables.items():
        found.append(
            (sum(one.chars for one in some), _listed([one.name for one in some], MAX_NAMES), reason)
        )
    for column in _columns_left_out(proposal):
        found.append((column.chars, _listed([column.id], 1), column.why))
    found.sort(key=lambda one: -one[0])
    sentences = []
    for chars, title, reason in found:
        about = f" ({size(chars)})" if chars else ""
        sentences.append(f"{title}{about}: {reason}")
    return sentences


def size(chars: int) -> str:
    """Return a number of characters for people."""
    for unit, name in UNITS:
        number = chars / unit
        if number >= 99.95:
            return f"{number:,.0f} {name}"
        if number >= 0.9995:
            return f"{number:.3g} {name}"
    return f"{chars} B"


def count(number: int, noun: str) -> str:
    """Return a number with its noun."""
    if number != 1:
        noun = f"{noun}s"
    return f"{number:,} {noun}"


def _listed(names: Sequence[str], limit: int) -> str:
    """Return the first of some names, and how many more there are."""
    named = [shortened(name, MAX_NAME_CHARS) for name in names[:limit]]
    more = len(names) - limit
    if more > 0:
        named.append(f"{more:,} more")
    return ", ".join(named)
