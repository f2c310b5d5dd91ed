"""Groups, read from every form in which a source may have them; what cannot be read gives no group."""

import decimal
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_index.core.documents.groups import groups_in, groups_of, with_groups

ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("value", "groups"),
    [
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
    ],
)
def test_a_value_gives_its_groups_sorted_and_each_once(value, groups):
    assert groups_of(value) == groups


@pytest.mark.parametrize(
    "value",
    [None, "", "   ", ",", "[]", "{}", "[", '["staff"', "{a,b}", '{"staff}', "{{a},{b}}", '{"a": 1}', [], [None], {},
     "[" * 100_000, {"staff": 1}, b"staff", 1.5, True, [["staff"]], "a\ud800", "b\ufffd", decimal.Decimal("NaN")],
)  # fmt: skip
def test_what_is_empty_or_cannot_be_read_gives_no_group(value):
    assert groups_of(value) == []


def test_the_separator_is_that_of_the_settings():
    assert groups_of("a;b,c", ";") == ["a", "b,c"]
    assert groups_of("cn=staff,ou=groups", "") == ["cn=staff,ou=groups"]
    assert groups_of('["a;b"]', ";") == ["a;b"], "an array needs no separator"


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\ufffd")), max_size=5))
def test_groups_in_a_payload_come_back(groups):
    expected = groups_of(groups)
    payload = with_groups({"author": "ann"}, expected)
    assert groups_in(payload) == expected
    assert groups_in(b'{"author":"ann"}') is None
