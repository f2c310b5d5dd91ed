"""What `init` proposes for a database: what becomes of each table, with its numbers, and the settings of indexes."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.source_tables import relations_read
from rag_index.errors import SettingsError
from rag_index.first_run.schema.documents import Plan, is_named, plan
from rag_index.first_run.schema.indexes import IndexMaker
from rag_index.first_run.schema.proposed import Choices, HiddenRows, LeftOut, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.relations import relate
from rag_index.first_run.schema.tables import Condition, Table, listed, read_tables
from rag_index.first_run.schema.visibility import add_conditions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import ReadColumn

CHOSEN = "is left out, as you said"
_COLUMNS = re.compile(r"\{([^{}]+)\}")


def propose(catalog: DatabaseCatalog, choices: Choices | None = None) -> Proposal:
    """Return what becomes of each table of a database, and the indexes that follow, as far as a person did not choose.

    Raises:
        SettingsError: `choices` name a table or column that does not exist.
    """
    return _Reading(catalog, choices or Choices()).proposal()


class _Reading:
    """A database as it is read under the choices of a person."""

    def __init__(self, catalog: DatabaseCatalog, choices: Choices) -> None:
        self._catalog, self._choices = catalog, choices
        tables = read_tables(catalog)
        self._check(tables)
        excluded = [one for one in tables if is_named(one, choices.exclude) and not is_named(one, choices.include)]
        self._excluded = excluded
        self.tables = [one for one in tables if one not in excluded]
        for table in self.tables:
            self._use_columns(table)
        relate(catalog, self.tables)
        add_conditions(self.tables, catalog.seconds_now, catalog.connection.dialect.name)
        for table in self.tables:
            self._choose_conditions(table)

    def _check(self, tables: Sequence[Table]) -> None:
        """Raise SettingsError if a choice names what is not there."""
        names = [one.name for one in tables]
        for pattern in (*self._choices.include, *self._choices.exclude):
            if not any(is_named(one, [pattern]) for one in tables):
                near = ", ".join(get_close_matches(pattern, names, 3)) or "none is named like it"
                raise SettingsError(f"there is no table {pattern}: {near}")
        columns = [f"{one.name}.{name}" for one in tables for name in one.columns]
        columns += [f"{one.source.name}.{name}" for one in tables for name in one.columns if one.source.schema]
        for column in (*self._choices.show, *self._choices.hide, *self._choices.uses):
            if column.lower() not in map(str.lower, columns):
                near = ", ".join(get_close_matches(column, columns, 3)) or "none is named like it"
                raise SettingsError(f"there is no column {column}, as TABLE.COLUMN: {near}")

    def _chosen(self, table: Table, column: str, among: Sequence[str]) -> bool:
        """Return whether a column is among those that a person named."""
        names = {f"{table.name}.{column}".lower(), f"{table.source.name}.{column}".lower()}
        return not names.isdisjoint(one.lower() for one in among)

    def _use_columns(self, table: Table) -> None:
        """Give columns the role that a person chose."""
        for name, one in table.columns.items():
            use = next((use for key, use in self._choices.uses.items() if self._chosen(table, name, [key])), "")
            if self._chosen(table, name, self._choices.show) and one.role in ("secret", "personal", "other", "code"):
                use = "text"
            if self._chosen(table, name, self._choices.hide) and one.is_text:
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
            for known in ("title", "title_columns", "texts", "prose", "chars", "said"):
                table.__dict__.pop(known, None)

    def _choose_conditions(self, table: Table) -> None:
        """Take away the conditions that a person does not want, and add those that are missing."""
        kept = [
            one for one in table.conditions
            if not any(self._chosen(table, column, self._choices.show) for column in one.columns)
        ]  # fmt: skip
        table.conditions[:] = kept
        for name, column in table.source.columns.items():
            known = any(name in one.columns and one.through is None for one in kept)
            if (
                table.columns[name].is_text
                or table.columns[name].why == CHOSEN
                or known
                or not self._chosen(table, name, self._choices.hide)
            ):
                continue
            counts = Counter(column.filled)
            most = counts.most_common(1)[0] if counts else (None, 0)
            if most[1] * 2 > len(column.values):
                others = [value for value in counts if value != most[0]]
                sql = f"({column.sql} IS NULL OR {column.sql} = {listed([most[0]])})"
                says = f"{name} is {', '.join(map(str, others)) or f'not {most[0]}'}, as you said"
            else:
                sql, says = f"{column.sql} IS NULL", f"{name} is set, as you said"
            table.conditions.append(Condition((name,), sql, says))

    def proposal(self) -> Proposal:
        """Return what becomes of each table, and the indexes."""
        made = plan(self._catalog, self.tables, self._choices.include)
        taken: set[str] = set()
        indexes = {table: IndexMaker(table, made, taken).made() for table in made.documents}
        shown = {place for one in indexes.values() for place in _shown(one.settings)}
        uses = [self._use(one, made, indexes, shown) for one in self.tables]
        for one in self._excluded:
            chars = sum(self._chars(one).values())
            uses.append(TableUse(one.name, one.rows, chars, one.source.counted, "out", why=CHOSEN))
        uses += [
            TableUse(one, 0, 0, True, "out", why="is a view: what it shows is in tables") for one in self._catalog.views
        ]
        ranked = sorted(uses, key=lambda one: -one.chars)
        return Proposal(tuple(ranked), tuple(indexes.values()), tuple(self._policies([*indexes.values()])))

    def _policies(self, indexes: Sequence[ProposedIndex]) -> list[str]:
        """Return what row level security means for the indexes: first what everybody would see for whom it is not."""
        warnings, notes = [], []
        for index in indexes:
            policies = self._catalog.policies.of(relations_read(index.settings, doubtful=True))
            if warning := policies.warning(access="access" in index.settings):
                warnings.append(f"{index.name}: {warning}")
            notes += [f"{index.name}: {note}" for note in policies.notes()]
        return [*warnings, *notes]

    def _use(
        self, table: Table, made: Plan, indexes: Mapping[Table, ProposedIndex], shown: set[tuple[str | None, str, str]]
    ) -> TableUse:
        """Return what becomes of a table, with its numbers."""
        chars = self._chars(table)
        place = (table.source.schema, table.source.name)
        reached = [name for name in chars if (*place, name) in shown]
        becomes, of = self._role(table, made, shown)
        conditions = [*dict.fromkeys(table.conditions)] if becomes in ("document", "part") else []
        hidden = [found for one in conditions for found in [self._hidden(table, one)]]
        share = 1.0 if becomes != "out" else 0.0
        if conditions:
            lost = self._rows(table, f"({' AND '.join(one.sql for one in conditions)}) IS NOT TRUE")
            share = 1 - max(0, lost) / max(1, table.rows)
        if becomes == "part" and table in made.parts:
            share *= min(1.0, sum(one.share for one in made.parts[table]))
        left = [
            self._left_out(table, name, chars.get(name, 0), becomes) for name in table.columns if name not in reached
        ]
        return TableUse(
            table.name, table.rows, sum(chars.values()), table.source.counted, becomes, of,
            "" if becomes != "out" else made.out.get(table, "has nothing that people look for"),
            indexes[table].name if table in indexes else "", tuple(hidden), tuple(filter(None, left)),
            {name: "title" if name in table.title_columns else "text" if name in reached else "out" for name in chars},
            round(share * sum(chars[name] for name in reached)),
        )  # fmt: skip

    def _chars(self, table: Table) -> dict[str, int]:
        """Return how many characters each column has that people can read."""
        texts = {name: one for name, one in table.columns.items() if one.texts and _is_readable(one)}
        texts = {name: one for name, one in texts.items() if name not in {*table.key, *table.references}}
        counted = self._catalog.chars(table.source, [*texts]) if texts and table.rows else {}
        return {name: round(count * (texts[name].readable or 1)) for name, count in counted.items()}

    def _role(self, table: Table, made: Plan, shown: set[tuple[str | None, str, str]]) -> tuple[Any, tuple[str, ...]]:
        if table in made.documents:
            return "document", ()
        of = [root for root, parts in made.documents.items() for part in parts if part.table is table]
        if of:
            return "part", tuple(dict.fromkeys(one.name for one in of))
        named = [one.child.name for one in table.children if one.child in made.documents]
        named += [
            root.name
            for root, parts in made.documents.items()
            for part in parts
            if part.far and part.far.parent is table
        ]
        if (table.source.schema, table.source.name, "") in shown:
            return "label", tuple(dict.fromkeys(named))
        return "out", ()

    def _rows(self, table: Table, condition: str) -> int:
        found = self._catalog.rows_that(table.source, condition)
        return -1 if found is None else found

    def _hidden(self, table: Table, one: Condition) -> HiddenRows:
        rows = self._rows(table, f"({one.sql}) IS NOT TRUE")
        return HiddenRows(table.name, one.columns, one.sql, one.says, rows, table.rows, one.question)

    def _left_out(self, table: Table, name: str, chars: int, becomes: str) -> LeftOut | None:
        """Return a column with text that no search reaches; None if it has none, or its table is left out anyway."""
        one = table.columns[name]
        why = one.why or ("is text that other columns say, or comes after them" if chars and one.is_text else "")
        names_a_row = name in {*table.key, *table.references} and not chars
        if not why or becomes == "out" or not one.filled or names_a_row:
            return None
        return LeftOut(table.name, name, why, chars)


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
