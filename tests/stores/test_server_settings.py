"""`[store.server]`: how collections of a server are made, changed, loaded and searched."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from rag_index.documents.batches import RESERVED_KEY, PointBatch
from rag_index.documents.vectors import SparseVector
from rag_index.errors import StoreError, StoreUnavailable
from rag_index.settings.sections import ServerSettings
from rag_index.stores import VectorQuery
from rag_index.stores.protocol import BULK
from rag_index.stores.server import collections as server_collections
from rag_index.stores.server.store import ServerStore
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DIMENSION = 4
EVERYTHING = ServerSettings(
    shard_number=3, replication_factor=2, write_consistency_factor=2, on_disk_vectors=True, on_disk_payload=False,
    hnsw_m=32, hnsw_ef_construct=200, quantization="scalar",
)  # fmt: skip


@pytest.fixture
def qdrant() -> Iterator[FakeQdrant]:
    with FakeQdrant() as fake:
        yield fake


@pytest.fixture(params=["http", "grpc"])
def open_with(request: pytest.FixtureRequest, qdrant: FakeQdrant) -> Iterator[Callable[[ServerSettings], ServerStore]]:
    opened: list[ServerStore] = []
    with FakeQdrantGrpc(qdrant) as front:

        def open_with(settings: ServerSettings) -> ServerStore:
            port = front.port if request.param == "grpc" else 0
            opened.append(ServerStore(qdrant.url, patience=1, settings=settings.model_copy(update={"grpc_port": port})))
            return opened[-1]

        yield open_with
        for store in opened:
            store.close()
        if request.param == "grpc":
            assert any(call.startswith("GRPC") for call in qdrant.seen)


Open = "Callable[[ServerSettings], ServerStore]"


def points(n: int) -> PointBatch:
    ids = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(i))) for i in range(n)]
    payloads: list[dict[str, Any]] = [{RESERVED_KEY: {"key": str(i), "chunk": 0}} for i in range(n)]
    return PointBatch(ids, np.random.default_rng(0).normal(size=(n, DIMENSION)).astype(np.float32), payloads)


def config(qdrant: FakeQdrant, name: str = "c") -> models.CollectionConfig:
    """Return the configuration as any other program reads it."""
    client = QdrantClient(qdrant.url, check_compatibility=False)
    try:
        return client.get_collection(name).config
    finally:
        client.close()


def assert_everything(found: models.CollectionConfig, *, shards: int | None = 3) -> None:
    params = found.params
    assert isinstance(params.vectors, models.VectorParams)
    assert (params.replication_factor, params.write_consistency_factor) == (2, 2)
    assert (params.vectors.on_disk, params.on_disk_payload) == (True, False)
    assert (found.hnsw_config.m, found.hnsw_config.ef_construct) == (32, 200)
    assert isinstance(found.quantization_config, models.ScalarQuantization)
    assert found.quantization_config.scalar.always_ram is True
    if shards is not None:
        assert params.shard_number == shards


def test_a_new_collection_is_made_as_the_settings_say(qdrant: FakeQdrant, open_with: Any) -> None:
    store = open_with(EVERYTHING)
    store.create("c", DIMENSION, {})
    assert_everything(config(qdrant))
    before = len(qdrant.seen)
    assert store.configure("c") == ""
    assert not any("PATCH" in call or "GRPC Update" in call for call in qdrant.seen[before:]), "nothing differs"


def test_an_existing_collection_is_changed_where_qdrant_can(qdrant: FakeQdrant, open_with: Any) -> None:
    plain = open_with(ServerSettings(shard_number=1))
    plain.create("c", DIMENSION, {})
    plain.upsert("c", points(5))
    said = open_with(EVERYTHING).configure("c")
    assert (
        said
        == "c has 1 shard, [store.server] shard_number says 3: `rag-index rebuild` makes a collection with that many"
    )
    assert_everything(config(qdrant), shards=1)
    assert plain.count("c") == 5


def test_what_is_not_set_is_left_as_somebody_set_it(qdrant: FakeQdrant, open_with: Any) -> None:
    store = open_with(EVERYTHING)
    store.create("c", DIMENSION, {})
    assert open_with(ServerSettings()).configure("c") == ""
    assert_everything(config(qdrant))


@pytest.mark.parametrize("kind", ["binary", "turbo"])
def test_one_quantization_takes_the_place_of_another_and_none_removes_it(
    qdrant: FakeQdrant, open_with: Any, kind: Any
) -> None:
    open_with(EVERYTHING).create("c", DIMENSION, {})
    open_with(ServerSettings(quantization=kind, quantized_in_memory=False)).configure("c")
    found = getattr(config(qdrant).quantization_config, kind)
    assert not found.always_ram
    open_with(ServerSettings(quantization="none")).configure("c")
    assert config(qdrant).quantization_config is None


def test_quantization_that_is_too_coarse_for_the_vectors_is_named(qdrant: FakeQdrant, open_with: Any) -> None:
    coarse = ServerSettings(quantization="binary")
    open_with(coarse).create("c", DIMENSION, {})
    said = rf'c has {DIMENSION}-d vectors, too few dimensions for binary.*"scalar" or "turbo", or oversampling to 16'
    assert re.search(said, open_with(coarse).configure("c"))
    assert re.search(said, open_with(ServerSettings()).configure("c")), "set by hand"
    assert open_with(ServerSettings(quantization="binary", oversampling=16)).configure("c") == ""
    assert open_with(ServerSettings(quantization="scalar")).configure("c") == ""
    open_with(coarse).create("wide", 1024, {})
    assert open_with(coarse).configure("wide") == ""


def test_what_else_of_a_quantization_was_set_by_hand_stays(qdrant: FakeQdrant, open_with: Any) -> None:
    store = open_with(ServerSettings(quantization="scalar"))
    store.create("c", DIMENSION, {})
    by_hand = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.9, always_ram=True)
    client = QdrantClient(qdrant.url, check_compatibility=False)
    client.update_collection("c", quantization_config=models.ScalarQuantization(scalar=by_hand))
    client.close()
    store.configure("c")
    assert config(qdrant).quantization_config == models.ScalarQuantization(scalar=by_hand)


def test_settings_win_over_what_a_rebuild_carries_over(qdrant: FakeQdrant, open_with: Any) -> None:
    open_with(ServerSettings(hnsw_m=8, hnsw_ef_construct=64)).create("old", DIMENSION, {})
    store = open_with(ServerSettings(hnsw_m=32))
    store.create("new", DIMENSION, {}, like="old")
    store.configure("new")
    assert (config(qdrant, "new").hnsw_config.m, config(qdrant, "new").hnsw_config.ef_construct) == (32, 64)


def test_an_older_server_without_turboquant_is_named(qdrant: FakeQdrant, open_with: Any) -> None:
    qdrant.version = "1.17.2"
    store = open_with(ServerSettings(quantization="turbo"))
    with pytest.raises(StoreError, match=r'is version 1\.17\.2, and .* quantization = "turbo" needs 1\.18 or newer'):
        store.create("c", DIMENSION, {})
    open_with(ServerSettings()).create("c", DIMENSION, {})
    with pytest.raises(StoreError, match=r"needs 1\.18 or newer"):
        store.configure("c")


# Searches


def test_searches_of_compressed_vectors_are_scored_again(qdrant: FakeQdrant, open_with: Any) -> None:
    store = open_with(ServerSettings(quantization="binary", oversampling=3.5))
    store.create("c", DIMENSION, {}, sparse=True)
    store.search("c", VectorQuery(np.ones(DIMENSION, np.float32), 1))
    store.search("c", VectorQuery(np.ones(DIMENSION, np.float32), 1, exact=True))
    compressed, exact = qdrant.searches
    assert compressed.quantization == models.QuantizationSearchParams(rescore=True, oversampling=3.5)
    assert exact.quantization is None
    assert exact.exact
    qdrant.searches.clear()
    store.search("c", VectorQuery(np.ones(DIMENSION, np.float32), 1, SparseVector((1,), (1.0,))))
    assert [search.quantization is not None for search in qdrant.searches].count(True) == 1, "words are not compressed"


def test_oversampling_stays_within_strict_mode(qdrant: FakeQdrant, open_with: Any) -> None:
    store = open_with(ServerSettings(quantization="scalar", oversampling=4))
    store.create("c", DIMENSION, {})
    client = QdrantClient(qdrant.url, check_compatibility=False)
    strict = models.StrictModeConfig(enabled=True, search_max_oversampling=1.5)
    client.update_collection("c", strict_mode_config=strict)
    client.close()
    store.search("c", VectorQuery(np.ones(DIMENSION, np.float32), 1))
    assert qdrant.searches[-1].quantization.oversampling == 1.5


# Loading in bulk


def test_a_paused_search_index_is_restored_to_what_it_was(qdrant: FakeQdrant, open_with: Any) -> None:
    qdrant.threshold = 1  # kilobyte: 64 vectors
    store = open_with(ServerSettings())
    store.create("c", DIMENSION, {})
    store.pause_indexing("c")
    store.upsert("c", points(100))
    assert config(qdrant).optimizer_config.indexing_threshold == 0
    assert store.count_indexed("c") == 0
    store.pause_indexing("c")  # as a run that resumes does: what was set first is remembered
    store.resume_indexing("c")
    assert config(qdrant).optimizer_config.indexing_threshold == 1
    assert BULK not in store.metadata("c")
    store.optimize("c")
    assert 0 < 100 - store.count_indexed("c") < 64, "Qdrant scans the rest, which is below the threshold"
    before = len(qdrant.seen)
    store.resume_indexing("c")
    assert not any("PATCH" in call or "GRPC Update" in call for call in qdrant.seen[before:])


def test_a_pause_is_not_carried_over_to_another_collection(qdrant: FakeQdrant, open_with: Any) -> None:
    qdrant.threshold = 77
    store = open_with(ServerSettings())
    store.create("old", DIMENSION, {})
    store.pause_indexing("old")
    store.create("new", DIMENSION, {}, like="old")
    assert config(qdrant, "new").optimizer_config.indexing_threshold == 77
    assert BULK not in store.metadata("new")


def test_waiting_for_the_search_index_ends_when_it_does_not_grow(qdrant: FakeQdrant, open_with: Any) -> None:
    qdrant.threshold, qdrant.stuck = 1, True
    store = open_with(ServerSettings())
    store.create("c", DIMENSION, {})
    store.upsert("c", points(100))
    now = [0.0]
    store._link.clock = lambda: now[0]
    store._link.sleep = lambda _: now.__setitem__(0, now[0] + 60)
    with pytest.raises(StoreUnavailable, match="did not grow for"):
        store.optimize("c")
    assert now[0] >= server_collections.BUSY_WAIT
    qdrant.stuck = False
    store.optimize("c")


def test_waiting_ends_once_the_server_is_green_and_has_indexed_what_a_search_would_scan(
    qdrant: FakeQdrant, open_with: Any
) -> None:
    qdrant.threshold = 1  # kilobyte: 64 vectors
    store = open_with(ServerSettings())
    now = [0.0]
    store._link.clock = lambda: now[0]
    store._link.sleep = lambda _: now.__setitem__(0, now[0] + 60)
    store.create("c", DIMENSION, {})
    store.upsert("c", points(100))
    qdrant.indexed["c"], qdrant.early_green = 0, 3
    store.optimize("c")
    assert 100 - qdrant.indexed["c"] < 64, "green alone does not mean that it is indexed"
    qdrant.asleep = True
    store.optimize("c")
    assert not qdrant.asleep, "indexed alone does not mean that it is green: after a restart, a change wakes the server"


# gRPC


def test_grpc_is_found_beside_the_port_of_the_url() -> None:
    port = free_port(2)
    with FakeQdrant(port=port) as qdrant, FakeQdrantGrpc(qdrant, port=port + 1):
        store = ServerStore(qdrant.url, patience=1)
        store.create("c", DIMENSION, {})
        assert store.fallback() == ""
        store.close()
    assert "GRPC Create" in qdrant.seen


def test_a_server_without_grpc_is_used_over_rest_and_says_so(qdrant: FakeQdrant) -> None:
    port = int(qdrant.url.rpartition(":")[2])
    for settings, reason in (
        (ServerSettings(), f"Qdrant at {qdrant.url} does not answer gRPC on port {port + 1}"),
        (ServerSettings(grpc_port=port), f"Qdrant at {qdrant.url} does not answer gRPC on port {port}"),
        (ServerSettings(grpc_port=0), ""),
    ):
        store = ServerStore(qdrant.url, patience=1, settings=settings)
        assert store.fallback() == reason
        assert store.collections() == {}
        store.close()


def test_another_server_of_the_same_version_is_not_taken_for_this_one(qdrant: FakeQdrant) -> None:
    qdrant.client.create_collection(
        "ours", vectors_config=models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
    )
    with FakeQdrant() as other, FakeQdrantGrpc(other) as front:
        store = ServerStore(qdrant.url, patience=1, grpc_port=front.port)
        assert store.count("ours") == 0
        assert "does not answer gRPC" in store.fallback()
        store.close()
