"""Points as messages of gRPC: those that the client makes of REST models, with its key and its time
limit."""

import time
from contextlib import closing
from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
from qdrant_client import QdrantClient
from qdrant_client import grpc as messages
from qdrant_client.qdrant_remote import QdrantRemote

from rag_index.components.stores.server import ServerStore, server_points
from rag_index.components.stores.server.link import ServerAccess
from rag_index.components.stores.server.upserts import upsert_by_grpc, upsert_by_rest
from rag_index.core.documents.batches import PointBatch
from rag_index.core.documents.vectors import SparseVector, SparseVectors
from rag_index.errors import PointsRefused, StoreUnavailable
from tests.components.stores.edge_process import points
from tests.fakes.qdrant_grpc import FakeQdrantGrpc

PAYLOADS = [
    {
        "_rag": {"key": '"1"', "chunk": 0, "text": "Größe 日本 🙂"},
        "none": None,
        "true": True,
        "zero": 0,
        "": "",
    },
    {
        "nested": [[1, [2.5, None]], {"a": {"b": []}}],
        "mixed": [True, 1, "1"],
        "empty": {},
        "large": -(2**63),
    },
    {"float": 1e300, "whole": 1.0, "small": 5e-324, "large": 2**63 - 1},
    {},
]
WORDS = [SparseVector((1, 2**32 - 1), (0.5, 2.0)), SparseVector((), ()), SparseVector((7,), (1.0,))]
WORDS += [SparseVector((3, 4), (1.0, 1.0))]


def batches() -> list[PointBatch]:
    ids, vectors = points(range(4)).ids, points(range(4)).vectors
    words = SparseVectors.from_rows(WORDS)
    return [
        PointBatch(ids, vectors, PAYLOADS, words),
        PointBatch(ids, vectors, PAYLOADS),
        PointBatch(ids, None, PAYLOADS, words),
        PointBatch(ids, None, PAYLOADS),
    ]


@pytest.mark.parametrize(
    "batch", batches(), ids=["both vectors", "dense alone", "words alone", "no vector"]
)
def test_a_request_over_grpc_is_the_one_that_the_client_makes_of_rest_models(batch):
    sent: list[tuple[messages.UpsertPoints, int]] = []

    def upsert(request, *, timeout):
        sent.append((request, timeout))
        result = messages.UpdateResult(operation_id=1, status=messages.UpdateStatus.Completed)
        return messages.PointsOperationResponse(result=result)

    stub = SimpleNamespace(Upsert=upsert)
    client = QdrantClient(
        "http://127.0.0.1:1", prefer_grpc=True, check_compatibility=False, timeout=7
    )
    with closing(client), mock.patch.object(QdrantRemote, "grpc_points", stub):
        expected = upsert_by_rest(client, "c", batch)
        assert upsert_by_grpc(client, "c", batch, 7) == expected
    assert len(sent[0][0].points) == len(batch)
    assert sent[0] == sent[1]
    assert sent[0][0].SerializeToString(deterministic=True) == sent[1][0].SerializeToString(
        deterministic=True
    )


@pytest.fixture
def front(qdrant):
    with FakeQdrantGrpc(qdrant) as front:
        yield front


def opened(qdrant, front, **how) -> closing[ServerStore]:
    return closing(ServerStore(ServerAccess(qdrant.url, grpc_port=front.port, **how)))


def test_points_are_sent_as_messages_with_the_key(qdrant, front):
    no_models = mock.patch.object(
        server_points, "upsert_by_rest", side_effect=AssertionError("made twice")
    )
    with opened(qdrant, front, api_key="s3cret", patience=1) as store, no_models:
        store.create("c", 4, {})
        store.points("c").upsert(points(range(10)))
    assert qdrant.requests("GRPC Upsert") == 1
    assert set(front.keys) == {"s3cret"}


def test_a_request_that_takes_too_long_ends(qdrant, front):
    with opened(qdrant, front, timeout=1, patience=0) as store:
        store.create("c", 4, {})
        qdrant.break_next("GRPC Upsert", times=None, hang=20)
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="Deadline Exceeded"):
            store.points("c").upsert(points(range(10)))
        assert time.monotonic() - began < 10


def test_a_value_that_a_message_cannot_carry_is_the_fault_of_its_point_alone(qdrant, front):
    batch = points(range(300))
    batch.payloads[7]["unsigned"] = 2**64 - 1
    with opened(qdrant, front, patience=1) as store:
        store.create("c", 4, {})
        with pytest.raises(PointsRefused, match=batch.ids[7]) as refused:
            store.points("c").upsert(batch)
        assert refused.value.point_ids == (batch.ids[7],)
        assert store.points("c").count() == 299


def test_a_vector_that_is_no_list_is_read_as_numbers_of_32_bits(qdrant, front):
    """What is stored is what was measured, bit by bit."""
    batch = points(range(3))
    batch.vectors[0] = np.array([1 / 3, 0.1, 0.7, -1e-3], np.float32)
    with opened(qdrant, front, patience=1) as store:
        store.create("c", 4, {})
        store.points("c").upsert(batch)
        stored = store.points("c").retrieve(batch.ids[:1], vectors=True)
        copied = PointBatch(
            batch.ids[:1], np.array([stored[0].vector], np.float32), batch.payloads[:1]
        )
        store.points("c").upsert(copied)
        assert store.points("c").retrieve(batch.ids[:1], vectors=True) == stored
