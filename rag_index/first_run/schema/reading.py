"""What `init` proposes: what becomes of each table of a database, who may see its rows, and the indexes."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from rag_index.components.sources.source_tables import relations_read
from rag_index.errors import SettingsError
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.documents import is_named, plan
from rag_index.first_run.schema.indexes import IndexMaker
from rag_index.first_run.schema.proposed import CHOSEN, Choices, HiddenRows, LeftOut, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.relations import read_tables, relate
from rag_index.first_run.schema.visibility import answered, conditions, find_rules

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.tables import Rule, Table


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
        self.tables = read_tables(catalog)
        self._resolve(self.tables)
        for table in self.tables:
            self._use_columns(table)
        relate(catalog, self.tables)
        self._plan = plan(catalog, self.tables, choices)
        self._roots: dict[Table, list[Table]] = {}
        for root, part in [(root, part) for root, some in self._plan.documents.items() for part in some]:
            self._roots.setdefault(part.table, []).extend([root] if not part.far else [])
        self._read = [*dict.fromkeys([*self._plan.documents, *(one for one, some in self._roots.items() if some)])]
        found = find_rules(catalog, self.tables)
        self._rules = self._answered(found)
        self._lost = {rule: dict(self._lost_by(rule)) for rule in self._rules}
        self._asked = {*self._beyond_a_tenth()}
        self._idle = [*self._without_effect({(one.table, one.column) for one in found})]
        told = conditions(self.tables, [one for one in self._rules if one not in self._asked])
        for table in self.tables:
            table.conditions[:] = told[table]

    # --- Answers ---

    def _resolve(self, tables: Sequence[Table]) -> None:
        """Keep the choices by table and column. Raise SettingsError if one names what is not there."""
        for pattern in (*self._choices.include, *self._choices.exclude):
            if not any(is_named(one, [pattern]) for one in tables):
                raise SettingsError(f"there is no table {pattern}: {_near(pattern, [one.name for one in tables])}")
        names = {f"{one.own_name}.{name}": (one, name) for one in tables for name in one.columns}
        names |= {f"{one.name}.{name}": (one, name) for one in tables for name in one.columns}
        places = {name.lower(): place for name, place in names.items()}

        def place(name: str) -> tuple[Table, str]:
            if name.lower() not in places:
                raise SettingsError(f"there is no column {name}, as TABLE.COLUMN: {_near(name, [*names])}")
            return places[name.lower()]

        self._show = dict.fromkeys(place(one) for one in self._choices.show)
        self._uses = {place(one): use for one, use in self._choices.uses.items()}
        self._hide: dict[tuple[Table, str], list[str]] = {}
        for one in self._choices.hide:
            name, mark, value = (one, "", "") if one.lower() in places else one.partition("=")
            self._hide.setdefault(place(name), []).extend([value] if mark else [])

    def _use_columns(self, table: Table) -> None:
        """Give columns the role that a person chose."""
        for name, one in table.columns.items():
            use = self._uses.get((table, name), "")
            if (table, name) in self._show and one.role in ("secret", "personal", "other", "code"):
                use = "text"
            if self._hide.get((table, name)) == [] and one.is_text:
                use = "out"
            if use == "out":
                table.columns[name] = replace(one, role="other", why=CHOSEN)
            elif use:
                table.columns[name] = replace(one, role="name" if use == "title" else "prose", why="")
            if use == "title":
                table.title = name
        if table.name in self._choices.include and not any(one.is_text for one in table.columns.values()):
            personal = {name: one for name, one in table.columns.items() if one.role == "personal" and one.texts}
            table.columns |= {name: replace(one, role="name", why="") for name, one in personal.items()}

    def _answered(self, rules: Sequence[Rule]) -> list[Rule]:
        """Return the rules with those that a person answered in the place of what was found."""
        found = [one for one in rules if (one.table, one.column) not in self._show]
        for (table, name), values in self._hide.items():
            others = [one for one in found if (one.table, one.column) != (table, name)]
            column = table.columns[name]
            if table in self.tables and column.why != CHOSEN and (values or len(others) == len(found)):
                found = [*others, answered(self._catalog, table, column, values)]
        return found

    def _without_effect(self, found: set[tuple[Table, str]]) -> Iterator[str]:
        """Yield what a person said that changes nothing, given the columns by which rows may be hidden."""
        for table, name in [one for one in self._show if one not in found | self._plan.read]:
            yield f"--show {table.name}.{name} changes nothing: it hides no rows, and no index reads its text"
        hidden = {(rule.table, rule.column) for rule, lost in self._lost.items() if lost}
        for table, name in [one for one in self._hide if one not in hidden]:
            if table.columns[name].why != CHOSEN:
                yield f"--hide {table.name}.{name} changes nothing: no index has rows that it hides, or its text"

    # --- What is left out together ---

    def _lost_by(self, rule: Rule) -> Iterator[tuple[Table, int]]:
        """Yield the tables that an index reads with how many of their rows a rule hides."""
        for table in self._read:
            told = conditions([table], [rule])[table]
            if told:
                yield table, self._catalog.rows_that(table, _unmet(told))

    def _beyond_a_tenth(self) -> Iterator[Rule]:
        """Yield the open rules that would leave out more than a tenth of what an index reads, the largest of them."""
        for table in self._read:
            left = known.FEW * max(table.rows, known.MAX_TEXTS)
            roots = {*self._roots.get(table, ())} - {table}
            some = [one for one in self._rules if one.is_open and (one.table, one.column) not in self._hide]
            some = [one for one in some if table in self._lost[one] and not self._lost[one].keys() & roots]
            for rule in sorted(some, key=lambda one: self._lost[one][table]):
                left -= max(0, self._lost[rule][table])
                if left < 0:
                    yield rule

    def _state(self, rule: Rule) -> Literal["known", "open", "asked", "answered"]:
        if (rule.table, rule.column) in self._hide:
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
        uses = [self._use(one, indexes) for one in self.tables]
        told = "is a view: what it shows is in tables"
        uses += [TableUse(one, 0, 0, True, "out", why=told) for one in self._catalog.views]
        ranked = sorted(uses, key=lambda one: -one.chars)
        notes = (*self._catalog.notes, *self._idle, *self._policies([*indexes.values()]))
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

    def _use(self, table: Table, indexes: Mapping[Table, ProposedIndex]) -> TableUse:
        """Return what becomes of a table, with its numbers."""
        chars, made = self._chars(table), self._plan
        reached = [name for name in chars if (table, name) in made.read]
        becomes, of = self._role(table)
        told = table.conditions if becomes in ("document", "part") else []
        lost = self._catalog.rows_that(table, _unmet(told)) if told else 0
        share = (1 - max(0, lost) / max(1, table.rows)) * (becomes != "out")
        if becomes == "part" and table in made.parts:
            share *= min(1.0, sum(one.share for one in made.parts[table]))
        left = [
            self._left_out(table, name, chars.get(name, 0), becomes) for name in table.columns if name not in reached
        ]
        return TableUse(
            table.name, table.rows, sum(chars.values()), table.counted, becomes, of,
            "" if becomes != "out" else made.out.get(table, "has nothing that people look for"),
            indexes[table].name if table in indexes else "", tuple(filter(None, left)),
            {name: "title" if name in table.title_columns else "text" if name in reached else "out" for name in chars},
            round(share * sum(chars[name] for name in reached)), 0 < table.rows <= lost,
        )  # fmt: skip

    def _chars(self, table: Table) -> dict[str, int]:
        """Return how many characters each column has that people can read, whether they may or not."""
        keys, read = {*table.key, *table.references}, ("prose", "name", "personal")
        texts = {name: one for name, one in table.columns.items() if one.texts and name not in keys}
        texts = {name: one for name, one in texts.items() if one.role in read or (one.role == "other" and one.why)}
        counted = self._catalog.chars(table, [*texts]) if texts and table.rows else {}
        return {name: round(count * (texts[name].readable or 1)) for name, count in counted.items()}

    def _role(self, table: Table) -> tuple[Any, tuple[str, ...]]:
        documents = self._plan.documents
        if table in documents:
            return "document", ()
        parts = [(root.name, part) for root, some in documents.items() for part in some]
        if of := [root for root, part in parts if part.table is table]:
            return "part", tuple(dict.fromkeys(of))
        named = [one.child.name for one in table.children if one.child in documents]
        named += [root for root, part in parts if part.far and part.far.parent is table]
        return ("label", tuple(dict.fromkeys(named))) if (table, "") in self._plan.read else ("out", ())

    def _left_out(self, table: Table, name: str, chars: int, becomes: str) -> LeftOut | None:
        """Return a column with text that no search reaches; None if it has none, or its table is left out anyway."""
        one = table.columns[name]
        why = one.why or ("is text that other columns say, or comes after them" if chars and one.is_text else "")
        names_a_row = name in {*table.key, *table.references} and not chars
        if not why or becomes == "out" or not one.filled or names_a_row:
            return None
        return LeftOut(table.name, name, why, chars)


def _unmet(rules: Sequence[Rule]) -> str:
    """Return in SQL that a row is hidden."""
    return f"({' AND '.join(one.sql for one in rules)}) IS NOT TRUE"


def _near(name: str, names: Sequence[str]) -> str:
    return ", ".join(get_close_matches(name, names, 3)) or "none is named like it"
