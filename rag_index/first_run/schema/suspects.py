"""References to tables with hidden rows that no declared key explains: rows that seem to refer to a
hidden row are hidden, and it is a question.

Four kinds of columns are suspects:

- a declared key with a role of its own (`target_item_id` of a remark on a document), and a
  reference to a row of the same table that forms a tree (`in_folder_id`);
- values that are keys of the table (`obj` of an attachment);
- values that are unique names or codes of it (`post.author` is a nickname of a member);
- values with the kind before the key (`article:4`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import Candidate, CandidateValue
from rag_index.first_run.schema.hidden_rows import Conditions, below_hidden, is_tree, joined
from rag_index.first_run.schema.rulings import Ruling
from rag_index.first_run.schema.tables import NOTHING, Relation, Table, is_random, unique_names
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column

MAX_DEPTH = 12
"""A longer chain of rows, each the only one after another, is a sequence and no tree. Chosen."""
_NUMBER_AT_END = re.compile(r"(.*[^\d])(\d+)", re.DOTALL)
_KEY_AT_END = re.compile(r"(.*[^\w-])([\w-]+)", re.DOTALL)
"""A value with the kind before the key, a number or any other: `article-4`, `/articles/b3f1`."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """A column that may refer to hidden rows: the question about it, and its relations."""

    ruling: Ruling
    relations: list[Relation]


def suspects(
    catalog: DatabaseCatalog, tables: Sequence[Table], hidden: Conditions
) -> Iterator[Suspect]:
    """Yield the columns that may refer to hidden rows though no key says that rows belong to them.

    Args:
        hidden: The conditions of all tables, as far as they are known.
    """
    finder = _Finder(catalog, tables, hidden)
    for table in tables:
        if not table.rows:
            continue
        for column in table.columns.values():
            relations = finder.relations_of(table, column)
            suspect = finder.suspect(relations) if relations else None
            if suspect:
                yield suspect


class _Finder:
    def __init__(
        self, catalog: DatabaseCatalog, tables: Sequence[Table], hidden: Conditions
    ) -> None:
        self._catalog = catalog
        self._hidden = hidden
        keyed = [table for table in tables if hidden[table] and len(table.key) == 1]
        read = [table for table in keyed if (table.prose or table.title) and not table.machine]
        things = [table for table in read if not table.is_people]
        self._things = [table for table in things if not table.is_label]
        self._trees = {*things}
        self._by_noun: dict[str, list[Table]] = {}
        for table in self._things:
            self._by_noun.setdefault(table.noun[-1], []).append(table)
        people = [table for table in tables if table.is_people]
        banned = [table for table in people if any(one.bans for one in hidden[table])]
        self._named: list[tuple[Table, str]] = []
        """Tables with hidden rows, each with a column of unique names: (`member`, `nickname`)."""
        for parent in (*things, *banned):
            for column in unique_names(parent):
                self._named.append((parent, column))

    def relations_of(self, table: Table, column: Column) -> list[Relation]:
        """Return the relations of a column to tables with hidden rows; [] if it is no suspect."""
        ways = [one for one in table.parents if column.name in [here for here, _ in one.pairs]]
        if ways:
            declared = [one for one in ways if self._has_role(one)]
            return [_suspected(one) for one in declared[:1]]
        values = [value for value in column.given if value not in NOTHING]
        if len({*map(str, values)}) < 2 or column.role in ("prose", "time", "flag", "locale"):
            return []
        if column.name in table.key or column.role == "secret":
            return []
        found = self._by_key(table, column, values)
        if not found and column.kind == "text":
            found = self._by_name(table, column, values) or self._by_kind(table, column, values)
        return found

    def suspect(self, relations: Sequence[Relation]) -> Suspect | None:
        """Return the suspect with its question; None if no row, or most of them, would be hidden."""
        first = relations[0]
        table = first.child
        is_hidden = [self._is_hidden(one) for one in relations]
        rows = self._catalog.rows_that(table, " OR ".join(is_hidden))
        is_declared = any(one.column == first.column for one in table.parents)
        most = table.rows - 1 if is_declared else known.HALF * table.rows
        if not 0 < rows <= most:
            return None
        parents = " and ".join(dict.fromkeys(one.parent.name for one in relations))
        why = f"may refer to {parents} with hidden rows: its values are keys there"
        shown = table.rows - rows
        values = (
            CandidateValue("of shown rows", "of shown rows", shown, is_shown=True),
            CandidateValue("of hidden rows", "of hidden rows", rows, is_shown=False),
        )
        name = table.id_of(first.column)
        candidate = Candidate(name, table.name, first.column, "asked", why, values)
        return Suspect(Ruling(candidate), list(relations))

    def _is_hidden(self, relation: Relation) -> str:
        """Return in SQL that a row is hidden for what it refers to, and for nothing else in a
        tree."""
        conditions = self._hidden[relation.parent]
        if relation.parent is not relation.child:
            if relation.parent.is_people:
                conditions = [one for one in conditions if one.bans]
            return relation.of_hidden(conditions)
        return f"({joined(conditions)} AND NOT ({below_hidden(relation, conditions).sql}))"

    # --- The four kinds ---

    def _has_role(self, relation: Relation) -> bool:
        """Return whether rows may belong to what a relation with a role of its own names."""
        table, parent = relation.child, relation.parent
        if relation.is_pointer or relation.type_column or relation.pairs[1:]:
            return False
        if parent is table:
            is_other = parent in self._trees and not is_tree(relation)
            return is_other and _forms_tree(relation)
        if parent not in self._things or relation.belongs or relation.is_list:
            return False
        # a remark on a document; not the library that a society runs, which only has a name
        is_part = bool(table.prose) and not table.title
        return bool(parent.prose) or is_part

    def _by_key(self, table: Table, column: Column, values: Sequence[Any]) -> list[Relation]:
        """Return the relation of a column whose values are keys; [] if they are not."""
        if table in self._trees and _may_lie_below(table, column, values):
            relation = self._to_key(table, column, values, table)
            if relation:
                # `in_folder_id`, but not the row that was copied, or the next one (`next_id`)
                is_above = _is_called(column, table) and _forms_tree(relation)
                return [relation] if is_above else []
        if not _may_refer(column, values):
            return []
        for parent in self._things:
            relation = self._to_key(table, column, values, parent)
            if relation and parent is not table:
                return [relation]
        return []

    def _to_key(
        self, table: Table, column: Column, values: Sequence[Any], parent: Table
    ) -> Relation | None:
        """Return the relation of values that are keys of a table; None if they are not."""
        key = parent.columns[parent.key[0]]
        is_few = len({*values}) < known.MIN_ROWS and not _is_called(column, parent)
        if key.kind != column.kind or is_few:
            return None
        if self._catalog.share_found(values, parent, key.name) < known.MIN_FOUND:
            return None
        pairs = ((column.name, key.name),)
        return Relation(table, parent, pairs, column.filled, may_refer=True)

    def _by_name(self, table: Table, column: Column, values: Sequence[Any]) -> list[Relation]:
        """Return the relation of a column whose values are names that rows alone have; [] if there
        is none."""
        for parent, name in self._named:
            is_called = parent.is_people or _is_called(column, parent)
            if parent is table or not is_called or column.name in table.title_columns:
                continue
            if self._catalog.share_found(values, parent, name) >= known.MIN_FOUND:
                pairs = ((column.name, name),)
                return [Relation(table, parent, pairs, column.filled, may_refer=True)]
        return []

    def _by_kind(self, table: Table, column: Column, values: Sequence[Any]) -> list[Relation]:
        """Return the relations of a column with values such as `article:4`, one for each kind."""
        numbers = _split(values, _NUMBER_AT_END)
        others = _split(values, _KEY_AT_END)
        keys: dict[tuple[str, Table], list[Any]] = {}
        for kind in {**numbers, **others}:
            last = singular(words(kind)[-1])
            for parent in self._by_noun.get(last, ()):
                named: list[Any] = others.get(kind, [])
                if parent.columns[parent.key[0]].kind == "number":
                    # "4" of `article-4` is the key 4
                    named = [*map(int, numbers.get(kind, ()))]
                if named and parent is not table and _names_kind(kind, parent):
                    keys[kind, parent] = named
        found = []
        for (kind, parent), named in keys.items():
            # a backslash within a text means something else in MySQL
            is_literal = not (self._catalog.is_mysql and "\\" in kind)
            share = self._catalog.share_found(named, parent, parent.key[0])
            if is_literal and share >= known.MIN_FOUND:
                cast = "CHAR" if self._catalog.is_mysql else "TEXT"
                pairs = ((column.name, parent.key[0]),)
                found.append(Relation(table, parent, pairs, may_refer=True, prefix=kind, cast=cast))
        return found[: known.MAX_VALUES]


def _split(values: Sequence[Any], pattern: re.Pattern[str]) -> dict[str, list[str]]:
    """Return the keys at the end of values by what stands before them."""
    keys: dict[str, list[str]] = {}
    for value in values:
        split = pattern.fullmatch(str(value))
        if split:
            keys.setdefault(split[1], []).append(split[2])
    # each value has a kind of its own: a sentence
    return keys if len(keys) <= known.MAX_VALUES else {}


def _suspected(relation: Relation) -> Relation:
    """Return a declared relation as one to which rows may belong."""
    return Relation(relation.child, relation.parent, relation.pairs, relation.share, may_refer=True)


def _is_called(column: Column, parent: Table) -> bool:
    """Return whether a column has a word of what the rows of a table are called."""
    called = {*parent.noun, *words(parent.own_name)}
    named = words(column.name)
    # `articles_ref` of an `article`
    singulars = map(singular, named)
    return not called.isdisjoint((*named, *singulars))


def _names_kind(text: str, parent: Table) -> bool:
    """Return whether what stands before a key is what the rows of a table are called."""
    called = tuple(map(singular, words(text)))
    # `article-` for rows of `blog_article`
    if called == parent.noun[-1:]:
        return True
    return called[-len(parent.noun) :] == parent.noun


def _may_refer(column: Column, values: Sequence[Any]) -> bool:
    """Return whether a column may hold keys of another table: not each once, and no number that
    stands for itself."""
    if column.kind not in ("number", "text", "id") or known.POINTERS & {*words(column.name)}:
        return False
    if column.distinct == 1 or column.role == "personal":
        return False
    if is_random(values):
        return True
    # `pid`, `belongs_to_id`, but not `amount` or `order_no`
    last = words(column.name)[-1]
    is_reference = last.endswith("id") or last in known.GENERIC | known.PARENT_WORDS
    return is_reference and last not in known.CODE_NAMES


def _may_lie_below(table: Table, column: Column, values: Sequence[Any]) -> bool:
    """Return whether a column may hold the key of the row above in a tree."""
    if _may_refer(column, values):
        return True
    return column.kind in ("number", "text", "id") and _is_called(column, table)


def _forms_tree(relation: Relation) -> bool:
    """Return whether rows of a table lie below each other: some have nothing above them, and no row
    is above itself. What each names the next row (`next_id`) is a sequence."""
    here, there = relation.pairs[0]
    rows = relation.child.rows_of(here, there)
    above = {}
    for value, key in rows:
        if value not in NOTHING and value != key:
            above[key] = value
    if not above or len(above) == len(rows):
        return False
    deepest = max(_depth(key, above) for key in above)
    # a row that is above itself
    if deepest > len(above):
        return False
    repeats = len({*above.values()}) < len(above)
    return repeats or deepest <= MAX_DEPTH


def _depth(key: Any, above: dict[Any, Any]) -> int:
    """Return the number of rows above a row; `len(above) + 1` if they form a circle."""
    depth = 0
    while key in above and depth <= len(above):
        key = above[key]
        depth += 1
    return depth
