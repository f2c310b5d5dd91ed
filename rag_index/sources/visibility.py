"""Which rows of a table nobody may be shown: deleted and hidden ones, drafts, revisions, what waits for a moderator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rag_index.sources.columns import words
from rag_index.sources.vocabulary import known_words

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rag_index.sources.catalog import Column, DatabaseTable
    from rag_index.sources.columns import ColumnProfile

HIDDEN_FLAGS = known_words("visibility", "hidden_flags")
SHOWN_FLAGS = known_words("visibility", "shown_flags")
DELETED = known_words("visibility", "deleted")
PUBLISHED_TIMES = known_words("visibility", "published_times")
ENDS = re.compile(
    r"(?:valid|effective|active|published?)_?(?:to|until|till|through|end)|(?:expire[sd]?|expiry|ends?|superseded)_?(?:at|on|date|time)?"
)
NO_FLAGS = known_words("visibility", "no_flags")
STATES = known_words("visibility", "states")
PUBLISHED_VALUES = known_words("visibility", "published_values")
MODERATED_VALUES = known_words("visibility", "moderated_values")
MODERATION = known_words("visibility", "moderation")
HIDDEN_VALUES = known_words("visibility", "hidden_values")
BAD_TYPES = re.compile(
    r".*(?:revision|autosave|draft|nav_?menu|menu_?item|attachment|template|^log$|system|changeset|oembed|custom_css|redirect|"
    r"trackback|pingback|old_?version|archive[d]?_?version|internal|private|whisper|bot).*",
    re.IGNORECASE,
)
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
    table: DatabaseTable, profiles: Mapping[str, ColumnProfile], quoted: Callable[[str], str], types: Iterable[str] = ()
) -> list[Condition]:
    """Return the conditions for the rows that may be shown. None of them leaves out all rows of the sample.

    `types` are columns that say of which table a row is that another column names: they say nothing of this row.
    """
    found: list[Condition] = []
    for name, column in table.columns.items():
        if name in types:
            continue
        looks = (look(column, profiles[name], quoted(name)) for look in LOOKS)
        made = next(filter(None, looks), None) or _type(table, profiles[name], quoted(name))
        if made is not None and any(map(made.shows, column.values)):
            found.append(made)
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


def _flag(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `is_private`, `Sealed` or `comment_approved`, or a boolean `status`."""
    named, values = set(words(column.name)), {str(value).lower() for value in column.filled}
    if not values or "nav" in named:  # a page that is in no menu may be seen
        return None
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


def _workspace(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column with the workspace of a draft, which is 0 for what is live."""
    if not set(words(column.name)) & {"wsid", "workspace"} or column.kind != "number":
        return None
    return Condition(column.name, f"{name} = 0", f"{column.name} is set for drafts", lambda value: not value)


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
    if not set(words(column.name)) & PUBLISHED_TIMES or profile.role != "time" or not column.filled:
        return None
    now = datetime.now(UTC).isoformat(" ")
    if column.kind == "time" and any(str(at) > now for at in column.filled):
        reason = f"{column.name} is later, or empty, for what is not out"
        return Condition(column.name, f"{name} <= CURRENT_TIMESTAMP", reason, lambda at: at and str(at) <= now)
    if profile.filled == 1:
        return None
    return Condition(
        column.name, f"{name} IS NOT NULL", f"{column.name} is empty for drafts", lambda at: at is not None
    )


def _ended(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `valid_to`."""
    if column.kind != "time" or not ENDS.fullmatch("_".join(words(column.name))) or profile.filled == 1:
        return None
    sql = f"({name} IS NULL OR {name} > CURRENT_TIMESTAMP)"
    return Condition(column.name, sql, f"{column.name} says until when a row holds", lambda at: at is None)


def _state(column: Column, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `status`, with values such as `publish` and `draft`."""
    if not set(words(column.name)) & (STATES | SHOWN_FLAGS) or profile.role != "choice":
        return None
    values = profile.choices
    hidden = [value for value in values if value.lower() in HIDDEN_VALUES or words(value)[-1:] == ("private",)]
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


LOOKS = (_flag, _level, _workspace, _deleted, _published, _ended, _state, _password)


def _type(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `post_type`, if some types are nothing that people read."""
    if profile.role != "choice" or words(profile.name)[-1] not in ("type", "kind", "class"):
        return None
    good = [value for value in profile.choices if not BAD_TYPES.fullmatch(value)]
    good = [value for value in good if _has_text(table, profile.name, value)]
    if not good or len(good) == len(profile.choices):
        return None
    reason = f"{profile.name} is also {', '.join(value for value in profile.choices if value not in good)}"
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
