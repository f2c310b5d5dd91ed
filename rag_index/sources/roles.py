"""What the rows of tables are to those of others: parts of them, their text, their translations, or links to labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rag_index.sources.columns import words
from rag_index.sources.relations import CONTAINERS, VERSIONS, Relation, noun
from rag_index.sources.subjects import MIN_TITLES
from rag_index.sources.visibility import first_of_each
from rag_index.sources.vocabulary import known_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.sources.subjects import Subject, Subjects

PARTS = known_words("subjects", "parts")
OLD_VERSIONS = known_words("proposal", "old_versions")
PAIRS = {
    "post": frozenset(["topic", "thread", "discussion"]),
    "message": frozenset(
        ["topic", "thread", "conversation", "ticket", "case", "issue", "chat", "request", "enquiry", "inquiry"]
    ),
    "email": frozenset(["ticket", "case", "thread", "conversation", "request"]),
    "article": frozenset(["ticket", "case"]),
    "entry": frozenset(["ticket", "case", "thread", "conversation", "request"]),
    "activity": frozenset(["ticket", "case", "request", "deal", "lead"]),
    "option": frozenset(["product", "question"]),
}
"""Nouns of tables whose rows are parts of some tables alone."""
WRITERS = frozenset(
    ["sender", "author", "creator", "owner", "actor", "user", "poster", "writer", "recipient", "tagger"]
)
"""Words of columns that name who did it, of whatever type: a message is a part of its conversation."""
OUT = frozenset(["live", "published", "active", "current"])
"""Words of columns that name the version that people see, beside `latest`."""
MAX_LINK_COLUMNS = 6
"""The columns, beside times, up to which a table without texts links rows of two others."""
MIN_OWN_TITLES = 0.5
"""The share of titles of their own from which on rows with texts are looked for by themselves."""
MIN_CONTAINED = 4
"""The rows for each row of another table from which on that one contains them, and does not consist of them."""
MAIN = frozenset(["item", "content", "entry", "section", "element"])
"""What a table of documents may be called, though others of that name hold parts."""
LONG = frozenset(["note", "document", "report", "letter", "finding"])
"""Nouns of tables whose texts are documents, whatever they were written for."""
MIN_OWN_CHARS = 150
"""The average length of these from which on they are."""
MAX_LABEL_CHARS = 200
"""The average length of texts up to which what has a title may be a label, as a category with a description is."""
MAX_DEPTH = 3
"""How many tables a part may be below another one."""
MIN_PART_FILLED = 0.05
"""The share of rows with text from which on rows are parts."""


@dataclass(slots=True)
class TableRoles:
    """What the rows of tables are to those of others."""

    subjects: Subjects
    parts: dict[Subject, list[Relation]] = field(default_factory=dict)
    """The relations by which the rows of a table are parts."""
    root: dict[Subject, Relation] = field(default_factory=dict)
    """The relation of a table of translations or versions to what they are of: its rows are the documents."""

    def parts_of(self, subject: Subject) -> list[tuple[Subject, Relation]]:
        """Return the tables whose rows are parts of this one's, with the relation: messages of conversations first."""
        found = [
            (child, relation)
            for child in self.subjects.all
            for relation in self.parts.get(child, [])
            if relation.parent is subject.table
        ]
        return sorted(found, key=lambda one: subject.noun[-1] not in PAIRS.get(one[0].noun[-1], ()))

    def parts_below(self, subject: Subject, depth: int = MAX_DEPTH) -> list[tuple[Subject, list[Relation]]]:
        """Return the tables whose rows are parts of a part, with the relations from there to it."""
        found: list[tuple[Subject, list[Relation]]] = []
        for child, relation in self.parts_of(subject) if depth else ():
            below = self.parts_below(child, depth - 1)
            found += [(child, [relation])] if child.has_text or not below else []
            found += [(last, [*way, relation]) for last, way in below]
        return found

    def links_of(self, subject: Subject) -> list[tuple[Relation, list[Relation]]]:
        """Return the tables that link rows with labels such as tags: the relation to this one, those to the label.

        Labels with short names, such as tags, come before those of plug-ins.
        """
        found = []
        for link in self.subjects.all:
            to_this = [one for one in link.relations if one.parent is subject.table and not one.prefix]
            columns = [one for one in link.profiles.values() if one.role != "time"] if to_this else []
            called = link.title and not link.is_value
            if not to_this or link.prose or called or len(columns) > MAX_LINK_COLUMNS or link is subject:
                continue
            if link.is_private or link.is_machinery:
                continue
            types = {one.type_column for one in to_this}
            others = [
                one
                for one in link.relations
                if one.parent is not subject.table and not one.type_column and one.columns[0] not in types
            ]
            for own in to_this[:1]:
                for other in others:
                    known = _is_known(own, other, self.subjects) or _is_known(other, own, self.subjects)
                    way = [] if known else self._label_way(own, other)
                    found += [(own, way)] if way else []
        return sorted(found, key=lambda one: len(noun(one[1][-1].parent.name)))

    def _label_way(self, own_side: Relation, first: Relation) -> list[Relation]:
        """Return the relations to the label that a link names, one or two; [] if what it names has no name."""
        label = self.subjects.of(first.parent)
        told = not label.has_prose and any(child.has_prose for child, _ in self.parts_of(label))  # a discussion
        if label.is_people or not label.table.key or label.says_nothing or told:
            return []
        many = label.table.rows >= MIN_CONTAINED * own_side.parent.rows  # the bugs of a keyword
        if label.is_whole and (many or label.text_length > MAX_LABEL_CHARS):  # the changes of a computer
            return []
        if label.title and not label.is_unnamed:
            return [first]
        for names in (self.subjects.of(one.child) for one in label.children):
            own = next(
                (one for one in names.relations if names.is_by_language(one) and one.parent is label.table), None
            )
            if own is not None and len(first.columns) == 1 and not (names.has_prose and _contains(own_side, first)):
                return [Relation(first.child, names.table, ((first.columns[0], own.columns[0]),))]
        if any(one.role == "time" for one in label.profiles.values()):
            return []  # an order, say: what it names is no label of what it contains
        for second in label.relations:
            last = self.subjects.of(second.parent)
            named = last.title in last.table.columns and not last.is_people and not last.says_nothing
            if named and not second.type_column and last is not label:
                return [first, second]
        return []

    def naming(self, relation: Relation) -> tuple[Relation, str]:
        """Return the relation to what says how a row is called, itself or a table with its names; which of them does.

        The second is a condition in SQL; "" if the row has its name itself, or none.
        """
        label = self.subjects.of(relation.parent)
        for own in label.children if not label.title and len(relation.pairs) == 1 else ():
            names, columns = self.subjects.of(own.child), own.child.columns
            ordered = [columns[key].kind in ("number", "text") for key in own.child.key] == [True]  # a UUID has no MIN
            if names.noun == (*label.noun, "name") and names.title in columns and ordered:
                found = Relation(relation.child, own.child, ((relation.columns[0], own.columns[0]),))
                return found, first_of_each(own, names.conditions, names.profiles, self.subjects.catalog)
        return relation, ""


def _is_known(here: Relation, there: Relation, subjects: Subjects) -> bool:
    """Return whether a link names on one side what the row of the other side names itself, such as its project."""
    columns = here.child.columns
    named = list(zip(columns[here.columns[0]].values, columns[there.columns[0]].values, strict=True))
    if here.type_column:
        types = columns[here.type_column].values
        named = [row for row, kind in zip(named, types, strict=True) if kind == here.type_value]
    for own in subjects.of(here.parent).relations:
        if own.parent is not there.parent or own.type_column or len(own.pairs) > 1 or own.prefix:
            continue
        rows = here.parent.columns
        by_key = dict(zip(rows[here.pairs[0][1]].values, rows[own.columns[0]].values, strict=True))
        pairs = [(by_key[row], name) for row, name in named if row in by_key and name is not None]
        if all(a == b for a, b in pairs) if pairs else own.columns == there.columns:
            return True
    return False


def _contains(own: Relation, other: Relation) -> bool:
    """Return whether what a link names on one side has several of the other side, as categories have products."""
    columns = own.child.columns
    containing, contained = ({*columns[one.columns[0]].filled} for one in (own, other))
    return len(containing) < len(contained)


def part_relation(subject: Subject, subjects: Subjects) -> list[Relation]:
    """Return the relations by which the rows of a table are parts of others: one, or one for each type; [] if none."""
    donated = donors_of_part(subject, subjects)
    if subject.version or not (subject.prose or (subject.title and not subject.is_label) or donated):
        return []
    usable = [
        one
        for one in subject.relations
        if _may_have_parts(subjects.of(one.parent)) and one.parent is not subject.table and not one.prefix
    ]
    usable = [one for one in usable if not (one.type_column and WRITERS & {*words(one.columns[0])})]
    usable = [one for one in usable if not _is_own_text(subject, subjects.of(one.parent), one)]
    typed = [one for one in usable if one.type_column]
    if typed and (subject.noun[-1] in PARTS or not subject.title):
        return typed if not subject.is_whole or _of_all(subject, typed) else []
    fits = [(rank, one) for one in usable if (rank := _rank(subject, subjects.of(one.parent), one, subjects))]
    return [max(fits, key=lambda fit: (fit[0], len(fit[1].pairs), fit[1].parent.rows))[1]] if fits else []


def _is_own_text(child: Subject, parent: Subject, relation: Relation) -> bool:
    """Return whether long texts belong to what has hardly one itself and no title: the notes of an encounter."""
    extends = relation.columns == list(child.table.key)
    conversation = parent.noun[-1] in PAIRS.get(child.noun[-1], ()) or child.noun[-1] not in LONG
    return not (parent.title or extends or conversation) and child.text_length >= max(
        MIN_OWN_CHARS, MIN_CONTAINED * parent.text_length
    )


def _may_have_parts(parent: Subject) -> bool:
    return not parent.refusal() and bool(parent.table.key) and not parent.is_login


def _is_named_by_language(parent: Subject, subjects: Subjects) -> bool:
    """Return whether another table has what rows are called, in each language."""
    children = [subjects.of(one.child) for one in parent.children]
    return any(one.locale and one.title and one.noun[: len(parent.noun)] == parent.noun for one in children)


def _rank(child: Subject, parent: Subject, relation: Relation, subjects: Subjects) -> int:
    """Return how surely the rows of a table are parts of the other's; 0 if they are none."""
    is_whole = child.is_whole and not {*relation.columns} & {*child.table.key}
    last = child.noun[-1]
    pairs = parent.noun[-1] in PAIRS.get(last, ())
    named_after = set(parent.noun) <= set(child.noun[:-1])
    told = parent.has_text or named_after or _is_named_by_language(parent, subjects)
    if relation.is_pointer or parent.is_scope or (is_whole and not pairs and not told):
        return 0
    if parent.noun[-1] in CONTAINERS and child.noun == parent.noun[:-1]:  # `faq` of `faq_category`
        return 0
    is_own = _is_container_of(parent, child) or not (parent.has_prose or parent.locale)
    if is_whole and last not in PARTS and not pairs and is_own:
        return 0
    if is_whole and len(child.noun) == 1 and last in MAIN:  # what is sold, say, of a brand
        return 0
    extends = relation.columns == list(child.table.key) and not relation.type_column
    if extends and parent.has_text and not parent.is_people:
        return 5
    if last.startswith(parent.noun[-1]) and last.removeprefix(parent.noun[-1]) in PARTS:  # `bugnote`
        return 4
    if last in PAIRS:
        return 4 if parent.noun[-1] in PAIRS[last] else 3 if parent.noun[-1] in child.noun[:-1] else 0
    if named_after or (parent.noun[-1] in child.noun[:-1] and (last in PARTS or not child.title)):
        return 4
    if parent.is_people:
        return 0
    whole_key = len(parent.table.key) > 1 and set(parent.table.key) <= set(relation.columns)
    if whole_key and not child.title and parent.has_text:
        return 3
    if last in PARTS and not (child.title and child.text_length > 150 and parent.has_prose):
        return 3 if not parent.is_label else 2
    unnamed = not child.title and child.has_prose and parent.has_text and not parent.is_label and not child.codes
    return 1 if unnamed and not _holds_messages(child, subjects) else 0


def _of_all(child: Subject, typed: Sequence[Relation]) -> bool:
    """Return whether nearly all rows are parts of others by their type: else some would be in no document."""
    known = {one.type_value for one in typed}
    kinds = child.table.columns[typed[0].type_column].values
    return sum(kind in known for kind in kinds) >= MIN_TITLES * len(kinds)


def _holds_messages(subject: Subject, subjects: Subjects) -> bool:
    """Return whether rows are held together by what is in them, as a conversation is by its messages."""
    return any(subject.noun[-1] in PAIRS.get(subjects.of(one.child).noun[-1], ()) for one in subject.children)


def _is_container_of(parent: Subject, child: Subject) -> bool:
    """Return whether rows contain many of another table that have titles of their own: projects with their tasks."""
    title = child.profiles.get(str(child.title))
    own = title is not None and title.filled >= MIN_TITLES and title.distinct >= MIN_OWN_TITLES
    return own and parent.table.rows * MIN_CONTAINED <= child.table.rows


def text_parents(subject: Subject, subjects: Subjects) -> list[list[Relation]]:
    """Return the ways, of one or two relations, to rows of other tables that hold the text of this one."""
    found: list[list[Relation]] = []
    for one in subject.relations:
        donor = subjects.of(one.parent)
        if one.is_pointer and (_is_extended(subject, subjects) or _is_older(one, subject)):
            continue
        if donor.title and not (one.is_pointer or subject.title):  # what is on the front page, say
            continue
        if (subject.has_prose and not one.is_pointer) or any(
            own.columns == list(donor.table.key) and own.parent is not subject.table for own in donor.relations
        ):
            continue
        if donor is subject or donor.is_people or one.type_column or not (one.is_pointer or donor.noun[-1] in VERSIONS):
            continue
        if any(donor.profiles[name].role == "prose" for name in donor.prose):
            found.append([one])
            continue
        for second in donor.relations:
            last = subjects.of(second.parent)
            if (
                last.noun[-1] in VERSIONS
                and last is not subject
                and any(last.profiles[n].role == "prose" for n in last.prose)
            ):
                found.append([one, second])
    return found


def donors_of_part(subject: Subject, subjects: Subjects) -> list[Relation]:
    """Return the relations to rows that hold the text of rows which may be parts: `bugnote_text` of `bugnote`."""
    ways = text_parents(subject, subjects)
    return [way[0] for way in ways if len(way) == 1 and not way[0].is_pointer and not _is_of_others(way[0], subjects)]


def _is_of_others(donor: Relation, subjects: Subjects) -> bool:
    """Return whether the text that a row names is an older version of rows of another table."""
    named = subjects.of(donor.parent)
    others = [subjects.of(one.parent) for one in named.relations if one.parent is not donor.child]
    return named.noun[-1] in OLD_VERSIONS and any(one.has_prose and not one.is_people for one in others)


def _is_extended(subject: Subject, subjects: Subjects) -> bool:
    """Return whether other tables have one more row with texts for each row: versions repeat these."""
    return any(
        one.columns == list(one.child.key) and not one.type_column and subjects.of(one.child).has_prose
        for one in subject.children
    )


def _is_older(pointer: Relation, subject: Subject) -> bool:
    """Return whether a pointer names the latest version, drafts among them, and another one the version that is out."""
    others = [one for one in subject.relations if one.parent is pointer.parent and one is not pointer]
    out = [one for one in others if OUT & {*words(one.columns[0])}]
    return bool(out) and not OUT & {*words(pointer.columns[0])}


def pointed_texts(subject: Subject, subjects: Subjects) -> list[tuple[Relation, Relation, list[Relation]]]:
    """Return how the text of the version that a row names is reached, if a table of links leads from there to it.

    That are the relation to the version, that of the links to it, and the way from the links, of one or two relations.
    """
    return [
        (pointer, own, way)
        for pointer in subject.relations
        if pointer.is_pointer and not pointer.type_column and not subject.has_prose
        for own in subjects.of(pointer.parent).children
        if not subjects.of(own.child).has_text
        and own.child is not subject.table
        and not own.type_column
        and not (own.prefix or pointer.prefix)
        and {key for _, key in own.pairs} == {key for _, key in pointer.pairs}
        for way in _ways_to_text(subjects.of(own.child), own, subjects)
    ]


def _ways_to_text(link: Subject, own: Relation, subjects: Subjects) -> list[list[Relation]]:
    """Return the ways from a row to a text, of one or two relations, without the relation `own`."""
    firsts = [one for one in link.relations if one is not own and not one.type_column]
    ways = [[one] for one in firsts]
    ways += [[one, two] for one in firsts for two in subjects.of(one.parent).relations if not two.type_column]
    return [way for way in ways if _is_text_of(subjects.of(way[-1].parent), way[-1])]


def _is_text_of(donor: Subject, relation: Relation) -> bool:
    """Return whether a relation leads to the table with the texts of versions."""
    return donor.noun[-1] in VERSIONS and donor.has_prose and not relation.is_pointer


def wanted_texts(subject: Subject, columns: Sequence[str]) -> list[str]:
    """Return those columns that are filled often enough to be the text of a part."""
    return [name for name in columns if subject.profiles[name].filled >= MIN_PART_FILLED]
