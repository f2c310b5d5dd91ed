"""Which rows belong to which: foreign keys, and columns that are none and yet hold the keys of another table."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag_index.sources.catalog import SAMPLED_ROWS
from rag_index.sources.columns import singular, words
from rag_index.sources.vocabulary import known_words, ordered_words

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

    from rag_index.sources.catalog import Column, DatabaseCatalog, DatabaseTable, Reference

    _ByNoun = dict[tuple[str, ...], list[DatabaseTable]]

MIN_FOUND = 0.9
"""The share of values that must be keys of the other table."""
MIN_PREFIXED = 0.6
"""The share of tables whose names begin with one word, which then says nothing."""
KEY_WORDS = known_words("relations", "key_words")
STATE_WORDS = frozenset(["state", "status", "stage", "level"])
MIN_STEM = 3
"""The letters of a word that may be the beginning of what a table is called."""
LANGUAGES = frozenset(["lang", "language", "locale"])
"""What tables with a row for each language are called."""
TYPE_WORDS = known_words("relations", "type_words")
POINTERS = known_words("relations", "pointers")
ENDS = frozenset(["first", "last"])
"""Words of columns that name one of several rows."""
VERSIONS = ordered_words("relations", "versions")
GENERIC = known_words("relations", "generic")
PEOPLE = ordered_words("subjects", "people")
WRITERS = frozenset(["owner", "author", "creator", "assignee", "reporter", "editor", "sender", "poster", "writer"])
"""Words of columns that name a person, whatever the table of persons is called."""
NUMBERS = known_words("relations", "numbers")
MIN_COVERED = 0.3
"""The share of a table's keys that a column must have, if nothing but its values says that they are keys."""
PARENTS = known_words("relations", "parents")
TABLE_WORDS = ("table", "tbl")
"""Words of names that say nothing but that this is a table."""
PREFIXED_KEY = re.compile(r"(?P<prefix>[A-Za-z]\w*[:/#-])(?P<key>\d{1,18})")
MIN_PREFIXED_KEYS = 5
"""The values from which on those that are alike but for a number name rows of another table."""
CONTAINERS = known_words("relations", "containers")


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """Rows of `child` name rows of `parent`: pairs of columns, and a value that says that this parent is meant."""

    child: DatabaseTable
    parent: DatabaseTable
    pairs: tuple[tuple[str, str], ...]
    """Columns of the child, each with the column of the parent that it equals."""
    type_column: str = ""
    type_value: Any = None
    prefix: str = ""
    """What the only column of the child has before the key: `tt:` of `tt:102`."""

    @property
    def columns(self) -> list[str]:
        """Return the columns of the child."""
        return [column for column, _ in self.pairs]

    @property
    def is_pointer(self) -> bool:
        """Return whether it names one version of several, as `latest_revision_id` does."""
        return bool(POINTERS & set(words(self.columns[0])))

    @property
    def type_literal(self) -> str:
        """Return the value of the type column as it stands in SQL."""
        text = str(self.type_value).replace("'", "''")
        return text if isinstance(self.type_value, int) else f"'{text}'"


@lru_cache(maxsize=10_000)
def noun(name: str) -> tuple[str, ...]:
    """Return the words of a table's name in the singular, without the word for a table."""
    return tuple(singular(word) for word in bare_words(name))


def bare_words(name: str) -> tuple[str, ...]:
    """Return the words of a table's name without the word for a table."""
    found = words(name)
    return tuple(word for word in found if word not in TABLE_WORDS) or found


class Nouns:
    """What tables are called without the word with which most of their names begin."""

    def __init__(self, tables: Iterable[DatabaseTable]) -> None:
        names = [bare_words(table.name) for table in tables]
        first = Counter(name[0] for name in names if len(name) > 1).most_common(1)
        self.prefix = first[0][0] if first and first[0][1] >= max(3, MIN_PREFIXED * len(names)) else ""
        self._known: dict[str, tuple[str, ...]] = {}

    def __call__(self, table: DatabaseTable) -> tuple[str, ...]:
        """Return the words of a table's name in the singular, without the prefix."""
        if table.name not in self._known:
            self._known[table.name] = tuple(singular(word) for word in self.words(table))
        return self._known[table.name]

    def words(self, table: DatabaseTable) -> tuple[str, ...]:
        """Return the words of a table's name without the prefix."""
        found = bare_words(table.name)
        return found[1:] if found[0] == self.prefix and len(found) > 1 else found


def find_relations(catalog: DatabaseCatalog, nouns: Nouns) -> list[Relation]:
    """Return how the rows of tables belong together: as declared, else as names suggest and values confirm."""
    tables = [table for table in catalog.tables if table.rows]
    by_noun: _ByNoun = {}
    for table in tables:
        if table.key:
            for called in dict.fromkeys([nouns(table), nouns(table)[-1:], noun(table.name)]):
                by_noun.setdefault(called, []).append(table)
    found: list[Relation] = []
    for table in tables:
        declared = declared_relations(table, tables)
        taken = {column for relation in declared for column in relation.columns}
        found += declared
        typed = _polymorphic(catalog, table, by_noun, nouns)
        found += typed
        taken |= {column for relation in typed for column in relation.columns}
        found += _contained_keys(table, tables, declared)
        for column in table.columns.values():
            if (
                column.name not in taken
                and column.kind in ("number", "text", "id", "bytes")
                and table.key != (column.name,)
                and not _is_id_of_any(table, column.name, by_noun)
            ):
                named = _named(catalog, table, column, by_noun, tables) or _prefixed(catalog, table, column, tables)
                found += [named] if named else []
        found = [one for one in found if one.child is not table or not _is_newest_of(one)]
        numbered = _polymorphic_by_number(catalog, table, by_noun, nouns, found, taken)
        columns = {relation.columns[0] for relation in numbered}
        found = [one for one in found if one.child is not table or one.columns[0] not in columns] + numbered
        found += _one_to_one(catalog, table, tables, nouns, found)
    return found


def _is_newest_of(relation: Relation) -> bool:
    """Return whether a row names the first or the last one of its own parts, such as `last_post_id`: it is no part."""
    return bool(ENDS & {*words(relation.columns[0])}) and relation.parent is not relation.child


def declared_relations(table: DatabaseTable, tables: Sequence[DatabaseTable]) -> list[Relation]:
    """Return the relations that foreign keys of a table declare, whether it has rows or not."""
    return list(filter(None, (_declared(table, one, tables) for one in table.references)))


def _declared(table: DatabaseTable, one: Reference, tables: Sequence[DatabaseTable]) -> Relation | None:
    for parent in tables:
        if parent.name == one.table and (one.schema is None or one.schema == parent.schema or parent.schema is None):
            return Relation(table, parent, tuple(zip(one.columns, one.referred, strict=True)))
    return None


def _contained_keys(
    table: DatabaseTable, tables: Sequence[DatabaseTable], declared: Sequence[Relation]
) -> list[Relation]:
    """Return the tables whose composite keys this one has, by name: the longest first."""
    known = {relation.parent.full_name for relation in declared}
    found = [
        parent
        for parent in tables
        if parent is not table and len(parent.key) > 1 and set(parent.key) <= table.columns.keys()
        and not _is_crossing(parent, tables)
        and parent.full_name not in known
        and (set(parent.key) < set(table.key) or not set(table.key) <= set(parent.key))
        and _same_values(table, parent)
    ]  # fmt: skip
    return [Relation(table, parent, tuple((name, name) for name in parent.key)) for parent in found]


def _is_crossing(table: DatabaseTable, tables: Sequence[DatabaseTable]) -> bool:
    """Return whether a key consists of keys of other tables: links, and texts by language and shop, contain no rows."""
    keys = {one.key for one in tables if one is not table}
    return all((name,) in keys for name in table.key)


def _same_values(table: DatabaseTable, parent: DatabaseTable) -> bool:
    """Return whether the rows of a table name those of the parent; of a large parent, whether some sampled ones do."""
    keys = set(zip(*[parent.columns[name].values for name in parent.key], strict=True))
    used = set(zip(*[table.columns[name].values for name in parent.key], strict=True))
    return len(keys & used) >= (MIN_FOUND * len(used) if parent.rows <= SAMPLED_ROWS else 1)


def _named(
    catalog: DatabaseCatalog,
    table: DatabaseTable,
    column: Column,
    by_noun: _ByNoun,
    tables: Sequence[DatabaseTable],
) -> Relation | None:
    """Return the table whose key a column holds, if its name says which and its values agree."""
    values = [value for value in column.filled if str(value) not in ("0", "-1")]
    named = set(words(column.name))
    if not values or (named & NUMBERS and not named & KEY_WORDS - {"no", "nr", "number", "code"}):
        return None
    if named & POINTERS and not named & KEY_WORDS and {str(value) for value in values} == {"1"}:  # a flag
        return None
    bare = [singular(word) for word in words(column.name) if word not in KEY_WORDS]
    is_kind = bare[-1:] and bare[-1] in TYPE_WORDS | STATE_WORDS
    fits: list[tuple[float, DatabaseTable, str]] = []
    for parent in _candidates(table, column, by_noun, tables):
        key = _matching_key(parent, column)
        if is_kind and not (len(bare) < len(words(column.name)) or {*noun(parent.name)} & {*noun(table.name)}):
            continue  # the `state` of a product is none of an order
        if key and (share := catalog.share_found(values, parent, key)) >= MIN_FOUND:
            fits.append((share, parent, key))
    if fits:
        share, parent, key = max(fits, key=lambda fit: fit[0] if _is_kin(table, fit[1], fits[0][1]) else fits[0][0])
        return Relation(table, parent, ((column.name, key),))
    if set(words(column.name)) - KEY_WORDS <= GENERIC and set(words(column.name)) & (GENERIC | {"id"}):
        return _by_values(catalog, table, column, values, tables)
    return None


def _is_kin(table: DatabaseTable, parent: DatabaseTable, first: DatabaseTable) -> bool:
    """Return whether a table is called like another one, and like the child, too: `wiki_pages` of `wiki_versions`."""
    named = noun(parent.name)
    return named[-1] == noun(first.name)[-1] and bool(set(named[:-1]) & set(noun(table.name)))


def _by_values(
    catalog: DatabaseCatalog,
    table: DatabaseTable,
    column: Column,
    values: Sequence[Any],
    tables: Sequence[DatabaseTable],
) -> Relation | None:
    """Return the table of which the values are keys, nearly all and a good share of them; of several the best."""
    fits: list[tuple[float, float, DatabaseTable]] = []
    distinct = set(map(str, values))
    for parent in tables:
        key = _matching_key(parent, column)
        if not key or parent is table or len(distinct) < 3:
            continue
        keys = {str(value) for value in parent.columns[key].values}
        covered = len(keys & distinct) / max(1, len(keys))
        share = catalog.share_found(values, parent, key)
        if covered >= MIN_COVERED and share >= MIN_FOUND:
            fits.append((share, covered + (column.name in parent.columns), parent))
    best = max(fits, key=lambda fit: fit[:2], default=None)
    return None if best is None else Relation(table, best[2], ((column.name, _matching_key(best[2], column)),))


def _prefixed(
    catalog: DatabaseCatalog, table: DatabaseTable, column: Column, tables: Sequence[DatabaseTable]
) -> Relation | None:
    """Return the table with texts whose keys a column has after a word that all values begin with."""
    if column.kind not in ("text", "bytes") or len(column.filled) < MIN_PREFIXED_KEYS:
        return None
    values = [value.decode("ascii", "replace") if isinstance(value, bytes) else value for value in column.filled]
    found = [match for value in values if (match := PREFIXED_KEY.fullmatch(str(value)))]
    prefix, count = Counter(match["prefix"] for match in found).most_common(1)[0] if found else ("", 0)
    numbers = [int(match["key"]) for match in found if match["prefix"] == prefix]
    if count < MIN_FOUND * len(values) or 2 * len(set(numbers)) < count:  # `utf-8` is no key
        return None
    for parent in tables:
        key = parent.key[0] if len(parent.key) == 1 and noun(parent.name)[-1] in VERSIONS else ""
        is_number = bool(key) and parent is not table and parent.columns[key].kind == "number"
        if is_number and catalog.share_found(numbers, parent, key) >= MIN_FOUND:
            return Relation(table, parent, ((column.name, key),), prefix=prefix)
    return None


def _matching_key(parent: DatabaseTable, column: Column) -> str:
    """Return the column of the parent that may hold the same values: its key."""
    if len(parent.key) != 1:
        return ""
    return parent.key[0] if parent.columns[parent.key[0]].kind == column.kind else ""


def _candidates(
    table: DatabaseTable,
    column: Column,
    by_noun: _ByNoun,
    tables: Sequence[DatabaseTable],
) -> list[DatabaseTable]:
    """Return the tables that the name of a column may mean, the likeliest first."""
    named = [singular(word) for word in words(column.name)]
    stem = named[-1].removesuffix("id")
    if len(stem) >= MIN_STEM and stem != named[-1] and any(called[-1].startswith(stem) for called in by_noun):
        named[-1:] = [stem, "id"]  # `entryid`
    bare = [word for word in named if word not in KEY_WORDS]
    has_key_word = len(bare) < len(named)
    found: list[DatabaseTable] = []
    if named[-1:] != ["id"] * len(named):  # the key has this name in the other table, and it is more than "id"
        found += [parent for parent in tables if parent.key == (column.name,)]
    found += [parent for parent in by_noun.get(tuple(bare), []) if noun(parent.name)[-len(bare) :] == tuple(bare)]
    found.sort(key=lambda parent: len(noun(parent.name)))  # `topics` before `topic_search_data`
    own = set() if _is_prefixed(table, named[0]) else set(bare) & set(noun(table.name))
    for start in range(len(bare)):
        if own & set(bare[:start]):  # `cms_category_id` of `cms` means no other category
            break
        if start == 0 or bare[start:] != bare[-1:] or bare[-1] not in TYPE_WORDS:  # `data_type` is no `badge_type`
            found += by_noun.get(tuple(bare[start:]), [])
    if (has_key_word or column.kind in ("id", "number")) and not (own and len(bare) > 1):
        for word in reversed(bare):
            found += by_noun.get((word,), []) if len(bare) == 1 or word not in TYPE_WORDS else []
    found += _by_generic_words(table, column, by_noun, bare)
    if not found and has_key_word and bare and len(bare[-1]) >= MIN_STEM:  # `cat_id` of a category
        found += [one for called, some in by_noun.items() if called[-1].startswith(bare[-1]) for one in some]
    if POINTERS & set(bare):
        found += [parent for word in VERSIONS for parent in by_noun.get((word,), [])]
    found = [parent for parent in dict.fromkeys(found) if parent is not table]
    tree = PARENTS & set(bare) or ("pid" in bare and noun(table.name)[-1] in CONTAINERS)
    return [table, *found] if tree else found


def _by_generic_words(
    table: DatabaseTable, column: Column, by_noun: _ByNoun, bare: Sequence[str]
) -> list[DatabaseTable]:
    """Return the tables of persons if a column names a writer, and those above a table if it names any owner."""
    found = [parent for word in PEOPLE for parent in by_noun.get((word,), [])] if WRITERS & {*bare} else []
    if any(word in GENERIC or word.endswith("able") for word in bare):
        own_noun = noun(table.name)
        above = by_noun.get(own_noun[:-1], []) + by_noun.get(own_noun[-2:-1], [])
        for end in range(len(own_noun) - 2, 0, -1):  # `node_field_author`: of a node
            above += [parent for parent in by_noun.get(own_noun[:end], []) if noun(parent.name) == own_noun[:end]]
        found += [one for one in above if column.name not in one.columns or one.key == (column.name,)]
    return found


def _is_prefixed(table: DatabaseTable, word: str) -> bool:
    """Return whether most columns of a table begin with this word, as `comment_post_ID` does: it says nothing."""
    return 2 * sum(singular(words(name)[0]) == word for name in table.columns) > len(table.columns)


def _polymorphic(catalog: DatabaseCatalog, table: DatabaseTable, by_noun: _ByNoun, nouns: Nouns) -> list[Relation]:
    """Return the relations of columns such as `about_type` and `about_id`, one for each type."""
    found: list[Relation] = []
    for column in table.columns.values():
        named = words(column.name)
        if not (named[-1] in TYPE_WORDS or named[-1].endswith("type")) or column.kind != "text":
            continue
        for other in _ids_beside(table, column.name):
            for value in dict.fromkeys(column.filled):
                rows = zip(column.values, table.columns[other].values, strict=True)
                ids = [key for kind, key in rows if kind == value and key is not None]
                parent = _typed_parent(catalog, str(value), ids, table, by_noun, nouns)
                if parent is not None:
                    found.append(Relation(table, parent, ((other, parent.key[0]),), column.name, value))
            if found and any(relation.columns == [other] for relation in found):
                break
    return found


def _polymorphic_by_number(
    catalog: DatabaseCatalog,
    table: DatabaseTable,
    by_noun: _ByNoun,
    nouns: Nouns,
    known: Sequence[Relation],
    taken: Container[str],
) -> list[Relation]:
    """Return the relations of columns such as `content_type_id` and `object_id`: a row of another table has the type.

    `taken` are the columns whose relations are declared.
    """
    found: list[Relation] = []
    for kind in [one for one in known if one.child is table and len(one.pairs) == 1 and not one.type_column]:
        ((column, key),) = kind.pairs
        bare = set(words(column)) - KEY_WORDS
        if not bare & (TYPE_WORDS | GENERIC) or kind.parent.rows > SAMPLED_ROWS:
            continue
        others = [name for name in table.columns if name not in taken and name != column and _is_any_id(name)]
        names = kind.parent.columns[key].values
        for other in others[:1]:
            rows = list(zip(table.columns[column].values, table.columns[other].values, strict=True))
            for value in dict.fromkeys(table.columns[column].filled):
                ids = [one for type_value, one in rows if type_value == value and one is not None]
                called = [one.values[names.index(value)] for one in kind.parent.columns.values() if value in names]
                for text in [one for one in called if isinstance(one, str) and one.strip()]:
                    parent = _typed_parent(catalog, text, ids, table, by_noun, nouns)
                    if parent is not None and parent is not kind.parent:
                        found.append(Relation(table, parent, ((other, parent.key[0]),), column, value))
                        break
    return found


def _is_any_id(name: str) -> bool:
    """Return whether a column may name a row of any table: `object_id`, `o_id`, `instance`."""
    bare = set(words(name)) - KEY_WORDS
    return words(name) != ("id",) and bare <= GENERIC | {"o", "instance", "model"} and bool(bare or words(name)[1:])


def _is_id_of_any(table: DatabaseTable, name: str, by_noun: _ByNoun) -> bool:
    """Return whether a column names a row of what the column beside it says: `items_id` beside `itemtype`."""
    stem = "".join(words(name)[:-1]) if words(name)[-1] in KEY_WORDS else ""
    types = [one for one in table.columns.values() if stem and one.kind == "text" and words(one.name)[-1:] != ("id",)]
    beside = any("".join(noun(one.name)) == f"{singular(stem)}type" for one in types)
    called = by_noun.get((singular(stem),), []) if beside else []
    return beside and not any(noun(one.name)[-1:] == noun(one.name) for one in called)


def _ids_beside(table: DatabaseTable, type_column: str) -> list[str]:
    """Return the columns that may hold the ids of what a type column says."""
    *stem, last = noun(type_column)
    stem += filter(None, [last.removesuffix("type")]) if last not in TYPE_WORDS else []  # `itemtype`
    keys = KEY_WORDS | {"name"} if last == "doctype" else KEY_WORDS  # `reference_name`
    exact = [
        name
        for name in table.columns
        if name != type_column and list(noun(name)[:-1]) == stem and words(name)[-1] in keys
    ]
    bare = [name for name in table.columns if name != type_column and list(noun(name)) == stem]
    loose = [name for name in table.columns if {"id"} & set(words(name)) and set(stem) & set(words(name))]
    return list(dict.fromkeys([*exact, *bare, *loose]))


def _typed_parent(
    catalog: DatabaseCatalog,
    value: str,
    ids: Sequence[Any],
    table: DatabaseTable,
    by_noun: _ByNoun,
    nouns: Nouns,
) -> DatabaseTable | None:
    """Return the table that a type names: `Issue`, `App\\Models\\Issue`, `issues` or `blog.Issue`."""
    named = noun(value.replace("\\", ".").replace("::", ".").rpartition(".")[2])
    fits = [one for one in by_noun.get(named[-1:], ()) if one is not table and len(one.key) == 1]
    same = [parent for parent in fits if nouns(parent) == named or noun(parent.name) == named]
    same = same or [
        parent for parent in fits if nouns(parent)[-len(named) :] == named or nouns(parent)[-1:] == named[-1:]
    ]
    for parent in same:
        if catalog.share_found(ids, parent, parent.key[0]) >= MIN_FOUND:
            return parent
    return None


def _one_to_one(
    catalog: DatabaseCatalog,
    table: DatabaseTable,
    tables: Sequence[DatabaseTable],
    nouns: Nouns,
    known: Sequence[Relation],
) -> list[Relation]:
    """Return the table that this one extends: its key is the other's, and its name begins with the other's."""
    if len(table.key) != 1 or any(one.child is table and one.columns == [table.key[0]] for one in known):
        return []
    own, key = nouns(table), table.columns[table.key[0]]
    named = [singular(word) for word in words(key.name) if word not in KEY_WORDS]
    is_own = key.kind == "number" and (key.name == "id" or named[-1:] == list(own[-1:]))
    if is_own or words(key.name)[-1] == "name":  # the numbers of one table are also among those of a larger one
        return []
    named_otherwise = [one.parent for one in known if one.child is table]
    for parent in tables:
        if parent in named_otherwise:
            continue
        other = nouns(parent)
        longer = len(own) > len(other) and own[: len(other)] == other
        other_key = _matching_key(parent, key) if longer else ""
        if other_key and catalog.share_found(key.filled, parent, other_key) >= MIN_FOUND:
            return [Relation(table, parent, ((key.name, other_key),))]
    return []
