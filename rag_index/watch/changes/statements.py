"""Statements for a person to run, and how names and texts are written in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

from rag_index.errors import SettingsError, printable

MAX_OBJECT_NAME = 60
"""PostgreSQL cuts names at 63 bytes, and MariaDB refuses more than 64."""


class Step(NamedTuple):
    """A statement without its semicolon, and the reason for it. One of the two may be empty."""

    sql: str
    reason: str = ""

    def script(self) -> str:
        """Return both as SQL."""
        return (comment(self.reason) if self.reason else "") + (f"{self.sql};\n" if self.sql else "")


@dataclass(frozen=True, slots=True)
class Setup:
    """What to run so that a source tells its changes, and how to get rid of it."""

    title: str
    costs: str
    """What it costs the source and those who write to it, in lines."""
    steps: Sequence[Step]
    removal: Sequence[Step]
    position: str = ""
    """The statement by which an application learns the position of what it has committed."""

    def script(self) -> str:
        """Return all of it as SQL. The removal is commented out."""
        costs = "".join(f"  {line}\n" for line in self.costs.splitlines())
        parts = [comment(f"{self.title}\n\nWhat it costs:\n{costs}"), *(step.script() for step in self.steps)]
        if self.position:
            said = "After its commit, an application learns by this up to where an answer has to reach:"
            parts.append(comment(f"{said}\n  {self.position};"))
        removal = "".join(step.script() for step in self.removal)  # a name may have lines of its own
        parts.append("".join(f"--   {line}\n" for line in removal[:-1].split("\n")))
        return "\n".join([*parts[:-1], f"-- To remove all of it:\n{parts[-1]}"])


def quoted(name: str, mark: str = '"') -> str:
    """Return a name for a statement. Raises SettingsError for one that no client passes on as it is."""
    if "\r" in name:
        raise SettingsError(f"the name {name!a} has a carriage return, which files of SQL do not keep: rename it")
    return mark + name.replace(mark, mark * 2) + mark


def literal(value: str, backend: str) -> str:
    """Return a text for a statement, which means the same however a session reads a backslash."""
    if "\\" in value and backend in ("mysql", "mariadb"):
        return f"_utf8mb4 X'{value.encode().hex()}'"
    escaped, double = value.replace("'", "''"), value.replace("'", "''").replace("\\", "\\\\")
    return f"E'{double}'" if "\\" in value and backend == "postgresql" else f"'{escaped}'"


def body(sql: str) -> str:
    """Return the body of a function for PostgreSQL, in dollars that do not occur in it."""
    mark = next(f"${'_' * number}$" for number in count() if f"${'_' * number}$" not in sql)
    return f"{mark}\n{sql}\n{mark}"


def comment(text: str) -> str:
    """Return a text as lines of a comment, whatever names it shows."""
    return "".join(f"-- {printable(line)}".rstrip() + "\n" for line in text.splitlines() or [""])


def object_name(project: str, *parts: str) -> str:
    """Return a name of this project, which says whose it is and begins with `rag_index_`. It has only lower-case
    letters, digits and `_`, as the name of a slot must. Whatever is lost by that comes back as a digest at its end, so
    that names of different projects differ."""
    whole = "_".join(["rag_index", project, *parts])
    name = re.sub(r"[^a-z0-9]+", "_", whole.lower())
    if name == whole and len(name) <= MAX_OBJECT_NAME:
        return name
    digest = hashlib.sha256(whole.encode()).hexdigest()[:8]
    return f"{name[: MAX_OBJECT_NAME - 9].rstrip('_')}_{digest}"
