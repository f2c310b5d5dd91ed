"""Canonical forms and groups: equal values have one form, which never changes; what cannot be read
gives no group."""

import datetime as dt
import decimal
import enum
import json
import math
import struct
import uuid
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rag_index.core.documents import canonical
from rag_index.core.documents.canonical import (
    decode_payload,
    encode_payload,
    hash_bytes,
    hash_text,
    storable_float,
)
from rag_index.core.documents.groups import groups_in, groups_of, with_groups
from rag_index.core.documents.keys import (
    decode_key,
    document_id,
    encode_key,
    encode_keys,
    point_id,
    possible_keys,
    untyped_key_hash,
)
from rag_index.errors import SourceError

CET = dt.timezone(dt.timedelta(hours=1))
NOON = dt.datetime(2024, 5, 1, 12, 30, tzinfo=dt.UTC)

keys = st.one_of(
    st.integers(),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.uuids(),
    st.dates(),
    st.datetimes(timezones=st.just(dt.UTC)),
    st.binary(max_size=20),
    st.booleans(),
    st.floats(allow_nan=False).filter(bool),
    st.decimals(allow_nan=False, allow_infinity=False, places=5).filter(bool),
)
cells = st.one_of(
    keys,
    st.none(),
    st.integers(-(10**19), 10**19),
    st.sampled_from([2**63 - 1, 2**63, 2**64, 10**18, -(10**18), 1e18, 12345678901234567890.0]),
    st.sampled_from(["9" * 25, [2**63], {"n": 2**70}]),
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(),
        st.decimals(),
        st.datetimes(),
    )
    | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@settings(deadline=None)
@given(st.lists(keys, min_size=1, max_size=3), st.lists(keys, min_size=1, max_size=3))
def test_keys_are_equal_exactly_if_type_and_value_are(one, other):
    same = [(type(value), value) for value in one] == [(type(value), value) for value in other]
    assert (encode_key(one) == encode_key(other)) is same


@settings(deadline=None)
@given(st.lists(st.tuples(cells, cells), max_size=5), st.booleans())
def test_encode_payloads_equals_encode_payload_of_each_row(rows, same_kind):
    if same_kind and rows:
        rows = [
            (first, rows[0][1])
            for first, _ in rows
            if type(first) in (type(rows[0][0]), type(None))
        ]
    columns = list(zip(*rows, strict=True)) or [(), ()]
    alone = [encode_payload({"a": first, "b": second}) for first, second in rows]
    assert canonical.encode_payloads(["a", "b"], columns, len(rows)) == alone


@settings(deadline=None)
@given(st.lists(st.tuples(keys, keys), max_size=5), st.booleans())
def test_encode_keys_equals_encode_key_of_each_row(rows, one):
    columns = (list(zip(*rows, strict=True)) or [(), ()])[: 1 if one else 2]
    assert encode_keys(columns) == [encode_key(row[: len(columns)]) for row in rows]


def test_the_form_of_each_type_of_key():
    """These forms must never change, since point ids and ledgers are made of them."""
    for value, key, expected_id in (
        (1, "1", "1"),
        ("1", '"1"', "1"),
        (True, "true", "true"),
        (1.0, "1.0", "1.0"),
        (10**40, str(10**40), str(10**40)),
        ("", '""', ""),
        ("žluťoučký 🐎", '"žluťoučký 🐎"', "žluťoučký 🐎"),
        ('a"b\\c\n', '"a\\"b\\\\c\\n"', 'a"b\\c\n'),
        ("nul\0", '"nul\\u0000"', "nul\0"),
        ("[1]", '"[1]"', "[1]"),
        (
            uuid.UUID(int=255),
            '{"uuid":"00000000-0000-0000-0000-0000000000ff"}',
            "00000000-0000-0000-0000-0000000000ff",
        ),
        (Decimal("1.50"), '{"decimal":"1.5"}', "1.5"),
        (Decimal("2E+3"), '{"decimal":"2000"}', "2000"),
        (Decimal("-0.00"), '{"decimal":"0"}', "0"),
        (dt.date(2024, 2, 29), '{"date":"2024-02-29"}', "2024-02-29"),
        (NOON.replace(tzinfo=None), '{"time":"2024-05-01T12:30:00"}', "2024-05-01T12:30:00"),
        (NOON.astimezone(CET), '{"time":"2024-05-01T12:30:00Z"}', "2024-05-01T12:30:00Z"),
        (b"\x00\xff", '{"bytes":"00ff"}', "00ff"),
        (memoryview(b"\x01"), '{"bytes":"01"}', "01"),
        (float("inf"), '{"float":"inf"}', "inf"),
    ):
        assert encode_key([value]) == key
        assert document_id(key) == expected_id
        assert decode_key(key) == (bytes(value) if isinstance(value, memoryview) else value)
        assert key in possible_keys([expected_id])


def test_a_key_of_several_columns_is_an_array_and_what_cannot_be_one_is_refused_by_its_name():
    assert encode_key(["a", 1]) == '["a",1]'
    assert document_id(encode_key(["a", 1])) == '["a",1]'
    several = f'["00000000-0000-0000-0000-000000000001",{10**30},"é"]'
    assert document_id(encode_key([uuid.UUID(int=1), 10**30, "é"])) == several
    assert encode_key(["a", "b"]) != encode_key(['a","b'])
    for value, message in (
        (None, "NoneType"),
        ([1], "list"),
        ({"a": 1}, "dict"),
        ("\ud800", "not valid Unicode"),
    ):
        with pytest.raises(SourceError, match=message):
            encode_key([value])


def test_hashes_and_ids_never_change():
    """A change here rebuilds every index: raise INDEX_VERSION with it."""
    assert hash_text("").hex() == "cae66941d9efbd404e4d88758ea67670"
    assert hash_text("Grüße, 世界").hex() == "e65cb4c853d3125efaa2e0f009c6173b"
    assert hash_text("a\ud800") != hash_text("a\ud801")
    assert hash_bytes(b'{"a":1}').hex() == "2c6b113b8dd15ffbded9860b43eb0c6c"
    assert point_id("notes", "1", 0) == "3831be8b-367a-559a-b818-e9aa8dc7a21b"
    assert point_id("notes", '"1"', 0) == "aa61e4e4-8db0-553d-b61f-b5850c3a4fff"


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("text", "text"),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (2**63, str(2**63)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (Decimal("1.50"), 1.5),
        (Decimal("2.00"), 2),
        (Decimal("12345678901234567890123"), "12345678901234567890123"),
        (Decimal("NaN"), "NaN"),
        (float("nan"), "NaN"),
        (float("-inf"), "-Infinity"),
        ([None, float("inf")], [None, "Infinity"]),
        (1e16, 10**16),
        (0.1, 0.1),
        (NOON, "2024-05-01T12:30:00Z"),
        (NOON.astimezone(CET), "2024-05-01T12:30:00Z"),
        (NOON.replace(tzinfo=None), "2024-05-01T12:30:00"),
        (dt.datetime.min.replace(tzinfo=CET), "0001-01-01T00:00:00+01:00"),
        (NOON.date(), "2024-05-01"),
        (dt.time(12, 30), "12:30:00"),
        (dt.timedelta(minutes=1, microseconds=500_000), 60.5),
        (b"\x00\xff", "AP8="),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "red"),
        ({"b", "a"}, ["a", "b"]),
        ((1, Decimal("2.50")), [1, 2.5]),
        ({"z": {"y": 1, "a": [NOON]}}, {"z": {"a": ["2024-05-01T12:30:00Z"], "y": 1}}),
        ("half \ud83d of an emoji", "half ? of an emoji"),
        ({"in a set \udc00"}, ["in a set ?"]),
        ([{"\udc00": 2**70}], [{"?": str(2**70)}]),
    ],
    ids=lambda value: (
        type(value).__name__
    ),  # equal in all processes, unlike the repr of a set or a memoryview
)
def test_the_canonical_form_of_each_type(value, expected):
    payload = encode_payload({"value": value})
    assert decode_payload(payload) == {"value": expected}
    assert type(decode_payload(payload)["value"]) is type(expected)


@settings(deadline=None)
@given(st.dictionaries(st.text(), values, max_size=6))
def test_any_payload_has_one_form_that_a_store_accepts(payload):
    encoded = encode_payload(payload)
    assert encoded == encode_payload(dict(reversed(payload.items())))
    decoded = decode_payload(encoded)
    assert encode_payload(decoded) == encoded
    json.loads(encoded.decode("utf-8"))
    assert all(-(2**63) <= number < 2**63 for number in integers(decoded))
    repaired = decode_payload(encode_payload({**payload, "big": 2**80}))
    assert {**repaired, "big": decoded.get("big")} == {**decoded, "big": decoded.get("big")}


def integers(value):
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [number for inner in value for number in integers(inner)]
    return [value] if type(value) is int else []


def test_the_deep_levels_of_a_payload_become_text():
    for levels, kept in ((60, True), (61, False), (200, False), (2000, False)):
        value: object = 1
        for _ in range(levels):
            value = {"a": value} if levels % 2 else [value]
        stored = decode_payload(encode_payload({"value": value}))["value"]
        assert (stored == value) is kept
        depth = 0
        while isinstance(stored, list | dict):
            stored, depth = (stored["a"] if isinstance(stored, dict) else stored[0]), depth + 1
        assert depth <= 60
        assert kept or isinstance(stored, str)


def distance(one: float, other: float) -> int:
    """Return how many floats lie between two of the same sign: a store gives each back, or a near
    one."""
    return abs(
        struct.unpack("q", struct.pack("d", one))[0]
        - struct.unpack("q", struct.pack("d", other))[0]
    )


@given(st.floats())
@example(1.23e-307)
def test_any_float_becomes_a_near_one_that_stays(value):
    stored = storable_float(value)
    if math.isnan(value):
        assert math.isnan(stored)
        return
    assert storable_float(stored) == stored
    assert math.isinf(value) or canonical._parsed(stored) == stored
    assert distance(value, stored) <= 1000


def test_a_value_gives_its_groups_sorted_and_each_once_by_the_separator_of_the_settings():
    for value, groups in (
        ("staff", ["staff"]),
        (" staff , board,staff", ["board", "staff"]),
        ('["staff", "board", "staff"]', ["board", "staff"]),
        ('["a, b"]', ["a, b"]),
        (["staff", "board"], ["board", "staff"]),
        (("staff", None, 1), ["1", "staff"]),
        ({"staff"}, ["staff"]),
        (7, ["7"]),
        (decimal.Decimal("7.00"), ["7"]),
        (ID, [str(ID)]),
        ("Staff", ["Staff"]),
    ):
        assert groups_of(value) == groups
    assert groups_of("a;b,c", ";") == ["a", "b,c"]
    assert groups_of("cn=staff,ou=groups", "") == ["cn=staff,ou=groups"]
    assert groups_of('["a;b"]', ";") == ["a;b"], "an array needs no separator"


def test_what_is_empty_or_cannot_be_read_gives_no_group():
    texts = [
        ",",
        "[]",
        "{}",
        "[",
        '["staff"',
        "{a,b}",
        '{"staff}',
        "{{a},{b}}",
        '{"a": 1}',
        "[" * 100_000,
    ]
    others = [
        [],
        [None],
        {},
        {"staff": 1},
        b"staff",
        1.5,
        True,
        [["staff"]],
        decimal.Decimal("NaN"),
    ]
    for value in (None, "", "   ", *texts, *others, "a\ud800", "b\ufffd"):
        assert groups_of(value) == []


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")), max_size=5))
def test_groups_in_a_payload_come_back(groups):
    expected = groups_of(groups)
    assert groups_in(with_groups({"author": "ann"}, expected)) == expected
    assert groups_in(b'{"author":"ann"}') is None


@pytest.mark.parametrize(
    "values",
    [
        (7, "7", 7.0, Decimal("7.00"), "007", b"7", "7 "),
        (
            uuid.UUID(int=5),
            str(uuid.UUID(int=5)),
            uuid.UUID(int=5).bytes,
            uuid.UUID(int=5).hex.upper(),
        ),
        (
            dt.datetime(2024, 5, 1, 10, tzinfo=dt.UTC),
            "2024-05-01 10:00:00+00:00",
            "2024-05-01T10:00",
        ),
        (dt.date(2024, 5, 1), "2024-05-01"),
        ("anna@example.org", b"anna@example.org"),
    ],
    ids=lambda values: str(values[0]),
)
def test_a_key_is_recognised_in_another_type(values):
    assert len({untyped_key_hash(encode_key([value])) for value in values}) == 1


def test_keys_that_look_alike_are_others_and_the_columns_of_a_key_may_change_places():
    assert untyped_key_hash(encode_key([1])) != untyped_key_hash(encode_key([10]))
    assert untyped_key_hash(encode_key([1, 2]), ("a", "b")) == untyped_key_hash(
        encode_key([2, 1]), ("b", "a")
    )
    assert untyped_key_hash(encode_key([1, 2]), ("a", "b")) != untyped_key_hash(
        encode_key([2, 1]), ("a", "b")
    )
