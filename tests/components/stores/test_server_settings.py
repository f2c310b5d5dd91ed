"""How collections of a server are loaded and searched, and what is said of what people set on them."""

from contextlib import closing

import numpy as np
import pytest
from qdrant_client import models

from rag_index.components.stores.protocol import VectorQuery
from rag_index.components.stores.server import ServerStore
from rag_index.core.documents.vectors import SparseVector
from rag_index.core.settings.parts import GROUPS_FIELD
from tests.components.stores.test_server_faults import points, stop_time
from tests.fakes.qdrant import FakeQdrant
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

DIMENSION = 4
QUERY = np.ones(DIMENSION, np.float32)


@pytest.fixture
def open_store(qdrant):
    """A function that opens a store over gRPC."""
    opened: list[ServerStore] = []
    with FakeQdrantGrpc(qdrant) as front:

        def open_store() -> ServerStore:
            opened.append(ServerStore(qdrant.url, patience=1, grpc_port=front.port))
            return opened[-1]

        yield open_store
        for store in opened:
            store.close()
        assert any(call.startswith("GRPC") for call in qdrant.seen)


def test_a_server_that_counts_words_over_hidden_documents_is_named(qdrant, open_store):
    for name, groups, sparse, version in (
        ("old", True, True, "1.18.3"), ("new", True, True, "1.19.0"), ("open", False, True, "1.18.3"),
        ("dense", True, False, "1.18.3"),
    ):  # fmt: skip
        qdrant.version = version
        store = open_store()
        store.create(name, DIMENSION, {"payload_indexes": {GROUPS_FIELD: "keyword"}} if groups else {}, sparse=sparse)
        assert ("may not see, too: upgrade Qdrant to 1.19" in store.collection(name).notes()) is (name == "old")


# Searches


def test_searches_of_compressed_vectors_are_scored_again(qdrant, open_store):
    store = open_store()
    store.create("c", DIMENSION, {}, sparse=True)
    store.search("c", VectorQuery(QUERY, 1))
    store.search("c", VectorQuery(QUERY, 1, exact=True))
    compressed, exact = qdrant.searches
    assert compressed.quantization == models.QuantizationSearchParams(rescore=True, oversampling=2)
    assert (exact.quantization, exact.exact) == (None, True)
    qdrant.searches.clear()
    store.search("c", VectorQuery(QUERY, 1, SparseVector((1,), (1.0,))))
    assert [search.quantization is not None for search in qdrant.searches].count(True) == 1, "words are not compressed"


def test_waiting_ends_once_the_server_is_green_and_has_indexed_what_a_search_would_scan(qdrant, open_store):
    qdrant.threshold = 1  # kilobyte: 64 vectors
    store = open_store()
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
            with closing(ServerStore(qdrant.url, patience=1, grpc_port=given)) as store:
                assert store.fallback() == reason
                assert store.count("ours") == 0
