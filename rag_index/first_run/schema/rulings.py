"""The rule applied to a database: which columns are candidates, what it says of each, and what a
person decided.

A candidate is a column with at most 12 values and on average at least 5 rows for each: a yes and
no, a short text, a small number, a reference to a small list, a time (empty, past, future), a key
of a JSON object, or what is set for hidden rows alone (`deleted_by`). It is never the title, the
key, prose, nor a reference to persons, products or places.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rag_index.components.sources.value_text import NO_TIME
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import (
    EMPTY,
    FUTURE,
    INVALID,
    PAST,
    SET,
    Candidate,
    CandidateValue,
    Decisions,
    Kind,
    Seen,
    SeenValue,
    Verdict,
    answered,
    make_id,
    split_id,
)
from rag_index.first_run.schema.rule import FEW_ROWS, decide, is_asked, says_of_rows
from rag_index.first_run.schema.tables import Condition, Table
from rag_index.first_run.schema.words import base, is_any, read_direction, singular, verb_of, words

if TYPE_CHECKING:
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column
    from rag_index.first_run.schema.words import Direction

MAX_CHARS = 40
"""A longer text is no state."""
ROWS_PER_VALUE, ROWS_PER_HIDDEN = 5, 2
"""The rows that each value of a candidate has on average, and of one with a hidden word."""
MAX_KEYS, MAX_DEPTH, WHOLE_OBJECTS = 30, 4, 60
"""The keys of JSON objects that are looked at in one column, those that lead to a value, and the
objects that are read as a whole, where the sample has their beginning alone."""
ALL = "all"
"""The value of the question about a whole table."""
OPPOSITES = {"1": "0", "true": "false", "yes": "no", "Y": "N"}
OPPOSITES |= {no: yes for yes, no in OPPOSITES.items()}
"""The values of flags that no row has yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Ruling:
    """A candidate, and the condition that follows from it for rows of a table; None if it hides
    none."""

    candidate: Candidate
    condition: Condition | None = None

    @property
    def is_decision(self) -> bool:
        """Return whether the settings name its values."""
        return self.condition is not None and self.condition.is_own


@dataclass(slots=True)
class Rulings:
    """What the rule says of a database."""

    found: list[Ruling] = field(default_factory=list)
    excused: dict[str, str] = field(default_factory=dict)
    """Why columns are no candidates, by their ids, to be read after their names."""

    def settings_of(self, name: str) -> dict[str, Any]:
        """Return the decision of a candidate, by its id, as the settings have it."""
        one = next(ruling.candidate for ruling in self.found if ruling.candidate.id == name)
        shown: list[str] = []
        hidden: list[str] = []
        for value in one.values:
            if value.is_shown:
                shown.append(value.value)
            elif INVALID not in value.value:
                hidden.append(value.value)
        kind = {} if one.kind == "value" else {"kind": one.kind}
        return {**kind, "show": shown or ["(none of these)"], "hide": hidden}


def find_rulings(
    catalog: DatabaseCatalog, tables: Sequence[Table], decisions: Decisions
) -> Rulings:
    """Return what the rule says of all columns, with what a person decided."""
    rulings = Rulings()
    nouns = {table.noun[-1] for table in tables}
    for table in tables:
        if table.rows:
            found = _TableRulings(catalog, table, nouns, decisions, rulings.excused)
            rulings.found += found.made()
    return rulings


class _TableRulings:
    """The rulings about the columns of one table."""

    def __init__(
        self,
        catalog: DatabaseCatalog,
        table: Table,
        nouns: set[str],
        decisions: Decisions,
        excused: dict[str, str],
    ) -> None:
        self._catalog = catalog
        self._table = table
        self._decisions = decisions
        self._excused = excused
        self._nouns = nouns - {*table.noun}
        self._columns = {name: {*map(singular, named)} for name, named in table.named.items()}

    def made(self) -> Iterator[Ruling]:
        """Yield the rulings, and last the question about a small table."""
        table = self._table
        asked: dict[str, None] = {}
        for column in table.columns.values():
            for path in self._paths(column):
                ruling = self._ruling(column, path)
                if ruling is None:
                    continue
                one = ruling.candidate
                if one.is_open and ruling.condition is None:
                    # shares prove nothing: the table is asked as a whole
                    asked[column.name] = None
                    why = f"{one.why}: the table is asked as a whole"
                    ruling = Ruling(replace(one, result="facet", why=why))
                yield ruling
        if asked and not table.is_label:
            yield self._whole_table([*asked])

    def _whole_table(self, asked: Sequence[str]) -> Ruling:
        """Return the question about all rows of a small table."""
        table = self._table
        names = ", ".join(asked[:3])
        why = f"has {table.rows} rows, too few for shares, and {names} may say who sees them"
        every = CandidateValue(ALL, f"all {table.rows} rows", table.rows, is_shown=True)
        made = Candidate(table.id, table.name, "", "asked", why, (every,))
        one = self._answered(made)
        if one.values[0].is_shown:
            return Ruling(one)
        return Ruling(one, Condition(table, "1 = 0", "all rows are hidden, as you said"))

    def _paths(self, column: Column) -> list[str]:
        """Return the keys of the JSON objects in a column, first those that may say who sees a row;
        the column itself, as "", if it has none."""
        if column.kind != "json" and column.form != "json":
            return [""]
        found: dict[str, None] = {}
        cut = False
        for value in column.given:
            try:
                read = json.loads(value) if isinstance(value, str) else value
            except ValueError:
                # only its beginning was read
                cut = True
                continue
            found |= dict.fromkeys(_leaves(read))
        if cut:
            for text in self._catalog.whole_texts(self._table, column, WHOLE_OBJECTS):
                found |= dict.fromkeys(_leaves(_read_json(text)))
        # {"image": {"width": 3}} is for programs, and an array is a value
        found = {path: None for path in found if not split_id(path)[1:] or _may_decide(path)}
        return sorted(found, key=lambda path: not _may_decide(path))[:MAX_KEYS] or [""]

    # --- What a column is ---

    def _ruling(self, column: Column, path: str) -> Ruling | None:
        """Return the ruling about a column, or a key of its JSON; None if it is no candidate."""
        table = self._table
        name = table.id_of(column.name, *split_id(path))
        if not path and self._is_set(column):
            return self._set_ruling(column)
        why_not = "" if path else self._why_not(column)
        if why_not:
            self._excused[name] = why_not
            return None
        kind: Kind = "time" if column.is_time and not path else "value"
        counted = self._catalog.value_rows(table, column, path, kind)
        values = self._values(column, path, kind, counted)
        seen = self._seen(column, path, kind, values)
        verdict = decide(seen)
        if len(split_id(path)) > 1:
            # an object has no such object inside: that says nothing of the row
            filled_values = tuple(one for one in values if one.value)
            verdict = decide(replace(seen, values=filled_values))
            verdict = replace(verdict, shown=verdict.shown | {""})
        is_sure = verdict.result == "understood"
        most = known.MAX_CHOICES if is_sure else known.MAX_VALUES
        needed = ROWS_PER_HIDDEN if is_sure else ROWS_PER_VALUE
        filled = sum(one.rows > 0 for one in values)
        often = table.rows < FEW_ROWS or table.rows >= needed * filled
        is_unread = NO_TIME in dict(counted)
        is_short = not path or all(len(value) <= MAX_CHARS for value, _ in counted)
        if counted and filled <= most and often and is_short and not is_unread:
            return self._decided(column, path, kind, seen, verdict)
        deeds = self._deeds(column)
        if deeds and not path and (is_unread or deeds.hides):
            # `deleted` has a date in an order of its own, or who did it
            return self._set_ruling(column)
        many = len(counted) or "too many"
        self._excused[name] = f"has {many} values in {table.rows:,} rows"
        return None

    # --- Columns that are set for some rows alone ---

    def _deeds(self, column: Column) -> Direction | None:
        """Return what the name of a column says of the rows where it is set, if it tells what
        somebody did: `deleted_by`, `hidden_reason`, but not `private_note`."""
        seen = self._set_seen(column, (0, 0))
        direction = says_of_rows(seen)
        if direction.hides is None or direction.rest:
            return None
        deeds = known.VERBS
        if self._table.is_people or is_any(self._table.noun, known.WRITTEN):
            # `banned_by` of an account, `held_by` of a comment
            deeds |= known.BANNED | known.HELD
        is_deed = any(base(verb_of(word) or word, deeds) for word in seen.named)
        return direction if is_deed else None

    def _is_set(self, column: Column) -> bool:
        """Return whether a column is set for what is not for all, and has names, reasons or a
        password then."""
        if column.is_time or column.role == "flag" or column.kind in ("bool", "bytes", "json"):
            return False
        if column.name in self._table.key:
            return False
        if column.role == "secret":
            # readers of the row have to know it
            is_rare = 0 < column.filled <= known.SOME
            return is_rare and "pass" in column.name.lower() and not self._table.is_people
        named = words(column.name)
        is_remark = "by" in named or "reason" in named or is_any(named[-1:], known.REMARKS)
        return is_remark and self._deeds(column) is not None

    def _set_seen(self, column: Column, rows: tuple[int, int]) -> Seen:
        """Return a column as a yes and no: whether it is set, given the rows where it is and is
        not."""
        table = self._table
        others = {"by", "id", *known.REMARKS}
        named = tuple(word for word in words(column.name) if word not in others)
        filled, empty = rows
        values = (SeenValue(SET, "yes", filled), SeenValue("", EMPTY, empty))
        return Seen(named or (SET,), values, "flag", table.noun, table.rows, table.is_people)

    def _set_ruling(self, column: Column) -> Ruling:
        """Return the ruling about a column by whether it is set."""
        table = self._table
        empty = self._catalog.shows(table, column.name, "", "value", ["", "0"])
        rows = max(0, self._catalog.rows_that(table, empty))
        verdict = decide(self._set_seen(column, (table.rows - rows, rows)))
        if column.role == "secret":
            why = "is a secret that readers must know"
            verdict = Verdict("understood", why, frozenset([""]))
        values = [SeenValue("", EMPTY, rows), SeenValue(SET, SET, table.rows - rows)]
        one = self._candidate(column, "", "value", values, verdict)
        is_empty_shown, is_set_shown = (value.is_shown for value in one.values)
        if is_empty_shown and is_set_shown:
            return Ruling(one)
        sql = "1 = 0"
        if is_empty_shown:
            sql = empty
        elif is_set_shown:
            sql = f"NOT {empty}"
        bans = _bans(table, words(column.name), one)
        return Ruling(one, Condition(table, sql, one.says, column.name, bans=bans))

    def _why_not(self, column: Column) -> str:
        """Return why a column is no candidate whatever its values are; "" if it may be one."""
        table, name = self._table, column.name
        if name in table.key:
            return "is the key"
        if name in table.title_columns:
            return "is the title"
        if any(one.type_column == name for one in table.parents):
            return "says of which table a row is"
        ways = [one for one in table.parents if any(here == name for here, _ in one.pairs)]
        if ways and not (len(ways[0].pairs) == 1 and self._is_list(ways[0].parent)):
            return f"refers to {ways[0].parent.name}"
        if column.role in ("prose", "secret", "personal", "locale"):
            return f"has {column.role} data" if column.role != "prose" else "is prose"
        if column.kind == "bytes":
            return "has bytes"
        is_whole = all(one.is_integer() for one in column.given if isinstance(one, float))
        if column.kind == "number" and not is_whole:
            return "has amounts"
        long = max((len(one) for one in column.given if isinstance(one, str)), default=0)
        return "has long texts" if long > MAX_CHARS and not column.is_time else ""

    def _is_list(self, parent: Table) -> bool:
        """Return whether a table is a small list of states, and none of persons, products or
        places."""
        if parent.is_people or parent.prose:
            return False
        return parent.rows <= known.MAX_VALUES

    def _values(
        self, column: Column, path: str, kind: Kind, counted: Sequence[tuple[str, int]]
    ) -> list[SeenValue]:
        """Return the values of a column, with those that rows may have later: no value, the other
        of two."""
        found = dict(counted)
        if kind == "time":
            states = [SeenValue(one, one, found.get(one, 0)) for one in (EMPTY, PAST, FUTURE)]
            return sorted(states, key=lambda one: -one.rows)
        if column.nullable or path:
            found.setdefault("", 0)
        is_flag = self._is_flag(column, found)
        for value in [*found] if is_flag else ():
            if value in OPPOSITES:
                found.setdefault(OPPOSITES[value], 0)
        labels = self._labels(column)
        return [
            SeenValue(value, _spoken(value, labels, is_flag=is_flag), rows)
            for value, rows in found.items()
        ]

    def _is_flag(self, column: Column, found: Mapping[str, int]) -> bool:
        """Return whether a column is a yes and no, by its type or by all of its values."""
        if column.kind == "bool":
            return True
        filled = {value.lower() for value in found if value}
        return set() < filled <= known.YES | known.NO

    def _labels(self, column: Column) -> dict[str, str]:
        """Return what the rows are called to which a column refers, by the text of their key."""
        for one in self._table.parents:
            parent = one.parent
            if one.column != column.name or len(one.pairs) != 1:
                continue
            if parent.title in parent.columns:
                _, key_column = one.pairs[0]
                rows = parent.rows_of(key_column, parent.title)
                return {str(key): str(name) for key, name in rows}
        return {}

    def _seen(self, column: Column, path: str, kind: Kind, values: list[SeenValue]) -> Seen:
        """Return what the rule looks at: a column or a key of its JSON, with these values."""
        table = self._table
        others = self._nouns.union(
            *(self._columns[name] for name in self._columns if name != column.name)
        )
        told = _words_of(path) if path else table.named[column.name]
        seen_as: Literal["value", "flag", "time"] = "time" if kind == "time" else "value"
        if kind == "value" and {one.spoken for one in values} <= {"yes", "no", EMPTY}:
            seen_as = "flag"
        skip = {*table.noun}
        if seen_as == "flag" and len(table.prose) == 1:
            # `private_notes` of rows that have notes is about the rows
            skip |= {*words(table.prose[0])}
        named = tuple(word for word in told if not skip & {word, singular(word)} or _says(word))
        names: list[str] = []
        for one in table.parents:
            names += one.parent.noun if one.column == column.name else ()
        about = frozenset(word for word in others if not is_asked(word))
        return Seen(
            named or words(column.name),
            tuple(values),
            seen_as,
            table.noun,
            table.rows,
            table.is_people,
            about - known.PERSONS,
            tuple(names),
        )

    # --- What follows ---

    def _decided(
        self, column: Column, path: str, kind: Kind, seen: Seen, verdict: Verdict
    ) -> Ruling:
        """Return the ruling of a verdict, with what a person decided."""
        table = self._table
        one = self._candidate(column, path, kind, seen.values, verdict)
        # A value that the column has: "open" and "closed", but not the empty one that no row has.
        filtered = [value for value in one.values if value.is_shown and value.rows]
        hides = any(not value.is_shown and value.rows for value in one.values)
        decides = verdict.is_decision or (one.is_answered and hides)
        if one.is_open and table.rows < FEW_ROWS and not hides:
            decides = False
        if table.is_label and not filtered and not one.is_answered:
            # a flag that hides all rows of a list says nothing of what refers to them
            decides = False
        if not decides:
            return Ruling(one)
        shown_values = 0 if one.key or one.kind == "time" else len(filtered)
        bans = _bans(table, seen.named, one)
        sql = f"$visible({one.id})"
        made = Condition(table, sql, one.says, column.name, True, shown_values, bans=bans)
        return Ruling(one, made)

    def _candidate(
        self, column: Column, path: str, kind: Kind, seen: Sequence[SeenValue], verdict: Verdict
    ) -> Candidate:
        """Return the candidate with the values and the verdict, and with what a person decided."""
        table = self._table
        values = []
        for one in seen:
            is_shown = one.value in verdict.shown
            values.append(CandidateValue(one.value, one.spoken, one.rows, is_shown))
        name = table.id_of(column.name, *split_id(path))
        result, why = verdict.result, verdict.why
        made = Candidate(name, table.name, column.name, result, why, tuple(values), path, kind)
        return self._answered(made)

    def _answered(self, one: Candidate) -> Candidate:
        """Return a candidate with what a person decided."""
        decided = self._decisions.values.get(one.id)
        if decided is not None:
            one = answered(one, decided)
        elif self._decisions.tables.get(one.table) == "document" and not one.column:
            one = replace(one, is_answered=True)
        # bytes that are no text have no name by which they could be shown
        values = tuple(
            replace(value, is_shown=value.is_shown and INVALID not in value.value)
            for value in one.values
        )
        return replace(one, values=values)


def _says(word: str) -> bool:
    """Return whether a word of a name says who may see a row, alone."""
    verb = verb_of(word) or word
    return read_direction((verb,)).hides is not None


def _may_decide(path: str) -> bool:
    """Return whether keys that lead to a value may say who sees a row."""
    return any(_says(word) or is_asked(word) for word in _words_of(path))


def _words_of(path: str) -> tuple[str, ...]:
    """Return the words of all keys that lead to a value."""
    named: list[str] = []
    for key in split_id(path):
        named += words(key)
    return tuple(named)


def _read_json(text: str) -> Any:
    """Return what a text has in JSON; None if it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _leaves(found: Any, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the keys that lead to the values of a JSON object, as `make_id` writes them."""
    if not isinstance(found, dict) or len(above) == MAX_DEPTH:
        return
    for key, inner in found.items():
        if key and isinstance(inner, bool | int | str):
            yield make_id(*above, key)
        elif key:
            yield from _leaves(inner, (*above, key))


def _spoken(value: str, labels: Mapping[str, str], *, is_flag: bool) -> str:
    """Return a value as people read it."""
    if not value:
        return EMPTY
    if value == EMPTY:
        # a text, and not the lack of one
        return f'"{EMPTY}"'
    if is_flag:
        return "yes" if value.lower() in known.YES else "no"
    if INVALID in value:
        return f"{value} (not valid text)"
    return f"{value} {labels[value]}" if value in labels else value


def _bans(table: Table, named: Sequence[str], one: Candidate) -> bool:
    """Return whether a decision about a person hides what the person wrote: a ban, or that an
    account is private."""
    all_words = [*named]
    for value in one.values:
        if not value.is_shown:
            all_words += words(value.spoken)
    if one.is_answered or is_any(tuple(all_words), known.BANNED):
        return True
    private = known.HIDE - {"delete", "remove"}
    return table.is_accounts and is_any(tuple(all_words), private)
