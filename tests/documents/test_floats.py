"""A float of a payload is stored as one that every store gives back unchanged: that or a neighbour."""

from __future__ import annotations

import math
import random
import struct

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.documents.canonical import _parsed, encode_payload, encode_payloads, storable_float


def distance(one: float, other: float) -> int:
    """Return how many floats lie between two of the same sign."""
    return abs(struct.unpack("q", struct.pack("d", one))[0] - struct.unpack("q", struct.pack("d", other))[0])


@given(st.floats())
def test_any_float_becomes_a_near_one_that_stays(value):
    stored = storable_float(value)
    if math.isnan(value):
        assert math.isnan(stored)
        return
    assert storable_float(stored) == stored
    assert math.isinf(value) or _parsed(stored) == stored
    assert distance(value, stored) <= 1000


def test_one_in_ten_usual_floats_is_changed_and_by_little():
    chance = random.Random(7)
    values = [chance.random() for _ in range(2000)]
    changed = [value for value in values if storable_float(value) != value]
    assert 100 < len(changed) < 400
    assert max(distance(value, storable_float(value)) for value in values) < 10


@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, 0.5, 1.0, 1e22, 12345.678, 5e-324, 1.7976931348623157e308])
def test_floats_of_few_digits_stay(value):
    assert storable_float(value) == value
    assert math.copysign(1, storable_float(value)) == math.copysign(1, value)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_payloads_hold_only_such_floats_wherever_they_are(values):
    nested = orjson.loads(encode_payload({"deep": [{"x": value} for value in values]}))
    assert [one["x"] for one in nested["deep"]] == [storable_float(value) for value in values]
    rows = encode_payloads(["a", "b"], [values, ["text"] * len(values)], len(values))
    assert [orjson.loads(row)["a"] for row in rows] == [storable_float(value) for value in values]
