"""The rule applied to a database: which columns are candidates, what it says of each, and what a
person decided.

A candidate is a column with at most 12 values and on average at least 5 rows for each: a yes and
no, a short text, a small number, a reference to a small list, a time (empty, past, future), a key
of a JSON object. It is never the title, the key, prose, nor a reference to persons, products or
places.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import (
    EMPTY,
    FUTURE,
    PAST,
    Candidate,
    CandidateValue,
    Decisions,
    Kind,
    Seen,
    SeenValue,
    Verdict,
    answered,
)
from rag_index.first_run.schema.rule import FEW_ROWS, decide
from rag_index.first_run.schema.tables import Condition, Table
from rag_index.first_run.schema.words import direction, is_any, singular, words

if TYPE_CHECKING:
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column

MAX_CHARS = 40
"""A longer text is no state."""
ROWS_PER_VALUE, ROWS_PER_HIDDEN = 5, 2
"""The rows that each value of a candidate has on average, and of one with a hidden word."""
MAX_KEYS = 30
"""The keys of JSON objects that are looked at in one column."""
SET = "set"
"""The value of a column that has any."""
ALL = "all"
"""The value of the question about a whole table."""
INVALID = "\ufffd"
"""What stands in a value for bytes that are no text."""
OPPOSITES = {
    "1": "0",
    "0": "1",
    "true": "false",
    "false": "true",
    "yes": "no",
    "no": "yes",
    "Y": "N",
    "N": "Y",
}
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
        shown = [value.value for value in one.values if value.is_shown]
        hidden = [
            value.value for value in one.values if not value.is_shown and INVALID not in value.value
        ]
        kind = {} if one.kind == "value" else {"kind": one.kind}
        return {**kind, "show": shown or ["(none of these)"], "hide": hidden}


def find_rulings(
    catalog: DatabaseCatalog, tables: Sequence[Table], decisions: Decisions
) -> Rulings:
    """Return what the rule says of all columns, with what a person decided."""
    rulings = Rulings()
    nouns = {table.noun[-1] for table in tables}
    for table in [one for one in tables if one.rows]:
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
        self._catalog, self._table = catalog, table
        self._decisions, self._excused = decisions, excused
        self._nouns = nouns - {*table.noun}
        self._columns = {name: {*map(singular, named)} for name, named in table.named.items()}

    def made(self) -> Iterator[Ruling]:
        """Yield the rulings, and last the question about a small table."""
        table = self._table
        asked: list[str] = []
        for column in table.columns.values():
            for key in self._keys(column):
                ruling = self._ruling(column, key)
                if ruling is None:
                    continue
                one = ruling.candidate
                if one.is_open and ruling.condition is None:
                    # shares prove nothing: the table is asked as a whole
                    asked.append(column.name)
                    why = f"{one.why}: the table is asked as a whole"
                    ruling = Ruling(replace(one, result="facet", why=why))
                yield ruling
        if asked and not table.is_label:
            yield self._whole_table(asked)

    def _whole_table(self, asked: Sequence[str]) -> Ruling:
        """Return the question about all rows of a small table."""
        table = self._table
        why = (
            f"has {table.rows} rows, too few for shares, and {', '.join(asked[:3])} may say who"
            " sees them"
        )
        values = (CandidateValue(ALL, f"all {table.rows} rows", table.rows, is_shown=True),)
        one = self._answered(Candidate(table.id, table.name, "", "asked", why, values))
        if one.values[0].is_shown:
            return Ruling(one)
        return Ruling(one, Condition(table, "1 = 0", "all rows are hidden, as you said"))

    def _keys(self, column: Column) -> list[str]:
        """Return the keys of the JSON objects in a column; the column itself, as "", if it has
        none."""
        if column.kind != "json" and column.form != "json":
            return [""]
        keys: dict[str, None] = {}
        for value in column.given:
            try:
                found = json.loads(value) if isinstance(value, str) else value
            except ValueError:  # only its beginning was read
                continue
            if isinstance(found, dict):
                keys |= dict.fromkeys(
                    name for name, inner in found.items() if isinstance(inner, bool | int | str)
                )
        # an array is a value
        return [key for key in keys if key][:MAX_KEYS] or [""]

    # --- What a column is ---

    def _ruling(self, column: Column, key: str) -> Ruling | None:
        """Return the ruling about a column, or a key of its JSON; None if it is no candidate."""
        table = self._table
        names = (column.name, key) if key else (column.name,)
        if not key and self._is_set(column):
            return self._set_ruling(column)
        why_not = "" if key else self._why_not(column)
        if why_not:
            self._excused[table.id_of(*names)] = why_not
            return None
        kind: Kind = "time" if column.is_time and not key else "value"
        counted = self._catalog.value_rows(table, column, key, kind)
        values = self._values(column, key, kind, counted)
        seen = self._seen(column, key, kind, values)
        verdict = decide(seen)
        limit = ROWS_PER_VALUE
        if verdict.result == "understood":
            limit = ROWS_PER_HIDDEN
        filled = [one for one in values if one.rows]
        is_few = len(filled) <= (
            known.MAX_CHOICES if verdict.result == "understood" else known.MAX_VALUES
        )
        often = table.rows < FEW_ROWS or table.rows >= limit * len(filled)
        if not (counted and is_few and often):
            self._excused[table.id_of(*names)] = (
                f"has {len(counted) or 'too many'} values in {table.rows:,} rows"
            )
            return None
        return self._decided(column, key, kind, seen, verdict)

    def _set_ruling(self, column: Column) -> Ruling:
        """Return the ruling about a column whose values are names, reasons or a password: whether
        it is set."""
        table = self._table
        said = direction([word for word in words(column.name) if word not in known.REMARKS])
        empty = self._catalog.shows(table, column.name, "", "value", ["", "0"])
        rows = max(0, self._catalog.rows_that(table, empty))
        releases = said.hides is False
        why = (
            f"says who may see a row by the word {said.word}"
            if said.word
            else "is a secret that readers must know"
        )
        values = (
            CandidateValue("", EMPTY, rows, is_shown=not releases),
            CandidateValue(SET, SET, table.rows - rows, is_shown=releases),
        )
        one = self._answered(
            Candidate(table.id_of(column.name), table.name, column.name, "understood", why, values)
        )
        if all(value.is_shown for value in one.values):
            return Ruling(one)
        sql = f"NOT {empty}" if releases else empty
        return Ruling(
            one,
            Condition(
                table, sql, one.says, column.name, bans=_bans(table, words(column.name), one)
            ),
        )

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
        plain = all(
            isinstance(one, int) or float(one).is_integer()
            for one in column.given
            if isinstance(one, float)
        )
        if column.kind == "number" and not plain:
            return "has amounts"
        long = max((len(one) for one in column.given if isinstance(one, str)), default=0)
        return "has long texts" if long > MAX_CHARS and not column.is_time else ""

    def _is_list(self, parent: Table) -> bool:
        """Return whether a table is a small list of states, and none of persons, products or
        places."""
        return parent.rows <= known.MAX_VALUES and not parent.is_people and not parent.prose

    def _is_set(self, column: Column) -> bool:
        """Return whether a column is set for what is not for all: `deleted_by`, `hidden_reason`, a
        password."""
        if (
            column.name in self._table.key
            or column.is_time
            or column.kind in ("bool", "bytes", "json")
        ):
            return False
        is_rare = 0 < column.filled <= known.SOME
        if column.role == "secret":
            # readers of the row have to know it
            return is_rare and "pass" in column.name.lower() and not self._table.is_people
        named = words(column.name)
        said = direction([word for word in named if word not in known.REMARKS])
        return (
            is_rare
            and column.role != "flag"
            and said.hides is not None
            and not said.rest
            and (named[-1] in ("id", "by") or is_any(named[-1:], known.REMARKS))
        )

    def _values(
        self, column: Column, key: str, kind: Kind, counted: Sequence[tuple[str, int]]
    ) -> list[SeenValue]:
        """Return the values of a column, with those that rows may have later: no value, the other
        of two."""
        found = dict(counted)
        if kind == "time":
            found = {state: found.get(state, 0) for state in (EMPTY, PAST, FUTURE)}
            return sorted(
                (SeenValue(state, state, rows) for state, rows in found.items()),
                key=lambda one: -one.rows,
            )
        if column.nullable or key:
            found.setdefault("", 0)
        is_flag = self._is_flag(column, found)
        if is_flag:
            found |= {
                OPPOSITES[one]: 0
                for one in [*found]
                if one in OPPOSITES and OPPOSITES[one] not in found
            }
        labels = self._labels(column)
        return [
            SeenValue(value, _spoken(value, labels, is_flag=is_flag), rows)
            for value, rows in found.items()
        ]

    def _is_flag(self, column: Column, found: Mapping[str, int]) -> bool:
        filled = {value.lower() for value in found if value}
        return column.kind == "bool" or set() < filled <= known.YES | known.NO

    def _labels(self, column: Column) -> dict[str, str]:
        """Return what the rows are called to which a column refers, by the text of their key."""
        for one in self._table.parents:
            if (
                one.column == column.name
                and len(one.pairs) == 1
                and one.parent.title in one.parent.columns
            ):
                rows = one.parent.rows_of(one.pairs[0][1], one.parent.title)
                return {str(key): str(name) for key, name in rows}
        return {}

    def _seen(self, column: Column, key: str, kind: Kind, values: list[SeenValue]) -> Seen:
        table = self._table
        others = {
            word for name, named in self._columns.items() if name != column.name for word in named
        }
        # `private_notes` of rows that have notes is about the rows
        own = {*words(table.prose[0])} if len(table.prose) == 1 else set()
        told = [
            word
            for word in table.named[column.name]
            if word not in own or direction((word,)).hides is not None
        ]
        named = words(key) if key else tuple(told)
        named = tuple(
            word
            for word in named
            if singular(word) not in table.noun or direction((word,)).hides is not None
        )
        seen_as: Literal["value", "flag", "time"] = "time" if kind == "time" else "value"
        if kind == "value" and {one.spoken for one in values} <= {"yes", "no", EMPTY}:
            seen_as = "flag"
        names = tuple(
            word for one in table.parents if one.column == column.name for word in one.parent.noun
        )
        about = frozenset((others | self._nouns) - known.PERSONS - known.ASKED)
        named = named or words(column.name)
        return Seen(
            named, tuple(values), seen_as, table.noun, table.rows, table.is_people, about, names
        )

    # --- What follows ---

    def _decided(
        self, column: Column, key: str, kind: Kind, seen: Seen, verdict: Verdict
    ) -> Ruling | None:
        """Return the ruling of a verdict, with what a person decided."""
        table = self._table
        names = (column.name, key) if key else (column.name,)
        values = tuple(
            CandidateValue(
                one.value,
                one.spoken,
                one.rows,
                one.value in verdict.shown and INVALID not in one.value,
            )
            for one in seen.values
        )
        made = Candidate(
            table.id_of(*names),
            table.name,
            column.name,
            verdict.result,
            verdict.why,
            values,
            key,
            kind,
        )
        one = self._answered(made)
        hides = any(not value.is_shown and value.rows for value in one.values)
        decides = one.result in ("understood", "asked") or (one.is_answered and hides)
        if one.is_open and table.rows < FEW_ROWS and not hides:
            decides = False
        shows = any(value.is_shown and value.rows for value in one.values)
        if table.is_label and not (hides and shows) and not one.is_answered:
            # a flag that is the same in all rows of a list says nothing of what refers to them
            decides = False
        if not decides:
            return Ruling(one)
        # A value that the column has: "open" and "closed", but not the empty one that no row has.
        filtered = [value for value in one.values if value.is_shown and value.rows]
        condition = Condition(
            table,
            f"$visible({one.id})",
            one.says,
            column.name,
            is_own=True,
            shown_values=0 if one.key or one.kind == "time" else len(filtered),
            bans=_bans(table, seen.named, one),
        )
        return Ruling(one, condition)

    def _answered(self, one: Candidate) -> Candidate:
        """Return a candidate with what a person decided."""
        said = self._decisions.values.get(one.id)
        if said is None and self._decisions.tables.get(one.table) == "document" and not one.column:
            return replace(one, is_answered=True)
        if said is None:
            return one
        made = answered(one, said)
        # bytes that are no text have no name by which they could be shown
        values = tuple(
            replace(value, is_shown=value.is_shown and INVALID not in value.value)
            for value in made.values
        )
        return replace(made, values=values)


def _spoken(value: str, labels: Mapping[str, str], *, is_flag: bool) -> str:
    """Return a value as people read it."""
    if not value:
        return EMPTY
    if is_flag:
        return "yes" if value.lower() in known.YES else "no"
    if INVALID in value:
        return f"{value} (not valid text)"
    return f"{value} {labels[value]}" if value in labels else value


def _bans(table: Table, named: Sequence[str], one: Candidate) -> bool:
    """Return whether a decision about a person hides what the person wrote: a ban, or that an
    account is private."""
    hidden = [value.spoken for value in one.values if not value.is_shown]
    said = (*named, *(word for spoken in hidden for word in words(spoken)))
    if is_any(said, known.BANNED) or one.is_answered:
        return True
    private = is_any(said, known.HIDE - {"delete", "remove"})
    return table.is_accounts and private
