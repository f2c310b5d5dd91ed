"""A canonical form of each value, so that equal documents have equal hashes on any machine, with
any driver, at any time. A change of it changes the hashes: see INDEX_VERSION."""

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
"""The powers of ten that serde_json multiplies by."""
MAX_STEPS = 1000
"""Neighbouring floats that are tried on either side. Random bits have needed some tens at most."""
HASH_BYTES = 16
"""Bytes of a hash. Stored in ledgers and payloads."""
_JSON = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_NON_STR_KEYS
_INT64 = 2**63
_SAFE_INT = 10**18
"""Integers below it have at most 18 digits."""
_NOT_NUMBERS = {str, bool, type(None), dt.datetime, dt.date, dt.time, uuid.UUID}
_LONG_NUMBER = re.compile(rb"[:,\[]-?(?:(?:[0-9]\.?){16}|[0-9.]+e)")
"""The JSON of an integer that may exceed 64 bits, or of a float that the store would change. (A
hash is a text.)"""
MAX_LEVELS = 60
"""Deeper levels of a payload become text: a store cannot read more than about 100 levels back."""
MAX_PAYLOAD_BYTES = 16_000_000
"""A server refuses requests of more than 32 MB. In a larger payload, the largest fields are
replaced by their size."""
EXACT_IN_FLOAT = 2**53
"""Each smaller integer has a float of its own."""
_STORED_TIME = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?)?)?"
)
"""The forms of times that the stores compare as times. They accept an offset only after seconds."""


def storable_float(value: float) -> float:
    """Return the nearest float that the store returns unchanged: mostly `value` itself, else one
    that differs in the last bits."""
    if not math.isfinite(value) or _parsed(value) == value:
        return value
    above = value
    below = value
    for _ in range(MAX_STEPS):
        above = math.nextafter(above, math.inf)
        below = math.nextafter(below, -math.inf)
        for neighbour in (above, below):
            if math.isfinite(neighbour) and _parsed(neighbour) == neighbour:
                return neighbour
    return float(f"{value:.5g}")


def _parsed(value: float) -> float:
    """Return what serde_json (`f64_from_parts`) reads from the shortest text of a float."""
    mantissa, _, exponent_text = repr(abs(value)).partition("e")
    integer, _, fraction = mantissa.partition(".")
    exponent = int(exponent_text or 0) - len(fraction)
    parsed = float(int(integer + fraction))
    while parsed:
        if abs(exponent) < len(_POWERS):
            if exponent >= 0:
                parsed *= _POWERS[exponent]
            else:
                parsed /= _POWERS[-exponent]
            break
        # Only exponents below -308 get here: a finite float has no larger positive one.
        parsed /= 1e308
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
    that JSON lacks.

    These also become text: integers beyond 64 bits, integral decimals of that size, NaN,
    infinities, levels beyond `MAX_LEVELS`, and the largest fields beyond `MAX_PAYLOAD_BYTES`. A
    float becomes the nearest one that the store returns unchanged (`storable_float`). A large
    integral float becomes an integer, which is compared exactly.
    """
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
        needs_repair = _needs_repair(encoded, find_long_numbers=find_long_numbers)
    except orjson.JSONEncodeError:  # an integer beyond 64 bits, or half a surrogate pair
        needs_repair = True
    if needs_repair:
        payload = _repair(payload)
        encoded = orjson.dumps(payload, option=_JSON)
    if len(encoded) > MAX_PAYLOAD_BYTES:
        encoded = _without_large_fields(payload)
    # A copy of its own size: the bytes of orjson keep a buffer of about 4 KB.
    return b"%b" % encoded


def _needs_repair(encoded: bytes, *, find_long_numbers: bool) -> bool:
    """Return whether JSON may have what a store cannot hold: NaN (null), a long number, or too many
    levels."""
    if find_long_numbers and (_LONG_NUMBER.search(encoded) or b"null" in encoded):
        return True
    return encoded.count(b"{") + encoded.count(b"[") > MAX_LEVELS


def _without_large_fields(payload: dict[str, Any]) -> bytes:
    """Return the payload's JSON, with the size in place of each field that is larger than the mean
    of an allowed payload."""
    shortened = dict(payload)
    for name, value in payload.items():
        size = len(orjson.dumps(value, default=_to_json_value, option=_JSON))
        if size * len(payload) > MAX_PAYLOAD_BYTES:
            shortened[name] = f"… ({size:,} bytes)"
    return orjson.dumps(shortened, default=_to_json_value, option=_JSON)


def _may_have_long_numbers(column: Sequence[Any]) -> bool:
    kinds = set(map(type, column)) - _NOT_NUMBERS
    if kinds == {int}:
        # The column may also hold None or a bool.
        integers = [value for value in column if type(value) is int]
        return any(not -_SAFE_INT < value < _SAFE_INT for value in integers)
    # A float, a decimal or a list may hold anything.
    return bool(kinds)


def decode_payload(payload: bytes) -> dict[str, Any]:
    """Return the dict that `encode_payload` encoded."""
    value: dict[str, Any] = orjson.loads(payload)
    return value


def _to_json_value(value: Any) -> Any:
    """Return the nearest JSON value for a value of another type. orjson calls this again for values
    inside the result."""
    # Equal decimals have one form: 1.5 for 1.50, 2 for 2.00.
    if isinstance(value, decimal.Decimal):
        return _decimal_value(value)
    if isinstance(value, dt.datetime):
        return utc_iso(value)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    # A set has no order.
    if isinstance(value, set | frozenset):
        return sorted(value, key=repr)
    if isinstance(value, enum.Enum):
        return value.value
    # Ranges of psycopg, whose module is not imported for them: [2024-01-01, 2024-02-01)
    if type(value).__name__ == "Multirange":
        return str(type(value)(map(_range_in_utc, value)))
    if type(value).__name__ == "Range":
        return str(_range_in_utc(value))
    return str(value)


def _decimal_value(value: decimal.Decimal) -> float | int | str:
    # float() refuses a signalling NaN.
    if value.is_snan():
        return float("nan")
    # NaN and infinities, and decimals with a fraction: 1.5
    if not value.is_finite() or value != value.to_integral_value():
        return float(value)
    # 2.00 is 2. Integers beyond 64 bits are texts.
    return int(value) if abs(value) < _INT64 else plain_decimal(value)


def _range_in_utc(value: Any) -> Any:
    if value.isempty:
        return value
    lower, upper = (
        utc_iso(end) if isinstance(end, dt.datetime) else end for end in (value.lower, value.upper)
    )
    return type(value)(lower, upper, value.bounds)


def _repair(value: Any, level: int = 0) -> Any:
    """Return the nearest value that a store can hold. `level` counts the lists and dicts around
    it."""
    # Half a surrogate pair becomes "?".
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _storable_number(value)
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else str(value)
    # Deeper levels become text.
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
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Infinity" if value > 0 else "-Infinity"
    # 1e17 is compared exactly as an integer.
    if EXACT_IN_FLOAT <= abs(value) < _INT64 and value.is_integer():
        return int(value)
    return storable_float(value)


def comparable_time(value: Any) -> Any:
    """Return a time in the form that stores compare, if the value is a time in another form that
    Python reads, such as "20240101"; else the value."""
    if not isinstance(value, str) or _STORED_TIME.fullmatch(value):
        return value
    try:
        return dt.datetime.fromisoformat(value).isoformat()
    except ValueError:
        return value


def utc_iso(value: dt.datetime) -> str:
    """Return the time in ISO format: in UTC if it has a time zone, else as it is."""
    if value.tzinfo is None:
        return value.isoformat()
    try:
        return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z")
    except OverflowError:  # the first or the last day that a datetime can hold
        return value.isoformat()


def plain_decimal(value: decimal.Decimal) -> str:
    """Return all digits of a decimal, without an exponent and without trailing zeros of a
    fraction: "1.5" for 1.50, "1000" for 1E+3, "0" for 0E-7."""
    digits = f"{value:f}" if value else "0"
    if "." not in digits:
        return digits
    return digits.rstrip("0").rstrip(".")
