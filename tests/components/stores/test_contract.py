"""The contract of every store: embedded, a fake server over HTTP and gRPC, the real server at
QDRANT_URL."""

import os
import uuid
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from rag_index.components.stores.edge.store import EdgeStore
from rag_index.components.stores.protocol import PayloadCondition, VectorQuery
from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.link import ServerAccess
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, PointBatch
from rag_index.core.documents.canonical import decode_payload, encode_payload
from rag_index.errors import PointsRefused, StoreError, StoreMismatch
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

DIMENSION = 8
ONES = np.ones(DIMENSION, np.float32)
KINDS = ["edge", "http", "grpc", pytest.param("server", marks=pytest.mark.qdrant_server)]
VALUES: dict[str, Any] = {
    "one": 1,
    "one float": 1.0,
    "half": 1.5,
    "zero": 0,
    "huge": 2**60 + 1,
    "true": True,
    "false": False,
    "text 1": "1",
    "empty text": "",
    "ünï 日本": "ünï 日本",
    "null": None,
    "empty list": [],
    "numbers": [1, 2],
    "words": ["low", "high"],
    "mixed": [True, "low"],
    "day": "2024-01-02",
    "time": "2024-01-02T03:04:05+00:00",
    "offset": "2024-01-02T05:04:05.500000+02:00",
    "naive": "2024-06-01T00:00:00",
    "object": {"inner": 1},
}
PRESENT = set(VALUES) - {"null", "empty list"}
CONDITIONS: list[tuple[str, Any, set[str]]] = [
    ("eq", 1, {"one", "one float", "numbers"}),
    ("eq", 1.5, {"half"}),
    ("eq", 0, {"zero"}),
    ("eq", 2**60 + 1, {"huge"}),
    ("eq", True, {"true", "mixed"}),
    ("eq", False, {"false"}),
    ("eq", "1", {"text 1"}),
    ("eq", "", {"empty text"}),
    ("eq", "low", {"words", "mixed"}),
    ("eq", "2024-01-02", {"day"}),
    ("eq", datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), {"time"}),
    ("eq", None, {"null", "empty list", "missing"}),
    ("any", ["1", "low", "nothing"], {"text 1", "words", "mixed"}),
    ("any", [1, 2], {"one", "one float", "numbers"}),
    ("any", ["low", 1.5, False], {"words", "mixed", "half", "false"}),
    ("any", (None, "1"), {"null", "empty list", "missing", "text 1"}),
    ("any", [], set()),
    ("any", [7, 0, 1.5, 2, *range(10, 100)], {"zero", "half", "numbers"}),
    ("any", [2**60 + 1, 2**60, "high", 3], {"huge", "words"}),
    (
        "any",
        [date(2024, 1, 2), datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC), date(2030, 1, 1)],
        {"day", "time"},
    ),
    ("range", {"gte": 1}, {"one", "one float", "half", "huge", "numbers"}),
    ("range", {"gt": 0, "lt": 1.5}, {"one", "one float", "numbers"}),
    ("range", {"lte": 0}, {"zero"}),
    ("range", {"gte": "2024-01-02T03:04:05Z"}, {"time", "offset", "naive"}),
    ("range", {"gt": "2024-01-02T03:04:05", "lt": "2024-01-02T05:04:06+02:00"}, {"offset"}),
    ("range", {"gte": "2024-01-02", "lte": date(2024, 1, 3)}, {"day", "time", "offset"}),
    ("range", {"lt": datetime(2024, 1, 2, 3, tzinfo=UTC)}, {"day"}),
    ("exists", None, PRESENT),
    ("not", 1, {*VALUES, "missing"} - {"one", "one float", "numbers"}),
    ("not", "low", {*VALUES, "missing"} - {"words", "mixed"}),
    ("not", True, {*VALUES, "missing"} - {"true", "mixed"}),
    ("not", None, PRESENT),
    (
        "not",
        ["low", "1", 1, True, None],
        PRESENT - {"words", "mixed", "text 1", "one", "one float", "numbers", "true"},
    ),
]


@contextmanager
def open_kind(kind, folder):
    match kind:
        case "edge":
            yield EdgeStore(folder)
        case "http":
            with FakeQdrant() as qdrant:
                yield ServerStore(ServerAccess(qdrant.url, patience=1))
        case "grpc":
            with FakeQdrant() as qdrant, FakeQdrantGrpc(qdrant) as fast:
                yield ServerStore(ServerAccess(qdrant.url, patience=1, grpc_port=fast.port))
                assert {call for call in qdrant.seen if not call.startswith("GRPC")} <= {
                    "GET /",
                    "GET /collections",
                }
        case _:
            if "QDRANT_URL" not in os.environ:
                pytest.skip("needs a Qdrant server: set QDRANT_URL")
            yield ServerStore(
                ServerAccess(os.environ["QDRANT_URL"], api_key=os.environ.get("QDRANT_API_KEY"))
            )


@pytest.fixture(scope="module", params=KINDS)
def store(request, tmp_path_factory):
    """One store for all tests; each test makes its own collections."""
    with open_kind(request.param, tmp_path_factory.mktemp("store")) as store:
        yield store
        for name in store.collections():
            if name.startswith("contract_"):
                store.drop(name)
        store.close()
        store.close()
        with pytest.raises(StoreError, match="closed"):
            store.points("contract_none").count()


@pytest.fixture
def name(store):
    """A collection without points."""
    name = new_name()
    store.create(name, DIMENSION, {"made": "for a test"})
    yield name
    store.drop(name)


def new_name() -> str:
    return f"contract_{uuid.uuid4().hex}"


def point_id(n: object) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))


def batch(
    rows: list[int], payloads: list[dict[str, Any]] | None = None, *, key: str | None = None
) -> PointBatch:
    """Return one point for each row: the row's own document, or chunk `row` of the document
    `key`."""
    vectors = np.stack([np.random.default_rng(n).normal(size=DIMENSION) for n in rows]).astype(
        np.float32
    )
    made = [{RESERVED_KEY: {"key": key or f'"{n}"', "chunk": n if key else 0}} for n in rows]
    made = [own | given for own, given in zip(made, payloads or [{}] * len(rows), strict=True)]
    return PointBatch([point_id(f"{key}{n}") for n in rows], vectors, made)


def ids(store, name) -> set[str]:
    return {point.id for point in store.points(name).scroll()}


def test_create_keeps_an_existing_collection_and_merges_metadata(store, name):
    store.create(
        name,
        DIMENSION,
        {"id": "one", "model": {"name": "m", "prefixes": ["a: ", ""]}, "nothing": None},
    )
    store.points(name).upsert(batch([1]))
    store.create(name, DIMENSION, {"id": "two", "more": 1})
    store.points(name).set_metadata({"made": None, "model": {"other": 2}, "ключ": "значение"})
    expected = {"id": "two", "model": {"other": 2}, "more": 1, "ключ": "значение"}
    assert (
        store.collections()[name] == store.find(name) == store.points(name).metadata() == expected
    )
    assert store.find("contract_none") is None
    assert name in store.names()
    assert (store.points(name).count(), store.points(name).dimension()) == (1, DIMENSION)
    with pytest.raises(StoreMismatch, match=rf"{name}.*{DIMENSION}-d.*768-d.*rebuild"):
        store.create(name, 768, {})
    assert store.points(name).dimension() == DIMENSION


def test_the_mark_of_the_last_commit_stays_with_the_points_and_is_none(store, name):
    assert store.points(name).commit_mark() == CommitMark()
    store.points(name).upsert(batch([1, 2, 3]))
    for number in (1, 2):
        store.points(name).set_commit_mark(
            CommitMark(number, f"2026-11-20T02:00:0{number}.123456+00:00")
        )
    assert store.points(name).commit_mark() == CommitMark(2, "2026-11-20T02:00:02.123456+00:00")
    assert (store.points(name).count(), ids(store, name)) == (
        3,
        {point_id(f"None{n}") for n in (1, 2, 3)},
    )
    assert len(store.points(name).search(VectorQuery(batch([1]).vectors[0], 10, exact=True))) == 3
    store.points(name).delete_points(list(ids(store, name)))
    assert (store.points(name).count(), store.points(name).commit_mark().number) == (0, 2)


def test_drop(store, name):
    store.points(name).upsert(batch([1, 2]))
    alias = new_name()
    store.point_alias(alias, name)
    store.drop(name)
    assert (name in store.collections(), alias in store.aliases()) == (False, False)
    with pytest.raises(StoreError, match=name):
        store.points(name).count()
    store.drop(name)
    store.create(name, 4, {})
    assert (store.points(name).count(), store.points(name).dimension()) == (0, 4)


def test_a_missing_collection_is_named(store):
    for use in (
        lambda name: store.points(name).count(),
        lambda name: store.points(name).upsert(batch([1])),
        lambda name: store.points(name).search(VectorQuery(ONES, 1)),
        lambda name: list(store.points(name).scroll()),
        lambda name: store.points(name).retrieve([point_id(1)]),
        lambda name: store.points(name).set_metadata({"a": 1}),
        lambda name: store.points(name).dimension(),
        lambda name: store.points(name).index_fields({"a": "keyword"}),
        lambda name: store.point_alias(new_name(), name),
    ):
        with pytest.raises(StoreError, match="contract_none"):
            use("contract_none")


def test_an_alias_is_read_like_a_collection_and_cannot_share_its_name(store, name):
    points = batch(list(range(20)))
    store.points(name).upsert(points)
    alias = new_name()
    store.point_alias(alias, name)
    assert (store.aliases()[alias], store.points(alias).count()) == (name, 20)
    assert (store.points(alias).count(keys=['"3"']), store.points(alias).dimension()) == (
        1,
        DIMENSION,
    )
    assert {point.id for point in store.points(alias).scroll(page=7)} == set(points.ids)
    assert store.points(alias).retrieve(points.ids[:1])[0].id == points.ids[0]
    assert store.points(alias).search(VectorQuery(points.vectors[3], 1))[0].id == points.ids[3]
    assert alias not in store.collections()
    with pytest.raises(StoreError):
        store.create(alias, DIMENSION, {})
    with pytest.raises(StoreError):
        store.point_alias(name, name)
    store.drop(alias)
    assert store.aliases()[alias] == name


def test_upsert_replaces_whole_points(store, name):
    store.points(name).upsert(batch([1, 2], [{"a": 1, "b": 1}, {"a": 2}]))
    new = PointBatch([point_id("None1")], batch([7]).vectors, [{"a": "new"}])
    store.points(name).upsert(new)
    (point,) = store.points(name).retrieve([*new.ids, point_id("no")], vectors=True)
    assert point.payload == {"a": "new"}
    assert np.allclose(point.vector, new.vectors[0] / np.linalg.norm(new.vectors[0]), atol=1e-6)
    assert store.points(name).count() == 2


def test_payloads_come_back_as_they_were(store, name):
    payload = {
        "Größe": "日本語 🙂",
        "a b.c": [1, "two", None, {"three": 3.5}],
        "null": None,
        "true": True,
        "float": 0.1 + 0.2,
        "whole": 1.0,
        "big": 2**62,
        "empty": {},
    }
    store.points(name).upsert(PointBatch([point_id(1)], batch([1]).vectors, [payload]))
    (point,) = store.points(name).retrieve([point_id(1)])
    assert (point.payload, point.payload["true"] is True, point.vector) == (payload, True, None)


@hypothesis.given(
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=50, max_size=200)
)
@hypothesis.settings(
    max_examples=20, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture]
)
def test_every_float_comes_back_as_it_was_encoded(store, name, values):
    payload = decode_payload(encode_payload({"values": values, "one": values[0]}))
    store.points(name).upsert(PointBatch([point_id(1)], batch([1]).vectors, [payload]))
    store.points(name).flush()
    (point,) = store.points(name).retrieve([point_id(1)])
    assert point.payload == payload
    store.points(name).update_payloads([(point_id(1), {"values": payload["values"]})])
    (point,) = store.points(name).scroll()
    assert point.payload == {"values": payload["values"]}


def test_a_payload_update_replaces_the_whole_payload_and_names_missing_points(store, name):
    points = batch([1, 2, 3], [{"a": 1, "gone": 1}, {"a": 2, "gone": 1}, {"a": 3}])
    store.points(name).upsert(points)
    before = {point.id: point.vector for point in store.points(name).scroll(vectors=True)}
    pairs = [(points.ids[0], {"a": 10}), (point_id("gone"), {"a": 2}), (points.ids[1], {})]
    with pytest.raises(StoreMismatch, match=rf"1 points .*{name}.*{point_id('gone')}.*doctor"):
        store.points(name).update_payloads(pairs)
    found = {point.id: point for point in store.points(name).scroll(vectors=True)}
    assert [found[i].payload for i in points.ids] == [{"a": 10}, {}, points.payloads[2]]
    assert {point.id: point.vector for point in found.values()} == before


def test_delete_points_and_chunks(store, name):
    points = batch(list(range(10)))
    store.points(name).upsert(points)
    store.points(name).delete_points([*points.ids[:4], point_id("never there")])
    assert ids(store, name) == set(points.ids[4:])
    store.points(name).delete_points(points.ids)
    for key in ('"a"', '"ключ"', "1"):
        store.points(name).upsert(batch(list(range(5)), key=key))
    store.points(name).delete_chunks(
        {'"a"': 3, '"never"': 3, '"ключ"': 0, "1": 4, **{f'"{n}"': n % 3 for n in range(2500)}}
    )
    left = {
        (point.payload[RESERVED_KEY]["key"], point.payload[RESERVED_KEY]["chunk"])
        for point in store.points(name).scroll()
    }
    assert left == {('"a"', n) for n in range(3)} | {("1", n) for n in range(4)}


def test_count_by_keys(store, name):
    store.points(name).upsert(batch(list(range(3)), key='"a"'))
    store.points(name).upsert(batch(list(range(4)), key='"b"'))
    assert (
        store.points(name).count(keys=['"a"']),
        store.points(name).count(keys=['"b"', '"a"', '"a"', '"c"']),
    ) == (
        3,
        7,
    )
    assert store.points(name).count(keys=["a"]) == 0
    assert (
        store.points(name).count(keys=[*(f'"{n}"' for n in range(1500)), '"a"', '"b"', '"a"']) == 7
    )


def test_the_values_of_a_keyword_field_are_counted(store, name):
    store.points(name).index_fields({"customer.name": "keyword"})
    names = ["ann", ["bob", "ann"], "bob", "ann", None]
    payloads = [
        {"customer": {"name": one}, RESERVED_KEY: {"chunk": n % 2}} for n, one in enumerate(names)
    ]
    store.points(name).upsert(
        PointBatch([point_id(str(n)) for n in range(5)], np.eye(5, DIMENSION), payloads)
    )
    assert list(store.points(name).facet("customer.name", limit=5).items()) == [
        ("ann", 3),
        ("bob", 2),
    ]
    first = [PayloadCondition(f"{RESERVED_KEY}.chunk", "eq", 0)]
    assert store.points(name).facet("customer.name", limit=5, conditions=first) == {
        "ann": 1,
        "bob": 1,
    }
    assert store.points(name).facet("customer.name", limit=1) == {"ann": 3}


def test_scroll_is_complete_and_in_order_of_id_and_under_conditions(store, name):
    points = batch(
        list(range(103)),
        [{"owner": n % 3, "state": "open" if n % 2 else "closed"} for n in range(103)],
    )
    store.points(name).upsert(points)
    for page in (1000, 50, 103, 1):
        assert [point.id for point in store.points(name).scroll(page=page)] == sorted(points.ids)
    (first, *_) = store.points(name).scroll(vectors=True)
    assert np.isclose(np.linalg.norm(first.vector), 1.0, atol=1e-5)
    found = store.points(name).scroll(
        page=4,
        conditions=[
            PayloadCondition("owner", "any", [1, 2]),
            PayloadCondition("state", "eq", "open"),
        ],
    )
    assert {point.id for point in found} == {
        point_id(f"None{n}") for n in range(103) if n % 3 and n % 2
    }


def test_points_are_read_under_conditions(store, name):
    points = batch(
        list(range(1200)), [{"groups": ["a", "b"] if n % 2 else ["b"], "n": n} for n in range(1200)]
    )
    store.points(name).upsert(points)
    store.points(name).index_fields({"groups": "keyword"})
    condition = PayloadCondition("groups", "any", ["a", "c"])
    found = store.points(name).retrieve([*points.ids, point_id("none")], conditions=[condition])
    assert sorted(point.payload["n"] for point in found) == list(range(1, 1200, 2))
    assert all(point.vector is None for point in found)
    few = store.points(name).retrieve(
        points.ids[:3], conditions=[condition, PayloadCondition("n", "eq", 1)], vectors=True
    )
    assert [(point.payload["n"], point.vector is None) for point in few] == [(1, False)]
    assert store.points(name).retrieve(points.ids[:1], conditions=[condition]) == []


@pytest.mark.parametrize(("bad", "message"), [(np.nan, "finite"), (np.inf, "finite"), (0, "zero")])
def test_one_bad_vector_is_named_and_nothing_is_written(store, name, bad, message):
    points = batch([1, 2, 3])
    points.vectors[1, slice(None) if bad == 0 else 3] = bad
    with pytest.raises(PointsRefused, match=message) as refused:
        store.points(name).upsert(points)
    assert (refused.value.point_ids, store.points(name).count()) == ((points.ids[1],), 0)


def test_ids_that_are_not_uuids_are_refused(store, name):
    points = batch([1, 2])
    for bad in ("1", "not-a-uuid", point_id(1).upper(), point_id(1).replace("-", "")):
        with pytest.raises(PointsRefused) as refused:
            store.points(name).upsert(
                PointBatch([points.ids[0], bad], points.vectors, points.payloads)
            )
        assert refused.value.point_ids == (bad,)
        with pytest.raises(PointsRefused, match="UUID"):
            store.points(name).retrieve([bad])
        if bad != "1":  # another program may have written it, so it can be deleted
            with pytest.raises(PointsRefused, match="UUID"):
                store.points(name).delete_points([bad])
    assert store.points(name).count() == 0


def test_vectors_of_another_dimension_and_payloads_that_are_not_json_are_refused(store, name):
    points = batch([1, 2, 3])
    for vectors in (points.vectors[:, :-1], points.vectors.ravel()[:3]):
        with pytest.raises(PointsRefused, match=rf"{name} holds {DIMENSION}-d.*rebuild"):
            store.points(name).upsert(PointBatch(points.ids, vectors, points.payloads))
    payloads: list[dict[Any, Any]] = [{"a": 1}, {1: "a key must be text"}, {"a": object()}]
    with pytest.raises(PointsRefused) as refused:
        store.points(name).upsert(PointBatch(points.ids, points.vectors, payloads))
    assert (set(refused.value.point_ids), store.points(name).count()) == (set(points.ids[1:]), 0)


def test_search_is_cosine_best_first(store, name):
    points = batch(list(range(50)))
    points.vectors[0] *= 1e-18
    points.vectors[1] *= 1e18
    store.points(name).upsert(points)
    query = batch([999]).vectors[0]
    unit = points.vectors / np.linalg.norm(points.vectors.astype(np.float64), axis=1, keepdims=True)
    scores = unit @ (query / np.linalg.norm(query))
    best = np.argsort(-scores)[:10]
    for exact in (True, False):
        found = store.points(name).search(VectorQuery(query, 10, exact=exact))
        assert [point.id for point in found] == [points.ids[i] for i in best]
        assert [point.score for point in found] == pytest.approx(scores[best].tolist(), abs=1e-4)
        assert found[0].payload == points.payloads[best[0]]
    assert len(store.points(name).search(VectorQuery(-query * 1e6, 1000))) == 50
    for bad in (ONES[1:], np.zeros(DIMENSION), np.full(DIMENSION, np.nan), ONES.reshape(1, -1)):
        with pytest.raises(StoreError):
            store.points(name).search(VectorQuery(bad.astype(np.float32), 1))
    store.points(name).optimize()
    assert store.points(name).indexed(), "small collections need no search index"


def test_conditions(store, name):
    payloads = [
        *({"f": value, "label": label} for label, value in VALUES.items()),
        {"label": "missing"},
    ]
    store.points(name).upsert(batch(list(range(len(payloads))), payloads))
    wrong = {}
    for op, value, expected in CONDITIONS:
        query = VectorQuery(ONES, 100, conditions=[PayloadCondition("f", op, value)], exact=True)
        found = {point.payload["label"] for point in store.points(name).search(query)}
        if found != expected:
            wrong[op, str(value)] = {"too many": found - expected, "too few": expected - found}
    assert not wrong


def test_all_conditions_must_hold_and_fields_have_any_name(store, name):
    odd = {"my column": "x", "list": [{"k": 1}]}
    payloads = [odd | {"größe": n, "a": {"b c": n % 2}, "1st-col": n > 2} for n in range(6)]
    store.points(name).upsert(batch(list(range(6)), payloads))

    def found(*conditions: PayloadCondition) -> set[int]:
        return {
            point.payload["größe"]
            for point in store.points(name).search(VectorQuery(ONES, 10, conditions=conditions))
        }

    assert found(
        PayloadCondition("my column", "eq", "x"), PayloadCondition("größe", "range", {"gte": 2})
    ) == {
        2,
        3,
        4,
        5,
    }
    assert found(PayloadCondition("a.b c", "eq", 1), PayloadCondition("größe", "not", 3)) == {1, 5}
    assert found(
        PayloadCondition("1st-col", "eq", True), PayloadCondition("größe", "any", [0, 4])
    ) == {4}
    assert found(PayloadCondition(f"{RESERVED_KEY}.key", "eq", '"3"')) == {3}
    assert (
        found(PayloadCondition("my column", "exists"), PayloadCondition("none", "exists")) == set()
    )


def test_payload_indexes_are_created_changed_and_removed(store, name):
    store.points(name).upsert(batch([1, 2], [{"my column": "x", "größe": 1, "a": {"b c": 1}}] * 2))
    conditions = [
        PayloadCondition("my column", "eq", "x"),
        PayloadCondition("größe", "eq", 1),
        PayloadCondition("a.b c", "eq", 1),
    ]
    fields: dict[str, str | None] = {"my column": "keyword", "größe": "float", "a.b c": "integer"}
    for change in (
        fields,
        fields,
        {"größe": "integer"},
        dict.fromkeys(fields),
        dict.fromkeys(fields),
    ):
        store.points(name).index_fields(change)
        assert len(store.points(name).search(VectorQuery(ONES, 10, conditions=conditions))) == 2
    assert store.points(name).count(keys=['"1"']) == 1
    with pytest.raises(StoreError, match="'text' is not a kind; use keyword"):
        store.points(name).index_fields({"my column": "text"})
