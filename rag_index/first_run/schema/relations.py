"""What belongs together: declared foreign keys, and columns whose values are keys of another table.

The name of a column proposes a table and its values confirm it. A long random key is proof without
a name: nothing else has the same by chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.secret_values import UUID
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import read_column
from rag_index.first_run.schema.tables import NOTHING, Relation, Table, is_random
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column


def read_tables(catalog: DatabaseCatalog) -> list[Table]:
    """Return the tables of a database with what their columns are, and a key of values where none
    is declared."""
    names = [words(table.own_name) for table in catalog.tables]
    prefix = _common_prefix(names)
    return [_read_table(catalog, table, prefix) for table in catalog.tables]


def _common_prefix(names: Sequence[tuple[str, ...]]) -> str:
    """Return the first word that at least half of the names have, such as `wp`; "" if there is
    none."""
    first = Counter(name[0] for name in names if len(name) > 1)
    for prefix, count in first.most_common(1):
        if count >= max(known.MIN_ROWS, known.HALF * len(names)):
            return prefix
    return ""


def _read_table(catalog: DatabaseCatalog, table: Table, prefix: str) -> Table:
    name = words(table.own_name)
    # `wp_posts` is `posts` where most tables begin with `wp`
    has_prefix = name[0] == prefix and len(name) > 1
    called = name[1:] if has_prefix else name
    noun = tuple(singular(word) for word in called if word not in ("table", "tbl"))
    noun = noun or called
    columns: dict[str, Column] = {}
    for column in table.columns.values():
        # what is proposed with other answers is of the same columns
        if column not in catalog.read_columns:
            catalog.read_columns[column] = read_column(column, table.key, noun)
        columns[column.name] = catalog.read_columns[column]
    # no array can be compared with one
    is_key = all(table.columns[key].kind != "json" for key in table.key)
    key = [*table.key] if is_key else []
    made = replace(table, noun=noun, columns=columns, key=key)
    made.key = _random_of_key(catalog, made) or made.key or _key_by_values(catalog, made)
    return made


def relate(catalog: DatabaseCatalog, tables: Sequence[Table]) -> None:
    """Add to each table its relations to its parents and its children."""
    finder = _Finder(catalog, tables)
    for table in tables:
        table.parents = finder.parents_of(table)
    for table in tables:
        for one in table.parents:
            one.parent.children.append(one)


class _Finder:
    """Finds the relations of tables."""

    def __init__(self, catalog: DatabaseCatalog, tables: Sequence[Table]) -> None:
        self._catalog = catalog
        self._tables = tables
        self._keyed = [table for table in tables if len(table.key) == 1 and table.rows]
        self._random: list[Table] = []
        self._by_name: dict[Any, list[Table]] = {}
        """Tables with keys by the last word of what they are called, all of it, and the words of
        their keys: `item`, `orderitem` and `("item", "code")` for `order_item (item_code)`."""
        for table in self._keyed:
            key = table.key[0]
            if is_random(table.columns[key].given):
                self._random.append(table)
            called: set[Any] = {table.noun[-1], "".join(table.noun)}
            # `item_code`, but not `id`
            if key.lower() not in known.KEY_WORDS:
                called.add(words(key))
            for name in called:
                self._by_name.setdefault(name, []).append(table)
        self._by_noun: dict[tuple[str, ...], list[Table]] = {}
        for table in tables:
            for noun in {table.noun, table.noun[-1:]}:
                self._by_noun.setdefault(noun, []).append(table)

    def parents_of(self, table: Table) -> list[Relation]:
        """Return the relations of a table to the tables whose rows its rows name."""
        found = self._declared(table)
        done = {column for one in found for column, _ in one.pairs}
        if not table.rows:
            return found
        for column in table.columns.values():
            if column.name not in done and [column.name] != table.key:
                found += self._of_column(table, column)
        # first `about_type`; `about` with the values `article` and `image` only if there is none
        for is_called in (True, False):
            for type_column in table.columns:
                if not is_called and any(one.type_column for one in found):
                    break
                typed = [*self._typed(table, type_column, found, done, is_called=is_called)]
                replaced = {one.column for one in typed}
                found = [one for one in found if one.column not in replaced] + typed
        return found + self._one_each(table, found)

    def _declared(self, table: Table) -> list[Relation]:
        found = []
        for key in table.declared:
            columns = key["constrained_columns"]
            filled = table.columns[columns[0]].filled if table.rows else 1.0
            parent = self._referred(key)
            if not filled or parent is None:
                continue
            # SQLite takes any case
            names = {name.lower(): name for name in parent.columns}
            referred = [name.lower() for name in key["referred_columns"] or columns]
            there = [names[name] for name in referred if name in names]
            if len(there) == len(columns):
                pairs = tuple(zip(columns, there, strict=True))
                found.append(Relation(table, parent, pairs, filled))
        return found

    def _referred(self, key: Mapping[str, Any]) -> Table | None:
        """Return the table that a foreign key refers to; None if it was not read."""
        called = key["referred_table"].lower()
        schema = key["referred_schema"]
        named = [table for table in self._tables if table.own_name.lower() == called]
        in_schema = [table for table in named if table.schema == schema]
        return next(iter(in_schema or named), None)

    def _found(self, values: Sequence[Any], parent: Table) -> float:
        """Return the share of values that are keys of a table; 0 if its key is of another kind."""
        if not values:
            return 0.0
        key = parent.columns[parent.key[0]]
        if key.kind == "id":
            is_same_kind = all(UUID.fullmatch(str(value)) for value in values)
        else:
            is_same_kind = isinstance(values[0], str) == (key.kind == "text")
        return self._catalog.share_found(values, parent, key.name) if is_same_kind else 0.0

    def _of_column(self, table: Table, column: Column) -> list[Relation]:
        """Return what a column names, by its name and values, or by random values alone."""
        values = [value for value in column.given if value not in NOTHING]
        is_other = column.role in ("prose", "time", "flag")
        if is_other or not values or column.kind not in ("number", "text", "id"):
            return []
        named = self._named_by(table, column, values)
        if named:
            return [Relation(table, named, ((column.name, named.key[0]),), column.filled)]
        if not is_random(values):
            return []
        is_above = bool(known.PARENT_WORDS & {*words(column.name)})
        parents = [parent for parent in self._random if parent is not table or is_above]
        shares = {parent: self._found(values, parent) for parent in parents}
        parents.sort(key=lambda parent: (-shares[parent], -len(parent.columns)))
        found = []
        # a value names one row: what extends a table has the same keys
        left = 1.05
        for parent in parents:
            share = shares[parent]
            if known.HARDLY <= share <= left:
                pairs = ((column.name, parent.key[0]),)
                found.append(Relation(table, parent, pairs, share * column.filled))
                left -= share
        return found

    def _named_by(self, table: Table, column: Column, values: Sequence[Any]) -> Table | None:
        """Return the table that a column names, and whose keys its values are; None if there is
        none."""
        for parent in self._named(table, column):
            if self._found(values, parent) < known.MIN_FOUND:
                continue
            # a grade of 100 in all rows names no row of grades
            is_one_value = len({*values}) == 1 < parent.rows
            is_key = bool(known.KEY_WORDS & {*words(column.name)})
            return None if is_one_value and not is_key else parent
        return None

    def _named(self, table: Table, column: Column) -> list[Table]:
        """Return the tables that a column may name, the likeliest by its name first."""
        named = tuple(singular(word) for word in table.named[column.name])
        bare = tuple(word for word in named if word not in known.KEY_WORDS)
        found = self._called_like(table, column, bare) if bare else []
        is_short = len(bare) == 1 and len(bare[0]) >= known.MIN_ROWS and bare != named
        if is_short and not found:
            # `repo_id` of the only table that begins so, `repository`
            begin = [other for other in self._keyed if len(other.noun) == 1]
            begin = [other for other in begin if other.noun[0].startswith(bare[0])]
            if len(begin) == 1 and table not in begin:
                found += begin
        if known.PARENT_WORDS & {*named} and len(table.key) == 1:
            # `parent_id` of `page`: a `folder` that has a `parent_id`, too, or a page
            trees = [other for other in self._keyed if other.noun[-1] in known.CONTAINERS]
            trees = [tree for tree in trees if column.name in tree.columns]
            trees.sort(key=lambda tree: tree is not table)
            found += trees
            if "pid" not in named or not trees:
                found.append(table)
        # `author_id`, accounts before other persons
        is_writer = known.WRITERS & {*named} and not known.ORDERS & {*named}
        if is_writer and column.kind in ("number", "id"):
            people = [other for other in self._keyed if other.is_people]
            found += sorted(people, key=lambda person: not person.is_accounts)
        return found

    def _called_like(self, table: Table, column: Column, bare: tuple[str, ...]) -> list[Table]:
        """Return the other tables that are called like a column, the likeliest first.

        Args:
            bare: The words of the column's name without those of keys.
        """
        called = words(column.name)
        # `userid` is called like `user`
        stem = re.sub(r"_?(?:id|guid|handle|key|no|uid)$", "", column.name.lower())
        glued = stem.replace("_", "")
        keys = [called[at:] for at in range(len(called))]
        near: list[Any] = [bare[-1]]
        near += [glued] if len(glued) > known.MIN_ROWS else []
        found: dict[Table, None] = {}
        for name in [*near, *keys]:
            for other in self._by_name.get(name, ()):
                is_glued = glued in (other.noun[-1], "".join(other.noun))
                is_named = other.noun[-len(bare) :] == bare or words(other.key[0]) in keys
                if other is not table and (is_glued or is_named):
                    found[other] = None

        def rank(other: Table) -> tuple[Any, ...]:
            noun = other.noun
            is_other = noun[-1] not in (bare[-1], glued)
            is_other_key = other.key[0] != column.name
            return is_other, is_other_key, noun != bare, len(noun), -other.rows

        return sorted(found, key=rank)

    def _names_tables(self, table: Table, name: str) -> bool:
        """Return whether all values of a column are what rows of other tables are called."""
        column = table.columns[name]
        kinds = {value for value in column.given if isinstance(value, str)}
        is_choice = 1 < len(kinds) <= known.MAX_VALUES and column.distinct <= known.HALF
        if column.kind != "text" or not is_choice:
            return False
        return all(self._called_so(kind, table) for kind in kinds)

    def _called_so(self, kind: Any, table: Table) -> set[Table]:
        """Return the other tables whose rows are called like a value: `App\\Models\\Article`."""
        called = _called(kind)
        found: set[Table] = set()
        for noun in (called, called[-1:]):
            found.update(self._by_noun.get(noun, ()))
        return found - {table}

    def _typed(
        self,
        table: Table,
        column: str,
        found: Sequence[Relation],
        done: set[str],
        *,
        is_called: bool,
    ) -> Iterator[Relation]:
        """Yield the relations of columns such as `about_type` and `about_id`, one for each type.

        Args:
            found: The relations of the table so far.
            done: Columns with a declared key.
            is_called: Whether the name of the column has to say that it is a type. Otherwise its
                values alone have to.
        """
        last = words(column)[-1]
        # `ptable`
        ends = [word for word in known.TYPE_WORDS if last.endswith(word)]
        end = max(ends, key=len, default="")
        is_type = bool(end) if is_called else not end and self._names_tables(table, column)
        if not is_type:
            return
        kinds = self._kinds(table, column)
        named = self._keys_beside(table, column, end, found, done)
        if not named or len(kinds) > known.MAX_VALUES:
            return
        for kind in kinds:
            ids = self._catalog.values_with(table, named[0], column, kind)
            called = _called(kind)
            parents = sorted(
                self._called_so(kind, table),
                key=lambda one: (one.noun != called, len(one.noun), one.name),
            )
            for parent in parents:
                if len(parent.key) == 1 and self._found(ids, parent) >= known.MIN_FOUND:
                    pairs = ((named[0], parent.key[0]),)
                    yield Relation(table, parent, pairs, 1.0, column, kind)
                    break

    def _kinds(self, table: Table, column: str) -> list[str | int]:
        """Return the values of a column that says of which table a row is."""
        kinds = []
        for kind in self._catalog.counts(table, table.columns[column]):
            # a backslash says something else in MySQL
            is_literal = not (self._catalog.is_mysql and "\\" in str(kind))
            if isinstance(kind, str | int) and kind not in NOTHING and is_literal:
                kinds.append(kind)
        return kinds

    def _keys_beside(
        self, table: Table, column: str, end: str, found: Sequence[Relation], done: set[str]
    ) -> list[str]:
        """Return the columns that may hold the key beside a column with the type, which ends with a
        word for a type."""
        named = words(column)
        stem = {word for word in named if word not in known.TYPE_WORDS | known.KEY_WORDS}
        stem |= {named[-1].removesuffix(end)} - {"", named[-1]}
        taken = {column, *done}
        if not stem:
            taken |= {one.column for one in found if not known.GENERIC & {*words(one.column)}}
        elif not end:
            taken |= {one.column for one in found}
        free = {}
        for name in table.columns:
            called = words(name)
            is_key = called[-1] in known.KEY_WORDS | {"name"} or called[-1].endswith("id")
            if is_key and name not in taken:
                free[name] = called
        starts = (*stem,)
        near = []
        for name, called in free.items():
            # `about_id` beside `about_type`
            if not stem or any(word.startswith(starts) for word in called):
                near.append(name)
        # `object_type` goes with a key of any name
        if not near and not stem - {"content", "object"}:
            near = [*free]
        near = [name for name in near if [name] != table.key]
        others = [name for name in free if [name] != table.key]
        # `about` with the names of tables, and one key beside it
        if not near and not end and len(others) == 1:
            near = others
        return near

    def _one_each(self, table: Table, found: Sequence[Relation]) -> list[Relation]:
        """Return the larger table of which each row has at most one here: its key is the
        other's."""
        if len(table.key) != 1 or any(one.column == table.key[0] for one in found):
            return []
        key = table.columns[table.key[0]]
        related = {one.parent for one in found}
        for other in sorted(self._keyed, key=lambda one: len(one.noun)):
            if other is table or table.rows > other.rows:
                continue
            # small numbers are the keys of any table
            is_near = other in related or 2 * table.rows < other.rows
            is_plain = key.name.lower() == "id" and is_near and table not in self._random
            if is_plain or not self._may_extend(table, key.name, other):
                continue
            if self._found(key.given, other) >= known.NEARLY_ALL:
                return [Relation(table, other, ((key.name, other.key[0]),))]
        return []

    def _may_extend(self, table: Table, key: str, other: Table) -> bool:
        """Return whether rows of a table may say more of one row each of another one, by names or
        by random keys."""
        are_random = table in self._random and other in self._random
        if are_random and len(other.columns) > len(table.columns):
            return True
        out = {*known.KEY_WORDS, "ptr"}
        bare = tuple(singular(word) for word in words(key) if word not in out)
        # `post_id` of `post_text`
        is_other = table.noun not in (bare, other.noun)
        if bare and is_other and other.noun[-len(bare) :] == bare:
            return True
        size = len(other.noun)
        begins = size < len(table.noun) and other.noun == table.noun[:size]
        return begins and (other.key[0] == key or bare == other.noun)


def _called(kind: Any) -> tuple[str, ...]:
    """Return what the rows of the table are called that a type names: `App\\Models\\Article`."""
    last = re.split(r"[\\.:]", str(kind))[-1]
    return tuple(map(singular, words(last)))


def _random_of_key(catalog: DatabaseCatalog, table: Table) -> list[str]:
    """Return the column of a declared key whose random numbers name a row alone: others name it
    without the rest."""
    if len(table.key) < 2:
        return []
    for name in table.key:
        column = table.columns[name]
        is_called = {*words(name)} <= known.KEY_WORDS
        may_be_key = is_called and column.distinct == 1 and is_random(column.given)
        if may_be_key and catalog.is_key(table, [name]):
            return [name]
    return []


def _key_by_values(catalog: DatabaseCatalog, table: Table) -> list[str]:
    """Return the likeliest column by whose values rows differ; [] if there is none."""
    kinds = ("number", "text", "id", "time", "other")
    free = []
    for column in table.columns.values():
        is_other = column.role in ("prose", "flag", "secret") or column.kind not in kinds
        if column.filled == 1 and column.distinct == 1 and not is_other:
            free.append(column)

    def rank(column: Column) -> tuple[bool, bool]:
        is_key = bool(known.KEY_WORDS & {*words(column.name)})
        return not is_key, column.role == "time"

    for column in sorted(free, key=rank):
        if catalog.is_key(table, [column.name]):
            return [column.name]
    return []
