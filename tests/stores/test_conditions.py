"""How few conditions a filter becomes: each one makes an engine read every payload again."""

from __future__ import annotations

import random

import pytest

from rag_index.stores import Condition
from rag_index.stores.conditions import payload_filter


class Counting:
    """A dialect whose filters are functions of one number, in the engine's order, that count their comparisons."""

    def __init__(self) -> None:
        self.conditions = self.compared = 0

    def keywords(self, field, values):
        return self._condition(lambda number: False)

    integers = keywords

    def numbers(self, field, bounds):
        return self._condition(lambda number: bounds["gte"] <= number <= bounds["lte"])

    def group(self, must, should, must_not):
        def check(number):
            found = not should or any(one(number) for one in should)
            return found and all(one(number) for one in must) and not any(one(number) for one in must_not)

        return check

    def _condition(self, check):
        self.conditions += 1

        def counted(number):
            self.compared += 1
            return check(number)

        return counted


@pytest.mark.parametrize("op", ["any", "not"])
def test_a_list_of_texts_or_large_integers_is_one_condition(op):
    for values in ([f"name {number}" for number in range(1000)], [2**60 + number for number in range(1000)]):
        dialect = Counting()
        payload_filter([Condition("a", op, values)], dialect)
        assert dialect.conditions == 1


@pytest.mark.parametrize("op", ["any", "not"])
def test_of_a_list_of_numbers_a_point_is_compared_with_few(op):
    values = random.Random(1).sample(range(100_000), 1000)
    dialect = Counting()
    check = payload_filter([Condition("a", op, values)], dialect)
    for number in [*values[:100], -1, 50_000.5, 200_000, *(value + 1 for value in values[:100])]:
        dialect.compared = 0
        assert check(number) == ((number in values) == (op == "any"))
        assert dialect.compared <= 30
