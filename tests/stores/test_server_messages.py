"""Requests that write points over gRPC: equal to those that Qdrant's own client makes."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import grpc as proto
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from rag_index.documents.vectors import SparseVector, SparseVectors
from rag_index.stores import SPARSE
from rag_index.stores.server.store import upsert_request

IDS = [f"{number:08d}-0000-5000-8000-000000000000" for number in range(5)]
PAYLOADS = [
    {"_rag": {"key": '"é"', "chunk": number, "text": "Drucker 🖨 offline"}, "price": 1.5, "open": True, "none": None}
    for number in range(4)
] + [
    {
        "tags": ["a", {"deep": [1, 2**62, None, True, -0.5]}],
        "": "",
        "Größe": -(2**63),
        "numbers": {"0": 0, "127": 127, "128": 128, "max": 2**63 - 1, "-1": -1, "small": 5e-324, "zero": 0.0},
        "long": "é" * 70_000,
        "nothing": {"dict": {}, "list": [], "false": False},
    }
]
WORDS = SparseVectors.from_rows(
    [SparseVector((number, 2**32 - 1), (1.5, 0.1)) for number in range(4)] + [SparseVector((), ())]
)


@pytest.mark.parametrize("dimension", [1, 256])
def test_a_request_is_what_the_client_would_send(dimension: int) -> None:
    vectors = np.random.default_rng(dimension).normal(size=(5, dimension)).astype(np.float32)
    for sparse in (None, WORDS):
        points = [
            models.PointStruct(id=i, vector=_vector(vectors[row].tolist(), sparse, row), payload=payload)
            for row, (i, payload) in enumerate(zip(IDS, PAYLOADS, strict=True))
        ]
        messages = [RestToGrpc.convert_point_struct(point) for point in points]
        expected = proto.UpsertPoints(collection_name="c", wait=True, points=messages)
        assert upsert_request("c", IDS, vectors, PAYLOADS, sparse) == expected


def _vector(dense: list[float], sparse: SparseVectors | None, row: int) -> object:
    if sparse is None:
        return dense
    words = sparse.row(row)
    found = {SPARSE: models.SparseVector(indices=list(words.indices), values=list(words.values))} if words else {}
    return {"": dense, **found}


@pytest.mark.parametrize(
    "value", [2**63, -(2**63) - 1, "\ud800", object()], ids=["large", "small", "surrogate", "object"]
)
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        upsert_request("c", IDS[:1], np.ones((1, 2), dtype=np.float32), [{"bad": value}], None)
