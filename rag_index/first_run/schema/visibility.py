"""Who may see a row, closed: what its own columns, what it belongs to, and tables that list hidden rows say.

A negation is understood before what it negates. If it is not certain which rows are hidden, those that differ from the
majority are, and the question is asked.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import is_readable
from rag_index.first_run.schema.tables import MIN_UNIX_SECONDS, Condition, Relation, Table, listed
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from rag_index.first_run.schema.catalog import Column

MAX_CODE = 2
"""Characters of a code: O for an open channel, P for a private one."""
ONE_SAYS = frozenset(["message", "thread"])
"""Conversations whose kinds say what is written in them, and not who may read it."""
MAX_VALUES = 8
"""Codes of more values are no levels of secrecy."""
MAX_PASSWORDS = 0.2
"""If more rows have a password, it is that of an account."""
HALF, FEW = 0.5, 0.3
_NUMBERS = re.compile(r"-?\d+(?:,-?\d+)*")
_EVERY = known.HIDE | known.SHOW | known.ON | known.OFF
_IN = frozenset(["visible", "visivel", "visibile", "valid", "active", "actif", "activo", "attivo"])
"""What `in` negates: elsewhere it says where."""


@dataclass(frozen=True, slots=True)
class Sense:
    """What a yes in a column, or a value, says of a row."""

    hides: bool
    strong: bool
    rest: tuple[str, ...]
    """The words that were not understood."""
    shows_place: bool = False
    """Whether it says that a row is shown somewhere, and not that it is public."""


@lru_cache(maxsize=20_000)
def _split(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, such as un, published; itself if they say nothing of a row."""
    found = _known_words(word)
    return found if found and _EVERY & {*found} else (word,)


def _known_words(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, the longest first; () if it does not."""
    if word in _EVERY | known.NOT | known.ABOUT_ROWS | {"include", "allow"}:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        begin, rest = word[:end], word[end:]
        negates = begin in known.NEGATIONS and (begin != "in" or rest in _IN)
        fits = negates or begin in _EVERY | known.NOT | known.ABOUT_ROWS
        if fits and (found := _known_words(rest)):
            return ("not" if negates else begin, *found)
    return ()


def sense_of(named: Sequence[str]) -> Sense | None:
    """Return what words say of a row, each negation understood first; None if they do not say who may see it.

    >>> sense_of(("is", "not", "public")).hides
    True
    """
    said: list[tuple[bool, bool]] = []
    rest: list[str] = []
    negated = False
    parts = [part for word in named for part in _split(word)]
    for word in parts:
        if word in known.HIDE or word in known.OFF:
            said.append((not negated, word in known.HIDE))
        elif word in known.SHOW or word in known.ON:
            said.append((negated, word in known.SHOW))
        elif word in known.NOT:
            negated = not negated
            continue
        elif word not in known.ABOUT_ROWS:
            rest.append(word)
            continue
        else:
            continue
        negated = False
    if not said and known.SEARCHED & {*parts}:
        if known.NOT & {*parts}:
            said.append((True, False))  # nothing is said of what belongs to the row
        elif {"include", "included", "allow", "allowed"} & {*parts}:
            rest = [word for word in rest if not word.startswith(("include", "allow"))]
            said.append((False, True))
    strong = [one for one in said if one[1]] or said
    if not said:
        return None
    place = not {*parts} & (known.PUBLIC_VALUES - {"visible", "viewable", "searchable", "indexable"})
    return Sense(any(hides for hides, _ in strong), any(one for _, one in said), tuple(rest), place)


class _Look:
    """A column of a table that may say which rows are shown."""

    def __init__(self, table: Table, column: Column, named: tuple[str, ...], seconds_now: str, *, sqlite: bool) -> None:
        self.table, self.column, self.named = table, column, named
        self.read = table.columns[column.name]
        self.sql, self.seconds_now, self.sqlite = column.sql, seconds_now, sqlite
        self.called = "_".join(named)
        self.counts = Counter(column.filled)
        self.rows = max(1, len(column.values))

    @property
    def unset(self) -> str:
        """Return in SQL that a row has no value."""
        nothing = {"number": "0", "text": "''", "time": "''" if "" in self.column.values else ""}.get(self.column.kind)
        return f"COALESCE({self.sql}, {nothing}) = {nothing}" if nothing else f"{self.sql} IS NULL"

    def condition(self, sql: str, says: str, *, question: str = "", strong: bool = True) -> Condition:
        return Condition((self.column.name,), sql, says, question, strong)

    def among(self, values: Sequence[Any], *, question: str = "", strong: bool = True) -> Condition:
        """Return the condition that a row has none of these values, which hide it."""
        says = f"{self.column.name} is {_spoken(values)}"
        sql = f"{self.sql} NOT IN ({listed(values)})"
        if self.read.filled < 1 or self.column.nullable:
            sql = f"({self.sql} IS NULL OR {sql})"
        return self.condition(sql, says, question=question, strong=strong)

    def only(self, values: Sequence[Any], *, question: str = "", strong: bool = True) -> Condition:
        """Return the condition that a row has one of these values."""
        others = [value for value in self.counts if value not in values]
        says = f"{self.column.name} is {_spoken(others)}" if others else f"{self.column.name} is not {_spoken(values)}"
        return self.condition(f"{self.sql} IN ({listed(values)})", says, question=question, strong=strong)

    def share(self, values: Sequence[Any]) -> float:
        """Return the share of sampled rows with one of these values."""
        return sum(self.counts[value] for value in values) / self.rows

    def asks(self, says: str) -> str:
        """Return the question whether the rows of which a condition says something are to be hidden."""
        return f"Are rows of {self.table.name} for few if {says}?"


def _spoken(values: Sequence[Any]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}" if texts else "empty"


def own_conditions(
    table: Table, plurals: frozenset[str], groups: Container[tuple[str, ...]], seconds_now: str, *, sqlite: bool
) -> list[Condition]:
    """Return the conditions for the rows that may be shown, as their own columns say.

    `plurals` are what tables are called in the plural: `comments_hidden` says nothing of the row. `groups` are what
    groups of accounts are called.
    """
    named = table.named
    found = []
    for column in table.source.columns.values():
        if column.name not in table.references or table.columns[column.name].role == "flag":
            look = _Look(table, column, named[column.name], seconds_now, sqlite=sqlite)
            others = {word for name, one in named.items() if name != column.name for word in one}
            sense = _own_sense(look, others, plurals)
            made = (_span(look) or _few_readers(look) or _readers(look, groups) or _flag(look, sense)
                    or _set(look, sense) or _state(look, sense) or _coded(look))  # fmt: skip
            found += [made] if made else []
    return found


def _own_sense(look: _Look, others: set[str], plurals: frozenset[str]) -> Sense | None:
    """Return what a yes says of the row; None if the column is about something else: its comments, its phone."""
    own = {*look.table.noun, *words(look.table.source.name)}
    named = [word for word in look.named if word not in own or sense_of((word,))]
    sense = sense_of(named)
    if sense is None or look.named[-1] in known.NO_FLAGS or (look.named[0] == "has" and sense.rest):
        return None
    if sense.hides and look.named[0] != "hide":  # private_notes: what the row says is for few
        own |= {word for name in look.table.prose for word in words(name)}
    rest = {word for word in sense.rest if word not in own | known.TIME_ENDS | {"id"}}
    about = (
        known.PERSONAL
        | known.PLACES_OF_LINKS
        | (plurals - own)
        | {word for word in others if len(word) > 2 and not sense_of((word,))}
    )
    verb = {look.named[0]} & {"show", "display", "hide", "shows", "displays", "hides"}
    if (
        (verb and rest)
        or rest & about
        or {word for word in rest if f"{word}s" in others}
        or (rest and not sense.strong)
    ):
        return None
    if {"to", "for"} & {*look.named}:  # visible_to_candidate: not for those who ask for less
        rest = {word for word in rest if singular(word) not in known.PERSONS}
    return Sense(sense.hides, sense.strong, tuple(rest), sense.shows_place)


def _few_readers(look: _Look) -> Condition | None:
    if known.FEW_READERS.fullmatch(look.called) and _are_flags(look):
        return _yes_or_no(look, Sense(hides=True, strong=True, rest=()))
    return None


def _is_group(table: Table, tables: Sequence[Table]) -> bool:
    """Return whether rows are groups of accounts: a column of these is called so."""
    if table.noun[-1] not in ("group", "role"):
        return False
    accounts = [column for one in tables if one.is_accounts for column in one.columns]
    return any(singular(words(column)[-1]).endswith(table.noun[-1]) for column in accounts)


def _readers(look: _Look, groups: Container[tuple[str, ...]]) -> Condition | None:
    """Return the condition of a list of the groups that may read a row, which is empty if all may."""
    listed_numbers = look.column.kind == "text" and all(_NUMBERS.fullmatch(str(value)) for value in look.counts)
    named = tuple(singular(word) for word in look.named if word not in known.KEY_WORDS)
    if named not in groups or not listed_numbers or sum(look.counts.values()) - look.counts["0"] > HALF * look.rows:
        return None
    says = f"{look.column.name} names groups"
    return look.condition(f"COALESCE({look.sql}, '') IN ('', '0')", says, question=look.asks(says))


def _are_flags(look: _Look) -> bool:
    """Return whether values are a yes and a no, or small numbers of which 0 is no."""
    values = {str(value).lower() for value in look.counts}
    if look.column.kind == "bool" or look.read.role == "flag":
        return True
    small = look.column.kind == "number" and all(isinstance(one, int) and -9 <= one <= 9 for one in look.counts)
    return bool(values) and (values <= known.YES | known.NO or small)


def _flag(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column such as `is_private`, `sealed`, `not_visible` or `comment_approved`."""
    if sense is None or not _are_flags(look) or look.column.kind == "time" or look.named[-1] == "id":
        return None
    hidden = [value for value in look.counts if (str(value).lower() in known.NO) != sense.hides]
    share = look.share(hidden) + (0 if sense.hides else 1 - look.read.filled)
    if (not sense.strong or sense.rest) and share > HALF:
        return None  # whether a thing is in use: most rows are not, and are looked for all the same
    unused = sense.shows_place and not sense.hides and not [value for value in look.counts if value not in hidden]
    if unused:
        return None  # all rows have the default
    levels = look.column.kind == "number" and not sense.hides and bool({*look.counts} - {-1, 0, 1})
    if levels and (known.SECRECY & {look.named[-1]} or 1 not in look.counts):
        return None
    return _yes_or_no(look, sense, share=share)


def _yes_or_no(look: _Look, sense: Sense, *, share: float = 0.0) -> Condition:
    """Return the condition that a row has no yes, or a yes, however the column writes it."""
    yes = [value for value in look.counts if str(value).lower() not in known.NO]
    no = [value for value in look.counts if str(value).lower() in known.NO]
    says = f"{look.column.name} is {'true' if sense.hides else 'false'}"
    question = look.asks(says) if sense.rest or share > HALF else ""
    kind = look.column.kind
    if kind == "bool":
        value = f"COALESCE({look.sql}, false)" if look.column.nullable else look.sql
        sql = f"{value} = false" if sense.hides else f"{look.sql} = true"
    elif kind == "number":
        value = f"COALESCE({look.sql}, 0)" if look.column.nullable else look.sql
        sql = f"{value} = 0" if sense.hides else f"{look.sql} = 1"
    elif sense.hides:
        sql = f"({look.sql} IS NULL OR {look.sql} NOT IN ({listed(yes or ['1', 'Y', 'true'])}))"
    else:
        sql = f"{look.sql} IN ({listed(yes)})" if yes else f"{look.sql} NOT IN ({listed(no)})"
    strong = sense.strong and not sense.rest and (sense.hides or share < 1)  # a flag that nobody set says little
    return look.condition(sql, says, question=question, strong=strong)


def _set(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column that is set for what is not for all: `deleted_at`, the password of a post."""
    named, kind = {*look.named}, look.column.kind
    ends = kind == "time" or look.read.role == "time" or look.named[-1] in known.TIME_ENDS
    if ends and known.DELETED & named and not known.NOT & named and sense is not None:
        return look.condition(look.unset, f"{look.column.name} is set")
    big = kind == "number" and look.counts and all(not n or n > MIN_UNIX_SECONDS for n in look.counts)
    if sense is not None and sense.hides and sense.strong and (kind == "time" or big):
        return look.condition(look.unset, f"{look.column.name} is set")
    is_password = kind == "text" and look.read.role == "secret" and named & {"password", "passwd", "pass"}
    if is_password and 0 < look.read.filled <= MAX_PASSWORDS:
        return look.condition(look.unset, f"{look.column.name} is set: readers have to know it")
    if sense is not None and sense.hides and sense.strong and look.named[-1] == "id" and 0 < look.read.filled <= FEW:
        return look.condition(look.unset, f"{look.column.name} is set")
    published = known.PUBLISHED_TIMES & named and not {"until", "to", "down", "end", "by"} & named
    if published and ends and look.named[-1] != "by" and HALF <= look.read.filled < 1 and kind in ("time", "text"):
        return look.condition(f"{look.sql} IS NOT NULL", f"{look.column.name} is empty, as it is for drafts")
    return None


def _span(look: _Look) -> Condition | None:
    """Return the condition of columns such as `valid_to` and `publish_up`, unless it would hide more than half."""
    ends, starts = bool(known.UNTIL.fullmatch(look.called)), bool(known.FROM.fullmatch(look.called))
    numbers = look.column.kind == "number" and all(not at or at > MIN_UNIX_SECONDS for at in look.counts)
    is_time = look.column.kind == "time" or (look.sqlite and look.read.role == "time")
    if not (ends or starts) or not (numbers or is_time):
        return None
    now = datetime.now(UTC)
    come = {at: (at <= now.timestamp() if numbers else str(at) <= now.isoformat(" ")) for at in look.counts if at}
    hidden = look.share([at for at in come if come[at] == ends])
    empty = 1 - look.read.filled
    drafts = starts and known.PUBLISHED_TIMES & {*look.named} and 0 < empty <= HALF
    if hidden > HALF or (starts and not ends and not hidden and not drafts and look.counts):
        return None
    now_sql = look.seconds_now if numbers else "CURRENT_TIMESTAMP"
    says = f"{look.column.name} is {'past' if ends else 'to come, or empty' if drafts else 'to come'}"
    compared = f"{look.sql} {'>' if ends else '<='} {now_sql}"
    return look.condition(compared if drafts else f"({look.unset} OR {compared})", says)


def _value_sense(value: str, noun: Sequence[str]) -> bool | None:
    """Return whether a value is of what is hidden, or of what all may see; None if it says neither."""
    text = value.strip().lower()
    named = [part for word in words(value) for part in _split(word)]
    filler = known.CONTENT | known.ABOUT_ROWS | {*noun}
    rest = [word for word in named if singular(word) not in filler and word not in filler and word not in known.NOT]
    negated = bool(known.NOT & {*named})
    if rest and {*rest} <= known.BETWEEN_PERSONS and known.CONVERSATIONS & {*noun}:
        return True
    if text in known.HIDDEN_VALUES or (rest and {*rest} <= known.HIDDEN_VALUES):
        return not negated
    if text in known.PUBLIC_VALUES or (rest and {*rest} <= known.PUBLIC_VALUES):
        return negated
    return None


def _state(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column such as `status` or `class`, with values such as `publish` and `draft`."""
    values = [value for value in look.counts if isinstance(value, str)]
    if look.column.kind != "text" or not 0 < len(values) <= known.MAX_STATES or max(map(len, values)) > 40:
        return None
    if look.column.name in look.table.title_columns or look.read.role in ("prose", "secret", "personal"):
        return None
    senses = {value: _value_sense(value, look.table.noun) for value in values}
    public = [value for value in values if senses[value] is False]
    hidden = [value for value in values if senses[value] is True]
    is_state = bool(known.STATES & {*look.named[-2:]}) or (sense is not None and not sense.rest)
    if sense is not None and not sense.hides and not public:  # `comment_approved` is 0, 1 or spam
        public = [value for value in values if value.lower() in known.YES and known.NO & {*map(str.lower, values)}]
    if is_state:
        if public:
            return look.only(public) if len(public) < len(values) or not hidden else None
        told = _moderated(look, values) or (look.among(hidden) if hidden else None)
        return told or _majority(look, known.SECRECY)
    surely = known.STRONG_VALUES | (known.BETWEEN_PERSONS if known.CONVERSATIONS & {*look.table.noun} else frozenset())
    few = [value for value in hidden if surely & {*words(value), value.lower()}]
    of_people = look.table.is_people or known.ORGANISATIONS & {*look.table.noun}
    if few and look.share(few) <= HALF and not of_people:
        kind = {"type", "kind", "mode", "level", "folder", "mailbox"} & {*look.named[-1:]}
        return look.among(few, question="" if kind else look.asks(f"{look.column.name} is {_spoken(few)}"))
    return None


def _moderated(look: _Look, values: Sequence[str]) -> Condition | None:
    """Return the condition of what a moderator decides: all but what was let pass is hidden."""
    lower = {value.lower() for value in values}
    written = known.CONTENT & {look.table.noun[-1]} or {"spam", "trash", "unapproved", "offensive"} & lower
    let = [value for value in values if value.lower() in known.LET]
    if not let or not lower <= known.MODERATION or not (written or "moderation" in look.named) or len(values) < 2:
        return None
    return look.only(let)


def _majority(look: _Look, named: frozenset[str]) -> Condition | None:
    """Return the condition that a row is as most rows are, if a column says who may see it by values not understood."""
    said = [word for word in look.named if word not in ("id", "level", "code", "type")]
    if said[-1:] == ["policy"] and not {*said} <= {"policy", "archive", "archives", "read", "view", *known.SECRECY}:
        return None
    return _differing(look) if named & {*said[-1:]} else None


def _differing(look: _Look) -> Condition | None:
    """Return the condition that a row has the value of most rows, with the question whether the others are hidden."""
    if not 1 < len(look.counts) + (look.read.filled < 1) <= MAX_VALUES:
        return None
    ((most, rows),) = look.counts.most_common(1)
    empty = look.rows - look.counts.total()
    if empty > HALF * look.rows:
        return look.condition(
            look.unset, f"{look.column.name} is set", question=look.asks(f"{look.column.name} is set")
        )
    if rows <= HALF * look.rows:
        return None
    others = [value for value in look.counts if value != most]
    return look.among(others, question=look.asks(f"{look.column.name} is {_spoken(others)}"))


def _coded(look: _Look) -> Condition | None:
    """Return the condition of codes that say for how many a row is: a level of secrecy, the kind of a channel."""
    short = all(isinstance(one, int) or len(str(one)) <= MAX_CODE for one in look.counts)
    if short and (known.CONVERSATIONS - ONE_SAYS) & {look.table.noun[-1]} and look.named[-1] in known.TYPE_WORDS:
        return _differing(look)
    if look.column.kind != "number" or not all(isinstance(one, int) for one in look.counts):
        return None
    return _majority(look, known.CODED_SECRECY)


# --- What other tables say ---


def add_conditions(tables: Sequence[Table], seconds_now: str, dialect: str) -> None:
    """Add to each table the conditions for the rows that may be shown."""
    plurals = frozenset(word for one in tables for word in words(one.source.name) if word != singular(word))
    groups = frozenset(one.noun for one in tables if _is_group(one, tables))
    for one in tables:
        if one.rows:
            one.conditions += own_conditions(one, plurals, groups, seconds_now, sqlite=dialect == "sqlite")
            one.conditions += _called_hidden(one)
            one.conditions += _calendar(one, dialect)
            one.conditions += _pictures(one)
            one.conditions += _older_versions(one)
    more = [[*_listed_elsewhere(one)] for one in tables]
    for one, found in zip(tables, more, strict=True):
        one.conditions += found
    for one in tables:
        one.conditions += _below_hidden(one)
    done: set[Table] = set()
    for one in tables:
        _hide_with_parents(one, done, ())


def _older_versions(table: Table) -> Iterator[Condition]:
    """Yield the condition that leaves out versions of a row to which the row itself does not point as its newest."""
    owners = {one.parent for one in table.parents if not one.is_pointer}
    for one in table.children if known.VERSIONS & {table.noun[-1]} else ():
        if one.is_pointer and len(one.pairs) == 1 and one.child in owners:
            (pointer, key), owner = one.pairs[0], one.child.source
            named, sql = owner.columns[pointer].sql, table.source.columns[key].sql
            newest = f"{sql} IN (SELECT {named} FROM {owner.sql} WHERE {named} IS NOT NULL)"
            yield Condition((key,), newest, f"it is no newest version, as {owner.name}.{pointer} says")


def _called_hidden(table: Table) -> Iterator[Condition]:
    """Yield the conditions that leave out labels and folders that are called so, and names of secrets with values."""
    few = table.children and 0 < table.rows <= known.MAX_STATES and not table.is_people and table.title
    column = table.source.columns.get(table.title) if few and table.source.is_whole else None
    if column is not None:
        hidden = [name for name in dict.fromkeys(column.filled) if isinstance(name, str) and _is_bin(name, table)]
        if 0 < len(hidden) < len({*column.filled}):
            sql = f"COALESCE({column.sql}, '') NOT IN ({listed(hidden)})"
            yield Condition((column.name,), sql, f"{column.name} is {_spoken(hidden)}")
    if names := secret_names(table):
        key, hidden = names
        sql = f"COALESCE({table.source.columns[key].sql}, '') NOT IN ({listed(hidden)})"
        yield Condition((key,), sql, f"{key} is that of a secret or something personal")


def _is_bin(name: str, table: Table) -> bool:
    return _value_sense(name, table.noun) is True and bool(known.STRONG_VALUES & {*words(name), name.lower()})


def secret_names(table: Table) -> tuple[str, list[str]] | None:
    """Return the column with names of values, and the names of secret or personal ones; None if it has no such."""
    last = {name: words(name)[-1] for name in table.columns}
    key = next((name for name, word in last.items() if word in known.KEY_NAMES and name not in table.references), None)
    has_values = any(word in known.VALUE_NAMES or {*words(name)} & {"val", "value"} for name, word in last.items())
    if key is None or not has_values or table.source.columns[key].kind != "text":
        return None
    names = [name for name in dict.fromkeys(table.source.columns[key].filled) if isinstance(name, str)]
    hidden = [name for name in names if _names_a_secret(name)]
    return (key, hidden) if hidden else None


def _names_a_secret(name: str) -> bool:
    parts = words(name)
    return is_named_like_a_secret(name) or any(map(is_named_like_a_secret, parts)) or bool(known.PERSONAL & {*parts})


def _calendar(table: Table, dialect: str) -> Iterator[Condition]:
    """Yield the conditions that leave out events whose class in their own text is not public."""
    for name, read in table.columns.items():
        column = table.source.columns[name]
        texts = [
            one if isinstance(one, str) else one.decode("latin-1")
            for one in column.filled
            if isinstance(one, str | bytes)
        ]
        if texts and read.form == "file" and sum("BEGIN:V" in text for text in texts) * 2 > len(texts):
            text = (  # SQLite compares no bytes with a pattern
                f"ENCODE({column.sql}, 'escape')"
                if (dialect, column.kind) == ("postgresql", "bytes")
                else f"CAST({column.sql} AS {'TEXT' if dialect == 'sqlite' else 'CHAR'})"
                if column.kind == "bytes"
                else column.sql
            )
            told = [f"COALESCE({text}, '') NOT LIKE '%CLASS:{kind}%'" for kind in ("PRIVATE", "CONFIDENTIAL")]
            yield Condition((name,), " AND ".join(told), f"{name} has CLASS:PRIVATE or CLASS:CONFIDENTIAL")


def _pictures(table: Table) -> Iterator[Condition]:
    """Yield the condition that leaves out files that are no text, as a column beside them says."""
    files = [name for name in table.texts if table.source.columns[name].kind == "bytes"]
    if not files or len(files) < len(table.prose):
        return
    for column in table.source.columns.values():
        kinds = {value for value in column.filled if isinstance(value, str)}
        named = known.MIME & {"".join(words(column.name)), *words(column.name)[-1:], "".join(words(column.name)[-2:])}
        if not named or not kinds or not all("/" in kind for kind in kinds):
            continue
        rows = [(kind, value) for kind, value in table.source.rows_of(column.name, files[0]) if value]
        read = {kind for kind, value in rows if is_readable(value)}
        refused = sorted({kind for kind, _ in rows if isinstance(kind, str)} - read)
        out = [f"{column.sql} NOT LIKE '{kind}/%'" for kind in ("image", "audio", "video", "font")]
        out += [f"{column.sql} NOT IN ({listed(refused)})"] if refused else []
        says = (
            f"{column.name} is {_spoken(refused[:3])}, which has no text" if refused else f"{column.name} is a picture"
        )
        yield Condition((column.name,), f"({column.sql} IS NULL OR ({' AND '.join(out)}))", says, strong=False)


def _listed_elsewhere(table: Table) -> Iterator[Condition]:
    """Yield the conditions that leave out rows that another table lists: as private, or with a label for few."""
    for own in table.children:
        other = own.child
        if len(own.pairs) > 1 or other is table or own.is_pointer or other.is_people:
            continue
        ((column, key),) = own.pairs
        sql, named = other.source.columns[column].sql, table.source.columns[key].sql
        where = [part for part in (own.where, f"{sql} IS NOT NULL") if part]
        lists = known.LISTS & {*other.noun} or (known.VERSIONS & {*other.noun} and known.FORMER & {*words(column)})
        if lists and not other.texts and not other.title and other.rows < table.rows:
            inner = f"SELECT {sql} FROM {other.source.sql} WHERE {' AND '.join(where)}"
            yield Condition((key,), f"{named} NOT IN ({inner})", f"it is listed in {other.name}")
        for link in () if table.is_label else _labels(own):
            hidden = _hidden_keys(link)
            inner = f"SELECT {sql} FROM {other.source.sql} WHERE {' AND '.join([*where, hidden])}"
            why = "; ".join(one.says for one in link.parent.conditions)
            yield Condition((key,), f"{named} NOT IN ({inner})", f"its {link.parent.noun[-1]}'s {why}")


def _labels(own: Relation) -> Iterator[Relation]:
    """Yield the relations of a table of links to labels that are for few, such as a confidential tag."""
    link = own.child
    if link.prose or link.title or len(link.columns) > 8:
        return
    for one in link.parents:
        label = one.parent
        same = one.column == own.column or label in (own.parent, own.child)
        few = any(known.FOR_FEW & {*words(condition.says)} for condition in label.conditions)
        if not same and few and label.rows <= known.MAX_STATES * 10 and not label.prose and not label.is_people:
            yield one


def _hidden_keys(relation: Relation) -> str:
    """Return in SQL that a row names a hidden row of its parent."""
    columns = [relation.child.source.columns[here].sql for here, _ in relation.pairs]
    keys = [relation.parent.source.columns[there].sql for _, there in relation.pairs]
    strong = " AND ".join(one.sql for one in relation.parent.conditions if one.strong)
    inner = f"SELECT {', '.join(keys)} FROM {relation.parent.source.sql} WHERE ({strong}) IS NOT TRUE"
    left = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
    named = f"{left} IN ({inner})"
    return f"({relation.where} AND {named})" if relation.where else named


def _below_hidden(table: Table) -> Iterator[Condition]:
    """Yield the condition that leaves out rows of a tree below a hidden one."""
    tree = [one for one in table.parents if one.parent is table and len(one.pairs) == 1 and not one.is_pointer]
    strong = [one for one in table.conditions if one.strong]
    if tree and strong and known.PARENT_WORDS & {*words(tree[0].column)}:
        column, key = tree[0].pairs[0]
        own, above, place = table.source.columns[key].sql, table.source.columns[column].sql, table.source.sql
        told = " AND ".join(one.sql for one in strong)
        below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
        first = f"SELECT {own} FROM {place} WHERE ({told}) IS NOT TRUE"
        inner = f"WITH RECURSIVE hidden_rows (id) AS ({first} UNION {below}) SELECT id FROM hidden_rows"
        yield Condition((column,), f"{own} NOT IN ({inner})", f"what {column} names is hidden")


def _hide_with_parents(table: Table, done: set[Table], below: tuple[Table, ...]) -> None:
    """Add the conditions that leave out what names a hidden row, at any number of steps."""
    if table in done or table in below:
        return
    for one in table.parents:
        _hide_with_parents(one.parent, done, (*below, table))
    if table in done:
        return
    done.add(table)
    for one in table.parents:
        parent = one.parent
        strong = [condition for condition in parent.conditions if condition.strong]
        if not strong or parent is table or parent.is_people or one.is_pointer:
            continue
        own = [condition.says for condition in strong if condition.through is None]
        columns = tuple(here for here, _ in one.pairs)
        told = f"its {' '.join(parent.noun)} is hidden" + (f" ({'; '.join(own[:3])})" if own else "")
        table.conditions.append(Condition(columns, f"({_hidden_keys(one)}) IS NOT TRUE", told, through=one))
