"""What the tables of a database are for: which ones people look for, and which are parts, labels or machinery."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_index.settings.index import is_named_like_a_secret
from rag_index.sources.catalog import SAMPLED_ROWS
from rag_index.sources.columns import CODES, PROSE, TITLES, WHOLE_TITLES, profile, words
from rag_index.sources.relations import CONTAINERS, LANGUAGES, VERSIONS, Nouns, declared_relations, find_relations, noun
from rag_index.sources.visibility import (
    DELETED,
    HIDDEN_FLAGS,
    below_hidden,
    find_conditions,
    has_status_flags,
    hidden_by,
    hidden_by_label,
    hidden_states,
    internal_rows,
    restricted_by,
)
from rag_index.sources.vocabulary import known_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rag_index.sources.catalog import DatabaseCatalog, DatabaseTable
    from rag_index.sources.columns import ColumnProfile
    from rag_index.sources.relations import Relation
    from rag_index.sources.visibility import Condition

RESTRICTS = re.compile(r"\w*(?:view|read|access)_?restriction")
"""Tables with the rows that only those may see who log in, or know a password."""
PERMITS = re.compile(r"\w*(?:page|entity|content|node|object|item|document|article|topic|space|book)_?permission")
"""Tables that say of rows of their own who may see or change them."""
MAX_PERMITTED = 0.3
"""The share of rows with permissions of their own up to which these are not for everybody."""
MACHINERY = known_words("subjects", "machinery")
DOUBTFUL = known_words("subjects", "doubtful")
MACHINE_NOUN = re.compile(
    r"\w*cach\w*|(?!\w*research)\w+search|index_?entry|\w*log_?entry|(?:event|audit|access|error|sys)?logging|search_?\w+|\w*fulltext|queued\w+|cron\w+|recent_?changes?|\w{3,}session|\w{3,}token|archive"
)
PRIVATE = known_words("subjects", "private")
PEOPLE = known_words("subjects", "people")
GROUPS = frozenset(["group", "role", "usergroup"])
"""What tables of groups of persons are called."""
SUMMARIES = ("summary", "short_desc", "short_description")
PASSWORDS = known_words("subjects", "passwords")
LOGINS = known_words("subjects", "logins")
MIN_PASSWORDS = 0.2
"""The share of rows with a password from which on they are accounts: else a few rows are for those who know it."""
SETTING_NAMES = frozenset(["name", "key", "option", "property", "setting", "parameter"])
MAX_PAIR_COLUMNS = 6
"""The columns up to which a table of names with values holds settings, whatever they are called."""
MARKUP = re.compile(r"<[^>]*>|\[/?\w+[^\]]*\]|&#?\w+;|[\W_]")
NOTHING = ("", 0, "0", -1)
"""What a column has that names no row, besides NULL."""
MIN_TOLD = 0.6
"""The share of titles of their own from which on rows are told from each other by them, and not by another name."""
MIN_TITLES = 0.9
"""The share of titles of their own from which on a row with the name of a person is called by its title."""
PLACED = frozenset(["visible", "visibility", "hidden", "published", "public", "state"])
"""Words of columns that say of a row of another table whether people see it. That a link was deleted says nothing."""
MIN_PLACED = 0.9
"""The share of rows that another table has a row for, if it says which of them may be seen."""
COPIES = frozenset(["alias", "copy", "translation", "source"])
"""Words of columns that name a row of the same table that is not above this one."""
MIN_KINDS = 3
"""Tables with one more row each for the rows of another one from which on these are of different kinds."""
FOR_FEW = frozenset(["restricted", "private", "internal", "confidential", "secret", "classified", "sealed"])
"""Words of columns that say of a label, such as a tag, that what has it is for few."""
READ = frozenset(["read", "unread", "seen", "unseen", "muted"])
"""Words of columns that say how far a person has read a conversation."""
COMPLAINTS = ("report", "flag", "complaint")
MESSAGES = frozenset(["post", "comment", "message", "topic"])
"""Nouns of tables of which somebody may complain to moderators."""
REMARKS = frozenset(["comment", "note", "remark", "comments", "notes", "remarks"])
"""Last words of columns with what somebody said of a change."""
MAX_SUMMARY = 100
"""The average length up to which a summary is the title of what has no other, as in trackers of bugs."""
MAX_LINKED = 8
"""The columns up to which a table links rows of others, and does not say what happened to them."""
MAX_SCOPES = 8
"""Rows of a table that says of what each row of more tables than that is a part, and has no parts itself."""
MAX_LABELS = 40
"""Rows of a table that only names what others refer to, such as states and categories."""


@dataclass(eq=False)
class Subject:
    """A table, what its columns hold, and which rows may be shown."""

    table: DatabaseTable
    noun: tuple[str, ...]
    profiles: dict[str, ColumnProfile]
    conditions: list[Condition]
    relations: list[Relation] = field(default_factory=list)
    """Relations to its parents."""
    children: list[Relation] = field(default_factory=list)
    unmet: list[Condition] = field(default_factory=list)
    """Conditions that leave out all rows of the sample."""
    is_dialog: bool = False
    """Whether rows are conversations of a few persons, whose messages nobody else may see."""

    @cached_property
    def title(self) -> str | None:
        """Return the column, or the template of columns, that says what a row is called."""
        first = self._named("first_name", "firstname", "given_name")
        last = self._named("last_name", "lastname", "surname", "family_name")
        names = [p for p in self.profiles.values() if p.role in ("short", "prose", "code") and p.length <= 160]
        answers = any(p.last_word == "answer" and p.role == "prose" for p in self.profiles.values())
        asked = ("question",) if answers else ()
        names = [
            p
            for p in names
            if (p.last_word in TITLES and p.last_word not in PROSE | CODES)
            or p.last_word in ("title", "subject", "headline", *asked)
        ]
        shorts = [p for p in names if (p.filled >= 0.3 and p.role != "code") or p.last_word == "title"]
        if first and last:  # the title of a person is that of a profession, which many have
            shorts = [p for p in shorts if p.last_word != "name" and p.distinct >= MIN_TITLES]
        if shorts:
            return min(
                shorts,
                key=lambda p: (
                    "meta" in words(p.name),
                    (p.name,) == self.table.key,
                    p.distinct < MIN_TOLD and p.name not in WHOLE_TITLES,
                    len(words(p.name)) > 2,
                    TITLES.index(p.last_word) if p.last_word in TITLES else 99,
                ),
            ).name
        if first and last:
            return f"{{{first}}} {{{last}}}"
        others = [p for p in self.profiles.values() if p.role == "short" and p.filled >= 0.5 and p.distinct >= 0.3]
        for summary in () if others else [self.profiles[name] for name in SUMMARIES if name in self.profiles]:
            if summary.form == "plain" and 0 < summary.length <= MAX_SUMMARY:
                return summary.name
        return others[0].name if others else None

    def _named(self, *names: str) -> str | None:
        return next((c for c in self.table.columns if "_".join(words(c)) in names), None)

    @cached_property
    def title_columns(self) -> list[str]:
        """Return the columns of the title."""
        title = self.title
        return [name for name in self.table.columns if title == name or f"{{{name}}}" in (title or "")]

    def title_of(self, join: str) -> str:
        """Return a template of the title of a row that is joined under this name."""
        template = f"{{{self.title}}}" if self.title in self.table.columns else str(self.title)
        return template.replace("{", f"{{{join}.")

    @cached_property
    def prose(self) -> list[str]:
        """Return the columns with texts, without the title and those that repeat another."""
        found: list[ColumnProfile] = []
        for one in self.profiles.values():
            repeats = any(_is_equal(self.table, one.name, other.name) for other in found)
            if one.is_text and one.name not in self.title_columns and not repeats and not self._repeats_title(one):
                found.append(one)
        return [one.name for one in sorted(found, key=lambda one: one.role != "prose")]

    def _repeats_title(self, one: ColumnProfile) -> bool:
        title = self.title
        return title in self.table.columns and _is_equal(self.table, one.name, str(title))

    @property
    def codes(self) -> list[str]:
        """Return the columns with numbers and codes by which people know a row."""
        key = (
            set(self.table.key)
            if self.profiles and len(self.table.key) == 1 and self.profiles[self.table.key[0]].role != "code"
            else set()
        )
        used = {column for relation in self.relations for column in relation.columns}
        used |= {one.column for one in self.conditions}
        return [
            p.name
            for p in self.profiles.values()
            if p.role == "code" and p.name not in key | used and p.name not in self.title_columns
        ]

    @cached_property
    def thread(self) -> Relation | None:
        """Return the relation of replies to the first message: they have its title or none, and it is called `root_id`.

        What is called `parent_id` may have replies to replies one day, which would be parts of no document.
        """
        if not self.has_prose or not (self.title is None or self.title in self.table.columns):
            return None
        own = [one for one in self.relations if one.parent is self.table and "root" in words(one.columns[0])]
        return next((one for one in own if self._are_replies(*one.pairs[0])), None)

    def shown(self, column: str) -> list[Any]:
        """Return the sampled values of a column in those rows that may be shown."""
        columns = self.table.columns
        hidden = [columns[one.column].values for one in self.conditions]
        rows = zip(columns[column].values, *hidden, strict=True)
        return [
            value
            for value, *some in rows
            if all(one.shows(other) for one, other in zip(self.conditions, some, strict=True))
        ]

    def _are_replies(self, column: str, key: str) -> bool:
        columns = self.table.columns
        all_rows = zip(*[one.values for one in columns.values()], strict=True)
        rows = [dict(zip(columns, row, strict=True)) for row in all_rows]
        rows = [row for row in rows if all(one.shows(row[one.column]) for one in self.conditions)]
        above = {row[key]: row[column] for row in rows if row[column] not in (None, *NOTHING)}
        if not above or above.keys() & set(above.values()):
            return False
        if self.title is None:
            return True
        called = {row[key]: str(row[self.title]) for row in rows}
        pairs = [(called[own], called[other]) for own, other in above.items() if other in called]
        alike = sum(other.lower() in own.lower() for own, other in pairs)
        return bool(pairs) and alike >= MIN_TITLES * len(pairs)

    @cached_property
    def has_prose(self) -> bool:
        """Return whether a row has a text beside its title."""
        return any(self.profiles[name].role == "prose" for name in self.prose)

    @property
    def is_whole(self) -> bool:
        """Return whether a row has a title and a text."""
        return bool(self.title) and self.has_prose

    @cached_property
    def has_text(self) -> bool:
        """Return whether people read anything of a row."""
        return bool(self.title) or any(self.profiles[name].filled for name in self.prose)

    @cached_property
    def text_length(self) -> float:
        """Return the average length of the texts of a row."""
        return sum(self.profiles[name].length * self.profiles[name].filled for name in self.prose)

    @cached_property
    def locale(self) -> str | None:
        """Return the column with the language of a row."""
        by_code = (p.name for p in self.profiles.values() if p.role == "locale")
        by_number = (
            one.columns[0]
            for one in self.relations
            if noun(one.parent.name)[-1] in LANGUAGES and one.columns[0] in self.table.key and len(self.table.key) > 1
        )
        return next(by_code, None) or next(by_number, None)

    def is_by_language(self, relation: Relation) -> bool:
        """Return whether there is one row with a title for each language of what a relation names."""
        key = {*relation.columns, str(self.locale)}
        return bool(self.title) and relation.parent is not self.table and key == {*self.table.key}

    @cached_property
    def version(self) -> str | None:
        """Return the column with the number of a version, if rows are versions of one thing."""
        inherited = {column for relation in self.relations for column in relation.columns}
        for name in self.table.columns:
            named = words(name)
            if (
                (
                    name not in inherited
                    and {"version", "revision", "rev", "ver"} & set(named)
                    and not {"lock", "by", "at"} & set(named)
                )
                and self.profiles[name].role in ("number", "flag", "choice", "code")
                and name in self.table.key[1:]
            ):
                return name
        return None

    @cached_property
    def is_login(self) -> bool:
        """Return whether rows are accounts of people who log in."""
        if self.noun[-1] in PEOPLE:
            return any(p.role == "secret" for p in self.profiles.values())
        return _has_password(self.profiles)

    @property
    def is_people(self) -> bool:
        """Return whether rows are persons."""
        return self.is_login or self.noun[-1] in PEOPLE

    @cached_property
    def is_translated(self) -> bool:
        """Return whether what people read of a row is elsewhere: it has no title, and attributes at most."""
        return not self.title and all(self.profiles[name].form == "json" for name in self.prose)

    @property
    def is_value(self) -> bool:
        """Return whether a row is called by a value, and says of other rows what has it: that of a field of a bug."""
        named = {column for relation in self.relations for column in relation.columns}
        value = self.title in self.profiles and self.profiles[str(self.title)].last_word == "value"
        return value and {*self.table.key} <= named

    @property
    def is_link(self) -> bool:
        """Return whether a row says of rows of other tables that they belong together, and no more."""
        named = {column for relation in self.relations for column in relation.columns}
        others = [one for name, one in self.profiles.items() if name not in {*named, *self.table.key}]
        return len(named) > 1 and all(one.role in ("time", "flag", "number", "empty") for one in others)

    @property
    def is_unnamed(self) -> bool:
        """Return whether many rows have the same title, which tells none of them from the others."""
        return self.title in self.profiles and self.profiles[str(self.title)].distinct < MIN_TOLD

    @property
    def says_nothing(self) -> bool:
        """Return whether the name of a row is nothing that tells others apart: all name the only one, or a language."""
        return self.table.rows < 2 or self.noun[-1] in LANGUAGES

    @property
    def is_scope(self) -> bool:
        """Return whether much of the database is for one of a few names each, such as the shops of a company."""
        referring = {one.child.full_name for one in self.children if not one.type_column}
        return self.is_label and self.table.rows <= MAX_SCOPES < len(referring)

    @property
    def is_label(self) -> bool:
        """Return whether rows are names to which others refer, and no more."""
        return not self.has_prose and self.table.rows <= MAX_LABELS and bool(self.children)

    @property
    def is_private(self) -> bool:
        """Return whether rows are for few persons, by the name of their table."""
        nouns = set(self.noun)
        messages = bool(nouns & {"private", "direct"}) and bool(nouns & {"message", "msg"})
        return self.is_dialog or bool(nouns & PRIVATE) or messages or self.noun[-2:] == ("message", "conversation")

    @property
    def is_machinery(self) -> bool:
        """Return whether rows are for programs, by the name of their table."""
        nouns = set(self.noun)
        return bool(
            nouns & MACHINERY
            or any(map(MACHINE_NOUN.fullmatch, nouns))
            or self.noun[:1] == ("django",)
            or (nouns & {"log", "history"} and "audit" in nouns)
            or ("index" in nouns and nouns & {"search", "entry"})
        )

    @cached_property
    def has_remarks(self) -> bool:
        """Return whether rows are what was said when something changed, as in the history of an order."""
        return self.noun[-1] == "history" and any(
            REMARKS & {*words(name)[-1:]} and self.profiles[name].role == "prose" for name in self.prose
        )

    def refusal(self) -> str:
        """Return why the table is nothing that people look for; "" if it may be."""
        nouns = set(self.noun)
        if not self.table.rows:
            return "is empty" if not self.table.problem else f"cannot be read: {self.table.problem}"
        if self.noun[-1] in COMPLAINTS and any({*noun(one.parent.name)} & MESSAGES for one in self.relations):
            return "holds what moderators are told"
        if self.is_private:
            return "holds messages between persons, notes of one, or drafts"
        if self.is_machinery:
            return "is for programs, by its name"
        if (
            nouns & DOUBTFUL
            and not (self.title and self.has_prose and self.text_length >= 60)
            and not (nouns & {*VERSIONS} and self.has_prose)
            and not (self.has_remarks and self.relations)
        ):
            return "is for programs, by its name and its values"
        if self.is_login:
            return "holds the accounts of people who log in"
        keys = any(one.role == "secret" or "fingerprint" in words(one.name) for one in self.profiles.values())
        if (self.noun[-1] == "key" or "api" in self.noun) and keys:
            return "holds keys"
        for one in self.unmet:
            if set(words(one.column)) & (HIDDEN_FLAGS | DELETED) and self.table.rows <= SAMPLED_ROWS:
                return f"has no row that may be shown: {one.reason}"
        if _is_pairs(self):
            return "holds settings: names with values"
        if nouns & {*VERSIONS} and len(nouns) == 1 and not (self.title or self.relations or self.children):
            return "holds texts, and no column says of what they are and which of them count"
        return ""


def _is_pairs(subject: Subject) -> bool:
    """Return whether rows are names of settings with their values."""
    profiles = subject.profiles.values()
    names = [p for p in profiles if p.last_word in SETTING_NAMES]
    return any(p.last_word == "value" for p in profiles) and (
        (bool(names) and len(profiles) <= MAX_PAIR_COLUMNS)
        or any(subject.table.key == (p.name,) or any(map(is_named_like_a_secret, p.texts)) for p in names)
    )


def _is_equal(table: DatabaseTable, one: str, other: str) -> bool:
    """Return whether two columns have the same values in most rows that have both."""
    pairs = zip(table.columns[one].values, table.columns[other].values, strict=True)
    both = [(letters(a), letters(b)) for a, b in pairs if a and b]
    return bool(both) and sum(a == b for a, b in both) >= 0.8 * len(both)


def letters(value: object) -> object:
    """Return the beginning of a text without markup and punctuation: a rendered copy is equal to what it is made of."""
    return MARKUP.sub("", value).lower()[:200] if isinstance(value, str) else value


@dataclass
class Subjects:
    """All tables of a database with what is known of them."""

    catalog: DatabaseCatalog
    nouns: Nouns
    all: list[Subject]

    @cached_property
    def by_table(self) -> dict[int, Subject]:
        """Return the subjects by the identity of their tables."""
        return {id(one.table): one for one in self.all}

    def of(self, table: DatabaseTable) -> Subject:
        """Return the subject of a table."""
        return self.by_table[id(table)]


def find_subjects(catalog: DatabaseCatalog, excluded: Iterable[str] = ()) -> Subjects:
    """Return what is known of each table; those that are `excluded` are taken for missing."""
    left = set(excluded)
    catalog.tables = [table for table in catalog.tables if table.full_name not in left]
    nouns = Nouns(catalog.tables)
    relations = find_relations(catalog, nouns)
    for table in catalog.tables:
        if not table.rows and _restricts(nouns(table)):  # it may have rows one day
            relations += declared_relations(table, catalog.tables)
    made: list[Subject] = []
    all_profiles = {table.full_name: _profiles(table) for table in catalog.tables}
    accounts = [name for name, profiles in all_profiles.items() if _has_password(profiles)]
    flags = has_status_flags(catalog.tables, accounts)
    for table in catalog.tables:
        own = [relation for relation in relations if relation.child is table]
        profiles = all_profiles[table.full_name]
        types = {relation.type_column for relation in own}
        named = {column for relation in own for column in relation.columns}
        looked = find_conditions(table, profiles, catalog, types, named=named, status_is_flag=flags)
        conditions = looked if table.rows else []
        unmet = [one for one in conditions if not any(map(one.shows, table.columns[one.column].values))]
        met = [one for one in conditions if one not in unmet]
        made.append(Subject(table, nouns(table), profiles, met, own, unmet=unmet))
    subjects = Subjects(catalog, nouns, made)
    for relation in relations:
        subjects.of(relation.parent).children.append(relation)
    for one in made:
        one.conditions += [
            restricted_by(relation, _path_of(one), catalog)
            for relation in one.children
            if (_restricts(nouns(relation.child)) and not relation.type_column and len(relation.pairs) == 1)
            or _permits_few(nouns(relation.child), relation)
            or _is_for_groups(one, relation, subjects)
        ][:1]
    for one in made:
        states = [two for two in one.relations if len(two.pairs) == 1 and two.parent.rows <= MAX_LABELS]
        states = [two for two in states if {"status", "state"} & {*words(two.columns[0])} and not two.type_column]
        one.conditions += filter(None, (hidden_states(two, catalog) for two in states if two.parent is not one.table))
    for one in made:
        one.is_dialog = not one.has_text and any(_has_readers(subjects.of(own.child), subjects) for own in one.children)
    placing = [(one, relation) for one in made for relation in one.children]
    hidden = [
        (one, hidden_by(relation, told, catalog))
        for one, relation in placing
        if (told := _placing(subjects.of(relation.child), relation))
    ]
    hidden += [
        (one, hidden_by(relation, told, catalog))
        for one in made
        for relation in _kinds(one)
        if (told := subjects.of(relation.child).conditions)
    ]
    hidden += [
        (one, hidden_by_label(own, other, few, catalog))
        for one, own, other in _links(subjects)
        if (few := [two for two in subjects.of(other.parent).conditions if FOR_FEW & {*words(two.column)}])
    ]
    for subject in made:
        _add_conditions(subject, catalog)
    for subject, condition in hidden:
        subject.conditions.append(condition)
    return subjects


def _restricts(noun: tuple[str, ...]) -> bool:
    """Return whether a table of this name has the rows of another one that not everybody may see."""
    return RESTRICTS.fullmatch("_".join(noun)) is not None


def _permits_few(noun: tuple[str, ...], relation: Relation) -> bool:
    """Return whether a table of permissions names a few rows: these are not for everybody."""
    if PERMITS.fullmatch("_".join(noun)) is None or len(relation.pairs) != 1:
        return False
    columns = relation.child.columns
    kinds = columns[relation.type_column].values if relation.type_column else columns[relation.columns[0]].values
    pairs = zip(kinds, columns[relation.columns[0]].values, strict=True)
    named = {value for kind, value in pairs if not relation.type_column or kind == relation.type_value}
    return len(named - {None, *NOTHING}) <= MAX_PERMITTED * relation.parent.rows


def _is_for_groups(subject: Subject, relation: Relation, subjects: Subjects) -> bool:
    """Return whether a table links a few rows with the groups of persons that alone may see them."""
    link = subjects.of(relation.child)
    named = {column for one in link.relations for column in one.columns}
    few = 0 < 2 * link.table.rows < subject.table.rows
    if not few or subject.is_people or not {*subject.noun} < {*link.noun} or not {*link.table.columns} <= named:
        return False
    groups = [subjects.of(one.parent) for one in link.relations if subjects.of(one.parent).noun[-1] in GROUPS]
    members = [subjects.of(one.child) for group in groups for one in group.children]
    return any(subjects.of(one.parent).is_people for member in members for one in member.relations)


def _links(subjects: Subjects) -> list[tuple[Subject, Relation, Relation]]:
    """Return the two relations of each table without texts that links rows with others, such as tags, with the first.

    Relations of several columns, or by type, are left out.
    """
    found = []
    for link in subjects.all:
        plain = [one for one in link.relations if len(one.pairs) == 1 and not (one.type_column or one.prefix)]
        for own in plain if link.is_link and len(link.profiles) <= MAX_LINKED else ():
            known = {own.parent, *(one.parent for one in subjects.of(own.parent).relations)}
            found += [(subjects.of(own.parent), own, other) for other in plain if other.parent not in known]
    return found


def _has_readers(link: Subject, subjects: Subjects) -> bool:
    """Return whether a table without texts says which persons take part in something, and how far each has read."""
    people = any(subjects.of(one.parent).is_people for one in link.relations)
    return people and not link.has_text and any(READ & {*words(name)} for name in link.table.columns)


def _path_of(subject: Subject) -> str:
    """Return the column with a path that begins with that of the row above, as pages of a tree may have; "" if none."""
    for name, column in subject.table.columns.items():
        values = [value for value in column.values if isinstance(value, str) and value]
        if words(name)[-1:] == ("path",) and len(values) == len(column.values) and len({*map(len, values)}) > 1:
            known = {*values}
            step = min(len(value) for value in values)
            below = [value for value in values if len(value) > step]
            if below and all(any(value[:end] in known for end in range(1, len(value))) for value in below):
                return name
    return ""


def _kinds(subject: Subject) -> list[Relation]:
    """Return the relations of tables with one more row for each row, if several have them: one for each kind."""
    found = [one for one in subject.children if not one.type_column and len(one.pairs) == 1]
    found = [one for one in found if _is_one_to_one(one)]
    return found if len(found) >= MIN_KINDS else []


def _is_one_to_one(relation: Relation) -> bool:
    values = relation.child.columns[relation.columns[0]].filled
    key = relation.child.key
    return relation.columns == list(key) if key else len(values) == len({*values}) > 1


def _placing(child: Subject, relation: Relation) -> list[Condition]:
    """Return which rows may be seen, as a table without texts says that has one row for each: a place in a course."""
    told = [one for one in child.conditions if PLACED & {*words(one.column)}]
    if child.has_text or not told or not relation.type_column:
        return []
    ((column, key),) = relation.pairs
    columns = child.table.columns
    pairs = zip(columns[relation.type_column].values, columns[column].values, strict=True)
    named = [value for kind, value in pairs if kind == relation.type_value and value not in NOTHING]
    keys = {*relation.parent.columns[key].values}
    each = child.table.rows > SAMPLED_ROWS or len(keys & {*named}) >= MIN_PLACED * len(keys)
    return told if each and len(named) == len({*named}) else []


def _profiles(table: DatabaseTable) -> dict[str, ColumnProfile]:
    return {column.name: profile(column, table) for column in table.columns.values()}


def _has_password(profiles: Mapping[str, ColumnProfile]) -> bool:
    """Return whether the columns are those of accounts: a password of many rows beside a name to log in with."""
    secret = [one for one in profiles.values() if one.role == "secret"]
    named = [one for one in secret if PASSWORDS & {*words(one.name)} or words(one.name)[-1].endswith("password")]
    password = any(one.filled >= MIN_PASSWORDS for one in named)
    return password and any(LOGINS & set(words(name)) and words(name)[-1] != "id" for name in profiles)


def _add_conditions(subject: Subject, catalog: DatabaseCatalog) -> None:
    """Leave out containers whose names say that they are not for all, and rows of a tree below hidden ones."""
    table, title = subject.table, subject.title
    if title in table.columns and 0 < table.rows <= MAX_LABELS and subject.children and not subject.is_people:
        internal = internal_rows(table, str(title), catalog.quoted)
        subject.conditions += [internal] if internal else []
    own = [one for one in subject.relations if one.parent is table and len(one.pairs) == 1 and not one.type_column]
    tree = [one for one in own if not COPIES & {*words(one.columns[0])}]
    if tree and subject.conditions and subject.noun[-1] in CONTAINERS:
        subject.conditions.append(below_hidden(tree[0], subject.conditions, catalog))
