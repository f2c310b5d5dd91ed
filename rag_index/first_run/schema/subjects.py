"""What the tables of a database are for: which ones people look for, and which are parts, labels or machinery."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.core.settings.parts import FILE
from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.catalog import SAMPLED_ROWS, DatabaseTable
from rag_index.first_run.schema.columns import (
    FEW,
    FILE_CHARS,
    MAX_TITLE_CHARS,
    MOST,
    NEARLY_ALL,
    ColumnProfile,
    is_for_programs,
    is_template,
    names_for_programs,
    noun,
    singular,
    tells_programs,
    words,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from rag_index.first_run.schema.catalog import Column
    from rag_index.first_run.schema.columns import Role

CHOSEN: dict[str, Role] = {"title": "short", "text": "prose", FILE: "prose", "secret": "secret", "out": "other"}
"""The roles of columns by what a person may choose."""
EXPLAINS = "explains what programs or forms offer"
TEXTS = ("short", "prose", "code")
MIN_PASSWORDS = 0.2
"""If fewer rows have a password, it protects the row, and the table holds no accounts."""
MAX_PAIR_COLUMNS = 6
"""A table of names and values with at most this many columns holds settings, whatever it is called."""
MIN_SUBJECT = 24
"""The average length of subjects, such as those of e-mails, that say something without a text."""
MARKUP = re.compile(r"<[^<>]*+>|\[/?\w++[^\[\]]*+\]|&#?\w+;|[\W_]")
MIN_PROGRAM_COLUMNS = 2
"""Rows are for programs if at least this many columns are, and twice as many as people read."""
MIN_UNIX_SECONDS, MAX_UNIX_SECONDS = 500_000_000, 2_200_000_000
"""Numbers between these are taken for seconds since 1970: from 1985 to 2039."""
MIN_LOG_ROWS = 8
CHECKSUM = re.compile(r"(?:[0-9a-f]{32}|[0-9a-f]{40}|[0-9a-f]{64})", re.IGNORECASE)
MAX_SAID = 60
"""Words of a row by which it repeats others."""
WORD = re.compile(r"[a-z]+|[^\W\d_a-z]+")
MAX_MINUTES = 2
"""Rows that were written within this number of minutes came with the application."""
MIN_INSTALLED = 3
MAX_EXPLAINED = 300
"""Longer texts are no explanations of what programs or forms offer: people wrote them to be read."""
MIN_VALUES = 2
"""The values of a thing, on average, that a table has for each of several fields."""
MIN_SHOWING = 4
MIN_THINGS = 3
MAX_NAMES = 2
"""What is called by more columns is called by none: a person has a first and a last name."""
MAX_TOLD = 5
"""A table of names has at most this many columns with values, beside flags and times."""
MAX_CAPTION = 30
"""The average length of the names of fields."""
MAX_SUMMARY = 100
"""A summary of at most this average length is the title of a row without another, as in bug trackers."""
MIN_LONGER = 3
"""Texts are headings of others that are at least this many times as long on average."""
SENTENCE_ENDS = ".,;:。，"
MAX_LABELS = 40
"""Rows of a table that only names what others refer to, such as states and categories."""
NOTHING = ("", 0, "0", -1)
"""What a column has that names no row, besides NULL."""


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for rows that may be shown, in SQL, and why."""

    column: str
    sql: str
    reason: str
    shows: Callable[[Any], object] = field(default=lambda value: True)
    """Whether a row with this value of the column may be shown."""
    relation: Relation | None = None
    """The relation to the rows with which a row is hidden, if it is hidden with them."""


@dataclass(frozen=True, slots=True, eq=False)
class Relation:
    """Rows of `child` name rows of `parent`: pairs of columns, and a value that says that this parent is meant."""

    child: Subject
    parent: Subject
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
    def referred(self) -> list[str]:
        """Return the columns of the parent."""
        return [column for _, column in self.pairs]

    @property
    def is_pointer(self) -> bool:
        """Return whether it names one version of several, as `latest_revision_id` does."""
        return bool(vocab.POINTERS & set(words(self.columns[0])))

    @property
    def is_plain(self) -> bool:
        """Return whether one column names rows of this parent alone."""
        return len(self.pairs) == 1 and not self.type_column

    @property
    def extends(self) -> bool:
        """Return whether the key of a row is that of the row that it names: there is one at most for each."""
        return self.columns == list(self.child.key) and not self.type_column

    def has_one_for_each(self, caption: Relation) -> bool:
        """Return whether a row that is named has several of the child, nearly all with another caption.

        Both may be the key, or rows of a sample of those with a number of their own.
        """
        keys = {*self.columns, *caption.columns}
        if len(self.child.key) != 1 or {*self.child.key} & self.child.named_columns:
            return keys == {*self.child.key} != {*self.columns}
        rows = self.child.rows_of(self.columns[0], caption.columns[0])
        return len({*rows}) >= max(MOST * len(rows), MIN_VALUES * len({own for own, _ in rows}))

    def to_title(self) -> Relation:
        """Return the relation to what the named row is called by: the row itself, or one more for it."""
        row = self.parent.title_row
        if row is None or not self.is_plain:
            return self
        return replace(self, parent=row.child, pairs=((self.columns[0], row.columns[0]),))

    def named(self) -> list[Any]:
        """Return what the only column has in the rows that mean this parent."""
        if not self.type_column:
            return list(self.child.columns[self.columns[0]].values)
        rows = self.child.rows_of(self.type_column, self.columns[0])
        return [value for kind, value in rows if kind == self.type_value]

    @property
    def share(self) -> float:
        """Return the share of rows that name one of this parent by their first column."""
        values = self.child.columns[self.columns[0]].values
        return sum(one is not None and one not in NOTHING for one in values) / max(1, len(values))

    def excludes(self, other: Relation) -> bool:
        """Return whether no row has a value in the first columns of both relations."""
        rows = self.child.rows_of(self.columns[0], other.columns[0])
        return all({*named} & {None, *NOTHING} for named in rows)

    @property
    def type_sql(self) -> str:
        """Return what holds for rows that mean this parent; "" if all do."""
        if not self.type_column:
            return ""
        text = str(self.type_value).replace("'", "''")
        value = text if isinstance(self.type_value, int) else f"'{text}'"
        return f"{self.child.columns[self.type_column].sql} = {value}"


@dataclass(frozen=True, slots=True, eq=False)
class Attribute:
    """How a table says more of the rows of another one: each of its rows has a caption and a value."""

    own: Relation
    """The relation to the row that it says something about."""
    caption: Relation
    value: Relation | None
    """The relation to the row with the text of the value; None if the column is its own."""
    column: str

    def called(self) -> Any:
        """Return the key of the caption that means the title of a row; None if there is none."""
        ((named, key),) = self.caption.pairs
        used, table = {*self.own.child.columns[named].filled}, self.caption.parent
        rows = table.rows_of(key, *table.captions)
        found = {words(" ".join(str(text) for text in called if text)): one for one, *called in rows if one in used}
        return next((found[(title,)] for title in vocab.TITLES if (title,) in found), None)

    def first(self, condition: str) -> str:
        """Return in SQL that a value is the first of its thing that meets a condition, by a number of its own."""
        link, (key,) = self.own.child, [self.own.child.columns[name].sql for name in self.own.child.key]
        where = " AND ".join(filter(None, [self.own.type_sql, condition]))
        own = link.columns[self.own.columns[0]].sql
        return f"{key} IN (SELECT MIN({key}) FROM {link.sql} WHERE {where} GROUP BY {own})"


@dataclass(eq=False, kw_only=True)
class Subject(DatabaseTable):
    """A table, what its columns hold, and which rows may be shown."""

    called: tuple[str, ...]
    """What it is called, without the word with which most names of tables begin."""
    profiles: dict[str, ColumnProfile]
    conditions: list[Condition] = field(default_factory=list)
    unmet: list[Condition] = field(default_factory=list)
    """Conditions that leave out all rows of the sample."""
    relations: list[Relation] = field(default_factory=list)
    """Relations to its parents."""
    children: list[Relation] = field(default_factory=list)

    @property
    def own_relations(self) -> list[Relation]:
        """Return the relations that all rows have, whatever their type."""
        return [one for one in self.relations if not one.type_column]

    @cached_property
    def noun(self) -> tuple[str, ...]:
        """Return what it is called, in the singular."""
        return tuple(map(singular, self.called))

    @cached_property
    def named_columns(self) -> set[str]:
        """Return the columns that name rows of other tables."""
        return {column for relation in self.relations for column in relation.columns}

    @cached_property
    def title(self) -> str | None:
        """Return the column, or the template of columns, that says what a row is called."""
        profiles = self.profiles.values()
        spelled = {"_".join(words(name)): name for name in reversed(self.columns)}
        first, last = (
            next((spelled[one] for one in names if one in spelled), None)
            for names in (vocab.FIRST_NAMES, vocab.LAST_NAMES)
        )
        answers = any(p.last_word == "answer" and p.role == "prose" for p in profiles)
        known = {*vocab.TITLES} - vocab.PROSE - vocab.CODES | ({"question"} if answers else set())
        names = [p for p in profiles if p.last_word in known and p.role in TEXTS and p.length <= MAX_TITLE_CHARS]
        names = [p for p in names if (p.filled >= FEW and p.role != "code") or words(p.name) == ("title",)]
        if first and last:  # the title of a person is that of a profession, which many have
            names = [p for p in names if min(p.filled, p.distinct) >= NEARLY_ALL and p.name not in (first, last)]
        if names:
            return min(names, key=self._title_rank).name
        if first and last:
            return f"{{{first}}} {{{last}}}"
        others = [p for p in profiles if p.role == "short" and p.filled >= 0.5 and p.distinct >= FEW]
        summaries = [self.profiles[name] for name in vocab.SUMMARIES if name in self.profiles]
        others = others or [p for p in summaries if p.form == "plain" and 0 < p.length <= MAX_SUMMARY]
        others = others or self._headings()
        extended = any(one.extends and one.child.rows >= FEW * self.rows for one in self.children)
        if not (others or extended or self._is_described):  # called by a code
            coded = [p for p in profiles if p.name.lower() in ("name", "title") and p.texts]
            others = [p for p in coded if p.distinct >= MOST <= p.filled]
        return others[0].name if others else self._named_by_rows()

    @property
    def _is_described(self) -> bool:
        return any(one.role == "prose" and one.filled for one in self.profiles.values())

    def _headings(self) -> list[ColumnProfile]:
        """Return the first column with texts if they stand over longer ones: lines that end as no sentence does.

        It may be another one where rows are called by a number, such as sections of a law.
        """
        read = [p for p in self.profiles.values() if p.is_text and p.texts]
        coded = {p.name.lower() for p in self.profiles.values() if p.role in ("code", "other")}
        longest = max((p.length for p in read), default=0)
        for one in read if coded & {"name", "title"} else read[:1]:
            lines = [text for text in one.texts if len(text) <= MAX_TITLE_CHARS and text[-1] not in SENTENCE_ENDS]
            lines = [text for text in lines if "\n" not in text]
            told = one.filled >= MOST and one.distinct >= 0.5 and len(lines) >= NEARLY_ALL * len(one.texts)
            named = (vocab.WRITERS | vocab.FILES) & {*words(one.name)}
            if told and one.form == "plain" and one.length * MIN_LONGER <= longest and not named:
                return [one]
        return []

    @cached_property
    def title_row(self) -> Relation | None:
        """Return the relation of the rows that say what those of this table are called, one for each of them."""
        named = [one for one in self.children if one.extends and one.child.rows >= FEW * self.rows]
        named = [one for one in named if one.child.title in one.child.columns and not one.child.says_something]
        named.sort(key=lambda one: not {*words(str(one.child.title)), *one.child.noun} & {*vocab.WHOLE_TITLES, "name"})
        return named[0] if named and self.title is None else None

    def _named_by_rows(self) -> str | None:
        """Return the only column with text, or the only one or two with codes, if they have short names.

        Others refer to these rows, or they are a few kinds. Codes begin as names do: `Musso`, and neither `EUR` nor
        `read_only`.
        """
        free = [p for p in self.profiles.values() if p.texts and p.name not in self.key]
        read = [p for p in free if p.is_text] or [p for p in free if p.role == "code"]
        told = [p for p in self.profiles.values() if p.filled and p.role not in ("flag", "time", "personal")]
        kinds = len(told) <= MAX_TOLD and self.rows <= MAX_LABELS and self.minutes <= MAX_MINUTES
        kinds = kinds and all(one.parent.is_people for one in self.relations)
        if not 0 < len(read) <= MAX_NAMES or not (self.children or kinds):
            return None
        rows, texts = self.rows_of(*[p.name for p in read]), [text for p in read for text in p.texts]
        begun = sum(text[:1].isupper() and not text.isupper() for text in texts) >= NEARLY_ALL * len(texts)
        alone = begun and self.is_installed and len(read) + len(self.key) == len(self.columns)
        named = len(read) == 1 if read[0].is_text else alone
        short = sum(len(text.encode()) for text in texts) <= MAX_CAPTION * len(texts)
        least = NEARLY_ALL if read[0].is_text else MOST
        apart = len({*rows}) >= max(MIN_INSTALLED, least * len(rows))
        if not (named and short and apart) or min(p.filled for p in read) < NEARLY_ALL:
            return None
        return read[0].name if len(read) == 1 else " ".join(f"{{{p.name}}}" for p in read)

    def _title_rank(self, p: ColumnProfile) -> tuple[Any, ...]:
        profiles = self.profiles.values()
        named = any(one.last_word == "name" and one.distinct >= NEARLY_ALL for one in profiles)
        person = any(one.role == "personal" for one in profiles) and not self._is_described
        job = person and p.last_word == "title"  # a title beside a name is a profession
        many = (job or p.distinct < MOST) and (named or p.name not in vocab.WHOLE_TITLES)
        rare = (p.name,) == self.key or p.filled < FEW
        return "meta" in words(p.name), rare, many, len(words(p.name)) > 2, vocab.TITLES.index(p.last_word)

    @cached_property
    def title_columns(self) -> list[str]:
        """Return the columns of the title."""
        title = self.title
        return [name for name in self.columns if title == name or f"{{{name}}}" in (title or "")]

    def title_of(self, join: str) -> str:
        """Return a template of the title of a row that is joined under this name."""
        template = f"{{{self.title}}}" if self.title in self.columns else str(self.title)
        return template.replace("{", f"{{{join}.")

    @cached_property
    def prose(self) -> list[str]:
        """Return the columns with texts, without the title and those that repeat another."""
        found = {self.title: "prose"} if self.title in self.columns else {}
        for one in sorted(self.profiles.values(), key=lambda one: -round(one.filled, 1)):  # the fuller of two is kept
            if one.is_text and one.name not in self.title_columns:
                found |= {} if any(_is_equal(self, one.name, str(other)) for other in found) else {one.name: one.role}
        named = found.keys() - {self.title}
        return sorted(named, key=lambda name: (found[name] != "prose", [*self.columns].index(name))) or self.pair

    @cached_property
    def pair(self) -> list[str]:
        """Return the columns with a caption and a short value by which a row says more of the only thing it names."""
        free = [p for p in self.profiles.values() if p.texts and p.role in ("code", "choice", "short")]
        free = [p for p in free if p.name not in self.named_columns.union(self.key)]
        free.sort(key=lambda p: p.last_word in vocab.LINK_VALUES)
        if [p.last_word in vocab.LINK_VALUES for p in free] != [False, True] or self.title or self.title_row:
            return []
        if len(self.relations) != 1 or self.children or any(map(is_named_like_a_secret, free[0].texts)):
            return []
        thing = self.relations[0].parent
        named = {*thing.noun} <= {*self.noun[:-1]} or self.noun[-1] in vocab.PARTS
        return [p.name for p in free] if named and thing.title and not thing.is_people else []

    @cached_property
    def _own(self) -> list[ColumnProfile]:
        """Return the columns with values of at least half of the rows that are neither their names nor keys."""
        used = {*self.key, *self.title_columns, *self.named_columns}
        return [one for one in self.profiles.values() if one.name not in used and one.filled >= 0.5]

    @property
    def is_reached(self) -> bool:
        """Return whether rows have a number or an address of their own, as people and companies have."""
        reached = [one for one in self._own if one.role == "personal" and one.distinct >= 0.5]
        return any({*words(one.name)} & vocab.CONTACT for one in reached)

    @cached_property
    def is_thing(self) -> bool:
        """Return whether rows tell more than a name of what people keep a list of, such as staff, orders and courses.

        They are contacts of a person, or a person wrote them one by one. If no column has a time, they name rows of two
        other tables. Labels and lists of countries do not.
        """
        told = sum(one.role in TEXTS or one.role == "choice" for one in self._own if one.distinct > 0.2)
        numbered = [one for one in self._own if one.role == "code" and min(one.distinct, one.filled) > NEARLY_ALL]
        known = self.has_text or any(any(map(str.isdigit, text)) for one in numbered for text in one.texts[:1])
        if self.rows < MIN_THINGS or self.is_login or not (known and told):
            return False
        above = {one.parent for one in self.own_relations if one.parent is not self and one.share > FEW}
        above = {one for one in above if one.title and not (one.is_login or one.says_nothing)}
        named = len(above) > 1 and bool(self.title) and not self.minutes
        return self.is_reached or (named if self.is_installed else told + len(above) > 1)

    @property
    def codes(self) -> list[str]:
        """Return the columns with numbers and codes by which people know a row."""
        used = {*self.named_columns, *self.title_columns, *[one.column for one in self.conditions]}
        return [one.name for one in self.profiles.values() if one.role == "code" and one.name not in used]

    @property
    def is_sold(self) -> bool:
        """Return whether rows have a code and a number such as a price, or a table with such."""
        named = {*chain(*map(words, self.columns), *[one.child.noun for one in self.children])}
        return bool(self.codes and named & vocab.USEFUL_NUMBERS)

    @cached_property
    def thread(self) -> Relation | None:
        """Return the relation of replies to the first message, if no reply has a reply itself.

        They have its title or none, and it is called `root_id`; or what has answers has a title, and no answer has one.
        """
        own = [one for one in self.relations if one.parent is self and one.is_plain]
        usable = self.has_prose and (self.title is None or self.title in self.columns)
        return next((one for one in own if usable and self._are_replies(*one.pairs[0])), None)

    def _are_replies(self, column: str, key: str) -> bool:
        rows = self.shown_rows()
        titles = {row[key]: str(row.get(str(self.title)) or "") for row in rows}
        above = {row[key]: row[column] for row in rows if row[column] not in (None, *NOTHING)}
        if not above or above.keys() & {*above.values()}:
            return False
        untitled = bool(self.title) and all(bool(title) == (own not in above) for own, title in titles.items())
        pairs = [(titles[own], titles[other]) for own, other in above.items() if other in titles]
        alike = sum(other.lower() in own.lower() for own, other in pairs)
        return untitled or ("root" in words(column) and alike >= NEARLY_ALL * len(pairs))

    def shown_rows(self) -> list[dict[str, Any]]:
        """Return the sampled rows that may be shown."""
        rows = [dict(zip(self.columns, row, strict=True)) for row in self.rows_of(*self.columns)]
        return [row for row in rows if all(one.shows(row[one.column]) for one in self.conditions)]

    def hides_all(self, unmet: Condition) -> bool:
        """Return whether a flag or a time of deletion that all sampled rows have is that of all rows."""
        flags = vocab.HIDDEN_FLAGS | vocab.SHOWN_FLAGS
        return bool(flags & {*words(unmet.column)}) and self.rows <= SAMPLED_ROWS

    @cached_property
    def has_prose(self) -> bool:
        """Return whether a row has a text beside its title."""
        return any(self.profiles[name].role == "prose" for name in self.prose)

    @property
    def says_something(self) -> bool:
        """Return whether some rows have a text beside their title, or subjects that are sentences."""
        told = self.profiles.get(self.title or "")
        if told is not None and told.last_word in vocab.SUBJECTS and told.length >= MIN_SUBJECT:
            return True
        return any(self.profiles[name].role == "prose" and self.profiles[name].filled for name in self.prose)

    @property
    def is_whole(self) -> bool:
        """Return whether a row has a title and a text."""
        return bool(self.title) and self.has_prose

    @cached_property
    def has_text(self) -> bool:
        """Return whether people read anything of a row."""
        named = bool(self.title or self.title_row)
        return named or any(self.profiles[name].filled for name in self.prose) or bool(self.attributes)

    @cached_property
    def text_length(self) -> float:
        """Return the average length of the texts of a row."""
        return sum(self.profiles[name].length * self.profiles[name].filled for name in self.prose)

    def choose(self, uses: Mapping[str, str]) -> None:
        """Take columns for what a person says of them, before anything else is derived from them."""
        for name, use in uses.items():
            more: dict[str, Any] = {"form": FILE, "length": FILE_CHARS, "texts": ()} if use == FILE else {}
            self.profiles[name] = replace(self.profiles[name], role=CHOSEN[use], **more)
            if use == "title":
                self.title = name

    def use_of(self, name: str) -> str:
        """Return what a column is used for: `title`, `text`, `secret` (for people, too) or `out`."""
        if name in self.title_columns or name in self.prose:
            return "title" if name in self.title_columns else "text"
        return "secret" if self.profiles[name].role in ("secret", "personal", "internal") else "out"

    @property
    def all_length(self) -> float:
        """Return the average length of what people read of a row, its title too."""
        titles = (self.profiles[name] for name in self.title_columns)
        return self.text_length + sum(one.length * one.filled for one in titles)

    @cached_property
    def locale(self) -> str | None:
        """Return the column with the language of a row."""
        known = [one.name for one in self.profiles.values() if one.role == "locale"]
        numbered = [one for one in self.relations if noun(one.parent.name)[-1] in vocab.LANGUAGES]
        known += [one.columns[0] for one in numbered if len(self.key) > 1 and one.columns[0] in self.key]
        return known[0] if known else None

    def is_by_language(self, relation: Relation) -> bool:
        """Return whether there is one row with a title for each language of what a relation names."""
        key = {*relation.columns, str(self.locale)}
        return bool(self.title) and relation.parent is not self and key == {*self.key}

    @cached_property
    def version(self) -> str | None:
        """Return the column with the number of a version, if rows are versions of one thing."""
        free = [name for name in self.key[1:] if name not in self.named_columns]
        return next((name for name in free if {"version", "revision", "rev", "ver"} & {*words(name)}), None)

    @cached_property
    def is_login(self) -> bool:
        """Return whether rows are accounts of people who log in.

        Either the table is called so, or many rows have a password, and a name to log in with.
        """
        secret = [one for one in self.profiles.values() if one.role == "secret"]
        if self.noun[-1] in vocab.PEOPLE:
            return bool(secret)
        named = [one for one in secret if vocab.PASSWORDS & {*words(one.name)} or one.last_word.endswith("password")]
        login = any(vocab.LOGINS & {*words(name)} and words(name)[-1] != "id" for name in self.profiles)
        return login and any(one.filled >= MIN_PASSWORDS for one in named)

    @property
    def is_people(self) -> bool:
        """Return whether rows are persons."""
        return self.is_login or self.noun[-1] in vocab.PEOPLE

    @cached_property
    def times(self) -> list[Column]:
        """Return the columns with times: as such, or in seconds since 1970."""
        found = [one for one in self.columns.values() if any(one.filled) and one.name not in self.key]
        at = [one for one in found if sum(map(_is_time, one.filled)) >= NEARLY_ALL * len(one.filled)]
        return [one for one in found if self.profiles[one.name].role == "time" or one in at]

    @cached_property
    def minutes(self) -> int:
        """Return in how many minutes the sampled rows were written, as the column with most of them says."""
        return max((len({*map(_minute, one.filled)}) for one in self.times), default=0)

    @cached_property
    def repeats(self) -> bool:
        """Return whether rows say the same again, but for numbers and names."""
        said = [name for name in self.prose if (one := self.profiles[name]).role == "prose" and one.texts]
        return bool(said) and is_repeated([" ".join(str(text) for text in row if text) for row in self.rows_of(*said)])

    @cached_property
    def is_log(self) -> bool:
        """Return whether programs write row after row, and repeat what they say.

        Either the table is called so, or rows are of several times, other columns are for programs, too, and none names
        a thing, as a post names its topic.
        """
        if not (self.title is None or self.is_unnamed) or any(one.child.has_prose for one in self.children):
            return False
        others = [one for one in self.columns.values() if one.name not in self.prose]
        named = self.is_machinery or ({*self.noun} & vocab.DOUBTFUL and self.noun[-1] not in vocab.OLD_VERSIONS)
        alone = self.minutes > MAX_MINUTES and all(one.parent.is_people for one in self.own_relations)
        told = alone and any(map(tells_programs, others))
        return bool(named or told) and self.repeats

    @property
    def repeats_itself(self) -> bool:
        """Return whether rows without a title have the same few texts."""
        told = [one for name in self.prose if (one := self.profiles[name]).texts and not self.title]
        return bool(told) and all(len(one.texts) > MIN_INSTALLED and one.distinct <= FEW for one in told)

    @cached_property
    def is_installed(self) -> bool:
        """Return whether the rows came all at once: none names a person, and all are of one moment or of none."""
        above = [one.parent for one in self.own_relations if one.parent is not self]
        return self.minutes <= MAX_MINUTES and not any(one.is_people for one in above)

    @cached_property
    def explains_programs(self) -> bool:
        """Return whether rows say what programs or forms offer, such as hooks, kinds of rows, or fields with values.

        They came with the application, and programs know them by a name, or other rows as their kind or caption.
        """
        if not self.is_installed or self.text_length > MAX_EXPLAINED:
            return False
        told = [p for p in self.profiles.values() if min(p.distinct, p.filled) > MOST and p.role != "secret"]
        names = [self.columns[p.name] for p in told if p.last_word in vocab.PROGRAM_NAMES]
        if self.rows >= MIN_INSTALLED and any(map(names_for_programs, names)):
            return True
        last = next((word for word in reversed(self.noun) if word not in vocab.TRANSLATIONS), "")
        named = self.children or any(one.parent.children for one in self.own_relations if self.is_by_language(one))
        few, short = named and self.rows <= MAX_LABELS, bool(self.title) and self.text_length <= MAX_SUMMARY
        return (bool(few or short) and last in vocab.KINDS_OF_ROWS) or self.is_caption

    @property
    def captions(self) -> list[str]:
        """Return the columns with what rows are called if they are fields, such as `contributor` and `author`."""
        return self.title_columns or [p.name for p in self.profiles.values() if p.role == "code" and p.texts]

    @cached_property
    def is_caption(self) -> bool:
        """Return whether rows are the names of fields: other rows have their values, each of one more row."""
        length = sum(self.profiles[name].length for name in self.captions)
        if not 0 < length <= MAX_CAPTION or not self.is_installed:
            return False
        for own in [one for one in self.children if one.is_plain]:
            fields = len({*own.named()})
            others = [one for one in own.child.relations if one.parent is not self]
            others = [one for one in others if fields < len({*one.child.columns[one.columns[0]].filled})]
            each = [one for one in others if one.type_column or one.has_one_for_each(own)]
            texts = [one for one in own.child.profiles.values() if one.texts and one.role in TEXTS]
            if each and [one.last_word in vocab.LINK_VALUES and one.filled >= MOST for one in texts] == [True]:
                return True
        return False

    @property
    def is_value(self) -> bool:
        """Return whether a row is called by a value, and says of other rows what has it: that of a field of a bug."""
        value = self.title in self.profiles and self.profiles[str(self.title)].last_word == "value"
        return value and {*self.key} <= self.named_columns

    @property
    def is_link(self) -> bool:
        """Return whether a row says of rows of other tables that they belong together, and no more."""
        others = [one for name, one in self.profiles.items() if name not in self.named_columns.union(self.key)]
        return len(self.named_columns) > 1 and all(one.role in ("time", "flag", "number", "empty") for one in others)

    @property
    def is_unnamed(self) -> bool:
        """Return whether many rows that may be shown have the same title, which tells none from the others.

        A draft has the title of what was published.
        """
        titles = [row[self.title] for row in self.shown_rows()] if self.title in self.columns else []
        return len({*titles}) < MOST * len(titles)

    @property
    def says_nothing(self) -> bool:
        """Return whether the name of a row is nothing that tells others apart: all name the only one, or a language."""
        return self.rows < 2 or self.noun[-1] in vocab.LANGUAGES

    @cached_property
    def attributes(self) -> list[Attribute]:
        """Return the tables that say more of a row, by one value for each caption, such as the fields of a book."""
        found = []
        for own in [one for one in self.children if len(one.pairs) == 1 and not one.prefix]:
            link = own.child
            captions = [one for one in link.own_relations if one.is_plain and one.columns != own.columns]
            captions = [one for one in captions if own.has_one_for_each(one) and one.columns[0] != link.locale]
            titled = [one for one in captions if one.parent.title in one.parent.columns and len(link.key) > 1]
            captions = titled or [one for one in captions if one.parent.is_caption]
            for caption in captions[:1]:
                values = [(one, one.parent) for one in link.own_relations if one not in (own, caption)]
                for value, table in [*values, (None, link)]:
                    read = [p for p in table.profiles.values() if p.role not in ("choice", "secret", "locale")]
                    texts = [p for p in read if p.texts]
                    if [one.last_word in vocab.LINK_VALUES for one in texts] == [True]:
                        found.append(Attribute(own, caption, value, texts[0].name))
        return found

    @property
    def is_label(self) -> bool:
        """Return whether rows are names to which others refer, and no more."""
        return not self.has_prose and self.rows <= MAX_LABELS and bool(self.children)

    @property
    def is_private(self) -> bool:
        """Return whether rows are for few persons, by the name of their table, or as conversations of a few persons.

        Of the latter, a table without texts says which persons take part, and how far each has read.
        """
        nouns, last = {*self.noun}, self.noun[-1]
        direct = nouns & {"private", "direct", "personal"} or any(map(vocab.CORRESPONDENT.fullmatch, self.columns))
        if nouns & {"message", "msg"} and (direct or last == "conversation"):
            return True
        links = [one.child for one in self.children if not one.child.has_text]
        links = [one for one in links if any(above.parent.is_people for above in one.relations)]
        read = any(vocab.READ & {*words(name)} for one in links for name in one.columns)
        dialog = read and (last == "conversation" or not self.has_text)
        return dialog or any(map(vocab.PRIVATE.fullmatch, nouns))

    @property
    def is_machinery(self) -> bool:
        """Return whether rows are for programs, by the name of their table."""
        nouns = set(self.noun)
        paired = any(last in nouns and nouns & others for last, others in vocab.MACHINE_PAIRS.items())
        return paired or bool(nouns & vocab.MACHINERY) or any(map(vocab.MACHINE_NOUN.fullmatch, nouns))

    @cached_property
    def has_remarks(self) -> bool:
        """Return whether rows are what was said when something changed, as in the history of an order."""
        return self.noun[-1] == "history" and any(
            singular(words(name)[-1]) in vocab.MESSAGES and self.profiles[name].role == "prose" for name in self.prose
        )

    def refusal(self) -> str:
        """Return why the table is nothing that people look for; "" if it may be."""
        nouns = set(self.noun)
        if not self.rows:
            return "is empty" if not self.problem else f"cannot be read: {self.problem}"
        told = any({*noun(one.parent.name)} & vocab.MESSAGES for one in self.relations)
        if self.noun[-1] in vocab.COMPLAINTS and (told or any("reporter" in words(name) for name in self.columns)):
            return "holds what moderators are told"
        if self.is_private:
            return "holds messages between persons, notes of one, or drafts"
        if reason := self._told_by_rows():
            return reason
        if self.is_machinery:
            return "is for programs, by its name"
        if (
            nouns & vocab.DOUBTFUL
            and len({one.child for one in self.children if not one.type_column}) < MIN_SHOWING
            and not (self.title and self.has_prose and self.text_length >= 60)
            and not (nouns & {*vocab.VERSIONS} and self.has_prose)
            and not (self.has_remarks and self.relations)
        ):
            return "is for programs, by its name and its values"
        keys = any(one.role == "secret" or "fingerprint" in words(one.name) for one in self.profiles.values())
        if (self.noun[-1] == "key" or "api" in self.noun) and keys:
            return "holds keys"
        for one in self.unmet:
            hidden = {*words(one.column)} & vocab.HIDDEN_FLAGS
            if self.hides_all(one) and (hidden or one in self.conditions):
                return f"has no row that may be shown: {one.reason}"
        if nouns & {*vocab.VERSIONS} and len(nouns) == 1 and not (self.title or self.relations or self.children):
            return "holds texts, and no column says of what they are and which of them count"
        return ""

    def _told_by_rows(self) -> str:
        """Return why rows are nothing that people look for, as their values say; "" if they do not."""
        if _is_pairs(self):
            return "holds settings: names with values"
        prose = [one for name in self.prose if (one := self.profiles[name]).role == "prose" and one.texts]
        longest = max((one.filled * one.length for one in prose), default=0)
        texts = [self.columns[one.name] for one in prose if 2 * one.filled * one.length >= longest]
        least = FEW if self.is_installed and self.rows > MIN_INSTALLED else MOST
        if any(is_template(one, least) for one in texts):
            return "holds templates, which programs fill in"
        if self._is_wording or self.is_for_programs:
            return "is for programs, by its values"
        if self.is_log:
            return "is written by programs, which repeat themselves"
        unnamed = self.attributes and not (self.title or self.prose)  # only other rows call it by a name
        filled = [one.filled for one in self.columns.values() if one.filled] if unnamed else []
        if any(all(map(CHECKSUM.fullmatch, map(str, values))) for values in filled):
            return "describes files of other rows"
        return EXPLAINS if self.explains_programs else ""

    @property
    def _is_wording(self) -> bool:
        """Return whether rows are what programs say in each language: short texts, known by a text alone."""
        known = self.children or self.relations or self.locale not in self.key
        by_text = all(self.columns[name].kind == "text" for name in self.key)
        return len(self.key) > 1 and by_text and not known and self.text_length <= MAX_SUMMARY

    @cached_property
    def is_for_programs(self) -> bool:
        """Return whether columns with what programs give, open and write outweigh those that people read.

        Of rows that came with the application, these are those that tell them apart.
        """
        filled = [one for name in [*self.title_columns, *self.prose] if (one := self.profiles[name]).filled]
        read = [one.name for one in filled if one.form != "auto"]
        programs = [name for name, one in self.columns.items() if name not in read and is_for_programs(one)]
        if self.is_installed and self.rows > MIN_INSTALLED:
            named = bool(read) and all(names_for_programs(self.columns[name]) for name in read)
            read, programs = ([one for one in some if self.profiles[one].distinct > FEW] for some in (read, programs))
            return named or len(programs) >= max(MIN_PROGRAM_COLUMNS, len(read))
        prose = [one for name in self.prose if (one := self.profiles[name]).role == "prose" and one.texts]
        written = any(one.is_said or (one.filled >= MOST and one.form != "auto") for one in prose)
        return len(programs) >= max(MIN_PROGRAM_COLUMNS, 2 * len(read)) and not written


def _seconds(value: int) -> int:
    """Return a number of seconds, or of thousandths or millionths of them, in seconds."""
    return value if value < MAX_UNIX_SECONDS else _seconds(value // 1000)


def _is_time(value: object) -> bool:
    return type(value) is int and (value == 0 or _seconds(value) > MIN_UNIX_SECONDS)


def _minute(value: object) -> object:
    return _seconds(value) // 60 if isinstance(value, int) else str(value)[:16]


def is_repeated(texts: Sequence[str], least: int = MIN_LOG_ROWS) -> bool:
    """Return whether most texts, at least `least`, are what others are but for numbers, or half of their pairs are.

    A pair are two words that follow each other.
    """
    said = [("", *WORD.findall(text.lower())[:MAX_SAID]) for text in texts if text]
    pairs = [{*pairwise(one)} for one in said]
    equal, known = Counter(said), Counter(chain.from_iterable(pairs))
    several = MIN_INSTALLED + len(said) // 30
    parts = [sum(known[pair] >= several for pair in one) / len(one) if one else 1 for one in pairs]
    again = sum(part >= 0.5 or equal[one] >= MIN_INSTALLED for part, one in zip(parts, said, strict=True))
    return len(said) >= least and again >= MOST * len(said)


def _is_pairs(subject: Subject) -> bool:
    """Return whether rows are names of settings, and of secrets, with their values."""
    profiles = subject.profiles.values()
    names = [p for p in profiles if p.last_word in vocab.SETTING_NAMES]
    owned = any({*one.parent.noun} <= {*subject.noun[:-1]} and one.parent.is_whole for one in subject.relations)
    if owned and all(p.distinct < MOST for p in names):  # the same few of many things
        return False
    keys = [p for p in names if subject.key == (p.name,) or any(map(is_named_like_a_secret, p.texts))]
    paired = keys or (names and len(profiles) <= MAX_PAIR_COLUMNS)
    return bool(paired) and any(p.last_word == "value" for p in profiles)


def _is_equal(table: DatabaseTable, one: str, other: str) -> bool:
    """Return whether most values of a column are those of another one in the same row.

    What stands for a missing value in both, such as `not available`, counts once.
    """
    both = {(letters(a), letters(b)) for a, b in table.rows_of(one, other) if a}
    return bool(both) and sum(a == b for a, b in both) >= 0.8 * len(both)


def letters(value: object) -> object:
    """Return the beginning of a text without markup and punctuation: a rendered copy is equal to what it is made of."""
    return bare(value)[:200] if isinstance(value, str) else value


def bare(value: object) -> str:
    """Return a text in small letters, without markup, blanks and punctuation; "" for another value."""
    return MARKUP.sub("", value).lower() if isinstance(value, str) else ""
