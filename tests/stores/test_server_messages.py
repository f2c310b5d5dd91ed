"""Points as gRPC messages: equal to what Qdrant's own client makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from qdrant_client import models
from qdrant_client.conversions.conversion import RestToGrpc

from rag_index.documents.sparse import SparseVector, SparseVectors
from rag_index.stores import SPARSE
from rag_index.stores.server.messages import point_messages

IDS = [f"{number:08d}-0000-5000-8000-000000000000" for number in range(5)]
PAYLOADS = [
    {"_rag": {"key": '"é"', "chunk": number, "text": "Drucker 🖨 offline"}, "price": 1.5, "open": True, "none": None}
    for number in range(4)
] + [{"tags": ["a", {"deep": [1, 2**62]}]}]
WORDS = SparseVectors.from_rows(
    [SparseVector((number, 2**32 - 1), (1.5, 0.1)) for number in range(4)] + [SparseVector((), ())]
)


@pytest.mark.parametrize("dimension", [1, 31, 32, 256, 4096])
def test_a_message_is_what_the_client_would_send(dimension: int) -> None:
    vectors = np.random.default_rng(dimension).normal(size=(5, dimension)).astype(np.float32)
    for sparse in (None, WORDS):
        points = [
            models.PointStruct(id=i, vector=_vector(vectors[row].tolist(), sparse, row), payload=payload)
            for row, (i, payload) in enumerate(zip(IDS, PAYLOADS, strict=True))
        ]
        expected = [RestToGrpc.convert_point_struct(point) for point in points]
        assert point_messages(IDS, vectors, PAYLOADS, sparse) == expected


def _vector(dense: list[float], sparse: SparseVectors | None, row: int) -> object:
    if sparse is None:
        return dense
    words = sparse.row(row)
    found = {SPARSE: models.SparseVector(indices=list(words.indices), values=list(words.values))} if words else {}
    return {"": dense, **found}
