"""Requests of Qdrant's gRPC interface that write points, encoded here (protobuf's wire format).

The client would make an object of each value of a payload and copy each point into its request. Written as bytes, a
request is read by protobuf once, and takes half as long. The numbers of a vector are the same bytes as in memory.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from itertools import pairwise, repeat
from typing import TYPE_CHECKING

import numpy as np
from qdrant_client import grpc as proto
from qdrant_client.conversions.conversion import json_to_value

from rag_index.stores import SPARSE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from rag_index.documents.vectors import SparseVectors

NO_WORDS: tuple[list[int], bytes] = ([], b"")
_KEY, _VALUE = b"\x0a", b"\x12"
"""The tags of an entry of a map."""
_POINTS, _ID, _PAYLOAD, _VECTORS = b"\x1a", b"\x0a\x26\x12\x24", b"\x1a", b"\x22"
"""The tags of a request's points and of a point's fields; an id is a UUID of 36 characters."""
_NAMED, _ONE, _DENSE, _SPARSE, _NUMBERS, _INDICES = b"\x12", b"\x0a", b"\xaa\x06", b"\xb2\x06", b"\x0a", b"\x12"
"""The tags of vectors, with and without names, and of what is in one."""
_FLOAT, _INT, _TEXT, _FALSE, _TRUE, _DICT = b"\x11", b"\x18", b"\x22", b"\x28\x00", b"\x28\x01", b"\x32"
"""The tags of a payload's values, by type."""


def upsert_request(
    name: str,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    payloads: Sequence[dict[str, Any]],
    sparse: SparseVectors | None,
) -> proto.UpsertPoints:
    """Return the request that writes these points and waits until they are written.

    Without `sparse` the only vector of a point has no name. An empty sparse vector is left out. The ids have to be
    UUIDs. Raises TypeError and ValueError for payloads that are no JSON.
    """
    named, dimension = sparse is not None, vectors.shape[1]
    before = _before_numbers(dimension, named=named)
    words = zip(*_words(sparse), strict=True) if sparse is not None else repeat(NO_WORDS, len(ids))
    parts = [proto.UpsertPoints(collection_name=name, wait=True).SerializeToString()]
    for point_id, row, (indices, values), payload in zip(
        ids, np.asarray(vectors, dtype="<f4"), words, payloads, strict=True
    ):
        vector = before + row.tobytes()
        if indices:
            vector += _sparse_entry(indices, values)
        vector = (_NAMED if named else _ONE) + _size(len(vector)) + vector
        point = _ID + point_id.encode() + _entries(_PAYLOAD, payload) + _VECTORS + _size(len(vector)) + vector
        parts += (_POINTS, _size(len(point)), point)
    request: proto.UpsertPoints = proto.UpsertPoints.FromString(b"".join(parts))
    return request


def _before_numbers(dimension: int, *, named: bool) -> bytes:
    """Return the bytes of a dense vector of this dimension up to its numbers; with a name, of its entry."""
    size = 4 * dimension
    before = _NUMBERS + _size(size)
    before = _DENSE + _size(len(before) + size) + before
    if named:
        before = _KEY + _size(0) + _VALUE + _size(len(before) + size) + before
        before = _ONE + _size(len(before) + size) + before
    return before


def _words(sparse: SparseVectors) -> tuple[list[list[int]], list[bytes]]:
    """Return the dimensions and the bytes of the values of each row."""
    offsets, indices = sparse.offsets.tolist(), sparse.indices.tolist()
    values = np.asarray(sparse.values, dtype="<f4").tobytes()
    bounds = list(pairwise(offsets))
    return [indices[first:last] for first, last in bounds], [values[4 * first : 4 * last] for first, last in bounds]


def _sparse_entry(indices: list[int], values: bytes) -> bytes:
    """Return the entry of a named sparse vector."""
    encoded: bytes = proto.SparseVector(indices=indices).SerializeToString()
    vector = _NUMBERS + _size(len(values)) + values + encoded
    vector = _SPARSE + _size(len(vector)) + vector
    entry = _name(SPARSE) + _VALUE + _size(len(vector)) + vector
    return _ONE + _size(len(entry)) + entry


def _entries(tag: bytes, fields: Mapping[str, Any]) -> bytes:
    """Return a map from names to values, each entry of which begins with `tag`."""
    parts: list[bytes] = []
    for name, value in fields.items():
        encoded = _value(value)
        entry = _name(name) + _VALUE + _size(len(encoded)) + encoded
        parts += (tag, _size(len(entry)), entry)
    return b"".join(parts)


def _value(value: Any) -> bytes:
    """Return a value of a payload."""
    kind = type(value)
    if kind is str:
        text: bytes = value.encode()
        return _TEXT + _size(len(text)) + text
    if kind is int:
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"a payload cannot hold an integer of more than 64 bits ({value})")
        return _INT + _size(value & (2**64 - 1))
    if kind is dict:
        entries = _entries(_ONE, value)
        return _DICT + _size(len(entries)) + entries
    if kind is bool:
        return _TRUE if value else _FALSE
    if kind is float:
        return _FLOAT + struct.pack("<d", value)
    encoded: bytes = json_to_value(value).SerializeToString()
    return encoded


@lru_cache(maxsize=4096)
def _name(name: str) -> bytes:
    encoded = name.encode()
    return _KEY + _size(len(encoded)) + encoded


@lru_cache(maxsize=4096)
def _size(number: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first; all but the last have the eighth bit set."""
    encoded = bytearray()
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
