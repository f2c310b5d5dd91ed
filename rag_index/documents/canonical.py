"""One written form for every value, so that equal documents have equal hashes on any machine, driver and day.

A change of anything here changes hashes: raise VERSION then, and every document is compared anew.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "VERSION",
    "decode_payload",
    "encode_payload",
    "encode_payloads",
    "hash_bytes",
    "hash_text",
    "plain_decimal",
    "utc_iso",
]

VERSION = 1
HASH_BYTES = 16
_JSON = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
_INT64 = 2**63
_SAFE_INT = 10**18
"""Whole numbers below it have at most 18 digits."""
_NO_NUMBERS = {str, bool, type(None), dt.datetime, dt.date, dt.time, uuid.UUID}
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
MAX_LEVELS = 60
"""Payloads nested deeper hold the rest as text: stores take no more than about 100 levels."""


def hash_bytes(value: bytes) -> bytes:
    """BLAKE2b of 16 bytes."""
    return hashlib.blake2b(value, digest_size=HASH_BYTES).digest()


def hash_text(text: str) -> bytes:
    """BLAKE2b of 16 bytes over UTF-8."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()


def encode_payload(payload: dict[str, Any]) -> bytes:
    """A payload as canonical JSON: sorted keys, UTC times, plain numbers; what is not JSON as text.

    Integers beyond 64 bits are text, as are whole decimals of that size; NaN and infinities are null.
    """
    return _encoded(payload, look=True)


def encode_payloads(names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int) -> list[bytes]:
    """`encode_payload` of each row of these columns; long numbers are looked for only where a column may have some."""
    if not names:
        return [b"{}"] * rows
    look = any(map(_may_be_long, columns))
    return [_encoded(dict(zip(names, values, strict=True)), look=look) for values in zip(*columns, strict=True)]


def _encoded(payload: dict[str, Any], *, look: bool) -> bytes:
    """The payload's JSON; numbers that are too long for most readers are found where they are looked for."""
    try:
        written = orjson.dumps(payload, default=_jsonable, option=_JSON)
    except orjson.JSONEncodeError:
        return orjson.dumps(_repaired(payload), option=_JSON)
    if look and _LONG_NUMBER.search(written):
        return orjson.dumps(_repaired(payload), option=_JSON)
    return written


def _may_be_long(column: Sequence[Any]) -> bool:
    """Whether a value of this column may be written as a number of 19 digits or more."""
    kinds = set(map(type, column)) - _NO_NUMBERS
    if kinds == {int}:
        return any(type(value) is int and not -_SAFE_INT < value < _SAFE_INT for value in column)
    return bool(kinds)


def decode_payload(payload: bytes) -> dict[str, Any]:
    """The dict that `encode_payload` wrote."""
    value: dict[str, Any] = orjson.loads(payload)
    return value


def _jsonable(value: Any) -> Any:
    """What JSON has for a value of another type; orjson asks again for what is inside."""
    if isinstance(value, decimal.Decimal):
        return _number(value)
    if isinstance(value, dt.datetime):
        return utc_iso(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, enum.Enum):
        return value.value
    return str(value)


def _number(value: decimal.Decimal) -> int | float | str | None:
    """1.50 and 1.5 are one number, 2.00 and 2 as well."""
    if not value.is_finite():
        return None
    if value != value.to_integral_value():
        return float(value)
    return int(value) if abs(value) < _INT64 else plain_decimal(value)


def _repaired(value: Any, level: int = 0) -> Any:
    """Without what JSON or a store cannot carry: lone surrogates replaced, integers beyond 64 bits as text."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    if level > MAX_LEVELS:
        return repr(value).encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {str(_repaired(str(key))): _repaired(inner, level + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_repaired(inner, level + 1) for inner in value]
    return _repaired(_jsonable(value), level + 1)


def utc_iso(value: dt.datetime) -> str:
    """ISO; with an offset where the value has one, then always UTC."""
    if value.tzinfo is None:
        return value.isoformat()
    try:
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:  # the first or the last day that a datetime can say
        return value.isoformat()


def plain_decimal(value: decimal.Decimal) -> str:
    """All digits, without an exponent and without zeros at the end of a fraction."""
    if not value.is_finite():
        return str(value)
    if not value:
        return "0"
    digits = f"{value:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
