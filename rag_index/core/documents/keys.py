"""Keys of documents: their typed form, the document id that people see, and the way back from an id
to a key. A document id does not tell the type of the key (`7` may be a number or a text).
`possible_keys` therefore returns every typed key that the id may stand for, and the caller looks up
which of them exists."""

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
"""How a value of each type that JSON lacks becomes a text, and that a value again."""
_READERS: tuple[Callable[[str], Any], ...] = (
    int,
    *[read for _, _, read in _TYPES.values()],
    {"true": True, "false": False}.__getitem__,
)
"""Functions that read a value of some type from the text of a document id."""
_UUID = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?")
_NUMBER = re.compile(r"-?\d{1,50}(?:\.\d{1,50})?")
_NAMESPACE = uuid.UUID("5f2d6a52-3c64-5a0e-9d0b-6a6f1f5b7c11")


def encode_key(values: Sequence[Any]) -> str:
    """Return a key's typed form: its value as JSON, or an array of values if the key has several
    columns. Texts and numbers become plain JSON (`"1"` and `1` differ). Other types become an
    object that names the type, such as `{"uuid": "…"}`. Raises SourceError if a value has a type
    that cannot be a key."""
    if len(values) == 1:
        return _encode_key_value(values[0])
    return "[" + ",".join(map(_encode_key_value, values)) + "]"


def encode_keys(columns: Sequence[Sequence[Any]]) -> list[str]:
    """Return `encode_key` of each row of these key columns."""
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
    """Return the value whose typed form (see `encode_key`) this is, of one column. A time with a
    zone is in UTC."""
    value = json.loads(key)  # unlike orjson, it reads integers of any size
    if not isinstance(value, dict):
        return value
    [(name, text)] = value.items()
    return _TYPES[name][2](text)


def decode_values(key: str) -> list[Any]:
    """Return the value of each column of a typed key, as `decode_key`."""
    parts = json.loads(key)
    return (
        [decode_key(json.dumps(one)) for one in parts]
        if isinstance(parts, list)
        else [decode_key(key)]
    )


def document_id(key: str) -> str:
    """Return the form of a key that people see: its text, or a JSON array if it has several
    columns."""
    first = key[0]
    if first == '"':
        return str(orjson.loads(key))
    if first not in "[{":
        return key
    value = json.loads(key)  # unlike orjson, it reads integers of any size
    if isinstance(value, dict):
        return str(next(iter(value.values())))
    plain = [next(iter(v.values())) if isinstance(v, dict) else v for v in value]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def key_parts(given: str, columns: Sequence[str]) -> list[Any]:
    """Return one part of a document id per key column: the id itself, or the values of a JSON array
    for several. Raises SettingsError if the id is not a JSON array with a value for each column."""
    if len(columns) == 1:
        return [given]
    parts: Any = None
    with suppress(ValueError, RecursionError):
        parts = json.loads(given)
    plain = isinstance(parts, list) and all(isinstance(part, str | int | float) for part in parts)
    if not plain or len(parts) != len(columns):
        example = json.dumps([f"<{name}>" for name in columns])
        raise SettingsError(
            f"{given!r} is not a JSON array of {len(columns)} values, one for each key column "
            f"({', '.join(columns)}): write it as '{example}', numbers without quotes"
        )
    return list(parts)


def values_of(part: Any) -> list[Any]:
    """Return all values of a key column that have this part of a document id; a part that is not
    text is the value."""
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
    return list(
        dict.fromkeys(encode_key(values) for values in itertools.product(*map(values_of, parts)))
    )


def possible_document_keys(columns: Sequence[str], document_id: str) -> list[str]:
    """Return the typed keys that an id, as people see it, may stand for; none for one that is no
    text. `columns` are those of the key, as far as the settings know them. Raises SettingsError as
    `key_parts`."""
    try:
        document_id.encode()
    except UnicodeEncodeError:
        return []
    if columns:
        return possible_keys(key_parts(document_id, columns))
    keys = possible_keys([document_id])
    if document_id.startswith("["):  # a source of its own may have keys of several columns
        with suppress(ValueError):
            parts = json.loads(document_id)
            if parts and all(isinstance(part, str | int | float) for part in parts):
                keys += possible_keys(parts)
    return keys


def key_mark(key: str, columns: Sequence[str] = ()) -> str:
    """Return a hash that recognises a typed key whose columns get other types, or another order:
    equal values have equal hashes, whatever their types."""
    values = decode_values(key)
    names = (
        [name.lower() for name in columns]
        if len(columns) == len(values) > 1
        else map(str, range(len(values)))
    )
    named_texts = sorted(zip(names, map(_untyped, values), strict=True), key=lambda pair: pair[0])
    return hashlib.sha256(repr(named_texts).encode("utf-8", "surrogatepass")).hexdigest()


def _untyped(value: Any) -> str:
    """Return the same text for a value and for what another type makes of it, such as `7` for 7,
    "007" and 7.00."""
    if isinstance(value, bytes):
        readable = value.decode("utf-8", "replace")
        value = readable if readable.isprintable() and "\ufffd" not in readable else value.hex()
    text = str(int(value)) if isinstance(value, bool) else str(value).rstrip()
    if _UUID.fullmatch(text):
        return text.replace("-", "").lower()
    with suppress(ValueError, decimal.InvalidOperation):
        if isinstance(value, float | decimal.Decimal) or _NUMBER.fullmatch(text):
            return plain_decimal(decimal.Decimal(text))
        if _TIME.fullmatch(text):
            return utc_iso(dt.datetime.fromisoformat(text)).removesuffix("Z")
    return text


def point_id(index: str, key: str, chunk: int) -> str:
    """Return the UUIDv5 (RFC 9562, 5.5) of an index, a typed key and a chunk number. Writing a
    chunk twice therefore writes the same point. The digest is formatted here because `uuid.uuid5`
    takes five times as long, and every chunk needs an id."""
    name = f"{index}\0{key}\0{chunk}".encode("utf-8", "surrogatepass")
    digest = hashlib.sha1(_NAMESPACE.bytes + name, usedforsecurity=False).hexdigest()
    variant = "89ab"[int(digest[16], 16) & 3]
    return f"{digest[:8]}-{digest[8:12]}-5{digest[13:16]}-{variant}{digest[17:20]}-{digest[20:32]}"
