"""What the Python documentation sample holds: one entry for each documented name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

__all__ = ["Entry", "documented", "is_public", "split_docstring"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented name. `table` is module, class, function, method or topic."""

    table: str
    name: str
    """Fully qualified: json.decoder.JSONDecoder.decode."""
    summary: str
    """The docstring's first paragraph on one line, never empty."""
    body: str | None = None
    module: str | None = None
    """Where it is defined; for a module the package it belongs to, None at the top."""
    signature: str | None = None
    kind: str | None = None
    """What it is within its table: package, extension, exception, property, async function and so on."""


def documented(
    table: str,
    name: str,
    docstring: str | None,
    *,
    module: str | None = None,
    signature: str | None = None,
    kind: str | None = None,
) -> Entry | None:
    """An entry, or None where the docstring is missing or says nothing."""
    summary, body = split_docstring(docstring or "")
    return Entry(table, name, summary, body, module, signature, kind) if summary else None


def split_docstring(docstring: str) -> tuple[str, str | None]:
    """First paragraph on one line, and the rest (None where there is none), indentation removed."""
    paragraph, _, rest = inspect.cleandoc(docstring).strip().partition("\n\n")
    return " ".join(paragraph.split()), rest.strip() or None


def is_public(name: str) -> bool:
    """Whether no part of a dotted name starts with an underscore."""
    return not any(part.startswith("_") for part in name.split("."))
