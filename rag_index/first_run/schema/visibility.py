"""Who may see a row, closed: what its own columns, what it belongs to, and tables that list hidden rows say.

The same words are read in the same way in names of columns, in values, and in names of tables and labels; a negation is
understood before what it negates. Where it is not certain which rows are hidden, those that differ from the majority
are, and the question is asked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rag_index.core.settings.index import is_named_like_a_secret
from rag_index.first_run.schema import words as known
from rag_index.first_run.schema.columns import is_readable
from rag_index.first_run.schema.tables import Condition, Relation, Table, listed
from rag_index.first_run.schema.words import singular, words

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Sequence

    from rag_index.first_run.schema.catalog import Column

_SAYS = known.HIDE | known.SHOW | known.ON | known.OFF


@dataclass(frozen=True, slots=True)
class Sense:
    """What a yes in a column, or a value, says of a row."""

    hides: bool
    strong: bool
    rest: tuple[str, ...] = ()
    """The words that were not understood."""
    asks: bool = False
    """Whether a person has to say if it is so."""


@lru_cache(maxsize=20_000)
def _split(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, such as un, published; itself if they say nothing of a row."""
    found = _known_words(word)
    return found if _SAYS & {*found} else (word,)


def _known_words(word: str) -> tuple[str, ...]:
    """Return the known words of which a word consists, the longest first; () if it does not."""
    whole = _SAYS | known.NOT | known.ABOUT_ROWS
    if word in whole or word in known.LETS_IN:
        return (word,)
    for end in range(len(word) - 2, 1, -1):
        begin, rest = word[:end], word[end:]
        negates = begin in known.NEGATIONS and (begin != "in" or rest in known.NEGATED_BY_IN)
        if (negates or begin in whole) and (found := _known_words(rest)):
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
        if word in _SAYS:
            said.append(((word in known.HIDE | known.OFF) != negated, word in known.HIDE | known.SHOW))
            negated = False
        elif word in known.NOT:
            negated = not negated
        elif word not in known.ABOUT_ROWS:
            rest, negated = [*rest, word], False
    if not said and known.SEARCHED & {*parts}:
        if known.NOT & {*parts}:
            said.append((True, False))  # nothing is said of what belongs to the row
        elif known.LETS_IN & {*parts}:
            said, rest = [(False, True)], [word for word in rest if word not in known.LETS_IN]
    strong = [hides for hides, sure in said if sure]
    return Sense(any(strong or [hides for hides, _ in said]), bool(strong), tuple(rest)) if said else None


class _Look:
    """A column of a table that may say which rows are shown."""

    def __init__(self, table: Table, column: Column, seconds_now: str, *, sqlite: bool) -> None:
        self.table, self.column, self.named = table, column, table.named[column.name]
        self.read = table.columns[column.name]
        self.sql, self.kind = column.sql, column.kind
        self.seconds_now, self.sqlite = seconds_now, sqlite
        self.counts = Counter(column.filled)
        self.rows = max(1, len(column.values))
        self.numbers = self.kind == "number" and all(isinstance(one, int) for one in self.counts)
        self.seconds = self.numbers and all(not at or at > known.MIN_UNIX_SECONDS for at in self.counts)

    @property
    def unset(self) -> str:
        """Return in SQL that a row has no value, or no yes."""
        empty = {"number": "0", "bool": "false", "text": "''", "time": "''" * ("" in self.column.values)}
        nothing = empty.get(self.kind)
        if self.kind in ("number", "bool") and not self.column.nullable:
            return f"{self.sql} = {nothing}"
        return f"COALESCE({self.sql}, {nothing}) = {nothing}" if nothing else f"{self.sql} IS NULL"

    def says(self, sql: str, what: str, *, asks: bool = False, strong: bool = True) -> Condition:
        """Return a condition with what it says of hidden rows, which a person is asked about if that is not certain."""
        said = f"{self.column.name} {what}"
        question = f"Are rows of {self.table.name} for few if {said}?" if asks else ""
        return Condition((self.column.name,), sql, said, question, strong)

    def among(self, values: Sequence[Any], *, asks: bool = False) -> Condition:
        """Return the condition that a row has none of these values, which hide it."""
        sql = f"({self.sql} IS NULL OR {self.sql} NOT IN ({listed(values)}))"
        return self.says(sql, f"is {_spoken(values)}", asks=asks)

    def only(self, values: Sequence[Any]) -> Condition:
        """Return the condition that a row has one of these values."""
        others = [value for value in self.counts if value not in values]
        return self.says(
            f"{self.sql} IN ({listed(values)})", f"is {_spoken(others)}" if others else f"is not {_spoken(values)}"
        )

    def share(self, values: Sequence[Any]) -> float:
        """Return the share of sampled rows with one of these values."""
        return sum(self.counts[value] for value in values) / self.rows


def _spoken(values: Sequence[Any]) -> str:
    texts = [str(value) for value in values]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} or {texts[-1]}" if texts else "empty"


def _own_conditions(
    table: Table, plurals: frozenset[str], groups: Container[tuple[str, ...]], seconds_now: str, *, sqlite: bool
) -> Iterator[Condition]:
    """Yield the conditions for the rows that may be shown, as their own columns say.

    `plurals` are what tables are called in the plural: `comments_hidden` says nothing of the row. `groups` are what
    tables of groups are called: a list of their numbers says who may read a row.
    """
    for column in table.source.columns.values():
        if column.name not in table.references or table.columns[column.name].role == "flag":
            look = _Look(table, column, seconds_now, sqlite=sqlite)
            sense = _own_sense(look, plurals) or _switch(look)
            made = _span(look) or _flag(look, sense) or _set(look, sense) or _state(look, sense) or _levels(look)
            lists = look.kind == "text" and all(known.NUMBERS.fullmatch(str(value)) for value in look.counts)
            if lists and tuple(map(singular, look.named)) in groups:
                given = sum(look.counts.values()) - look.counts["0"] <= known.HALF * look.rows
                made = look.says(f"COALESCE({look.sql}, '') IN ('', '0')", "names groups", asks=True) if given else None
            yield from [made] if made else []


def _own_sense(look: _Look, plurals: frozenset[str]) -> Sense | None:
    """Return what a yes says of the row; None if the column is about something else: its comments, its phone."""
    if known.FEW_READERS.fullmatch("_".join(look.named)):
        return Sense(hides=True, strong=True)
    own = {*look.table.noun, *words(look.table.source.name)}
    sense = sense_of([word for word in look.named if word not in own or sense_of((word,))])
    if sense is None or look.named[-1] in known.NO_FLAGS or (look.named[0] == "has" and sense.rest):
        return None
    if sense.hides and look.named[0] != "hide":  # private_notes: what the row says is for few
        own |= {word for name in look.table.prose for word in words(name)}
    others = {word for name, one in look.table.named.items() if name != look.column.name for word in one}
    others = {word for word in others if len(word) > 2 and not sense_of((word,))}
    about = known.PERSONAL | known.PLACES_OF_LINKS | (plurals - own) | others
    rest = {word for word in sense.rest if word not in own | known.TIME_ENDS | {"id"}}
    if rest and (known.VERBS & {look.named[0]} or not sense.strong or {f"{word}s" for word in rest} & others):
        return None
    if rest & about:
        return None
    if {"to", "for"} & {*look.named}:  # visible_to_candidate: not for those who ask for less
        rest = {word for word in rest if singular(word) not in known.PERSONS}
    return replace(sense, rest=tuple(rest))


def _switch(look: _Look) -> Sense | None:
    """Return what a `status` of 0 and 1 alone says, about which a person is asked: rows with 0 are not shown if they
    are few. It says how far the work is where people work on the rows, such as tickets."""
    named = [word for word in look.named if word not in look.table.noun]
    values = Counter({str(value).lower(): rows for value, rows in look.counts.items()})
    if {*values} not in ({"0", "1"}, {"false", "true"}) or not {*named} <= known.SWITCHES or len(named) != 1:
        return None
    few = 0 < values["0"] + values["false"] <= known.HALF * look.rows and not known.WORK & {*look.table.noun}
    return Sense(hides=False, strong=True, asks=True) if few else None


def _flag(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column such as `is_private`, `sealed`, `not_visible` or `comment_approved`."""
    values = {str(value).lower() for value in look.counts}
    small = look.numbers and all(-9 <= one <= 9 for one in look.counts)
    flags = look.kind == "bool" or look.read.role == "flag" or small or (values and values <= known.YES | known.NO)
    if sense is None or not flags or look.kind == "time" or look.named[-1] == "id":
        return None
    no = [value for value in look.counts if str(value).lower() in known.NO]
    yes = [value for value in look.counts if value not in no]
    share = look.share(yes if sense.hides else no) + (0 if sense.hides else 1 - look.read.filled)
    unsure = bool(sense.rest) or not sense.strong
    if (unsure and share > known.HALF) or (not sense.hides and not yes and not known.PUBLIC & {*look.named}):
        return None  # whether a thing is in use, or what nobody set: such rows are looked for all the same
    if look.numbers and not sense.hides and {*look.counts} - {-1, 0, 1} and (_is_secrecy(look) or 1 not in yes):
        return None
    one = {"bool": "true", "number": "1"}.get(look.kind)
    if one:
        sql = look.unset if sense.hides else f"{look.sql} = {one}"
    elif sense.hides:
        sql = f"({look.sql} IS NULL OR {look.sql} NOT IN ({listed(yes or ['1', 'Y', 'true'])}))"
    else:
        sql = f"{look.sql} IN ({listed(yes)})" if yes else f"{look.sql} NOT IN ({listed(no)})"
    strong = not unsure and (sense.hides or bool(yes))  # a flag that nobody set says little
    asks = sense.asks or bool(sense.rest) or share > known.HALF
    return look.says(sql, f"is {'true' if sense.hides else 'false'}", asks=asks, strong=strong)


def _set(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column that is set for what is not for all: `deleted_at`, the password of a post."""
    named, last = {*look.named}, look.named[-1]
    is_time = look.kind == "time" or look.read.role == "time" or (look.seconds and look.counts)
    few = last in ("id", "by") and 0 < look.read.filled <= known.FEW
    certain = sense is not None and sense.hides and sense.strong and not known.FROM.fullmatch("_".join(look.named))
    if certain and (is_time or few or last in known.TIME_ENDS - {"by"}):
        return look.says(look.unset, "is set")
    is_password = look.kind == "text" and look.read.role == "secret" and named & {"password", "passwd", "pass"}
    if is_password and 0 < look.read.filled <= known.MAX_PASSWORDS:
        return look.says(look.unset, "is set: readers have to know it")
    published = known.PUBLISHED_TIMES & named and not {"until", "to", "down", "end", "by"} & named
    if published and (is_time or last in known.TIME_ENDS) and known.HALF <= look.read.filled < 1 and not look.numbers:
        return look.says(f"{look.sql} IS NOT NULL", "is empty, as it is for drafts")
    return None


def _span(look: _Look) -> Condition | None:
    """Return the condition of columns such as `valid_to` and `publish_up`, unless it would hide more than half."""
    called = "_".join(look.named)
    ends, starts = bool(known.UNTIL.fullmatch(called)), bool(known.FROM.fullmatch(called))
    is_time = look.kind == "time" or (look.sqlite and look.read.role == "time")
    if not (ends or starts) or not (look.seconds or is_time):
        return None
    now = datetime.now(UTC)
    past = {at: (at <= now.timestamp() if look.seconds else str(at) <= now.isoformat(" ")) for at in look.counts if at}
    hidden = look.share([at for at in past if past[at] == ends])
    drafts = starts and known.PUBLISHED_TIMES & {*look.named} and 0 < 1 - look.read.filled <= known.HALF
    if hidden > known.HALF or (starts and not ends and not hidden and not drafts and look.counts):
        return None
    compared = f"{look.sql} {'>' if ends else '<='} {look.seconds_now if look.seconds else 'CURRENT_TIMESTAMP'}"
    if drafts:
        return look.says(compared, "is to come, or empty")
    return look.says(f"({look.unset} OR {compared})", f"is {'past' if ends else 'to come'}")


def _hides(value: str, noun: Sequence[str]) -> bool | None:
    """Return whether a value is of what is hidden, or of what all may see; None if it says neither."""
    text = value.strip().lower()
    named = [part for word in words(value) for part in _split(word)]
    filler = known.CONTENT | known.ABOUT_ROWS | known.NOT | {*noun}
    rest = {word for word in named if not {word, singular(word)} & filler}
    negated = bool(known.NOT & {*named})
    if rest and rest <= known.BETWEEN_PERSONS and known.CONVERSATIONS & {*noun}:
        return True
    for some, hides in ((known.HIDDEN_VALUES, True), (known.PUBLIC_VALUES, False)):
        if text in some or (rest and rest <= some):
            return hides != negated
    return None


def _state(look: _Look, sense: Sense | None) -> Condition | None:
    """Return the condition of a column such as `status` or `class`, with values such as `publish` and `draft`."""
    values = [value for value in look.counts if isinstance(value, str)]
    if look.kind != "text" or not 0 < len(values) <= known.MAX_STATES or max(map(len, values)) > known.MAX_STATE_CHARS:
        return None
    if look.column.name in look.table.title_columns or look.read.role in ("prose", "secret", "personal"):
        return None
    senses = {value: _hides(value, look.table.noun) for value in values}
    public, hidden = ([value for value in values if senses[value] is hides] for hides in (False, True))
    lower = {value.lower() for value in values}
    if sense is not None and not sense.hides and not public and known.NO & lower:  # `comment_approved` is 0, 1 or spam
        public = [value for value in values if value.lower() in known.YES]
    if known.STATES & {*look.named[-2:]} or (sense is not None and not sense.rest):
        if len(values) > 1 and lower <= known.MODERATION and known.CONTENT & {look.table.noun[-1]}:
            public = public or [value for value in values if value.lower() in known.LET]
        if public:
            return look.only(public) if len(public) < len(values) or not hidden else None
        if look.share(hidden) > known.HALF and _is_published(look):
            return None
        return look.among(hidden) if hidden else None
    surely = known.SURE | (known.BETWEEN_PERSONS if known.CONVERSATIONS & {*look.table.noun} else frozenset())
    few = [value for value in hidden if surely & {*words(value), value.lower()}]
    of_people = look.table.is_people or known.ORGANISATIONS & {*look.table.noun}
    if few and look.share(few) <= known.HALF and not of_people:
        return look.among(few, asks=look.named[-1] not in known.KINDS)
    return None


def _is_published(look: _Look) -> bool:
    """Return whether another state says which rows are public: that most are drafts is then a state of work."""
    others = [one for name, one in look.table.columns.items() if name != look.column.name and one.role == "choice"]
    states = [one for one in others if known.STATES & {one.last_word}]
    return any(_hides(text, look.table.noun) is False for one in states for text in {*one.texts})


def _is_secrecy(look: _Look) -> bool:
    """Return whether a column says who may see a row, and nothing else: by its last word, or `archive_policy`."""
    said = [word for word in look.named if word not in ("id", "level", "code", "type")][-1:]
    if said == ["policy"] and not {*look.named} <= {"policy", "archive", "archives", "read", "view"} | known.SECRECY:
        return False
    return bool((known.CODED_SECRECY if look.numbers else known.SECRECY) & {*said})


def _levels(look: _Look) -> Condition | None:
    """Return the condition that a row is as most are, with the question, if codes that are not understood say for how
    many it is: levels of secrecy, kinds of channels."""
    short = all(isinstance(one, int) or len(str(one)) <= known.MAX_CODE for one in look.counts)
    rooms = (known.CONVERSATIONS - known.ONE_SAYS) & {look.table.noun[-1]} and known.TYPE_WORDS & {look.named[-1]}
    if not (_is_secrecy(look) or (short and rooms)) or look.read.role in ("prose", "time", "other"):
        return None
    if not 1 < len(look.counts) + (look.read.filled < 1) <= known.MAX_LEVELS:
        return None
    if look.rows - look.counts.total() > known.HALF * look.rows:
        return look.says(look.unset, "is set", asks=True)
    ((most, rows),) = look.counts.most_common(1)
    return look.among([one for one in look.counts if one != most], asks=True) if rows > known.HALF * look.rows else None


# --- What other tables say ---


def add_conditions(tables: Sequence[Table], seconds_now: str, dialect: str) -> None:
    """Add to each table the conditions for the rows that may be shown."""
    plurals = frozenset(word for one in tables for word in words(one.source.name) if word != singular(word))
    groups = {one.noun for one in tables if one.noun[-1] in ("group", "role")}
    for one in [one for one in tables if one.rows]:
        one.conditions += _own_conditions(one, plurals, groups, seconds_now, sqlite=dialect == "sqlite")
        one.conditions += [*_called_hidden(one), *_calendar(one, dialect), *_pictures(one), *_older_versions(one)]
    more = [[*_listed_elsewhere(one)] for one in tables]
    for one, found in zip(tables, more, strict=True):
        one.conditions += found
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

    def leave_out(column: Column, values: Sequence[Any], says: str) -> Condition:
        return Condition((column.name,), f"COALESCE({column.sql}, '') NOT IN ({listed(values)})", says)

    few = table.children and 0 < table.rows <= known.MAX_STATES and not table.is_people and table.source.is_whole
    column = table.source.columns.get(table.title) if few else None
    if column is not None:
        named = [name for name in dict.fromkeys(column.filled) if isinstance(name, str)]
        hidden = [one for one in named if _hides(one, table.noun) and known.SURE & {*words(one), one.lower()}]
        if 0 < len(hidden) < len(named):
            yield leave_out(column, hidden, f"{column.name} is {_spoken(hidden)}")
    last = {name: words(name)[-1] for name in table.columns}
    key = next((name for name, word in last.items() if word in known.KEY_NAMES and name not in table.references), None)
    has_values = any(word in known.VALUE_NAMES or {*words(name)} & {"val", "value"} for name, word in last.items())
    if key is not None and has_values and table.source.columns[key].kind == "text":
        secrets = [name for name in dict.fromkeys(table.source.columns[key].filled) if _names_a_secret(str(name))]
        if secrets:
            yield leave_out(table.source.columns[key], secrets, f"{key} is that of a secret or something personal")


def _names_a_secret(name: str) -> bool:
    return any(map(is_named_like_a_secret, (name, *words(name)))) or bool(known.PERSONAL & {*words(name)})


def _calendar(table: Table, dialect: str) -> Iterator[Condition]:
    """Yield the conditions that leave out events whose class in their own text is not public."""
    for name in [name for name, read in table.columns.items() if read.is_calendar]:
        text = table.source.columns[name].sql
        if table.source.columns[name].kind == "bytes":  # SQLite compares no bytes with a pattern
            types = {"sqlite": f"CAST({text} AS TEXT)", "postgresql": f"ENCODE({text}, 'escape')"}
            text = types.get(dialect, f"CAST({text} AS CHAR)")
        told = [f"COALESCE({text}, '') NOT LIKE '%CLASS:{kind}%'" for kind in ("PRIVATE", "CONFIDENTIAL")]
        yield Condition((name,), " AND ".join(told), f"{name} has CLASS:PRIVATE or CLASS:CONFIDENTIAL")


def _pictures(table: Table) -> Iterator[Condition]:
    """Yield the condition that leaves out files that are no text, as a column beside them says."""
    files = [name for name in table.texts if table.source.columns[name].kind == "bytes"]
    for column in table.source.columns.values() if files and len(files) >= len(table.prose) else ():
        kinds = {value for value in column.filled if isinstance(value, str)}
        if not (known.MIME & {*words(column.name)[-1:], "".join(words(column.name)[-2:])}) or not kinds:
            continue
        if all("/" in kind for kind in kinds):
            rows = [(kind, value) for kind, value in table.source.rows_of(column.name, files[0]) if value]
            refused = sorted({kind for kind, _ in rows if kind} - {kind for kind, value in rows if is_readable(value)})
            out = [f"{column.sql} NOT LIKE '{kind}/%'" for kind in ("image", "audio", "video", "font")]
            out += [f"{column.sql} NOT IN ({listed(refused)})"] if refused else []
            says = f"{column.name} is {_spoken(refused[:3] or ['a picture'])}, which has no text"
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
        found = []
        if lists and not other.texts and not other.title and other.rows < table.rows:
            found = [(where, f"it is listed in {other.name}")]
        for link in () if table.is_label or other.prose or other.title else other.parents:
            says = [one.says for one in link.parent.conditions]
            few = any(known.FOR_FEW & {*words(said)} for said in says)
            if (
                few
                and link.column != column
                and len(other.columns) <= known.MAX_LINK_COLUMNS
                and not link.parent.prose
                and not link.parent.is_people
            ):
                found.append(([*where, _hidden_keys(link)], f"its {link.parent.noun[-1]}'s {'; '.join(says)}"))
        for told, why in found:
            inner = f"SELECT {sql} FROM {other.source.sql} WHERE {' AND '.join(told)}"
            yield Condition((key,), f"{named} NOT IN ({inner})", why)


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
    strong = [one.sql for one in table.conditions if one.strong]
    if tree and strong and known.PARENT_WORDS & {*words(tree[0].column)}:
        column, key = tree[0].pairs[0]
        own, above, place = table.source.columns[key].sql, table.source.columns[column].sql, table.source.sql
        first = f"SELECT {own} FROM {place} WHERE ({' AND '.join(strong)}) IS NOT TRUE"
        below = f"SELECT one.{own} FROM {place} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
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
        if strong and parent is not table and not parent.is_people and _belongs(one):
            own = [condition.says for condition in strong if condition.through is None]
            told = f"its {' '.join(parent.noun)} is hidden" + (f" ({'; '.join(own[:3])})" if own else "")
            columns = tuple(here for here, _ in one.pairs)
            table.conditions.append(Condition(columns, f"({_hidden_keys(one)}) IS NOT TRUE", told, through=one))


def _belongs(one: Relation) -> bool:
    """Return whether rows belong to what they name. A pointer does not say so, nor does a column with a role of its own
    (`agent_representation_id` of a corporate entity), nor a list of all kinds and languages, which rows of some tables
    name by several columns each."""
    named = {singular(word) for here, _ in one.pairs for word in words(here)} - {"id"}
    has_role = len(one.pairs) == 1 and len(named) > 1 and one.parent.noun[-1] not in named
    columns = Counter(other.child for other in one.parent.children if not other.is_pointer)
    is_list = sum(count > 1 for count in columns.values()) >= known.VOCABULARY
    return not (one.is_pointer or has_role or is_list)
