"""A canonical form for every value, so that equal documents have equal hashes on any machine,
driver and day. Any change here changes the hashes: see INDEX_VERSION."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import enum
import hashlib
import math
import re
import uuid
from collections.abc import Sequence
from typing import Any

import orjson

_POWERS = [float(f"1e{exponent}") for exponent in range(309)]
MAX_STEPS = 1000
"""Neighbours that are tried on either side; some tens are the most that random bits have needed."""
HASH_BYTES = 16
_JSON = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
_INT64 = 2**63
_SAFE_INT = 10**18
"""Integers below it have at most 18 digits."""
_NOT_NUMBERS = {str, bool, type(None), dt.datetime, dt.date, dt.time, uuid.UUID}
_LONG_NUMBER = re.compile(rb"[:,\[]-?(?:(?:[0-9]\.?){16}|[0-9.]+e)")
"""What may be an integer beyond 64 bits, or a float that the store would change; a hash is text."""
MAX_LEVELS = 60
"""Deeper levels of a payload become text: a store cannot read back what has more than about 100
levels."""
MAX_PAYLOAD_BYTES = 16_000_000
"""A server refuses requests of more than 32 MB: the largest fields of a larger payload say their
size instead."""
EXACT_IN_FLOAT = 2**53
"""Smaller integers are floats of their own."""
_STORED_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?)?"
)
"""Forms of times that the stores compare as such, where an offset follows only after seconds."""


def storable_float(value: float) -> float:
    """Return the nearest float that the store gives back unchanged: mostly `value` itself, else
    some last bits away."""
    if not math.isfinite(value) or _parsed(value) == value:
        return value
    above = below = value
    for _ in range(MAX_STEPS):
        above, below = math.nextafter(above, math.inf), math.nextafter(below, -math.inf)
        for neighbour in (above, below):
            if math.isfinite(neighbour) and _parsed(neighbour) == neighbour:
                return neighbour
    return float(f"{value:.5g}")


def _parsed(value: float) -> float:
    """Return what serde_json reads (`f64_from_parts`) from the shortest text of a float."""
    mantissa, _, exponent_text = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    exponent = int(exponent_text or 0) - len(fraction)
    parsed = float(int(whole + fraction))
    while parsed:
        if abs(exponent) < len(_POWERS):
            parsed = parsed * _POWERS[exponent] if exponent >= 0 else parsed / _POWERS[-exponent]
            break
        parsed /= (
            1e308  # only smaller than all powers: a finite float has no such positive exponent
        )
        exponent += 308
    return math.copysign(parsed, value)


def hash_bytes(value: bytes) -> bytes:
    """Return the 16-byte BLAKE2b hash of these bytes."""
    return hashlib.blake2b(value, digest_size=HASH_BYTES).digest()


def hash_text(text: str) -> bytes:
    """Return the 16-byte BLAKE2b hash of the text in UTF-8."""
    return hash_bytes(text.encode("utf-8", "surrogatepass"))


def encode_payload(payload: dict[str, Any]) -> bytes:
    """Return a payload as canonical JSON: sorted keys, UTC times, plain numbers, and text for types
    that JSON lacks. Integers beyond 64 bits become text, and so do whole decimals of that size,
    NaN, infinities, levels beyond `MAX_LEVELS`, and the largest fields beyond `MAX_PAYLOAD_BYTES`.
    A float becomes the nearest one that the store gives back unchanged (`storable_float`), or an
    integer if it is whole and large: as such it is compared exactly."""
    return _encode(payload, find_long_numbers=True)


def encode_payloads(
    names: Sequence[str], columns: Sequence[Sequence[Any]], rows: int
) -> list[bytes]:
    """Return `encode_payload` of each row. Long numbers are searched for only if a column may
    contain any."""
    if not names:
        return [b"{}"] * rows
    long_numbers = any(map(_may_have_long_numbers, columns))
    return [
        _encode(dict(zip(names, values, strict=True)), find_long_numbers=long_numbers)
        for values in zip(*columns, strict=True)
    ]


def _encode(payload: dict[str, Any], *, find_long_numbers: bool) -> bytes:
    """Return the payload's JSON. With `find_long_numbers`, numbers that a store cannot hold are
    replaced."""
    try:
        encoded = orjson.dumps(payload, default=_to_json_value, option=_JSON)
        whole = not (find_long_numbers and (_LONG_NUMBER.search(encoded) or b"null" in encoded))
        whole = whole and encoded.count(b"{") + encoded.count(b"[") <= MAX_LEVELS
    except orjson.JSONEncodeError:
        whole = False
    if not whole:
        payload = _repair(payload)
        encoded = orjson.dumps(payload, option=_JSON)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        sizes = {
            name: len(orjson.dumps(value, default=_to_json_value, option=_JSON))
            for name, value in payload.items()
        }
        large = {
            name: f"… ({size:,} bytes)"
            for name, size in sizes.items()
            if size * len(sizes) > MAX_PAYLOAD_BYTES
        }
        encoded = orjson.dumps({**payload, **large}, default=_to_json_value, option=_JSON)
    return (
        b"%b" % encoded
    )  # a copy of its own size: what orjson returns keeps a buffer of about 4 KB


def _may_have_long_numbers(column: Sequence[Any]) -> bool:
    kinds = set(map(type, column)) - _NOT_NUMBERS
    if kinds == {int}:
        return any(type(value) is int and not -_SAFE_INT < value < _SAFE_INT for value in column)
    return bool(kinds)


def decode_payload(payload: bytes) -> dict[str, Any]:
    """Return the dict that `encode_payload` encoded."""
    value: dict[str, Any] = orjson.loads(payload)
    return value


def _to_json_value(value: Any) -> Any:
    """Return the nearest JSON value for a value of another type; orjson calls this again for values
    inside it."""
    if isinstance(value, decimal.Decimal):  # one form for equal decimals: 1.5 for 1.50, 2 for 2.00
        if not value.is_finite():
            return float(value) if not value.is_snan() else float("nan")
        if value != value.to_integral_value():
            return float(value)
        return int(value) if abs(value) < _INT64 else plain_decimal(value)
    if isinstance(value, dt.date | dt.time):
        return utc_iso(value) if isinstance(value, dt.datetime) else value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, enum.Enum):
        return value.value
    if type(value).__name__ == "Multirange":  # one of psycopg
        return str(type(value)(map(_range_in_utc, value)))
    if type(value).__name__ == "Range":
        return str(_range_in_utc(value))
    return str(value)


def _range_in_utc(value: Any) -> Any:
    ends = [
        utc_iso(end) if isinstance(end, dt.datetime) else end for end in (value.lower, value.upper)
    ]
    return value if value.isempty else type(value)(*ends, value.bounds)


def _repair(value: Any, level: int = 0) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _storable_number(value)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    if level > MAX_LEVELS:
        try:
            return orjson.dumps(value, default=_to_json_value, option=_JSON).decode()
        except orjson.JSONEncodeError:  # hundreds of levels
            return "…"
    if isinstance(value, dict):
        return {str(_repair(str(key))): _repair(inner, level + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_repair(inner, level + 1) for inner in value]
    return _repair(_to_json_value(value), level + 1)


def _storable_number(value: float) -> float | int | str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return (
        int(value)
        if EXACT_IN_FLOAT <= abs(value) < _INT64 and value.is_integer()
        else storable_float(value)
    )


def comparable_time(value: Any) -> Any:
    """Return a time as text in the form that stores compare, if Python knows it in another; else
    the value."""
    if not isinstance(value, str) or _STORED_TIME.fullmatch(value):
        return value
    try:
        return dt.datetime.fromisoformat(value).isoformat()
    except ValueError:
        return value


def utc_iso(value: dt.datetime) -> str:
    """Return the time in ISO format, in UTC if it has a time zone and as it is if not."""
    if value.tzinfo is None:
        return value.isoformat()
    try:
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:  # the first or the last day that a datetime can hold
        return value.isoformat()


def plain_decimal(value: decimal.Decimal) -> str:
    """Return all digits of a decimal, without an exponent and without trailing zeros of a
    fraction."""
    digits = f"{value:f}" if value else "0"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits
