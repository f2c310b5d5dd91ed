"""ServerStore on a server that misbehaves: retries or none, in bounded time, with correct data afterwards."""

from __future__ import annotations

import pickle
import socket
import threading
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
from qdrant_client import QdrantClient

from rag_index.documents.batches import RESERVED_KEY, PointBatch
from rag_index.errors import PointsRefused, StoreError, StoreMismatch, StoreUnavailable
from rag_index.stores.server.store import ServerStore
from tests.fakes.qdrant import DISK_FULL, POISON, FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

if TYPE_CHECKING:
    from collections.abc import Iterator

UPSERT = "PUT /collections/c/points"
PATIENCE = 0.5


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    with FakeQdrant() as fake:
        yield fake


@pytest.fixture
def store(qdrant: FakeQdrant) -> Iterator[ServerStore]:
    store = ServerStore(qdrant.url, timeout=1, patience=30)
    store.create("c", 4, {"id": "x"})
    yield store
    store.close()


@pytest.fixture
def hasty(qdrant: FakeQdrant, store: ServerStore) -> Iterator[ServerStore]:
    hasty = ServerStore(qdrant.url, timeout=1, patience=PATIENCE)
    assert hasty.count("c") == 0
    yield hasty
    hasty.close()


def points(n: int, *, poisoned: tuple[int, ...] = (), text: str = "") -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(n)]
    payloads: list[dict[str, Any]] = [{RESERVED_KEY: {"key": str(i), "chunk": 0}, "text": text} for i in range(n)]
    for i in poisoned:
        payloads[i][POISON] = True
    vectors = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    return PointBatch(ids, vectors, payloads)


# Faults that pass


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 429])
def test_passing_statuses_are_retried(qdrant: FakeQdrant, store: ServerStore, status: int) -> None:
    qdrant.break_next(UPSERT, times=2, status=status, error="one moment")
    store.upsert("c", points(10))
    assert qdrant.requests(UPSERT) == 3
    assert store.count("c") == 10


@pytest.mark.parametrize("what", [{"cut": True}, {"garbage": True}, {"update_status": "acknowledged"}])
def test_incomplete_answers_are_retried(qdrant: FakeQdrant, store: ServerStore, what: dict[str, Any]) -> None:
    qdrant.break_next(UPSERT, **what)
    store.upsert("c", points(10))
    assert qdrant.requests(UPSERT) == 2
    assert store.count("c") == 10


def test_a_hanging_request_is_abandoned_and_retried(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.break_next(UPSERT, hang=3600)
    store.upsert("c", points(10))
    assert qdrant.requests(UPSERT) == 2
    assert store.count("c") == 10


def test_a_server_that_comes_back_is_waited_for(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.stop()
    timer = threading.Timer(0.5, qdrant.start)
    timer.start()
    store.upsert("c", points(10))
    timer.join()
    assert store.count("c") == 10


# Faults that stay


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"status": 500, "error": "Service internal error: task panicked"}, "500: Service internal error"),
        ({"status": 503, "error": "no peers"}, "503: no peers"),
        ({"update_status": "acknowledged"}, "did not complete it"),
        ({"update_status": "wait_timeout"}, "did not complete it"),
        ({"cut": True}, "is it running"),
        ({"hang": 3600.0}, "is it running"),
    ],
)
def test_a_fault_that_stays_raises_unavailable_in_bounded_time(
    qdrant: FakeQdrant, hasty: ServerStore, what: dict[str, Any], message: str
) -> None:
    qdrant.break_next(UPSERT, times=None, **what)
    with pytest.raises(StoreUnavailable, match=message) as unavailable:
        hasty.upsert("c", points(10))
    assert qdrant.url in str(unavailable.value)
    assert "hang" in what or qdrant.requests(UPSERT) >= 2
    pickle.loads(pickle.dumps(unavailable.value))


# Rate limits


def test_a_pause_that_the_server_asks_for_is_made(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.break_next(UPSERT, status=429, error="Rate limiting exceeded", headers={"Retry-After": "1"})
    began = time.monotonic()
    store.upsert("c", points(10))
    assert time.monotonic() - began >= 1
    assert store.count("c") == 10


def test_a_pause_beyond_patience_is_left_to_the_caller(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.break_next(UPSERT, status=429, error="Rate limiting exceeded", headers={"Retry-After": "60"})
    with pytest.raises(StoreUnavailable, match="Rate limiting") as unavailable:
        store.upsert("c", points(10))
    assert unavailable.value.retry_after == 60
    assert qdrant.requests(UPSERT) == 1


def test_a_run_makes_every_pause_that_the_server_asks_for(qdrant: FakeQdrant) -> None:
    """Qdrant's own rate limits ask for up to a minute, and again if others were faster."""
    store = ServerStore(qdrant.url)
    store.create("c", 4, {})
    now, pauses = [0.0], []
    store._link.clock = lambda: now[0]
    store._link.sleep = lambda seconds: (pauses.append(seconds), now.__setitem__(0, now[0] + seconds))
    limited = {"status": 429, "error": "Rate limiting exceeded", "headers": {"Retry-After": "59"}}
    qdrant.break_next(UPSERT, times=5, **limited)
    store.upsert("c", points(10))
    assert pauses == [59.0] * 5
    assert store.count("c") == 10
    qdrant.break_next(UPSERT, times=None, **limited)
    with pytest.raises(StoreUnavailable, match="Rate limiting"):
        store.upsert("c", points(10))
    assert 3500 <= sum(pauses[5:]) <= 3640
    store.close()


def test_a_pause_until_a_date_is_a_pause(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.break_next(UPSERT, status=429, error="x", headers={"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"})
    store.upsert("c", points(10))
    assert qdrant.requests(UPSERT) == 2


# Refusals


def test_bad_points_are_found_by_halves_and_the_good_ones_written(qdrant: FakeQdrant, store: ServerStore) -> None:
    batch = points(600, poisoned=(0, 300, 599))
    with pytest.raises(PointsRefused, match=r"3 of 600 points for c .* not to my taste") as refused:
        store.upsert("c", batch)
    assert set(refused.value.point_ids) == {batch.ids[0], batch.ids[300], batch.ids[599]}
    assert store.count("c") == 597
    assert qdrant.requests(UPSERT) < 60
    assert {point.id for point in store.scroll("c")} == set(batch.ids) - set(refused.value.point_ids)


def test_too_large_a_request_is_halved(qdrant: FakeQdrant, store: ServerStore) -> None:
    qdrant.break_next(UPSERT, status=413, error="Payload Too Large")
    store.upsert("c", points(10))
    assert qdrant.requests(UPSERT) == 3
    assert store.count("c") == 10


def test_bad_payloads_are_found_by_halves(store: ServerStore) -> None:
    batch = points(300)
    store.upsert("c", batch)
    payloads = [(point_id, {POISON: True} if i == 7 else {"n": i}) for i, point_id in enumerate(batch.ids)]
    with pytest.raises(PointsRefused) as refused:
        store.update_payloads("c", payloads)
    assert refused.value.point_ids == (batch.ids[7],)
    assert [point.payload["n"] for point in store.retrieve("c", [batch.ids[6], batch.ids[299]])] == [6, 299]


def test_missing_points_among_many_payloads(store: ServerStore) -> None:
    batch = points(300)
    store.upsert("c", batch)
    store.delete_points("c", [batch.ids[3], batch.ids[280]])
    with pytest.raises(StoreMismatch, match=f"2 points .*{batch.ids[3]}"):
        store.update_payloads("c", [(point_id, {"n": 1}) for point_id in batch.ids])
    assert sum(point.payload == {"n": 1} for point in store.scroll("c")) == 298


# Faults that need a person


@pytest.mark.parametrize(
    ("status", "error", "message"),
    [
        (500, DISK_FULL, "no space left.*free some"),
        (401, "Must provide an API key", "API key.*api_key"),
        (403, "Forbidden: write access denied", "API key.*write access denied"),
        (403, "ExpiredSignature", "refuses the API key .*it has expired"),
        (403, "InvalidSignature", r"refuses the API key .*set \[store\] api_key"),
        (403, "Forbidden: Access to collection c is required", "may not read c .*give it access to that"),
    ],
)
def test_faults_that_need_a_person_are_not_retried(
    qdrant: FakeQdrant, store: ServerStore, status: int, error: str, message: str
) -> None:
    qdrant.break_next(UPSERT, times=None, status=status, error=error)
    with pytest.raises(StoreError, match=message) as wrong:
        store.upsert("c", points(300))
    assert not isinstance(wrong.value, PointsRefused)
    assert qdrant.requests(UPSERT) == 1


def test_an_old_server_is_named(qdrant: FakeQdrant) -> None:
    qdrant.version = "1.15.4"
    store = ServerStore(qdrant.url, patience=PATIENCE)
    with pytest.raises(StoreError, match=r"version 1\.15\.4: upgrade it to 1\.16"):
        store.create("c", 4, {})
    assert store.close() is None


def test_collections_that_rag_index_did_not_make(qdrant: FakeQdrant, store: ServerStore) -> None:
    from qdrant_client import models

    vectors = models.VectorParams(size=4, distance=models.Distance.DOT)
    qdrant.client.create_collection("named", vectors_config={"text": vectors})
    qdrant.client.create_collection("dot", vectors_config=vectors)
    with pytest.raises(StoreMismatch, match="named vectors"):
        store.dimension("named")
    with pytest.raises(StoreMismatch, match=r"dot holds 4-d vectors .Dot"):
        store.create("dot", 4, {})
    assert set(store.collections()) == {"c", "named", "dot"}


# Answers that are lost after the request was done


@pytest.mark.parametrize(
    "on", ["PUT /collections/new", "POST /collections/aliases", "PATCH /collections/new", "DELETE /collections/new"]
)
def test_a_request_whose_answer_was_lost_is_repeated(qdrant: FakeQdrant, store: ServerStore, on: str) -> None:
    qdrant.break_next(on, cut=True)
    store.create("new", 4, {"a": 1})
    store.point_alias("live", "c")
    store.point_alias("live", "new")
    store.set_metadata("new", {"b": 2})
    assert store.collections()["new"] == {"a": 1, "b": 2}
    assert store.aliases() == {"live": "new"}
    assert qdrant.indexes["new"] == {f"{RESERVED_KEY}.key": "keyword", f"{RESERVED_KEY}.chunk": "integer"}
    store.drop("new")
    assert set(store.collections()) == {"c"}


def test_payload_indexes_that_a_crash_left_out_are_created_later(qdrant: FakeQdrant, store: ServerStore) -> None:
    del qdrant.indexes["c"]
    store.create("c", 4, {})
    assert set(qdrant.indexes["c"]) == {f"{RESERVED_KEY}.key", f"{RESERVED_KEY}.chunk"}


# Requests


def test_an_alias_moves_in_one_request(qdrant: FakeQdrant, store: ServerStore) -> None:
    """Between two requests, readers would find no alias."""
    store.create("d", 4, {})
    store.point_alias("live", "c")
    before = qdrant.requests("POST /collections/aliases")
    store.point_alias("live", "d")
    assert qdrant.requests("POST /collections/aliases") == before + 1
    assert store.aliases() == {"live": "d"}


def test_requests_are_bounded_by_points_and_by_bytes(qdrant: FakeQdrant, store: ServerStore) -> None:
    store.upsert("c", points(600))
    assert qdrant.requests(UPSERT) == 3
    store.upsert("c", points(200, text="x" * 100_000))
    assert qdrant.requests(UPSERT) == 6
    assert max(qdrant.bodies) < 8_500_000
    assert store.count("c") == 600


def test_a_pickled_store_connects_again_by_its_settings(qdrant: FakeQdrant, store: ServerStore) -> None:
    store.upsert("c", points(3))
    other = pickle.loads(pickle.dumps(store))
    assert other.count("c") == 3
    other.close()
    assert store.count("c") == 3
    with pytest.raises(TypeError, match="make it from a URL"):
        pickle.dumps(ServerStore.from_client(QdrantClient(":memory:")))


# gRPC


@pytest.fixture
def fast(qdrant: FakeQdrant) -> Iterator[ServerStore]:
    with FakeQdrantGrpc(qdrant) as front:
        store = ServerStore(qdrant.url, timeout=1, patience=30, grpc_port=front.port)
        store.create("c", 4, {})
        yield store
        store.close()


@pytest.mark.parametrize("code", ["UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"])
def test_passing_codes_are_retried(qdrant: FakeQdrant, fast: ServerStore, code: str) -> None:
    qdrant.break_next("GRPC Upsert", times=2, code=grpc.StatusCode[code], error="one moment")
    fast.upsert("c", points(10))
    assert qdrant.requests("GRPC Upsert") == 3
    assert fast.count("c") == 10
    assert qdrant.requests(UPSERT) == 0


def test_a_server_that_is_back_after_an_outage_is_seen_within_the_patience_of_a_call(qdrant: FakeQdrant) -> None:
    """gRPC waits 1.6 times as long after each failed connection, up to two minutes, unless it is told otherwise."""
    with FakeQdrantGrpc(qdrant) as front:
        store = ServerStore(qdrant.url, timeout=1, patience=15, grpc_port=front.port)
        store.create("c", 4, {})
    asking = ServerStore.from_client(store._link._connected_client(), patience=PATIENCE)
    with socket.create_server(("127.0.0.1", front.port)) as away:
        away.settimeout(0.01)
        tries = 0
        while tries < 7:  # the next would be about 27 s later
            with suppress(StoreUnavailable):
                asking.count("c")
            with suppress(TimeoutError):
                away.accept()[0].close()
                tries += 1
    with FakeQdrantGrpc(qdrant, port=front.port):
        assert store.count("c") == 0
    store.close()


def test_a_pause_asked_for_by_grpc_is_made(qdrant: FakeQdrant, fast: ServerStore) -> None:
    exhausted = grpc.StatusCode.RESOURCE_EXHAUSTED
    qdrant.break_next("GRPC Upsert", code=exhausted, error="Rate limit", headers={"Retry-After": "1"})
    began = time.monotonic()
    fast.upsert("c", points(10))
    assert time.monotonic() - began >= 1
    qdrant.break_next("GRPC Upsert", code=exhausted, error="Rate limit", headers={"Retry-After": "60"})
    with pytest.raises(StoreUnavailable, match="Rate limit") as unavailable:
        fast.upsert("c", points(10))
    assert unavailable.value.retry_after == 60


def test_bad_points_are_found_by_halves_by_grpc(fast: ServerStore) -> None:
    batch = points(300, poisoned=(20,))
    with pytest.raises(PointsRefused) as refused:
        fast.upsert("c", batch)
    assert refused.value.point_ids == (batch.ids[20],)
    assert fast.count("c") == 299


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("INTERNAL", DISK_FULL, "no space left"),
        ("UNAUTHENTICATED", "Must provide an API key", "API key"),
        ("PERMISSION_DENIED", "Forbidden", "API key"),
        ("PERMISSION_DENIED", "ExpiredSignature", "it has expired"),
        ("UNIMPLEMENTED", "unknown method", "too old"),
    ],
)
def test_codes_that_need_a_person_are_not_retried(
    qdrant: FakeQdrant, fast: ServerStore, code: str, error: str, message: str
) -> None:
    qdrant.break_next("GRPC Upsert", times=None, code=grpc.StatusCode[code], error=error)
    with pytest.raises(StoreError, match=message):
        fast.upsert("c", points(300))
    assert qdrant.requests("GRPC Upsert") == 1


def test_a_port_that_is_not_grpc_is_not_used(qdrant: FakeQdrant) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store = ServerStore(qdrant.url, patience=PATIENCE, grpc_port=silent.getsockname()[1])
        store.create("c", 4, {})
        assert store.dimension("c") == 4
        store.close()
