"""Which rows of a table nobody may be shown: deleted and hidden ones, drafts, revisions, what waits for a moderator."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rag_index.schema import vocabulary as vocab
from rag_index.schema.columns import FEW, NEARLY_ALL, ColumnProfile, singular, words
from rag_index.schema.subjects import Condition, Subject

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence

    from rag_index.schema.catalog import Column


MIN_OUT = 0.66
"""If at least this share of rows is inactive, the remaining numeric states are taken for drafts."""
MIN_PUBLISHED = 0.1
"""If fewer rows have a time of publication, it is not used, and hides none."""
NEVER = "2090"
"""Times in this year or later mean 'never'."""
MIN_SECONDS = 500_000_000
"""Smaller numbers are not taken for seconds since 1970: this is 1985."""
MAX_STATES = 12
MIN_BIT = 64
"""No state has this number and more, but for those that are sums of bits."""
MAX_CODES = 8
MAX_TYPES = 20
MAX_UNTYPED = 12
"""Types leave out nothing of a table with at most this many rows, but for what few people may see."""
PUT_AWAY = (9, 99)
"""The states, by number, of what was put away, if they come after a gap: 9 after 5, and not after 8."""
CORRESPONDENCE, INTERNAL_NOTE = ("M", "R"), "N"
"""The types of entries of a ticket: messages and responses, and notes among those who answer."""


@dataclass(frozen=True)
class _Look:
    """A column that may say which rows are shown."""

    table: Subject
    column: Column
    profile: ColumnProfile
    seconds_now: str

    @cached_property
    def words(self) -> tuple[str, ...]:
        return words(self.column.name)

    @property
    def sql(self) -> str:
        return self.column.sql

    @property
    def called(self) -> str:
        return "_".join(self.words)

    def condition(self, sql: str, reason: str, shows: Callable[[Any], object]) -> Condition:
        return Condition(self.column.name, sql, f"{self.column.name} {reason}", shows)


def find_conditions(table: Subject, nouns: Container[str], *, seconds_now: str) -> list[Condition]:
    """Return the conditions for the rows that may be shown, as their own columns say.

    `nouns` are the last words of all tables: `comments_enabled` and `comments_hidden` say nothing of the row.
    """
    found: list[Condition] = []
    types = {relation.type_column for relation in table.relations}
    called = {"enabled", "is", *map(singular, words(table.name))}
    for column in table.columns.values():
        look = _Look(table, column, table.profiles[column.name], seconds_now)
        switches = "enabled" in look.words and not {*look.words} <= called  # with `comments_enabled`, posts are shown
        if column.name in types or switches or any(word != singular(word) in nouns for word in look.words):
            continue
        is_name = column.name in table.named_columns and not _says_how_secret(look)
        rules = [rule for rule in RULES if rule is not _out or not is_name]
        found += filter(None, [next(filter(None, (rule(look) for rule in rules)), None)])
    return found


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


def _literals(column: Column, wanted: frozenset[str]) -> list[str]:
    """Return the ways in which a column writes yes or no, the most frequent first."""
    if column.kind == "bool":
        return ["true" if wanted is vocab.YES else "false"]
    number = "1" if wanted is vocab.YES else "0"
    if column.kind == "number":
        return [number]
    found = Counter(value for value in column.filled if str(value).lower() in wanted)
    others = [vocab.OPPOSITES.get(str(column.filled[0]).lower(), number)]
    return [str(one) if isinstance(one, int) else f"'{one}'" for one, _ in found.most_common()] or [f"'{others[0]}'"]


def _span(look: _Look) -> Condition | None:
    """Return the condition of columns such as `valid_to`, `publish_up` and, in seconds since 1970, `endtime`."""
    column, called, others = look.column, look.called, ["_".join(words(name)) for name in look.table.columns]
    ends, starts = bool(vocab.UNTIL.fullmatch(called)), bool(vocab.STARTS.fullmatch(called))
    weak_end, weak_start = vocab.STOPS.fullmatch(called), vocab.BEGINS.fullmatch(called)
    if weak_end or weak_start:
        begins = [
            one for one, name in zip(look.table.columns.values(), others, strict=True) if vocab.BEGINS.fullmatch(name)
        ]
        told = column.kind == "number" or bool(column.filled)  # an empty `end` may be one of anything
        if told and all(2 * sum(map(bool, one.values)) <= len(one.values) for one in begins):
            ends = ends or bool(weak_end)
            starts = starts or (
                bool(weak_start) and (column.kind == "number" or any(map(vocab.STOPS.fullmatch, others)))
            )
    if column.kind not in ("number", "time") or not (ends or starts):
        return None
    times, then = [value for value in column.filled if value != 0], f"{look.sql} {'>' if ends else '<='}"
    if column.kind == "number":
        wrong = 2 * len(times) > len(column.values) or any(value < MIN_SECONDS for value in times)
        sql = f"(COALESCE({look.sql}, 0) = 0 OR {then} {look.seconds_now})"
    else:
        wrong = len(times) == len(column.values) and not any(str(at) >= NEVER for at in times)
        sql = f"({look.sql} IS NULL OR {then} CURRENT_TIMESTAMP)"
    reason = f"says {'until' if ends else 'from'} when a row holds"
    return None if wrong else look.condition(sql, reason, lambda at: True)


def _out(look: _Look) -> Condition | None:
    """Return the condition of a code of which one value is that of most rows, and the others hide some.

    That is a number such as `status` of what has an address or answers questions, or one that is a sum of bits; the
    type of what nearly all messages are (others are whispers, or say what happened), and the sensitivity of a row.
    """
    ends = {words(other)[-1] for other in look.table.columns}
    counts = Counter(look.column.filled)
    state = look.words[-1] in ("status", "state") and {*map(type, counts)} == {int}
    bits = state and _are_bits(counts)
    state = bits or (state and bool(ends & vocab.SLUGS or {"question", "answer"} <= ends))
    said = look.words[-1] in ("type", "kind") and {*map(type, counts)} == {int} and look.table.noun[-1] in vocab.SAID
    if (
        not (state or said or _says_how_secret(look) or look.words == ("view", "state"))
        or not 1 < len(counts) <= (len(counts) if bits else MAX_STATES)
        or look.column.kind not in ("number", "text")
    ):
        return None
    ((most, rows),) = counts.most_common(1)
    if rows < (NEARLY_ALL if said else MIN_OUT) * len(look.column.values):
        return None
    sql = f"{look.sql} = {most if look.column.kind == 'number' else listed([str(most)])}"
    return look.condition(sql, f"is {most} in most rows, which are taken for what is out", lambda value: value == most)


def _are_bits(counts: Counter[int]) -> bool:
    """Return whether numbers are sums of bits: all have those of the most frequent one, and one has a high one, too."""
    ((most, _),) = counts.most_common(1)
    more = {value - most for value in counts}
    return all(value & most == most for value in counts) and any(n >= MIN_BIT and n & (n - 1) == 0 for n in more)


def _says_how_secret(look: _Look) -> bool:
    """Return whether a column says for how many a row is, by a code or by a row of a table of levels."""
    named = [word for word in look.words if word not in ("id", "level")] or [""]
    if named[-1] == "visibility" and (look.column.kind != "number" or look.words[-1] == "level"):
        return False  # `_state` and `_level` know more
    return named[-1] in vocab.SENSITIVITY and not {*look.column.filled} <= {0, 1}


def _flag(look: _Look) -> Condition | None:
    """Return the condition of a column such as `is_private`, `Sealed` or `comment_approved`, or a boolean `status`."""
    column, flags = look.column, vocab.HIDDEN_FLAGS | vocab.SHOWN_FLAGS
    named = {word[2:] if word[:2] == "is" and word[2:] in flags else word for word in look.words}  # `ispublic`
    values = {str(value).lower() for value in column.filled}
    if not values or named & (vocab.PLACES | {"url", "uri"}):  # in no menu, or with another address, it may be seen
        return None
    if named <= {"is", "public"} and any("private" in words(other) for other in look.table.columns):
        return None  # has a public address
    if named <= {"is", "active", "status", "state"} and look.table.noun[-1] in vocab.TASKS:  # it is closed
        return None
    if named == {"activity"} and values <= {"0", "1"}:
        named = {"active"}
    if (named & {"login", "members", "registered", "subscribers"} and named & {"required", "only"}) or "acl" in named:
        named = {"private"}
    if look.table.noun[-1] == "history" and named & vocab.NOTIFIED:  # what nobody was told is a note for few
        named = {"public"}
    if named & {"display", "show", "shown"} and named & {"customer", "client", "public", "guest", "everyone"}:
        named = {"public"}
    if look.words in vocab.FOR_SALE and column.filled.count(1) >= MIN_OUT * len(column.values):  # not: at a lower price
        named = {"public"}
    hides, shows = named & vocab.HIDDEN_FLAGS, named & vocab.SHOWN_FLAGS
    if shows == {*look.words[:1]} & vocab.IN_PLACE and look.words[-1] in vocab.QUALIFIED:
        return None
    own = named <= {"status", "state", *words(look.table.name), *look.table.noun}  # not that of a payment
    most = own and column.kind == "number" and column.filled.count(1) >= MIN_OUT * len(column.values)
    if not hides | shows and values <= {"0", "1", "true", "false"} and (most or column.kind == "bool"):
        shows = named & {"status", "state"} & {look.words[-1]}
    small = values <= {str(number) for number in range(-1, 10)} and column.kind != "time"
    two_sided = values <= vocab.YES | vocab.NO or (bool(hides) and small and "0" in values)
    if (
        not hides | shows
        or (named & {"state", "status"} and not two_sided)
        or not (two_sided or (shows and small) or (shows and "1" in values and look.profile.role == "choice"))
        or (named & vocab.NO_FLAGS and column.kind != "bool")
    ):
        return None
    wanted = _literals(column, vocab.YES if shows else vocab.NO)
    accepted = {text for one in wanted for text in (one.strip("'").lower(), {"true": "1", "false": "0"}.get(one, one))}
    value = look.sql if not column.nullable or shows else f"COALESCE({look.sql}, {wanted[0]})"
    return look.condition(
        f"{value} = {wanted[0]}" if len(wanted) == 1 else f"{value} IN ({', '.join(wanted)})",
        "says who may see a row",
        lambda value: str(value).lower() in accepted or (value is None and not shows),
    )


def _by_name(look: _Look) -> Condition | None:
    """Return the condition of a column whose name alone tells what its values mean."""
    column, sql = look.column, look.sql
    if column.name == "docstatus" and 1 in column.filled:  # 0 for a draft, and 2 for what was cancelled
        return look.condition(f"{sql} = 1", "is 1 for what is neither a draft nor cancelled", lambda value: value == 1)
    if look.words[-2:] == ("visibility", "level") and column.kind == "number":
        least = min(column.filled, default=0)
        return look.condition(f"{sql} > {least}", "is the least for the fewest", lambda value: (value or 0) > least)
    if vocab.ALONE.fullmatch(look.called) and column.kind == "number":
        return look.condition(f"{sql} = 0", "is set for what is not for all", lambda value: not value)
    return None


def _deleted(look: _Look) -> Condition | None:
    """Return the condition of a column such as `deleted_at`, or `archived_at` beside `published_at`."""
    named, kind, others = {*look.words}, look.column.kind, map(words, look.table.columns)
    archived = look.words[0] in vocab.UNPUBLISHED_TIMES and any(
        other[0] in vocab.PUBLISHED_TIMES and other[1:] == look.words[1:] for other in others
    )
    if not (archived or named & vocab.DELETED) or not (
        kind == "time" or named & {"at", "on", "time", "date", "timestamp"}
    ):
        return None
    if not look.column.nullable and kind == "time":
        return None
    reason = f"is set for {'archived' if archived else 'deleted'} rows"
    if kind == "number":
        return look.condition(f"COALESCE({look.sql}, 0) = 0", reason, lambda value: not value)
    return look.condition(f"{look.sql} IS NULL", reason, lambda value: value is None)


def _published(look: _Look) -> Condition | None:
    """Return the condition of a column such as `published_at`, which is empty for drafts."""
    column, available = look.column, look.called in vocab.AVAILABLE
    if not (available or {*look.words} & vocab.PUBLISHED_TIMES) or look.profile.role != "time" or not column.filled:
        return None
    now = datetime.now(UTC).isoformat(" ")
    if column.kind == "time" and any(str(at) > now for at in column.filled):
        sql = f"{look.sql} <= CURRENT_TIMESTAMP"
        sql = f"({look.sql} IS NULL OR {sql})" if available else sql
        reason = f"is later{'' if available else ', or empty,'} for what is not out"
        return look.condition(sql, reason, lambda at: str(at) <= now if at else available)
    if available or not MIN_PUBLISHED <= look.profile.filled < 1:
        return None
    return look.condition(f"{look.sql} IS NOT NULL", "is empty for drafts", lambda at: at is not None)


def _state(look: _Look) -> Condition | None:
    """Return the condition of a column such as `status`, with values such as `publish` and `draft`."""
    values = look.profile.choices
    shares = "private" in values and vocab.SHARED & {*values}
    if not ({*look.words} & (vocab.STATES | vocab.SHOWN_FLAGS) or shares) or look.profile.role != "choice":
        return None
    few = vocab.OFFICES if vocab.SEEN_BY & {*look.words} else frozenset(["private"])
    hidden = [value for value in values if value.lower() in vocab.HIDDEN_VALUES or few & {*words(value)[-1:]}]
    shown = [value for value in values if value.lower() in vocab.PUBLISHED_VALUES]
    if not shown and (hidden or {value.lower() for value in values} <= vocab.MODERATION):
        shown = [value for value in values if value.lower() in vocab.MODERATED_VALUES]
    reason = f"is one of {', '.join(values)}"
    if shown:
        return look.condition(f"{look.sql} IN ({listed(shown)})", reason, lambda value: value in shown)
    if not hidden:
        return None
    sql = f"{look.sql} NOT IN ({listed(hidden)})"
    sql = f"({look.sql} IS NULL OR {sql})" if look.profile.filled < 1 else sql
    return look.condition(sql, reason, lambda value: value not in hidden)


def _number(look: _Look) -> Condition | None:
    """Return the condition of a state by number, of which 9 after a gap, and what is negative, were put away."""
    values = {value for value in look.column.filled if isinstance(value, int)}
    is_state = look.column.kind == "number" and look.words[-1] in ("status", "state")
    if not is_state or not 1 < len(values) <= MAX_STATES:
        return None
    away = sorted(value for value in values if value < 0 or (value in PUT_AWAY and value - 1 not in values))
    shown = sum(value not in away for value in look.column.filled)
    if not away or 2 * shown < len(look.column.filled):
        return None
    sql = f"({look.sql} IS NULL OR {look.sql} NOT IN ({', '.join(map(str, away))}))"
    return look.condition(sql, f"is one of {', '.join(map(str, sorted(values)))}", lambda value: value not in away)


def _audience(look: _Look) -> Condition | None:
    """Return the condition of a column such as `fe_group`, with the numbers of groups that few rows are for."""
    column, grouped = look.column, [value for value in look.column.filled if str(value) != "0"]
    if look.called not in vocab.AUDIENCE or not column.filled or len(grouped) > FEW * len(column.values):
        return None
    if not all(re.fullmatch(r"-?\d+(?:,-?\d+)*", str(value)) for value in grouped):
        return None
    sql = f"COALESCE({look.sql}, 0) = 0" if column.kind == "number" else f"COALESCE({look.sql}, '0') IN ('', '0')"
    return look.condition(sql, "names who may see a row", lambda value: value not in grouped)


def _password(look: _Look) -> Condition | None:
    """Return the condition of a password that only few rows have: people have to know it to read these."""
    is_password = look.profile.role == "secret" and {*look.words} & {"password", "passwd", "pass"}
    if not is_password or look.profile.filled > 0.2 or look.column.kind != "text":
        return None
    name = look.column.name
    sql, reason = f"COALESCE({look.sql}, '') = ''", f"rows with a {name} are for those who know it"
    return Condition(name, sql, reason, lambda value: not value)


def _type(look: _Look) -> Condition | None:
    """Return the condition of a column such as `post_type`, if some types are nothing that people read."""
    last = look.words[-1]
    if look.profile.role not in ("choice", "code") or last not in ("type", "archetype", "kind", "class", "code"):
        return None
    choices = look.profile.choices or tuple(dict.fromkeys(map(str, look.column.filled)))
    few = [value for value in choices if _is_type(value, vocab.TYPES_FOR_FEW)]
    if not vocab.CONTENT & {look.table.noun[-1], *look.words} or (last == "code" and not few):
        return None
    some = look.table.is_label or look.table.rows <= MAX_UNTYPED
    good = [value for value in choices if not _is_type(value, vocab.TYPES_FOR_FEW if some else vocab.BAD_TYPES)]
    if {*vocab.MESSENGER} <= {*choices}:
        good = ["O"]
    if {*CORRESPONDENCE, INTERNAL_NOTE} == {*choices} and look.table.noun[-1] == "entry":
        good = [*CORRESPONDENCE]
    good = good or [value for value in choices if value not in few]
    if not good or len(good) == len(choices) or len(choices) > MAX_TYPES:
        return None
    reason = f"is also {', '.join(value for value in choices if value not in good)}"
    return look.condition(f"{look.sql} IN ({listed(good)})", reason, lambda value: value in good)


def _is_type(value: str, known: frozenset[str]) -> bool:
    """Return whether a type is called by these words, and by others only that say nothing: `nav_menu_item`."""
    named = {singular(word) for word in words(value)}
    return bool(named & known) and named <= vocab.BAD_TYPES | vocab.TYPE_FILLERS


RULES = (
    _span, _out, _flag, _by_name, _deleted, _published, _state,
    _number, _audience, _password, _type,
)  # fmt: skip
"""What may be known of a column, the surest first."""
