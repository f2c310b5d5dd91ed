"""Conditions on numbers and times compare values, whatever form they are written in."""

import random
import uuid
from contextlib import closing
from datetime import UTC, datetime
from operator import ge, gt, le, lt

import numpy as np
import pytest

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import Condition
from rag_index.core.documents.batches import PointBatch
from rag_index.core.documents.canonical import comparable_time, decode_payload, encode_payload

LARGE = [2**53, 2**54, 2**60, 2**63 - 1, 10**16]
NUMBERS = [0, -1, 0.5, 1e300, 2**53 + 1, -(2**63), -(2**63) + 1]


@pytest.mark.parametrize("kind", [None, "integer", "float"])
def test_numbers_are_equal_as_in_python_and_compare_as_floats(tmp_path, kind):
    chance = random.Random(3)
    values = [
        *NUMBERS,
        *(min(one + step, 2**63 - 1) * sign for one in LARGE for step in (-1, 0, 1) for sign in (1, -1)),
    ]
    values = [value for value in values if kind != "integer" or isinstance(value, int)]
    stored = [decode_payload(encode_payload({"f": value})) for value in values]
    with closing(EdgeStore(tmp_path)) as store:
        fill(store, stored, {"f": kind})

        def found(condition: Condition) -> set[int]:
            return {point.payload["number"] for point in store.scroll("c", conditions=[condition])}

        for bound in chance.sample(values, 15):
            equal = {n for n, value in enumerate(values) if value == bound}
            assert found(Condition("f", "eq", bound)) == found(Condition("f", "any", [bound, "x"])) == equal
        for bound in (-1, 0, 0.5):
            for word, compare in (("gte", ge), ("gt", gt), ("lte", le), ("lt", lt)):
                wanted = {n for n, value in enumerate(values) if compare(value, bound)}
                assert found(Condition("f", "range", {word: bound})) == wanted, (word, bound)


def test_times_in_rows_compare_in_all_forms_in_which_they_are_bounds(tmp_path):
    forms = ["2024-05-01", "2024-05-01T10", "2024-05-01T10:00", "2024-05-01 10:00Z", "2024-05-01T10:00+02:00"]
    forms += [
        "20240501T100000Z", "20240501", "2024-05-01T10:00:00,5", "2024-W18-3T10:00", "2024-05-01 10:00:00.5+02:00",
    ]  # fmt: skip
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
