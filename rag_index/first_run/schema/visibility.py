"""Which rows of a table must not be shown: deleted and hidden ones, drafts, revisions, what waits for a moderator."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_index.first_run.schema import vocabulary as vocab
from rag_index.first_run.schema.columns import FEW, MAX_CHOICES, MOST, NEARLY_ALL, SLUG, ColumnProfile, singular, words
from rag_index.first_run.schema.subjects import MIN_UNIX_SECONDS, Condition, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Iterable, Sequence

    from rag_index.first_run.schema.catalog import Column


MIN_OUT = 0.66
"""If at least this share of rows is inactive, the remaining numeric states are taken for drafts."""
MIN_PUBLISHED = 0.5
"""If fewer rows have a time of publication, it is not used, and hides none."""
MAX_STATES = 12
MIN_BIT = 64
"""No state has this number and more, but for those that are sums of bits."""
MAX_CODES = 8
MAX_TYPES = 20
MAX_UNTYPED = 12
"""Types leave out nothing of a table with at most this many rows, but for what few people may see."""
MAX_PASSWORDS = 0.2
"""If more rows have a password, it is that of an account."""
PUT_AWAY = (9, 99)
"""The states, by number, of what was put away, if they come after a gap: 9 after 5, and not after 8."""


@dataclass(frozen=True)
class _Look:
    """A column that may say which rows are shown."""

    table: Subject
    column: Column
    profile: ColumnProfile
    named: dict[str, tuple[str, ...]]
    """The words of the name of each column, without the one with which most of them begin."""
    seconds_now: str

    @property
    def words(self) -> tuple[str, ...]:
        return self.named[self.column.name]

    @property
    def sql(self) -> str:
        return self.column.sql

    @property
    def called(self) -> str:
        return "_".join(self.words)

    @property
    def unset(self) -> str:
        """Return in SQL that a row has no value."""
        nothing = {"number": "0", "text": "''"}.get(self.column.kind)
        return f"COALESCE({self.sql}, {nothing}) = {nothing}" if nothing else f"{self.sql} IS NULL"

    def is_unset(self, reason: str) -> Condition:
        """Return the condition that a row has no value."""
        return self.condition(self.unset, reason, lambda value: not value)

    @cached_property
    def is_time(self) -> bool:
        """Return whether the values are times, as such or in seconds since 1970, as far as there are some."""
        number = self.column.kind == "number" and all(not at or at >= MIN_UNIX_SECONDS for at in self.column.filled)
        return number or self.column.kind == "time"

    def has_come(self, at: Any) -> bool:
        """Return whether a time of a row is over."""
        now = datetime.now(UTC)
        return at <= now.timestamp() if self.column.kind == "number" else str(at) <= now.isoformat(" ")

    def compared(self, sign: str) -> str:
        """Return in SQL that a time is over (`<=`) or to come (`>`)."""
        return f"{self.sql} {sign} {self.seconds_now if self.column.kind == 'number' else 'CURRENT_TIMESTAMP'}"

    def condition(self, sql: str, reason: str, shows: Callable[[Any], object]) -> Condition:
        return Condition(self.column.name, sql, f"{self.column.name} {reason}", shows)

    def among(self, values: Collection[Any], reason: str, *, hidden: bool = False) -> Condition:
        """Return the condition that a row has one of these values, or none of them if they are `hidden`."""
        number = self.column.kind == "number"
        written = ", ".join(map(str, values)) if number else listed(map(str, values))
        one = number and len(values) == 1 and not hidden
        sql = f"{self.sql} = {written}" if one else f"{self.sql} {'NOT ' * hidden}IN ({written})"
        sql = f"({self.sql} IS NULL OR {sql})" if hidden and self.profile.filled < 1 else sql
        return self.condition(sql, reason, lambda value: (value in values) != hidden)


def find_conditions(table: Subject, nouns: Container[str], *, seconds_now: str) -> list[Condition]:
    """Return the conditions for the rows that may be shown, as their own columns say.

    `nouns` are the last words of all tables: `comments_enabled` and `comments_hidden` say nothing of the row.
    """
    found: list[Condition] = []
    types = {relation.type_column for relation in table.relations}
    called = {"enabled", "is", *map(singular, words(table.name))}
    named = {name: words(name) for name in table.columns}
    for first, count in Counter(one[0] for one in named.values()).most_common(1):
        if 2 * count > len(named):
            named = {name: one[1:] if one[0] == first and len(one) > 1 else one for name, one in named.items()}
    for column in table.columns.values():
        look = _Look(table, column, table.profiles[column.name], named, seconds_now)
        switches = "enabled" in look.words and not {*look.words} <= called  # with `comments_enabled`, posts are shown
        if column.name in types or switches or any(word != singular(word) in nouns for word in look.words):
            continue
        found += filter(None, [next(filter(None, (rule(look) for rule in RULES)), None)])
    return [one for one in found if not any(_is_version(table, one, other) for other in found)]


def _is_version(table: Subject, condition: Condition, other: Condition) -> bool:
    """Return whether a column calls most rows drafts that another one calls published: drafts are versions of texts."""
    if not all(vocab.STATES & {*words(one.column)} for one in (condition, other)):
        return False
    states = zip(*(table.columns[one.column].values for one in (condition, other)), strict=True)
    published = [state for state, public in states if public and other.shows(public)]
    drafts = [state for state in published if not condition.shows(state)]
    return len(drafts) > MOST * len(table.columns[other.column].values) and {*drafts} == {"draft"}


def unclear_codes(table: Subject) -> list[str]:
    """Return a sentence for each code that may hide rows, such as `post_type`: no name tells what 4 or N is.

    Known is what columns mean that have conditions or name rows of other tables.
    """
    found, types = [], {one.type_column for one in table.relations}
    known = table.named_columns.union(types, [one.column for one in table.conditions])
    for column in table.columns.values():
        counts = Counter(value for value in column.filled if type(value) is int or len(str(value)) == 1)
        coded = column.kind == "number" or counts.total() == len(column.filled)
        named = coded and column.name not in known and {*vocab.CODED} & {*words(column.name)[-1:]}
        if named and 1 < len(counts) <= MAX_CODES:
            values = ", ".join(f"{value} in {rows:,}" for value, rows in sorted(counts.items()))
            found.append(
                f"{table.full_name}: of {len(column.values):,} rows looked at, {column.name} is {values}. If some of "
                "these values are not for everybody, leave them out by `where`."
            )
    return found


def joined(conditions: Sequence[Condition]) -> str:
    """Return the conditions as one."""
    return " AND ".join(one.sql for one in conditions)


def listed(values: Iterable[str]) -> str:
    """Return texts as they stand in a list of SQL."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)


def _yes_or_no(look: _Look, *, yes: bool) -> Condition:
    """Return the condition that a row has a yes, or a no or nothing, however the column writes it."""
    column, shown, reason = look.column, vocab.YES if yes else vocab.NO, "says who may see a row"
    found = [one for one, _ in Counter(column.filled).most_common() if str(one).lower() in shown]
    written = {"bool": str(yes).lower(), "number": str(int(yes))}.get(column.kind) or ", ".join(
        str(one) if isinstance(one, int) else listed([one]) for one in found
    )
    if not written:
        return look.among([*dict.fromkeys(column.filled)], reason, hidden=True)
    value = look.sql if yes or not column.nullable else f"COALESCE({look.sql}, {written.partition(',')[0]})"
    sql = f"{value} IN ({written})" if "," in written else f"{value} = {written}"
    return look.condition(sql, reason, lambda at: str(at).lower() in shown or (at is None and not yes))


def _span(look: _Look) -> Condition | None:
    """Return the condition of columns such as `valid_to`, `publish_up` and, in seconds since 1970, `endtime`.

    It leaves out no more than half of the rows: appointments begin and end, too.
    """
    called, values = look.called, look.column.values
    ends, starts = bool(vocab.UNTIL.fullmatch(called)), bool(vocab.STARTS.fullmatch(called))
    if not (ends or starts) and look.is_time:
        others = {name: "_".join(named) for name, named in look.named.items()}
        begins = [look.table.columns[name] for name, one in others.items() if vocab.BEGINS.fullmatch(one)]
        told = look.column.kind == "number" or bool(look.column.filled)  # an empty `end` may be one of anything
        few = told and all(2 * sum(map(bool, one.values)) < len(one.values) for one in [look.column, *begins])
        paired = any(vocab.STOPS.fullmatch(one) or vocab.UNTIL.fullmatch(one) for one in others.values())
        ends = few and bool(vocab.STOPS.fullmatch(called))
        starts = few and paired and bool(vocab.BEGINS.fullmatch(called))
    if not look.is_time or not (ends or starts):
        return None

    def shows(at: Any) -> bool:
        return not at or look.has_come(at) != ends

    if 2 * sum(map(shows, values)) < len(values):
        return None
    reason = f"says {'until' if ends else 'from'} when a row holds"
    return look.condition(f"({look.unset} OR {look.compared('>' if ends else '<=')})", reason, shows)


def _code(look: _Look) -> Condition | None:
    """Return the condition of a code that has a value for hidden rows, or some for rows put away.

    Of states, 9 after a gap, and what is negative, were put away. Of a `visibility_level`, all may see the highest.
    """
    column, counts = look.column, Counter(look.column.filled)
    numbers = {*map(type, counts)} == {int}
    if column.name == "docstatus" and 1 in counts:  # 0 for a draft, and 2 for what was cancelled
        return look.among([1], "is 1 for what is neither a draft nor cancelled")
    if numbers and look.words[-2:] == ("visibility", "level"):
        most = max(counts)
        return look.condition(f"{look.sql} >= {most}", "is the highest for all", lambda value: (value or 0) >= most)
    if (most := _most_are(look, counts, numbers=numbers)) is not None:
        return look.among([most], f"is {most} in most rows, which are taken for what is out")
    if not numbers or look.words[-1] not in ("status", "state") or not 1 < len(counts) <= MAX_STATES:
        return None
    away = sorted(value for value in counts if value < 0 or (value in PUT_AWAY and value - 1 not in counts))
    if not away or 2 * sum(map(counts.__getitem__, away)) > counts.total():
        return None
    return look.among(away, f"is one of {', '.join(map(str, sorted(counts)))}", hidden=True)


def _most_are(look: _Look, counts: Counter[Any], *, numbers: bool) -> Any:
    """Return the value that most rows have, if the others hide some; None if they do not, or name rows of a table.

    That is a number such as `status` of what has an address, or one that is a sum of bits; the type of what nearly all
    messages are (others are whispers, or say what happened), and the sensitivity of a row.
    """
    state, secret = numbers and look.words[-1] in ("status", "state"), _says_how_secret(look)
    bits = state and _are_bits(counts)
    said = look.words[-1] in ("type", "kind") and numbers and look.table.noun[-1] in vocab.MESSAGES - {"topic"}
    known = secret or (
        look.column.name not in look.table.named_columns and (said or bits or (state and _is_published(look.table)))
    )
    few = 1 < len(counts) <= (len(counts) if bits else MAX_STATES)
    if not known or not few or look.column.kind not in ("number", "text"):
        return None
    ((most, rows),) = counts.most_common(1)
    return most if rows >= (NEARLY_ALL if said else MIN_OUT) * len(look.column.values) else None


def _is_published(table: Subject) -> bool:
    """Return whether rows have an address, such as a slug: they are for people outside."""
    named = [words(name) for name, one in table.columns.items() if one.filled and all(map(_is_slug, one.filled))]
    return any("url" in one for one in named) or any(words(name)[-1] in vocab.SLUGS for name in table.columns)


def _is_slug(value: object) -> bool:
    return SLUG.fullmatch(str(value)) is not None


def _are_bits(counts: Counter[int]) -> bool:
    """Return whether numbers are sums of bits: all have those of the most frequent one, and one has a high one, too."""
    ((most, _),) = counts.most_common(1)
    more = {value - most for value in counts}
    high = any(n >= MIN_BIT and n & (n - 1) == 0 for n in more)
    return most > 0 and high and all(value & most == most for value in counts)


def _says_how_secret(look: _Look) -> bool:
    """Return whether a column says for how many a row is, by a code or by a row of a table of levels."""
    named = [word for word in look.words if word not in ("id", "level", "state")]
    if named[-1:] == ["visibility"] and look.column.kind == "text":
        return False  # `_state` knows more
    return bool(vocab.SENSITIVITY & {*named[-1:]}) and not {*look.column.filled} <= {0, 1}


def _flag(look: _Look) -> Condition | None:
    """Return the condition of a column such as `is_private`, `Sealed` or `comment_approved`, or a boolean `status`."""
    column, values = look.column, {str(value).lower() for value in look.column.filled}
    named = _meant(look)
    if not values or not named:
        return None
    hides, shows = named & vocab.HIDDEN_FLAGS, named & vocab.SHOWN_FLAGS
    if shows and shows <= vocab.IN_PLACE - {look.words[-1]}:
        return None
    own = named <= {"status", "state", *words(look.table.name), *look.table.noun}  # not that of a payment
    most = column.kind == "bool" or column.filled.count(1) >= MIN_OUT * len(column.values)
    if not hides | shows and values <= {"0", "1", "true", "false"} and own and most:
        shows = named & {"status", "state"} & {look.words[-1]}
    small = column.kind != "time" and all(re.fullmatch(r"-?\d", value) for value in values)
    two_sided = values <= vocab.YES | vocab.NO or (bool(hides) and small and "0" in values)
    said = bool(shows and values & vocab.YES) and look.profile.role in ("choice", "code")
    if (
        not hides | shows
        or (named & {"state", "status"} and not two_sided)
        or not (two_sided or (shows and small) or said)
        or (named & vocab.NO_FLAGS and column.kind != "bool")
    ):
        return None
    return _yes_or_no(look, yes=bool(shows))


def _meant(look: _Look) -> set[str]:
    """Return the words of a flag, or the one that says the same of who may see a row; none if it says another thing."""
    column, flags = look.column, vocab.HIDDEN_FLAGS | vocab.SHOWN_FLAGS
    named = {word[2:] if word[:2] == "is" and word[2:] in flags else word for word in look.words}  # `ispublic`
    closed = any({"private", "invite"} & {*words(other)} for other in look.table.columns)
    public_address = named <= {"is", "public", "web"} and closed
    # a task is closed, or waits for another one
    at_work = named <= {"is", "active", "blocked", "status", "state"} and look.table.noun[-1].endswith(vocab.TASKS)
    if named & (vocab.PLACES | {"url", "uri"}) or public_address or at_work:  # in no menu, it may be seen
        return set()
    if found := [word for word, names in vocab.FLAG_NAMES.items() if names.fullmatch(look.called)]:
        return {*found}
    told = (
        look.table.noun[-1] == "history" and named & vocab.NOTIFIED
    )  # a history that notified no one is a note for few
    most = {*column.filled} <= {0, 1} and column.filled.count(1) >= MIN_OUT * len(column.values)
    # if few rows are on sale, these have a lower price
    return {"public"} if told or (most and vocab.SHOWN_IF_MOST.fullmatch(look.called)) else named


def _set(look: _Look) -> Condition | None:
    """Return the condition of a column that is set for what is not for all.

    Such are `deleted_at`, `archived_at` beside `published_at`, and what few rows have: a level of security, the key of
    a draft, or a password that people have to know to read a row.
    """
    named, kind, few = {*look.words}, look.column.kind, 0 < look.profile.filled <= FEW
    archived = look.words[0] in vocab.UNPUBLISHED_TIMES and any(
        other[0] in vocab.PUBLISHED_TIMES and other[1:] == look.words[1:] for other in map(words, look.table.columns)
    )
    is_time = (kind == "time" and look.column.nullable) or (kind != "time" and named & vocab.TIME_ENDS)
    if is_time and (archived or named & vocab.DELETED):
        return look.is_unset(f"is set for {'archived' if archived else 'deleted'} rows")
    level = few and kind == "number" and _says_how_secret(look)
    version = few and vocab.DRAFT_KEYS.fullmatch(look.called)
    if level or version or (kind == "number" and vocab.ALONE.fullmatch(look.called)):
        return look.is_unset("is set for what is not for all")
    is_password = kind == "text" and look.profile.role == "secret" and named & {"password", "passwd", "pass"}
    if is_password and look.profile.filled <= MAX_PASSWORDS:
        return look.is_unset("is set for what is for those who know it")
    return None


def _published(look: _Look) -> Condition | None:
    """Return the condition of a column such as `published_at`, which is empty for drafts."""
    column, named = look.column, {*look.words} & vocab.PUBLISHED_TIMES
    if not named or not column.filled or not (look.is_time or look.profile.role == "time"):
        return None
    if look.is_time and not all(map(look.has_come, column.filled)):
        reason = "is later, or empty, for what is not out"
        return look.condition(look.compared("<="), reason, lambda at: bool(at) and look.has_come(at))
    if column.kind == "number" or not MIN_PUBLISHED <= look.profile.filled < 1:
        return None
    return look.condition(f"{look.sql} IS NOT NULL", "is empty for drafts", lambda at: at is not None)


def _state(look: _Look) -> Condition | None:
    """Return the condition of a column such as `status`, with values such as `publish` and `draft`."""
    values = tuple(dict.fromkeys(map(str, look.column.filled)))
    seen = bool(vocab.SENSITIVITY & {*look.words}) and not vocab.QUALIFIED & {*look.words}
    shares = "private" in values and vocab.SHARED & {*values}
    named = {*look.words} & (vocab.STATES | vocab.SHOWN_FLAGS) or shares or (seen and "can" in look.words)
    if not named or look.column.kind != "text" or not 0 < len(values) <= MAX_CHOICES:
        return None
    shown = [one for one in values if one.lower() in vocab.PUBLISHED_VALUES or (seen and one.lower() == "inherit")]
    office = vocab.INTERNAL if seen else frozenset()
    hidden = [one for one in values if one not in shown and (_says_hidden(one) or office & {*words(one)[-1:]})]
    let = [one for one in values if one.lower() in vocab.MODERATED_VALUES]
    if not shown and (hidden or {one.lower() for one in values} <= vocab.MODERATION) and let:
        hidden += [one for one in values if one.lower() in vocab.MODERATION and one not in [*let, *hidden]]
        shown = let if len(let) + len(hidden) == len(values) else []
    reason = f"is one of {', '.join(values)}"
    return look.among(shown or hidden, reason, hidden=not shown) if shown or hidden else None


def _says_hidden(value: str) -> bool:
    """Return whether a value is that of what is not for everybody: as a whole, or by its last word, as `Q_HIDDEN`."""
    return value.lower() in vocab.HIDDEN_VALUES or bool(vocab.HIDDEN_VALUES - {"hold"} & {*words(value)[-1:]})


def _audience(look: _Look) -> Condition | None:
    """Return the condition of a column such as `fe_group`, with the numbers of groups that few rows are for.

    Nothing and 0 are all people, and so are lists with -1, for guests, if most rows have such.
    """
    column, values = look.column, [str(value or 0) for value in look.column.values]
    guests = {value for value in values if value.startswith("-1,")}
    most = [some for some in (guests, {"0"}) if sum(value in some for value in values) > MOST * len(values)]
    numbers = all(re.fullmatch(r"-?\d+(?:,-?\d+)*", value) for value in values)
    if not vocab.AUDIENCE.fullmatch(look.called) or not column.filled or not most or not numbers:
        return None
    texts = f"COALESCE({look.sql}, '0') IN ({listed(sorted(guests) if most[0] is guests else ['', '0'])})"
    sql = look.unset if column.kind == "number" else texts
    return look.condition(sql, "names who may see a row", lambda value: str(value or 0) in most[0])


def _type(look: _Look) -> Condition | None:
    """Return the condition of a column such as `post_type`, if some types are nothing that people read."""
    last = look.words[-1]
    if look.profile.role not in ("choice", "code") or last not in ("type", "archetype", "kind", "class", "code"):
        return None
    choices = look.profile.choices or tuple(dict.fromkeys(map(str, look.column.filled)))
    pairs = {**vocab.NOTES_BESIDE, "m": "n"} if look.table.noun[-1] == "entry" else vocab.NOTES_BESIDE
    notes = {note for answer, note in pairs.items() if answer in map(str.lower, choices)}
    few = [value for value in choices if _is_type(value, vocab.INTERNAL) or value.lower() in notes]
    few += [one for one in choices if one.rpartition("_")[0] in choices and _says_hidden(one)]  # `Q_HIDDEN`, beside `Q`
    content = notes or vocab.CONTENT & {look.table.noun[-1], *words(look.column.name)}
    if not content or (last == "code" and not few):
        return None
    good = ["O"] if {*vocab.MESSENGER} <= {*choices} else [value for value in choices if value not in few]
    if not (look.table.is_label or look.table.rows <= MAX_UNTYPED):
        good = [value for value in good if not _is_type(value, vocab.BAD_TYPES)] or good
    if not good or len(good) == len(choices) or len(choices) > MAX_TYPES:
        return None
    return look.among(good, f"is also {', '.join(value for value in choices if value not in good)}")


def _is_type(value: str, known: frozenset[str]) -> bool:
    """Return whether a type is called by these words, and by others only that say nothing: `nav_menu_item`."""
    named = {singular(word) for word in words(value)}
    return bool(named & known) and named <= vocab.BAD_TYPES | vocab.TYPE_FILLERS


RULES = (_span, _state, _code, _flag, _set, _published, _audience, _type)
"""What may be known of a column, the surest first."""
