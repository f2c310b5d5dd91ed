"""One collection of a Qdrant server: it is created, takes over settings of its predecessor, and is
read, written and indexed. Writes are requests of bounded size; a refused request is halved until
the refused points are known."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel
from qdrant_client import QdrantClient, models

from rag_index.components.stores.points import (
    COMMIT_MARK_ID,
    Json,
    check_ids,
    engine_ids,
    index_changes,
    parts,
    require_payloads,
    require_present,
    unit_vectors,
    unquoted,
)
from rag_index.components.stores.protocol import PointCollection
from rag_index.components.stores.queries import SPARSE
from rag_index.components.stores.reads import SEARCH_EF, LookUp
from rag_index.components.stores.server.link import Link, names_of
from rag_index.components.stores.server.upserts import upsert_by_grpc, upsert_by_rest
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, PointBatch
from rag_index.core.documents.vectors import SparseVector
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import PointsRefused, StoreError, StoreMismatch, StoreUnavailable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rag_index.components.stores.reads import PointReader

M = TypeVar("M", bound=BaseModel)
REQUEST_POINTS = 256
"""Points of a request. Chosen."""
BATCH_BYTES = 8_000_000
"""Bytes of a request as JSON; REST refuses more than 32 MB."""
NUMBER_BYTES = 22
"""Bytes of one value of a vector as JSON, at most."""
OVERSAMPLING = 2.0
"""How many times more candidates than wanted are found among compressed vectors before they are
rescored."""
MIN_IDF = (1, 19)
"""The first version of Qdrant that counts words among the points of a filter."""
DEFAULT_THRESHOLD = 10_000
"""Kilobytes of vectors that are scanned without a search index, if the server does not report its
own threshold."""
logger = logging.getLogger("rag_index.stores")
IDLE_WAIT, BUSY_WAIT = 600.0, 7200.0
"""Seconds without progress after which waiting for a search index ends: while the server is idle,
and while it reports work. A large segment may take an hour in which nothing else changes."""
INDEX_POLL = 0.5
"""Seconds between two looks at the search index. Chosen; nothing depends on it."""


def has_sparse(info: models.CollectionInfo) -> bool:
    """Return whether points of the collection can have sparse vectors."""
    return SPARSE in (info.config.params.sparse_vectors or {})


def difference(kind: type[M], wanted: object, found: object) -> M | None:
    """Return those fields of this kind of change that `wanted` has and in which `found` differs;
    None if there are none."""
    values: dict[str, Any] = {}
    for name in kind.model_fields:
        value = getattr(wanted, name, None)
        if value is None or value == getattr(found, name, None):
            continue
        values[name] = value.model_dump() if isinstance(value, BaseModel) else value
    return kind.model_validate(values) if values else None


def set_by_hand(
    old: models.CollectionInfo, new: models.CollectionInfo, *, same_server: bool = True
) -> dict[str, Any]:
    """Return the arguments of `update_collection` that give the new collection the settings of the
    old one."""
    was = old.config
    now = new.config
    params = difference(models.CollectionParamsDiff, was.params, now.params)
    # Another server has its own shards and replicas.
    if params is not None and not same_server:
        kept = params.model_dump(include={"on_disk_payload"}, exclude_none=True)
        params = models.CollectionParamsDiff(**kept) if kept else None
    optimizers = difference(models.OptimizersConfigDiff, was.optimizer_config, now.optimizer_config)
    strict_mode = difference(
        models.StrictModeConfig, was.strict_mode_config, now.strict_mode_config
    )
    found: dict[str, Any] = {
        "hnsw_config": difference(models.HnswConfigDiff, was.hnsw_config, now.hnsw_config),
        "optimizers_config": optimizers,
        "collection_params": params,
        "strict_mode_config": strict_mode,
    }
    if was.quantization_config != now.quantization_config:
        found["quantization_config"] = was.quantization_config or models.Disabled.DISABLED
    vectors = difference(models.VectorParamsDiff, was.params.vectors, now.params.vectors)
    if vectors:
        found["vectors_config"] = {"": vectors}
    return {name: value for name, value in found.items() if value is not None}


class ServerPoints(PointCollection):
    """The points, the settings and the metadata of one collection."""

    ids_at_once = keys_at_once = 1000

    def __init__(self, link: Link, name: str) -> None:
        super().__init__(name)
        self._link = link

    def create(self, dimension: int, metadata: dict[str, Any], *, sparse: bool = False) -> None:
        given = {key: value for key, value in metadata.items() if value is not None}
        if not self._exists():
            self._create(dimension, given, sparse=sparse)
        info = self._info()
        found = self._vector_params(info)
        if found.size != dimension or found.distance != models.Distance.COSINE:
            raise StoreMismatch(
                f"collection {self.name} holds {found.size}-d vectors ({found.distance.value}), not"
                f" {dimension}-d (Cosine): run `rag-index rebuild`"
            )
        if sparse and not has_sparse(info):
            raise StoreMismatch(
                f"collection {self.name} has no sparse vectors: run `rag-index rebuild`"
            )
        kinds = {"key": models.PayloadSchemaType.KEYWORD, "chunk": models.PayloadSchemaType.INTEGER}
        for field, kind in kinds.items():
            if f"{RESERVED_KEY}.{field}" not in info.payload_schema:
                self._index(f"{RESERVED_KEY}.{field}", kind)
        if metadata and (info.config.metadata or {}) != given:
            self.set_metadata(metadata)

    def _create(self, dimension: int, metadata: dict[str, Any], *, sparse: bool) -> None:
        words = (
            {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if sparse else None
        )
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        kind: dict[str, Any] = {
            "vectors_config": vectors,
            "sparse_vectors_config": words,
            "metadata": metadata,
        }
        try:
            self._link.ask(lambda client: client.create_collection(self.name, **kind))
        except StoreError:
            if not self._exists():  # else it is made by another process, or the answer was lost
                raise

    def take_settings(self, old: PointReader) -> None:
        if not isinstance(old, ServerPoints):  # the embedded store has nothing to set by hand
            return
        try:
            was, now = old._info(), self._info()
        except StoreError as exc:
            logger.warning(
                "settings of collection %s are not carried over to %s: %s", old.name, self.name, exc
            )
            return
        found = set_by_hand(was, now, same_server=old._link is self._link)
        if found:
            self._update(**found)
        # A run creates the payload indexes of the settings. Others were created by a person.
        of_settings = (was.config.metadata or {}).get("payload_indexes") or {}
        made_by_runs = {unquoted(field) for field in of_settings}
        for field, index in was.payload_schema.items():
            is_ours = field.startswith(f"{RESERVED_KEY}.") or unquoted(field) in made_by_runs
            if not is_ours and field not in now.payload_schema:
                self._index(field, index.params or index.data_type)

    def metadata(self) -> dict[str, Any]:
        return dict(self._info().config.metadata or {})

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        self._update(metadata=metadata)

    def dimension(self) -> int:
        return self._vector_params(self._info()).size

    def notes(self) -> str:
        """Return a sentence for a person if word counts of a collection reveal documents that a
        caller may not see; "" if they do not."""
        info = self._info()
        groups = (info.config.metadata or {}).get("payload_indexes") or {}
        if GROUPS_FIELD in groups and has_sparse(info) and not self._counts_corpus():
            version = ".".join(map(str, MIN_IDF))
            hidden = (
                f"how rare a word of {self.name} is, is counted over documents that a caller may"
                " not see, too"
            )
            return f"{hidden}: upgrade Qdrant to {version}"
        return ""

    def _exists(self) -> bool:
        return self.name in self._link.ask(names_of)  # an alias of this name is none

    def _info(self) -> models.CollectionInfo:
        return self._link.ask(lambda client: client.get_collection(self.name))

    def _update(self, **changes: Any) -> None:
        self._link.ask(lambda client: client.update_collection(self.name, **changes))

    def _vector_params(self, info: models.CollectionInfo) -> models.VectorParams:
        """Return the parameters of the dense vectors. Raises StoreMismatch if they have names,
        which rag-index never gives."""
        found = info.config.params.vectors
        if not isinstance(found, models.VectorParams):
            raise StoreMismatch(
                f"collection {self.name} has named vectors: rag-index did not make it; use another"
                " project name"
            )
        return found

    # Reads

    def count(self, *, keys: Sequence[str] | None = None) -> int:
        found = super().count(keys=keys)
        if keys is not None:
            return found
        # The point of the commit mark is none of the collection's.
        return found - len(self._get([COMMIT_MARK_ID], vectors=False))

    def commit_mark(self) -> CommitMark:
        found = self._get([COMMIT_MARK_ID], vectors=False)
        if not found:
            return CommitMark()
        payload = found[0].payload or {}
        return CommitMark.parse(payload[RESERVED_KEY])

    def _filter(self, wanted: Json | None) -> models.Filter | None:
        return models.Filter.model_validate(wanted) if wanted else None

    def _count(self, which: models.Filter | None, *, exact: bool = True) -> int:
        answer = self._link.ask(
            lambda client: client.count(self.name, count_filter=which, exact=exact)
        )
        return answer.count

    def _get(self, ids: Sequence[str], *, vectors: bool) -> Sequence[models.Record]:
        return self._link.ask(lambda client: client.retrieve(self.name, ids, with_vectors=vectors))

    def _page(
        self, which: models.Filter | None, *, limit: int, offset: Any = None, vectors: bool
    ) -> tuple[Sequence[models.Record], Any]:
        options: dict[str, Any] = {"limit": limit, "offset": offset, "with_vectors": vectors}
        return self._link.ask(lambda client: client.scroll(self.name, which, **options))

    def _look_up(self, wanted: Sequence[LookUp]) -> Sequence[Sequence[models.ScoredPoint]]:
        requests = list(map(self._query_request, wanted))
        request = partial(
            QdrantClient.query_batch_points, collection_name=self.name, requests=requests
        )
        answers = self._link.ask(request)
        return [answer.points for answer in answers]

    def _query_request(self, look_up: LookUp) -> models.QueryRequest:
        among = [models.Prefetch(**self._query(first)) for first in look_up.among]
        return models.QueryRequest(
            **self._query(look_up),
            prefetch=among or None,
            with_payload=look_up.payload,
            with_vector=[SPARSE] if look_up.words else None,
        )

    def _query(self, look_up: LookUp) -> dict[str, Any]:
        """Return the arguments that a request and a prefetch have in common."""
        found: dict[str, Any] = {"filter": look_up.which, "limit": look_up.limit}
        vector = look_up.vector
        if isinstance(vector, SparseVector):
            indices = list(vector.indices)
            found["query"] = models.SparseVector(indices=indices, values=list(vector.values))
            found["using"] = SPARSE
            # An older server counts words among all points.
            idf = None
            if look_up.corpus is not None and self._counts_corpus():
                idf = models.IdfCorpusParams(corpus=look_up.corpus)
            found["params"] = models.SearchParams(idf=idf)
            return found
        params = models.SearchParams(hnsw_ef=SEARCH_EF, exact=look_up.exact)
        # It changes nothing for vectors that are not quantized.
        if not look_up.exact:
            params.quantization = models.QuantizationSearchParams(
                rescore=True, oversampling=OVERSAMPLING
            )
        found["query"] = vector
        found["params"] = params
        return found

    def _facet(
        self, path: str, limit: int, which: models.Filter | None
    ) -> Sequence[models.FacetValueHit]:
        answer = self._link.ask(
            lambda client: client.facet(self.name, path, facet_filter=which, limit=limit)
        )
        return answer.hits

    def _points_with_words(self) -> int | None:
        info = self._info()
        if not has_sparse(info):
            return None
        return info.points_count or 0

    def _counts_corpus(self) -> bool:
        version = self._link.call(lambda _: self._link.version)
        return version >= MIN_IDF

    # Writes

    def upsert(self, points: PointBatch) -> None:
        if not len(points):
            return
        info = self._info()
        dimension = self._vector_params(info).size
        vectors = unit_vectors(points, dimension, self.name, sparse=has_sparse(info))
        words = np.zeros(len(points), dtype=np.int64)
        if points.sparse is not None:
            words = np.diff(points.sparse.offsets)
        payload_sizes = _payload_sizes(points.ids, points.payloads)
        sizes = [
            (dimension + 2 * count) * NUMBER_BYTES + size
            for count, size in zip(words.tolist(), payload_sizes, strict=True)
        ]

        def send(rows: slice) -> None:
            part = _part(points, vectors, rows)
            self._write(lambda client: [self._upsert(client, part)], part.payloads)

        _send_all(self.name, points.ids, sizes, send)

    def _upsert(self, client: QdrantClient, points: PointBatch) -> models.UpdateResult:
        if self._link.uses_grpc:
            seconds = math.ceil(self._link.access.timeout)  # as for the client's own requests
            return upsert_by_grpc(client, self.name, points, seconds)
        return upsert_by_rest(client, self.name, points)

    def update_payloads(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if not payloads:
            return
        ids = [point_id for point_id, _ in payloads]
        check_ids(ids)
        sizes = _payload_sizes(ids, [payload for _, payload in payloads])
        missing: list[str] = []

        def send(rows: slice) -> None:
            try:
                self._overwrite(payloads[rows])
            except StoreMismatch:
                some = ids[rows]
                found = self._link.call(
                    lambda client: client.retrieve(self.name, some, with_payload=False)
                )
                existing = {str(record.id) for record in found}
                missing.extend(point_id for point_id in some if point_id not in existing)
                self._overwrite([pair for pair in payloads[rows] if pair[0] in existing])

        _send_all(self.name, ids, sizes, send)
        require_present(missing, self.name)

    def delete_points(self, ids: Sequence[str]) -> None:
        for some in parts(engine_ids(ids), self.ids_at_once):
            self._delete(models.PointIdsList(points=list(some)))

    def delete_chunks(self, first: Mapping[str, int]) -> None:
        by_number: dict[int, list[str]] = defaultdict(list)
        for key, number in first.items():
            by_number[number].append(key)
        for number, keys in by_number.items():
            for some in self._key_filters(
                keys, {"key": f"{RESERVED_KEY}.chunk", "range": {"gte": number}}
            ):
                self._delete(models.FilterSelector(filter=some))

    def set_commit_mark(self, commit_mark: CommitMark) -> None:
        payload = {RESERVED_KEY: asdict(commit_mark)}
        point = models.PointStruct(id=COMMIT_MARK_ID, vector={}, payload=payload)
        self._write(lambda client: [client.upsert(self.name, [point], wait=True)])

    def _delete(self, selector: models.PointIdsList | models.FilterSelector) -> None:
        self._write(lambda client: [client.delete(self.name, selector, wait=True)])

    def _overwrite(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        if not payloads:
            return
        operations = []
        for point_id, payload in payloads:
            change = models.SetPayload(payload=payload, points=[point_id])
            operations.append(models.OverwritePayloadOperation(overwrite_payload=change))
        sent = [payload for _, payload in payloads]
        self._write(
            lambda client: client.batch_update_points(self.name, operations, wait=True), sent
        )

    def _write(
        self,
        write: Callable[[QdrantClient], list[models.UpdateResult]],
        sent: Sequence[dict[str, Any]] = (),
    ) -> None:
        """Write, and retry until the server reports the write as completed, not just acknowledged.
        `sent` are the payloads that are written."""

        def write_completely(client: QdrantClient) -> None:
            for result in write(client):
                if result.status != models.UpdateStatus.COMPLETED:
                    raise StoreUnavailable(
                        f"Qdrant at {self._link.url} accepted a write but did not complete it "
                        f"(status {result.status.value})"
                    )

        self._link.call(write_completely, sent)

    # Indexes

    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        there = {path: found.data_type for path, found in self._info().payload_schema.items()}
        for path, kind in index_changes(fields, there, models.PayloadSchemaType):
            self._index(path, kind)

    def flush(self) -> None:
        """Do nothing: each write was complete when it was answered."""

    def _index(self, path: str, kind: models.PayloadFieldSchema | None) -> None:
        """Create or remove a payload index. Groups have no `is_tenant`: searches took 0.9 to 1.1 of
        the time with it (100,000 points in memory, 200 groups)."""
        if kind is None:
            self._link.ask(lambda client: client.delete_payload_index(self.name, path, wait=True))
            return
        self._link.ask(
            lambda client: client.create_payload_index(
                self.name, path, field_schema=kind, wait=True
            )
        )

    def _set_threshold(self, threshold: int) -> None:
        self._update(optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold))

    def indexed(self) -> bool:
        return self._is_indexed(self._info())

    def _is_indexed(self, info: models.CollectionInfo) -> bool:
        threshold = info.config.optimizer_config.indexing_threshold
        if threshold == 0:  # the search index is turned off
            return True
        unindexed = (info.points_count or 0) - self._indexed_points(info)
        scanned_bytes = unindexed * self._vector_params(info).size * 4
        # The threshold is for each segment.
        allowed_bytes = (threshold or DEFAULT_THRESHOLD) * 1024 * max(1, info.segments_count)
        # Yellow: the server builds the index now.
        is_settled = info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.GREY)
        return is_settled and scanned_bytes <= allowed_bytes

    def count_indexed(self) -> int:
        """Return about how many points of a collection or alias the search index has."""
        return self._indexed_points(self._info(), exact=False)

    def _indexed_points(self, info: models.CollectionInfo, *, exact: bool = True) -> int:
        """Return how many points the search index has. The server counts sparse vectors among the
        indexed ones."""
        sparse = 0
        if has_sparse(info):
            has_words = models.HasVectorCondition(has_vector=SPARSE)
            sparse = self._count(models.Filter(must=[has_words]), exact=exact)
        indexed = (info.indexed_vectors_count or 0) - sparse
        return min(info.points_count or 0, max(0, indexed))

    def optimize(self) -> None:
        """Wait until the server, by itself, has built the search index and has nothing left to do
        ("green"). Raises StoreUnavailable if nothing changes for 10 minutes, or for 2 hours while
        the server says that it is at work."""
        link = self._link
        seen = (-1, -1)
        since = link.clock()
        while True:
            info = self._info()
            if self._is_indexed(info) and info.status == models.CollectionStatus.GREEN:
                return
            now = (info.indexed_vectors_count or 0, info.segments_count)
            if now != seen:
                seen = now
                since = link.clock()
            busy = info.status == models.CollectionStatus.YELLOW
            waited = link.clock() - since
            if waited > (BUSY_WAIT if busy else IDLE_WAIT):
                raise StoreUnavailable(
                    f"the search index of {self.name} did not grow for {waited:.0f} s: look at"
                    " Qdrant's log"
                )
            # After a restart, the server waits for a change before it builds the index.
            if info.status == models.CollectionStatus.GREY:
                threshold = info.config.optimizer_config.indexing_threshold
                self._set_threshold(threshold or DEFAULT_THRESHOLD)
            link.sleep(INDEX_POLL)


def _part(points: PointBatch, vectors: NDArray[np.float32] | None, rows: slice) -> PointBatch:
    """Return some of the points, with rows of `vectors` in place of their own."""
    part_vectors = None if vectors is None else vectors[rows]
    sparse = None
    if points.sparse is not None:
        sparse = points.sparse.rows(rows.start, rows.stop)
    return PointBatch(points.ids[rows], part_vectors, points.payloads[rows], sparse)


def _send_all(
    name: str, ids: Sequence[str], sizes: Sequence[int], send: Callable[[slice], None]
) -> None:
    """Call send(rows) for all rows in requests of bounded size, and for the halves of refused
    requests. Raises PointsRefused for the rows that are refused alone, once all others are sent."""
    # A stack: the first request is the last entry.
    due = list(_request_bounds(sizes))[::-1]
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
                due.append((middle, stop))
                due.append((start, middle))
    if refused:
        first, reason = refused[0]
        message = (
            f"{len(refused)} of {len(ids)} points for {name} are refused, the first is {first}:"
            f" {reason}"
        )
        raise PointsRefused(message, tuple(point_id for point_id, _ in refused))


def _request_bounds(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the first row of each request, and the row after its last."""
    start = 0
    used = 0
    for row, size in enumerate(sizes):
        is_full = row - start >= REQUEST_POINTS or used + size > BATCH_BYTES
        # A point that is too large for any request is sent alone.
        if row > start and is_full:
            yield start, row
            start = row
            used = 0
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
