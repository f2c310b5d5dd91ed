"""What other tables and names of rows say of who may see a row: lists of hidden rows, old versions,
labels, secrets."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.candidates import Candidate, CandidateValue, Seen
from rag_index.first_run.schema.documents import is_of_copies
from rag_index.first_run.schema.rule import value_hides
from rag_index.first_run.schema.rulings import Ruling
from rag_index.first_run.schema.tables import NOTHING, Condition, Relation, Table, listed
from rag_index.first_run.schema.words import is_any, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.first_run.schema.candidates import Result
    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column

LISTED = "listed"


def other_rulings(catalog: DatabaseCatalog, tables: Sequence[Table]) -> Iterator[Ruling]:
    """Yield the rulings of tables that list hidden rows, of old versions, of labels, and of names
    of secrets."""
    for table in [one for one in tables if one.rows]:
        yield from _labels(table)
        yield from _names_of_secrets(table)
        yield from _older_versions(catalog, table)
        for own in table.children if not table.is_people else ():
            is_own_list = any(one.parent.is_people for one in own.child.parents)
            if (
                len(own.pairs) == 1
                and own.child is not table
                and not (own.is_pointer or own.child.is_people)
            ):
                yield from _beside(catalog, table, own, is_own_list=is_own_list)


def _beside(
    catalog: DatabaseCatalog, table: Table, own: Relation, *, is_own_list: bool
) -> Iterator[Ruling]:
    """Yield the ruling of a table that lists some rows of this one: as private, as held back, for a
    group."""
    other = own.child
    ((column, key),) = own.pairs
    noun = tuple(words(other.own_name))
    is_hiding = is_any(noun, known.HIDE | known.HELD)
    rights = is_any(noun, known.RIGHTS)
    is_idle = other.title or is_own_list or other.machine or is_of_copies(other)
    if other.prose or other.children or not other.rows or (is_idle and not (is_hiding or rights)):
        return
    groups = any(
        one.column != column and known.GROUPS & {one.parent.noun[-1]} for one in other.parents
    )
    # nothing but a list: of these rows, each once
    alone = all(one.parent is table or one.parent.is_people for one in other.parents)
    alone = alone and len(other.columns) <= known.MAX_JOINS
    once = alone and ([column] == other.key or catalog.is_key(other, [column]))
    sql = other.columns[column].sql
    refused = _refused(catalog, other) if rights else ""
    where = " AND ".join(filter(None, (own.where, f"{sql} IS NOT NULL", refused)))
    shown = f"{table.columns[key].sql} NOT IN (SELECT {sql} FROM {other.sql} WHERE {where})"
    rows = catalog.rows_that(table, f"NOT ({shown})")
    is_sure = (is_hiding and rows < table.rows) or (rights and 0 < rows <= known.SOME * table.rows)
    if is_sure or (
        0 < rows <= known.FEW * table.rows and (once or groups) and table.rows > known.MAX_TEXTS
    ):
        result: Result = "understood" if is_sure else "asked"
        why = f"lists {rows:,} of {table.rows:,} rows of {table.name}"
        values = (
            CandidateValue("not listed", "not listed", table.rows - rows, is_shown=True),
            CandidateValue(LISTED, LISTED, rows, is_shown=False),
        )
        one = Candidate(other.id_of(column), other.name, column, result, why, values)
        yield Ruling(one, Condition(table, shown, f"it is listed in {other.name}", column))


def _refused(catalog: DatabaseCatalog, rights: Table) -> str:
    """Return in SQL that a row of rights says no to readers; "" if none does, so that each says who
    may read."""
    for name, said in rights.named.items():
        if {"view", "read"} & {*said}:
            values = [value for value, _ in catalog.value_rows(rights, rights.columns[name])]
            no = [value for value in values if value.lower() in known.NO]
            if (
                0 < len(no) < len(values)
                and {value.lower() for value in values} <= known.YES | known.NO
            ):
                return catalog.shows(rights, name, "", "value", no)
    return ""


def _labels(table: Table) -> Iterator[Ruling]:
    """Yield the ruling of labels and folders with a hidden name: those that rows carry by links,
    too."""
    if (
        not (table.children and table.rows <= known.MAX_CHOICES and table.is_whole)
        or table.is_people
    ):
        return
    title = table.columns.get(table.title)
    names = [*dict.fromkeys(one for one in title.given if isinstance(one, str))] if title else []
    hidden = [one for one in names if value_hides(one, Seen((), (), noun=table.noun))]
    if title and 0 < len(hidden) < len(names):
        yield _named(table, title, hidden, "says who may see a row by its value ")


def _names_of_secrets(table: Table) -> Iterator[Ruling]:
    """Yield the ruling of rows that are names with values, some of them of secrets."""
    last = {name: words(name)[-1] for name in table.columns if name not in table.references}
    key = next((name for name, word in last.items() if word in known.NAME_KEYS), "")
    if key and known.NAME_VALUES & {word for name in last for word in words(name)}:
        secret = [
            one for one in dict.fromkeys(table.columns[key].given) if _names_a_secret(str(one))
        ]
        if secret:
            yield _named(table, table.columns[key], secret, "has names of secrets, such as ")


def _named(table: Table, column: Column, hidden: Sequence[str], why: str) -> Ruling:
    """Return the ruling that leaves out rows with some names. All other names are shown, also later
    ones."""
    counts = Counter(column.given)
    values = [CandidateValue(str(name), str(name), counts[name], is_shown=False) for name in hidden]
    rest = sum(counts.values()) - sum(one.rows for one in values)
    values.append(CandidateValue("all others", "all others", rest, is_shown=True))
    one = Candidate(
        table.id_of(column.name),
        table.name,
        column.name,
        "understood",
        f"{why}{hidden[0]}",
        tuple(values),
    )
    sql = f"({column.sql} IS NULL OR {column.sql} NOT IN ({listed(hidden)}))"
    return Ruling(one, Condition(table, sql, one.says, column.name))


def _names_a_secret(name: str) -> bool:
    if re.search(r"\.\w{2,5}$", name) or len(words(name)) > known.MIN_ROWS:  # a file, or a sentence
        return False
    return any(map(is_named_like_a_secret, (name, *words(name)))) or bool(
        known.PERSONAL & {*words(name)}
    )


def _older_versions(catalog: DatabaseCatalog, table: Table) -> Iterator[Ruling]:
    """Yield the ruling that leaves out versions to which the row that has them does not point as
    its newest."""
    for owner in {
        one.parent
        for one in table.parents
        if known.VERSIONS & {table.noun[-1]} and len(table.key) == 1
    }:
        for column in owner.columns.values() if owner is not table else ():
            named = [value for value in column.given if value not in NOTHING]
            newest = is_any(words(column.name), known.NEWEST | known.SHOW | {"last"})
            if newest and catalog.share_found(named, table, table.key[0]) >= known.MIN_FOUND:
                some = f"SELECT {column.sql} FROM {owner.sql} WHERE {column.sql} IS NOT NULL"
                sql = f"{table.columns[table.key[0]].sql} IN ({some})"
                older = catalog.rows_that(table, f"NOT ({sql})")
                values = (CandidateValue("older", "older versions", older, is_shown=False),)
                why = f"is pointed at by {owner.own_name}.{column.name}"
                one = Candidate(
                    table.id_of(table.key[0]), table.name, table.key[0], "understood", why, values
                )
                yield Ruling(
                    one,
                    Condition(
                        table,
                        sql,
                        f"it is no newest version, as {owner.own_name}.{column.name} says",
                    ),
                )
