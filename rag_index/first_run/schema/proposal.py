"""The indexes that a person who knows the application would write, from the schema and a bounded sample of rows."""

from __future__ import annotations

import fnmatch
import itertools
import math
import re
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING

from slugify import slugify

from rag_index.components.sources.source_tables import relations_read
from rag_index.errors import SettingsError
from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.catalog import spoken_rows
from rag_index.first_run.schema.columns import MOST, noun, profile, words, words_of_tables
from rag_index.first_run.schema.coverage import (
    GOAL,
    LARGE,
    MIN_CHARS,
    MIN_SHARE,
    Coverage,
    Missing,
    coverage,
    shown_columns,
    size,
    text_columns,
)
from rag_index.first_run.schema.hiding import add_conditions, restricts
from rag_index.first_run.schema.proposed_index import (
    MIN_ALONE,
    MIN_DESCRIPTION,
    MIN_ROWS,
    NAMES_ALONE,
    IndexMaker,
    ProposedIndex,
    free_name,
)
from rag_index.first_run.schema.relations import declared_relations, find_relations
from rag_index.first_run.schema.roles import (
    MAX_DEPTH,
    TableRoles,
    donors_of_part,
    exclusive_owners,
    names_what,
    part_relation,
    pointed_texts,
    text_parents,
    wanted_texts,
)
from rag_index.first_run.schema.subjects import EXPLAINS, Relation, Subject, letters
from rag_index.first_run.schema.visibility import find_conditions, joined

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import Column, DatabaseCatalog, DatabaseTable


MAX_INDEXES = 10
"""More are taken if their rows are things or have long texts."""
MIN_KEYED = 20
"""Values of fewer rows differ by chance."""
MAX_KEY = 40
MAX_SHORT = 4
INSTALLED = 1.5
"""What is taken from the rank of rows that may have come with the application."""
MAX_NAME_CHARS = 80
MIN_COPIED_CHARS = 60
"""The first letters of a text that another table has by no chance: a copy may be cut."""
MIN_KNOWN = 0.8
"""The share of words that others have, in rows of a table for a search."""
MIN_COPIED = 3
MIN_COPIED_SHARE = 0.5
"""How many texts of a table another one has, and which share of them, if its rows are copies."""
MAX_QUESTIONS = 3
MAX_NAMED = 6
"""Tables that a question names."""
MIN_PROSE = 0.1
"""If fewer letters of a database are prose, people look for what has a name."""
BEHIND = 100
"""What is taken from the score of an index that is needed for its text alone: it ranks behind the others."""
MIN_ASKED_SHARE = 0.01
"""A table is asked about if it has at least this share of all letters of the tables with text."""
PROGRAMS = frozenset(["is for programs, by its name", "is for programs, by its name and its values"])
NAMES = frozenset(["has names alone", "has names alone, to which others refer"])
DOUBTED = PROGRAMS | NAMES | {
    "has no text of its own",
    "holds texts, and no column says of what they are and which of them count",
}  # fmt: skip
"""The reasons to leave a table out that its rows do not prove."""
AFTER = f"comes after the first {MAX_INDEXES} indexes"
ASKED = DOUBTED | {AFTER}
SHOWN = ("is a part of", "holds the text of", "is in the documents of")
"""What a reason begins with whose table has text that another one's documents show, or should."""
REACHED = (*SHOWN, "has no primary key", "comes after")
"""What a reason begins with whose table has text that some index reaches, or should."""
LITTLE = "names with little text"
"""What an index is of that may be noise."""


@dataclass(frozen=True, slots=True)
class Question:
    """Whether to search some tables, or to show most rows of one: the guess stands until a person says otherwise."""

    tables: tuple[str, ...]
    """Their full names, that with most text first."""
    what: str
    """What their rows look like: `has names alone`."""
    rows: int
    chars: int
    """The letters of their texts, as far as the sample says."""
    guess: bool
    yes: str = "each row becomes a document"
    no: str = "no search finds the rows, but by others that name them"
    """What follows from either answer, a sentence without its full stop."""
    column: str = ""
    """That of the only table which hides most of its rows, if it is asked whether to show them."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Return by what an answer is known."""
        return (f"{self.tables[0]}.{self.column}",) if self.column else self.tables

    @property
    def sentence(self) -> str:
        """Return the question."""
        named, more = [f"`{one}`" for one in self.tables[:MAX_NAMED]], len(self.tables) - MAX_NAMED
        tables = ", ".join([*named, f"{more} more"] if more > 0 else named)
        search = "search it?" if len(self.tables) == 1 else "search them?"
        search = f"show the rows that `{self.column}` hides?" if self.column else search
        return f"{tables} ({spoken_rows(self.rows)}, {size(self.chars)} of text; {self.what}): {search}"


@dataclass(frozen=True, slots=True)
class TableUse:
    """What becomes of a table with text: "" as the reason if it is an index; and of its columns of text, by name."""

    name: str
    rows: int
    chars: int
    reason: str
    columns: dict[str, str]
    """`title`, `text`, `secret` or `out`."""


@dataclass(slots=True)
class Proposal:
    """The proposed indexes, and what was left out: tables and columns, each with why."""

    indexes: list[ProposedIndex] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, list[str]] = field(default_factory=dict)
    personal: dict[str, list[str]] = field(default_factory=dict)
    policies: list[str] = field(default_factory=list)
    """What row level security means for the indexes: first what everybody would see for whom it is not."""
    coverage: Coverage = field(default_factory=lambda: Coverage(0, []))
    questions: list[Question] = field(default_factory=list)
    """What a person should decide, at most `MAX_QUESTIONS`: that on which most text hangs is first."""
    tables: list[TableUse] = field(default_factory=list)
    """Those with text, the indexes first, then those with most text."""


def propose(
    catalog: DatabaseCatalog,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    add: Sequence[str] = (),
    answers: Mapping[str, bool] | None = None,
    uses: Mapping[str, str] | None = None,
) -> Proposal:
    """Return the proposed indexes of a database.

    `include` and `exclude` are patterns of the names of tables; `add` names tables that are an index in any case.
    `answers` are those to the questions of an earlier proposal, by their keys; `uses` are as for `find_subjects`.

    Raises:
        SettingsError: `add` names no table, or one that cannot be an index.
    """
    asked, names = add, [table.full_name for table in catalog.tables]
    out = [name for name in names if _matches(name, exclude)]
    copies = {name: why for name, why in _copies(catalog.tables).items() if not _matches(name, add)}
    answers = answers or {}
    wanted = [key for key, yes in answers.items() if yes]
    subjects = find_subjects(catalog, [*out, *copies], uses, wanted)
    chars = cache(lambda one: catalog.chars(one, text_columns(one)))
    add = [*add, *[key for key in wanted if key in names]]
    things, whole = _things(subjects)
    needed: dict[str, str] = {}
    """Tables without which too little text is reached, with the doubtful reason to leave each out."""
    while True:
        roles = TableRoles(catalog.connection.dialect.default_schema_name, subjects)
        proposer = _Proposer(roles, include, add, answers, needed)
        made = proposer.run()
        reasons = {one: made.left_out.get(one.full_name, "") for one in subjects if one.rows}
        reached = [one for one, why in reasons.items() if not why or why.startswith(REACHED)]
        searched = [*reached, *[one for one, why in reasons.items() if why in DOUBTED and not one.repeats]]
        made.coverage = coverage(searched, made.indexes, chars)
        more = {} if include else _missed(made, things, needed, whole)
        if not more:
            break
        needed |= more
    if made.coverage.share < GOAL:  # what is small and for programs, by its name, is asked about and counts no more
        searched = [one for one in searched if reasons[one] not in PROGRAMS]
    made.coverage = coverage(searched, made.indexes, chars, shown_share=lambda one: _shown_share(catalog, one))
    made.questions = proposer.questions()
    for index, table in [(one, table) for one in made.indexes for table in one.tables]:
        if made.left_out.get(table) in NAMES:
            made.left_out[table] = f"is named in the documents of {index.tables[0]}"
    made.tables = proposer.uses()
    made.left_out |= copies | dict.fromkeys(out, "is excluded")
    made.left_out |= dict.fromkeys(catalog.views, "is a view: what it shows is in tables")
    _check_added(asked, names, made)
    made.policies = _policy_sentences(catalog, made.indexes)
    return made


def _things(subjects: Sequence[Subject]) -> tuple[dict[str, int], float]:
    """Return the tables of what has a name, with how many others they have to do, and the letters of all but logs.

    They count for others only if next to nothing of the database is prose: people look for what has a name there.
    """
    lengths = {one: one.rows * one.all_length for one in subjects if not one.is_log}
    whole = sum(lengths.values())
    read = [one for one in lengths if lengths[one] >= LARGE * whole or not one.refusal()]
    prose = sum(one.rows * one.text_length for one in read if one.says_something)
    few = prose < MIN_PROSE * sum(map(lengths.__getitem__, read))
    named = [one for one in subjects if _is_named(one)]
    return {one.full_name: _others(one) if few else 0 for one in named}, whole


def _shown_share(catalog: DatabaseCatalog, subject: Subject) -> float:
    """Return the share of rows that may be shown: as the database says, or else as the sample does."""
    share = catalog.share_shown(subject, joined(subject.conditions))
    sampled = len(next(iter(subject.columns.values())).values)
    return len(subject.shown_rows()) / max(1, sampled) if share is None else share


def _is_named(subject: Subject) -> bool:
    """Return whether rows have a name, and are neither accounts nor kinds."""
    named = subject.title is not None and subject.rows >= MIN_ROWS and not subject.is_login
    return named and not {subject.noun[-1]} & vocab.KINDS


def _others(subject: Subject) -> int:
    """Return with how many other tables rows have to do."""
    others = {one.child for one in subject.children} | {one.parent for one in subject.own_relations}
    return len(others - {subject})


def _names(subject: Subject) -> str:
    return "has names alone, to which others refer" if subject.children else "has names alone"


def _missed(made: Proposal, things: Mapping[str, int], needed: Container[str], whole: float) -> dict[str, str]:
    """Return tables to take besides those that are `needed` already, with why they were left out.

    Those are `things` with names alone: those that have to do with several others, as devices and sites have, in a
    database with next to no prose, and all if there is no index. Without any, they are all that may have come with the
    application, such as questions and answers.
    Else it is the doubted one with most text, of the `whole` that the tables have, if too little is reached. What is
    for programs by its name, or should be in the documents of others, is that if it has a good share of it.
    """
    left = {table: why for table, why in made.left_out.items() if table not in needed}
    if named := {table: why for table, why in left.items() if things.get(table, 0) > 1 and why in NAMES | PROGRAMS}:
        return named
    for reasons in (NAMES, {EXPLAINS}) if not made.indexes else ():
        if found := {table: why for table, why in left.items() if why in reasons and table in things}:
            return found
    for one in made.coverage.missing if made.coverage.share < GOAL else ():
        why = left.get(one.table, "")
        doubted = why in DOUBTED - PROGRAMS
        least = MIN_SHARE * made.coverage.chars if doubted else LARGE * whole
        if (doubted or why in PROGRAMS or why.startswith(SHOWN)) and one.chars >= max(MIN_CHARS, least):
            return {one.table: why}
    return {}


def _check_added(asked: Sequence[str], names: Sequence[str], made: Proposal) -> None:
    """Raise SettingsError if one of the tables that are asked for is no index."""
    for name in {*asked} - {one.tables[0] for one in made.indexes}:
        if name not in names:
            listed = ", ".join(get_close_matches(name, names, 3)) or "none is named like it"
            raise SettingsError(f"--add {name}: there is no such table ({listed})")
        reason = made.left_out.get(name, "has no rows that people look for")
        raise SettingsError(f"--add {name}: no index can be made of it, since it {reason}")


def _undeclared_key(catalog: DatabaseCatalog, subject: Subject) -> tuple[str, ...]:
    """Return a column called like a key, one with the place of a line, or short ones that tell many rows apart.

    Returns () if none do. A run checks it again.
    """
    named = [name for name in subject.columns if vocab.KEY_WORDS & {*words(name)}]
    places = [name for name in subject.columns if vocab.ORDERS & {*words(name)}]
    ways = [*((name,) for name in named), *((name, at) for name in named for at in places if at != name)]
    if subject.rows >= MIN_KEYED:
        short = [name for name, column in subject.columns.items() if all(map(_is_short, column.filled))]
        ways += [*((name,) for name in short), *itertools.combinations(short[:MAX_SHORT], 2)]
    return next((way for way in ways if catalog.is_key(subject, way)), ())


def _is_short(value: object) -> bool:
    """Return whether a value may be a key by its looks: a whole number, or a word that is no long one."""
    return isinstance(value, int) or (isinstance(value, str) and len(value) <= MAX_KEY and " " not in value.strip())


def _guard_account(one: Subject, chosen: Container[str]) -> None:
    """Keep back what people log in with, and what may be half of it: people are found by name, and by what they write.

    Codes, keys and single words with digits in them say nothing to others, whatever their columns are called.
    """
    for name, column in one.profiles.items():
        if name in chosen or name in one.key or column.role == "secret":
            continue
        opaque = [text for text in column.texts if " " not in text and any(map(str.isdigit, text))]
        if vocab.LOGIN_NAMES & {*words(name), "".join(words(name))}:
            one.profiles[name] = replace(column, role="personal")
        elif column.texts and (column.last_word in vocab.OF_ACCOUNTS or 2 * len(opaque) > len(column.texts)):
            one.profiles[name] = replace(column, role="secret")


def find_subjects(
    catalog: DatabaseCatalog,
    excluded: Container[str] = (),
    uses: Mapping[str, str] | None = None,
    shown: Container[str] = (),
) -> list[Subject]:
    """Return what is known of each table; those that are `excluded` are taken for missing.

    `uses` says of columns, such as `ticket.subject`, what a person chose: `title`, `text`, `secret` or `out`. Columns
    that are `shown` hide no row.
    """
    tables = [table for table in catalog.tables if table.full_name not in excluded]
    subjects = [
        Subject(
            **{one.name: getattr(table, one.name) for one in fields(table)},
            called=named,
            profiles={column.name: profile(column, table) for column in table.columns.values()},
        )
        for table, named in zip(tables, words_of_tables(tables), strict=True)
    ]
    for one in subjects:
        chosen = {name: uses[key] for name in one.columns if (key := f"{one.full_name}.{name}") in uses} if uses else {}
        one.choose(chosen)
        if one.is_login:
            _guard_account(one, chosen)
        one.key = one.key or (_undeclared_key(catalog, one) if one.rows else ())
    relations = find_relations(catalog, subjects)
    for one in subjects:
        if not one.rows and restricts(one):  # it may have rows one day
            relations += declared_relations(one, subjects)
    for relation in relations:
        relation.child.relations.append(relation)
        relation.parent.children.append(relation)
    nouns = {one.noun[-1] for one in subjects}
    for one in [one for one in subjects if one.rows]:
        for condition in find_conditions(one, nouns, seconds_now=catalog.seconds_now):
            met = any(map(condition.shows, one.columns[condition.column].values))
            if f"{one.full_name}.{condition.column}" not in shown:
                (one.conditions if met else one.unmet).append(condition)
    in_use = {condition.column for one in subjects for condition in one.conditions}
    for one in subjects:  # of these, none is out; a flag that no row of any table has is not used
        one.conditions += [told for told in one.unmet if told.column in in_use and one.hides_all(told)]
    add_conditions(subjects)
    return subjects


def _policy_sentences(catalog: DatabaseCatalog, indexes: Sequence[ProposedIndex]) -> list[str]:
    warnings, notes = [], []
    for index in indexes:
        policies = catalog.policies.of(relations_read(index.settings, doubtful=True))
        if warning := policies.warning(access="access" in index.settings):
            warnings.append(f"{index.name}: {warning}")
        notes += [f"{index.name}: {note}" for note in policies.notes()]
    return [*warnings, *notes]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(
        fnmatch.fnmatchcase(part.lower(), pattern.lower())
        for pattern in patterns
        for part in (name, name.rpartition(".")[2])
    )


def _copies(tables: Sequence[DatabaseTable]) -> dict[str, str]:
    """Return the tables with copies of the texts of others, with why: revisions of nodes, journals of documents.

    A table has texts of one after which it or one of its columns is called, or that people read; or it is called like
    an index for a search, and others have its words.
    """
    found: dict[str, str] = {}
    filled = [one for one in tables if one.rows]
    for table, other in _pairs_with_equal_texts(filled):
        if table.full_name not in found and other.full_name not in found:
            found[table.full_name] = f"holds copies of the texts of {other.full_name}"
    searches = [one for one in filled if vocab.SEARCHES & {*noun(one.name)}]
    read = [one for one in filled if searches and not _is_for_programs(one)]
    known = {word for one in read for row in _words_of_rows(one) for word in row}
    for table in searches:
        titled = any(words(name)[-1] in vocab.WHOLE_TITLES for name in table.columns)  # it may say what rows are called
        rows = [row for row in _words_of_rows(table) if len(row) >= MIN_COPIED]
        if not titled and sum(len(row & known) >= MIN_KNOWN * len(row) for row in rows) > MOST * len(rows):
            found.setdefault(table.full_name, "holds copies of the texts of others, for a search")
    return found


def _words_of_rows(table: DatabaseTable) -> list[set[str]]:
    """Return the words of each sampled row."""
    texts = [one.values for one in table.columns.values() if one.kind in ("text", "json")]
    return [{*re.findall(r"\w{4,}", " ".join(map(str, row)).lower())} for row in zip(*texts, strict=True)]


def _pairs_with_equal_texts(tables: Sequence[DatabaseTable]) -> Iterator[tuple[DatabaseTable, DatabaseTable]]:
    """Yield tables with the table that has their longest texts, that they refer to, or whose name is shorter."""
    holders: dict[str, list[DatabaseTable]] = {}
    for table in tables:
        for text in set().union(*map(_long_texts, table.columns.values())):
            holders.setdefault(text, []).append(table)
    for table in tables:
        own = _long_texts(max(table.columns.values(), key=lambda one: sum(map(len, {*map(str, one.filled)}))))
        common = Counter(other for text in sorted(own) for other in holders[text] if other is not table)
        enough = max(MIN_COPIED, MIN_COPIED_SHARE * len(own))
        found = [other for other, count in common.items() if count >= enough and _is_copy(table, other)]
        for other in sorted(found, key=lambda other: not {*noun(other.name)} < {*noun(table.name)}):
            yield table, other


def _long_texts(column: Column) -> set[str]:
    """Return the beginnings of long texts, without markup, if there are several."""
    texts = {str(letters(value))[:MIN_COPIED_CHARS] for value in column.filled if column.kind in ("text", "json")}
    long = {text for text in texts if len(text) >= MIN_COPIED_CHARS}
    return long if len(long) >= MIN_COPIED else set()


def _is_copy(table: DatabaseTable, other: DatabaseTable) -> bool:
    """Return whether a table with many texts of another one holds copies of them."""
    if _is_for_programs(table) != _is_for_programs(other):  # the copy is that for a search
        return _is_for_programs(table)
    called = noun(other.name)
    refers = any(noun(name)[: len(called)] == called for name in table.columns)
    return refers or len(noun(table.name)) > len(called)


def _is_old(subject: Subject) -> bool:
    """Return whether rows are older versions of others, by the name of their table, and no remarks."""
    return subject.noun[-1] in vocab.OLD_VERSIONS and not subject.has_remarks


def _is_for_programs(table: DatabaseTable) -> bool:
    """Return whether a table is for programs, by its name."""
    named = {*noun(table.name)}
    return bool(named & (vocab.MACHINERY | vocab.DOUBTFUL)) or any(map(vocab.MACHINE_NOUN.fullmatch, named))


@dataclass(slots=True)
class _Proposer:
    """Makes a proposal, step by step."""

    roles: TableRoles
    include: Sequence[str]
    add: Sequence[str]
    answers: Mapping[str, bool]
    needed: Mapping[str, str]
    made: Proposal = field(default_factory=Proposal)
    donors: dict[Subject, str] = field(default_factory=dict)
    """Why a table is used by another one's documents."""

    def run(self) -> Proposal:
        """Return the proposal."""
        places = {"secret": self.made.secrets, "personal": self.made.personal, "internal": self.made.personal}
        for subject in self.roles.subjects:
            for role, place in places.items():
                names = [one.name for one in subject.profiles.values() if one.role == role]
                if names and subject.rows:
                    place.setdefault(subject.full_name, []).extend(names)
            reason = "is not wanted" if self.answers.get(subject.full_name) is False else subject.refusal()
            named = "_".join(subject.noun)
            above = [one.parent for one in subject.own_relations if one.parent.is_private]
            if any(word in named for one in above for word in one.noun):
                reason = reason or "belongs to what few persons may see"  # the messages of a conversation
            if reason and not (self._is_added(subject) or self.needed.get(subject.full_name) == reason):
                self.made.left_out[subject.full_name] = reason
        usable = self._kept(self.roles.subjects)
        self._find_donors(usable)
        self._find_roots(usable)
        self._find_parts(usable)
        proposed = {one: index for one in usable if (index := self._index_if_document(one)) is not None}
        for subject in self._without_document(usable, proposed):
            del self.roles.parts[subject]
            says = subject.title or subject.text_length >= MIN_DESCRIPTION
            if (index := self._index_if_document(subject)) is not None and says:
                self.made.left_out.pop(subject.full_name, None)
                proposed[subject] = index
        wholes: dict[Subject, None] = {}
        for subject in [one for one in usable if self.made.left_out.get(one.full_name) in NAMES]:
            if (relation := names_what(subject, proposed)) is not None:
                self.roles.parts[subject] = [relation]
                self.made.left_out[subject.full_name] = f"is a part of {relation.parent.full_name}"
                wholes[relation.parent] = None
        proposed |= {one: index for one in wholes if (index := self._index_if_document(one)) is not None}
        self._choose([proposed[subject] for subject in usable if subject in proposed])
        return self.made

    def questions(self) -> list[Question]:
        """Return what a person should decide: kinds of tables that are doubtful and no logs, and whose names say what.

        Those that are for programs by their names are asked about if much text is theirs, and the others together.
        """
        subjects = {one.full_name: one for one in self.roles.subjects if one.key and not one.is_log}
        chars = {name: round(one.rows * one.all_length) for name, one in subjects.items()}
        for one in self.made.coverage.missing:  # these are counted
            chars[one.table] = max(one.chars, chars.get(one.table, 0))
        left_out, total = self.made.left_out, sum(chars.values())
        shown = {table for index in self.made.indexes for table in index.tables}
        found = {name: reason for name, reason in left_out.items() if reason in ASKED and name not in shown}
        found |= self.needed
        found |= {index.tables[0]: LITTLE for index in self.made.indexes if index.score % BEHIND == NAMES_ALONE}
        kinds: dict[tuple[str, bool], list[Subject]] = {}
        for name in sorted(found.keys() & subjects.keys() - self.answers.keys(), key=lambda one: (-chars[one], one)):
            if chars[name] >= LARGE * total or found[name] not in PROGRAMS:
                what = "has names alone" if found[name] in NAMES else found[name]
                kinds.setdefault((what, name not in left_out), []).append(subjects[name])
        asked = [
            Question(names, what, sum(one.rows for one in some), sum(map(chars.__getitem__, names)), guess)
            for (what, guess), alike in kinds.items()
            for some in [alike[:MAX_INDEXES]]
            for names in [tuple(one.full_name for one in some)]
        ]
        hidden = [one for one in self.made.coverage.hidden if one.table in subjects]
        asked += filter(None, [self._hidden_rows(one, subjects[one.table]) for one in hidden])
        worth = [one for one in asked if one.chars >= MIN_ASKED_SHARE * total > 0]
        return sorted(worth, key=lambda one: -one.chars)[:MAX_QUESTIONS]

    def _hidden_rows(self, hidden: Missing, subject: Subject) -> Question | None:
        """Return the question whether to show the rows that one column hides, if these are most of a table."""
        for condition in [one for one in subject.conditions if one.relation is None]:
            values = subject.columns[condition.column].values
            share = sum(not condition.shows(value) for value in values) / max(1, len(values))
            asked = Question(
                (hidden.table,), condition.reason, round(share * subject.rows), hidden.chars, guess=False,
                yes="they are searched too", no="no search finds them", column=condition.column,
            )  # fmt: skip
            if share > MOST and not self.answers.keys() & {*asked.keys}:
                return asked
        return None

    def uses(self) -> list[TableUse]:
        """Return what becomes of the tables with text."""
        shown = shown_columns(self.made.indexes)
        tables = [self._use_of(one, shown) for one in self.roles.subjects if one.rows]
        return sorted(filter(lambda one: one.columns, tables), key=lambda one: (bool(one.reason), -one.chars))

    def _use_of(self, subject: Subject, shown: Container[tuple[str | None, str, str]]) -> TableUse:
        columns = {name: subject.use_of(name) for name, one in subject.columns.items() if one.kind in ("text", "json")}
        for name, use in columns.items():  # a code, such as the city of a customer, may be text, too
            if use == "out" and (subject.schema, subject.name, name) in shown:
                columns[name] = "text"
        reason = self.made.left_out.get(subject.full_name, "")
        return TableUse(subject.full_name, subject.rows, round(subject.rows * subject.all_length), reason, columns)

    def _kept(self, subjects: Sequence[Subject]) -> list[Subject]:
        return [one for one in subjects if one.full_name not in self.made.left_out]

    def _is_added(self, subject: Subject) -> bool:
        return _matches(subject.full_name, self.add)

    def _is_wanted(self, subject: Subject) -> bool:
        return self._is_added(subject) or subject.full_name in self.needed

    def _without_document(self, usable: Sequence[Subject], proposed: Container[Subject]) -> list[Subject]:
        """Return the tables whose rows are parts of what is no document, and of what is no part of one."""
        parts = self.roles.parts
        shown = {one for one in usable if one in proposed} | {one.parent for one in self.roles.root.values()}
        for _ in range(MAX_DEPTH):  # a part of a part is shown, too
            shown |= {one for one in parts if any(relation.parent in shown for relation in parts[one])}
        return [one for one in parts if one not in shown]

    def _find_donors(self, usable: Sequence[Subject]) -> None:
        """Find the tables that hold the text of another one's rows, such as the newest revision of a page."""
        for subject in usable:
            reason = f"holds the text of {subject.full_name}"
            for relation in [one for way in text_parents(subject) for one in way]:
                self.donors.setdefault(relation.parent, reason)
            for one in subject.attributes:
                if one.value is not None:
                    self.donors[one.value.parent] = reason
            for pointed in pointed_texts(subject)[:1]:
                link, (way,) = pointed.way[0], pointed.shown
                versions = [own.parent for own in link.child.relations if own.columns == link.columns]
                self.donors |= dict.fromkeys([*versions, link.child, *[over.parent for over in way]], reason)

    def _find_roots(self, usable: Sequence[Subject]) -> None:
        """Find the tables of translations: each row is a document."""
        by_language = {one.parent: own for own in usable for one in own.relations if own.is_by_language(one)}
        for subject in usable:
            for relation in subject.own_relations if subject.has_text and subject not in self.donors else ():
                root = relation.parent
                if root is subject or root.is_people or not self._kept([root]):
                    continue
                if by_language.get(root, subject) is not subject:  # a part in each language
                    continue
                # what people read of a row is elsewhere: it has no title, and attributes at most
                named_so = root.title in root.profiles and root.profiles[str(root.title)].last_word in vocab.TITLES
                prose = [one for name in root.prose if (one := root.profiles[name]).role == "prose" or not root.title]
                bare = not named_so and all(one.form == "json" for one in prose)
                told = subject.prose or root in by_language
                if subject.locale and bare and told and {*root.noun} & {*subject.noun}:
                    self.roles.root[subject] = relation
            if (own := self.roles.root.get(subject)) is not None:
                self.donors[own.parent] = f"is in the documents of {subject.full_name}"

    def _find_parts(self, usable: Sequence[Subject]) -> None:
        """Find the tables whose rows are parts of another one's, and have text in enough of them."""
        for subject in usable:
            if subject in self.roles.root or subject in self.donors or self._is_wanted(subject) or _is_old(subject):
                continue
            relations = [one for one in part_relation(subject) if self._kept([one.parent])]
            own = wanted_texts(subject, [*subject.title_columns, *subject.prose])
            if relations and (own or donors_of_part(subject)):
                self.roles.parts[subject] = relations
        for _ in range(MAX_DEPTH):
            for subject in usable:
                if above := self._holds_parts_of(subject):
                    self.roles.parts[subject] = above

    def _holds_parts_of(self, subject: Subject) -> list[Relation]:
        """Return the relations to what rows without text hold the parts of.

        Such rows are the states of a merge request; what all kinds of blocks have in common, which have one row more
        each; and what holds these for a row of any table.
        """
        parts = self.roles.parts_of(subject)
        if subject in self.roles.parts or subject in self.donors or subject.has_text or not parts:
            return []
        typed = [one for one in subject.relations if one.type_column]
        named = [[key for key in one.named() if key is not None] for one in typed]
        if typed and all(len(ids) == len({*ids}) > 1 for ids in named):  # one for each, such as the thread of a ticket
            return typed
        if owners := exclusive_owners(subject):
            return owners
        common = any(relation.extends for _, relation in parts)
        for one in subject.own_relations:
            parent = one.parent
            named_after = parent.has_text and {*parent.noun} <= {*subject.noun[:-1]}
            holder = common and parent is not subject and any(above.type_column for above in parent.relations)
            if (named_after or holder) and not (one.is_pointer or parent.is_people):
                return [one]
        return []

    def _index_if_document(self, subject: Subject) -> ProposedIndex | None:
        """Return the index of a table; None if its rows are no documents, with the reason in what is left out."""
        added, parts = self._is_wanted(subject), self.roles.parts.get(subject, ())
        if self.include and not _matches(subject.full_name, self.include) and not added:
            reason = "is not included"
        elif subject in self.donors and not added:
            reason = self.donors[subject]
        elif _is_old(subject) and not (added or subject in self.roles.root):
            reason = "holds older versions of rows"
        elif parts:
            reason = f"is a part of {', '.join(relation.parent.full_name for relation in parts)}"
        elif not subject.key:
            reason = "has no primary key: write its [[indexes]] by hand, with unique columns as `key`"
        else:
            index = IndexMaker(subject, self.roles).made()
            if index is not None and subject.full_name in self.needed:
                index.score -= BEHIND
            repeats = index is not None and "parts" not in index.settings and subject.repeats_itself
            if index is not None and (added or (index.score >= 1 and not repeats)):
                return index
            nothing = "has no text of its own" if subject.relations else "has no text"
            reason = "repeats a few texts, as logs do" if repeats else _names(subject) if subject.has_text else nothing
        self.made.left_out[subject.full_name] = reason
        return None

    def _choose(self, proposed: list[ProposedIndex]) -> None:
        """Keep the best, and give them names: those to which many tables refer before what the application brought."""
        names: set[str] = set()
        subjects = {one.full_name: one for one in self.roles.subjects}

        def rank(one: ProposedIndex) -> float:
            subject = subjects[one.tables[0]]
            referring = {relation.child for relation in subject.children}
            return one.score + math.log10(1 + len(referring)) - INSTALLED * subject.is_installed

        told = sum(subjects[one.tables[0]].rows for one in proposed if one.score > NAMES_ALONE)
        best = {one.tables[0] for one in sorted(proposed, key=rank, reverse=True)[:MAX_INDEXES]}
        for one in sorted(proposed, key=lambda one: -one.score):
            table, subject = one.tables[0], subjects[one.tables[0]]
            said = sum(subject.profiles[name].said * subject.profiles[name].filled for name in subject.prose)
            long = said >= MIN_ALONE or subject.is_thing
            sold = subject.is_installed and subject.is_sold
            many = one.score == NAMES_ALONE and not (sold or subject.is_reached)
            if many and 0 < told < subject.rows and not self._is_wanted(subject):  # they would outnumber all texts
                self.made.left_out[table] = _names(subject)
            elif table in best or long or self._is_wanted(subject):
                plain = slugify(one.name, regex_pattern=r"[^a-z0-9_-]+", max_length=MAX_NAME_CHARS)
                one.name = free_name(re.sub(r"__+", "_", plain).strip("-_") or "index", names, "-")
                names.add(one.name)
                self.made.indexes.append(one)
            else:
                self.made.left_out[table] = AFTER
