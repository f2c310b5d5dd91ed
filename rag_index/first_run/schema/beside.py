"""Rulings by other tables and by the names of rows: lists of hidden rows and of banned persons, old
versions, labels with hidden names, names of secrets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import Candidate, CandidateValue, Seen
from rag_index.first_run.schema.documents import is_of_copies
from rag_index.first_run.schema.hidden_rows import is_link
from rag_index.first_run.schema.rule import is_asked, value_hides
from rag_index.first_run.schema.rulings import Ruling
from rag_index.first_run.schema.tables import (
    NOTHING,
    Condition,
    Relation,
    Table,
    is_none_of,
    listed,
    unique_names,
)
from rag_index.first_run.schema.words import is_any, singular, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.first_run.schema.candidates import Result
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column

LISTED = "listed"
NOT_LISTED = "not listed"
BANS = re.compile(r"ban(?:list)?|black(?:list)?|block(?:ed|list)|shadowban|spammer|suspen\w+")
"""Words of lists of persons who are banned. `block` alone is a block of a page."""


def other_rulings(catalog: DatabaseCatalog, tables: Sequence[Table]) -> Iterator[Ruling]:
    """Yield the rulings that no column of flags decides: of lists of hidden rows and banned
    persons, old versions, labels, and names of secrets."""
    for table in tables:
        if not table.rows:
            continue
        yield from _labels(catalog, table)
        yield from _names_of_secrets(catalog, table)
        yield from _older_versions(catalog, table)
        for own in table.children:
            is_single = len(own.pairs) == 1 and own.child is not table
            # a list refers to its rows by one column: `private_note.note_id`
            if not is_single or own.is_pointer:
                continue
            ruling = _banned(catalog, own) if table.is_people else _listed(catalog, own)
            if ruling:
                yield ruling
    yield from _banned_by_value(catalog, tables)


# --- Tables that list rows ---


def _listed(catalog: DatabaseCatalog, own: Relation) -> Ruling | None:
    """Return the ruling of a table that lists some rows of another one: as private, as held back,
    for a group; None if it is no such list.

    Args:
        own: The relation of the list to the table whose rows it lists.
    """
    table, other = own.parent, own.child
    noun = tuple(words(other.own_name))
    deeds = tuple(word for word in noun if word.endswith("ed"))
    # `hidden_post`, or `blocked_seller`, but not `page_block`
    hides = is_any(noun, known.HIDE | known.HELD) or is_any(deeds, known.BANNED)
    rights = is_any(noun, known.RIGHTS)
    # `moderation_queue`, `document_access`
    is_named = hides or rights or any(map(is_asked, noun))
    # an empty list is one by its name only: `hidden_post`
    if other.is_people or other.children or not (other.rows or hides):
        return None
    # `favourite (user_id, post_id)` is no list of hidden posts
    is_of_person = any(relation.parent.is_people for relation in other.parents)
    is_idle = other.title or is_of_person or other.machine or is_of_copies(other)
    if is_idle and not is_named:
        return None
    # a text about the row is no reason to hide it: `private_note.body`
    if other.prose and not (is_named and _gives_reasons(other, table)):
        return None
    refused = _refused(catalog, other) if rights else ""
    condition = _not_listed(own, refused)
    rows = catalog.rows_that(table, f"NOT ({condition})")
    is_some = rights and 0 < rows <= known.SOME * table.rows
    if is_some or (hides and rows < table.rows):
        return _list_ruling(own, condition, rows, "understood")
    # a list without such a name is asked about if it has few of the rows
    most = known.HALF if is_named else known.FEW
    is_few = 0 < rows <= most * table.rows and table.rows > known.MAX_TEXTS
    if is_few and (is_named or _is_list(catalog, own) or _names_groups(own)):
        return _list_ruling(own, condition, rows, "asked")
    return None


def _gives_reasons(other: Table, table: Table) -> bool:
    """Return whether all prose of a list says why rows are on it: `removed_post.reason`, but not
    the text of a `private_note`, which is about a row that everybody sees."""
    if not all(_is_remark(name) for name in other.prose):
        return False
    usual = {*table.noun, "queue", "list"}
    hiding = known.HIDE | known.HELD | known.BANNED
    for word in other.noun:
        is_reason = is_any((word,), hiding) or is_asked(word)
        # `note` of `private_note`, where the rows are documents
        if not is_reason and word not in usual:
            return False
    return True


def _is_remark(name: str) -> bool:
    named = map(singular, words(name))
    return not known.REMARKS.isdisjoint(named)


def _names_groups(own: Relation) -> bool:
    """Return whether a list says for which group a row is."""
    for other in own.child.parents:
        if other.column == own.column:
            continue
        # `document_access (document_id, team_id)`
        if other.parent.noun[-1] in known.GROUPS:
            return True
    return False


def _is_list(catalog: DatabaseCatalog, own: Relation) -> bool:
    """Return whether a table is nothing but a list of rows of another one, each once."""
    other = own.child
    if len(other.columns) > known.MAX_JOINS:
        return False
    parents = [relation.parent for relation in other.parents]
    if not all(parent is own.parent or parent.is_people for parent in parents):
        return False
    column = [own.column]
    return column == other.key or catalog.is_key(other, column)


def _refused(catalog: DatabaseCatalog, rights: Table) -> str:
    """Return in SQL that a row of rights denies reading: `can_view = 0`. "" if no row does: then
    each row says who may read."""
    for name, named in rights.named.items():
        if not {"view", "read"} & {*named}:
            continue
        values = [value for value, _ in catalog.value_rows(rights, rights.columns[name])]
        no = [value for value in values if value.lower() in known.NO]
        is_flag = {value.lower() for value in values} <= known.YES | known.NO
        if is_flag and 0 < len(no) < len(values):
            return catalog.shows(rights, name, "", "value", no)
    return ""


def _not_listed(own: Relation, refused: str = "") -> str:
    """Return in SQL that a row is not on a list. One that has no value to be listed by is not."""
    column, key = own.pairs[0]
    sql = own.child.columns[column].sql
    conditions = filter(None, (own.where, f"{sql} IS NOT NULL", refused))
    where = " AND ".join(conditions)
    some = f"SELECT {sql} FROM {own.child.sql} WHERE {where}"
    return is_none_of(own.parent.columns[key].sql, some)


def _list_ruling(
    own: Relation, condition: str, rows: int, result: Result, *, bans: bool = False
) -> Ruling:
    table, other = own.parent, own.child
    why = f"lists {rows:,} of {table.rows:,} rows of {table.name}"
    values = (
        CandidateValue(NOT_LISTED, NOT_LISTED, table.rows - rows, is_shown=True),
        CandidateValue(LISTED, LISTED, rows, is_shown=False),
    )
    name = other.id_of(own.column)
    candidate = Candidate(name, other.name, own.column, result, why, values)
    says = f"it is listed in {other.name}"
    return Ruling(candidate, Condition(table, condition, says, own.column, bans=bans))


def _banned(catalog: DatabaseCatalog, own: Relation) -> Ruling | None:
    """Return the ruling of a table that lists banned persons; None if it is no such list."""
    if not _lists_bans(own.child) or _acts(own):
        return None
    for other in own.child.parents:
        # who blocks whom is no ban: `user_block (user_id, blocked_id)`
        if other.parent is own.parent and other is not own and not _acts(other):
            return None
    condition = _not_listed(own)
    rows = max(0, catalog.rows_that(own.parent, f"NOT ({condition})"))
    return _list_ruling(own, condition, rows, "understood", bans=True)


def _lists_bans(table: Table) -> bool:
    """Return whether a table is called like a list of banned persons, and has no texts but
    reasons, as a block of a page has."""
    noun = words(table.own_name)
    nouns = [*map(singular, noun)]
    # `banlist`, `banned_ip`
    is_called = any(map(BANS.fullmatch, nouns)) or is_any(noun, known.BANNED - {"block"})
    # `user_block`, but not `block`
    is_of_persons = not known.PERSONS.isdisjoint(nouns)
    if not is_called and not (is_of_persons and is_any(noun, known.BANNED)):
        return False
    for name in (*table.prose, *table.title_columns):
        if name in table.columns and not _is_reason(table.columns[name]):
            return False
    return True


def _is_reason(column: Column) -> bool:
    # `ban.reason`, or the name of who is banned
    is_name = column.distinct == 1 and column.role == "name"
    return is_name or _is_remark(column.name)


def _banned_by_value(catalog: DatabaseCatalog, tables: Sequence[Table]) -> Iterator[Ruling]:
    """Yield the rulings of lists of banned persons that no key declares: their values are keys or
    names of persons."""
    people = [table for table in tables if table.is_people and table.rows and len(table.key) == 1]
    for table in tables:
        if not table.rows or not _lists_bans(table):
            continue
        # `other_rulings` asks `_banned` about declared keys
        if any(relation.parent.is_people for relation in table.parents):
            continue
        people_here = [person for person in people if person is not table]
        for column in table.columns.values():
            own = _names_person(catalog, table, column, people_here)
            ruling = _banned(catalog, own) if own else None
            if ruling:
                yield ruling
                break


def _names_person(
    catalog: DatabaseCatalog, table: Table, column: Column, people: Sequence[Table]
) -> Relation | None:
    """Return the relation of a column all of whose values are keys or names of persons."""
    values = [value for value in column.given if value not in NOTHING]
    if column.name in table.key[1:] or column.role in ("time", "flag", "prose") or not values:
        return None
    named = {*map(singular, words(column.name))}
    for person in people:
        # small numbers are keys of any table: `ban.account` has to say whose keys its values are
        persons = known.PERSONS | known.WRITERS | {"member", "account", *person.noun}
        keys = [] if named.isdisjoint(persons) else person.key
        for name in (*keys, *unique_names(person)):
            is_same_kind = person.columns[name].kind == column.kind
            if is_same_kind and catalog.share_found(values, person, name) == 1:
                return Relation(table, person, ((column.name, name),), column.filled)
    return None


def _acts(relation: Relation) -> bool:
    """Return whether a column names the person who banned another one: `banned_by`,
    `moderator_id`."""
    named = map(singular, words(relation.column))
    acting = {"by", "moderator", "admin", "staff", "creator", "issuer"}
    return not acting.isdisjoint(named)


# --- Names of rows ---


def _labels(catalog: DatabaseCatalog, table: Table) -> Iterator[Ruling]:
    """Yield the ruling of labels and folders with a hidden name: those that rows carry by links,
    too."""
    title = table.columns.get(table.title)
    if title is None or not table.children or table.is_people:
        return
    if table.rows > known.MAX_CHOICES and not _are_labels(table):
        return
    names = catalog.texts_with_rows(table, title.name)
    seen = Seen((), (), noun=table.noun)
    hidden = [name for name in names if value_hides(name, seen)]
    if 0 < len(hidden) < len(names):
        yield _named(catalog, table, title, hidden, "says who may see a row by its value ")


def _are_labels(table: Table) -> bool:
    """Return whether rows of a larger table are labels of others, by a column or by links: sections
    of articles, tags with a description."""
    length = sum(table.columns[name].length for name in table.title_columns)
    if length > known.MAX_CODE_CHARS or len(table.columns) > known.MANY_TOLD:
        return False
    # words of an index for a search are no labels
    if table.written or table.machine or is_of_copies(table):
        return False
    if table.noun[-1] in known.TYPE_WORDS:
        return False
    for relation in table.children:
        child = relation.child
        if child is table:
            continue
        # `article.section_id`
        if child.title and child.rows >= table.rows:
            return True
        # `article_tag (article_id, tag_id)`
        if len(child.parents) > 1 and is_link(child):
            return True
    return False


def _names_of_secrets(catalog: DatabaseCatalog, table: Table) -> Iterator[Ruling]:
    """Yield the ruling of rows that are names with values, some of them of secrets."""
    # `setting (name, value)`
    free = [name for name in table.columns if name not in table.references]
    keys = [name for name in free if words(name)[-1] in known.NAME_KEYS]
    has_values = any(known.NAME_VALUES.intersection(words(name)) for name in free)
    if not keys or not has_values:
        return
    column = table.columns[keys[0]]
    names = catalog.texts_with_rows(table, column.name)
    secret = [name for name in names if _names_a_secret(name)]
    if secret:
        yield _named(catalog, table, column, secret, "has names of secrets, such as ")


def _names_a_secret(name: str) -> bool:
    # a file, or a sentence
    if re.search(r"\.\w{2,5}$", name) or len(words(name)) > known.MIN_ROWS:
        return False
    if any(map(is_named_like_a_secret, (name, *words(name)))):
        return True
    return bool(known.PERSONAL & {*words(name)})


def _named(
    catalog: DatabaseCatalog, table: Table, column: Column, hidden: Sequence[str], why: str
) -> Ruling:
    """Return the ruling that leaves out rows with some names. All other names are shown, also later
    ones, and rows without a name."""
    counts = catalog.texts_with_rows(table, column.name)
    rest = table.rows
    values = []
    for name in hidden:
        rest -= counts[name]
        values.append(CandidateValue(name, name, counts[name], is_shown=False))
    values.append(CandidateValue("all others", "all others", max(0, rest), is_shown=True))
    id_, why = table.id_of(column.name), f"{why}{hidden[0]}"
    candidate = Candidate(id_, table.name, column.name, "understood", why, tuple(values))
    written = [*hidden]
    if catalog.is_mysql:
        # a backslash within a text means something else there
        written = [name.replace("\\", "\\\\") for name in hidden]
    sql = is_none_of(column.sql, listed(written))
    return Ruling(candidate, Condition(table, sql, candidate.says, column.name))


# --- Versions ---


def _older_versions(catalog: DatabaseCatalog, table: Table) -> Iterator[Ruling]:
    """Yield the rulings that hide all versions except those that their owners reference as
    current: `page.latest_revision_id`."""
    if table.noun[-1] not in known.VERSIONS or len(table.key) != 1:
        return
    owners = dict.fromkeys(relation.parent for relation in table.parents)
    owners.pop(table, None)
    for owner in owners:
        for column in owner.columns.values():
            if not is_any(words(column.name), known.NEWEST | known.SHOW | {"last"}):
                continue
            named = [value for value in column.given if value not in NOTHING]
            if catalog.share_found(named, table, table.key[0]) >= known.MIN_FOUND:
                yield _older_than(catalog, table, owner, column)


def _older_than(catalog: DatabaseCatalog, table: Table, owner: Table, column: Column) -> Ruling:
    """Return the ruling of versions to which a column does not point."""
    key = table.key[0]
    value = column.sql
    some = f"SELECT {value} FROM {owner.sql} WHERE {value} IS NOT NULL"
    sql = f"{table.columns[key].sql} IN ({some})"
    older = catalog.rows_that(table, f"NOT ({sql})")
    values = (CandidateValue("older", "older versions", older, is_shown=False),)
    pointer = f"{owner.own_name}.{column.name}"
    why = f"is pointed at by {pointer}"
    candidate = Candidate(table.id_of(key), table.name, key, "understood", why, values)
    says = f"it is no newest version, as {pointer} says"
    return Ruling(candidate, Condition(table, sql, says))
