"""ServerStore on a server that misbehaves: retries or none, in bounded time, with correct data
afterwards."""

import gzip
import pickle
import socket
import socketserver
import threading
import uuid
from contextlib import closing, suppress
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import models

from rag_index.components.stores.server import ServerStore
from rag_index.components.stores.server.link import USUAL_PATIENCE, ServerAccess
from rag_index.core import connections
from rag_index.core.documents.batches import RESERVED_KEY, PointBatch
from rag_index.core.recovery import downtime
from rag_index.errors import (
    PointsRefused,
    SettingsError,
    StoreError,
    StoreMismatch,
    StoreRefused,
    StoreUnavailable,
)
from rag_index.etl.upsert import documents_named
from tests.fakes.qdrant import DISK_FULL, POISON
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

UPSERT, PATIENCE = "PUT /collections/c/points", 0.5
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ENDLESS = (
    OK + b'Transfer-Encoding: chunked\r\n\r\n1\r\n"\r\n' + b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
)
ZIPPED = gzip.compress(b'"' + b"x" * 10_000_000)
BOMB = OK + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED) + ZIPPED
PAGE = (
    "<html>\r\n<head><title>413 Request Entity Too Large</title><style>h1 {color:"
    " red}</style></head>\r\n<body><!-- a padding --><center><h1>413 Request Entity Too"
    " Large</h1></center><hr>nginx</body></html>"
)


@pytest.fixture
def store(qdrant):
    with closing(ServerStore(ServerAccess(qdrant.url, timeout=1, patience=30))) as store:
        store.create("c", 4, {"id": "x"})
        yield store


@pytest.fixture
def fast(qdrant):
    with (
        FakeQdrantGrpc(qdrant) as front,
        closing(
            ServerStore(ServerAccess(qdrant.url, timeout=1, patience=30, grpc_port=front.port))
        ) as store,
    ):
        store.create("c", 4, {})
        yield store


@pytest.mark.parametrize("proxied", [False, True])
@pytest.mark.parametrize(
    ("answer", "size", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000, 1, "no whole answer|timed out"),
        (OK + b"Content-Length: 10000\r\n\r\n" + b" " * 10_000, 1, "no whole answer|timed out"),
        (ENDLESS, len(ENDLESS), "more than 1 MB"),
        (BOMB, len(BOMB), "compressed .gzip."),
    ],
    ids=["slow head", "slow body", "endless", "compressed"],
)
def test_an_answer_has_one_time_limit_and_one_size(monkeypatch, answer, size, said, proxied):
    monkeypatch.setattr(connections, "MAX_ANSWER", 1 << 20)
    ending = threading.Event()

    class Slow(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                self.request.recv(65536)
                for at in range(0, len(answer), size):
                    self.request.sendall(answer[at : at + size])
                    if ending.wait(0.05):
                        return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        if proxied:
            monkeypatch.setenv("http_proxy", url)
            url = "http://qdrant.invalid:6333"
        store = ServerStore(ServerAccess(url, timeout=1, patience=0))
        with closing(store), pytest.raises(StoreUnavailable, match=said):
            store.names()
        ending.set()
        server.shutdown()


def test_a_proxy_that_cannot_be_used_is_named_with_a_way_around_it(monkeypatch):
    monkeypatch.setenv("all_proxy", "socks4://127.0.0.1:9")
    said = r"for http://qdrant\.invalid:6333 cannot be used.*qdrant\.invalid into NO_PROXY"
    store = ServerStore(ServerAccess("http://qdrant.invalid:6333", timeout=1, patience=0))
    with closing(store), pytest.raises(SettingsError, match=said):
        store.names()


def points(n: int, *, poisoned: tuple[int, ...] = (), text: str = "") -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(n)]
    payloads: list[dict[str, Any]] = [
        {RESERVED_KEY: {"key": str(i), "chunk": 0}, "text": text} for i in range(n)
    ]
    for i in poisoned:
        payloads[i][POISON] = True
    return PointBatch(
        ids, np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32), payloads
    )


def stop_time(store: ServerStore) -> list[float]:
    """Let the store wait without waiting; return the list of its pauses."""
    now, pauses = [0.0], []
    store._link.clock = lambda: now[0]
    store._link.sleep = lambda seconds: (
        pauses.append(seconds),
        now.__setitem__(0, now[0] + seconds),
    )
    return pauses


@pytest.mark.parametrize(
    "what",
    [
        *[{"status": status, "error": "one moment"} for status in (500, 502, 503, 504, 408, 429)],
        *[{"cut": True}, {"garbage": True}, {"update_status": "acknowledged"}, {"hang": 3600}],
        {"status": 429, "error": "x", "headers": {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}},
        *("UNAVAILABLE", "INTERNAL", "ABORTED", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"),
    ],
)
def test_what_passes_is_retried(qdrant, store, fast, what):
    used, on, other = (
        (fast, "GRPC Upsert", UPSERT) if isinstance(what, str) else (store, UPSERT, "GRPC Upsert")
    )
    how = (
        {"code": grpc.StatusCode[what], "error": "one moment", "times": 2} if used is fast else what
    )
    qdrant.break_next(on, **how)
    used.points("c").upsert(points(10))
    assert (qdrant.requests(on), qdrant.requests(other)) == (3 if used is fast else 2, 0)
    assert used.points("c").count() == 10


def test_a_server_that_is_back_after_an_outage_is_seen_within_the_patience_of_a_call(qdrant):
    """gRPC waits 1.6 times as long after each failed connection, up to two minutes, unless it is
    told otherwise."""
    with FakeQdrantGrpc(qdrant) as front:
        store = ServerStore(
            ServerAccess(qdrant.url, timeout=1, patience=PATIENCE, grpc_port=front.port)
        )
        store.create("c", 4, {})
    with socket.create_server(("127.0.0.1", front.port)) as away:
        away.settimeout(0.01)
        tries = 0
        while tries < 4:  # the next would be about 7 s later
            with suppress(StoreUnavailable):
                store.points("c").count()
            with suppress(TimeoutError):
                away.accept()[0].close()
                tries += 1
    store._link.access = replace(store._link.access, patience=5)
    with FakeQdrantGrpc(qdrant, port=front.port):
        assert store.points("c").count() == 0
    store.close()


@pytest.mark.long
@pytest.mark.parametrize("patience", [10.0, 60.0, None])
def test_a_call_waits_for_a_server_as_long_as_its_opener_says(qdrant, patience):
    given = {} if patience is None else {"patience": patience}
    with closing(ServerStore(ServerAccess(qdrant.url, timeout=1, **given))) as store:
        pauses, seconds = stop_time(store), patience or USUAL_PATIENCE
        for _ in range(2):  # before and after it has answered
            qdrant.stop()
            with pytest.raises(StoreUnavailable):
                store.collections()
            assert seconds - 6 < sum(pauses) <= seconds
            qdrant.start()
            pauses.clear()
            store.collections()
            pauses.clear()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            {"status": 500, "error": "Service internal error: task panicked"},
            "500: Service internal error",
        ),
        ({"update_status": "wait_timeout"}, "did not complete it"),
        ({"cut": True}, "is it running"),
        ({"hang": 3600.0}, "is it running"),
    ],
)
def test_a_fault_that_stays_raises_unavailable_in_bounded_time(qdrant, store, what, message):
    store._link.access = replace(store._link.access, patience=PATIENCE)
    if "hang" not in what:
        stop_time(store)  # or a busy machine uses up the patience with the first try
    qdrant.break_next(UPSERT, times=None, **what)
    with pytest.raises(StoreUnavailable, match=message) as unavailable:
        store.points("c").upsert(points(10))
    assert qdrant.url in str(unavailable.value)
    assert "hang" in what or qdrant.requests(UPSERT) >= 2
    pickle.loads(pickle.dumps(unavailable.value))


def test_the_seconds_in_which_the_server_does_not_answer_are_measured(qdrant, store):
    pauses = stop_time(store)
    qdrant.break_next(UPSERT, times=4, status=503, error="it is starting")
    with downtime() as down:
        store.points("c").upsert(points(10))
    assert len(pauses) == 4
    assert down.seconds == pytest.approx(sum(pauses))


@pytest.mark.parametrize("by_grpc", [False, True])
def test_a_pause_that_the_server_asks_for_is_made_but_not_beyond_patience(
    qdrant, store, fast, by_grpc
):
    """Qdrant's own rate limits ask for up to a minute, and again if others were faster."""
    used, on = (fast, "GRPC Upsert") if by_grpc else (store, UPSERT)
    how = {"code": grpc.StatusCode.RESOURCE_EXHAUSTED} if by_grpc else {"status": 429}
    pauses = stop_time(used)
    qdrant.break_next(on, error="Rate limiting exceeded", headers={"Retry-After": "1"}, **how)
    with downtime() as down:
        used.points("c").upsert(points(10))
    assert (pauses, down.seconds) == ([1.0], 0.0), "a pause that is asked for is the server's pace"
    qdrant.break_next(on, error="Rate limiting exceeded", headers={"Retry-After": "60"}, **how)
    with pytest.raises(StoreUnavailable, match="Rate limiting") as unavailable:
        used.points("c").upsert(points(10))
    assert (unavailable.value.retry_after, pauses) == (60, [1.0])
    used._link.access = replace(used._link.access, patience=600)
    used._link.sleep(60)
    pauses.clear()
    qdrant.break_next(
        on, times=5, error="Rate limiting exceeded", headers={"Retry-After": "59"}, **how
    )
    used.points("c").upsert(points(10))
    assert (pauses, used.points("c").count()) == ([59.0] * 5, 10)
    pauses.clear()
    qdrant.break_next(
        on, times=None, error="Rate limiting exceeded", headers={"Retry-After": "60"}, **how
    )
    with pytest.raises(StoreUnavailable, match="Rate limiting"):
        used.points("c").upsert(points(10))
    assert set(pauses) == {60.0}
    assert 540 <= sum(pauses) <= 600


@pytest.mark.parametrize("by_grpc", [False, True])
def test_bad_points_are_found_by_halves_and_the_good_ones_written(qdrant, store, fast, by_grpc):
    used, batch = fast if by_grpc else store, points(600, poisoned=(0, 300, 599))
    with pytest.raises(PointsRefused, match=r"3 of 600 points for c .* not to my taste") as refused:
        used.points("c").upsert(batch)
    assert set(refused.value.point_ids) == {batch.ids[0], batch.ids[300], batch.ids[599]}
    assert qdrant.requests(UPSERT) + qdrant.requests("GRPC Upsert") < 60
    assert {point.id for point in used.points("c").scroll()} == set(batch.ids) - set(
        refused.value.point_ids
    )


def test_bad_payloads_are_found_by_halves_and_missing_points_among_many(store):
    batch = points(300)
    store.points("c").upsert(batch)
    payloads = [
        (point_id, {POISON: True} if i == 7 else {"n": i}) for i, point_id in enumerate(batch.ids)
    ]
    with pytest.raises(PointsRefused) as refused:
        store.points("c").update_payloads(payloads)
    assert refused.value.point_ids == (batch.ids[7],)
    assert [
        point.payload["n"] for point in store.points("c").retrieve([batch.ids[6], batch.ids[299]])
    ] == [6, 299]
    store.points("c").delete_points([batch.ids[3], batch.ids[280]])
    with pytest.raises(StoreMismatch, match=f"2 points .*{batch.ids[3]}"):
        store.points("c").update_payloads([(point_id, {"n": 1}) for point_id in batch.ids])
    assert sum(point.payload == {"n": 1} for point in store.points("c").scroll()) == 298


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (500, "INTERNAL", DISK_FULL, "no space left.*free some"),
        (401, "UNAUTHENTICATED", "Must provide an API key", "API key.*Must provide.*api_key"),
        (
            403,
            "PERMISSION_DENIED",
            "ExpiredSignature",
            r"API key .*ExpiredSignature.*set \[store\] api_key",
        ),
        (
            403,
            "PERMISSION_DENIED",
            "Access to collection c is required",
            "collection c is required.*give the key more",
        ),
        (404, "UNIMPLEMENTED", "unknown method", "unknown method"),
    ],
)
def test_faults_that_need_a_person_are_not_retried(
    qdrant, store, fast, status, code, error, message
):
    qdrant.break_next(UPSERT, times=None, status=status, error=error)
    qdrant.break_next("GRPC Upsert", times=None, code=grpc.StatusCode[code], error=error)
    for used in (store, fast):
        with pytest.raises(StoreError, match=message) as wrong:
            used.points("c").upsert(points(300))
        assert not isinstance(wrong.value, PointsRefused)
        assert isinstance(wrong.value, StoreRefused) == (status in (401, 403))
    assert (qdrant.requests(UPSERT), qdrant.requests("GRPC Upsert")) == (1, 1)


def test_collections_that_rag_index_did_not_make(qdrant, store):
    vectors = models.VectorParams(size=4, distance=models.Distance.DOT)
    qdrant.client.create_collection("named", vectors_config={"text": vectors})
    qdrant.client.create_collection("dot", vectors_config=vectors)
    with pytest.raises(StoreMismatch, match="named vectors"):
        store.points("named").dimension()
    with pytest.raises(StoreMismatch, match=r"dot holds 4-d vectors .Dot"):
        store.create("dot", 4, {})
    assert set(store.collections()) == {"c", "named", "dot"}


@pytest.mark.parametrize("on", ["PUT {}/new", "POST {}/aliases", "PATCH {}/new", "DELETE {}/new"])
def test_a_request_whose_answer_was_lost_is_repeated(qdrant, store, on):
    qdrant.break_next(on.format("/collections"), cut=True)
    store.create("new", 4, {"a": 1})
    store.point_alias("live", "c")
    store.point_alias("live", "new")
    store.points("new").set_metadata({"b": 2})
    assert (store.collections()["new"], store.aliases()) == ({"a": 1, "b": 2}, {"live": "new"})
    assert qdrant.indexes["new"] == {
        f"{RESERVED_KEY}.key": "keyword",
        f"{RESERVED_KEY}.chunk": "integer",
    }
    store.drop("new")
    assert set(store.collections()) == {"c"}


def test_an_alias_moves_in_one_request_and_payload_indexes_that_a_crash_left_out_are_created_later(
    qdrant, store
):
    """Between two requests, readers would find no alias."""
    store.create("d", 4, {})
    del qdrant.indexes["c"]
    store.create("c", 4, {})
    assert set(qdrant.indexes["c"]) == {f"{RESERVED_KEY}.key", f"{RESERVED_KEY}.chunk"}
    store.point_alias("live", "c")
    before = qdrant.requests("POST /collections/aliases")
    store.point_alias("live", "d")
    assert (qdrant.requests("POST /collections/aliases"), store.aliases()) == (
        before + 1,
        {"live": "d"},
    )


@pytest.mark.parametrize("by_grpc", [False, True])
def test_requests_are_bounded_by_points_and_by_bytes_and_a_pickled_store_connects_again(
    qdrant, store, fast, by_grpc
):
    used, on = (fast, "GRPC Upsert") if by_grpc else (store, UPSERT)
    used.points("c").upsert(points(600))
    assert qdrant.requests(on) == 3
    used.points("c").upsert(points(200, text="x" * 100_000))
    assert qdrant.requests(on) == qdrant.requests("Upsert") + qdrant.requests(UPSERT) == 6
    assert max(qdrant.bodies) < 8_500_000
    with closing(pickle.loads(pickle.dumps(used))) as other:
        assert other._link.access == used._link.access
        other.points("c").upsert(points(600))
    assert (qdrant.requests(on), used.points("c").count()) == (9, 600)


def test_what_a_proxy_refuses_is_named_by_its_document_and_without_html(qdrant, store):
    batch = points(3)
    qdrant.break_next(UPSERT, status=413, error=PAGE, page=True, times=9)
    payloads = [{RESERVED_KEY: {"document_id": f"B-{number}"}} for number in range(3)]
    with pytest.raises(PointsRefused) as refused, documents_named(batch.ids, payloads):
        store.points("c").upsert(batch)
    said = str(refused.value)
    assert said.startswith(
        "3 of 3 points for c are refused, the first is one of document B-0: Qdrant at "
    )
    assert (
        "(413): 413 Request Entity Too Large 413 Request Entity Too Large nginx; raise the limit"
        in said
    )
    assert ("client_max_body_size" in said, "<" in said) == (True, False)
