"""Keys of documents: their typed form, what people see of them, and the way back from that.

An id alone does not say which type the key has (`7` may be a number or a text), so `possible_keys` gives every typed
form that it may stand for, and the caller looks which of them exists.
"""

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import math
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import orjson

from rag_index.documents.canonical import plain_decimal, utc_iso
from rag_index.errors import SettingsError, SourceError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["document_id", "encode_key", "encode_keys", "key_parts", "possible_keys", "values_of"]


def encode_key(values: Sequence[Any]) -> str:
    """A key's typed form: JSON of the value, of an array of values where the key has several columns.

    Text and numbers are written as JSON (`"1"` and `1` differ); other types as an object that names them,
    `{"uuid": "…"}`.

    Raises:
        SourceError: a value of a type that cannot be a key.
    """
    if len(values) == 1:
        return _encode_key_value(values[0])
    return "[" + ",".join(map(_encode_key_value, values)) + "]"


def encode_keys(columns: Sequence[Sequence[Any]]) -> list[str]:
    """`encode_key` of each row of these key columns."""
    if len(columns) == 1:
        [column] = columns
        return list(map(str if set(map(type, column)) == {int} else _encode_key_value, column))
    return list(map(encode_key, zip(*columns, strict=True)))


def _encode_key_value(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is str:
        try:
            return orjson.dumps(value).decode()
        except orjson.JSONEncodeError as exc:
            raise SourceError(f"key {value!r} is not valid Unicode; give another key column") from exc
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, uuid.UUID):
        return f'{{"uuid":"{value}"}}'
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else f'{{"float":"{value}"}}'
    if isinstance(value, decimal.Decimal):
        return f'{{"decimal":"{plain_decimal(value)}"}}'
    if isinstance(value, dt.datetime):
        return f'{{"time":"{utc_iso(value)}"}}'
    if isinstance(value, dt.date):
        return f'{{"date":"{value.isoformat()}"}}'
    if isinstance(value, bytes | bytearray | memoryview):
        return f'{{"bytes":"{bytes(value).hex()}"}}'
    raise SourceError(
        f"a key of type {type(value).__name__} ({value!r:.60}) cannot be used; cast it to text in a query"
    )


def document_id(key: str) -> str:
    """What people see of a key: its text; a JSON array where it has several columns."""
    first = key[0]
    if first == '"':
        return str(orjson.loads(key))
    if first not in "[{":
        return key
    value = json.loads(key)  # keeps integers of any size, as orjson does not
    if isinstance(value, dict):
        return str(next(iter(value.values())))
    plain = [next(iter(v.values())) if isinstance(v, dict) else v for v in value]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


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
