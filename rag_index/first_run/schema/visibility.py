"""Who may see a row: rules that the columns of a table, and tables beside it, suggest.

A rule is found by the kind of a column, and only then by its name. It is known to hide, or it is open: then the rows
that look like exceptions are left out until a person answers. `conditions` builds from the rules that hold, once and
after the answers, what each table is read with: what belongs to a hidden row is hidden with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.errors import SettingsError
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.catalog import literal
from rag_index.first_run.schema.columns import is_readable
from rag_index.first_run.schema.tables import NOTHING, Condition, Table, listed
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import ReadColumn
    from rag_index.first_run.schema.tables import Relation

_SAYS = known.HIDE | known.SHOW | known.ON | known.OFF
_FILLERS = known.STATES | {
    "from",
    "for",
    "flag",
    "search",
    "everyone",
    "website",
    "only",
    "people",
    "index",
    "soft",
    "publicly",
}
"""Words that say nothing beside those that hide or show, with all words of up to three letters."""
_PAIR = re.compile(r'"(\w+)"\s*:\s*(true|false|"[^"]*"|-?\d+)')
_NO_VALUE = {None: "empty", "": "empty", True: "yes", False: "no", "{}": "empty", "[]": "empty", "null": "empty"}
_ACCOUNTS = known.HIDE - {"deleted", "delete", "removed"}
"""Words that hide what an account wrote: what one wrote who has left is shown as before."""
Value = tuple[str, Any, int]
"""A value as people read it, as the database has it, and its rows."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Rows of a table that are left out for what one column says, the column by whose name a person answers."""

    table: Table
    column: str
    sql: str
    """What rows must meet to be shown."""
    says: str
    """Why the others are hidden: `is_private is yes`."""
    is_open: bool = False
    values: tuple[tuple[str, int, bool], ...] = ()
    """The values as people read them, with their rows and whether these are left out."""
    reaches: bool = True
    """Whether what belongs to a hidden row is hidden, too."""
    of: Table | None = None
    """The table whose rows are left out, if another one lists them."""
    bans: bool = False
    """Whether it says of an account that nobody may see what it wrote."""

    @property
    def place(self) -> str:
        """Return the column as TABLE.COLUMN."""
        return f"{self.table.name}.{self.column}"


# --- What names and values say ---


@lru_cache(maxsize=20_000)
def _known_words(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, such as un, published; () if it does not."""
    if word in _SAYS | known.NOT | _FILLERS:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        begin, rest = word[:end], word[end:]
        short = begin in known.PERSONS | known.READERS or begin in ("is", "to", "in", "by")
        negates = begin in ("non", "un", "in", "dis", "not", "de")
        if (negates or short or begin in _SAYS | _FILLERS) and (found := _known_words(rest)):
            return ("not", *found) if negates else (begin, *found)
    return ()


def sense_of(named: Sequence[str]) -> tuple[bool, set[str]] | None:
    """Return whether a yes hides a row, and the words that were not understood; None if it does not say.

    >>> sense_of(("is", "not", "public"))
    (True, set())
    """
    parts = [part for word in named for part in (_known_words(word) or (word,))]
    said, rest, negated = list[tuple[bool, bool]](), set[str](), False
    for word in parts:
        if word in _SAYS:
            said.append(((word in known.HIDE | known.OFF) != negated, word in known.HIDE | known.SHOW))
            negated = False
        elif word in known.NOT:
            negated = not negated
        elif word not in _FILLERS and len(word) > 3:
            rest.add(word)
    if not said and {"only", "required"} & {*parts} and (known.READERS | known.PERSONS) & {*map(singular, rest)}:
        return True, set()
    if not said and known.NOT & {*parts} and {"search", "index"} & {*parts}:
        said = [(True, True)]
    strong = [hides for hides, sure in said if sure]
    return (any(strong or [hides for hides, _ in said]), rest) if said else None


def hides(value: str, noun: Sequence[str]) -> bool | None:
    """Return whether a value is of what is hidden, or of what all may see; None if it says neither."""
    text = value.strip().lower()
    parts = [part for word in words(text) for part in (_known_words(word) or (word,))]
    filler = known.REPLIES | known.CONTAINERS | _FILLERS | known.NOT | {*noun, "post", "page", "only", "mode"}
    rest = {word for word in parts if not {word, singular(word)} & filler}
    if rest and rest <= known.DIRECT | {"personal"} and known.ROOMS & {*noun}:
        return True
    if "only" in parts and (known.READERS | known.PERSONS) & {*map(singular, parts)}:
        return True
    for some, hidden in ((known.HIDE | {"inherit", "future"}, True), (known.SHOW | {"everyone"}, False)):
        if text in some or (rest and {singular(word) for word in rest} | rest <= some | {singular(w) for w in some}):
            return hidden != bool(known.NOT & {*parts})
    return None


class _Look:
    """A column of a table that may say which rows are shown."""

    def __init__(self, catalog: DatabaseCatalog, table: Table, column: ReadColumn) -> None:
        self.catalog, self.table, self.column = catalog, table, column
        self.sql, self.kind = column.sql, column.kind
        self.named = table.named[column.name]
        own = {*table.noun, *words(table.source.name)}
        self.sense = sense_of([word for word in self.named if word not in own or sense_of((word,))])
        if self.sense and (self.named[-1] in ("count", "number", "reason", "level") or {*self.named} & known.REMARKS):
            self.sense = None
        self.name = {*map(singular, self.named)} | {*self.named}
        if table.is_people and known.BANNED & self.name and not known.NOT & self.name:
            self.sense = (True, set())

    @cached_property
    def counts(self) -> Counter[Any]:
        """Return the rows of each value, of all rows if they can be counted; nothing if there are many values."""
        return self.catalog.counts(self.table.source, self.column.source)

    @property
    def rows(self) -> int:
        return max(1, self.counts.total())

    @cached_property
    def is_time(self) -> bool:
        given = self.column.given
        seconds = self.kind == "number" and all(
            isinstance(at, int) and at > known.MIN_UNIX_SECONDS for at in given if at
        )
        return self.kind == "time" or self.column.role == "time" or (seconds and any(given))

    @cached_property
    def is_flag(self) -> bool:
        values = {str(value).lower() for value in self.counts if value is not None}
        return self.kind == "bool" or self.column.role == "flag" or (bool(values) and values <= known.YES | known.NO)

    @property
    def unset(self) -> str:
        """Return in SQL that a row has no value, or no yes."""
        empty = {"number": "0", "bool": "false", "text": "''", "time": "''" * ("" in self.column.values)}
        nothing = None if self.column.source.is_enum else empty.get(self.kind)
        if self.kind in ("number", "bool") and not self.column.source.nullable:
            return f"{self.sql} = {nothing}"
        return f"COALESCE({self.sql}, {nothing}) = {nothing}" if nothing else f"{self.sql} IS NULL"

    @property
    def as_text(self) -> str:
        """Return the column in SQL so that it can be compared with a text."""
        name = self.catalog.connection.dialect.name
        cast = {"sqlite": "CAST({} AS TEXT)", "postgresql": "CAST({} AS TEXT)"}.get(name, "CAST({} AS CHAR)")
        return cast.format(self.sql) if self.kind in ("json", "bytes", "id", "other") else self.sql

    @cached_property
    def labels(self) -> dict[Any, str]:
        """Return what the rows are called that the column names."""
        way = next((one for one in self.table.parents if one.column == self.column.name and not one.type_column), None)
        if way is None or way.parent.title not in way.parent.columns:
            return {}
        keys = way.parent.columns[way.pairs[0][1]].values
        return dict(zip(keys, map(str, way.parent.columns[way.parent.title].values), strict=True))

    def spoken(self, value: Any) -> str:
        """Return a value as people read it."""
        if isinstance(value, str) and not value.strip():
            return "empty"
        if self.is_flag and value is not None:
            return "yes" if str(value).lower() in known.YES else "no"
        said = (
            _NO_VALUE[value] if value is None or (isinstance(value, str | bool) and value in _NO_VALUE) else str(value)
        )
        return f"{value} {self.labels[value]}" if value in self.labels else said

    @property
    def values(self) -> list[Value]:
        """Return the values with their rows, the most common first; of a time whether it is set."""
        if self.is_time:
            empty = self.catalog.rows_that(self.table.source, self.unset) or 0
            return [("empty", None, empty), ("set", True, max(0, self.table.rows - empty))]
        return [(self.spoken(value), value, rows) for value, rows in self.counts.most_common()]

    def without(self, values: Sequence[Any]) -> str:
        """Return in SQL that a row has none of these values."""
        filled = [value for value in values if value not in (None, "")]
        if self.is_time:
            return f"NOT ({self.unset})" if None in values else self.unset
        parts = [f"({self.as_text} IS NULL OR {self.as_text} NOT IN ({listed(filled)}))"] if filled else []
        return " AND ".join([*parts, *([f"{self.sql} IS NOT NULL"] if len(filled) < len(values) else [])])

    def rule(self, sql: str, says: str, hidden: Sequence[Any] = (), *, is_open: bool = False) -> Rule:
        """Return a rule by which rows with the hidden values are left out."""
        found: dict[str, tuple[int, bool]] = {}
        for said, value, rows in self.values if self.is_time or len(self.counts) <= known.MAX_CHOICES else ():
            found[said] = (found.get(said, (0, False))[0] + rows, value in hidden)
        values = tuple((said, rows, out) for said, (rows, out) in found.items())
        named = {*self.named, *(word for said, _, out in values if out for word in words(said))}
        return Rule(
            self.table, self.column.name, sql, f"{self.column.name} {says}", is_open, values,
            bans=bool((known.BANNED | (_ACCOUNTS if self.table.is_accounts else frozenset())) & named),
        )  # fmt: skip

    def among(self, values: Sequence[Any], *, is_open: bool = False) -> Rule:
        """Return the rule that leaves out rows with these values."""
        return self.rule(self.without(values), f"is {self.said(values)}", values, is_open=is_open)

    def only(self, values: Sequence[Any], *, is_open: bool = False) -> Rule:
        """Return the rule that leaves out rows with any other value."""
        hidden = [value for value in self.counts if value not in values]
        filled = [value for value in values if value not in (None, "")]
        parts = [f"{self.as_text} IN ({listed(filled)})"] if filled else []
        sql = " OR ".join([*parts, *([self.unset] if len(filled) < len(values) else [])])
        says = f"is {self.said(hidden)}" if hidden else f"is not {self.said(values)}"
        return self.rule(f"({sql})" if len(filled) < len(values) and filled else sql, says, hidden, is_open=is_open)

    def said(self, values: Sequence[Any]) -> str:
        spoken = (lambda value: "set" if value else "empty") if self.is_time else self.spoken
        texts = [*dict.fromkeys(map(spoken, values))]
        return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}" if texts else "empty"


# --- What the columns of a table say ---


def find_rules(catalog: DatabaseCatalog, tables: Sequence[Table]) -> list[Rule]:
    """Return what the columns of tables, and tables beside them, suggest about who may see rows."""
    plurals = {word for one in tables for word in words(one.source.name) if word != singular(word)}
    found = []
    for table in [one for one in tables if one.rows]:
        for column in table.columns.values():
            made = _column_rule(_Look(catalog, table, column), plurals)
            found += [made] if made and not (table.is_label and _hides_all(catalog, made)) else []
        found += [*_called_hidden(table), *_calendar(table, catalog), *_pictures(table), *_older_versions(table)]
        found += _beside(catalog, table)
    return found


def _hides_all(catalog: DatabaseCatalog, rule: Rule) -> bool:
    return catalog.rows_that(rule.table.source, rule.sql) == 0


def _column_rule(look: _Look, plurals: set[str]) -> Rule | None:
    """Return what a column says, known before open; None if all rows may be seen."""
    column, table = look.column, look.table
    if column.name in {*table.key, *table.title_columns, *(one.type_column for one in table.parents)}:
        return None
    if span := _span(look):
        return span
    if look.sense and _is_about_something_else(look, plurals):
        return None
    if found := _set(look):
        return found
    if column.role in ("prose", "secret", "personal"):
        return None
    if column.name in table.references and column.role != "flag":
        return _of_groups(look) or _exception(look)
    return _flag(look) or _state(look) or _json(look) or _minority(look) or _of_groups(look) or _exception(look)


def _is_about_something_else(look: _Look, plurals: set[str]) -> bool:
    """Return whether the rest of a name says that another thing is hidden: the row's comments, its phone."""
    _, rest = look.sense or (False, set())
    others = {word for name, one in look.table.named.items() if name != look.column.name for word in one}
    return bool((rest - _own_words(look)) & (known.PERSONAL | plurals | others))


def _own_words(look: _Look) -> set[str]:
    """Return what rows, and what they say, are called: `private_notes` is about the row itself."""
    prose = {word for name in look.table.prose for word in words(name)}
    return {*look.table.noun, *words(look.table.source.name)} | prose


def _flag(look: _Look) -> Rule | None:
    """Return the rule of a column such as `is_private`, `sealed`, `not_visible` or `comment_approved`."""
    if not look.is_flag:
        return None
    no = [value for value in look.counts if value is not None and str(value).lower() in known.NO]
    yes = [value for value in look.counts if value is not None and value not in no]
    if look.sense is None or _rest(look):
        held = known.HELD & {*look.name} and {"accepted"}.isdisjoint(look.name)
        return look.among(yes) if held and _is_written(look.table) and yes and _share(look, yes) <= known.HALF else None
    hidden = look.sense[0]
    weak = not (known.HIDE | known.SHOW | known.BANNED) & {
        part for word in look.named for part in (_known_words(word) or (word,))
    }
    share = _share(look, yes if hidden else [*no, None])
    if (weak and share > known.HALF) or (not hidden and not yes and not known.SHOW & {*look.named}):
        return None  # whether a thing is in use, or what nobody set: such rows are looked for all the same
    one = {"bool": "true", "number": "1"}.get(look.kind)
    reaches = "search" not in look.name
    if hidden:
        sql = look.unset if one else look.without(yes or ["1", "Y", "true"])
        return replace(look.rule(sql, "is yes", yes), reaches=reaches)
    if look.kind == "number" and yes and 1 not in yes:
        return None
    sql = f"{look.sql} = {one}" if one else f"{look.sql} IN ({listed(yes or ['1'])})"
    return replace(look.rule(sql, "is no", [*no, None]), reaches=bool(yes))


def _rest(look: _Look) -> set[str]:
    """Return the words of a name that were not understood."""
    rest = look.sense[1] if look.sense else set()
    rest = rest - _own_words(look) - {"date", "time", "timestamp"}
    return {word for word in rest if singular(word) not in known.PERSONS} if {"to", "for"} & {*look.named} else rest


def _share(look: _Look, values: Sequence[Any]) -> float:
    return sum(look.counts[value] for value in values) / look.rows


def _is_written(table: Table) -> bool:
    """Return whether rows are what people write under the eyes of moderators, and not what others work on."""
    return bool((known.REPLIES | {"post", "topic", "entry"}) & {*table.noun}) and not known.WORK & {*table.noun}


def _set(look: _Look) -> Rule | None:
    """Return the rule of a column that is set for what is not for all: `deleted_at`, `hidden_by`, a password."""
    column, last = look.column, look.named[-1]
    if column.role == "secret":
        few = {"password", "passwd"} & look.name and 0 < column.filled <= 2 * known.FEW
        return look.rule(look.unset, "is set: readers have to know it") if few else None
    why = (
        sense_of([word for word in look.named if word not in known.REMARKS]) if known.REMARKS & {*look.named} else None
    )
    sense, few = (look.sense or why), 0 < column.filled <= known.SOME
    if sense is None or (_rest(look) and not why):
        return None
    if sense[0] and (look.is_time or last in ("at", "on") or (few and (last in ("id", "by") or why))):
        return look.rule(look.unset, "is set", [True])
    published = not sense[0] and look.is_time and look.kind != "number" and known.HALF <= column.filled < 1
    return look.rule(f"{look.sql} IS NOT NULL", "is empty", [None]) if published else None


def _span(look: _Look) -> Rule | None:
    """Return the rule of times such as `valid_to` and `publish_at`, unless it would hide more than half."""
    if not look.is_time or (look.kind == "text" and look.catalog.connection.dialect.name != "sqlite"):
        return None
    name, parts = look.name, [part for word in look.named for part in (word, *re.findall("until|embargo|expire", word))]
    ends = bool(known.UNTIL & {*parts} and (known.BETWEEN & name or {"expires", "expiry", "expiration"} & name))
    ends = ends or "expire" in parts
    starts = not ends and bool((known.FROM & {*parts} and known.BETWEEN & name) or {"embargo"} & {*parts})
    starts = starts or bool(not ends and {"until"} & {*parts} and (known.HIDE | {"embargo"}) & name)
    if not (ends or starts):
        return None
    now, given = datetime.now(UTC), [at for at in look.column.given if at]
    in_seconds = look.kind == "number"
    past = [(at <= now.timestamp()) if in_seconds else str(at) <= now.isoformat(" ") for at in given]
    hidden = sum(one == ends for one in past) / max(1, len(look.column.values))
    if hidden > known.HALF or (starts and not hidden):
        return None  # a time of publication that is past for all: `_set` says whether it may be empty
    compared = f"{look.sql} {'>' if ends else '<='} {look.catalog.seconds_now if in_seconds else 'CURRENT_TIMESTAMP'}"
    drafts = starts and {"publish", "published", "release"} & name and known.HALF <= look.column.filled < 1
    if drafts:
        return look.rule(compared, "is to come, or empty")
    return look.rule(f"({look.unset} OR {compared})", f"is {'past' if ends else 'to come'}")


def _state(look: _Look) -> Rule | None:
    """Return the rule of a column such as `status` or `class`, with values such as `publish` and `draft`."""
    values = [value for value in look.counts if isinstance(value, str) and value.strip()]
    if look.kind != "text" or not values or max(map(len, values)) > known.MIN_PROSE_CHARS:
        return None
    senses = {value: hides(value, look.table.noun) for value in values}
    senses |= {value: True for value in values if look.table.is_people and known.BANNED & {*words(value)}}
    public, hidden = ([value for value in values if senses[value] is one] for one in (False, True))
    held = [value for value in values if known.HELD & {*words(value)}]
    if (known.STATES | known.SECRECY) & {*look.named[-2:]} or (look.sense and not _rest(look)):
        if (
            look.sense and not look.sense[0] and not public and known.NO & {*map(str.lower, values)}
        ):  # `comment_approved` is 0, 1 or spam
            public = [value for value in values if value.lower() in known.YES]
        if held and _is_written(look.table):
            return look.only(public + [value for value in held if "accepted" in words(value)]) if public or any(
                "accepted" in words(value) for value in held) else look.among([*hidden, *held])  # fmt: skip
        if public and not known.WORK & {*look.table.noun}:
            return look.only(public) if len(public) < len(values) or not hidden else None
        return (
            look.among(hidden) if hidden and not (_is_published(look) and _share(look, hidden) > known.HALF) else None
        )
    sure = known.SURE | known.DIRECT if known.ROOMS & {*look.table.noun} else known.SURE
    few = [value for value in hidden if (sure | {"only"}) & {*map(singular, words(value))}]
    return look.among(few) if few and _share(look, few) <= known.HALF and not look.table.is_people else None


def _is_published(look: _Look) -> bool:
    """Return whether another state says which rows are public: that most are drafts is then a state of work."""
    others = [one for name, one in look.table.columns.items() if name != look.column.name and one.role == "choice"]
    states = [one for one in others if (known.STATES | known.SECRECY) & {one.last_word}]
    return any(hides(text, look.table.noun) is False for one in states for text in {*one.texts})


def _json(look: _Look) -> Rule | None:
    """Return the rule of objects that say who may see a row, such as `{"public": false}`."""
    if look.kind != "json" and look.column.form != "json":
        return None
    found: dict[str, str] = {}
    for value in look.column.given:
        for pair in _PAIR.finditer(str(value)):
            sense, said = sense_of(words(pair[1])), pair[2].strip('"').lower()
            named = (known.STATES | known.SECRECY) & {*words(pair[1])} and hides(said, look.table.noun)
            if named or (sense and not sense[1] and (said in known.YES if sense[0] else said in known.NO)):
                found[pair[0]] = f"{pair[1]} {said}"
    if not 0 < len(found) <= known.MAX_VALUES:
        return None
    like = [f"COALESCE({look.as_text}, '') NOT LIKE {literal(f'%{pair}%')}" for pair in found]
    return look.rule(" AND ".join(like), f"has {', '.join(dict.fromkeys(found.values()))}")


def _minority(look: _Look) -> Rule | None:
    """Return the rule of a column that says nothing but who may see a row, in values that are not understood, and of
    codes of rooms: all but the most common value are left out."""
    named = {*look.named[-2:]} - {"level", "code", "type", "id"}
    secret = {*look.named[-1:], *sorted(named)} & known.SECRECY and not {"policy"} & named - {"archive", "policy"}
    short = all(len(str(one)) <= 2 for one in look.counts)
    rooms = known.ROOMS & {look.table.noun[-1]} and known.TYPE_WORDS & {look.named[-1]} and short
    if not (secret or rooms) or not 1 < len(look.counts) <= known.MAX_VALUES:
        return None
    ((most, rows), *_) = look.counts.most_common(1)
    sure = bool(secret) and not {"scope", "policy", "audience"} & named
    return look.only([most]) if sure or rows > known.HALF * look.rows else None


def _of_groups(look: _Look) -> Rule | None:
    """Return the rule of a column that names groups: rows that name one are for few, if most name none."""
    ways = [one for one in look.table.parents if one.column == look.column.name]
    noun = ways[0].parent.noun if ways else look.named
    empty = sum(rows for value, rows in look.counts.items() if value in (*NOTHING, "[]", "{}"))
    named = known.GROUPS & {singular(noun[-1])} or {"acl", "permission", "usergroup"} & {*look.name}
    if not named or not look.counts or not known.HALF <= empty / look.rows < 1:
        return None
    nothing = [value for value in look.counts if value in (*NOTHING, "[]", "{}")]
    return look.only(nothing, is_open=bool(ways)) if not ways or empty >= known.NEARLY_ALL * look.rows else None


def _exception(look: _Look) -> Rule | None:
    """Return the open rule of a column with a value that nearly all rows have: the others are left out."""
    column, ways = look.column, [one for one in look.table.parents if one.column == look.column.name]
    labels = [one for one in ways if one.parent is not look.table and not one.parent.is_people and not one.parent.prose]
    about: frozenset[str] = known.SHOWN | known.WRITERS | known.PERSONAL | known.MIME | known.CODE_NAMES | known.ORDERS
    about |= (known.REPLIES - {*look.table.noun}) | (known.BROUGHT - known.GROUPS - known.STATES)
    if (about & look.name and not known.HELD & look.name) or look.named[-1] in known.SAID or look.table.is_people:
        return None
    if (ways and not labels) or any(one.is_pointer or one.type_column for one in ways) or column.role == "locale":
        return None
    if known.WORK & {*look.table.noun} and (ways or (known.HELD | known.STATES) & look.name):
        return None
    if not look.is_time and not (look.is_flag or column.role in ("choice", "code", "number", "name", "other")):
        return None
    values = look.values
    if not 1 < len(values) <= known.MAX_VALUES + 1:
        return None
    (_, most, rows), *others = sorted(values, key=lambda one: -one[2])
    whole = rows + sum(one[2] for one in others)
    states = [value for _, value, _ in others if value not in NOTHING]
    plain = all(isinstance(one, str) or (one == int(one) and abs(one) < known.PROSE) for one in states)
    plain = plain and all(len(str(one)) <= known.MAX_CODE_CHARS for one in states)
    plain = plain and not any(" " in one and one != one.lower() for one in states if isinstance(one, str))
    if not known.NEARLY_ALL * whole <= rows < whole or not plain:
        return None
    if look.is_time:
        return look.among([others[0][1]], is_open=True)
    return look.only([most], is_open=True)


def answered(catalog: DatabaseCatalog, table: Table, column: ReadColumn, values: Sequence[str]) -> Rule:
    """Return the rule by which a person hides rows: those with some values, or, without any, those that are set or
    differ from what most rows have.

    Raises:
        SettingsError: the column has no such value.
    """
    look = _Look(catalog, table, column)
    told = {str(name).lower(): value for said, value, _ in look.values for name in (value, said)}
    told |= {said.lower(): value for said, value, _ in look.values}
    for value in values:
        if value.lower() not in told and (look.counts or value not in map(str, column.given)):
            some = ", ".join([one[0] for one in look.values][: known.MAX_VALUES]) or "many values"
            raise SettingsError(f"{table.name}.{column.name} is never {value}: it is {some}")
    if values:
        return replace(look.among([told.get(value.lower(), value) for value in values]), bans=True)
    common = [value for value, rows in look.counts.most_common(1) if rows > known.HALF * look.rows]
    if look.is_time or not common or common[0] in NOTHING:
        return replace(look.rule(look.unset, "is set", [True]), bans=True)
    return replace(look.only(common), bans=True)


# --- What rows and tables beside it say ---


def _older_versions(table: Table) -> Iterator[Rule]:
    """Yield the rule that leaves out versions of a row to which the row itself does not point as its newest."""
    owners = {one.parent for one in table.parents if not one.is_pointer}
    for one in table.children if known.VERSIONS & {table.noun[-1]} else ():
        if one.is_pointer and len(one.pairs) == 1 and one.child in owners:
            (pointer, key), owner = one.pairs[0], one.child
            named, sql = owner.columns[pointer].sql, table.columns[key].sql
            newest = f"{sql} IN (SELECT {named} FROM {owner.source.sql} WHERE {named} IS NOT NULL)"
            yield Rule(table, key, newest, f"it is no newest version, as {owner.source.name}.{pointer} says")


def _called_hidden(table: Table) -> Iterator[Rule]:
    """Yield the rules that leave out labels and folders that are called so, and names of secrets with values."""

    def leave_out(column: ReadColumn, values: Sequence[Any], says: str) -> Rule:
        return Rule(table, column.name, f"COALESCE({column.sql}, '') NOT IN ({listed(values)})", says)

    few = table.children and table.rows <= known.MAX_CHOICES and not table.is_people and table.source.is_whole
    column = table.columns.get(table.title) if few else None
    if column is not None:
        named = [name for name in dict.fromkeys(column.given) if isinstance(name, str)]
        hidden = [one for one in named if hides(one, table.noun) and known.SURE & {*words(one), one.lower()}]
        if 0 < len(hidden) < len(named):
            yield leave_out(column, hidden, f"{column.name} is {', '.join(hidden)}")
    last = {name: words(name)[-1] for name in table.columns if name not in table.references}
    key = next((name for name, word in last.items() if word in ("name", "key", "attribute", "property", "field")), None)
    has_values = any({"value", "val", "data", "content"} & {*words(name)} for name in last)
    if key is not None and has_values and table.columns[key].kind == "text":
        secrets = [name for name in dict.fromkeys(table.columns[key].given) if _names_a_secret(str(name))]
        if secrets:
            yield leave_out(table.columns[key], secrets, f"{key} is that of a secret or something personal")


def _names_a_secret(name: str) -> bool:
    return any(map(is_named_like_a_secret, (name, *words(name)))) or bool(known.PERSONAL & {*words(name)})


def _calendar(table: Table, catalog: DatabaseCatalog) -> Iterator[Rule]:
    """Yield the rules that leave out events whose class in their own text is not public."""
    for name in [name for name, read in table.columns.items() if read.is_calendar]:
        text = _Look(catalog, table, table.columns[name]).as_text
        if table.columns[name].kind == "bytes" and catalog.connection.dialect.name == "postgresql":
            text = f"ENCODE({table.columns[name].sql}, 'escape')"
        told = [f"COALESCE({text}, '') NOT LIKE '%CLASS:{kind}%'" for kind in ("PRIVATE", "CONFIDENTIAL")]
        yield Rule(table, name, " AND ".join(told), f"{name} has CLASS:PRIVATE or CLASS:CONFIDENTIAL")


def _pictures(table: Table) -> Iterator[Rule]:
    """Yield the rule that leaves out files that are no text, as a column beside them says."""
    files = [name for name in table.texts if table.columns[name].kind == "bytes"]
    for column in table.columns.values() if files and len(files) >= len(table.prose) else ():
        kinds = {value for value in column.given if isinstance(value, str)}
        if not known.MIME & {*words(column.name)[-1:], "".join(words(column.name)[-2:])} or not kinds:
            continue
        if all("/" in kind for kind in kinds):
            rows = [(kind, value) for kind, value in table.source.rows_of(column.name, files[0]) if value]
            refused = sorted({kind for kind, _ in rows if kind} - {kind for kind, value in rows if is_readable(value)})
            out = [f"{column.sql} NOT LIKE '{kind}/%'" for kind in ("image", "audio", "video", "font")]
            out += [f"{column.sql} NOT IN ({listed(refused)})"] if refused else []
            says = f"{column.name} is {', '.join(refused[:3] or ['a picture'])}, which has no text"
            yield Rule(table, column.name, f"({column.sql} IS NULL OR ({' AND '.join(out)}))", says, reaches=False)


def _beside(catalog: DatabaseCatalog, table: Table) -> Iterator[Rule]:
    """Yield the rules of tables that list some rows of this one: as private, as held back, for a group."""
    for own in table.children:
        other = own.child
        if (
            len(own.pairs) > 1
            or other is table
            or own.is_pointer
            or other.is_people
            or not other.rows
            or table.is_people
        ):
            continue
        ((column, key),) = own.pairs
        sql, named = other.columns[column].sql, table.columns[key].sql
        where = " AND ".join(part for part in (own.where, f"{sql} IS NOT NULL") if part)
        inner = f"{named} NOT IN (SELECT {sql} FROM {other.source.sql} WHERE {where})"
        called = {*map(singular, words(other.source.name))}
        lists = bool((known.FOR_FEW | {"restriction", "hidden", "embargo", "takedown", "unlisted"}) & called)
        lists = lists or bool(known.VERSIONS & {*other.noun} and {"past", "old", "former"} & {*words(column)})
        groups = [one for one in other.parents if one.column != column and known.GROUPS & {one.parent.noun[-1]}]
        says = lists or (known.HIDE | known.HELD) & called
        persons = [one.column for one in other.parents if one.parent.is_people]
        own_list = persons and not any(known.READERS & {*words(one)} for one in persons)
        idle = (known.SHOWN | known.REPORTS | known.OWN) & (called | {*words(other.source.name)})
        if other.prose or other.children or (not says and (other.title or own_list or idle or other.machine)):
            continue
        once = [column] == other.key or catalog.is_key(other.source, [column])
        named_rows = catalog.rows_that(table.source, f"NOT ({inner})") or 0
        few = 0 < named_rows <= known.FEW * table.rows
        if lists and named_rows < table.rows:
            yield Rule(other, column, inner, f"it is listed in {other.name}", of=table)
        elif few and (once or groups) and not _is_kind(own):
            yield Rule(
                other, column, inner, f"it is listed in {other.name}", True, (("listed", named_rows, True),), of=table
            )


def _is_kind(own: Relation) -> bool:
    """Return whether a table is one of several that have one row each for rows of their kind."""
    return sum(one.extends and bool(one.child.texts) for one in own.parent.children) > 1 and own.extends


# --- What follows for each table ---


def conditions(tables: Sequence[Table], rules: Sequence[Rule]) -> dict[Table, list[Condition]]:
    """Return what each table is read with: its rules, and that of what its rows belong to, at any number of steps."""
    found: dict[Table, list[Condition]] = {}
    for table in tables:
        _add_conditions(table, rules, found, ())
    return found


def _add_conditions(
    table: Table, rules: Sequence[Rule], found: dict[Table, list[Condition]], below: tuple[Table, ...]
) -> None:
    if table in found or table in below:
        return
    for one in [*table.parents, *_links(table)]:
        _add_conditions(one.parent, rules, found, (*below, table))
    own = [one for one in rules if (one.of or one.table) is table]
    made = [Condition((one.column,) if one.of is None else (), one.sql, one.says, one.reaches, one.bans) for one in own]
    for one in table.parents:
        above = [one_above for one_above in found.get(one.parent, ()) if passes(one, one_above)]
        if above and one.parent is not table:
            own_says = [condition.says for condition in above if condition.through is None]
            told = f"its {' '.join(one.parent.noun)} is hidden" + (f" ({'; '.join(own_says[:3])})" if own_says else "")
            columns = tuple(here for here, _ in one.pairs)
            made.append(Condition(columns, f"({_named_hidden(one, above)}) IS NOT TRUE", told, through=one))
    for one in _links(table):
        above = [
            condition for condition in found.get(one.parent, ()) if condition.reaches and condition.through is None
        ]
        own_way = next(way for way in one.child.parents if way.parent is table)
        if above and one.parent.is_label:
            (column, key), inner = own_way.pairs[0], _named_hidden(one, above)
            sql = one.child.columns[column].sql
            told = f"its {one.parent.noun[-1]}'s {'; '.join(condition.says for condition in above)}"
            listed_rows = f"SELECT {sql} FROM {one.child.source.sql} WHERE {sql} IS NOT NULL AND {inner}"
            made.append(Condition((), f"{table.columns[key].sql} NOT IN ({listed_rows})", told))
    found[table] = [*dict.fromkeys(made)]
    found[table] += _below_hidden(table, found[table])


def _links(table: Table) -> list[Relation]:
    """Return the ways to the labels that rows carry by a table of links."""
    ways = []
    for own in table.children:
        link = own.child
        plain = not link.prose and not link.title and len(own.pairs) == 1 and link is not table and not table.is_label
        for one in link.parents if plain and len(link.columns) <= known.MAX_JOINS else ():
            if one.column != own.column and one.parent is not table and one.parent.is_label and len(one.pairs) == 1:
                ways.append(one)
    return ways


def passes(one: Relation, condition: Condition) -> bool:
    """Return whether a condition of what rows name holds for the rows, too."""
    if one.parent.is_people:
        return condition.bans and not one.is_pointer
    return condition.reaches and belongs(one)


def _named_hidden(relation: Relation, conditions: Sequence[Condition]) -> str:
    """Return in SQL that a row names a hidden row of its parent."""
    columns = [relation.child.columns[here].sql for here, _ in relation.pairs]
    keys = [relation.parent.columns[there].sql for _, there in relation.pairs]
    shown = " AND ".join(one.sql for one in conditions)
    inner = f"SELECT {', '.join(keys)} FROM {relation.parent.source.sql} WHERE ({shown}) IS NOT TRUE"
    left = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
    named = f"{left} IN ({inner})"
    return f"({relation.where} AND {named})" if relation.where else named


def _below_hidden(table: Table, conditions: Sequence[Condition]) -> Iterator[Condition]:
    """Yield the condition that leaves out rows of a tree below a hidden one."""
    tree = [one for one in table.parents if one.parent is table and len(one.pairs) == 1 and not one.is_pointer]
    strong = [one.sql for one in conditions if one.reaches]
    if tree and strong and known.PARENT_WORDS & {*words(tree[0].column)}:
        column, key = tree[0].pairs[0]
        own, above, place = table.columns[key].sql, table.columns[column].sql, table.source.sql
        first = f"SELECT {own} FROM {place} WHERE ({' AND '.join(strong)}) IS NOT TRUE"
        below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
        inner = f"WITH RECURSIVE hidden_rows (id) AS ({first} UNION {below}) SELECT id FROM hidden_rows"
        yield Condition((column,), f"{own} NOT IN ({inner})", f"what {column} names is hidden")


def belongs(one: Relation) -> bool:
    """Return whether rows belong to what they name. A pointer does not say so, nor does a column with a role of its own
    (`agent_representation_id` of a corporate entity), nor a list of all kinds and languages, which rows of some tables
    name by several columns each."""
    named = {singular(word) for here, _ in one.pairs for word in words(here)} - {"id"}
    has_role = len(one.pairs) == 1 and len(named) > 1 and one.parent.noun[-1] not in named
    columns = Counter(other.child for other in one.parent.children if not other.is_pointer)
    is_list = sum(count > 1 for count in columns.values()) >= known.MIN_ROWS
    return not (one.is_pointer or has_role or is_list)
