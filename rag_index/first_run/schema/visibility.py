"""Who may see a row: rules that the columns of a table, and tables beside it, suggest.

A rule is found by the kind of a column, and only then by its name. It is known to hide, or it is open: then the rows
that look like exceptions are left out until a person answers. `conditions` builds from the rules that hold, once and
after the answers, what each table is read with: what belongs to a hidden row is hidden with it.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.errors import SettingsError
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.tables import NOTHING, Rule, Table, listed, literal
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rag_index.first_run.schema.catalog import DatabaseCatalog
    from rag_index.first_run.schema.columns import Column
    from rag_index.first_run.schema.tables import Relation

_SURE = known.HIDE | known.SHOW
_SAYS = _SURE | known.ON | known.OFF
_PAIR = re.compile(r'"(\w+)"\s*:\s*(true|false|"[^"]*"|-?\d+)')
_ACCOUNTS = known.HIDE - {"deleted", "delete", "removed"}
"""Words that hide what an account wrote: what one wrote who has left is shown as before."""


# --- What names and values say ---


@lru_cache(maxsize=20_000)
def _known_words(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, such as not, published; () if it does not."""
    if word in _SAYS | known.NOT | known.FILLERS:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        begin, rest = word[:end], word[end:]
        negates = begin in ("non", "un", "in", "dis", "not", "de")
        fits = negates or begin in known.PERSONS | known.READERS | _SAYS | known.FILLERS | {"is", "to", "in", "by"}
        if fits and (found := _known_words(rest)):
            return ("not" if negates else begin, *found)
    return ()


def _parts(named: Iterable[str]) -> list[str]:
    """Return words with those that are known inside of them: `unpublished` is not, published."""
    return [part for word in named for part in (_known_words(word) or (word,))]


def sense_of(named: Iterable[str], *, shortest: int = 4) -> tuple[bool, set[str]] | None:
    """Return whether a yes hides a row, and the words that were not understood; None if it does not say. Shorter words
    than `shortest` say nothing.

    >>> sense_of(("is", "not", "public"))
    (True, set())
    """
    parts = _parts(named)
    strong, weak, rest, negated = list[bool](), list[bool](), set[str](), False
    for word in parts:
        if word in _SAYS:
            (strong if word in _SURE else weak).append((word in known.HIDE | known.OFF) != negated)
            negated = False
        elif word in known.NOT:
            negated = not negated
        elif word not in known.FILLERS and len(word) >= shortest:
            rest.add(word)
    if strong or weak:
        return any(strong or weak), rest
    if {"only", "required"} & {*parts} and (known.READERS | known.PERSONS) & {*map(singular, parts)}:
        return True, set()  # `members_only`, `login_required`
    return (True, rest) if negated and {"search", "index"} & {*parts} else None


def hides(value: str, noun: Sequence[str]) -> bool | None:
    """Return whether a value is of what is hidden, or of what all may see; None if it says neither."""
    parts = {*_parts(map(singular, words(value)))}
    if parts <= known.DIRECT | {"personal"} and known.ROOMS & {*noun}:
        return True
    sense = sense_of(parts, shortest=1)
    fillers = known.REPLIES | known.CONTAINERS | {*noun, "post", "only", "mode"}
    weak = parts & (known.ON | known.OFF) and not parts & _SURE
    return None if sense is None or weak or sense[1] - fillers else sense[0]


class _Look:
    """A column of a table that may say which rows are shown."""

    def __init__(self, catalog: DatabaseCatalog, table: Table, column: Column) -> None:
        self.catalog, self.table, self.column = catalog, table, column
        self.sql, self.as_text, self.is_time = column.sql, catalog.as_text(column), column.is_time
        self.named = table.named[column.name]
        self.name = {*map(singular, self.named), *self.named}
        self.ways = [one for one in table.parents if one.column == column.name]
        self.is_work = bool(known.WORK & {*table.noun})
        self.is_written = bool(known.WRITTEN & {*table.noun}) and not self.is_work
        """Whether rows are what people write under the eyes of moderators, and not what others work on."""
        self.sense, self.rest = self._sense()
        """Whether a yes hides a row, if the name says so, and the words of the name that say something else."""
        vague = {"date", "time", "timestamp"} | (
            {one for one in self.rest if singular(one) in known.PERSONS} if {"to", "for"} & {*self.named} else set()
        )
        self.is_clear = self.sense is not None and not self.rest - vague

    def _sense(self) -> tuple[bool | None, set[str]]:
        table, own = self.table, {*self.table.noun, *words(self.table.own_name)}
        if self.named[-1] in ("count", "number", "reason", "level") or {*self.named} & known.REMARKS:
            return None, set()
        stops = (table.is_people and known.BANNED) or (self.is_written and self.is_flag and known.HELD - {"accepted"})
        if stops and stops & self.name and not (known.NOT | {"accepted"}) & self.name:
            return True, set()
        sense, rest = sense_of([word for word in self.named if word not in own or sense_of((word,))]) or (None, set())
        return sense, rest - own - known.MODERATORS - {word for name in table.prose for word in words(name)}

    @cached_property
    def counts(self) -> Counter[Any]:
        """Return the rows of each value, of all rows if they can be counted; nothing if there are many values."""
        return self.catalog.counts(self.table, self.column)

    def share(self, values: Iterable[Any]) -> float:
        """Return the share of the rows that have one of these values."""
        return sum(self.counts[value] for value in values) / max(1, self.counts.total())

    @cached_property
    def is_flag(self) -> bool:
        """Return whether its values are yes and no."""
        values = {str(value).lower() for value in self.counts if value is not None}
        return self.column.kind == "bool" or self.column.role == "flag" or set() < values <= known.YES | known.NO

    @cached_property
    def has_drafts(self) -> bool:
        """Return whether some states are of what nobody may see yet: then others are a moderator's."""
        named = known.STATES & {*self.named[-2:]} and not self.is_work
        return bool(named and any(known.HIDE & {*words(one)} for one in self.counts if isinstance(one, str)))

    def hides(self, value: Any) -> bool | None:
        """Return whether rows with a value are hidden, or for everybody; None if it says neither."""
        said = words(value) if isinstance(value, str) else ()
        if self.has_drafts and (known.HELD - {"accepted"}) & {*said}:
            return True
        if self.is_clear and self.is_flag:
            return (str(value).lower() in known.YES) == self.sense
        if self.is_written and known.HELD & {*said}:
            return "accepted" not in said
        if self.table.is_people and known.BANNED & {*said}:
            return True
        return hides(value, self.table.noun) if said else None

    @property
    def unset(self) -> str:
        """Return in SQL that a row has no value, or no yes."""
        empty = {"number": "0", "bool": "false", "text": "''", "time": "''" * ("" in self.column.values)}
        nothing = None if self.column.is_enum else empty.get(self.column.kind)
        if self.column.kind in ("number", "bool") and not self.column.nullable:
            return f"{self.sql} = {nothing}"
        return f"COALESCE({self.sql}, {nothing}) = {nothing}" if nothing else f"{self.sql} IS NULL"

    @cached_property
    def labels(self) -> dict[Any, str]:
        """Return what the rows are called that the column names."""
        way = next((one for one in self.ways if not one.type_column), None)
        if way is None or way.parent.title not in way.parent.columns:
            return {}
        return dict(way.parent.rows_of(way.pairs[0][1], way.parent.title))

    def spoken(self, value: Any) -> str:
        """Return a value as people read it."""
        if value is None or (isinstance(value, str) and value.strip() in ("", "{}", "[]", "null")):
            return "empty"
        if self.is_time:
            return "set"
        if self.is_flag or isinstance(value, bool):
            return "yes" if str(value).lower() in known.YES else "no"
        return f"{value} {self.labels[value]}" if value in self.labels else str(value)

    @property
    def values(self) -> list[tuple[str, Any, int]]:
        """Return the values as people read them, as the database has them, and their rows, the most common first; of a
        time whether it is set."""
        if self.is_time:
            empty = max(0, self.catalog.rows_that(self.table, self.unset))
            return [("empty", None, empty), ("set", True, max(0, self.table.rows - empty))]
        return [(self.spoken(value), value, rows) for value, rows in self.counts.most_common()]

    def rule(self, sql: str, says: str, hidden: Sequence[Any] = (), *, is_open: bool = False) -> Rule:
        """Return a rule by which rows with the hidden values are left out."""
        found: dict[str, tuple[int, bool]] = {}
        for said, value, rows in self.values:
            found[said] = (found.get(said, (0, False))[0] + rows, value in hidden)
        values = tuple((said, rows, out) for said, (rows, out) in found.items())
        named = {*self.named, *(word for said, _, out in values if out for word in words(said))}
        bans = bool((known.BANNED | (_ACCOUNTS if self.table.is_accounts else frozenset())) & named)
        says = f"{self.column.name} {says}"
        return Rule(self.table, self.column.name, sql, says, is_open=is_open, values=values, bans=bans)

    def among(self, values: Sequence[Any], *, is_open: bool = False) -> Rule:
        """Return the rule that leaves out rows with these values."""
        filled = [value for value in values if value not in (None, "")]
        if self.is_time:
            sql = f"NOT ({self.unset})" if None in values else self.unset
        else:
            parts = [f"({self.as_text} IS NULL OR {self.as_text} NOT IN ({listed(filled)}))"] if filled else []
            sql = " AND ".join([*parts, *([f"{self.sql} IS NOT NULL"] if len(filled) < len(values) else [])])
        return self.rule(sql, f"is {self.said(values)}", values, is_open=is_open)

    def only(self, values: Sequence[Any], *, is_open: bool = False) -> Rule:
        """Return the rule that leaves out rows with any other value."""
        hidden = [value for value in self.counts if value not in values]
        filled = [value for value in values if value not in (None, "")]
        empty = [self.unset] if len(filled) < len(values) else []
        parts = [f"{self.as_text} IN ({listed(filled)})"] if any(filled) or not empty else []
        sql = " OR ".join([*parts, *empty])
        says = f"is {self.said(hidden)}" if hidden else f"is not {self.said(values)}"
        return self.rule(f"({sql})" if " OR " in sql else sql, says, hidden, is_open=is_open)

    def said(self, values: Sequence[Any]) -> str:
        """Return values as a person would list them."""
        texts = [*dict.fromkeys(map(self.spoken, values))]
        return " or ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]])) or "empty"


# --- What the columns of a table say ---


def find_rules(catalog: DatabaseCatalog, tables: Sequence[Table]) -> list[Rule]:
    """Return what the columns of tables, and tables beside them, suggest about who may see rows."""
    plurals = {word for one in tables for word in words(one.own_name) if word != singular(word)}
    found = []
    for table in [one for one in tables if one.rows]:
        for column in table.columns.values():
            made = _column_rule(_Look(catalog, table, column), plurals)
            # a flag that is the same in all rows of a label's table says nothing of what carries it
            if made and not (table.is_label and catalog.rows_that(table, made.sql) == 0):
                found.append(made)
        found += [*_called_hidden(table), *_older_versions(catalog, table), *_beside(catalog, table)]
    return found + [rule for table in tables if table.rows for rule in _shown_nowhere(catalog, table, found)]


def _column_rule(look: _Look, plurals: set[str]) -> Rule | None:
    """Return what a column says, known before open; None if all rows may be seen."""
    column, table = look.column, look.table
    if column.name in {*table.key, *table.title_columns, *(one.type_column for one in table.parents)}:
        return None
    others = {word for name, one in table.named.items() if name != column.name for word in one}
    if span := _span(look):
        return span
    if look.sense is not None and look.rest & (known.PERSONAL | plurals | others):
        return None  # another thing is hidden: the row's comments, its phone
    if (found := _set(look)) or column.role in ("prose", "secret", "personal"):
        return found
    names_rows = column.name in table.references and column.role != "flag"
    finders = () if names_rows else (_values, _json, _minority)
    return next(filter(None, (find(look) for find in (*finders, _of_groups, _exception))), None)


def _values(look: _Look) -> Rule | None:
    """Return the rule of a column whose values say who may see a row: a flag such as `is_private`, states such as
    `draft`. Where its name says nothing of that, only what is sure counts, in a minority of the rows."""
    values = (*look.counts, *([None] if look.is_flag and None not in look.counts else []))
    public, hidden = ([value for value in values if look.hides(value) is one] for one in (False, True))
    if look.is_flag and look.is_clear:
        weak = not (_SURE | known.BANNED) & {*_parts(look.named)}
        if weak and look.share(hidden) > known.HALF:
            return None  # whether a thing is in use: such rows are looked for all the same
        made = look.only(public) if look.sense or any(public) else look.among(hidden)
        says = f"{look.column.name} is {'yes' if look.sense else 'no'}"
        return replace(made, says=says, reaches="search" not in look.name and bool(look.sense or any(public)))
    named = (known.STATES | known.SECRECY) & {*look.named[-2:]} or look.is_clear
    if not named:
        sure = known.SURE | {"only"} | (known.DIRECT if known.ROOMS & {*look.table.noun} else set())
        short = all(len(str(value)) <= known.MIN_PROSE_CHARS for value in values)  # a text that a person left out
        few = [value for value in hidden if short and sure & {*map(singular, words(value))}]
        return look.among(few) if few and look.share(few) <= known.HALF and not look.table.is_people else None
    states = known.STATES & {*look.named[-2:]} or look.share([*public, *hidden]) > known.HALF
    if public and not look.is_work and states:
        return look.only(public)
    return look.among(hidden) if hidden else None


def _set(look: _Look) -> Rule | None:
    """Return the rule of a column that is set for what is not for all: `deleted_at`, `hidden_by`, a password."""
    column, last = look.column, look.named[-1]
    if column.role == "secret":
        few = {"password", "passwd"} & look.name and 0 < column.filled <= 2 * known.FEW
        return look.rule(look.unset, "is set: readers have to know it") if few else None
    # a number says for whom a row is, such as `privatereplyto`
    private = any(word.startswith((*known.FOR_FEW,)) for word in look.named) and not look.is_flag
    private = private and column.kind in ("number", "id") and last not in ("count", "number", "level")
    if private and known.HALF <= look.catalog.rows_that(look.table, look.unset) / look.table.rows < 1:
        return look.rule(look.unset, "is set", [value for value in look.counts if value not in NOTHING])
    why = known.REMARKS & {*look.named} and sense_of([word for word in look.named if word not in known.REMARKS])
    sense, few = (why[0] if why else look.sense), 0 < column.filled <= known.SOME
    if sense is None or not (why or look.is_clear):
        return None
    if sense and (look.is_time or last in ("at", "on") or (few and (last in ("id", "by") or why))):
        return look.rule(look.unset, "is set", [True])
    published = not sense and look.is_time and column.kind != "number" and known.HALF <= column.filled < 1
    return look.rule(f"{look.sql} IS NOT NULL", "is empty", [None]) if published else None


def _span(look: _Look) -> Rule | None:
    """Return the rule of times such as `valid_to` and `publish_at`, unless it would hide more than half."""
    if not look.is_time or (look.column.kind == "text" and look.catalog.connection.dialect.name != "sqlite"):
        return None
    name, parts = look.name, {*look.named, *re.findall("until|embargo|expire", " ".join(look.named))}
    between, published = known.BETWEEN & name, {"publish", "published", "publication", "release"} & name
    ends = {"expire", "expiry", "expiration"} & parts or (known.UNTIL & parts and between)
    starts = (known.FROM & parts and between) or "embargo" in parts or ("until" in parts and known.HIDE & name)
    starts = not ends and bool(starts or (published and {"on", "date"} & name))
    if not (ends or starts):
        return None
    now = look.catalog.seconds_now if look.column.kind == "number" else "CURRENT_TIMESTAMP"
    compared = f"{look.sql} {'>' if ends else '<='} {now}"
    shown = f"({look.unset} OR {compared})"
    out = look.table.rows - max(0, look.catalog.rows_that(look.table, shown))
    if out > known.HALF * look.table.rows or (starts and not out):
        return None  # a time of publication that is past for all: `_set` says whether it may be empty
    if starts and published and known.HALF <= look.column.filled < 1:
        return look.rule(compared, "is to come, or empty")
    return look.rule(shown, f"is {'past' if ends else 'to come'}")


def _json(look: _Look) -> Rule | None:
    """Return the rule of objects that say who may see a row, such as `{"public": false}`."""
    if look.column.kind != "json" and look.column.form != "json":
        return None
    found: dict[str, str] = {}
    for pair in (pair for value in look.column.given for pair in _PAIR.finditer(str(value))):
        sense, said = sense_of(words(pair[1])), pair[2].strip('"').lower()
        named = (known.STATES | known.SECRECY) & {*words(pair[1])} and hides(said, look.table.noun)
        if named or (sense and not sense[1] and said in (known.YES if sense[0] else known.NO)):
            found[pair[0]] = f"{pair[1]} {said}"
    if not 0 < len(found) <= known.MAX_VALUES:
        return None
    like = [f"COALESCE({look.as_text}, '') NOT LIKE {literal(f'%{pair}%')}" for pair in found]
    return look.rule(" AND ".join(like), f"has {', '.join(dict.fromkeys(found.values()))}")


def _minority(look: _Look) -> Rule | None:
    """Return the rule of a column that says nothing but who may see a row, in values that are not understood, and of
    codes of rooms: all but the most common value are left out."""
    named = {*look.named[-2:]} & known.SECRECY
    short = all(len(str(one)) <= 2 for one in look.counts)
    rooms = short and known.ROOMS & {look.table.noun[-1]} and known.TYPE_WORDS & {look.named[-1]}
    if not (named or rooms) or not 1 < len(look.counts) <= known.MAX_VALUES:
        return None
    usual = [value for value in look.counts if rooms and str(value).lower() in ("o", "c")]
    usual = usual or [look.counts.most_common(1)[0][0]]
    sure = named - {"scope", "policy", "audience"}
    return look.only(usual) if sure or rooms or look.share(usual) > known.HALF else None


def _of_groups(look: _Look) -> Rule | None:
    """Return the rule of a column that names groups: rows that name one are for few, if most name none."""
    last = singular(look.ways[0].parent.noun[-1] if look.ways else look.named[-1])
    nothing = [value for value in look.counts if value in (*NOTHING, "[]", "{}")]
    most = known.NEARLY_ALL if look.ways else known.HALF
    named = known.GROUPS & {last, *({"acl", "permission", "usergroup"} & look.name)}
    return look.only(nothing, is_open=bool(look.ways)) if named and most <= look.share(nothing) < 1 else None


def _exception(look: _Look) -> Rule | None:
    """Return the open rule of a column with a value that nearly all rows have: the others are left out."""
    column, noun, ways = look.column, {*look.table.noun}, look.ways
    labels = [one for one in ways if one.parent is not look.table and not one.parent.is_people and not one.parent.prose]
    about: frozenset[str] = known.SHOWN | known.WRITERS | known.PERSONAL | known.CODE_NAMES | known.ORDERS
    about |= (known.REPLIES - noun) | (known.BROUGHT - known.GROUPS - known.STATES)
    glued = {one for one in about - known.FROM for word in look.named if len(one) > 4 and word.endswith(one)}
    if ((glued or about & look.name) and not known.HELD & look.name) or look.named[-1] in known.SAID:
        return None
    if look.table.is_people and (look.table.is_accounts or not look.table.prose) and not known.CUSTOMERS & noun:
        return None
    if (ways and not labels) or any(one.type_column for one in ways) or column.role == "locale":
        return None
    if known.WORK & noun and (ways or (known.HELD | known.STATES) & look.name):
        return None
    values = sorted(look.values, key=lambda one: -one[2])
    rows = [one[2] for one in values]
    if not 1 < len(values) <= known.MAX_VALUES + 1 or not known.NEARLY_ALL * sum(rows) <= rows[0] < sum(rows):
        return None
    most, *others = [one[1] for one in values]
    if look.is_time:
        return look.among(others, is_open=True)
    if {most, *others} <= {*NOTHING} or not all(_is_plain(value) for value in others if value not in NOTHING):
        return None  # no number, in two ways, or no state
    return look.only([most], is_open=True)


def _is_plain(value: Any) -> bool:
    """Return whether a value may be that of a state: a short text that is no name, a small whole number."""
    if not isinstance(value, str):
        return bool(value == int(value) and abs(value) <= known.PROSE)
    return len(value) <= known.MAX_CODE_CHARS and not (" " in value and value != value.lower())


def answered(catalog: DatabaseCatalog, table: Table, column: Column, values: Sequence[str]) -> Rule:
    """Return the rule by which a person hides rows: those with some values, or, without any, those that are set or
    differ from what most rows have.

    Raises:
        SettingsError: the column has no such value.
    """
    look = _Look(catalog, table, column)
    told = {str(one[place]).lower(): one[1] for place in (1, 0) for one in look.values}
    for value in values:
        if value.lower() not in told and (look.counts or value not in map(str, column.given)):
            some = ", ".join([one[0] for one in look.values][: known.MAX_VALUES]) or "many values"
            raise SettingsError(f"{table.name}.{column.name} is never {value}: it is {some}")
    common = [value for value, _ in look.counts.most_common(1) if look.share([value]) > known.HALF]
    if values:
        made = look.among([told.get(value.lower(), value) for value in values])
    elif look.is_time or not common or common[0] in NOTHING:
        made = look.rule(look.unset, "is set", [True])
    else:
        made = look.only(common)
    return replace(made, bans=True)


# --- What rows and tables beside it say ---


def _older_versions(catalog: DatabaseCatalog, table: Table) -> Iterator[Rule]:
    """Yield the rule that leaves out versions to which the row that has them does not point as its newest."""
    for owner in {one.parent for one in table.parents if known.VERSIONS & {table.noun[-1]} and len(table.key) == 1}:
        for column in owner.columns.values():
            named = [value for value in column.given if value not in NOTHING]
            newest = owner is not table and known.POINTERS & {*words(column.name)}
            if newest and catalog.share_found(named, table, table.key[0]) >= known.MIN_FOUND:
                some = f"SELECT {column.sql} FROM {owner.sql} WHERE {column.sql} IS NOT NULL"
                says = f"it is no newest version, as {owner.own_name}.{column.name} says"
                yield Rule(table, table.key[0], f"{table.columns[table.key[0]].sql} IN ({some})", says)


def _called_hidden(table: Table) -> Iterator[Rule]:
    """Yield the rules that leave out labels and folders that are called so, and names of secrets with values."""
    few = table.children and table.rows <= known.MAX_CHOICES and not table.is_people and table.is_whole
    title, out = table.columns.get(table.title) if few else None, dict[str, list[Any]]()
    if title is not None:
        named = [name for name in dict.fromkeys(title.given) if isinstance(name, str)]
        hidden = [one for one in named if hides(one, table.noun) and known.SURE & {*words(one), one.lower()}]
        out = {title.name: hidden} if len(hidden) < len(named) else {}
    last = {name: words(name)[-1] for name in table.columns if name not in table.references}
    key = next((name for name, word in last.items() if word in ("name", "key", "attribute", "property", "field")), "")
    if key and {"value", "val", "data", "content"} & {word for name in last for word in words(name)}:
        out[key] = [one for one in dict.fromkeys(table.columns[key].given) if _names_a_secret(str(one))]
    for name, values in out.items():
        sql = table.columns[name].sql
        if values:
            says = f"{name} is {', '.join(map(str, values[:3]))}"
            yield Rule(table, name, f"({sql} IS NULL OR {sql} NOT IN ({listed(values)}))", says)


def _names_a_secret(name: str) -> bool:
    if re.search(r"\.\w{2,5}$", name) or len(words(name)) > known.MIN_ROWS:  # a file, or a sentence
        return False
    return any(map(is_named_like_a_secret, (name, *words(name)))) or bool(known.PERSONAL & {*words(name)})


def _beside(catalog: DatabaseCatalog, table: Table) -> Iterator[Rule]:
    """Yield the rules of tables that list some rows of this one: as private, as held back, for a group."""
    for own in table.children if not table.is_people else ():
        other = own.child
        if len(own.pairs) > 1 or other is table or own.is_pointer or other.is_people or not other.rows:
            continue
        ((column, key),) = own.pairs
        called = {*map(singular, words(other.own_name)), *words(other.own_name)}
        lists = known.LISTS & called or (known.VERSIONS & called and {"past", "old", "former"} & {*words(column)})
        own_list = any(one.parent.is_people for one in other.parents)
        idle = (known.SHOWN | known.REPORTS | known.OWN | known.FILES) & called
        rights = {"permission", "acl"} & called
        quiet = not rights and (other.title or own_list or idle or other.machine)
        if other.prose or other.children or (quiet and not (lists or (known.HIDE | known.HELD) & called)):
            continue
        groups = any(one.column != column and known.GROUPS & {one.parent.noun[-1]} for one in other.parents)
        once = [column] == other.key or catalog.is_key(other, [column])
        sql, named = other.columns[column].sql, table.columns[key].sql
        refused = _refused(catalog, other) if rights else ""
        where = " AND ".join(filter(None, (own.where, f"{sql} IS NOT NULL", refused)))
        inner = f"{named} NOT IN (SELECT {sql} FROM {other.sql} WHERE {where})"
        rows = catalog.rows_that(table, f"NOT ({inner})")
        made = Rule(other, column, inner, f"it is listed in {other.name}", of=table)
        if (lists and rows < table.rows) or (rights and 0 < rows <= known.SOME * table.rows):
            yield made
        elif 0 < rows <= known.FEW * table.rows and (once or groups):
            yield replace(made, is_open=True, values=(("listed", rows, True),))


def _refused(catalog: DatabaseCatalog, rights: Table) -> str:
    """Return in SQL that a row of rights says no to readers; "" if none does, so that each says who may read."""
    names = [name for name, said in rights.named.items() if {"view", "read", "see"} & {*said}]
    looks = [_Look(catalog, rights, rights.columns[name]) for name in names]
    no = [(one, [value for value in one.counts if str(value).lower() in known.NO]) for one in looks if one.is_flag]
    return next((f"{one.as_text} IN ({listed(values)})" for one, values in no if 0 < len(values) < len(one.counts)), "")


def _shown_nowhere(catalog: DatabaseCatalog, table: Table, rules: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rules that leave out rows that another table lists, for each shop or language, and shows nowhere."""
    for own in table.children if not table.is_people else ():
        other = own.child
        said = [one for one in rules if one.table is other and not (one.of or one.is_open)]
        said = [one for one in said if known.SHOW & {*_parts(words(one.column))}]
        if not said or own.pairs[1:] or other is table or other.prose or other.title:
            continue
        ((column, key),) = own.pairs
        listed_in = f"{table.columns[key].sql} IN (SELECT {other.columns[column].sql} FROM {other.sql} WHERE"
        listed_at_all = " AND ".join(filter(None, (own.where, f"{other.columns[column].sql} IS NOT NULL")))
        shown = " AND ".join(f"({one.sql})" for one in said)
        sql = f"({listed_in} {listed_at_all} AND {shown}) OR NOT {listed_in} {listed_at_all}))"
        if 0 < catalog.rows_that(table, f"NOT ({sql})") <= known.HALF * table.rows:
            says = f"it is shown by no row of {other.name} ({'; '.join(one.says for one in said)})"
            yield Rule(other, said[0].column, sql, says, of=table)


# --- What follows for each table ---


def conditions(tables: Sequence[Table], rules: Sequence[Rule]) -> dict[Table, list[Rule]]:
    """Return what each table is read with: its rules, and that of what its rows belong to, at any number of steps."""
    found: dict[Table, list[Rule]] = {}

    def add(table: Table, below: tuple[Table, ...] = ()) -> None:
        if table not in found and table not in below:
            for one in [*table.parents, *(far for _, far in _links(table))]:
                add(one.parent, (*below, table))
            found[table] = _conditions_of(table, rules, found)

    for table in tables:
        add(table)
    return found


def _conditions_of(table: Table, rules: Sequence[Rule], found: Mapping[Table, list[Rule]]) -> list[Rule]:
    """Return what a table is read with, given that of what its rows belong to."""
    made = [one for one in rules if (one.of or one.table) is table]
    for one in table.parents:
        above = [rule for rule in found.get(one.parent, ()) if passes(one, rule)]
        if above and one.parent is not table:
            own = [rule.says for rule in above if rule.through is None]
            told = f"its {' '.join(one.parent.noun)} is hidden" + (f" ({'; '.join(own[:3])})" if own else "")
            made.append(Rule(table, one.column, f"({_named_hidden(one, above)}) IS NOT TRUE", told, through=one))
    for own_way, far in _links(table):
        above = [rule for rule in found.get(far.parent, ()) if rule.reaches and rule.through is None]
        if above:
            column, key = own_way.pairs[0]
            sql = far.child.columns[column].sql
            told = f"its {far.parent.noun[-1]}'s {'; '.join(rule.says for rule in above)}"
            rows = f"SELECT {sql} FROM {far.child.sql} WHERE {sql} IS NOT NULL AND {_named_hidden(far, above)}"
            made.append(Rule(far.parent, "", f"{table.columns[key].sql} NOT IN ({rows})", told, of=table))
    return [*made, *_below_hidden(table, made)]


def _links(table: Table) -> Iterator[tuple[Relation, Relation]]:
    """Yield the ways from a table of links to this one, and to the labels that its rows carry."""
    for own in table.children if not table.is_label else ():
        link = own.child
        if not (link.prose or link.title or link is table or own.pairs[1:] or len(link.columns) > known.MAX_JOINS):
            for far in link.parents:
                few = far.parent.is_label or (far.parent.rows <= known.MAX_CHOICES and not far.parent.prose)
                if far.column != own.column and few and not (far.parent.is_people or far.pairs[1:]):
                    yield own, far


def passes(one: Relation, rule: Rule) -> bool:
    """Return whether a rule of what rows name holds for the rows, too."""
    if one.parent.is_people and not known.CUSTOMERS & {*one.parent.noun}:
        few = sum(rows if out else -rows for _, rows, out in rule.values) < 0  # a 0 of all of them may say anything
        owns = few and "owner" in words(one.column) and (known.SECRECY | known.FOR_FEW) & {*words(rule.column)}
        return bool(rule.bans or owns) and not one.is_pointer
    return rule.reaches and belongs(one)


def _named_hidden(relation: Relation, rules: Sequence[Rule]) -> str:
    """Return in SQL that a row names a hidden row of its parent."""
    columns = [relation.child.columns[here].sql for here, _ in relation.pairs]
    keys = [relation.parent.columns[there].sql for _, there in relation.pairs]
    shown = " AND ".join(one.sql for one in rules)
    inner = f"SELECT {', '.join(keys)} FROM {relation.parent.sql} WHERE ({shown}) IS NOT TRUE"
    left = columns[0] if len(columns) == 1 else f"({', '.join(columns)})"
    named = f"{left} IN ({inner})"
    return f"({relation.where} AND {named})" if relation.where else named


def _below_hidden(table: Table, rules: Sequence[Rule]) -> Iterator[Rule]:
    """Yield the rule that leaves out rows of a tree below a hidden one."""
    tree = [one for one in table.parents if one.parent is table and len(one.pairs) == 1 and not one.is_pointer]
    strong = [one.sql for one in rules if one.reaches]
    if tree and strong and known.PARENT_WORDS & {*words(tree[0].column)}:
        column, key = tree[0].pairs[0]
        own, above, place = table.columns[key].sql, table.columns[column].sql, table.sql
        first = f"SELECT {own} FROM {place} WHERE ({' AND '.join(strong)}) IS NOT TRUE"
        below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
        inner = f"WITH RECURSIVE hidden_rows (id) AS ({first} UNION {below}) SELECT id FROM hidden_rows"
        yield Rule(table, column, f"{own} NOT IN ({inner})", f"what {column} names is hidden")


def belongs(one: Relation) -> bool:
    """Return whether rows belong to what they name. A pointer does not say so, nor does a column with a role of its own
    (`agent_representation_id` of a corporate entity), nor a list of all kinds and languages, which rows of some tables
    name by several columns each."""
    named = {singular(word) for here, _ in one.pairs for word in words(here)} - {"id"}
    has_role = len(one.pairs) == 1 and len(named) > 1 and one.parent.noun[-1] not in named
    columns = Counter(other.child for other in one.parent.children if not other.is_pointer)
    is_list = sum(count > 1 for count in columns.values()) >= known.MIN_ROWS
    return not (one.is_pointer or has_role or is_list)
