"""Names in source code, taken apart so that a search finds them by any of their parts."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFINES = "defines"
"""The beginning of a word that stands for the definition of a name."""

NAMED_BY = ("path", "qualified_name", "signature")
"""The payload fields by whose words a chunk of source code is found, beside its text."""

_NAME = re.compile(r"[^\W\d]\w*")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
"""A run of capitals (`HTTP` of `HTTPServer`), a word with or without its capital, or digits."""


def split_identifiers(text: str) -> str:
    """Return the text with each compound name replaced by the whole name and its parts.

    `JsonTreeReader` and `json_tree_reader` both become "jsontreereader json tree reader", so that each is found by the
    other and by its parts. Other text stays as it is.
    """
    return _NAME.sub(_spelled_out, text)


def names_of(payload: Mapping[str, Any]) -> str:
    """Return the path of a chunk of source code and the names of its symbol, a line each."""
    return "\n".join(str(payload[field]) for field in NAMED_BY if payload.get(field))


def definitions(text: str) -> str:
    """Return a word for each name in the text that only the definition of that name has, not its uses.

    A query has such a word for each of its names, so that a definition is found before its uses.
    """
    return " ".join(DEFINES + "".join(_parts(match[0])).lower() for match in _NAME.finditer(text))


def _spelled_out(match: re.Match[str]) -> str:
    parts = _parts(match[0])
    return f"{''.join(parts).lower()} {' '.join(parts)}" if len(parts) > 1 else parts[0]


def _parts(name: str) -> list[str]:
    parts = _PART.findall(name) if name.isascii() else [part for part in name.split("_") if part]
    return parts or [name]
