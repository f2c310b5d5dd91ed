"""Which rows belong to which: foreign keys, and columns that are none and yet hold the keys of another table."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.catalog import SAMPLED_ROWS, Column, DatabaseCatalog
from rag_index.first_run.schema.columns import FEW, NEARLY_ALL, noun, singular, words
from rag_index.first_run.schema.subjects import Relation, Subject

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence


MIN_STEM = 3
"""The letters of a word that may be the beginning of what a table is called."""
MIN_TYPES, MAX_TYPES = 2, 100
"""How many values of a column name tables, if it says of which table a row is and is not called so."""
MIN_LETTERED = 5
"""In fewer rows, a letter says nothing of which table is meant."""
MIN_NAMED = 0.75
"""The share of values that are keys of the table after which a column is called: others name rows that are gone."""
PREFIXED_KEY = re.compile(r"(?P<prefix>[A-Za-z]\w*[:/#-])(?P<key>\d{1,18})")
MIN_PREFIXED_KEYS = 5
"""At least this many values that are alike but for a number name rows of another table."""
MIN_UNIQUE = 16
"""A key of as many letters or bytes is that of one row: no other row has the same by chance."""


def find_relations(catalog: DatabaseCatalog, tables: Iterable[Subject]) -> list[Relation]:
    """Return how the rows of tables belong together: as declared, else as names suggest and values confirm."""
    finder = _Finder(catalog, [table for table in tables if table.rows])
    return _inherited(catalog, [one for table in finder.tables for one in finder.relations_of(table)])


def _inherited(catalog: DatabaseCatalog, found: Sequence[Relation]) -> list[Relation]:
    """Return relations to rows of several tables instead of those to one that has the keys of all and no text.

    No two of them have a key in common: else they would say more of the same rows.
    """
    heirs: dict[Subject, list[Relation]] = {}
    for one in found:
        if one.extends and not any(p.texts for p in one.parent.profiles.values()):
            heirs.setdefault(one.parent, []).append(one)
    for parent, kinds in [*heirs.items()]:
        keys = Counter(key for kind in kinds for key in {*kind.named()})
        if len(kinds) < 2 or max(keys.values()) > 1 or sum(kind.child.rows for kind in kinds) > parent.rows:
            del heirs[parent]
    made: list[Relation] = []
    for one in found:
        kinds = heirs.get(one.parent, []) if one.is_plain else []
        ways = [replace(one, parent=kind.child, pairs=((one.columns[0], kind.columns[0]),)) for kind in kinds]
        made += [one] if not kinds else [] if one.extends else [way for way in ways if _tells(catalog, way)]
    return made


def _tells(catalog: DatabaseCatalog, relation: Relation) -> bool:
    """Return whether rows name those of this parent, and do not say the same few words of all of them."""
    ((column, key),) = relation.pairs
    keys = relation.parent.columns[key].values
    texts = [p.name for p in relation.child.profiles.values() if p.is_text]
    said = [tuple(row) for own, *row in relation.child.rows_of(column, *texts) if own in keys]
    alike = bool(texts) and len({*said}) < FEW * len(said)
    return not alike and catalog.share_found(keys, relation.child, column) > FEW


def declared_relations(table: Subject, tables: Sequence[Subject], views: Container[str] = ()) -> list[Relation]:
    """Return the relations that foreign keys of a table declare, whether it has rows or not.

    One that names a view means the table called like it that has its key.
    """
    found = []
    for one in table.references:
        named = [parent for parent in tables if parent.name == one.table]
        named = [parent for parent in named if parent.schema is None or one.schema in (None, parent.schema)]
        if one.table in views:
            named = [own for own in tables if own.key == one.referred and {*noun(one.table)} <= {*own.noun}]
        found += [Relation(table, parent, tuple(zip(one.columns, one.referred, strict=True))) for parent in named[:1]]
    # in no row of the sample: it says nothing of what a row belongs to
    return [one for one in found if not table.rows or all(table.columns[name].filled for name in one.columns)]


def _is_called_after(table: Subject, parent: Subject) -> bool:
    """Return whether the name of a table begins with that of the other, as `product_entity_text` does."""
    called = noun(parent.name)
    return parent is not table and noun(table.name)[: len(called)] == called


def _is_prefixed(table: Subject, word: str) -> bool:
    """Return whether most columns of a table begin with this word, as `comment_post_ID` does: it says nothing."""
    return 2 * sum(singular(words(name)[0]) == word for name in table.columns) > len(table.columns)


def _is_any_id(name: str) -> bool:
    """Return whether a column may name a row of any table: `object_id`, `o_id`, `instance`."""
    bare = set(words(name)) - vocab.KEY_WORDS
    return (
        words(name) != ("id",)
        and bare <= vocab.GENERIC | {"o", "instance", "model"}
        and bool(bare or words(name)[1:] or name == "ref")
    )


def _are_of_one_row(values: Sequence[Any]) -> bool:
    """Return whether keys are so long that nothing else has the same by chance: UUIDs, digests."""
    return len(values) > 2 and all(not isinstance(one, int) and len(str(one)) >= MIN_UNIQUE for one in values)


def _ids_beside(table: Subject, types: Column) -> list[str]:
    """Return the columns that may hold the ids of what a type column says."""
    last = noun(types.name)[-1]
    stems = {*noun(types.name)[:-1], last.removesuffix("type")} - {*vocab.TYPE_WORDS, ""}  # `itemtype`
    others = [name for name in table.columns if name != types.name and (name,) != table.key]
    keys = [name for name in others if vocab.KEY_WORDS & {words(name)[-1]}]
    bare = {name: {*noun(name)} - vocab.KEY_WORDS for name in [*keys, *others]}
    begun = [name for name in bare if any(one.startswith(word) for one in stems for word in bare[name])]  # `formdir`
    free = [name for name in others if _is_any_id(name) and not vocab.PARENTS & {*words(name)}]  # `res_id`
    return list(dict.fromkeys([*begun, *(free if stems <= {last} else ())]))


class _Finder:
    """Finds the relations of tables that have rows."""

    def __init__(self, catalog: DatabaseCatalog, tables: list[Subject]) -> None:
        self.tables = tables
        self._catalog = catalog
        self._by_noun: dict[tuple[str, ...], list[Subject]] = {}
        self._by_key: dict[tuple[str, ...], list[Subject]] = {}
        for table in tables:
            for called in dict.fromkeys([table.noun, table.noun[-1:], noun(table.name)]) if table.key else ():
                self._by_noun.setdefault(called, []).append(table)
            self._by_key.setdefault(table.key, []).append(table)
        self._declares = any(table.references for table in tables)

    def relations_of(self, table: Subject) -> list[Relation]:
        """Return the relations of a table to its parents."""
        found = declared_relations(table, self.tables, self._catalog.views)
        found += self._by_type_text(table)
        taken = {column for relation in found for column in relation.columns}
        for column in table.columns.values():
            if (
                column.name not in taken
                and column.kind in ("number", "text", "id", "bytes")
                and table.key != (column.name,)
            ):
                found += filter(None, [self._named(table, column) or self._prefixed(table, column)])
        # `last_post_id` names one of the own parts of a row, which is none of it
        found = [one for one in found if not vocab.ENDS & {*words(one.columns[0])}]
        own = {one.columns[0] for one in found if one.is_plain and _is_called_after(table, one.parent)}
        numbered = self._by_type_row(table, found, taken | own)
        columns = {relation.columns[0] for relation in numbered}
        found = [one for one in found if one.columns[0] not in columns] + numbered
        return found + self._one_to_one(table, found) + self._listed(table, found)

    def _named(self, table: Subject, column: Column) -> Relation | None:
        """Return the table whose key a column holds, if its name says which and its values agree."""
        values = [value for value in column.filled if str(value) not in ("0", "-1")]
        named = set(words(column.name))
        named = {word for word in named if not _is_prefixed(table, singular(word))} or named
        if not values or (named & vocab.NUMBERS and not named & vocab.KEY_WORDS - {"no", "nr", "number", "code"}):
            return None
        if not named & vocab.KEY_WORDS and {str(value) for value in values} == {"1"}:  # a flag
            return None
        fits = {one: self._share_of_keys(values, one, column) for one in self._candidates(table, column)}
        fits = {one: share for one, share in fits.items() if share >= MIN_NAMED}
        if not fits and named & vocab.GENERIC and named <= vocab.GENERIC | vocab.KEY_WORDS:
            fits = self._by_values(table, column, values)
        others = self._by_key.get((column.name,), [])
        if (
            named & {*vocab.VERSIONED} and len(others) > 1
        ):  # of several histories, the one that names rows of this table
            fits = {one: fits[one] for one in fits if one not in others or {*table.key} <= one.columns.keys()}
        if not fits:
            return None
        parent = max(fits, key=fits.__getitem__)  # of equal ones the likeliest by its name
        return Relation(table, parent, ((column.name, parent.key[0]),))

    def _share_of_keys(self, values: Sequence[Any], parent: Subject, column: Column) -> float:
        """Return the share of values of a column that are keys of a parent; 0 if its key is of another kind."""
        if len(parent.key) != 1 or parent.columns[parent.key[0]].kind != column.kind:
            return 0.0
        return self._catalog.share_found(values, parent, parent.key[0])

    def _by_values(self, table: Subject, column: Column, values: Sequence[Any]) -> dict[Subject, float]:
        """Return the tables whose keys nearly all of the values are, and a good share of them, with this share."""
        named = {*map(str, values)}
        tables = [one for one in self.tables if len(named) > 2 and one is not table]
        fits = [one for one in tables if self._share_of_keys(values, one, column) >= NEARLY_ALL]
        keys = {one: {*map(str, one.columns[one.key[0]].values)} for one in fits}
        shares = {one: len(keys[one] & named) / max(1, len(keys[one])) for one in fits}
        return {one: share for one, share in shares.items() if share >= FEW}

    def _prefixed(self, table: Subject, column: Column) -> Relation | None:
        """Return the only table whose keys a column has after a word that all values begin with, such as `tt:102`."""
        if column.kind not in ("text", "bytes") or len(column.filled) < MIN_PREFIXED_KEYS:
            return None
        values = [value.decode("ascii", "replace") if isinstance(value, bytes) else value for value in column.filled]
        found = [match for value in values if (match := PREFIXED_KEY.fullmatch(str(value)))]
        prefix, count = Counter(match["prefix"] for match in found).most_common(1)[0] if found else ("", 0)
        numbers = [int(match["key"]) for match in found if match["prefix"] == prefix]
        if count < NEARLY_ALL * len(values) or 2 * len(set(numbers)) < count:  # `utf-8` is no key
            return None
        tables = [one for one in self.tables if one is not table and len(one.key) == 1]
        tables = [one for one in tables if one.columns[one.key[0]].kind == "number"]
        fits = [one for one in tables if self._catalog.share_found(numbers, one, one.key[0]) >= NEARLY_ALL]
        called = {*vocab.VERSIONS, singular(words(prefix)[-1])}
        likely = [one for one in fits if noun(one.name)[-1] in called and one.has_prose] or fits
        if len(likely) != 1:  # small numbers are the keys of any table
            return None
        return Relation(table, likely[0], ((column.name, likely[0].key[0]),), prefix=prefix)

    def _candidates(self, table: Subject, column: Column) -> list[Subject]:
        """Return the tables that the name of a column may mean, the likeliest first."""
        by_noun = self._by_noun
        named = [singular(word) for word in words(column.name)]
        stem = named[-1].removesuffix("id")
        if len(stem) >= MIN_STEM and stem != named[-1] and any(called[-1].startswith(stem) for called in by_noun):
            named[-1:] = [stem, "id"]  # `entryid`
        bare = [word for word in named if word not in vocab.KEY_WORDS]
        has_key_word = len(bare) < len(named)
        found: list[Subject] = []
        if named[-1:] != ["id"] * len(named):  # the key has this name in the other table, and it is more than "id"
            found += self._by_key.get((column.name,), [])
        found += [one for one in by_noun.get(tuple(bare), []) if noun(one.name)[-len(bare) :] == tuple(bare)]
        # `topics` before `topic_search_data`, and before both what this one is called after
        found.sort(key=lambda parent: (not _is_called_after(table, parent), len(noun(parent.name))))
        own = set() if _is_prefixed(table, named[0]) else set(bare) & set(noun(table.name))
        of_type = len(bare) > 1 and bare[-1] in vocab.TYPE_WORDS  # `data_type` is no `badge_type`
        if (has_key_word or column.kind in ("id", "number")) and not (own and len(bare) > 1) and not of_type:
            plural = {singular(word) for word in words(column.name) if word != singular(word)}
            counted = set() if has_key_word else plural  # `topic_posts_approved` says how many
            for word in reversed([word for word in bare if word not in counted]):
                found += sorted(by_noun.get((word,), []), key=lambda parent: len(noun(parent.name)))
        found += self._by_generic_words(table, column, bare)
        if not found and has_key_word and bare and len(bare[-1]) >= MIN_STEM:  # `cat_id` of a category
            begun = [one for called, some in by_noun.items() if called[-1].startswith(bare[-1]) for one in some]
            found += [one for one in begun if not of_type or bare[-2] in one.noun]
        if vocab.POINTERS & set(bare):
            found += [parent for word in vocab.VERSIONS for parent in by_noun.get((word,), [])]
        found = [parent for parent in dict.fromkeys(found) if parent is not table]
        tree = vocab.PARENTS & set(bare) or ("pid" in bare and noun(table.name)[-1] in vocab.CONTAINERS)
        return [table, *found] if tree else found

    def _by_generic_words(self, table: Subject, column: Column, bare: Sequence[str]) -> list[Subject]:
        """Return the tables of persons if a column names a writer, and those above a table if it names any owner."""
        writers = vocab.PEOPLE if vocab.WRITERS & {*bare} else ()
        found = [one for word in writers for one in self._by_noun.get((word,), [])]
        if any(word in vocab.GENERIC or word.endswith("able") for word in bare):
            own = noun(table.name)
            above = [*self._by_noun.get(own[:-1], []), *self._by_noun.get(own[-2:-1], [])]
            for end in range(len(own) - 2, 0, -1):  # `node_field_author`: of a node
                above += [one for one in self._by_noun.get(own[:end], []) if noun(one.name) == own[:end]]
            found += [one for one in above if column.name not in one.columns or one.key == (column.name,)]
            # what names its own rows by a column of this name contains others, too: `pid` of pages and of their content
            trees = [one for one in self.tables if column.name in one.columns and one.noun[-1] in vocab.CONTAINERS]
            several = len({*column.filled}) >= MIN_PREFIXED_KEYS and not vocab.PARENTS & {*bare}
            found += [one for one in trees if several and self._share_of_keys(column.filled, one, column) == 1]
        return found

    def _by_type_text(self, table: Subject) -> list[Relation]:
        """Return the relations of columns such as `about_type` and `about_id`, one for each type."""
        found: list[Relation] = []
        for column in table.columns.values():
            last = words(column.name)[-1]
            least = 1 if last in vocab.TYPE_WORDS or last.endswith("type") else MIN_TYPES
            if column.kind != "text" or not least <= len({*column.filled}) <= MAX_TYPES:
                continue
            for other in _ids_beside(table, column):
                few = 2 * len({*table.columns[other].filled}) < len({*column.filled})  # it says whose all rows are
                typed = [] if few else self._typed(table, column.name, other)
                known = {one.type_value for one in typed}
                if len(typed) >= least and (least == 1 or sum(map(known.__contains__, column.filled)) > len(known)):
                    found += typed
                    break
        return found

    def _by_type_row(self, table: Subject, known: Sequence[Relation], taken: Container[str]) -> list[Relation]:
        """Return the relations of columns such as `content_type_id` and `object_id`: a row of a table has the type.

        `taken` are the columns whose relations are declared, or whose type another column names.
        """
        found: list[Relation] = []
        for kind in [one for one in known if one.is_plain]:
            ((column, key),) = kind.pairs
            bare = set(words(column)) - vocab.KEY_WORDS
            if not bare & (vocab.TYPE_WORDS | vocab.GENERIC) or kind.parent.rows > SAMPLED_ROWS:
                continue
            keys, named = kind.parent.columns[key].values, kind.parent.rows_of(*kind.parent.columns)
            rows = {one: [name for name in row if isinstance(name, str)] for one, row in zip(keys, named, strict=True)}
            others = [name for name in table.columns if name not in taken and name != column and _is_any_id(name)]
            for other in others[:1]:
                typed = self._typed(table, column, other, rows)
                found += [one for one in typed if one.parent is not kind.parent]
        return found

    def _typed(
        self, table: Subject, column: str, other: str, named: Mapping[Any, Sequence[str]] | None = None
    ) -> list[Relation]:
        """Return the relations of a column with ids, one for each type: it names a table, or `named` has its names."""
        found = []
        for value in dict.fromkeys(table.columns[column].filled):
            ids = [key for kind, key in table.rows_of(column, other) if kind == value and key is not None]
            texts = [value] if named is None else named.get(value, ())
            ways = [self._typed_parent(text, ids, table) for text in texts if isinstance(text, str) and text.strip()]
            if (parent := next(filter(None, ways), None)) is not None:
                found.append(Relation(table, parent, ((other, parent.key[0]),), column, value))
        return found

    def _typed_parent(self, value: str, ids: Sequence[Any], table: Subject) -> Subject | None:
        """Return the table that a type names: `Issue`, `App\\Models\\Issue`, `issues` or `blog.Issue`."""
        whole = noun(value)  # `forum.post`
        named = noun(value.replace("\\", ".").replace("::", ".").rpartition(".")[2])
        fits = [one for one in self._by_noun.get(named[-1:], ()) if one is not table and len(one.key) == 1]
        same = [one for called in (whole, named) for one in fits if called in (one.noun, noun(one.name))]
        same = same or [one for one in fits if one.noun[-len(named) :] == named or one.noun[-1:] == named[-1:]]
        if len(value) == 1 and value.isalpha():  # `T` of a ticket, nearly all of which the ids name
            begun = [one for one in self.tables if one.noun[-1][0] == value.lower() and len(one.key) == 1]
            keys = {one: one.columns[one.key[0]].values for one in begun if one is not table}
            same = [one for one in keys if len({*keys[one]} & {*ids}) >= NEARLY_ALL * max(MIN_LETTERED, len(keys[one]))]
        return next((one for one in same if self._catalog.share_found(ids, one, one.key[0]) >= NEARLY_ALL), None)

    def _listed(self, table: Subject, known: Sequence[Relation]) -> list[Relation]:
        """Return the only table whose keys are in the only column that the rows of a list have: `data`, beside a place.

        Small numbers are the keys of any table.
        """
        named = {name for one in known for name in one.columns}
        rest = [name for name in table.columns if name not in named and not vocab.ORDERS & {*words(name)}]
        if not named or len(rest) != 1 or words(rest[0])[-1] not in vocab.LIST_VALUES:
            return []
        column = table.columns[rest[0]]
        values = column.filled if column.kind == "number" else []
        if len(values) < MIN_PREFIXED_KEYS or min(values) <= len({*values}):
            return []
        fits = [one for one in self.tables if self._share_of_keys(values, one, column) >= NEARLY_ALL]
        fits = [one for one in fits if any(one is relation.parent for relation in known)] or fits
        return [Relation(table, fits[0], ((column.name, fits[0].key[0]),))] if len(fits) == 1 else []

    def _one_to_one(self, table: Subject, known: Sequence[Relation]) -> list[Relation]:
        """Return the table that this one extends: its key is the other's, and one of them is called after the other."""
        if not table.key or any(one.columns == [table.key[0]] for one in known):
            return []
        own, key = table.noun, table.columns[table.key[0]]
        named = [singular(word) for word in words(key.name) if word not in vocab.KEY_WORDS]
        is_own = key.kind == "number" and (named[-1:] == list(own[-1:]) or tuple(named) not in self._by_noun)
        # the numbers of one table are also among those of a larger one; there are several rows for each in a language
        if words(key.name)[-1] == "name" or (named if len(table.key) > 1 else is_own):
            return []
        others = [one for one in self.tables if len(own) > len(one.noun) and own[: len(one.noun)] == one.noun]
        if vocab.KEY_WORDS & {words(key.name)[-1]}:  # `pages_id` of `field_title`
            others += [one for one in self._by_noun.get(tuple(named), []) if one is not table]
        if not self._declares and len(table.key) == 1 and _are_of_one_row(key.filled):
            others += [one for one in self._by_key[table.key] if len(one.columns) > len(table.columns)]
        for parent in others:
            related = any(one.parent is parent for one in known)
            if not related and self._share_of_keys(key.filled, parent, key) >= NEARLY_ALL:
                return [Relation(table, parent, ((key.name, parent.key[0]),))]
        return []
