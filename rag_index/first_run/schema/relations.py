"""What belongs together: declared foreign keys, and columns whose values are keys of another table.

The name of a column proposes a table and its values confirm it. A long random key is proof without
a name: nothing else has the same by chance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
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
    names = [words(one.own_name) for one in catalog.tables]
    first = Counter(name[0] for name in names if len(name) > 1).most_common(1)
    prefix = first[0][0] if first and first[0][1] >= max(3, known.HALF * len(names)) else ""
    tables = []
    for one, name in zip(catalog.tables, names, strict=True):
        called = name[1:] if name[0] == prefix and len(name) > 1 else name
        noun = tuple(singular(word) for word in called if word not in ("table", "tbl")) or called
        for column in one.columns.values():
            # what is proposed with other answers is of the same columns
            if column not in catalog.read_columns:
                catalog.read_columns[column] = read_column(column, one.key, noun)
        columns = {column.name: catalog.read_columns[column] for column in one.columns.values()}
        is_key = all(
            one.columns[name].kind != "json" for name in one.key
        )  # no array can be compared with one
        table = replace(one, noun=noun, columns=columns, key=[*one.key] if is_key else [])
        table.key = _random_of_key(catalog, table) or table.key or _key_by_values(catalog, table)
        tables.append(table)
    return tables


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
        self._keyed = [one for one in tables if len(one.key) == 1 and one.rows]
        self._random = [one for one in self._keyed if is_random(one.columns[one.key[0]].given)]
        self._by_name: dict[Any, list[Table]] = {}
        """Tables with keys by the last word of what they are called, all of it, and the words of
        their keys."""
        for one in self._keyed:
            key = [] if one.key[0].lower() in known.KEY_WORDS else [words(one.key[0])]
            for name in {one.noun[-1], "".join(one.noun), *key}:
                self._by_name.setdefault(name, []).append(one)
        self._by_noun: dict[tuple[str, ...], list[Table]] = {}
        for one in tables:
            for called in {one.noun, one.noun[-1:]}:
                self._by_noun.setdefault(called, []).append(one)

    def parents_of(self, table: Table) -> list[Relation]:
        """Return the relations of a table to what its rows name."""
        found = self._declared(table)
        done = {column for one in found for column, _ in one.pairs}
        if not table.rows:
            return found
        for column in table.columns.values():
            if column.name not in done and [column.name] != table.key:
                found += self._of_column(table, column)
        # first the columns that are called so, then those whose values name tables
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
        for one in table.declared:
            columns, called = one["constrained_columns"], one["referred_table"].lower()
            named = [parent for parent in self._tables if parent.own_name.lower() == called]
            named = [parent for parent in named if parent.schema == one["referred_schema"]] or named
            filled = table.columns[columns[0]].filled if table.rows else 1.0
            for parent in named[:1] if filled else ():
                names = {name.lower(): name for name in parent.columns}  # SQLite takes any case
                there = [
                    names[name.lower()]
                    for name in one["referred_columns"] or columns
                    if name.lower() in names
                ]
                if len(there) == len(columns):
                    found.append(
                        Relation(table, parent, tuple(zip(columns, there, strict=True)), filled)
                    )
        return found

    def _found(self, values: Sequence[Any], parent: Table) -> float:
        """Return the share of values that are keys of a table; 0 if its key is of another kind."""
        key = parent.columns[parent.key[0]]
        is_text = bool(values) and isinstance(values[0], str)
        uuids = key.kind == "id" and all(UUID.fullmatch(str(value)) for value in values)
        if not values or not (uuids if key.kind == "id" else is_text == (key.kind == "text")):
            return 0.0
        return self._catalog.share_found(values, parent, key.name)

    def _of_column(self, table: Table, column: Column) -> list[Relation]:
        """Return what a column names, by its name and values, or by random values alone."""
        values = [value for value in column.given if value not in NOTHING]
        if (
            column.role in ("prose", "time", "flag")
            or not values
            or column.kind not in ("number", "text", "id")
        ):
            return []
        hit = next(
            (
                one
                for one in self._named(table, column)
                if self._found(values, one) >= known.MIN_FOUND
            ),
            None,
        )
        if hit and len({*values}) == 1 < hit.rows and not known.KEY_WORDS & {*words(column.name)}:
            hit = None  # a grade of 100 in all rows names no row of grades
        fits = [(1.0, hit)] if hit else []
        if not hit and is_random(values):
            own = known.PARENT_WORDS & {*words(column.name)}
            fits = [
                (self._found(values, one), one) for one in self._random if one is not table or own
            ]
        found, left = [], 1.05
        for share, one in sorted(fits, key=lambda fit: (-fit[0], -len(fit[1].columns))):
            if (
                known.HARDLY <= share <= left
            ):  # a value names one row: what extends a table has the same keys
                found.append(
                    Relation(table, one, ((column.name, one.key[0]),), share * column.filled)
                )
                left -= share
        return found

    def _named(self, table: Table, column: Column) -> list[Table]:
        """Return the tables that a column may name, the likeliest by its name first."""
        named, called = [singular(word) for word in table.named[column.name]], words(column.name)
        bare = tuple(word for word in named if word not in known.KEY_WORDS)
        glued = re.sub(r"_?(?:id|guid|handle|key|no|uid)$", "", column.name.lower()).replace(
            "_", ""
        )
        keys = [called[at:] for at in range(len(called))]
        near: list[Any] = [*bare[-1:], *([glued] if len(glued) >= 4 else []), *keys] if bare else []
        others = dict.fromkeys(
            one for name in near for one in self._by_name.get(name, ()) if one is not table
        )
        found = [
            one
            for one in others
            if one.noun[-len(bare) :] == bare
            or glued in (one.noun[-1], "".join(one.noun))
            or words(one.key[0]) in keys
        ]
        found.sort(
            key=lambda one: (
                one.noun[-1] not in (*bare[-1:], glued),
                one.key[0] != column.name,
                one.noun != bare,
                len(one.noun),
                -one.rows,
            )
        )
        if (
            not found and len(bare) == 1 and len(bare[0]) >= known.MIN_ROWS and bare != (*named,)
        ):  # `repo_id`
            longer = [
                one for one in self._keyed if not one.noun[1:] and one.noun[0].startswith(bare[0])
            ]
            found += longer if len(longer) == 1 and table not in longer else []
        if known.PARENT_WORDS & {*named} and len(table.key) == 1:
            trees = [
                one
                for one in self._keyed
                if column.name in one.columns and one.noun[-1] in known.CONTAINERS
            ]
            found += [
                *sorted(trees, key=lambda one: one is not table),
                *([] if "pid" in named and trees else [table]),
            ]
        if (
            known.WRITERS & {*named}
            and not known.ORDERS & {*named}
            and column.kind in ("number", "id")
        ):
            found += sorted(
                (one for one in self._keyed if one.is_people), key=lambda one: not one.is_accounts
            )
        return found

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
        called = tuple(singular(word) for word in words(re.split(r"[\\.:]", str(kind))[-1]))
        found = {*self._by_noun.get(called, ()), *self._by_noun.get(called[-1:], ())}
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
        """Yield the relations of columns such as `about_type` and `about_id`, one for each type."""
        named = words(column)
        # `ptable`
        ends = [one for one in known.TYPE_WORDS if named[-1].endswith(one)]
        end = max(ends, key=len, default="")
        is_type = bool(end) if is_called else not end and self._names_tables(table, column)
        kinds = self._catalog.counts(table, table.columns[column]) if is_type else {}
        texts = [kind for kind in kinds if isinstance(kind, str | int) and kind not in NOTHING]
        if self._catalog.is_mysql:  # a backslash says something else there
            texts = [kind for kind in texts if chr(92) not in str(kind)]
        stem = {word for word in named if word not in known.TYPE_WORDS | known.KEY_WORDS}
        stem |= {named[-1].removesuffix(end)} - {"", named[-1]}
        named_by = (
            {one.column for one in found if not known.GENERIC & {*words(one.column)}}
            if not stem
            else {one.column for one in found if not end}
        )
        free = [
            (name, words(name)) for name in table.columns if name not in (column, *done, *named_by)
        ]
        free = [
            one
            for one in free
            if one[1][-1] in known.KEY_WORDS | {"name"} or one[1][-1].endswith("id")
        ]
        near = [
            name
            for name, named in free
            if not stem or any(word.startswith((*stem,)) for word in named)
        ]
        near = near or [name for name, _ in free if not stem - {"content", "object"}]
        near = [name for name in near if [name] != table.key]
        others = [name for name, _ in free if [name] != table.key]
        near = near or (others if len(others) == 1 and not end else [])
        for kind in texts if near and len(texts) <= known.MAX_VALUES else ():
            ids = self._catalog.values_with(table, near[0], column, kind)
            called = tuple(singular(word) for word in words(re.split(r"[\\.:]", str(kind))[-1]))
            for parent in sorted(
                self._called_so(kind, table),
                key=lambda one: (one.noun != called, len(one.noun), one.name),
            ):
                if len(parent.key) == 1 and self._found(ids, parent) >= known.MIN_FOUND:
                    yield Relation(table, parent, ((near[0], parent.key[0]),), 1.0, column, kind)
                    break

    def _one_each(self, table: Table, found: Sequence[Relation]) -> list[Relation]:
        """Return the larger table of which each row has at most one here: its key is the
        other's."""
        if len(table.key) != 1 or any(one.column == table.key[0] for one in found):
            return []
        key = table.columns[table.key[0]]
        bare = tuple(
            singular(word) for word in words(key.name) if word not in {*known.KEY_WORDS, "ptr"}
        )
        random = table in self._random
        for one in sorted(self._keyed, key=lambda one: len(one.noun)):
            begins = one.noun == table.noun[: len(one.noun)] and len(one.noun) < len(table.noun)
            named = (
                bare
                and bare != table.noun
                and one.noun[-len(bare) :] == bare
                and one.noun != table.noun
            )
            same = random and one in self._random and len(one.columns) > len(table.columns)
            alike = begins and (one.key[0] == key.name or bare == one.noun)
            plain = key.name.lower() == "id" and (
                any(r.parent is one for r in found) or 2 * table.rows < one.rows
            )
            fits = (named or same or alike) and (
                random or not plain
            )  # small numbers are the keys of any table
            if (
                fits
                and table.rows <= one.rows
                and one is not table
                and self._found(key.given, one) >= known.NEARLY_ALL
            ):
                return [Relation(table, one, ((key.name, one.key[0]),))]
        return []


def _random_of_key(catalog: DatabaseCatalog, table: Table) -> list[str]:
    """Return the column of a declared key whose random numbers name a row alone: others name it
    without the rest."""
    own = (
        [table.columns[name] for name in table.key if {*words(name)} <= known.KEY_WORDS]
        if table.key[1:]
        else []
    )
    own = [one for one in own if one.distinct == 1 and is_random(one.given)]
    return next(([one.name] for one in own if catalog.is_key(table, [one.name])), [])


def _key_by_values(catalog: DatabaseCatalog, table: Table) -> list[str]:
    """Return the likeliest column by whose values rows differ; [] if there is none."""
    short = [
        one
        for one in table.columns.values()
        if one.role not in ("prose", "flag", "secret") and one.filled == 1
    ]
    short = [one for one in short if one.kind in ("number", "text", "id", "time", "other")]
    short.sort(
        key=lambda one: (
            not known.KEY_WORDS & {*words(one.name)},
            one.role == "time",
            -one.distinct,
        )
    )
    for one in short:
        if one.distinct == 1 and catalog.is_key(table, [one.name]):
            return [one.name]
    return []
