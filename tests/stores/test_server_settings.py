"""`[store.server]`: how collections of a server are made, changed, loaded and searched."""

import re
from contextlib import closing

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from rag_index.components.stores import BULK
from rag_index.components.stores.protocol import VectorQuery
from rag_index.components.stores.server import collection_requests as server_collections
from rag_index.components.stores.server.server_store import ServerStore
from rag_index.core.documents.vectors import SparseVector
from rag_index.core.settings.payload_indexes import GROUPS_FIELD
from rag_index.core.settings.sections import ServerSettings
from rag_index.errors import StoreError, StoreUnavailable
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc
from tests.ports import free_port
from tests.stores.test_server_faults import points, stop_time

DIMENSION = 4
QUERY = np.ones(DIMENSION, np.float32)
EVERYTHING = ServerSettings(
    shard_number=3, replication_factor=2, write_consistency_factor=2, on_disk_vectors=True, on_disk_payload=False,
    hnsw_m=32, hnsw_ef_construct=200, quantization="scalar",
)  # fmt: skip


@pytest.fixture
def open_with(qdrant):
    """A function that opens a store with these settings, over gRPC."""
    opened: list[ServerStore] = []
    with FakeQdrantGrpc(qdrant) as front:

        def open_with(settings: ServerSettings = ServerSettings()) -> ServerStore:  # noqa: B008
            settings = settings.model_copy(update={"grpc_port": front.port})
            opened.append(ServerStore(qdrant.url, patience=1, settings=settings))
            return opened[-1]

        yield open_with
        for store in opened:
            store.close()
        assert any(call.startswith("GRPC") for call in qdrant.seen)


def by_hand(qdrant: FakeQdrant, name: str = "c", **changes) -> models.CollectionConfig:
    """Change a collection as any other program does, and return its configuration."""
    with closing(QdrantClient(qdrant.url, check_compatibility=False)) as client:
        if changes:
            client.update_collection(name, **changes)
        return client.get_collection(name).config


def updates(qdrant: FakeQdrant) -> int:
    return qdrant.requests("GRPC Update")


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


def test_a_new_collection_is_made_as_the_settings_say(qdrant, open_with):
    store = open_with(EVERYTHING)
    store.create("c", DIMENSION, {})
    assert_everything(by_hand(qdrant))
    before = updates(qdrant)
    assert store.configure("c") == ""
    assert updates(qdrant) == before, "nothing differs"
    assert open_with().configure("c") == ""
    assert_everything(by_hand(qdrant))  # what is not set is left as somebody set it


def test_an_existing_collection_is_changed_where_qdrant_can(qdrant, open_with):
    plain = open_with(ServerSettings(shard_number=1))
    plain.create("c", DIMENSION, {})
    plain.upsert("c", points(5))
    said = "c has 1 shard, [store.server] shard_number says 3: `rag-index rebuild` makes a collection with that many"
    assert open_with(EVERYTHING).configure("c") == said
    assert_everything(by_hand(qdrant), shards=1)
    assert plain.count("c") == 5


@pytest.mark.parametrize("kind", ["binary", "turbo"])
def test_one_quantization_takes_the_place_of_another_and_none_removes_it(qdrant, open_with, kind):
    open_with(EVERYTHING).create("c", DIMENSION, {})
    open_with(ServerSettings(quantization=kind)).configure("c")
    assert getattr(by_hand(qdrant).quantization_config, kind).always_ram
    open_with(ServerSettings(quantization="none")).configure("c")
    assert by_hand(qdrant).quantization_config is None


def test_quantization_that_is_too_coarse_for_the_vectors_is_named(open_with):
    coarse = ServerSettings(quantization="binary")
    open_with(coarse).create("c", DIMENSION, {})
    said = rf'c has {DIMENSION}-d vectors, too few dimensions for binary.*"scalar" or "turbo"'
    assert re.search(said, open_with(coarse).configure("c"))
    assert re.search(said, open_with().configure("c")), "set by hand"
    assert open_with(ServerSettings(quantization="scalar")).configure("c") == ""
    open_with(coarse).create("wide", 1024, {})
    assert open_with(coarse).configure("wide") == ""


def test_a_server_that_counts_words_over_hidden_documents_is_named(qdrant, open_with):
    for name, groups, sparse, version in (
        ("old", True, True, "1.18.3"), ("new", True, True, "1.19.0"), ("open", False, True, "1.18.3"),
        ("dense", True, False, "1.18.3"),
    ):  # fmt: skip
        qdrant.version = version
        store = open_with()
        store.create(name, DIMENSION, {"payload_indexes": {GROUPS_FIELD: "keyword"}} if groups else {}, sparse=sparse)
        assert ("may not see, too: upgrade Qdrant to 1.19" in store.configure(name)) is (name == "old")


def test_what_else_of_a_quantization_was_set_by_hand_stays(qdrant, open_with):
    store = open_with(ServerSettings(quantization="scalar"))
    store.create("c", DIMENSION, {})
    set_by_hand = models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.9, always_ram=True)
    )
    by_hand(qdrant, quantization_config=set_by_hand)
    store.configure("c")
    assert by_hand(qdrant).quantization_config == set_by_hand


def test_an_older_server_without_turboquant_is_named(qdrant, open_with):
    qdrant.version = "1.17.2"
    store = open_with(ServerSettings(quantization="turbo"))
    with pytest.raises(StoreError, match=r'is version 1\.17\.2, and .* quantization = "turbo" needs 1\.18 or newer'):
        store.create("c", DIMENSION, {})
    assert store.names() == set()
    open_with().create("c", DIMENSION, {})
    with pytest.raises(StoreError, match=r"needs 1\.18 or newer"):
        store.configure("c")


# Searches


def test_searches_of_compressed_vectors_are_scored_again_and_stay_within_strict_mode(qdrant, open_with):
    store = open_with(ServerSettings(quantization="binary"))
    store.create("c", DIMENSION, {}, sparse=True)
    store.search("c", VectorQuery(QUERY, 1))
    store.search("c", VectorQuery(QUERY, 1, exact=True))
    compressed, exact = qdrant.searches
    assert compressed.quantization == models.QuantizationSearchParams(rescore=True, oversampling=2)
    assert (exact.quantization, exact.exact) == (None, True)
    qdrant.searches.clear()
    store.search("c", VectorQuery(QUERY, 1, SparseVector((1,), (1.0,))))
    assert [search.quantization is not None for search in qdrant.searches].count(True) == 1, "words are not compressed"
    by_hand(qdrant, strict_mode_config=models.StrictModeConfig(enabled=True, search_max_oversampling=1.5))
    store.search("c", VectorQuery(QUERY, 1))
    assert qdrant.searches[-1].quantization.oversampling == 1.5


# Loading in bulk


def test_a_paused_search_index_is_restored_to_what_it_was(qdrant, open_with):
    qdrant.threshold = 1  # kilobyte: 64 vectors
    store = open_with()
    store.create("c", DIMENSION, {})
    store.pause_indexing("c")
    store.upsert("c", points(100))
    assert by_hand(qdrant).optimizer_config.indexing_threshold == 0
    assert store.count_indexed("c") == 0
    assert store.indexed("c"), "there is nothing to wait for"
    store.create("new", DIMENSION, {}, like="c")
    assert by_hand(qdrant, "new").optimizer_config.indexing_threshold == 1, "a pause is not carried over"
    store.pause_indexing("c")  # as a run that resumes does: what was set first is remembered
    store.resume_indexing("c")
    assert by_hand(qdrant).optimizer_config.indexing_threshold == 1
    assert BULK not in store.metadata("c")
    assert BULK not in store.metadata("new")
    store.optimize("c")
    assert 0 < 100 - store.count_indexed("c") < 64, "Qdrant scans the rest, which is below the threshold"
    before = updates(qdrant)
    store.resume_indexing("c")
    assert updates(qdrant) == before


def test_waiting_for_the_search_index_ends_when_it_does_not_grow(qdrant, open_with, monkeypatch):
    monkeypatch.setattr(server_collections, "POLL", 60.0)
    qdrant.threshold, qdrant.stuck = 1, True
    store = open_with()
    store.create("c", DIMENSION, {})
    store.upsert("c", points(100))
    pauses = stop_time(store)
    with pytest.raises(StoreUnavailable, match="did not grow for"):
        store.optimize("c")
    assert sum(pauses) >= server_collections.BUSY_WAIT
    qdrant.stuck = False
    store.optimize("c")


def test_waiting_ends_once_the_server_is_green_and_has_indexed_what_a_search_would_scan(qdrant, open_with):
    qdrant.threshold = 1  # kilobyte: 64 vectors
    store = open_with()
    stop_time(store)
    store.create("c", DIMENSION, {})
    store.upsert("c", points(100))
    qdrant.indexed["c"], qdrant.early_green = 0, 3
    store.optimize("c")
    assert 100 - qdrant.indexed["c"] < 64, "green alone does not mean that it is indexed"
    qdrant.asleep = True
    store.optimize("c")
    assert not qdrant.asleep, "indexed alone does not mean that it is green: after a restart, a change wakes the server"


# gRPC


def test_grpc_is_found_beside_the_port_of_the_url():
    port = free_port(2)
    with FakeQdrant(port=port) as qdrant, FakeQdrantGrpc(qdrant, port=port + 1):
        with closing(ServerStore(qdrant.url, patience=1)) as store:
            store.create("c", DIMENSION, {})
            assert store.fallback() == ""
        assert "GRPC Create" in qdrant.seen


def test_a_server_without_grpc_is_used_over_rest_and_says_so(qdrant):
    qdrant.client.create_collection("ours", models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE))
    port = int(qdrant.url.rpartition(":")[2])
    with FakeQdrant() as other, FakeQdrantGrpc(other) as front:  # another server of the same version
        for given, reason in (
            (None, f"Qdrant at {qdrant.url} does not answer gRPC on port {port + 1}"),
            (port, f"Qdrant at {qdrant.url} does not answer gRPC on port {port}"),
            (front.port, f"Qdrant at {qdrant.url} does not answer gRPC on port {front.port}"),
            (0, ""),
        ):
            with closing(ServerStore(qdrant.url, patience=1, settings=ServerSettings(grpc_port=given))) as store:
                assert store.fallback() == reason
                assert store.count("ours") == 0
