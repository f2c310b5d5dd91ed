"""The store on a Qdrant server: collections, reads and writes over one connection, made again after pickling. Writes
are requests of bounded size, over REST or gRPC; a refusal is narrowed down to points."""

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

from rag_index.components.stores import SPARSE
from rag_index.components.stores.points import (
    MARK_ID,
    MAX_PLACES,
    SEARCH_EF,
    LookUp,
    best_points,
    check_ids,
    count_having,
    engine_ids,
    match_any,
    parts,
    payload_filter,
    payload_path,
    require_payloads,
    require_present,
    stored_point,
    unit_query,
    unit_vectors,
    words_in,
)
from rag_index.components.stores.protocol import NO_WORDS, Conditions, VectorQuery, WordCounts, WordPlaces
from rag_index.components.stores.server.collection_requests import MIN_IDF, Collections
from rag_index.components.stores.server.link import Link, Requests, has_sparse, vector_params
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, PointBatch, StoredPoint
from rag_index.errors import PointsRefused, StoreMismatch, StoreUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.core.documents.vectors import SparseVectors

REQUEST_POINTS = 256
BATCH_BYTES = 8_000_000
"""The size of a request as JSON; REST refuses more than 32 MB."""
NUMBER_BYTES = 22
"""The size of one value of a vector as JSON."""
OVERSAMPLING = 2.0
"""How many times more candidates than wanted are looked up among compressed vectors before they are scored."""
MAX_IDS = 1000
"""Ids or keys per request."""
NO_WORDS_OF_POINT: tuple[list[int], list[float]] = ([], [])


def filter_of(conditions: Conditions) -> models.Filter | None:
    """Return a filter for points that meet all conditions, None if there are none."""
    found = payload_filter(conditions)
    return None if found is None else models.Filter.model_validate(found)


def key_filter(keys: Sequence[str], from_chunk: int = 0) -> models.Filter:
    """Return a filter for the points of these document keys, from the given chunk number on."""
    chunks = [{"key": f"{RESERVED_KEY}.chunk", "range": {"gte": from_chunk}}] if from_chunk else []
    return models.Filter.model_validate({"must": [match_any(f"{RESERVED_KEY}.key", keys), *chunks]})


def _has_id(ids: Sequence[models.ExtendedPointId]) -> Any:
    return models.HasIdCondition(has_id=list[Any](ids))


class Reads(Requests):
    """Reads of a server's collections."""

    def count(self, name: str, *, keys: Sequence[str] | None = None) -> int:
        if keys is None:
            return self._count(name, None) - len(self._retrieve(name, [MARK_ID], vectors=False))
        unique = list(dict.fromkeys(keys))
        return sum(self._count(name, key_filter(some)) for some in parts(unique, MAX_IDS))

    def seen_commits(self, name: str) -> int | None:
        return None

    def commit_mark(self, name: str) -> CommitMark:
        found = self._retrieve(name, [MARK_ID], vectors=False)
        return CommitMark.parse(found[0].payload[RESERVED_KEY] if found else None)

    def retrieve(
        self, name: str, ids: Sequence[str], *, vectors: bool = False, conditions: Conditions = ()
    ) -> list[StoredPoint]:
        check_ids(ids)
        wanted: Any = filter_of(conditions)
        if wanted is None:
            return [point for some in parts(ids, MAX_IDS) for point in self._retrieve(name, some, vectors=vectors)]
        found: list[StoredPoint] = []  # only a scroll can ask for ids and conditions
        for some in parts(ids, MAX_IDS):
            which = models.Filter(must=[_has_id(some), wanted])
            found += map(stored_point, self._scroll(name, which, limit=len(some), with_vectors=vectors)[0])
        return found

    def scroll(
        self, name: str, *, vectors: bool = False, page: int = 1000, conditions: Conditions = ()
    ) -> Iterator[StoredPoint]:
        offset, wanted = None, filter_of(conditions)
        while True:
            records, offset = self._scroll(name, wanted, limit=page, offset=offset, with_vectors=vectors)
            yield from (stored_point(record) for record in records if record.id != MARK_ID)
            if offset is None:
                return

    def search(self, name: str, query: VectorQuery) -> list[StoredPoint]:
        near, words = unit_query(query.vector, None, name), query.sparse
        which = filter_of(query.conditions)
        params = models.SearchParams(hnsw_ef=SEARCH_EF, exact=query.exact)
        if not query.exact:  # it changes nothing where vectors are not quantized
            params.quantization = models.QuantizationSearchParams(rescore=True, oversampling=OVERSAMPLING)
        dense = models.QueryRequest(query=near, filter=which, params=params, with_payload=query.payload or not words)
        sparse = dense.model_copy(
            update={
                "query": words and models.SparseVector(indices=list(words.indices), values=list(words.values)),
                "using": SPARSE,
                "params": params.model_copy(
                    update={"quantization": None, "exact": False, "idf": self._idf(filter_of(query.corpus))}
                ),
            }
        )

        def look_up(wanted: Sequence[LookUp]) -> list[list[StoredPoint]]:
            found = self._look_up(name, [(one, sparse if one.sparse else dense) for one in wanted])
            return [[stored_point(point, point.score) for point in points] for points in found]

        return best_points(look_up, query.limit, hybrid=bool(words))

    def _look_up(
        self, name: str, wanted: Sequence[tuple[LookUp, models.QueryRequest]]
    ) -> list[list[models.ScoredPoint]]:
        requests = []
        for one, request in wanted:
            changes: dict[str, Any] = {"limit": one.limit}
            if one.ids:
                changes |= {"filter": models.Filter(must=[_has_id(one.ids)]), "with_payload": False}
            requests.append(request.model_copy(update=changes))
        return self._query(name, requests)

    def word_counts(self, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordCounts:
        info = self._info(name)
        if not words or not has_sparse(info):
            return NO_WORDS
        points, idf = info.points_count or 0, self._idf(filter_of(conditions))
        if idf is not None:
            has_words = models.HasVectorCondition(has_vector=SPARSE)
            points = self._count(name, models.Filter(must=[idf.corpus, has_words]))
        found = self._having(name, [[word] for word in words], 1, conditions)
        return WordCounts(
            points, {word: count_having(points, word, one) for word, one in zip(words, found, strict=True)}
        )

    def find_words(self, name: str, words: Sequence[int], conditions: Conditions = ()) -> WordPlaces:
        some = words if has_sparse(self._info(name)) else ()
        return words_in(lambda left: self._having(name, [left], MAX_PLACES, conditions)[0], some, MAX_PLACES)

    def _having(
        self, name: str, asked: Sequence[list[int]], limit: int, conditions: Conditions
    ) -> list[list[StoredPoint]]:
        which = filter_of(conditions)
        params = models.SearchParams(idf=self._idf(which))
        make = partial(models.QueryRequest, using=SPARSE, filter=which, limit=limit, params=params)
        words = [models.SparseVector(indices=some, values=[1.0] * len(some)) for some in asked]
        answers = self._query(name, [make(query=one, with_vector=[SPARSE]) for one in words])
        return [[stored_point(point, point.score) for point in points] for points in answers]

    def _idf(self, corpus: models.Filter | None) -> models.IdfCorpusParams | None:
        """Return the parameter that counts words among the points of a filter; None for all, or if it is not known."""
        known = corpus is not None and self._link.has_version(MIN_IDF)
        return models.IdfCorpusParams(corpus=corpus) if corpus and known else None

    def facet(self, name: str, field: str, *, limit: int, conditions: Conditions = ()) -> dict[str, int]:
        wanted: Any = filter_of(conditions)
        found = self._ask(lambda client: client.facet(name, payload_path(field), facet_filter=wanted, limit=limit))
        return {str(hit.value): hit.count for hit in found.hits}

    def _query(self, name: str, requests: Sequence[models.QueryRequest]) -> list[list[models.ScoredPoint]]:
        return [one.points for one in self._ask(lambda client: client.query_batch_points(name, list(requests)))]

    def _retrieve(self, name: str, ids: Sequence[str], *, vectors: bool) -> list[StoredPoint]:
        return [*map(stored_point, self._ask(lambda client: client.retrieve(name, ids, with_vectors=vectors)))]

    def _scroll(self, name: str, wanted: models.Filter | None, **options: Any) -> tuple[list[models.Record], Any]:
        return self._ask(lambda client: client.scroll(name, wanted, **options))


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
            self._write(lambda client: [_upsert(client, name, *columns)])

        _send_all(name, points.ids, sizes, send)

    def update_payloads(self, name: str, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if not payloads:
            return
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

        _send_all(name, ids, sizes, send)
        require_present(missing, name)

    def delete_points(self, name: str, ids: Sequence[str]) -> None:
        for some in parts(engine_ids(ids), MAX_IDS):
            self._delete(name, models.PointIdsList(points=list(some)))

    def delete_chunks(self, name: str, first: Mapping[str, int]) -> None:
        by_number: dict[int, list[str]] = defaultdict(list)
        for key, number in first.items():
            by_number[number].append(key)
        for number, keys in by_number.items():
            for some in parts(keys, MAX_IDS):
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
) -> models.UpdateResult:
    words = sparse.lists() if sparse is not None else repeat(NO_WORDS_OF_POINT, len(ids))
    structs = []
    for point_id, row, (indices, values), payload in zip(ids, vectors.tolist(), words, payloads, strict=True):
        vector: dict[str, Any] = {"": row}
        if indices:
            vector[SPARSE] = models.SparseVector.model_construct(indices=indices, values=values)
        structs.append(models.PointStruct.model_construct(id=point_id, vector=vector, payload=payload))
    return client.upsert(name, structs, wait=True)


def _send_all(name: str, ids: Sequence[str], sizes: Sequence[int], send: Callable[[slice], None]) -> None:
    """Call send(rows) for all rows in requests of bounded size, and for the halves of those that are refused. Raises
    PointsRefused for the rows that are refused alone, once all others are sent."""
    due = [*_request_bounds(sizes)][::-1]
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


def _request_bounds(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    start = used = 0
    for row, size in enumerate(sizes):
        if row > start and (row - start >= REQUEST_POINTS or used + size > BATCH_BYTES):
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
    """The Store protocol on a Qdrant server, 1.16 or newer. It connects with the first call. Each call retries passing
    faults for `patience` seconds, as `Link` does. Safe to use from several threads; picklable, with a new connection in
    the process that unpickles it."""

    embedded = False

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        patience: float | None = None,
        grpc_port: int | None = None,
    ) -> None:
        how: dict[str, Any] = {"api_key": api_key, "timeout": timeout, "patience": patience, "grpc_port": grpc_port}
        super().__init__(Link(url, **how))
        self._remake = partial(ServerStore, url, **how)

    def __reduce__(self) -> tuple[Callable[[], ServerStore], tuple[()]]:
        return self._remake, ()

    def fallback(self) -> str:
        """Return why the server is not asked over gRPC although that is wanted; otherwise ""."""
        return self._link.fallback()

    def flush(self, name: str) -> None:
        pass

    def prepare(self, name: str) -> None:
        pass

    def wanted(self) -> bool:
        return False

    def close(self) -> None:
        self._link.close()
