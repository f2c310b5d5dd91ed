"""The store on a Qdrant server: collections, reads and writes over one connection, made again after pickling.

Writes are requests of bounded size, over REST or gRPC; a refusal is narrowed down to points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as proto
from qdrant_client.conversions.conversion import GrpcToRest, json_to_value

from rag_index.documents.batches import RESERVED_KEY, CommitMark, PointBatch
from rag_index.errors import PointsRefused, StoreMismatch, StoreUnavailable
from rag_index.settings.sections import ServerSettings
from rag_index.stores import SPARSE
from rag_index.stores.points import (
    MARK_ID,
    check_ids,
    engine_ids,
    parts,
    require_payloads,
    require_present,
    unit_vectors,
)
from rag_index.stores.server.collection_requests import Collections
from rag_index.stores.server.link import Limits, Link, Requests, has_sparse, vector_params, within_limits
from rag_index.stores.server.reads import MAX_IDS, Reads, key_filter

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.documents.vectors import SparseVectors

BATCH_POINTS = 256
BATCH_BYTES = 8_000_000
"""The size of a request as JSON; REST refuses more than 32 MB."""
NUMBER_BYTES = 22
"""The size of one value of a vector as JSON."""
NO_WORDS: tuple[list[int], list[float]] = ([], [])
DEFAULT = ServerSettings()


class Writes(Requests):
    """Writes to a server's collections, in requests of bounded size."""

    def upsert(self, name: str, points: PointBatch) -> None:
        if not len(points):
            return
        info = self._info(name)
        dimension = vector_params(name, info).size
        vectors = unit_vectors(points, dimension, name, sparse=has_sparse(info))
        words = np.diff(points.sparse.offsets) if points.sparse is not None else np.zeros(len(points), dtype=np.int64)
        sizes = [
            (dimension + 2 * count) * NUMBER_BYTES + size
            for count, size in zip(words.tolist(), _payload_sizes(points.ids, points.payloads), strict=True)
        ]

        def send(rows: slice) -> None:
            sparse = points.sparse.rows(rows.start, rows.stop) if points.sparse is not None else None
            columns = points.ids[rows], vectors[rows], points.payloads[rows], sparse
            self._write(lambda client: [_upsert(client, name, *columns, timeout=self._link.timeout)])

        _send_all(name, points.ids, sizes, send, most=Limits.of(info).writes)

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if not payloads:
            return
        limits = Limits.of(self._info(name))
        most = max(1, min(limits.writes, limits.ids) // 2)  # a request that is refused has used up a part of them
        ids = [point_id for point_id, _ in payloads]
        check_ids(ids)
        sizes = _payload_sizes(ids, [payload for _, payload in payloads])
        missing: list[str] = []

        def send(rows: slice) -> None:
            try:
                self._overwrite(name, payloads[rows])
            except StoreMismatch:
                some = ids[rows]
                found = self._link.call(lambda client: client.retrieve(name, some, with_payload=False))
                existing = {str(record.id) for record in found}
                missing.extend(point_id for point_id in some if point_id not in existing)
                self._overwrite(name, [pair for pair in payloads[rows] if pair[0] in existing])

        _send_all(name, ids, sizes, send, most=most)
        require_present(missing, name)

    @within_limits
    def delete_points(self, limits: Limits, name: str, ids: Sequence[str]) -> None:
        for some in parts(engine_ids(ids), min(MAX_IDS, limits.writes)):
            self._delete(name, models.PointIdsList(points=list(some)))

    @within_limits
    def delete_chunks(self, limits: Limits, name: str, first: Mapping[str, int]) -> None:
        by_number: dict[int, list[str]] = defaultdict(list)
        for key, number in first.items():
            by_number[number].append(key)
        for number, keys in by_number.items():
            for some in parts(keys, min(MAX_IDS, limits.values, limits.writes)):
                self._delete(name, models.FilterSelector(filter=key_filter(some, number)))

    def set_commit_mark(self, name: str, mark: CommitMark) -> None:
        point = models.PointStruct(id=MARK_ID, vector={}, payload={RESERVED_KEY: asdict(mark)})
        self._write(lambda client: [client.upsert(name, [point], wait=True)])

    def _delete(self, name: str, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._write(lambda client: [client.delete(name, selector, wait=True)])

    def _overwrite(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        operations = [
            models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, points=[point_id]))
            for point_id, payload in payloads
        ]
        if operations:
            self._write(lambda client: client.batch_update_points(name, operations, wait=True))

    def _write(self, write: Callable[[QdrantClient], list[models.UpdateResult]]) -> None:
        """Write, and retry until the server reports the write as completed, not just acknowledged."""

        def write_completely(client: QdrantClient) -> None:
            for result in write(client):
                if result.status != models.UpdateStatus.COMPLETED:
                    raise StoreUnavailable(
                        f"Qdrant at {self._link.url} accepted a write but did not complete it "
                        f"(status {result.status.value})"
                    )

        self._link.call(write_completely)


def _upsert(
    client: QdrantClient,
    name: str,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    payloads: Sequence[dict[str, Any]],
    sparse: SparseVectors | None,
    *,
    timeout: float,
) -> models.UpdateResult:
    if client.init_options.get("prefer_grpc"):
        request = upsert_request(name, ids, vectors, payloads, sparse)
        return GrpcToRest.convert_update_result(client.grpc_points.Upsert(request, timeout=timeout).result)
    words = sparse.lists() if sparse is not None else repeat(NO_WORDS, len(ids))
    structs = []
    for point_id, row, (indices, values), payload in zip(ids, vectors.tolist(), words, payloads, strict=True):
        vector: dict[str, Any] = {"": row}
        if indices:
            vector[SPARSE] = models.SparseVector.model_construct(indices=indices, values=values)
        structs.append(models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload))
    return client.upsert(name, structs, wait=True)


def upsert_request(
    name: str,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    payloads: Sequence[dict[str, Any]],
    sparse: SparseVectors | None,
) -> proto.UpsertPoints:
    """Return the request of gRPC that writes these points and waits until they are written.

    It is filled in place: the client's conversion makes an object of each value and copies it, and takes twice as long.
    Without `sparse` the only vector of a point has no name. An empty sparse vector is left out. Raises TypeError and
    ValueError for payloads that are no JSON.
    """
    request = proto.UpsertPoints(collection_name=name, wait=True)
    words = sparse.lists() if sparse is not None else repeat(NO_WORDS, len(ids))
    for point_id, row, (indices, values), payload in zip(ids, vectors.tolist(), words, payloads, strict=True):
        point = request.points.add()
        point.id.uuid = point_id
        _fill(point.payload, payload)
        if sparse is None:
            point.vectors.vector.dense.data.extend(row)
            continue
        named = point.vectors.vectors.vectors
        named[""].dense.data.extend(row)
        if indices:
            named[SPARSE].sparse.indices.extend(indices)
            named[SPARSE].sparse.values.extend(values)
    return request


def _fill(entries: Any, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        entry, kind = entries[name], type(value)
        if kind is str:
            entry.string_value = value
        elif kind is int:
            entry.integer_value = value
        elif kind is bool:
            entry.bool_value = value
        elif kind is float:
            entry.double_value = value
        elif kind is dict:
            entry.struct_value.SetInParent()
            _fill(entry.struct_value.fields, value)
        else:
            entry.CopyFrom(json_to_value(value))


def _send_all(name: str, ids: Sequence[str], sizes: Sequence[int], send: Callable[[slice], None], *, most: int) -> None:
    """Call send(rows) for all rows in requests of bounded size, and for the halves of those that are refused.

    Raises PointsRefused for the rows that are refused alone, once all others are sent.
    """
    due = [*_request_bounds(sizes, min(most, BATCH_POINTS))][::-1]
    refused: list[tuple[str, str]] = []
    while due:
        start, stop = due.pop()
        try:
            send(slice(start, stop))
        except PointsRefused as exc:
            middle = (start + stop) // 2
            if middle == start:
                refused.append((ids[start], str(exc)))
            else:
                due += [(middle, stop), (start, middle)]
    if refused:
        first, reason = refused[0]
        raise PointsRefused(
            f"{len(refused)} of {len(ids)} points for {name} are refused, the first is {first}: {reason}",
            tuple(point_id for point_id, _ in refused),
        )


def _request_bounds(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    start = used = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= most or used + size > BATCH_BYTES):
            yield start, row
            start, used = row, 0
        used += size
    if start < len(sizes):
        yield start, len(sizes)


def _payload_sizes(ids: Sequence[str], payloads: Sequence[dict[str, Any]]) -> list[int]:
    sizes: list[int] = []
    bad: list[tuple[str, Exception]] = []
    for point_id, payload in zip(ids, payloads, strict=True):
        try:
            sizes.append(len(orjson.dumps(payload)))
        except TypeError as exc:
            bad.append((point_id, exc))
    require_payloads(bad)
    return sizes


class ServerStore(Collections, Reads, Writes):
    """The Store protocol on a Qdrant server, 1.16 or newer.

    It connects with the first call. Each call retries passing faults for `patience` seconds, as `Link` does. Safe to
    use from several threads; picklable, with a new connection in the process that unpickles it.
    """

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
        settings: ServerSettings = DEFAULT,
    ) -> None:
        how: dict[str, Any] = {"api_key": api_key, "timeout": timeout, "patience": patience}
        super().__init__(Link(url, grpc_port=settings.grpc_port, **how), settings)
        self._remake = partial(ServerStore, url, settings=settings, **how)

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        return self._remake, ()

    def fallback(self) -> str:
        """Return why the server is not asked over gRPC although that is wanted; otherwise ""."""
        return self._link.fallback()

    def flush(self, name: str) -> None:
        pass

    def prepare(self, name: str) -> None:
        pass

    def close(self) -> None:
        self._link.close()
