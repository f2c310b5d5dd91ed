"""What `init` proposes: what becomes of each table of a database, who may see its rows, and the indexes."""

from __future__ import annotations

import re
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from rag_index.components.sources.source_tables import relations_read
from rag_index.errors import SettingsError
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.documents import is_named, plan
from rag_index.first_run.schema.indexes import IndexMaker
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.relations import relate
from rag_index.first_run.schema.screen import CHOSEN
from rag_index.first_run.schema.tables import Rule, Table, read_tables
from rag_index.first_run.schema.visibility import answered, conditions, find_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import ReadColumn

_COLUMNS = re.compile(r"\{([^{}]+)\}")
Shown = set[tuple[str | None, str, str]]


def propose(catalog: DatabaseCatalog, choices: Choices | None = None) -> Proposal:
    """Return what becomes of each table of a database, and the indexes that follow, as far as a person did not choose.

    Raises:
        SettingsError: `choices` name a table, a column or a value that does not exist.
    """
    return _Reading(catalog, choices or Choices()).proposal()


class _Reading:
    """A database as it is read under the choices of a person."""

    def __init__(self, catalog: DatabaseCatalog, choices: Choices) -> None:
        self._catalog, self._choices = catalog, choices
        tables = read_tables(catalog)
        self._check(tables)
        left = [one for one in tables if is_named(one, choices.exclude) and not is_named(one, choices.include)]
        self._excluded, self.tables = left, [one for one in tables if one not in left]
        for table in self.tables:
            self._use_columns(table)
        relate(catalog, self.tables)
        self._plan = plan(catalog, self.tables, choices.include)
        self._roots: dict[Table, list[Table]] = {}
        for root, part in [(root, part) for root, some in self._plan.documents.items() for part in some]:
            self._roots.setdefault(part.table, []).extend([root] if not part.far else [])
        self._read = [*dict.fromkeys([*self._plan.documents, *(one for one, some in self._roots.items() if some)])]
        self._rules = self._answered(find_rules(catalog, self.tables))
        self._lost = {rule: dict(self._lost_by(rule)) for rule in self._rules}
        self._asked = {*self._beyond_a_tenth()}
        found = conditions(self.tables, [one for one in self._rules if one not in self._asked])
        for table in self.tables:
            table.conditions[:] = found[table]

    # --- Answers ---

    def _check(self, tables: Sequence[Table]) -> None:
        """Raise SettingsError if a choice names what is not there."""
        names = [one.name for one in tables]
        columns = [f"{one.name}.{name}" for one in tables for name in one.columns]
        columns += [f"{one.source.name}.{name}" for one in tables for name in one.columns if one.source.schema]
        lower = {*map(str.lower, columns)}
        for pattern in (*self._choices.include, *self._choices.exclude):
            if not any(is_named(one, [pattern]) for one in tables):
                raise SettingsError(f"there is no table {pattern}: {_near(pattern, names)}")
        hidden = [_split(one)[0] if one.lower() not in lower else one for one in self._choices.hide]
        for column in (*self._choices.show, *hidden, *self._choices.uses):
            if column.lower() not in lower:
                raise SettingsError(f"there is no column {column}, as TABLE.COLUMN: {_near(column, columns)}")

    def _chosen(self, table: Table, column: str, among: Sequence[str]) -> list[str]:
        """Return those of some answers that are about a column."""
        names = {f"{table.name}.{column}".lower(), f"{table.source.name}.{column}".lower()}
        return [one for one in among if one.lower() in names or _split(one)[0].lower() in names]

    def _use_columns(self, table: Table) -> None:
        """Give columns the role that a person chose."""
        for name, one in table.columns.items():
            use = next((use for key, use in self._choices.uses.items() if self._chosen(table, name, [key])), "")
            if self._chosen(table, name, self._choices.show) and one.role in ("secret", "personal", "other", "code"):
                use = "text"
            if any("=" not in said for said in self._chosen(table, name, self._choices.hide)) and one.is_text:
                use = "out"
            if use == "out":
                table.columns[name] = replace(one, role="other", why=CHOSEN)
            elif use:
                table.columns[name] = replace(one, role="name" if use == "title" else "prose", why="")
            if use == "title":
                table.title = name
        if table.name in self._choices.include and not (table.title or table.texts):
            personal = {name: one for name, one in table.columns.items() if one.role == "personal" and one.texts}
            table.columns |= {name: replace(one, role="name", why="") for name, one in personal.items()}
            for fact in ("title", "title_columns", "texts", "prose", "chars", "said"):
                table.__dict__.pop(fact, None)

    def _answered(self, rules: Sequence[Rule]) -> list[Rule]:
        """Return the rules with those that a person answered in the place of what was found."""
        found = [one for one in rules if not self._chosen(one.table, one.column, self._choices.show)]
        self._said = {one.place for one in rules if self._chosen(one.table, one.column, self._choices.hide)}
        columns = [(table, column) for table in self.tables for column in table.columns.values()]
        for table, column in columns if self._choices.hide else ():
            said = [_split(one)[1] for one in self._chosen(table, column.name, self._choices.hide)]
            values = [value for value in said if value is not None]
            place = f"{table.name}.{column.name}"
            if said and column.why != CHOSEN and (values or not any(one.place == place for one in found)):
                found = [one for one in found if one.place != place]
                found.append(answered(self._catalog, table, column, values))
                self._said.add(place)
        return found

    # --- What is left out together ---

    def _lost_by(self, rule: Rule) -> Iterator[tuple[Table, int]]:
        """Yield the tables that an index reads with how many of their rows a rule hides."""
        for table in self._read:
            told = conditions([table], [rule])[table]
            if told:
                yield table, self._rows(table, f"({' AND '.join(one.sql for one in told)}) IS NOT TRUE")

    def _beyond_a_tenth(self) -> Iterator[Rule]:
        """Yield the open rules that would leave out more than a tenth of what an index reads, the largest of them."""
        for table in self._read:
            left = known.FEW * max(table.rows, known.MAX_TEXTS)
            roots = {*self._roots.get(table, ())} - {table}
            some = [one for one in self._rules if one.is_open and one.place not in self._said]
            some = [one for one in some if table in self._lost[one] and not self._lost[one].keys() & roots]
            for rule in sorted(some, key=lambda one: self._lost[one][table]):
                left -= max(0, self._lost[rule][table])
                if left < 0:
                    yield rule

    def _state(self, rule: Rule) -> Literal["known", "open", "asked", "answered"]:
        if rule.place in self._said:
            return "answered"
        return "asked" if rule in self._asked else "open" if rule.is_open else "known"

    def _hidden(self) -> list[HiddenRows]:
        """Return the rules as a person answers them, in the order of the screen."""
        found = []
        for rule in [one for one in self._rules if self._lost[one]]:
            lost, state = self._lost[rule], self._state(rule)
            large = any(rows > known.HALF * one.rows for one, rows in lost.items() if one in self._plan.documents)
            rows = -1 if -1 in lost.values() else sum(lost.values())
            of, hidden = sum(one.rows for one in lost), state != "asked"
            found.append(HiddenRows(rule.place, rule.says, rule.sql, rows, of, state, hidden, rule.values, large))
        order = ("asked", "open", "answered", "known")
        return sorted(found, key=lambda one: (not one.large, order.index(one.state), -one.rows))

    # --- What follows ---

    def proposal(self) -> Proposal:
        """Return what becomes of each table, and the indexes."""
        made, taken = self._plan, set[str]()
        indexes = {table: IndexMaker(table, made, taken).made() for table in made.documents}
        shown = {place for one in indexes.values() for place in _shown(one.settings)}
        uses = [self._use(one, indexes, shown) for one in self.tables]
        for one in self._excluded:
            chars = sum(self._chars(one).values())
            uses.append(TableUse(one.name, one.rows, chars, one.source.counted, "out", why=CHOSEN))
        told = "is a view: what it shows is in tables"
        uses += [TableUse(one, 0, 0, True, "out", why=told) for one in self._catalog.views]
        ranked = sorted(uses, key=lambda one: -one.chars)
        notes = (*self._catalog.notes, *self._policies([*indexes.values()]))
        return Proposal(tuple(ranked), tuple(indexes.values()), tuple(self._hidden()), notes)

    def _policies(self, indexes: Sequence[ProposedIndex]) -> list[str]:
        """Return what row level security means for the indexes: first what everybody would see for whom it is not."""
        warnings, notes = [], []
        for index in indexes:
            policies = self._catalog.policies.of(relations_read(index.settings, doubtful=True))
            if warning := policies.warning(access="access" in index.settings):
                warnings.append(f"{index.name}: {warning}")
            notes += [f"{index.name}: {note}" for note in policies.notes()]
        return [*warnings, *notes]

    def _use(self, table: Table, indexes: Mapping[Table, ProposedIndex], shown: Shown) -> TableUse:
        """Return what becomes of a table, with its numbers."""
        chars, made = self._chars(table), self._plan
        place = (table.source.schema, table.source.name)
        reached = [name for name in chars if (*place, name) in shown]
        becomes, of = self._role(table, shown)
        told = table.conditions if becomes in ("document", "part") else []
        lost = self._rows(table, f"({' AND '.join(one.sql for one in told)}) IS NOT TRUE") if told else 0
        share = (1 - max(0, lost) / max(1, table.rows)) * (becomes != "out")
        if becomes == "part" and table in made.parts:
            share *= min(1.0, sum(one.share for one in made.parts[table]))
        left = [
            self._left_out(table, name, chars.get(name, 0), becomes) for name in table.columns if name not in reached
        ]
        return TableUse(
            table.name, table.rows, sum(chars.values()), table.source.counted, becomes, of,
            "" if becomes != "out" else made.out.get(table, "has nothing that people look for"),
            indexes[table].name if table in indexes else "", tuple(filter(None, left)),
            {name: "title" if name in table.title_columns else "text" if name in reached else "out" for name in chars},
            round(share * sum(chars[name] for name in reached)), 0 < table.rows <= lost,
        )  # fmt: skip

    def _chars(self, table: Table) -> dict[str, int]:
        """Return how many characters each column has that people can read."""
        texts = {name: one for name, one in table.columns.items() if one.texts and _is_readable(one)}
        texts = {name: one for name, one in texts.items() if name not in {*table.key, *table.references}}
        counted = self._catalog.chars(table.source, [*texts]) if texts and table.rows else {}
        return {name: round(count * (texts[name].readable or 1)) for name, count in counted.items()}

    def _role(self, table: Table, shown: Shown) -> tuple[Any, tuple[str, ...]]:
        documents = self._plan.documents
        if table in documents:
            return "document", ()
        parts = [(root.name, part) for root, some in documents.items() for part in some]
        if of := [root for root, part in parts if part.table is table]:
            return "part", tuple(dict.fromkeys(of))
        named = [one.child.name for one in table.children if one.child in documents]
        named += [root for root, part in parts if part.far and part.far.parent is table]
        is_label = (table.source.schema, table.source.name, "") in shown
        return ("label", tuple(dict.fromkeys(named))) if is_label else ("out", ())

    def _rows(self, table: Table, condition: str) -> int:
        found = self._catalog.rows_that(table.source, condition)
        return -1 if found is None else found

    def _left_out(self, table: Table, name: str, chars: int, becomes: str) -> LeftOut | None:
        """Return a column with text that no search reaches; None if it has none, or its table is left out anyway."""
        one = table.columns[name]
        why = one.why or ("is text that other columns say, or comes after them" if chars and one.is_text else "")
        names_a_row = name in {*table.key, *table.references} and not chars
        if not why or becomes == "out" or not one.filled or names_a_row:
            return None
        return LeftOut(table.name, name, why, chars)


def _split(answer: str) -> tuple[str, str | None]:
    """Return the column and the value of an answer such as `comment.state=held`."""
    place, mark, value = answer.partition("=")
    return place, value if mark else None


def _near(name: str, names: Sequence[str]) -> str:
    return ", ".join(get_close_matches(name, names, 3)) or "none is named like it"


def _is_readable(one: ReadColumn) -> bool:
    """Return whether people can read a column, whether they may or not."""
    return one.role in ("prose", "name", "personal") or (one.role == "other" and bool(one.why))


def _shown(place: Mapping[str, Any], schema: str | None = None) -> Iterator[tuple[str | None, str, str]]:
    """Yield the columns whose text an index or a part of it shows, and joined tables without: schema, table, column."""
    schema, joins = place.get("schema", schema), place.get("joins", {})
    text, title = place.get("text", []), place.get("title", "")
    names = [*text] if isinstance(text, list) else [text]
    for name in [found for one in (*names, title) for found in _COLUMNS.findall(one) or [one] if found]:
        through, dot, column = name.partition(".")
        at = joins.get(through, place) if dot else place
        found = at.get("schema", schema), at["table"], column if at is not place else name
        yield from {found, (None, *found[1:])}
    for join in joins.values():
        yield join.get("schema", schema), join["table"], ""
        yield None, join["table"], ""
    for part in place.get("parts", ()):
        yield from _shown(part, schema)
