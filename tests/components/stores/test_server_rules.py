"""ServerStore where a server refuses by rule: strict mode, API keys, points and settings of somebody else."""

import os
import pickle
import uuid
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import pytest
import tblib.pickling_support
from qdrant_client import QdrantClient, models

from rag_index.components.stores.protocol import VectorQuery
from rag_index.components.stores.server import ServerStore
from rag_index.errors import PointsRefused, StoreRefused
from tests.components.stores import test_server_faults
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used")
DIMENSION = 4
QUERY = np.ones(DIMENSION, np.float32)


@dataclass
class Server:
    """A store with a collection, and a client of its server that stands for another program or a person."""

    store: ServerStore
    client: QdrantClient
    fake: FakeQdrant | None = None

    def __post_init__(self) -> None:
        self.name = f"rules_{uuid.uuid4().hex}"
        self.store.create(self.name, DIMENSION, {"payload_indexes": {"made_by_a_run": "keyword"}})
        self.store.index_fields(self.name, {"made_by_a_run": "keyword"})

    def strict(self, name: str | None = None, **limits) -> None:
        strict = models.StrictModeConfig(enabled=True, **limits)
        self.client.update_collection(name or self.name, strict_mode_config=strict)

    def search(self, limit: int, **how) -> list[str]:
        return [point.id for point in self.store.search(self.name, VectorQuery(QUERY, limit, **how))]

    def asked_since(self, before: int) -> list[str]:
        """Return the requests but those that the client makes when it likes; none of a real server."""
        return [call for call in self.fake.seen[before:] if call != "GET /"] if self.fake else []

    @property
    def asked(self) -> int:
        return len(self.fake.seen) if self.fake else 0


@pytest.fixture(params=["http", "grpc", pytest.param("server", marks=pytest.mark.qdrant_server)])
def server(request):
    if request.param == "server":
        if "QDRANT_URL" not in os.environ:
            pytest.skip("needs a Qdrant server: set QDRANT_URL")
        url, key = os.environ["QDRANT_URL"], os.environ.get("QDRANT_API_KEY")
        with closing(ServerStore(url, api_key=key)) as store:
            server = Server(store, QdrantClient(url, api_key=key))
            yield server
            for found in store.names():
                if found.startswith(server.name):
                    store.drop(found)
        return
    with FakeQdrant() as fake, FakeQdrantGrpc(fake) as front:
        port = front.port if request.param == "grpc" else None
        with closing(ServerStore(fake.url, patience=1, grpc_port=port)) as store:
            yield Server(store, QdrantClient(fake.url, check_compatibility=False), fake)


def points(n: int):
    batch = test_server_faults.points(n)
    for i, payload in enumerate(batch.payloads):
        payload |= {"author": f"author {i % 3}", "priority": i % 5}
    return batch


# Strict mode


def test_a_limit_of_strict_mode_is_named_with_the_remedy(server):
    tblib.pickling_support.install()  # as Dask does on a worker: the cause of an error is pickled too
    server.store.upsert(server.name, points(10))
    server.strict(search_allow_exact=False)
    with pytest.raises(StoreRefused, match=r"strict mode .*Exact search disabled.*docs/servers.md") as refused:
        server.store.count(server.name)
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)
    server.strict(search_allow_exact=True, max_query_limit=20)
    with pytest.raises(StoreRefused, match=r"strict mode .*Limit exceeded 90 > 20.*raise this limit"):
        server.search(90)
    server.strict(max_query_limit=1000, max_collection_vector_size_bytes=1)
    before = server.asked
    with pytest.raises(StoreRefused, match=r"strict mode .*Max vector storage size limit.*strict_mode_config") as full:
        [server.store.upsert(server.name, points(200)) for _ in range(40)]  # a real server looks with every 32nd
    assert not isinstance(full.value, PointsRefused), "no point is at fault"
    assert len(server.asked_since(before)) in (0, 2), "refused once, not for each half"


# API keys


def test_a_key_for_reading_only_reads_and_is_told_why_it_may_not_write(server):
    store, name = server.store, server.name
    store.upsert(name, points(10))
    if server.fake is not None:
        server.fake.read_only = True
    elif (key := os.environ.get("QDRANT_READ_ONLY_API_KEY")) is not None:
        store = ServerStore(os.environ["QDRANT_URL"], api_key=key)
    else:
        pytest.skip("needs a Qdrant server's service.read_only_api_key: set QDRANT_READ_ONLY_API_KEY")
    assert len(store.search(name, VectorQuery(QUERY, 3))) == 3
    assert store.count(name) == sum(1 for _ in store.scroll(name)) == 10
    for write in (
        lambda: store.create("new", DIMENSION, {}),
        lambda: store.upsert(name, points(300)),
        lambda: store.set_metadata(name, {"a": 1}),
        lambda: store.point_alias("live", name),
        lambda: store.drop(name),
    ):
        with pytest.raises(StoreRefused, match=r"API key .*Global manage access.*give the key more access, or set"):
            write()


# What others did


def test_what_was_set_by_hand_is_carried_over(server):
    int8 = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.5, always_ram=True)
    )
    server.client.update_collection(
        server.name,
        hnsw_config=models.HnswConfigDiff(m=32, ef_construct=256, on_disk=True),
        vectors_config={"": models.VectorParamsDiff(on_disk=True)},
        quantization_config=int8,
        optimizers_config=models.OptimizersConfigDiff(indexing_threshold=5000),
    )
    server.strict(max_query_limit=500)
    server.client.create_payload_index(server.name, "by_hand", models.IntegerIndexParams(type="integer", lookup=True))
    new = f"{server.name}_2"
    for _ in range(2):  # the second time as a rebuild that is resumed
        server.store.create(new, DIMENSION, {"id": "new"}, like=server.name)
    was, now = server.client.get_collection(server.name), server.client.get_collection(new)
    assert now.config == was.config.model_copy(update={"metadata": {"id": "new"}})
    assert (now.config.hnsw_config.m, now.config.hnsw_config.on_disk) == (32, True)
    assert (now.config.params.vectors.on_disk, now.config.quantization_config) == (True, int8)
    assert now.config.optimizer_config.indexing_threshold == 5000
    assert now.config.strict_mode_config.max_query_limit == 500
    assert now.payload_schema["by_hand"].params == was.payload_schema["by_hand"].params
    assert "made_by_a_run" not in now.payload_schema, "the run makes those that the settings name"
    server.store.create(f"{server.name}_3", DIMENSION, {}, like=f"{server.name}_gone")
    assert server.store.dimension(f"{server.name}_3") == DIMENSION, "one that cannot be read gives nothing"
