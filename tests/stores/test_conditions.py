"""Conditions become filters of as few conditions as can be, since each makes an engine read every payload."""

from __future__ import annotations

import random

import pytest

from rag_index.errors import StoreError
from rag_index.stores import Condition
from rag_index.stores.conditions import payload_filter


def leaves(given) -> list:
    """Return all conditions on fields of a filter."""
    if "key" in given:
        return [given]
    return [leaf for group in given.values() for one in group for leaf in leaves(one)]


def meets(given, number: float, compared: list) -> bool:
    """Return whether a number meets a filter of ranges, as the engine finds out: `should`, `must`, `must_not`."""
    if "key" in given:
        compared.append(given)
        return given["range"]["gte"] <= number <= given["range"]["lte"]
    should, must, must_not = (given.get(kind, []) for kind in ("should", "must", "must_not"))
    found = not should or any(meets(one, number, compared) for one in should)
    return (
        found
        and all(meets(one, number, compared) for one in must)
        and not any(meets(one, number, compared) for one in must_not)
    )


@pytest.mark.parametrize("op", ["any", "not"])
def test_a_list_of_texts_or_large_integers_is_one_condition(op):
    for values in ([f"name {number}" for number in range(1000)], [2**60 + number for number in range(1000)]):
        assert len(leaves(payload_filter([Condition("a", op, values)]))) == 1


@pytest.mark.parametrize("op", ["any", "not"])
def test_of_a_list_of_numbers_a_point_is_compared_with_few(op):
    values = random.Random(1).sample(range(100_000), 1000)
    found = payload_filter([Condition("a", op, values)])
    for number in [*values[:100], -1, 50_000.5, 200_000, *(value + 1 for value in values[:100])]:
        compared = []
        assert meets(found, number, compared) == ((number in values) == (op == "any"))
        assert len(compared) <= 30


@pytest.mark.parametrize(
    "condition",
    [
        Condition("f", "like", "x"),
        Condition("f", "eq", object()),
        Condition("f", "eq", 2**70),
        Condition("f", "eq", float("nan")),
        Condition("f", "any", "low"),
        Condition("f", "range", {}),
        Condition("f", "range", {"from": 1}),
        Condition("f", "range", {"gte": 1, "lt": "2024-01-01"}),
        Condition("f", "range", {"gte": "yesterday"}),
        Condition("f", "range", {"gte": True}),
        Condition("", "exists"),
        Condition('a"b', "exists"),
    ],
)
def test_conditions_that_are_not_valid(condition):
    with pytest.raises(StoreError, match="condition"):
        payload_filter([condition])
