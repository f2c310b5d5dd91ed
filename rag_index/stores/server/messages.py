"""Points as messages of Qdrant's gRPC interface.

The client would convert each number of a vector by itself, and those of named vectors twice, which is most of what a
worker needs to write a point. In a message, numbers are the same bytes as in memory: they are copied as a whole here.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

import numpy as np
from qdrant_client import grpc as proto
from qdrant_client.conversions.conversion import RestToGrpc

from rag_index.stores import SPARSE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    from rag_index.documents.sparse import SparseVectors

__all__ = ["point_messages"]

NO_WORDS: tuple[list[int], list[float]] = ([], [])


def point_messages(
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    payloads: Sequence[dict[str, Any]],
    sparse: SparseVectors | None,
) -> list[proto.PointStruct]:
    """Return the points as the client sends them. An empty sparse vector is left out.

    Without `sparse` the only vector of a point has no name. Raises TypeError and ValueError for payloads that are no
    JSON.
    """
    before = _before_numbers(vectors.shape[1], named=sparse is not None)
    words = sparse.lists() if sparse is not None else repeat(NO_WORDS, len(ids))
    built = []
    for point_id, row, (indices, values), payload in zip(
        ids, np.asarray(vectors, dtype="<f4"), words, payloads, strict=True
    ):
        message = proto.Vectors.FromString(before + row.tobytes())
        if indices:
            found = message.vectors.vectors[SPARSE].sparse
            found.indices.extend(indices)
            found.values.extend(values)
        built.append(
            proto.PointStruct(
                id=proto.PointId(uuid=point_id), payload=RestToGrpc.convert_payload(payload), vectors=message
            )
        )
    return built


def _before_numbers(dimension: int, *, named: bool) -> bytes:
    """Return the bytes of a message with one dense vector of this dimension, up to the vector's numbers.

    The numbers come last, packed: four bytes for each, the lowest first (protobuf's encoding of `repeated float`).
    """
    vector = proto.Vector(dense=proto.DenseVector(data=[1.0] * dimension))
    message = proto.Vectors(vectors=proto.NamedVectors(vectors={"": vector})) if named else proto.Vectors(vector=vector)
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded[: -4 * dimension]
