"""Which rows of a table nobody may be shown: deleted and hidden ones, drafts, revisions, what waits for a moderator."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rag_index.sources.columns import singular, words
from rag_index.sources.vocabulary import known_words

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from rag_index.sources.catalog import Column, DatabaseCatalog, DatabaseTable
    from rag_index.sources.columns import ColumnProfile
    from rag_index.sources.relations import Relation

HIDDEN_FLAGS = known_words("visibility", "hidden_flags")
SHOWN_FLAGS = known_words("visibility", "shown_flags")
DELETED = known_words("visibility", "deleted")
PUBLISHED_TIMES = known_words("visibility", "published_times")
SUFFIX = r"(?:_(?:at|on|date|time|utc|gmt))*"
ENDS = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show)_?(?:to|until|till|through|ends?|down)"
    + SUFFIX
    + r"|(?:expire[sd]?|expiry|superseded)_?(?:at|on|date|time)?"
)
STARTS = re.compile(
    r"(?:valid|effective|active|visible|available|publish(?:ed)?|show)_?(?:from|since|starts?|up)"
    + SUFFIX
    + r"|(?:embargo(?:ed)?|hidden)_?(?:until|till|to|ends?)"
)
BEGINS = re.compile(r"(?:time_?)?(?:starts?|begins?)_?(?:at|on|date|time)?")
STOPS = re.compile(r"(?:time_?)?ends?_?(?:at|on|date|time)?")
"""Names of times that say when a row is shown, unless most rows have a time to begin, as appointments do."""
AVAILABLE = ("date_available", "available_date", "available_on", "available_at", "available_from")
"""Names of times before which a row, such as a product, is not shown."""
ALONE = re.compile(r"\w*(?:wsid|workspace)|private\w*to|visible_?to")
"""Names of numbers that are 0 for what all may see: else they name a workspace of drafts, or the only reader."""
PLACES = frozenset(["nav", "menu", "dashboard", "toc", "sitemap", "home", "homepage"])
"""Words of flags that say where else a row is shown."""
TASKS = frozenset(
    ["task", "ticket", "issue", "case", "story", "bug", "request", "todo", "incident", "opportunity", "lead", "deal"]
)
"""What people work off: if it is not active, it is done."""
SLUGS = frozenset(["slug", "alias", "permalink"])
"""Words of columns with the name of a row in an address: it is published."""
NOTIFIED = frozenset(["notify", "notified"])
"""Words of columns that say of an entry of a history whether people were told."""
SENSITIVITY = ("sensitivity", "confidentiality", "access", "viewlevel")
"""Last words of columns that say of a row that it is for few, if it differs from most."""
SEEN_BY = frozenset(["visibility", "access", "audience", "privacy"])
OFFICES = frozenset(
    ["admin", "administrator", "manager", "moderator", "staff", "internal", "private", "owner", "agents"]
)
"""Words of columns that say who sees a row, and of their values for few."""
MIN_OUT = 0.66
"""The share of rows that are out from which on the states of the others, by number, are those of drafts."""
NEVER = "2090"
"""The year from which on a time stands for none."""
MIN_SECONDS = 500_000_000
"""The least number of seconds since 1970 that is taken for a time: 1985."""
MAX_GROUPED = 0.2
"""The share of rows up to which those that name a group are for that group alone."""
MAX_STATES = 12
MAX_CODES = 8
MAX_TYPES = 20
CODED = ("type", "kind", "class", "status", "state")
"""The last words of the names of codes that may say who may see a row, which only the application knows."""
STATUS = "status"
MIN_FLAGGED = 3
"""The number of tables with a `status` of 0 or 1 that make it a flag."""
PREFERRED = frozenset(["preferred", "default", "main", "primary"])
"""Words of columns that say which of several names is shown."""
UNPUBLISHED_TIMES = ("archived", "unpublished", "retired", "depublished")
PUT_AWAY = (9, 99)
"""The states, by number, of what was put away, if they come after a gap: 9 after 5, and not after 8."""
NO_FLAGS = known_words("visibility", "no_flags")
AUDIENCE = known_words("visibility", "audience")
STATES = known_words("visibility", "states")
STATES_FOR_FEW = known_words("visibility", "states_for_few")
PUBLISHED_VALUES = known_words("visibility", "published_values")
MODERATED_VALUES = known_words("visibility", "moderated_values")
MODERATION = known_words("visibility", "moderation")
HIDDEN_VALUES = known_words("visibility", "hidden_values")
BAD_TYPES = re.compile(
    r".*(?:revision|autosave|draft|nav_?menu|menu_?item|attachment|template|^log$|system|changeset|oembed|custom_css|redirect|"
    r"trackback|pingback|old_?version|archive[d]?_?version|internal|private|whisper|bot|direct_?message).*",
    re.IGNORECASE,
)
FOR_FEW = re.compile(r".*(?:internal|private|whisper|direct_?message).*", re.IGNORECASE)
"""Types of what a few people may see."""
MESSENGER = ("O", "P", "D")
"""The types of channels that all people, only some, or two can read: open, private, direct."""
INTERNAL_NAMES = re.compile(
    r".*\b(?:moderators?|moderation|staff (?:only|room|area)|internal|intern|private|confidential|admins? only|"
    r"administrators?|trash ?can|trash|recycle bin|papierkorb|hidden)\b.*",
    re.IGNORECASE,
)
"""Names of forums, spaces and projects that are not for everybody."""
OPPOSITES = {"y": "N", "n": "Y", "yes": "no", "no": "yes", "t": "f", "f": "t", "true": "false", "false": "true"}
YES = known_words("visibility", "yes")
NO = known_words("visibility", "no")


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for rows that may be shown, in SQL, and why."""

    column: str
    sql: str
    reason: str
    shows: Callable[[Any], object]
    """Whether a row with this value of the column may be shown."""


def find_conditions(
    table: DatabaseTable,
    profiles: Mapping[str, ColumnProfile],
    catalog: DatabaseCatalog,
    types: Iterable[str] = (),
    *,
    named: Container[str] = (),
    status_is_flag: bool = False,
) -> list[Condition]:
    """Return the conditions for the rows that may be shown.

    `types` are columns that say of which table a row is that another column names: they say nothing of this row.
    `named` are columns that name rows of other tables.
    """
    found: list[Condition] = []
    others = {singular(words(one.name)[-1]) for one in catalog.tables if one is not table}
    for column in table.columns.values():
        if _switches(table, column) or any(word != singular(word) in others for word in words(column.name)):
            continue  # `comments_enabled` and `comments_hidden` say nothing of the row
        profile, name = profiles[column.name], catalog.quoted(column.name)
        made = None if column.name in types else _span(table, column, name, catalog.seconds_now)
        made = made or (_status_flag(column, name) if status_is_flag else None) or _archived(table, column, name)
        made = made or (None if column.name in named else _out(table, column, name)) or _told(table, column, name)
        if column.name not in types:
            looks = (look(column, profile, name) for look in LOOKS)
            made = made or _flag(table, column, profile, name) or next(filter(None, looks), None)
        if column.name not in types and (made := made or _type(table, profile, name)) is not None:
            found.append(made)
    return found


def _switches(table: DatabaseTable, column: Column) -> bool:
    """Return whether a flag says what can be done with a row: with `comments_enabled`, posts are shown or not."""
    named = {*words(column.name)}
    return "enabled" in named and not named <= {"enabled", "is", *map(singular, words(table.name))}


def has_status_flags(tables: Iterable[DatabaseTable], accounts: Container[str]) -> bool:
    """Return whether `status` is 0 or 1 in all tables that have it, and 1 in most rows with `accounts` of people.

    Such an application writes 1 for what is active, everywhere. In a single table, 1 may as well stand for done.
    """
    having = [table for table in tables if _has_status(table)]
    flags = [table for table in having if {*table.columns[STATUS].filled} <= {0, 1}]
    people = [table.columns[STATUS].filled for table in flags if table.full_name in accounts]
    return len(flags) == len(having) >= MIN_FLAGGED and any(2 * sum(values) > len(values) for values in people)


def _has_status(table: DatabaseTable) -> bool:
    return STATUS in table.columns and table.columns[STATUS].kind == "number" and bool(table.columns[STATUS].filled)


def _status_flag(column: Column, name: str) -> Condition | None:
    """Return the condition of a `status` that is 1 for what is active, in the tables where most rows are."""
    if column.name != STATUS or column.kind != "number" or 2 * sum(column.filled) < len(column.values):
        return None
    reason = "status is 0 or 1 in all tables, and 1 for active accounts"
    return Condition(column.name, f"{name} = 1", reason, lambda value: value == 1)


def _archived(table: DatabaseTable, column: Column, name: str) -> Condition | None:
    """Return the condition of a time such as `archived_at` beside `published_at`: what was archived is not out."""
    named, others = words(column.name), (words(other) for other in table.columns)
    out = any(other[0] in PUBLISHED_TIMES and other[1:] == named[1:] for other in others)
    if named[0] not in UNPUBLISHED_TIMES or not out or column.kind != "time" or not column.nullable:
        return None
    reason = f"{column.name} is set for what is out no more"
    return Condition(column.name, f"{name} IS NULL", reason, lambda at: at is None)


def _told(table: DatabaseTable, column: Column, name: str) -> Condition | None:
    """Return the condition of a flag such as `notify` of a history: what nobody was told is a note for few."""
    history = singular(words(table.name)[-1]) == "history"
    if not history or not {*words(column.name)} & NOTIFIED or not {0, 1} >= {*column.filled} > set():
        return None
    flag = "true" if column.kind == "bool" else "1"
    return Condition(column.name, f"{name} = {flag}", f"{column.name} is set for what people were told", bool)


def _out(table: DatabaseTable, column: Column, name: str) -> Condition | None:
    """Return the condition of a code of which one value is that of most rows, and the others hide some.

    That is a number such as `status` of what has an address or answers questions, and the sensitivity of a row.
    """
    ends = {words(other)[-1] for other in table.columns}
    counts, last = Counter(column.filled), words(column.name)[-1]
    state = last in ("status", "state") and {*map(type, counts)} == {int}
    state = state and bool(ends & SLUGS or {"question", "answer"} <= ends)
    if (
        not (state or last in SENSITIVITY or words(column.name) == ("view", "state"))
        or not 1 < len(counts) <= MAX_STATES
        or column.kind not in ("number", "text")
    ):
        return None
    ((most, rows),) = counts.most_common(1)
    if rows < MIN_OUT * len(column.values):
        return None
    reason = f"{column.name} is {most} in most rows, which are taken for what is out"
    sql = f"{name} = {most if column.kind == 'number' else _listed([str(most)])}"
    return Condition(column.name, sql, reason, lambda value: value == most)


def unclear_codes(table: DatabaseTable, known: Container[str]) -> list[str]:
    """Return a sentence for each code that may hide rows, such as `post_type`: no name tells what 4 or N is.

    `known` are the columns whose meaning is known: those of conditions, and those that name rows of other tables.
    """
    found = []
    for column in table.columns.values():
        counts = Counter(value for value in column.filled if type(value) is int or len(str(value)) == 1)
        coded = column.kind == "number" or counts.total() == len(column.filled)
        named = coded and column.name not in known and {*CODED} & {*words(column.name)[-1:]}
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


def internal_rows(table: DatabaseTable, title: str, quoted: Callable[[str], str]) -> Condition | None:
    """Return the condition that leaves out containers, such as forums, whose names say that they are not for all."""
    if len(table.key) != 1:
        return None
    key = table.key[0]
    rows = zip(table.columns[key].values, table.columns[title].values, strict=True)
    hidden = {key: str(name) for key, name in rows if isinstance(name, str) and INTERNAL_NAMES.fullmatch(name)}
    if not hidden or len(hidden) == len(table.columns[title].values):
        return None
    texts = any(isinstance(key, str) for key in hidden)
    keys = _listed(map(str, hidden)) if texts else ", ".join(map(str, hidden))
    reason = f"named {', '.join(hidden.values())}"
    return Condition(key, f"{quoted(key)} NOT IN ({keys})", reason, lambda value: value not in hidden)


def hidden_states(relation: Relation, catalog: DatabaseCatalog) -> Condition | None:
    """Return the condition that leaves out rows whose state is called `Deleted` or `Pending` in another table."""
    ((column, key),) = relation.pairs
    parent = relation.parent
    texts = [one for one in parent.columns.values() if one.kind == "text"]
    called = {
        own: {str(value).lower() for value in values if value}
        for own, *values in zip(parent.columns[key].values, *[one.values for one in texts], strict=True)
    }
    moderated = any(names & {*PUBLISHED_VALUES, "approved"} for names in called.values())
    few = {*STATES_FOR_FEW, *(MODERATION - {"approved", "accepted"} if moderated else ())}
    hidden = sorted(own for own, names in called.items() if names & few)
    if not hidden or len(hidden) == len(called) or parent.columns[key].kind != "number":
        return None
    name = catalog.quoted(column)
    said = ", ".join(sorted({word for own in hidden for word in called[own] & few}))
    sql = f"({name} IS NULL OR {name} NOT IN ({', '.join(map(str, hidden))}))"
    return Condition(column, sql, f"{column} names what is {said}", lambda value: value not in hidden)


def below_hidden(relation: Relation, conditions: Sequence[Condition], catalog: DatabaseCatalog) -> Condition:
    """Return the condition that leaves out rows of a tree, such as pages, of which one above is hidden."""
    ((column, key),) = relation.pairs
    above, own = catalog.quoted(column), catalog.quoted(key)
    table = _placed(relation.parent, catalog)
    hidden = f"SELECT {own} FROM {table} WHERE ({joined(conditions)}) IS NOT TRUE"
    below = f"SELECT one.{own} FROM {table} AS one JOIN hidden_rows ON one.{above} = hidden_rows.id"
    sql = f"{own} NOT IN (WITH RECURSIVE hidden_rows (id) AS ({hidden} UNION {below}) SELECT id FROM hidden_rows)"
    return Condition(key, sql, f"a row is hidden with the one that {column} names", lambda value: True)


def hidden_by(relation: Relation, conditions: Sequence[Condition], catalog: DatabaseCatalog) -> Condition:
    """Return the condition that leaves out rows which a row of another table says to be hidden, one for each."""
    ((column, key),) = relation.pairs
    child, named = relation.child, catalog.quoted(column)
    table = _placed(child, catalog)
    typed = f"{catalog.quoted(relation.type_column)} = {relation.type_literal} AND " if relation.type_column else ""
    hidden = f"SELECT {named} FROM {table} WHERE {typed}{named} IS NOT NULL AND ({joined(conditions)}) IS NOT TRUE"
    said = "; ".join(one.reason for one in conditions)
    return Condition(
        key, f"{catalog.quoted(key)} NOT IN ({hidden})", f"in {child.full_name}, {said}", lambda value: True
    )


def hidden_with(relation: Relation, conditions: Sequence[Condition], catalog: DatabaseCatalog) -> Condition:
    """Return the condition that leaves out rows of a hidden row of the table that their type names."""
    ((column, key),) = relation.pairs
    quoted, kind = catalog.quoted, f"{catalog.quoted(relation.type_column)} = {relation.type_literal}"
    hidden = f"SELECT {quoted(key)} FROM {_placed(relation.parent, catalog)} WHERE ({joined(conditions)}) IS NOT TRUE"
    sql = f"({kind} AND {quoted(column)} IN ({hidden})) IS NOT TRUE"
    return Condition(column, sql, f"a row is hidden with that of {relation.parent.full_name}", lambda value: True)


def hidden_by_label(
    own: Relation, other: Relation, conditions: Sequence[Condition], catalog: DatabaseCatalog
) -> Condition:
    """Return the condition that leaves out rows that are linked with a row for few, such as a restricted tag."""
    ((column, key),), ((named, label),) = own.pairs, other.pairs
    quoted, link, labels = catalog.quoted, _placed(own.child, catalog), _placed(other.parent, catalog)
    few = f"SELECT {quoted(label)} FROM {labels} WHERE ({joined(conditions)}) IS NOT TRUE"
    hidden = f"SELECT {quoted(column)} FROM {link} WHERE {quoted(column)} IS NOT NULL AND {quoted(named)} IN ({few})"
    said = "; ".join(one.reason for one in conditions)
    reason = f"in {other.parent.full_name}, which {own.child.full_name} links, {said}"
    return Condition(key, f"{quoted(key)} NOT IN ({hidden})", reason, lambda value: True)


def _placed(table: DatabaseTable, catalog: DatabaseCatalog) -> str:
    """Return a table as it stands in SQL."""
    return ".".join(map(catalog.quoted, filter(None, [table.schema, table.name])))


def restricted_by(relation: Relation, path: str, catalog: DatabaseCatalog) -> Condition:
    """Return the condition that leaves out rows that another table restricts, and those below them by their `path`."""
    ((column, key),) = relation.pairs
    quoted = catalog.quoted
    own, restricting = _placed(relation.parent, catalog), _placed(relation.child, catalog)
    typed = f"{quoted(relation.type_column)} = {relation.type_literal} AND " if relation.type_column else ""
    hidden = f"SELECT {quoted(column)} FROM {restricting} WHERE {typed}{quoted(column)} IS NOT NULL"
    if path:
        at, named = quoted(path), quoted(key)
        hidden = (
            f"SELECT one.{named} FROM {own} AS one JOIN {own} AS above ON SUBSTR(one.{at}, 1, LENGTH(above.{at})) = "
            f"above.{at} WHERE above.{named} IN ({hidden})"
        )
    reason = f"{relation.child.full_name} says who may see a row{' and those below it' if path else ''}"
    return Condition(key, f"{quoted(key)} NOT IN ({hidden})", reason, lambda value: True)


def first_of_each(
    relation: Relation, conditions: Sequence[Condition], profiles: Mapping[str, ColumnProfile], catalog: DatabaseCatalog
) -> str:
    """Return in SQL which of the names of a row is shown: a preferred one in the most frequent language."""
    child, quoted = relation.child, catalog.quoted
    table = _placed(child, catalog)
    shown = [one.sql for one in conditions]
    for name, one in profiles.items():
        column = child.columns[name]
        if one.role == "locale":
            shown.append(f"{quoted(name)} = {_listed(one.choices[:1])}")
        elif one.role == "flag" and PREFERRED & set(words(name)):
            shown.append(f"{quoted(name)} = {_literal(column.kind, column.filled, YES)}")
    where = f" WHERE {' AND '.join(shown)}" if shown else ""
    key = quoted(child.key[0])
    return f"{key} IN (SELECT MIN({key}) FROM {table}{where} GROUP BY {quoted(relation.columns[0])})"


def answers_none(table: DatabaseTable, column: str, quoted: Callable[[str], str]) -> Condition:
    """Return the condition that leaves out replies: they are parts of what they answer."""
    nothing = {"number": "0", "text": "''"}.get(table.columns[column].kind)
    sql = f"COALESCE({quoted(column)}, {nothing}) = {nothing}" if nothing else f"{quoted(column)} IS NULL"
    return Condition(column, sql, f"{column} is set for replies, which are parts", lambda value: not value)


def _flag(table: DatabaseTable, column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `is_private`, `Sealed` or `comment_approved`, or a boolean `status`."""
    flags = HIDDEN_FLAGS | SHOWN_FLAGS
    named = {word[2:] if word[:2] == "is" and word[2:] in flags else word for word in words(column.name)}  # `ispublic`
    values = {str(value).lower() for value in column.filled}
    if not values or named & PLACES:  # a page that is in no menu may be seen
        return None
    if named <= {"is", "public"} and any("private" in words(other) for other in table.columns):  # has a public address
        return None
    if named <= {"is", "active"} and singular(words(table.name)[-1]) in TASKS:  # it is closed
        return None
    if named == {"activity"} and values <= {"0", "1"}:
        named = {"active"}
    if (named & {"login", "members", "registered", "subscribers"} and named & {"required", "only"}) or "acl" in named:
        named = {"private"}
    if named & {"display", "show", "shown"} and named & {"customer", "client", "public", "guest", "everyone"}:
        named = {"public"}
    hides, shows = named & HIDDEN_FLAGS, named & SHOWN_FLAGS
    if not hides | shows and column.kind == "bool":
        shows = named & {"status", "state"} & set(words(column.name)[-1:])
    small = values <= {str(number) for number in range(-1, 10)} and column.kind != "time"
    two_sided = values <= YES | NO or (bool(hides) and small and "0" in values)
    if (
        not hides | shows
        or (named & {"state", "status"} and not two_sided)
        or not (two_sided or (shows and small) or (shows and "1" in values and profile.role == "choice"))
        or (named & NO_FLAGS and column.kind != "bool")
    ):
        return None
    wanted = _literal(column.kind, column.filled, YES if shows else NO)
    shown = name if not column.nullable or shows else f"COALESCE({name}, {wanted})"
    accepted = {wanted.strip("'").lower(), *({"true": "1", "false": "0"}.get(wanted, ()))}
    return Condition(
        column.name,
        f"{shown} = {wanted}",
        f"{column.name} says who may see a row",
        lambda value: str(value).lower() in accepted or (value is None and not shows),
    )


def _literal(kind: str, values: Sequence[Any], wanted: frozenset[str]) -> str:
    """Return how a column writes yes or no."""
    if kind == "bool":
        return "true" if wanted is YES else "false"
    number = "1" if wanted is YES else "0"
    if kind == "number":
        return number
    found = next((str(value) for value in values if str(value).lower() in wanted), None)
    return f"'{found or OPPOSITES.get(str(values[0]).lower(), number)}'"


def _level(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `visibility_level`, of which the least value is for the owner alone."""
    if words(column.name)[-2:] != ("visibility", "level") or column.kind != "number":
        return None
    least = min(column.filled, default=0)
    reason = f"{column.name} is the least for the fewest"
    return Condition(column.name, f"{name} > {least}", reason, lambda value: (value or 0) > least)


def _alone(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column with the workspace of a draft, or the reader of a private reply."""
    if not ALONE.fullmatch("_".join(words(column.name))) or column.kind != "number":
        return None
    return Condition(
        column.name, f"{name} = 0", f"{column.name} is set for what is not for all", lambda value: not value
    )


def _deleted(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `deleted_at`."""
    named = set(words(column.name))
    if not named & DELETED or not (column.kind == "time" or named & {"at", "on", "time", "date", "timestamp"}):
        return None
    if not column.nullable and column.kind == "time":
        return None
    reason = f"{column.name} is set for deleted rows"
    if column.kind == "number":
        return Condition(column.name, f"COALESCE({name}, 0) = 0", reason, lambda value: not value)
    return Condition(column.name, f"{name} IS NULL", reason, lambda value: value is None)


def _published(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `published_at`, which is empty for drafts."""
    available = "_".join(words(column.name)) in AVAILABLE
    if not (available or {*words(column.name)} & PUBLISHED_TIMES) or profile.role != "time" or not column.filled:
        return None
    now = datetime.now(UTC).isoformat(" ")
    if column.kind == "time" and any(str(at) > now for at in column.filled):
        reason = f"{column.name} is later{'' if available else ', or empty,'} for what is not out"
        sql = f"({name} IS NULL OR {name} <= CURRENT_TIMESTAMP)" if available else f"{name} <= CURRENT_TIMESTAMP"
        return Condition(column.name, sql, reason, lambda at: str(at) <= now if at else available)
    if profile.filled == 1 or available:
        return None
    return Condition(
        column.name, f"{name} IS NOT NULL", f"{column.name} is empty for drafts", lambda at: at is not None
    )


def _span(table: DatabaseTable, column: Column, name: str, seconds_now: str) -> Condition | None:
    """Return the condition of columns such as `valid_to`, `publish_up` and, in seconds since 1970, `endtime`."""
    called, times = "_".join(words(column.name)), [value for value in column.filled if value != 0]
    ends, starts = bool(ENDS.fullmatch(called)), bool(STARTS.fullmatch(called))
    begins = [one for one in table.columns.values() if BEGINS.fullmatch("_".join(words(one.name)))]
    weak = bool(times) or column.kind == "number"  # an empty `end` may be one of anything
    if weak and all(2 * sum(map(bool, one.values)) <= len(one.values) for one in begins):
        stops = any(STOPS.fullmatch("_".join(words(name))) for name in table.columns)
        ends = ends or bool(STOPS.fullmatch(called))
        starts = starts or ((stops or column.kind == "number") and bool(BEGINS.fullmatch(called)))
    if column.kind == "number" and (ends or starts):
        if 2 * len(times) > len(column.values) or any(value < MIN_SECONDS for value in times):
            return None
        open_, now = f"COALESCE({name}, 0) = 0", seconds_now
    elif column.kind == "time" and (ends or starts):
        if len(times) == len(column.values) and not any(str(at) >= NEVER for at in times):
            return None
        open_, now = f"{name} IS NULL", "CURRENT_TIMESTAMP"
    else:
        return None
    what = f"{column.name} says {'until' if ends else 'from'} when a row holds"
    return Condition(column.name, f"({open_} OR {name} {'>' if ends else '<='} {now})", what, lambda at: True)


def _audience(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `fe_group`, with the numbers of groups that few rows are for."""
    if "_".join(words(column.name)) not in AUDIENCE or not column.filled:
        return None
    grouped = [value for value in column.filled if str(value) != "0"]
    are_numbers = all(re.fullmatch(r"-?\d+(?:,-?\d+)*", str(value)) for value in grouped)
    if not are_numbers or len(grouped) > MAX_GROUPED * len(column.values):
        return None
    sql = f"COALESCE({name}, 0) = 0" if column.kind == "number" else f"COALESCE({name}, '0') IN ('', '0')"
    return Condition(column.name, sql, f"{column.name} names who may see a row", lambda value: value not in grouped)


def _number(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a state by number, of which 9 after a gap, and what is negative, were put away."""
    values = {value for value in column.filled if isinstance(value, int)}
    is_state = column.kind == "number" and words(column.name)[-1] in ("status", "state")
    if not is_state or not 1 < len(values) <= MAX_STATES:
        return None
    away = sorted(value for value in values if value < 0 or (value in PUT_AWAY and value - 1 not in values))
    shown = sum(value not in away for value in column.filled)
    if not away or 2 * shown < len(column.filled):
        return None
    sql = f"({name} IS NULL OR {name} NOT IN ({', '.join(map(str, away))}))"
    reason = f"{column.name} is one of {', '.join(map(str, sorted(values)))}"
    return Condition(column.name, sql, reason, lambda value: value not in away)


def _state(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `status`, with values such as `publish` and `draft`."""
    if not set(words(column.name)) & (STATES | SHOWN_FLAGS) or profile.role != "choice":
        return None
    values = profile.choices
    few = OFFICES if SEEN_BY & {*words(column.name)} else frozenset(["private"])
    hidden = [value for value in values if value.lower() in HIDDEN_VALUES or few & {*words(value)[-1:]}]
    shown = [value for value in values if value.lower() in PUBLISHED_VALUES]
    moderated = {value.lower() for value in values} <= MODERATION
    if not shown and (hidden or moderated):
        shown = [value for value in values if value.lower() in MODERATED_VALUES]
    reason = f"{column.name} is one of {', '.join(values)}"
    if shown:
        return Condition(column.name, f"{name} IN ({_listed(shown)})", reason, lambda value: value in shown)
    if not hidden:
        return None
    sql = f"{name} NOT IN ({_listed(hidden)})"
    sql = f"({name} IS NULL OR {sql})" if profile.filled < 1 else sql
    return Condition(column.name, sql, reason, lambda value: value not in hidden)


def _password(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a password that only few rows have: people have to know it to read these."""
    is_password = profile.role == "secret" and set(words(column.name)) & {"password", "passwd", "pass"}
    if not is_password or profile.filled > 0.2 or column.kind != "text":
        return None
    reason = f"rows with a {column.name} are for those who know it"
    return Condition(column.name, f"COALESCE({name}, '') = ''", reason, lambda value: not value)


def _submitted(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a `docstatus`, 0 for a draft and 2 for what was cancelled, if any row was submitted."""
    if column.name != "docstatus" or 1 not in column.filled:
        return None
    reason = "docstatus is 1 for what is neither a draft nor cancelled"
    return Condition(column.name, f"{name} = 1", reason, lambda value: value == 1)


LOOKS = (_submitted, _level, _alone, _deleted, _published, _state, _number, _audience, _password)


def _type(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `post_type`, if some types are nothing that people read."""
    last = words(profile.name)[-1]
    if profile.role not in ("choice", "code") or last not in ("type", "archetype", "kind", "class", "code"):
        return None
    choices = profile.choices or tuple(dict.fromkeys(map(str, table.columns[profile.name].filled)))
    if last == "code":
        choices = choices if any(map(FOR_FEW.fullmatch, choices)) else ()
    good = [value for value in choices if not BAD_TYPES.fullmatch(value)]
    if {*MESSENGER} <= {*choices}:
        good = ["O"]
    good = [value for value in good if _has_text(table, profile.name, value)]
    good = good or [value for value in choices if not FOR_FEW.fullmatch(value)]
    if not good or len(good) == len(choices) or len(choices) > MAX_TYPES:
        return None
    reason = f"{profile.name} is also {', '.join(value for value in choices if value not in good)}"
    return Condition(profile.name, f"{name} IN ({_listed(good)})", reason, lambda value: value in good)


def _has_text(table: DatabaseTable, column: str, value: str) -> bool:
    """Return whether rows with this value have a text of some words."""
    kinds = table.columns[column].values
    return any(
        kind == value and isinstance(text, str) and len(text.split()) > 1
        for other in table.columns.values()
        if other.kind == "text" and other.name != column
        for kind, text in zip(kinds, other.values, strict=True)
    )


def _listed(values: Iterable[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
