"""What belongs together: declared foreign keys, and columns whose values are keys of another table.

The name of a column proposes a table and its values confirm it. A long random key is proof without a name: nothing else
has the same by chance.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rag_index.components.sources.secret_values import UUID
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.tables import NOTHING, Relation, Table, is_random
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import ReadColumn


def relate(catalog: DatabaseCatalog, tables: Sequence[Table]) -> None:
    """Add to each table its relations to its parents and its children."""
    finder = _Finder(catalog, tables)
    for table in tables:
        table.parents = finder.parents_of(table)
    for one in finder.pointers():
        one.child.parents.append(one)
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
        self._composite = [one for one in tables if len(one.key) > 1 and one.rows]
        self._by_name: dict[Any, list[Table]] = {}
        """Tables with keys by the last word of what they are called, all of it, and the words of their keys."""
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
        found += [one for one in self._by_several(table) if not {column for column, _ in one.pairs} <= done]
        for column in table.columns.values():
            if column.name not in done and [column.name] != table.key:
                found += self._of_column(table, column)
        for type_column in [*table.columns]:
            typed = self._typed(table, type_column, found, done)
            replaced = {one.column for one in typed}
            found = [one for one in found if one.column not in replaced] + typed
        return found + self._one_each(table, found)

    def pointers(self) -> list[Relation]:
        """Return what names the newest version of a row, such as `page_latest` a revision that belongs to the page."""
        found = []
        for version in [one for one in self._keyed if known.VERSIONS & {one.noun[-1]}]:
            for owner in dict.fromkeys(one.parent for one in version.parents if one.parent is not version):
                related = {column for one in owner.parents for column, _ in one.pairs}
                for column in owner.columns.values():
                    values = [value for value in column.given if value not in NOTHING]
                    newest = known.POINTERS & {*words(column.name)} and column.name not in related
                    if newest and self._found(values, version) >= known.MIN_FOUND:
                        found.append(Relation(owner, version, ((column.name, version.key[0]),)))
        return found

    def _declared(self, table: Table) -> list[Relation]:
        found = []
        for one in table.source.references:
            named = [parent for parent in self._tables if parent.source.name.lower() == one.table.lower()]
            named = [parent for parent in named if parent.source.schema == one.schema] or named
            known_columns = all(name in table.columns for name in one.columns)
            for parent in named[:1] if known_columns else ():
                filled = table.columns[one.columns[0]].filled if table.rows else 1.0
                pairs = tuple(zip(one.columns, one.referred, strict=True))
                found += [Relation(table, parent, pairs, filled)] if filled else []
        return found

    def _found(self, values: Sequence[Any], parent: Table) -> float:
        """Return the share of values that are keys of a table; 0 if its key is of another kind."""
        if not values:
            return 0.0
        key = parent.columns[parent.key[0]]
        is_text = isinstance(values[0], str)
        if key.kind == "id" and not all(UUID.fullmatch(str(value)) for value in values):
            return 0.0
        if key.kind != "id" and is_text != (key.kind == "text"):
            return 0.0
        return self._catalog.share_found(values, parent.source, key.name)

    def _of_column(self, table: Table, column: ReadColumn) -> list[Relation]:
        """Return what a column names, by its name and values, or by random values alone."""
        role = table.columns[column.name].role
        values = [value for value in column.given if value not in NOTHING]
        if role in ("prose", "time", "flag") or not values or column.kind not in ("number", "text", "id"):
            return []
        hit = next((one for one in self._named(table, column) if self._found(values, one) >= known.MIN_FOUND), None)
        if hit is None and is_random(values):
            own = known.PARENT_WORDS & {*words(column.name)}
            fits = [(self._found(values, one), one) for one in self._random if one is not table or own]
            fits = [fit for fit in fits if fit[0] >= known.HARDLY]
            found, left, filled = [], 1.05, table.columns[column.name].filled
            for share, one in sorted(fits, key=lambda fit: (-fit[0], -len(fit[1].columns))):
                if share <= left:  # a value names one row: what extends a table has the same keys
                    found.append(Relation(table, one, ((column.name, one.key[0]),), share * filled))
                    left -= share
            return found
        if hit is None:
            return []
        return [Relation(table, hit, ((column.name, hit.key[0]),), table.columns[column.name].filled)]

    def _named(self, table: Table, column: ReadColumn) -> list[Table]:
        """Return the tables that a column may name, the likeliest by its name first."""
        named = [singular(word) for word in table.named[column.name]]
        bare = tuple(word for word in named if word not in known.KEY_WORDS)
        glued = re.sub(r"_?(?:id|guid|handle|key|no|uid)$", "", column.name.lower()).replace("_", "")
        found = []
        called = tuple(words(column.name))
        keys = [called[at:] for at in range(len(called))]
        near: list[Any] = [*bare[-1:], *([glued] if len(glued) >= 4 else []), *keys]
        for one in dict.fromkeys(one for name in near if bare for one in self._by_name.get(name, ())):
            fits = one.noun[-len(bare) :] == bare or "".join(one.noun) == glued or words(one.key[0]) in keys
            if fits and one is not table:
                found.append(one)
        found.sort(key=lambda one: (one.key[0] != column.name, one.noun != bare, len(one.noun), -one.rows))
        stem = bare[-1] if bare and len(bare) < len(named) else ""
        if not found and len(stem) >= known.MIN_ROWS:  # `repo_id` of a repository
            found = [one for one in self._keyed if one is not table and one.noun[-1].startswith(stem)]
        if known.PARENT_WORDS & {*named} and len(table.key) == 1:
            trees = [one for one in self._keyed if column.name in one.columns and one.noun[-1] in known.CONTAINERS]
            found += [*sorted(trees, key=lambda one: one is not table), *([] if "pid" in named and trees else [table])]
        if known.WRITERS & {*named} and column.kind in ("number", "id"):
            found += sorted((one for one in self._keyed if one.is_people), key=lambda one: not one.is_accounts)
        return found

    def _by_several(self, table: Table) -> list[Relation]:
        """Return the tables whose keys of several columns a table has under the same names."""
        found = []
        for one in self._composite:
            if one is table or not {*one.key} <= table.columns.keys() or {*table.key} == {*one.key}:
                continue
            filled = [[value for value in table.columns[name].values if value is not None] for name in one.key]
            found_in = [
                self._catalog.share_found(some, one.source, key) for key, some in zip(one.key, filled, strict=True)
            ]
            if min(found_in) >= known.MIN_FOUND:
                found.append(Relation(table, one, tuple((name, name) for name in one.key)))
        return sorted(found, key=lambda one: -len(one.pairs))[:1]

    def _typed(self, table: Table, column: str, found: Sequence[Relation], done: set[str]) -> list[Relation]:
        """Return the relations of columns such as `about_type` and `about_id`, one for each type."""
        named = words(column)
        kind = max((one for one in known.TYPE_WORDS if named[-1].endswith(one)), key=len, default="")  # `ptable`
        if not kind:
            row = next((one for one in found if one.column == column), None)
            if row is None or not known.TYPE_WORDS & {*named}:
                return []
        kinds = self._catalog.distinct(table.source, column, 2 * known.MAX_VALUES)
        kinds = [kind for kind in kinds if isinstance(kind, str | int) and kind not in NOTHING]
        stem = {word for word in named if word not in known.TYPE_WORDS | known.KEY_WORDS}
        stem |= {named[-1].removesuffix(kind)} - {"", named[-1]}
        free = [name for name in table.columns if name not in (column, *done) and [name] != table.key]
        named_by = {one.column for one in found if not known.GENERIC & {*words(one.column)}}
        free = [name for name in free if stem or name not in named_by]
        free = [
            name for name in free if (known.KEY_WORDS | {"name"}) & {words(name)[-1]} or words(name)[-1].endswith("id")
        ]
        free = [name for name in free if not stem or any(any(w.startswith(s) for s in stem) for w in words(name))] or (
            [name for name in free if not stem - {"content", "object"}]
        )
        if not 0 < len(kinds) <= known.MAX_VALUES or not free:
            return []
        called = self._called(column, found)
        return [one for kind in kinds for one in self._of_type(table, column, kind, called(kind), free[0])]

    def _called(self, column: str, found: Sequence[Relation]) -> Any:
        """Return a function with the texts that a type is called by: itself, or those of the row that it names."""
        row = next((one for one in found if one.column == column and one.parent.source.is_whole), None)
        if row is None:
            return lambda kind: [str(kind)]
        keys = row.parent.columns[row.pairs[0][1]].values
        texts = [
            [text for text in line if isinstance(text, str)] for line in row.parent.source.rows_of(*row.parent.columns)
        ]
        known_rows = dict(zip(keys, texts, strict=True))
        return lambda kind: [*known_rows.get(kind, ()), " ".join(known_rows.get(kind, ())[:2])]

    def _of_type(self, table: Table, column: str, kind: Any, texts: Sequence[str], other: str) -> list[Relation]:
        """Return the relation for one type: to the table that is called so, if the ids are its keys."""
        ids: list[Any] | None = None
        for text in texts:
            called = tuple(singular(word) for word in words(re.split(r"[\\.:]", text)[-1])) if text.strip() else ()
            some = [*self._by_noun.get(called, ()), *self._by_noun.get(called[-1:], ())] if called else []
            for parent in sorted(dict.fromkeys(some), key=lambda one: (one.noun != called, len(one.noun))):
                if parent is table or len(parent.key) != 1:
                    continue
                made = Relation(table, parent, ((other, parent.key[0]),), 1.0, column, kind)
                if ids is None:
                    ids = self._catalog.distinct(table.source, other, 60, made.where)
                if ids and self._found(ids, parent) >= known.MIN_FOUND:
                    return [made]
        return []

    def _one_each(self, table: Table, found: Sequence[Relation]) -> list[Relation]:
        """Return the larger table of which each row has at most one here: its key is the other's."""
        if len(table.key) != 1 or any(one.column == table.key[0] for one in found):
            return []
        key = table.columns[table.key[0]]
        bare = tuple(singular(word) for word in words(key.name) if word not in {*known.KEY_WORDS, "ptr"})
        random = table in self._random
        for one in sorted(self._keyed, key=lambda one: len(one.noun)):
            begins = one.noun == table.noun[: len(one.noun)] and len(one.noun) < len(table.noun)
            named = bare and bare != table.noun and one.noun[-len(bare) :] == bare and one.noun != table.noun
            same = random and one in self._random and len(one.columns) > len(table.columns)
            alike = one.key[0] == key.name or bare == one.noun
            plain = key.name.lower() == "id" and (any(r.parent is one for r in found) or 2 * table.rows < one.rows)
            if plain and not random:  # small numbers are the keys of any table
                continue
            if one is table or one.rows < table.rows or not (named or same or (begins and alike)):
                continue
            if key.given and self._found(key.given, one) >= known.NEARLY_ALL:
                return [Relation(table, one, ((key.name, one.key[0]),))]
        return []
