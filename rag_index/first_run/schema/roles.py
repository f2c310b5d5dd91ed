"""What the rows of tables are to those of others: parts of them, their text, their translations, or links to labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.columns import MOST, NEARLY_ALL, ColumnProfile, names_for_programs, noun, words
from rag_index.first_run.schema.subjects import MAX_LABELS, Relation, Subject

if TYPE_CHECKING:
    from collections.abc import Container, Sequence


MAX_LINK_COLUMNS = 6
"""A table without texts and with at most this many columns, beside times, links rows of two others."""
MAX_VALUES = 20
"""A row has at most this many rows of another table, on average, that are values of it."""
MIN_STEM = 3
"""The letters of a word that says something."""
MIN_CONTAINED = 4
"""If a row has at least this many rows of another table, it contains them and does not consist of them."""
MIN_UNUSED = 4
"""Rows with a title, that many times as many as those that name them, are not the texts of these."""
MIN_SECTION = 150
"""Parts with a heading, such as sections of a law, are documents if their texts are longer on average."""
MAX_LABEL_CHARS = 120
"""Rows with a title may be labels, such as categories, if their texts are at most this long on average."""
MIN_PERSON = 2
"""Rows of a key and more than one name, and nothing else, are persons."""
MIN_NAMED_ROWS = 5
"""Rows with keys and dates say something if they name at least this many others."""
MAX_LINKS = 5
MAX_NAMED = 6
MAX_DEPTH = 3
"""How many tables a part may be below another one."""
MIN_PART_FILLED = 0.05
"""If fewer rows have text, they are no parts."""


@dataclass(frozen=True, slots=True, eq=False)
class Below:
    """Rows that are shown in the documents of a table."""

    way: list[Relation]
    """The relations from the rows to those of the table, one for each step."""
    shown: list[list[Relation]] = field(default_factory=list)
    """The ways from there to other rows with texts of theirs."""
    columns: Sequence[str] = ()
    """The columns with words, if the rows have no text."""
    label: bool = False
    """Whether the rows only say what they name: the only way leads to what has a name."""

    @property
    def tables(self) -> set[Subject]:
        """Return the tables of the rows, and of those with texts."""
        return {self.way[0].child, *[way[-1].parent for way in self.shown]}

    def through(self, pointer: Relation) -> Below:
        """Return the same for the rows that name those of the table by this relation."""
        columns = {there: here for here, there in pointer.pairs}
        last = self.way[-1]
        named = replace(last, parent=pointer.child, pairs=tuple((here, columns[there]) for here, there in last.pairs))
        return replace(self, way=[*self.way[:-1], named])


@dataclass(slots=True)
class TableRoles:
    """What the rows of tables are to those of others."""

    default_schema: str | None
    subjects: list[Subject]
    parts: dict[Subject, list[Relation]] = field(default_factory=dict)
    """The relations by which the rows of a table are parts."""
    root: dict[Subject, Relation] = field(default_factory=dict)
    """The relation of a table of translations or versions to what they are of: its rows are the documents."""

    def parts_of(self, subject: Subject) -> list[tuple[Subject, Relation]]:
        """Return the tables whose rows are parts of this one's, with the relation: messages of conversations first."""
        found = [(one.child, one) for one in subject.children if one in self.parts.get(one.child, ())]
        return sorted(found, key=lambda one: subject.noun[-1] not in vocab.PAIRS.get(one[0].noun[-1], ()))

    def parts_below(self, subject: Subject, depth: int = MAX_DEPTH) -> list[tuple[Subject, list[Relation]]]:
        """Return the tables whose rows are parts of a part, with the relations from there to it."""
        found: list[tuple[Subject, list[Relation]]] = []
        for child, relation in self.parts_of(subject) if depth else ():
            below = self.parts_below(child, depth - 1)
            found += [(child, [relation])] if child.has_text or not below else []
            found += [(last, [*way, relation]) for last, way in below]
        return found

    def below(self, subject: Subject) -> list[Below]:
        """Return the rows that are shown in the documents of a table: parts, texts that links hold, and labels."""
        ways = [way for _, way in self.parts_below(subject)]
        if (thread := subject.thread) is not None:
            ways += [[*way, thread] for way in ([], *ways)]
        parts = [Below(way, [[one] for one in donors_of_part(way[0].child)]) for way in ways]
        links = [(own, [label]) for own, label in self.links_of(subject)[:MAX_LINKS] if label.parent is not subject]
        named = [*links, *self.records_of(subject)]
        labelled = [Below([own], [[one] for one in labels], label=True) for own, labels in named]
        return [*parts, *pointed_texts(subject)[:1], *labelled, *_values_of(subject)]

    def links_of(self, subject: Subject) -> list[tuple[Relation, Relation]]:
        """Return the tables that link rows with labels such as tags: the relation to this one, and to the label.

        Labels with short names, such as tags, come before those of plug-ins.
        """
        found = []
        for link in dict.fromkeys(one.child for one in subject.children):
            played = link.title in link.profiles and link.profiles[link.title].last_word in vocab.PLAYED
            if link.is_private or link.is_machinery or link.prose or (link.title and not (link.is_value or played)):
                continue
            told = [one.role for one in link.profiles.values() if one.role not in ("time", "empty")]
            # the lines of an order, which says nothing itself, may have numbers besides
            lines = not subject.has_text and {*subject.noun} & {*link.noun} and link.rows <= MAX_VALUES * subject.rows
            if sum(role not in ("number", "flag") or not lines for role in told) > MAX_LINK_COLUMNS:
                continue
            to_this = [one for one in link.relations if one.parent is subject]
            own, types = to_this[0], {one.type_column for one in to_this}
            others = [one for one in link.own_relations if one is not own and one.columns[0] not in types]
            others = [one for one in others if one.parent is not subject or subject.title_row]
            unknown = [one for one in others if not _is_known(own, one)]
            found += [(own, label) for one in unknown if (label := self._label_of(own, one)) is not None]
        return sorted(found, key=lambda one: len(noun(one[1].parent.name)))

    def _label_of(self, own_side: Relation, relation: Relation) -> Relation | None:
        """Return the relation to the label that a link names, or to its names in each language; None if it is none."""
        label = relation.parent
        persons = label.is_people or len(label.columns) == len([*label.key, *label.title_columns]) > MIN_PERSON
        if (persons and not _is_credit(relation)) or not label.key or label.says_nothing:
            return None
        if label.refusal().startswith("holds"):  # what moderators are told
            return None
        many = label.rows >= MIN_CONTAINED * own_side.parent.rows  # the bugs of a keyword
        said = label.is_whole or words(str(label.title))[-1] in vocab.SUBJECTS
        # a document names a person of whom there is much to say, and no other thing
        said = said and label.noun[-1] not in {*vocab.PEOPLE, *vocab.PERSONS, *vocab.WRITERS}
        if said and (many or label.text_length > MAX_LABEL_CHARS):  # the changes of a computer, the mails of a person
            return None
        if (label.title and not label.is_unnamed) or label.title_row:
            return relation.to_title()
        # of a link, the side with fewer rows contains several of the other one, as categories have products
        containing, contained = ({*relation.child.columns[one.columns[0]].filled} for one in (own_side, relation))
        for own in label.children if len(relation.columns) == 1 else ():
            if own.child.is_by_language(own) and not (own.child.has_prose and len(containing) < len(contained)):
                return Relation(relation.child, own.child, ((relation.columns[0], own.columns[0]),))
        return None

    def records_of(self, subject: Subject) -> list[tuple[Relation, list[Relation]]]:
        """Return what happened to rows by keys and dates alone, such as admissions: the relation here, and to names."""
        found = []
        for own in [one for one in subject.children if one.is_plain and one.child not in self.parts]:
            record, named = own.child, _named_by_record(own.child)
            rows = max((one.parent.rows for one in named), default=0)
            # a match is always of two teams, and a visit of a page has one before it at times
            both = [one for one in named if one is not own]
            both = [one for one in both if one.parent is not subject or min(one.share, own.share) >= NEARLY_ALL]
            others = [one.to_title() for one in both]
            said = any(len({*one.named()}) >= MIN_NAMED_ROWS for one in others)
            largest = subject.rows == rows and (rows > MAX_LABELS or any(one.parent is subject for one in both))
            if own in named and largest and said and not record.refusal():
                found.append((own, others[:MAX_NAMED]))
        return found


def _values_of(subject: Subject) -> list[Below]:
    """Return the tables with words of rows and no more, such as genres, and neither states nor what programs name."""
    found = []
    for own in [one for one in subject.children if one.is_plain and one.share >= NEARLY_ALL]:
        child, alone = own.child, own.child.relations == [own] and own.child.rows <= MAX_VALUES * subject.rows
        told = [p.name for p in child.profiles.values() if p.name not in own.columns and _says_words(child, p)]
        few = len(child.profiles) <= MAX_LINK_COLUMNS and not (child.children or child.has_text or child.refusal())
        if told and alone and few and not subject.is_login:
            found.append(Below([own], columns=told))
    return found


def _says_words(child: Subject, p: ColumnProfile) -> bool:
    """Return whether a column has words that say something of a row, and not its state or what programs call it."""
    spoken = sum(len(text) >= MIN_STEM and text.isprintable() and not any(map(str.isdigit, text)) for text in p.texts)
    read = p.role in ("choice", "code") and spoken >= MOST * len(p.texts) > 0
    told = read and not {*words(p.name)} & (vocab.STATE_LABELS | vocab.TYPE_WORDS | vocab.MACHINE)
    return told and not names_for_programs(child.columns[p.name])


def _named_by_record(record: Subject) -> list[Relation]:
    """Return the relations to things with names of rows that have neither a name nor a text; [] if they have."""
    links = sum(one.role != "time" for one in record.profiles.values()) <= MAX_LINK_COLUMNS
    if links or record.has_text:
        return []
    named = [one for one in record.own_relations if one.is_plain and not (one.is_pointer or one.parent.is_login)]
    named = [one for one in named if not vocab.STATE_LABELS & {*words(one.columns[0])}]
    return [one for one in named if (one.parent.title or one.parent.title_row) and not one.parent.says_nothing]


def _is_credit(relation: Relation) -> bool:
    """Return whether a link names who took part, such as an actor, and is no way to reach them."""
    known = [one for one in relation.parent.profiles.values() if one.filled]
    reached = any(one.role == "personal" and vocab.CONTACT & {*words(one.name)} for one in known)
    dated = [one for one in relation.child.profiles.values() if one.role == "time"]  # a loan has dates
    lasting = any(not {*words(one.name)} & (vocab.MADE | vocab.CHANGED) for one in dated)
    private = any(one.role in ("secret", "internal") for one in known)
    return not (relation.parent.is_login or lasting or reached or private)


def _is_known(own: Relation, label: Relation) -> bool:
    """Return whether all rows of a link name what the row that they link names itself, such as its project."""
    links = {*own.child.rows_of(own.columns[0], label.columns[0])}
    for one in own.parent.own_relations:
        if one.parent is label.parent and one.is_plain:
            by_key = dict(own.parent.rows_of(own.pairs[0][1], one.columns[0]))
            return all(by_key[key] == name for key, name in links if key in by_key and name is not None)
    return False


def part_relation(subject: Subject) -> list[Relation]:
    """Return the relations by which the rows of a table are parts of others: one, or one for each type; [] if none."""
    has_text = subject.prose or (subject.title and not subject.is_label) or donors_of_part(subject)
    # threads of messages with a title, and what contains such, are no part of a course or a forum
    threads = [subject, *(one.child for one in subject.children if one.is_plain)]
    holds_threads = any(one.title and any(_is_pair(one, below.child) for below in one.children) for one in threads)
    if subject.version or not has_text or holds_threads:
        return []
    usable = [
        one
        for one in subject.relations
        if one.parent.key and not one.parent.refusal() and not one.parent.is_login
        and one.parent is not subject
        and not one.prefix
        and not (one.type_column and vocab.WRITERS & {*words(one.columns[0])})
    ]  # fmt: skip
    plain = Counter(one.columns[0] for one in usable if one.is_plain)
    typed = [one for one in usable if one.type_column or (one.is_plain and plain[one.columns[0]] > 1)]
    if typed and (subject.noun[-1] in vocab.PARTS or subject.noun[-1] in vocab.PAIRS or not subject.title):
        # nearly all rows of what has a text of its own: else some would be in no document
        kinds = [kind for (kind,) in subject.rows_of(*filter(None, [typed[0].type_column]))]
        known = sum(kind in {one.type_value for one in typed} for kind in kinds)
        return typed if not subject.is_whole or known >= NEARLY_ALL * len(kinds) else []
    fits = [(rank, one) for one in usable if (rank := _rank(one))]
    fits.sort(key=lambda fit: (fit[0], len(fit[1].pairs), fit[1].parent.rows, fit[1].share), reverse=True)
    found: list[Relation] = []
    for _, one in fits:  # what a note is of is in one of several columns, and the others are empty
        if all(one.parent is not other.parent and one.excludes(other) for other in found):
            found.append(one)
    return found or ([] if subject.is_whole else exclusive_owners(subject))


def exclusive_owners(subject: Subject) -> list[Relation]:
    """Return the relations to several kinds of things, one of which each row belongs to; [] if there are none."""
    ways = [one for one in subject.own_relations if one.parent.has_text and not one.parent.is_people]
    found = [one for one in ways if any(one.parent is not other.parent and one.excludes(other) for other in ways)]
    return found if sum(one.share for one in found) >= NEARLY_ALL else []


def names_what(subject: Subject, documents: Container[Subject]) -> Relation | None:
    """Return the relation of rows with names alone to the only document that each of them names, such as bookmarks.

    They are few in each, and nothing that other rows name.
    """
    ways = [one for one in subject.own_relations if one.is_plain and not one.is_pointer and not one.parent.is_people]
    ways = [one for one in ways if one.parent in documents and one.parent is not subject and one.share >= NEARLY_ALL]
    few = len(ways) == 1 and subject.rows <= MAX_VALUES * len({*ways[0].named()})
    return ways[0] if few and subject.title and not (subject.children or subject.is_installed) else None


def _is_pair(parent: Subject, child: Subject) -> bool:
    """Return whether rows are parts of those of the parent by what both are called, such as messages of a ticket."""
    return parent.noun[-1] in vocab.PAIRS.get(child.noun[-1], ())


def _rank(relation: Relation) -> int:
    """Return how surely the rows of a table are parts of the other's; 0 if they are none."""
    child, parent = relation.child, relation.parent
    last, above, pairs = child.noun[-1], parent.noun[-1], _is_pair(parent, child)
    is_part = last in vocab.PARTS
    if above in vocab.CONTAINERS and child.noun == parent.noun[:-1]:  # `faq` of `faq_category`
        return 0
    if child.is_whole and not {*relation.columns} & {*child.key}:
        title = child.profiles.get(str(child.title))
        named = title is not None and title.filled >= NEARLY_ALL and title.distinct >= MOST
        contains = named and parent.rows * MIN_CONTAINED <= child.rows  # projects with their tasks
        is_own = not is_part and (contains or not (parent.has_prose or parent.locale))
        sold = len(child.noun) == 1 and last in vocab.MAIN  # what is sold, say, of a brand
        if sold or (not pairs and (is_own or last in vocab.TASKS)):
            return 0
    if relation.extends and parent.has_text and not parent.is_people:
        return 5
    if last.startswith(above) and last.removeprefix(above) in vocab.PARTS:  # `bugnote`
        return 4
    if last in vocab.PAIRS:
        return 4 if pairs else 3 if above in child.noun[:-1] else 0
    if {*parent.noun} <= {*child.noun[:-1]} or (above in child.noun[:-1] and (is_part or not child.title)):
        return 4
    if parent.is_people:
        return 0
    if is_part and not (child.title and child.text_length > MIN_SECTION):
        return 2 if parent.is_label else 3
    thing = parent.title and not (parent.is_unnamed or parent.is_label)
    if thing and child.is_unnamed and relation.share >= NEARLY_ALL:  # the ports of a device
        told = child.rows_of(relation.columns[0], str(child.title))
        return int(len({*told}) == len(told))
    unnamed = not child.title and child.has_prose and parent.has_text and not parent.is_label and not child.codes
    holds_messages = any(_is_pair(child, one.child) for one in child.children)
    return int(unnamed and not holds_messages)


def text_parents(subject: Subject) -> list[list[Relation]]:
    """Return the ways, of one or two relations, to rows of other tables that hold the text of this one."""
    found: list[list[Relation]] = []
    for one in subject.own_relations:
        donor = one.parent
        named = donor.noun[-1] in vocab.VERSIONS and not subject.has_prose
        if donor is subject or donor.is_people or not (_is_out(one) if one.is_pointer else named):
            continue
        seconds = [second for second in donor.relations if second.parent is not subject]
        used = len(seconds) < len(donor.relations) or donor.rows <= MIN_UNUSED * subject.rows  # not a few on a shelf
        if donor.title and not (one.is_pointer or (subject.title and used)):  # what is on the front page, say
            continue
        further = [[one, second] for second in seconds if _is_text(second.parent)]
        found += [[one]] if donor.has_prose else further
    return found


def _is_out(pointer: Relation) -> bool:
    """Return whether a row shows the version that it names: the one that is out, if it names another one, too.

    One more row with texts for each row repeats the newest version, and drafts are among the newest.
    """
    extended = any(own.extends and own.child.has_prose for own in pointer.child.children)
    pointers = [own for own in pointer.child.relations if own.parent is pointer.parent]
    out = [own for own in pointers if vocab.OUT & {*words(own.columns[0])}] or pointers
    return pointer in out and not extended


def donors_of_part(subject: Subject) -> list[Relation]:
    """Return the relations to rows that hold the text of rows which may be parts: `bugnote_text` of `bugnote`.

    What holds older versions of rows of another table is none.
    """
    found = []
    for way in text_parents(subject):
        donor = way[0].parent
        others = [one.parent for one in donor.relations if one.parent is not subject]
        older = donor.noun[-1] in vocab.OLD_VERSIONS and any(one.has_prose and not one.is_people for one in others)
        if len(way) == 1 and not way[0].is_pointer and not older:
            found.append(way[0])
    return found


def pointed_texts(subject: Subject) -> list[Below]:
    """Return how the text of the version that a row names is reached, if a table of links leads from there to it."""
    found = []
    for pointer in [one for one in subject.own_relations if one.is_pointer and not subject.has_prose]:
        for own in pointer.parent.children:
            if own.child.has_text or own.child is subject or {*own.referred} != {*pointer.referred}:
                continue
            firsts = [one for one in own.child.own_relations if one is not own]
            ways = [[one] for one in firsts] + [[one, two] for one in firsts for two in one.parent.own_relations]
            found += [Below([own], [way]).through(pointer) for way in ways if _is_text(way[-1].parent)]
    return found


def _is_text(donor: Subject) -> bool:
    """Return whether a table has the texts of versions."""
    return donor.noun[-1] in vocab.VERSIONS and donor.has_prose


def wanted_texts(subject: Subject, columns: Sequence[str]) -> list[str]:
    """Return those columns that are filled often enough to be the text of a part."""
    return [name for name in columns if subject.profiles[name].filled >= MIN_PART_FILLED]
