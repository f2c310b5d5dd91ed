"""Conditions become filters of as few conditions as can be, since each makes an engine read every payload."""

import random
import uuid
from contextlib import closing
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt

import numpy as np
import pytest

from rag_index.components.stores.conditions import payload_filter
from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import Condition
from rag_index.core.documents.batches import PointBatch
from rag_index.core.documents.canonical import comparable_time, decode_payload, encode_payload


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


LARGE = [2**53, 2**54, 2**60, 2**63 - 1, 10**16]
NUMBERS = [0, -1, 0.5, 1e16, 1e300, 2**53 + 1, -(2**63), -(2**63) + 1]


@pytest.mark.parametrize("kind", [None, "integer", "float"])
def test_numbers_compare_as_in_python_beyond_what_floats_tell_apart(tmp_path, kind):
    chance = random.Random(3)
    values = [
        *NUMBERS,
        *(min(one + step, 2**63 - 1) * sign for one in LARGE for step in (-1, 0, 1, 700) for sign in (1, -1)),
    ]
    values = [value for value in values if kind != "integer" or isinstance(value, int)]
    stored = [decode_payload(encode_payload({"f": value})) for value in values]
    with closing(EdgeStore(tmp_path)) as store:
        fill(store, stored, {"f": kind})
        for bound in chance.sample(values, 15):
            for word, compare in (("gte", ge), ("gt", gt), ("lte", le), ("lt", lt), ("eq", eq)):
                if (word, bound, kind) == ("gt", 2**63 - 1, "integer"):
                    continue
                condition = Condition("f", "eq", bound) if word == "eq" else Condition("f", "range", {word: bound})
                found = {point.payload["number"] for point in store.scroll("c", conditions=[condition])}
                assert found == {n for n, value in enumerate(values) if compare(value, bound)}, (word, bound)


def test_times_in_rows_compare_in_all_forms_in_which_they_are_bounds(tmp_path):
    forms = ["2024-05-01", "2024-05-01T10", "2024-05-01T10:00", "2024-05-01 10:00Z", "2024-05-01T10:00+02:00"]
    forms += [
        "20240501T100000Z",
        "20240501",
        "2024-05-01T10:00:00,5",
        "2024-W18-3T10:00",
        "2024-05-01 10:00:00.5+02:00",
    ]
    with closing(EdgeStore(tmp_path)) as store:
        fill(store, [{"f": comparable_time(form)} for form in forms], {"f": "datetime"})
        for bound in forms:
            moment = in_utc(bound)
            found = {
                point.payload["number"]
                for point in store.scroll("c", conditions=[Condition("f", "range", {"gte": bound})])
            }
            assert found == {number for number, form in enumerate(forms) if in_utc(form) >= moment}
            found = {point.payload["number"] for point in store.scroll("c", conditions=[Condition("f", "eq", bound)])}
            assert forms.index(bound) in found


def in_utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def fill(store: EdgeStore, payloads: list, kinds: dict) -> None:
    store.create("c", 2, {})
    store.index_fields("c", kinds)
    numbered = [
        {**payload, "number": number, "_rag": {"key": "[1]", "chunk": 0}} for number, payload in enumerate(payloads)
    ]
    ids = [str(uuid.UUID(int=number)) for number in range(len(payloads))]
    store.upsert("c", PointBatch(ids, np.ones((len(ids), 2), np.float32), numbered))
