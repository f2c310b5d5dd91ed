"""Entries of the Python documentation sample: one for each documented name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

__all__ = ["Entry", "is_public", "make_entry", "split_docstring"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A documented name. `table` is module, class, function, method or topic."""

    table: str
    name: str
    """Fully qualified: json.decoder.JSONDecoder.decode."""
    summary: str
    """The docstring's first paragraph on one line, never empty."""
    body: str | None = None
    module: str | None = None
    """The module that defines it; for a module its package, or None at the top level."""
    signature: str | None = None
    kind: str | None = None
    """Its kind within the table: package, extension, exception, property, async function and so on."""


def make_entry(
    table: str,
    name: str,
    docstring: str | None,
    *,
    module: str | None = None,
    signature: str | None = None,
    kind: str | None = None,
) -> Entry | None:
    """Return an entry, or None if the docstring is missing or empty."""
    summary, body = split_docstring(docstring or "")
    return Entry(table, name, summary, body, module, signature, kind) if summary else None


def split_docstring(docstring: str) -> tuple[str, str | None]:
    """Return the first paragraph on one line, and the rest without indentation, or None if there is no rest."""
    paragraph, _, rest = inspect.cleandoc(docstring).strip().partition("\n\n")
    return " ".join(paragraph.split()), rest.strip() or None


def is_public(name: str) -> bool:
    """Return whether no part of a dotted name starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))
