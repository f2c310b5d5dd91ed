"""Keys of documents: the typed form, the document id that people see, and the way back from an id
to a key.

A document id does not have the type of the key (`7` may be a number or a text). `possible_keys`
therefore returns each typed key that the id may stand for, and the caller looks up which of them
exist.
"""

from __future__ import annotations

import datetime as dt
import decimal
import hashlib
import itertools
import json
import math
import re
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import orjson

from rag_index.core.documents.canonical import plain_decimal, utc_iso
from rag_index.errors import SettingsError, SourceError

_TYPES: dict[str, tuple[Any, Callable[[Any], str], Callable[[str], Any]]] = {
    "uuid": (uuid.UUID, str, uuid.UUID),
    "float": (float, str, float),
    "decimal": (decimal.Decimal, plain_decimal, decimal.Decimal),
    "time": (dt.datetime, utc_iso, dt.datetime.fromisoformat),
    "date": (dt.date, dt.date.isoformat, dt.date.fromisoformat),
    "bytes": (bytes | bytearray | memoryview, lambda value: bytes(value).hex(), bytes.fromhex),
}
"""The types of keys that JSON lacks, by their name in a typed key: the Python type, the function
that writes a value as text, and the one that reads it."""
_READERS: tuple[Callable[[str], Any], ...] = (
    int,
    *[read for _, _, read in _TYPES.values()],
    {"true": True, "false": False}.__getitem__,
)
"""Functions that read a value from the text of a document id, one for each type."""
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?")
_NUMBER = re.compile(r"-?\d{1,50}(?:\.\d{1,50})?")
_NAMESPACE = uuid.UUID("5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11")
"""The namespace of point ids, chosen at random. Another one would give each point another id."""


def encode_key(values: Sequence[Any]) -> str:
    """Return a key's typed form: its value as JSON, or an array of values if the key has several
    columns. Texts and numbers become plain JSON (`"1"` and `1` differ). Other types become an
    object with the name of the type, such as `{"uuid": "…"}`. Raises SourceError if a value has a
    type that cannot be a key."""
    if len(values) == 1:
        return _encode_key_value(values[0])
    return "[" + ",".join(map(_encode_key_value, values)) + "]"


def encode_keys(columns: Sequence[Sequence[Any]]) -> list[str]:
    """Return `encode_key` of each row of these key columns."""
    if len(columns) > 1:
        return list(map(encode_key, zip(*columns, strict=True)))
    [column] = columns
    # The fast path of most tables: `bool` is another type, so `str` is right.
    only_integers = set(map(type, column)) == {int}
    return list(map(str if only_integers else _encode_key_value, column))


def _encode_key_value(value: Any) -> str:
    if type(value) is int:
        return str(value)
    if type(value) is str:
        try:
            return orjson.dumps(value).decode()
        except orjson.JSONEncodeError as exc:
            raise SourceError(
                f"key {value!r} is not valid Unicode; choose another key column"
            ) from exc
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isfinite(value):
        return repr(value)
    for name, (kind, write, _) in _TYPES.items():
        if isinstance(value, kind):
            return f'{{"{name}":"{write(value)}"}}'
    raise SourceError(
        f"a key of type {type(value).__name__} ({value!r:.60}) cannot be used; cast it to text in a"
        " query"
    )


def decode_key(key: str) -> Any:
    """Return the value of a typed key of one column. A time with a zone is in UTC."""
    value = json.loads(key)  # orjson does not read integers beyond 64 bits
    if not isinstance(value, dict):
        return value
    # An object such as {"uuid": "…"}.
    [(name, text)] = value.items()
    _, _, read = _TYPES[name]
    return read(text)


def decode_values(key: str) -> list[Any]:
    """Return the value of each column of a typed key, as `decode_key`."""
    parts = json.loads(key)
    if not isinstance(parts, list):
        return [decode_key(key)]
    return [decode_key(json.dumps(part)) for part in parts]


def document_id(key: str) -> str:
    """Return the form of a key that people see: its text, or a JSON array if it has several
    columns."""
    first = key[0]
    # "A-7"
    if first == '"':
        return str(orjson.loads(key))
    # A number or a bool: 7
    if first not in "[{":
        return key
    value = json.loads(key)  # orjson does not read integers beyond 64 bits
    # An object such as {"uuid": "…"}.
    if isinstance(value, dict):
        return _text_of_typed(value)
    # Several columns: the id of [7, {"date": "2024-01-01"}] is [7,"2024-01-01"].
    shown = [_text_of_typed(part) if isinstance(part, dict) else part for part in value]
    return json.dumps(shown, ensure_ascii=False, separators=(",", ":"))


def _text_of_typed(value: dict[str, Any]) -> str:
    [text] = value.values()
    return str(text)


def key_parts(given: str, columns: Sequence[str]) -> list[Any]:
    """Return one part of a document id per key column: the id itself, or the values of a JSON array
    for several. Raises SettingsError if the id is not a JSON array with a value for each column."""
    if len(columns) == 1:
        return [given]
    parts: Any = None
    with suppress(ValueError, RecursionError):
        parts = json.loads(given)
    if _are_parts(parts) and len(parts) == len(columns):
        return list(parts)
    example = json.dumps([f"<{name}>" for name in columns])
    raise SettingsError(
        f"{given!r} is not a JSON array of {len(columns)} values, one for each key column "
        f"({', '.join(columns)}): write it as '{example}', numbers without quotes"
    )


def _are_parts(value: Any) -> bool:
    """Return whether a value of JSON may be the parts of a document id: an array without null,
    arrays and objects in it."""
    if not isinstance(value, list):
        return False
    return all(isinstance(part, str | int | float) for part in value)


def values_of(part: Any) -> list[Any]:
    """Return all values of a key column that have this part of a document id. A part that is not a
    text is the value itself."""
    if not isinstance(part, str):
        return [part]
    found: list[Any] = [part]
    for read in _READERS:
        with suppress(ValueError, decimal.InvalidOperation, KeyError):
            value = read(part)
            if document_id(_encode_key_value(value)) == part:
                found.append(value)
    return found


def possible_keys(parts: Sequence[Any]) -> list[str]:
    """Return the typed keys (see `encode_key`) that a document with these parts of its id may
    have."""
    combinations = itertools.product(*map(values_of, parts))
    return list(dict.fromkeys(map(encode_key, combinations)))


def possible_document_keys(columns: Sequence[str], document_id: str) -> list[str]:
    """Return the typed keys that an id, as people see it, may stand for; none if it is not valid
    Unicode. `columns` are those of the key, if the settings have them. Raises SettingsError as
    `key_parts`."""
    try:
        document_id.encode()
    except UnicodeEncodeError:
        return []
    if columns:
        return possible_keys(key_parts(document_id, columns))
    # A custom source, whose key may have one column or several.
    keys = possible_keys([document_id])
    if document_id.startswith("["):
        with suppress(ValueError):
            parts = json.loads(document_id)
            if parts and _are_parts(parts):
                keys += possible_keys(parts)
    return keys


def untyped_key_hash(key: str, columns: Sequence[str] = ()) -> str:
    """Return a hash that recognises a typed key after its columns got other types or another
    order: equal values have equal hashes, whatever their types."""
    values = decode_values(key)
    names = [str(number) for number in range(len(values))]
    # A key of several columns: their order does not count.
    if len(columns) == len(values) > 1:
        names = [name.lower() for name in columns]
    named_texts = list(zip(names, map(_untyped, values), strict=True))
    named_texts.sort(key=lambda pair: pair[0])
    encoded = repr(named_texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(encoded).hexdigest()


def _untyped(value: Any) -> str:
    """Return the same text for a value and for its conversions to other types, such as `7` for 7,
    "007" and 7.00."""
    # A BINARY column that became a text, or the other way: b"A7" is "A7", b"\xff" is "ff".
    if isinstance(value, bytes):
        readable = value.decode("utf-8", "replace")
        value = readable if readable.isprintable() and "\ufffd" not in readable else value.hex()
    # True is 1. A CHAR column pads with spaces.
    text = str(int(value)) if isinstance(value, bool) else str(value).rstrip()
    if _UUID.fullmatch(text):
        return text.replace("-", "").lower()
    with suppress(ValueError, decimal.InvalidOperation):
        if isinstance(value, float | decimal.Decimal) or _NUMBER.fullmatch(text):
            return plain_decimal(decimal.Decimal(text))
        # A DATE that became a DATETIME: both are 2024-01-01T00:00:00.
        if _TIME.fullmatch(text):
            return utc_iso(dt.datetime.fromisoformat(text)).removesuffix("Z")
    return text


def point_id(index: str, key: str, chunk: int) -> str:
    """Return the UUIDv5 (RFC 9562, 5.5) of an index, a typed key and a chunk number, so that
    writing a chunk twice writes the same point. The digest is formatted here, because `uuid.uuid5`
    takes five times as long, and each chunk needs an id."""
    name = f"{index}\0{key}\0{chunk}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
