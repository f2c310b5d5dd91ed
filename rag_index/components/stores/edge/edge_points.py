"""The points of a collection of the embedded store, as the process that may write them does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import qdrant_edge as e

from rag_index.components.stores.edge.point_reader import OPERATION_POINTS, EdgePointReader
from rag_index.components.stores.edge.shard import WritableShardFolder
from rag_index.components.stores.points import (
    check_ids,
    engine_ids,
    index_changes,
    parts,
    require_payloads,
    require_present,
    unit_vectors,
)
from rag_index.components.stores.protocol import PointCollection
from rag_index.components.stores.queries import SPARSE
from rag_index.core.documents.batches import RESERVED_KEY, CommitMark, PointBatch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def engine_points(points: PointBatch, vectors: NDArray[np.float32] | None) -> list[e.Point]:
    """Return points with these vectors (as `unit_vectors` gives them). Raises PointsRefused for bad
    payloads."""
    built: list[e.Point] = []
    bad: list[tuple[str, Exception]] = []
    sparse = points.sparse.lists() if points.sparse is not None else repeat(([], []), len(points))
    # read by the engine in half the time that lists take to be made
    rows: Iterator[Any] = repeat(None, len(points)) if vectors is None else map(memoryview, vectors)
    for point_id, row, (indices, values), payload in zip(
        points.ids, rows, sparse, points.payloads, strict=True
    ):
        try:
            words = {SPARSE: e.SparseVector(indices, values)} if indices else {}
            vector: Any = row
            if row is None:  # its vector comes later
                vector = words
            elif words:
                vector = {"": row, **words}
            built.append(e.Point(point_id, vector, payload))
        except (TypeError, ValueError, OverflowError) as exc:
            bad.append((point_id, exc))
    require_payloads(bad)
    return built


class EdgePoints(EdgePointReader[WritableShardFolder], PointCollection):
    """The points of one collection, which this process alone may write from their first use on."""

    def set_metadata(self, metadata: dict[str, Any]) -> None:
        self._catalog().merge_metadata(self.name, metadata)

    def index_fields(self, fields: Mapping[str, str | None]) -> None:
        shard, change = self._shard(), e.UpdateOperation
        with shard.open() as engine:
            there = {path: info.data_type for path, info in engine.info().payload_schema.items()}
        for path, kind in index_changes(fields, there, _index_kind):
            shard.require_space()
            if kind is None:
                shard.update(change.delete_field_index(path))
            else:
                shard.update(change.create_field_index(path, kind))
        shard.flush()

    def upsert(self, points: PointBatch) -> None:
        shard = self._shard()
        vectors = unit_vectors(points, shard.dimension, shard.name, sparse=shard.sparse)
        space = 0 if vectors is None else 3 * vectors.nbytes
        for some in parts(engine_points(points, vectors), OPERATION_POINTS):
            shard.require_space(space)
            shard.update(e.UpdateOperation.upsert_points(list(some)), len(some))

    def update_payloads(self, payloads: Sequence[tuple[str, dict[str, Any]]]) -> None:
        check_ids([point_id for point_id, _ in payloads])
        operations: list[tuple[str, e.UpdateOperation]] = []
        for point_id, payload in payloads:
            try:
                operations.append(
                    (point_id, e.UpdateOperation.overwrite_payload([point_id], payload))
                )
            except (TypeError, ValueError, OverflowError) as exc:
                require_payloads([(point_id, exc)])
        shard = self._shard()
        missing: list[str] = []
        for some in parts(operations, OPERATION_POINTS):
            shard.require_space()
            with shard.open_to_write(len(some)) as engine:
                for point_id, operation in some:
                    try:
                        engine.update(operation)
                    except Exception as exc:
                        if not str(exc).startswith("No point with id"):
                            raise
                        missing.append(point_id)
        require_present(missing, shard.name)

    def delete_points(self, ids: Sequence[str]) -> None:
        shard = self._shard()
        for some in parts(engine_ids(ids), OPERATION_POINTS):
            shard.require_space()
            shard.update(e.UpdateOperation.delete_points(list(some)), len(some))

    def delete_chunks(self, first: Mapping[str, int]) -> None:
        # All are found first, in one pass: without an index, every filter reads every payload.
        found: list[str] = []
        for which in self._key_filters(list(first)):
            for point in self._scroll(which, vectors=False, page=1000):
                ours = point.payload[RESERVED_KEY]
                if ours["chunk"] >= first[ours["key"]]:
                    found.append(point.id)
        self.delete_points(found)

    def set_commit_mark(self, commit_mark: CommitMark) -> None:
        self._shard().set_commit_mark(commit_mark)

    def flush(self) -> None:
        self._shard().flush()

    def optimize(self) -> None:
        self._shard().optimize()


def _index_kind(kind: str) -> e.PayloadSchemaType:
    """Return the engine's kind of payload index, such as e.PayloadSchemaType.Keyword for
    "keyword"."""
    found: e.PayloadSchemaType = getattr(e.PayloadSchemaType, kind.capitalize())
    return found
