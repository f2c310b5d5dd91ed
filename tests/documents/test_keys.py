"""Keys in their typed form, and back."""

from __future__ import annotations

import datetime as dt
import decimal
import math
import uuid

import pytest

from rag_index.documents.keys import decode_key, encode_key

UTC = dt.UTC


@pytest.mark.parametrize(
    "value",
    [
        0, -7, 2**70, "", "7", "Zoë \"quoted\" [1]", True, 1.5, math.inf, decimal.Decimal("12.50"), b"\x00\xff",
        uuid.UUID(int=7), dt.date(2026, 1, 31),
        dt.datetime(2026, 1, 31, 10, 5, tzinfo=UTC).replace(tzinfo=None), dt.datetime(2026, 1, 31, tzinfo=UTC),
    ],
    ids=repr,
)  # fmt: skip
def test_a_value_comes_back_from_its_typed_form_with_its_type(value):
    found = decode_key(encode_key([value]))
    assert (type(found), found) == (type(value), value)


def test_a_time_with_a_zone_comes_back_as_the_same_time():
    there = dt.datetime(2026, 1, 31, 10, tzinfo=dt.timezone(dt.timedelta(hours=2)))
    assert decode_key(encode_key([there])) == there
