"""What follows from hidden rows: what belongs to a hidden row is hidden with it, at any depth.

A row belongs to what it refers to (parts, children, polymorphic references), to the rows above it
in a tree, to a person who wrote it and is banned, and to the labels and containers that a table of
links gives it. `suspects` finds references that nobody declared, and `copies` texts that a search
or a preview keeps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.tables import Condition, Relation, Table, is_none_of
from rag_index.first_run.schema.words import words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Conditions = dict[Table, list[Condition]]


def conditions(
    tables: Sequence[Table], own: Sequence[Condition], undeclared: Sequence[Relation] = ()
) -> Conditions:
    """Return the conditions that each table is read with.

    Args:
        own: The conditions that follow from the rulings, of any table.
        undeclared: References that no key declares, beside the parents of each table.
    """
    inheritance = _Inheritance(own, undeclared, {})
    for table in tables:
        inheritance.add(table)
    if not inheritance.has_lost():
        return inheritance.found
    # A circle: comments belong to posts, and a post is one of the contents that have comments.
    again = _Inheritance(own, undeclared, inheritance.found)
    for table in tables:
        again.add(table)
    return again.found


def joined(rules: Sequence[Condition]) -> str:
    """Return in SQL that a row meets all of these conditions."""
    return " AND ".join(rule.sql for rule in rules)


def unmet(rules: Sequence[Condition]) -> str:
    """Return in SQL that a row is hidden by one of these conditions."""
    return f"({joined(rules)}) IS NOT TRUE"


def passes(relation: Relation, condition: Condition) -> bool:
    """Return whether a condition of the parent holds for the rows that refer to it, too."""
    parent = relation.parent
    is_customer = bool(known.CUSTOMERS & {*parent.noun})
    if parent.is_people and not is_customer:
        # only a ban hides what a person wrote: a post stays when its author's profile is private
        return condition.bans and not relation.is_pointer
    return condition.reaches and (relation.may_refer or relation.belongs)


@dataclass(frozen=True, slots=True)
class _Link:
    """The way from a row over a table of links to a label or a container."""

    own: Relation
    """From the links to the row."""
    far: Relation
    """From the links to the label."""
    is_label: bool
    """Whether a single hidden one hides the row. Otherwise all that the row is in must be hidden."""


class _Inheritance:
    """Conditions of tables, each with those of the tables above it.

    Tables that refer to each other in a circle are read from one of them on, and that one is above
    the last without conditions: a second time, it has those that the first time found.
    """

    def __init__(
        self, own: Sequence[Condition], undeclared: Sequence[Relation], before: Conditions
    ) -> None:
        self.found: Conditions = {}
        self._before = before
        self._undeclared = undeclared
        self._ends: list[Relation] = []
        """The last relations of circles."""
        self._visiting: set[Table] = set()
        self._own: Conditions = {}
        for condition in own:
            self._own.setdefault(condition.table, []).append(condition)

    def add(self, table: Table) -> None:
        """Find the conditions of a table, after those of all that its rows belong to."""
        # a circle of references ends where it began
        if table in self.found or table in self._visiting:
            return
        self._visiting.add(table)
        ways = [*table.parents, *(one for one in self._undeclared if one.child is table)]
        links = list(_links(table))
        for relation in ways:
            if relation.parent in self._visiting and relation.parent is not table:
                self._ends.append(relation)
            self.add(relation.parent)
        for link in links:
            self.add(link.far.parent)
        self._visiting.discard(table)
        self.found[table] = self._conditions_of(table, ways, links)

    def has_lost(self) -> bool:
        """Return whether a table at the end of a circle lacks conditions of the one above it."""
        lost: list[Condition] = []
        for relation in self._ends:
            lost += [one for one in self.found[relation.parent] if passes(relation, one)]
        return bool(lost)

    def _above(self, table: Table) -> Sequence[Condition]:
        if table in self.found:
            return self.found[table]
        return self._before.get(table, [])

    def _conditions_of(
        self, table: Table, ways: Sequence[Relation], links: Sequence[_Link]
    ) -> list[Condition]:
        inherited = [self._of_parent(relation) for relation in ways if table.rows]
        found = [*self._own.get(table, []), *(one for one in inherited if one is not None)]
        for link in links:
            found += self._of_link(link)
        found += self._of_extensions(table)
        trees = [one for one in ways if is_tree(one)]
        if trees and any(one.reaches for one in found):
            found.append(below_hidden(trees[0], found))
        return found

    def _of_parent(self, relation: Relation) -> Condition | None:
        """Return the condition that the row's parent is shown; None if all rows of it are."""
        if relation.parent is relation.child:
            return None
        above = [one for one in self._above(relation.parent) if passes(relation, one)]
        # the condition of a tree repeats all others of its table
        above = [one for one in above if one.is_whole] or above
        if not above:
            return None
        reasons = [one.says for one in above if one.through is None]
        says = f"its {' '.join(relation.parent.noun)} is hidden"
        if reasons:
            says += f" ({'; '.join(reasons[:3])})"
        sql = f"({relation.of_hidden(above)}) IS NOT TRUE"
        return Condition(relation.child, sql, says, relation.column, through=relation)

    def _of_link(self, link: _Link) -> Iterator[Condition]:
        """Yield the conditions on the labels or containers of a row."""
        label = link.far.parent
        above = [one for one in self.found.get(label, ()) if one.reaches]
        if link.is_label:
            yield from _linked([one for one in above if one.through is None], link, is_any=True)
            return
        # one tag called "internal" hides an article, whatever its other tags are
        named = [one for one in above if one.column in label.title_columns]
        yield from _linked(named, link, is_any=True)
        # a thread on a private and a public board is public
        own = [one for one in above if one.is_own and one not in named]
        yield from _linked(own, link, is_any=False)

    def _of_extensions(self, table: Table) -> Iterator[Condition]:
        """Yield the conditions on rows of other tables that say more of one row each:
        `article_meta.is_private`."""
        for own in table.children:
            above = [one for one in self._own.get(own.child, ()) if one.reaches]
            if table.is_people:
                above = [one for one in above if one.bans]
            if above and _extends(own):
                column, key = own.pairs[0]
                linked = own.child.columns[column].sql
                rows = f"SELECT {linked} FROM {own.child.sql} WHERE {linked} IS NOT NULL"
                sql = is_none_of(table.columns[key].sql, f"{rows} AND {unmet(above)}")
                says = "; ".join(one.says for one in above)
                yield Condition(table, sql, says, bans=table.is_people)


def _extends(own: Relation) -> bool:
    """Return whether rows without a text of their own say more of one row each of their parent."""
    child = own.child
    if child is own.parent or own.pairs[1:] or own.is_pointer or own.type_column:
        return False
    if _is_kind(own):
        return True
    if child.prose or child.title or child.is_people > own.parent.is_people:
        return False
    if own.column.lower() == "id" and not _is_declared(own):
        # small numbers are the keys of any table
        return False
    is_one_each = own.extends or child.columns[own.column].distinct == 1
    # not the contract that few companies have
    return is_one_each and child.rows >= known.NEARLY_ALL * own.parent.rows


def _is_declared(relation: Relation) -> bool:
    keys = [one["constrained_columns"] for one in relation.child.declared]
    return [relation.column] in keys


def _is_kind(own: Relation) -> bool:
    """Return whether rows say of what kind rows of their parent are: each `content` is a `post`, a
    `comment` or a `reply`, which have its key."""
    if own.parent.is_people:
        return False
    kinds = []
    for one in own.parent.children:
        if one.extends and one.is_whole and _is_declared(one) and not one.is_pointer:
            kinds.append(one)
    rows = sum(one.child.rows for one in kinds)
    is_each = known.NEARLY_ALL * own.parent.rows <= rows <= own.parent.rows
    return own in kinds and len(kinds) > 1 and is_each


def _linked(above: Sequence[Condition], link: _Link, *, is_any: bool) -> Iterator[Condition]:
    """Yield the condition that not any, or not all, of what a row is linked with is hidden by these
    conditions; nothing if there are none."""
    if not above:
        return
    far, (column, key) = link.far, link.own.pairs[0]
    table, link_table = link.own.parent, far.child
    own_key, linked = table.columns[key].sql, link_table.columns[column].sql
    rows = f"SELECT {linked} FROM {link_table.sql} WHERE {linked} IS NOT NULL AND"
    is_hidden = far.of_hidden(above)
    sql = is_none_of(own_key, f"{rows} {is_hidden}")
    if not is_any:
        names_one = f"{link_table.columns[far.column].sql} IS NOT NULL"
        is_shown = f"{names_one} AND ({is_hidden}) IS NOT TRUE"
        sql = f"({sql} OR {own_key} IN ({rows} {is_shown}))"
    says = f"its {far.parent.noun[-1]} is hidden ({'; '.join(one.says for one in above)})"
    yield Condition(table, sql, says)


# --- Labels, containers and trees ---


def _links(table: Table) -> Iterator[_Link]:
    """Yield the ways from a table over tables of links to the labels and containers of its rows."""
    if table.is_label:
        return
    for own in table.children:
        link = own.child
        is_other = link is not table and not own.pairs[1:]
        if not is_other or not is_link(link):
            continue
        for far in link.parents:
            label = far.parent
            if far.column == own.column or far.pairs[1:] or label.is_people:
                continue
            if label.is_label or (label.rows <= known.MAX_CHOICES and not label.prose):
                yield _Link(own, far, is_label=True)
            elif label is not table and label.rows <= table.rows and _has_only_links(link):
                # tags with a description, boards of threads
                yield _Link(own, far, is_label=False)


def is_link(table: Table) -> bool:
    """Return whether rows may be nothing but links between rows of other tables."""
    has_text = table.prose or table.title
    return not has_text and len(table.columns) <= known.MAX_JOINS


def _has_only_links(table: Table) -> bool:
    """Return whether rows hold nothing beside references, as `board_thread` does and
    `order_item` with its price does not."""
    for name, column in table.columns.items():
        is_reference = name in table.key or name in table.references
        is_order = bool(known.ORDERS & {*words(name)})
        if column.filled and not (is_reference or is_order or column.is_time):
            return False
    return True


def is_tree(relation: Relation) -> bool:
    """Return whether a relation leads from rows of a table to those above them in a tree."""
    if relation.parent is not relation.child or relation.pairs[1:] or relation.is_pointer:
        return False
    return relation.may_refer or bool(known.PARENT_WORDS & {*words(relation.column)})


def below_hidden(tree: Relation, found: Sequence[Condition]) -> Condition:
    """Return the condition that no row above a row in a tree is hidden by one of the conditions."""
    table, (column, key) = tree.child, tree.pairs[0]
    own, above, place = table.columns[key].sql, table.columns[column].sql, table.sql
    reaching = [one for one in found if one.reaches]
    first = f"SELECT {own} FROM {place} WHERE {unmet(reaching)}"
    below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
    inner = f"WITH RECURSIVE hidden_rows (id) AS ({first} UNION {below}) SELECT id FROM hidden_rows"
    says = f"what {column} refers to is hidden"
    return Condition(table, is_none_of(own, inner), says, column, is_whole=True)
