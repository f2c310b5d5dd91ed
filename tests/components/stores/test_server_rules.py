"""ServerStore by the rules, settings and addresses of a server. It has strict mode, keys and
settings of somebody else; its address lacks a port, or is that of a proxy."""

import os
import pickle
import socket
import threading
import uuid
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import psutil
import pytest
import tblib.pickling_support
from qdrant_client import QdrantClient, models

from rag_index.components.stores.protocol import VectorQuery
from rag_index.components.stores.server import ServerStore, link
from rag_index.components.stores.server.link import ServerAccess
from rag_index.core.documents.vectors import SparseVector
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import PointsRefused, StoreRefused, StoreUnavailable
from tests.components.stores.test_server_faults import fast, points, stop_time
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc
from tests.ports import free_port
from tests.waiting import eventually

__all__ = ["fast"]

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used")
DIMENSION = 4
QUERY = np.ones(DIMENSION, np.float32)


@dataclass
class Server:
    """A store with a collection, and a client of its server that stands for another program or a
    person."""

    store: ServerStore
    client: QdrantClient
    fake: FakeQdrant | None = None

    def __post_init__(self) -> None:
        self.name = f"rules_{uuid.uuid4().hex}"
        self.store.create(self.name, DIMENSION, {"payload_indexes": {"made_by_a_run": "keyword"}})
        self.store.points(self.name).index_fields({"made_by_a_run": "keyword"})

    def strict(self, **limits) -> None:
        self.client.update_collection(
            self.name, strict_mode_config=models.StrictModeConfig(enabled=True, **limits)
        )

    def asked(self) -> list[str]:
        """Return the requests but those that the client makes when it likes; none of a real
        server."""
        return [call for call in self.fake.seen if call != "GET /"] if self.fake else []


@pytest.fixture(params=["http", "grpc", pytest.param("server", marks=pytest.mark.qdrant_server)])
def server(request):
    if request.param == "server":
        if "QDRANT_URL" not in os.environ:
            pytest.skip("needs a Qdrant server: set QDRANT_URL")
        url, key = os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY")
        with closing(ServerStore(ServerAccess(url, api_key=key))) as store:
            server = Server(store, QdrantClient(url, api_key=key))
            yield server
            for found in store.names():
                if found.startswith(server.name):
                    store.drop(found)
        return
    with FakeQdrant() as fake, FakeQdrantGrpc(fake) as front:
        port = front.port if request.param == "grpc" else None
        with closing(ServerStore(ServerAccess(fake.url, patience=1, grpc_port=port))) as store:
            yield Server(store, QdrantClient(fake.url, check_compatibility=False), fake)


def test_a_limit_of_strict_mode_is_named_with_the_remedy(server):
    tblib.pickling_support.install()  # as Dask does on a worker: the cause of an error is pickled too
    server.store.points(server.name).upsert(points(10))
    server.strict(search_allow_exact=False)
    with pytest.raises(
        StoreRefused, match=r"strict mode .*Exact search disabled.*docs/servers.md"
    ) as refused:
        server.store.points(server.name).count()
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    server.strict(search_allow_exact=True, max_query_limit=20)
    with pytest.raises(
        StoreRefused, match=r"strict mode .*Limit exceeded 90 > 20.*raise this limit"
    ):
        server.store.points(server.name).search(VectorQuery(QUERY, 90))
    server.strict(max_query_limit=1000, max_collection_vector_size_bytes=1)
    before = len(server.asked())
    with pytest.raises(
        StoreRefused, match=r"strict mode .*Max vector storage size limit.*strict_mode_config"
    ) as full:
        [
            server.store.points(server.name).upsert(points(200)) for _ in range(40)
        ]  # a real server looks with every 32nd
    assert not isinstance(full.value, PointsRefused), "no point is at fault"
    assert len(server.asked()) - before in (0, 2), "refused once, not for each half"


def test_a_key_for_reading_only_reads_and_is_told_why_it_may_not_write(server):
    store, name = server.store, server.name
    store.points(name).upsert(points(10))
    if server.fake is not None:
        server.fake.read_only = True
    elif (key := os.environ.get("QDRANT_READ_ONLY_API_KEY")) is not None:
        store = ServerStore(ServerAccess(os.environ["QDRANT_URL"], api_key=key))
    else:
        pytest.skip(
            "needs a Qdrant server's service.read_only_api_key: set QDRANT_READ_ONLY_API_KEY"
        )
    assert len(store.points(name).search(VectorQuery(QUERY, 3))) == 3
    assert store.points(name).count() == sum(1 for _ in store.points(name).scroll()) == 10
    for write in (
        lambda: store.create("new", DIMENSION, {}),
        lambda: store.points(name).upsert(points(300)),
        lambda: store.points(name).set_metadata({"a": 1}),
        lambda: store.point_alias("live", name),
        lambda: store.drop(name),
    ):
        with pytest.raises(
            StoreRefused, match=r"API key .*Global manage access.*give the key more access, or set"
        ):
            write()


def test_what_was_set_by_hand_is_carried_over(server):
    scalar = models.ScalarQuantizationConfig(
        type=models.ScalarType.INT8, quantile=0.5, always_ram=True
    )
    int8 = models.ScalarQuantization(scalar=scalar)
    server.client.update_collection(
        server.name,
        hnsw_config=models.HnswConfigDiff(m=32, ef_construct=256, on_disk=True),
        vectors_config={"": models.VectorParamsDiff(on_disk=True)},
        quantization_config=int8,
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5000),
    )
    server.strict(max_query_limit=500)
    server.client.create_payload_index(
        server.name, "by_hand", models.IntegerIndexParams(type="integer", lookup=True)
    )
    new = f"{server.name}_2"
    for _ in range(2):  # the second time as a rebuild that is resumed
        server.store.create(new, DIMENSION, {"id": "new"})
        server.store.points(new).take_settings(server.store.points(server.name))
    was, now = server.client.get_collection(server.name), server.client.get_collection(new)
    assert now.config == was.config.model_copy(update={"metadata": {"id": "new"}})
    assert (now.config.hnsw_config.m, now.config.hnsw_config.on_disk) == (32, True)
    assert (now.config.params.vectors.on_disk, now.config.quantization_config) == (True, int8)
    assert now.config.optimizer_config.indexing_threshold == 5000
    assert now.config.strict_mode_config.max_query_limit == 500
    assert now.payload_schema["by_hand"].params == was.payload_schema["by_hand"].params
    assert "made_by_a_run" not in now.payload_schema, "the run makes those that the settings name"
    server.store.create(f"{server.name}_3", DIMENSION, {})
    server.store.points(f"{server.name}_3").take_settings(
        server.store.points(f"{server.name}_gone")
    )
    assert server.store.points(f"{server.name}_3").dimension() == DIMENSION, (
        "one that cannot be read gives nothing"
    )


def test_a_server_that_counts_words_over_hidden_documents_is_named(qdrant):
    for name, groups, sparse, version in (
        ("old", True, True, "1.18.3"),
        ("new", True, True, "1.19.0"),
        ("open", False, True, "1.18.3"),
        ("dense", True, False, "1.18.3"),
    ):
        qdrant.version, indexed = version, {GROUPS_FIELD: "keyword"} if groups else {}
        with closing(ServerStore(ServerAccess(qdrant.url, patience=1, grpc_port=0))) as store:
            store.create(name, DIMENSION, {"payload_indexes": indexed}, sparse=sparse)
            assert ("may not see, too: upgrade Qdrant to 1.19" in store.points(name).notes()) is (
                name == "old"
            )


def test_searches_of_compressed_vectors_are_scored_again(qdrant, fast):
    fast.create("d", DIMENSION, {}, sparse=True)
    fast.points("d").search(VectorQuery(QUERY, 1))
    fast.points("d").search(VectorQuery(QUERY, 1, exact=True))
    compressed, exact = qdrant.searches
    assert compressed.quantization == models.QuantizationSearchParams(rescore=True, oversampling=2)
    assert (exact.quantization, exact.exact) == (None, True)
    qdrant.searches.clear()
    fast.points("d").search(VectorQuery(QUERY, 1, SparseVector((1,), (1.0,))))
    assert [search.quantization is not None for search in qdrant.searches].count(True) == 1, (
        "words are not compressed"
    )


def test_waiting_ends_once_the_server_is_green_and_has_indexed_what_a_search_would_scan(
    qdrant, fast
):
    qdrant.threshold = 1  # kilobyte: 64 vectors
    stop_time(fast)
    fast.points("c").upsert(points(100))
    qdrant.indexed["c"], qdrant.early_green = 0, 3
    fast.points("c").optimize()
    assert 100 - qdrant.indexed["c"] < 64, "green alone does not mean that it is indexed"
    qdrant.asleep = True
    fast.points("c").optimize()
    assert not qdrant.asleep, (
        "indexed alone does not mean that it is green: after a restart, a change wakes the server"
    )


def test_a_server_without_grpc_is_used_over_rest_and_says_so(qdrant):
    qdrant.client.create_collection(
        "ours", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    )
    port = int(qdrant.url.rpartition(":")[2])
    with (
        FakeQdrant() as other,
        FakeQdrantGrpc(other) as front,
    ):  # another server of the same version
        for given, reason in (
            (None, f"Qdrant at {qdrant.url} does not answer gRPC on port {port + 1}"),
            (port, f"Qdrant at {qdrant.url} does not answer gRPC on port {port}"),
            (front.port, f"Qdrant at {qdrant.url} does not answer gRPC on port {front.port}"),
            (0, ""),
        ):
            with closing(
                ServerStore(ServerAccess(qdrant.url, patience=1, grpc_port=given))
            ) as store:
                assert (store.fallback(), store.points("ours").count()) == (reason, 0)


@pytest.fixture
def ports(monkeypatch):
    """Return ports in place of Qdrant's own and that of http, which a test cannot have."""
    own, web = free_port(2), free_port()
    monkeypatch.setattr(link, "REST_PORT", own)
    monkeypatch.setattr(link, "WEB_PORTS", {"http": web})
    return own, web


@contextmanager
def website(port=0, status=200):
    """Answer each request with a page, as a proxy does that knows no Qdrant."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "14")
            self.end_headers()
            self.wfile.write(b"<h1>Hello</h1>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def opened():
    return closing(ServerStore(ServerAccess("http://127.0.0.1", patience=0, timeout=5)))


def refusal():
    with opened() as store, pytest.raises(StoreUnavailable) as raised:
        store.names()
    return str(raised.value)


def test_a_server_without_a_port_is_asked_at_qdrants_own_with_grpc_beside_it(ports):
    own, web = ports
    with (
        website(web),
        FakeQdrant(port=own) as qdrant,
        FakeQdrantGrpc(qdrant, port=own + 1),
        opened() as store,
    ):
        store.create("c", 4, {})
        assert store.fallback() == ""
    assert "GRPC Create" in qdrant.seen


@pytest.mark.parametrize("at_own", ["nothing", "silence", "page"])
def test_a_server_behind_a_proxy_is_found_at_the_port_of_its_scheme(ports, at_own):
    own, web = ports
    others = {
        "nothing": socket.socket,
        "silence": lambda: socket.create_server(("127.0.0.1", own)),
        "page": lambda: website(own, 404),
    }
    with others[at_own](), FakeQdrant(port=web), opened() as store:
        store.create("c", 4, {})
        assert store.names() == {"c"}
        assert "does not tell where Qdrant answers gRPC" in store.fallback()


def test_both_ports_are_named_if_no_qdrant_answers(ports):
    own, web = ports
    said = refusal()
    assert f"port {own} and port {web}: " in said
    assert "Connection refused" in said
    with website(web, 502):
        said = refusal()
    assert f"(port {own}: [Errno 111] Connection refused; port {web}: answered 502: Hello)" in said


def test_a_connection_that_is_idle_is_closed_and_opened_again():
    """The threads of gRPC wake up four times a second as long as a client is open."""

    def is_connected():
        return any(
            one.raddr and one.raddr.port == grpc.port
            for one in psutil.Process().net_connections("tcp")
        )

    with FakeQdrant() as qdrant, FakeQdrantGrpc(qdrant) as grpc:
        now, asking = [0.0], link.Link(ServerAccess(qdrant.url, patience=0, grpc_port=grpc.port))
        asking.clock = lambda: now[0]
        with closing(asking):
            assert asking.ask(link.names_of) == set()
            now[0] = link.IDLE_SECONDS / 2
            asking.let_go()
            assert is_connected()
            now[0] *= 3
            asking.let_go()
            eventually(lambda: not is_connected())
            assert asking.ask(link.names_of) == set()
            assert is_connected()
