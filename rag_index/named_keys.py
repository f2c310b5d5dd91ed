"""From what people call a document back to its key: the id as `canonical.document_id` shows it.

An id alone does not say of which type the key is (`7` may be a number or a text): all typed forms that it may stand
for are given, and whoever has documents says which of them is there.
"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from rag_index.canonical import encode_key
from rag_index.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["key_parts", "values_of", "possible_keys"]


def key_parts(given: str, columns: Sequence[str]) -> list[Any]:
    """An id in the parts of a key with these columns: the text itself for one column, of a JSON array for several.

    Raises:
        SettingsError: it is no JSON array of as many values.
    """
    if len(columns) == 1:
        return [given]
    parts: Any = None
    with suppress(ValueError):
        parts = json.loads(given)
    plain = isinstance(parts, list) and all(isinstance(part, str | int | float) for part in parts)
    if not plain or len(parts) != len(columns):
        example = json.dumps([f"<{name}>" for name in columns])
        raise SettingsError(
            f"the key is of {len(columns)} columns ({', '.join(columns)}), and {given!r} is no JSON array of "
            f"{len(columns)} values: write it as '{example}', numbers without quotes"
        )
    return list(parts)


def values_of(part: Any) -> list[Any]:
    """All values of a key column that are shown as this part of an id; what is no text is itself alone."""
    if not isinstance(part, str):
        return [part]
    found: list[Any] = [part]
    for read in (_whole, _number, decimal.Decimal, uuid.UUID, dt.date.fromisoformat, _time, _bytes, _truth):
        with suppress(ValueError, decimal.InvalidOperation, KeyError):
            found.append(read(part))
    return found


def possible_keys(parts: Sequence[Any]) -> list[str]:
    """The typed keys (`canonical.encode_key`) that a document with this id may have."""
    return list(dict.fromkeys(encode_key(values) for values in itertools.product(*map(values_of, parts))))


def _whole(text: str) -> int:
    value = int(text)
    if str(value) != text:
        raise ValueError(text)
    return value


def _number(text: str) -> float:
    value = float(text)
    if repr(value) != text:
        raise ValueError(text)
    return value


def _time(text: str) -> dt.datetime:
    if "T" not in text:
        raise ValueError(text)
    return dt.datetime.fromisoformat(text)


def _bytes(text: str) -> bytes:
    value = bytes.fromhex(text)
    if value.hex() != text:
        raise ValueError(text)
    return value


def _truth(text: str) -> bool:
    return {"true": True, "false": False}[text]
