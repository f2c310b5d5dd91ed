"""What `init` proposes: what becomes of each table of a database, who may see its rows, and the
indexes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.source_tables import relations_read
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.beside import other_rulings
from rag_index.first_run.schema.candidates import Decisions, answered
from rag_index.first_run.schema.copies import copied_columns
from rag_index.first_run.schema.documents import plan
from rag_index.first_run.schema.hidden_rows import Conditions, conditions, unmet
from rag_index.first_run.schema.indexes import IndexMaker
from rag_index.first_run.schema.proposed import CHOSEN, ColumnUse, Proposal, ProposedIndex, TableUse
from rag_index.first_run.schema.relations import read_tables, relate
from rag_index.first_run.schema.rulings import Ruling, find_rulings
from rag_index.first_run.schema.suspects import suspects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rag_index.first_run.schema.candidates import Candidate
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.suspects import Suspect
    from rag_index.first_run.schema.tables import Relation, Table

MAX_ROUNDS = 4
"""How often references that nobody declared are looked for below each other. Chosen."""


def propose(catalog: DatabaseCatalog, decisions: Decisions | None = None) -> Proposal:
    """Return what becomes of each table of a database, as far as a person did not decide, and the
    indexes."""
    if decisions is None:
        decisions = Decisions()
    return _Reading(catalog, decisions).proposal()


def tables_read(catalog: DatabaseCatalog, decisions: Decisions) -> list[Table]:
    """Return the tables with the conditions under which their rows are shown."""
    return _Reading(catalog, decisions).tables


class _Reading:
    """A database as it is read with the decisions of a person."""

    def __init__(self, catalog: DatabaseCatalog, decisions: Decisions) -> None:
        self._catalog, self._decisions = catalog, decisions
        self.tables = read_tables(catalog)
        for table in self.tables:
            self._use_columns(table)
        relate(catalog, self.tables)
        self._rulings = find_rulings(catalog, self.tables, decisions)
        self._rulings.found += [self._answered(one) for one in other_rulings(catalog, self.tables)]
        self._undeclared: list[Relation] = []
        self._find_conditions()
        self._leave_out_copies()
        self._plan = plan(catalog, self.tables, decisions.tables)
        self._read = [*self._plan.documents]
        for parts in self._plan.documents.values():
            self._read += [part.table for part in parts]
            self._read += [part.far.parent for part in parts if part.far]
        self._read = [*dict.fromkeys(self._read)]

    def _find_conditions(self) -> None:
        """Give tables the conditions that they are read with, also by references that nobody
        declared."""
        for one in self._rulings.found:
            if one.condition and one.condition.is_own:
                shown = [value.value for value in one.candidate.values if value.is_shown]
                made = one.candidate
                sql = self._catalog.shows(
                    one.condition.table, made.column, made.key, made.kind, shown
                )
                self._catalog.decided[made.id] = sql
        self._rulings.found = [self._limited(one) for one in self._rulings.found]
        self._own = [one.condition for one in self._rulings.found if one.condition]
        found = conditions(self.tables, self._own)
        asked: set[str] = set()
        # what refers to rows that are hidden by such a reference may be hidden in its turn
        for _ in range(MAX_ROUNDS):
            relations = len(self._undeclared)
            for suspect in suspects(self._catalog, self.tables, found):
                if suspect.ruling.candidate.id not in asked:
                    asked.add(suspect.ruling.candidate.id)
                    self._ask(suspect)
            if len(self._undeclared) == relations:
                break
            found = conditions(self.tables, self._own, self._undeclared)
        for table in self.tables:
            table.conditions[:] = found[table]

    def _ask(self, suspect: Suspect) -> None:
        """Add the question about a reference that nobody declared, and what follows from it."""
        ruling = self._answered(suspect.ruling)
        self._rulings.found.append(ruling)
        if not all(value.is_shown for value in ruling.candidate.values):
            self._undeclared += suspect.relations

    def _limited(self, ruling: Ruling) -> Ruling:
        """Return a ruling that nobody answered so that it does not reach further, if it would hide
        most of a table.

        The first page of a site may be an exception: with all that is below it, everything would be
        hidden.
        """
        condition = ruling.condition
        if condition is None or not ruling.candidate.is_open or not _hides(ruling.candidate):
            return ruling
        found = conditions(self.tables, [condition])
        for table in self.tables:
            has_text = table.prose or table.title
            if not (found[table] and has_text):
                continue
            hidden = self._catalog.rows_that(table, unmet(found[table]))
            if hidden > known.HALF * table.rows:
                return replace(ruling, condition=replace(condition, reaches=False))
        return ruling

    def _answered(self, ruling: Ruling) -> Ruling:
        """Return a ruling with what a person decided about its rows."""
        decided = self._decisions.values.get(ruling.candidate.id)
        if decided is None:
            return ruling
        one = answered(ruling.candidate, decided)
        if all(value.is_shown for value in one.values):
            return Ruling(one)
        return replace(ruling, candidate=one)

    def _leave_out_copies(self) -> None:
        """Leave out columns with copies of the texts of hidden rows, unless a person wants them."""
        found = {table: table.conditions for table in self.tables}
        for table, name, of in copied_columns(self._catalog, self.tables, found):
            if table.id_of(name) not in self._decisions.columns:
                why = f"has texts of hidden rows of {of.name}"
                table.columns[name] = replace(table.columns[name], role="other", why=why)
                table.forget()

    # --- Answers ---

    def _use_columns(self, table: Table) -> None:
        """Give columns the role that a person chose."""
        for name, column in table.columns.items():
            use = self._decisions.columns.get(table.id_of(name))
            if use == "leave out":
                table.columns[name] = replace(column, role="other", why=CHOSEN)
            elif use == "text":
                table.columns[name] = replace(column, role="prose", why="")
            elif use == "title":
                table.columns[name] = replace(column, role="name", why="")
                table.title = name
        # a person wants documents of a table that has personal texts alone
        is_wanted = self._decisions.tables.get(table.name) == "document"
        if is_wanted and not any(one.is_text for one in table.columns.values()):
            for name, column in table.columns.items():
                if column.role == "personal" and column.texts:
                    table.columns[name] = replace(column, role="name", why="")

    # --- What is left out together ---

    def _candidates(self) -> Iterator[Candidate]:
        """Yield all candidates, with the rows that each of them leaves out of indexes."""
        for ruling in self._rulings.found:
            candidate = ruling.candidate
            # a question about rows that are all shown has no condition
            found: Conditions = {}
            if ruling.condition:
                below = ruling.condition.table.below
                read = [table for table in self._read if table in below]
                found = conditions(read, [ruling.condition])
            hides = _hides(candidate)
            rows: list[int] = []
            of = 0
            chars: float = 0
            for table in self._read:
                unshown = found.get(table)
                if unshown and hides:
                    rows.append(self._catalog.rows_that(table, unmet(unshown)))
                if unshown or table.name == candidate.table:
                    of += table.rows
                    chars += table.chars
            # the database could not count the rows of a table
            hidden = -1 if -1 in rows else sum(rows)
            yield replace(candidate, hidden=hidden, of=of, chars=chars)

    # --- What follows ---

    def proposal(self) -> Proposal:
        """Return what becomes of each table, and the indexes."""
        taken = set[str]()
        indexes = {}
        for table in self._plan.documents:
            indexes[table] = IndexMaker(table, self._plan, taken, self._rulings).made()
        uses = [self._use(table, indexes) for table in self.tables]
        why = "is a view: what it shows is in tables"
        uses += [TableUse(view, 0, 0, True, "out", why=why) for view in self._catalog.views]
        uses.sort(key=lambda use: -use.chars)
        made = tuple(indexes.values())
        return Proposal(
            tables=tuple(uses),
            indexes=made,
            candidates=tuple(self._candidates()),
            excused=self._rulings.excused,
            notes=(*self._catalog.notes, *self._policies(made)),
        )

    def _policies(self, indexes: Sequence[ProposedIndex]) -> list[str]:
        """Return what row level security means for the indexes: first what everybody would see for
        whom it is not."""
        warnings, notes = [], []
        for index in indexes:
            policies = self._catalog.policies.of(relations_read(index.settings, doubtful=True))
            if warning := policies.warning(access="access" in index.settings):
                warnings.append(f"{index.name}: {warning}")
            notes += [f"{index.name}: {note}" for note in policies.notes()]
        return [*warnings, *notes]

    def _use(self, table: Table, indexes: Mapping[Table, ProposedIndex]) -> TableUse:
        """Return what becomes of a table, with its numbers."""
        chars = self._chars(table)
        reached = [name for name in chars if (table, name) in self._plan.read]
        becomes, of = self._role(table)
        why = ""
        hidden = 0
        searched: float = sum(chars[name] for name in reached)
        if becomes == "out":
            why = self._plan.out.get(table, "has nothing that people look for")
            searched = 0
        elif becomes != "label" and table.conditions:
            hidden = self._catalog.rows_that(table, unmet(table.conditions))
        share = 1 - max(0, hidden) / max(1, table.rows)
        if becomes == "part" and table in self._plan.parts:
            # documents may have the newest parts alone
            share *= min(1.0, sum(part.share for part in self._plan.parts[table]))
        index = indexes[table].name if table in indexes else ""
        columns = tuple(_column_uses(table, chars, reached))
        total = sum(chars.values())
        is_hidden = 0 < table.rows <= hidden
        return TableUse(
            name=table.name,
            rows=table.rows,
            chars=total,
            exact=table.counted,
            becomes=becomes,
            of=of,
            why=why,
            index=index,
            columns=columns,
            searched=round(share * searched),
            is_hidden=is_hidden,
        )

    def _chars(self, table: Table) -> dict[str, int]:
        """Return how many characters each column has that people can read, whether they may or
        not."""
        names = []
        for name, column in table.columns.items():
            is_key = name in table.key or name in table.references
            is_read = column.role in ("prose", "name", "personal")
            # `source`, with copies of hidden rows
            is_left_out = column.role == "other" and column.why
            if column.texts and not is_key and (is_read or is_left_out):
                names.append(name)
        if not (names and table.rows):
            return {}
        chars = self._catalog.chars(table, names)
        for name in names:
            chars[name] = round(chars[name] * (table.columns[name].readable or 1))
        return chars

    def _role(self, table: Table) -> tuple[Any, tuple[str, ...]]:
        """Return what a table becomes, and the tables whose part or label it is."""
        documents = self._plan.documents
        if table in documents:
            return "document", ()
        part_of = []
        label_of = [one.child.name for one in table.children if one.child in documents]
        for root, parts in documents.items():
            # `comment`, of `ticket`
            if any(part.table is table for part in parts):
                part_of.append(root.name)
            # `tag`, of `ticket` by `ticket_tag`
            if any(part.far and part.far.parent is table for part in parts):
                label_of.append(root.name)
        if part_of:
            return "part", tuple(part_of)
        if (table, "") in self._plan.read:
            return "label", tuple(dict.fromkeys(label_of))
        return "out", ()


def _hides(candidate: Candidate) -> bool:
    """Return whether a value that rows have is not shown."""
    return any(not value.is_shown and value.rows for value in candidate.values)


def _column_uses(
    table: Table, chars: Mapping[str, int], reached: Collection[str]
) -> Iterator[ColumnUse]:
    """Yield the columns of a table that have text, given the characters of those that people can
    read."""
    for name, column in table.columns.items():
        is_key = name in table.key or name in table.references
        if name in chars and name in table.title_columns:
            yield ColumnUse(table.id_of(name), name, "title", chars[name])
        elif name in reached:
            yield ColumnUse(table.id_of(name), name, "text", chars[name])
        elif name in chars:
            why = column.why or "is text that other columns say, or comes after them"
            yield ColumnUse(table.id_of(name), name, "leave out", chars[name], why)
        elif column.why and column.filled and not is_key:
            # a password: nobody counts its characters
            yield ColumnUse(table.id_of(name), name, "leave out", 0, column.why)
