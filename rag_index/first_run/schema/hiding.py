"""Which rows are hidden by rows of other tables: permissions, states, places, kinds, labels, and what is above them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.columns import FEW, words
from rag_index.first_run.schema.subjects import (
    MAX_LABELS,
    NOTHING,
    Attribute,
    Condition,
    Relation,
    Subject,
    is_repeated,
)
from rag_index.first_run.schema.visibility import joined, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence


MIN_SHOWN = 0.1
"""If what rows name would leave fewer of them, that it is hidden says something else."""
MIN_KINDS = 3
"""If at least this many one-to-one tables detail the rows of a table, these are of different kinds."""
NAMED = "named"
"""What the reason begins with if rows are hidden for what they are called."""
MIN_LOGGED, MIN_LOGGED_ROWS = 60, 4
"""Values of a field are what programs repeat if they have at least this average length, and there are so many."""
MAX_LINKED = 8
"""A table with at most this many columns links rows of others; a wider one says what happened to them."""


def add_conditions(subjects: Sequence[Subject]) -> None:
    """Add the conditions that rows of other tables make for those of each table."""
    attributes = [attribute for one in subjects for attribute in one.attributes]
    captions = {attribute.caption.parent for attribute in attributes}
    for one in subjects:
        one.conditions += _restricted(one)
        one.conditions += _logged([attribute for attribute in attributes if attribute.own.child is one][:1])
    told = [[*_told_by_details(one), *_labelled(one)] for one in subjects]
    for one, more in zip(subjects, told, strict=True):
        one.conditions += _called_hidden(one, is_caption=one in captions)
        one.conditions += _below_hidden(one)
        one.conditions += more
    for one in subjects:
        _hide_with_parents(one, set())


def restricts(subject: Subject) -> bool:
    """Return whether a table is called like one with the rows of another one that not everybody may see."""
    return vocab.RESTRICTS.fullmatch("_".join(subject.noun)) is not None


def hides(relation: Relation) -> bool:
    """Return whether rows are hidden with the row that they name.

    They are not with a person, nor with a retired label or state, but for one that is called so: what has it stays.
    """
    parent, column = relation.parent, relation.columns[0]
    state = vocab.STATE_LABELS & {*words(column), *parent.noun[-1:]} and not relation.type_column
    if parent is relation.child or parent.is_people or relation.is_pointer or relation.prefix:
        return False
    lasting = [one for one in parent.conditions if state or "retired" in words(one.column)]
    lasting = [one for one in lasting if not one.reason.startswith(NAMED)]
    return len(lasting) < len(parent.conditions) and not _hides_all_that_name(relation)


def _hides_all_that_name(relation: Relation) -> bool:
    """Return whether nearly all rows would be hidden with what they merely name, such as an organisation.

    What they are in, as pages are in a folder or several rows in a project, hides them all.
    """
    child, parent, column = relation.child, relation.parent, relation.columns[0]
    rows = [row[column] for row in child.shown_rows()]
    several = len({*rows}) < len(rows) and not {*parent.noun} & {*vocab.PEOPLE, *vocab.ORGANISATIONS}
    owns = parent.noun[-1] in vocab.CONTAINERS or {*parent.noun} <= {*child.noun} or relation.extends
    return sum(map(bool, map(_shows(relation), rows))) < MIN_SHOWN * len(rows) and not (several or owns)


def _shows(relation: Relation) -> Callable[[Any], object]:
    """Return whether the row that a value of a relation's column names may be shown, as far as the samples say."""
    if relation.type_column:
        return lambda value: True
    key, parent = relation.pairs[0][1], relation.parent
    hidden = {*parent.columns[key].values} - {row[key] for row in parent.shown_rows()}
    return lambda value: value not in hidden


def _hide_with_parents(subject: Subject, above: set[Subject]) -> None:
    """Add the conditions that leave out what names a hidden row, at any number of steps."""
    if any(one.relation is not None for one in subject.conditions):
        return
    for relation in subject.relations:
        if relation.parent in above or len(relation.pairs) > 1:
            continue
        _hide_with_parents(relation.parent, {*above, subject})
        if hides(relation):
            ((column, key),) = relation.pairs
            hidden = _hidden_rows(relation.parent, key, relation.parent.conditions)
            named = f"{relation.child.columns[column].sql} IN ({hidden})"
            sql = f"({' AND '.join(filter(None, [relation.type_sql, named]))}) IS NOT TRUE"
            reason = f"a row is hidden with that of {relation.parent.full_name}"
            subject.conditions.append(Condition(column, sql, reason, _shows(relation), relation))


def answers_none(relation: Relation) -> Condition:
    """Return the condition that leaves out replies: they are parts of what they answer."""
    column = relation.child.columns[relation.columns[0]]
    nothing = {"number": "0", "text": "''"}.get(column.kind)
    sql = f"COALESCE({column.sql}, {nothing}) = {nothing}" if nothing else f"{column.sql} IS NULL"
    return Condition(column.name, sql, f"{column.name} is set for replies, which are parts", lambda value: not value)


def _hidden_rows(table: Subject, column: str, conditions: Sequence[Condition]) -> str:
    """Return in SQL a column of the rows that conditions hide."""
    return f"SELECT {table.columns[column].sql} FROM {table.sql} WHERE ({joined(conditions)}) IS NOT TRUE"


def _named_rows(relation: Relation, where: str = "") -> str:
    """Return in SQL what the rows of the child name, or those that meet a condition."""
    name = relation.child.columns[relation.columns[0]].sql
    told = " AND ".join(filter(None, [relation.type_sql, f"{name} IS NOT NULL", where]))
    return f"SELECT {name} FROM {relation.child.sql} WHERE {told}"


def _not_in(subject: Subject, name: str, hidden: str, reason: str) -> Condition:
    return Condition(name, f"{subject.columns[name].sql} NOT IN ({hidden})", reason)


def _reasons(conditions: Sequence[Condition]) -> str:
    return "; ".join(one.reason for one in conditions)


def _restricted(subject: Subject) -> Iterator[Condition]:
    """Yield the conditions that leave out rows that another table restricts, and those below them by their path."""
    for relation in subject.children:
        plain = restricts(relation.child) and not relation.type_column
        permits = vocab.PERMITS.fullmatch("_".join(relation.child.noun)) is not None
        # only if it is for a few rows: these are not for all
        few = permits and len({*relation.named()} - {None, *NOTHING}) <= FEW * subject.rows
        if len(relation.pairs) > 1 or not (plain or few or _is_for_groups(subject, relation)):
            continue
        key, hidden, path = relation.pairs[0][1], _named_rows(relation), _path_of(subject)
        if path and not plain and _is_above_many(relation, path):
            continue
        if path:
            own, at, named = subject.sql, subject.columns[path].sql, subject.columns[key].sql
            hidden = (
                f"SELECT one.{named} FROM {own} AS one JOIN {own} AS above ON "
                f"SUBSTR(one.{at}, 1, LENGTH(above.{at})) = above.{at} WHERE above.{named} IN ({hidden})"
            )
        below = " and those below it" if path else ""
        yield _not_in(subject, key, hidden, f"{relation.child.full_name} says who may see a row{below}")


def _is_above_many(relation: Relation, path: str) -> bool:
    """Return whether many rows are below those that permissions name, such as the home page, by a column with paths."""
    named, rows = {*relation.named()}, relation.parent.rows_of(relation.pairs[0][1], path)
    above = tuple(at for key, at in rows if key in named)
    return sum(str(at).startswith(above) for _, at in rows) > FEW * len(rows)


def _is_for_groups(subject: Subject, relation: Relation) -> bool:
    """Return whether a table links a few rows with the groups of persons that alone may see them."""
    link = relation.child
    few = 0 < 2 * link.rows < subject.rows
    if not few or subject.is_people or not {*subject.noun} < {*link.noun} or not {*link.columns} <= link.named_columns:
        return False
    groups = [one.parent for one in link.relations if one.parent.noun[-1] in vocab.GROUP_NOUNS]
    members = [one.child for group in groups for one in group.children]
    return any(one.parent.is_people for member in members for one in member.relations)


def _path_of(subject: Subject) -> str:
    """Return the column with a path that begins with that of the row above, as pages of a tree may have; "" if none."""
    for name, column in subject.columns.items():
        values = [value for value in column.filled if isinstance(value, str)]
        if words(name)[-1:] == ("path",) and len(values) == len(column.values) > 0:
            size = min(map(len, values))
            above = tuple(value for value in values if len(value) == size)
            if len(above) < len(values) and all(value.startswith(above) for value in values):
                return name
    return ""


def _told_by_details(subject: Subject) -> Iterator[Condition]:
    """Yield what tables with one more row for each row hide: its place in a course, or its kind, one of several."""
    plain = [one for one in subject.children if one.is_plain]
    kinds = [one for one in plain if one.extends or (not one.child.key and _is_one_each(one))]
    places = [one for one in subject.children if one.type_column and not one.child.has_text and _is_one_each(one)]
    for one in [*places, *(kinds if len(kinds) >= MIN_KINDS else ())]:
        if told := one.child.conditions:
            hidden = _named_rows(one, f"({joined(told)}) IS NOT TRUE")
            yield _not_in(subject, one.pairs[0][1], hidden, f"in {one.child.full_name}, {_reasons(told)}")


def _is_one_each(relation: Relation) -> bool:
    """Return whether several rows are named, each once."""
    named = [one for one in relation.named() if one is not None and one not in NOTHING]
    return len(named) == len({*named}) > 1


def _logged(attributes: Sequence[Attribute]) -> Iterator[Condition]:
    """Yield the condition that leaves out the long values of a field that programs repeat."""
    for one in [one for one in attributes if one.value is None]:
        link, ((named, _),) = one.own.child, one.caption.pairs
        rows = link.rows_of(named, one.column)
        texts = {own: [str(text) for key, text in rows if key == own and text] for own, _ in rows}
        long = {own: some for own, some in texts.items() if sum(map(len, some)) > MIN_LOGGED * len(some)}
        logged = sorted(own for own, some in long.items() if is_repeated(some, MIN_LOGGED_ROWS))
        if logged:
            number = link.columns[named].kind == "number"
            sql = f"{link.columns[named].sql} NOT IN ({', '.join(map(str, logged)) if number else listed(logged)})"
            yield Condition(named, sql, f"{named} of some rows is that of what programs repeat")


def _labelled(subject: Subject) -> Iterator[Condition]:
    """Yield the conditions that leave out rows that are linked with a row for few, such as a restricted tag."""
    known = {subject, *(one.parent for one in subject.relations)}
    for own in subject.children:
        link = own.child
        plain = [one for one in link.relations if one.is_plain and not one.prefix]
        for other in plain if own in plain and link.is_link and len(link.profiles) <= MAX_LINKED else ():
            few = [one for one in other.parent.conditions if (vocab.INTERNAL - {"hidden"}) & {*words(one.column)}]
            if few and other.parent not in known and not other.parent.has_prose:  # no confidential issue, which is one
                labels = _hidden_rows(other.parent, other.pairs[0][1], few)
                hidden = _named_rows(own, f"{link.columns[other.columns[0]].sql} IN ({labels})")
                reason = f"in {other.parent.full_name}, which {link.full_name} links, {_reasons(few)}"
                yield _not_in(subject, own.pairs[0][1], hidden, reason)


def _called_hidden(subject: Subject, *, is_caption: bool) -> Iterator[Condition]:
    """Yield the conditions that leave out what is called so.

    Those are forums and labels that are not for all, bins of a tree, states such as `Deleted`, and captions of secrets.
    """
    own, title = any(one.parent is subject for one in subject.relations), str(subject.title)
    is_few, plain = 0 < subject.rows <= MAX_LABELS, [one for one in subject.children if one.is_plain]
    # an article may be about what is internal
    few = is_few and (subject.noun[-1] in vocab.CONTAINERS or not subject.has_prose)
    few = few and bool(subject.children) and len(subject.key) == 1 and not subject.is_people
    states = is_few and any({"status", "state"} & {*words(one.columns[0])} for one in plain)
    known = {one.column for one in subject.conditions}
    for name, column in subject.columns.items():
        called = {one for one in column.filled if isinstance(one, str) and name not in known}
        hidden = {one for one in called if few and name == title and vocab.INTERNAL_NAMES.fullmatch(one)}
        if own and (name == title or words(name)[-1] in {"name", *vocab.SLUGS}):
            hidden |= {one for one in called if vocab.BINS.fullmatch(one)}
        if is_caption and name in subject.captions:
            hidden |= {*filter(is_named_like_a_secret, called)}
        if states:
            is_moderated = any(one.lower() in {*vocab.PUBLISHED_VALUES, "approved"} for one in called)
            moderation = vocab.MODERATION - {"approved", "accepted"} if is_moderated else frozenset()
            hidden |= {one for one in called if one.lower() in vocab.STATES_FOR_FEW | moderation}
        if 0 < len(hidden) < len({*column.values}):
            sql = f"COALESCE({column.sql}, '') NOT IN ({listed(sorted(hidden))})"
            yield Condition(name, sql, f"{NAMED} {', '.join(sorted(hidden))}", partial(_is_none_of, hidden))


def _is_none_of(hidden: Collection[str], value: object) -> bool:
    return value not in hidden


def _below_hidden(subject: Subject) -> Iterator[Condition]:
    """Yield the condition that leaves out rows of a tree, such as pages, below a hidden one."""
    own = [one for one in subject.relations if one.parent is subject and one.is_plain]
    tree = [one.pairs[0] for one in own if not vocab.COPIES & {*words(one.columns[0])}]
    for column, key in tree[:1] if subject.conditions and subject.noun[-1] in vocab.CONTAINERS else ():
        own_key, above, table = subject.columns[key].sql, subject.columns[column].sql, subject.sql
        hidden = _hidden_rows(subject, key, subject.conditions)
        below = f"SELECT one.{own_key} FROM {table} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
        rows = f"WITH RECURSIVE hidden_rows (id) AS ({hidden} UNION {below}) SELECT id FROM hidden_rows"
        yield _not_in(subject, key, rows, f"a row is hidden with the one that {column} names")
