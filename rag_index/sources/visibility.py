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

    from rag_index.sources.catalog import DatabaseTable
    from rag_index.sources.columns import ColumnProfile

HIDDEN_FLAGS = known_words("visibility", "hidden_flags")
SHOWN_FLAGS = known_words("visibility", "shown_flags")
DELETED = known_words("visibility", "deleted")
PUBLISHED_TIMES = known_words("visibility", "published_times")
ENDS = re.compile(
    r"(?:valid|effective|active|published?)_?(?:to|until|till|through|end)|(?:expire[sd]?|expiry|ends?|superseded)_?(?:at|on|date|time)?"
)
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
YES = known_words("visibility", "yes")
NO = known_words("visibility", "no")


@dataclass(frozen=True, slots=True)
class Condition:
    """What must hold for rows that may be shown, in SQL, and why."""

    sql: str
    reason: str
    holds: Callable[[Mapping[str, Any]], bool]
    """Whether a sampled row may be shown."""


def find_conditions(
    table: DatabaseTable, profiles: Mapping[str, ColumnProfile], quoted: Callable[[str], str], types: Iterable[str] = ()
) -> list[Condition]:
    """Return the conditions for the rows that may be shown. None of them leaves out all rows of the sample.

    `types` are columns that say of which table a row is that another column names: they say nothing of this row.
    """
    found: list[Condition] = []
    for name, profile in profiles.items():
        if name in types:
            continue
        for look in (_flag, _level, _workspace, _deleted, _published, _ended, _state, _type, _password):
            condition = look(table, profile, quoted(name))
            if condition is not None:
                found.append(condition)
                break
    rows = [dict(zip(table.columns, values, strict=True)) for values in _rows(table)]
    return [one for one in found if any(map(one.holds, rows))]


def _rows(table: DatabaseTable) -> list[tuple[Any, ...]]:
    length = max((len(column.values) for column in table.columns.values()), default=0)
    columns = [column.values or (None,) * length for column in table.columns.values()]
    return list(zip(*columns, strict=True))


def joined(conditions: Sequence[Condition]) -> str:
    """Return the conditions as one."""
    return " AND ".join(one.sql for one in conditions)


def internal_rows(table: DatabaseTable, title: str, quoted: Callable[[str], str]) -> Condition | None:
    """Return the condition that leaves out containers, such as forums, whose names say that they are not for all."""
    if len(table.key) != 1:
        return None
    rows = zip(table.columns[table.key[0]].values, table.columns[title].values, strict=True)
    hidden = {key: str(name) for key, name in rows if isinstance(name, str) and INTERNAL_NAMES.fullmatch(name)}
    if not hidden or len(hidden) == len(table.columns[title].values):
        return None
    keys = (
        _listed(list(map(str, hidden))) if any(isinstance(key, str) for key in hidden) else ", ".join(map(str, hidden))
    )
    key = table.key[0]
    return Condition(
        f"{quoted(key)} NOT IN ({keys})", f"named {', '.join(hidden.values())}", lambda row: row[key] not in hidden
    )


def _flag(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `is_private`, `Sealed` or `comment_approved`."""
    named, column = set(words(profile.name)), table.columns[profile.name]
    if "nav" in named:  # a page that is in no menu may be seen
        return None
    hides, shows = named & HIDDEN_FLAGS, named & SHOWN_FLAGS
    values = {str(value).lower() for value in column.filled}
    small = values <= {str(number) for number in range(-1, 10)} and column.kind != "time"
    two_sided = values <= YES | NO or (bool(hides) and small and "0" in values)
    if (
        not (hides or shows)
        or not values
        or (named & {"state", "status"} and not two_sided)
        or not (two_sided or (shows and small) or (shows and "1" in values and profile.role == "choice"))
    ):
        return None
    if (
        named & {"count", "by", "at", "on", "time", "date", "number", "id", "reason", "revision", "version"}
        and column.kind != "bool"
    ):
        return None
    wanted = _literal(column.kind, column.filled, YES if shows else NO)
    shown = name if not column.nullable or shows else f"COALESCE({name}, {wanted})"
    accepted = {wanted.strip("'").lower()} | (
        {"true", "1"} if wanted == "true" else {"false", "0"} if wanted == "false" else set()
    )
    return Condition(
        f"{shown} = {wanted}",
        f"{profile.name} says who may see a row",
        lambda row: (str(row[profile.name]).lower() in accepted) or (row[profile.name] is None and not shows),
    )


def _level(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `visibility_level`, of which the least value is for the owner alone."""
    if words(profile.name)[-2:] != ("visibility", "level") or table.columns[profile.name].kind != "number":
        return None
    least = min(table.columns[profile.name].filled, default=0)
    return Condition(
        f"{name} > {least}", f"{profile.name} is the least for the fewest", lambda row: (row[profile.name] or 0) > least
    )


def _literal(kind: str, values: Sequence[Any], wanted: frozenset[str]) -> str:
    """Return how a column writes yes or no."""
    if kind == "bool":
        return "true" if wanted is YES else "false"
    if kind == "number":
        return "1" if wanted is YES else "0"
    found = next((str(value) for value in values if str(value).lower() in wanted), None)
    other = {
        "y": "N",
        "n": "Y",
        "yes": "no",
        "no": "yes",
        "t": "f",
        "f": "t",
        "true": "false",
        "false": "true",
        "1": "0",
        "0": "1",
    }
    return f"'{found or other.get(str(values[0]).lower(), '1' if wanted is YES else '0')}'"


def _workspace(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column with the workspace of a draft, which is 0 for what is live."""
    if not set(words(profile.name)) & {"wsid", "workspace"} or table.columns[profile.name].kind != "number":
        return None
    return Condition(f"{name} = 0", f"{profile.name} is set for drafts", lambda row: not row[profile.name])


def _deleted(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `deleted_at`."""
    named, column = set(words(profile.name)), table.columns[profile.name]
    if not named & DELETED or not (column.kind == "time" or named & {"at", "on", "time", "date", "timestamp"}):
        return None
    if column.kind == "number":
        return Condition(
            f"COALESCE({name}, 0) = 0", f"{profile.name} is set for deleted rows", lambda row: not row[profile.name]
        )
    if not column.nullable and column.kind == "time":
        return None
    return Condition(
        f"{name} IS NULL", f"{profile.name} is set for deleted rows", lambda row: row[profile.name] is None
    )


def _published(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `published_at`, which is empty for drafts."""
    if not set(words(profile.name)) & PUBLISHED_TIMES or profile.role != "time" or not profile.filled:
        return None
    now = datetime.now(UTC).isoformat(" ")
    if table.columns[profile.name].kind == "time" and any(str(at) > now for at in table.columns[profile.name].filled):
        reason = f"{profile.name} is later, or empty, for what is not out"
        return Condition(
            f"{name} <= CURRENT_TIMESTAMP", reason, lambda row: row[profile.name] and str(row[profile.name]) <= now
        )
    if profile.filled == 1:
        return None
    return Condition(
        f"{name} IS NOT NULL", f"{profile.name} is empty for drafts", lambda row: row[profile.name] is not None
    )


def _ended(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `valid_to`."""
    column = table.columns[profile.name]
    if column.kind != "time" or not ENDS.fullmatch("_".join(words(profile.name))) or profile.filled == 1:
        return None
    return Condition(
        f"({name} IS NULL OR {name} > CURRENT_TIMESTAMP)",
        f"{profile.name} says until when a row holds",
        lambda row: row[profile.name] is None,
    )


def _state(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `status`, with values such as `publish` and `draft`."""
    named = set(words(profile.name))
    if not named & (STATES | SHOWN_FLAGS) or profile.role not in ("choice", "flag"):
        return None
    column = table.columns[profile.name]
    if profile.role == "flag":
        if column.kind == "bool" and words(profile.name)[-1] in ("status", "state"):
            return Condition(
                f"{name} = true", f"{profile.name} says who may see a row", lambda row: row[profile.name] in (True, 1)
            )
        return None
    values = list(profile.choices)
    hidden = [value for value in values if value.lower() in HIDDEN_VALUES or words(value)[-1:] == ("private",)]
    shown = [value for value in values if value.lower() in PUBLISHED_VALUES]
    moderated = {value.lower() for value in values} <= MODERATION
    if not shown and (hidden or moderated):
        shown = [value for value in values if value.lower() in MODERATED_VALUES]
    reason = f"{profile.name} is one of {', '.join(values)}"
    if shown:
        return Condition(f"{name} IN ({_listed(shown)})", reason, lambda row: row[profile.name] in shown)
    if hidden:
        sql = f"{name} NOT IN ({_listed(hidden)})"
        sql = f"({name} IS NULL OR {sql})" if profile.filled < 1 else sql
        return Condition(sql, reason, lambda row: row[profile.name] not in hidden)
    return None


def _type(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a column such as `post_type`, if some types are nothing that people read."""
    if profile.role != "choice" or words(profile.name)[-1] not in ("type", "kind", "class"):
        return None
    good = [value for value in profile.choices if not BAD_TYPES.fullmatch(value)]
    good = [value for value in good if _has_text(table, profile.name, value)]
    if not good or len(good) == len(profile.choices):
        return None
    left = ", ".join(value for value in profile.choices if value not in good)
    return Condition(
        f"{name} IN ({_listed(good)})", f"{profile.name} is also {left}", lambda row: row[profile.name] in good
    )


def _has_text(table: DatabaseTable, column: str, value: str) -> bool:
    """Return whether rows with this value have a text of some words."""
    kinds = table.columns[column].values
    for other in table.columns.values():
        if other.kind == "text" and other.name != column:
            for kind, text in zip(kinds, other.values, strict=True):
                if kind == value and isinstance(text, str) and len(text.split()) > 1:
                    return True
    return False


def _password(table: DatabaseTable, profile: ColumnProfile, name: str) -> Condition | None:
    """Return the condition of a password that only few rows have: people have to know it to read these."""
    if (
        profile.role != "secret"
        or not set(words(profile.name)) & {"password", "passwd", "pass"}
        or profile.filled > 0.2
    ):
        return None
    if table.columns[profile.name].kind != "text":
        return None
    return Condition(
        f"COALESCE({name}, '') = ''",
        f"rows with a {profile.name} are for those who know it",
        lambda row: not row[profile.name],
    )


def _listed(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
