"""The collections of a server: made, given what people set on the one before, loaded, and indexed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel
from qdrant_client import models

from rag_index.components.stores import BULK, SPARSE
from rag_index.components.stores.points import index_changes, unquoted
from rag_index.components.stores.server.link import Requests, has_sparse, vector_params
from rag_index.core.documents.batches import RESERVED_KEY
from rag_index.core.settings.parts import GROUPS_FIELD
from rag_index.errors import StoreError, StoreMismatch, StoreUnavailable

M = TypeVar("M", bound=BaseModel)
MIN_IDF = (1, 19)
"""The first version that can count words among the points of a filter."""
DEFAULT_THRESHOLD = 10_000
"""Kilobytes of vectors that are scanned without a search index, if the server does not name its own threshold."""
logger = logging.getLogger("rag_index.stores")
IDLE_WAIT, BUSY_WAIT = 600.0, 7200.0
"""Seconds without progress after which waiting for a search index ends: while the server does nothing, and while it
says that it is at work. A large segment may take an hour in which nothing else changes."""
INDEX_POLL = 0.5


def difference(kind: type[M], wanted: object, found: object) -> M | None:
    """Return what `wanted` has, among the fields of this kind of change, and `found` has otherwise; None if nothing."""
    values = {
        name: value.model_dump() if isinstance(value, BaseModel) else value
        for name in kind.model_fields
        if (value := getattr(wanted, name, None)) is not None and value != getattr(found, name, None)
    }
    return kind.model_validate(values) if values else None


def set_by_hand(old: models.CollectionInfo, new: models.CollectionInfo) -> dict[str, Any]:
    """Return the arguments of `update_collection` that give the new collection what the old one has."""
    was, now = old.config, new.config
    optimizers, paused = was.optimizer_config, (was.metadata or {}).get(BULK)
    if paused is not None:  # rag-index turned its search index off, not a person
        optimizers = optimizers.model_copy(update={"indexing_threshold": int(paused)})
    found: dict[str, Any] = {
        "hnsw_config": difference(models.HnswConfigDiff, was.hnsw_config, now.hnsw_config),
        "optimizers_config": difference(models.OptimizersConfigDiff, optimizers, now.optimizer_config),
        "collection_params": difference(models.CollectionParamsDiff, was.params, now.params),
        "strict_mode_config": difference(models.StrictModeConfig, was.strict_mode_config, now.strict_mode_config),
    }
    if was.quantization_config != now.quantization_config:
        found["quantization_config"] = was.quantization_config or models.Disabled.DISABLED
    if vectors := difference(models.VectorParamsDiff, was.params.vectors, now.params.vectors):
        found["vectors_config"] = {"": vectors}
    return {name: value for name, value in found.items() if value is not None}


class Collections(Requests):
    """The collections of a server."""

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        given = {key: value for key, value in metadata.items() if value is not None}
        if name not in self.names():
            self._create(name, dimension, given, sparse=sparse)
        info = self._info(name)
        found = vector_params(name, info)
        if found.size != dimension or found.distance != models.Distance.COSINE:
            raise StoreMismatch(
                f"collection {name} holds {found.size}-d vectors ({found.distance.value}), not {dimension}-d (Cosine): "
                "run `rag-index rebuild`"
            )
        if sparse and not has_sparse(info):
            raise StoreMismatch(f"collection {name} has no sparse vectors: run `rag-index rebuild`")
        kinds = {"key": models.PayloadSchemaType.KEYWORD, "chunk": models.PayloadSchemaType.INTEGER}
        for field, kind in kinds.items():
            if f"{RESERVED_KEY}.{field}" not in info.payload_schema:
                self._index(name, f"{RESERVED_KEY}.{field}", kind)
        if metadata and (info.config.metadata or {}) != given:
            self._update(name, metadata=metadata)
        if like is not None:
            self._carry_over(like, name)

    def _create(self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool) -> None:
        words = {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if sparse else None
        vectors = models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        kind: dict[str, Any] = {"vectors_config": vectors, "sparse_vectors_config": words, "metadata": metadata}
        try:
            self._ask(lambda client: client.create_collection(name, **kind))
        except StoreError:
            if name not in self.names():  # else it exists: made by another process, or the answer was lost
                raise

    def _carry_over(self, old: str, name: str) -> None:
        """Give a collection what was set by hand on another one. One that cannot be read has nothing to give."""
        try:
            was, now = self._info(old), self._info(name)
        except StoreError as exc:
            logger.warning("settings of collection %s are not carried over to %s: %s", old, name, exc)
            return
        if found := set_by_hand(was, now):
            self._update(name, **found)
        made = {unquoted(field) for field in (was.config.metadata or {}).get("payload_indexes") or {}}  # by runs
        for field, index in was.payload_schema.items():
            ours = field.startswith(f"{RESERVED_KEY}.") or unquoted(field) in made
            if not ours and field not in now.payload_schema:
                self._index(name, field, index.params or index.data_type)

    def notes(self, name: str) -> str:
        """Return what tells too much of a collection, for a person; "" if nothing does."""
        info = self._info(name)
        groups = (info.config.metadata or {}).get("payload_indexes") or {}
        if GROUPS_FIELD in groups and has_sparse(info) and not self._link.has_version(MIN_IDF):
            version = ".".join(map(str, MIN_IDF))
            hidden = f"how rare a word of {name} is, is counted over documents that a caller may not see, too"
            return f"{hidden}: upgrade Qdrant to {version}"
        return ""

    def collections(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self.names()):
            try:
                found[name] = self.metadata(name)
            except StoreError:
                if name in self.names():  # else it was dropped meanwhile
                    raise
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        exists = self._ask(lambda client: client.collection_exists(name))
        return self.metadata(name) if exists else None

    def metadata(self, name: str) -> dict[str, Any]:
        return dict(self._info(name).config.metadata or {})

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        self._update(name, metadata=metadata)

    def drop(self, name: str) -> None:
        self._ask(lambda client: client.delete_collection(name))

    def aliases(self) -> dict[str, str]:
        answer = self._ask(lambda client: client.get_aliases())
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    def point_alias(self, alias: str, collection: str) -> None:
        current = self.aliases().get(alias)
        if current == collection:
            return
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        changes: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=create)]
        if current is not None:
            changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        self._ask(lambda client: client.update_collection_aliases(changes))

    def dimension(self, name: str) -> int:
        return vector_params(name, self._info(name)).size

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        there = {path: found.data_type for path, found in self._info(name).payload_schema.items()}
        for path, kind in index_changes(fields, there, models.PayloadSchemaType):
            self._index(name, path, kind)

    def _index(self, name: str, path: str, kind: models.PayloadFieldSchema | None) -> None:
        if kind is None:
            self._ask(lambda client: client.delete_payload_index(name, path, wait=True))
        else:
            self._ask(lambda client: client.create_payload_index(name, path, field_schema=kind, wait=True))

    def pause_indexing(self, name: str) -> None:
        """Let the server build no search index of this collection until `resume_indexing`, so that it loads faster.
        What was set before is noted in the metadata (`BULK`), so that another process can restore it."""
        info = self._info(name)
        if BULK not in (info.config.metadata or {}):
            before = info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD
            self._set_threshold(name, 0, metadata={BULK: before})

    def resume_indexing(self, name: str) -> None:
        """Undo `pause_indexing`, whichever process called it. Does nothing if none has."""
        if (before := self.metadata(name).get(BULK)) is not None:
            self._set_threshold(name, int(before), metadata={BULK: None})

    def _set_threshold(self, name: str, threshold: int, **changes: Any) -> None:
        self._update(name, optimizers_config=models.OptimizersConfigDiff(indexing_threshold=threshold), **changes)

    def indexed(self, name: str) -> bool:
        return self._is_indexed(name, self._info(name))

    def _is_indexed(self, name: str, info: models.CollectionInfo) -> bool:
        threshold = info.config.optimizer_config.indexing_threshold
        if threshold == 0:  # the search index is turned off
            return True
        unindexed = (info.points_count or 0) - self._indexed_points(name, info)
        scanned = unindexed * vector_params(name, info).size * 4
        allowed = (threshold or DEFAULT_THRESHOLD) * 1024 * max(1, info.segments_count)
        return info.status in (models.CollectionStatus.GREEN, models.CollectionStatus.GREY) and scanned <= allowed

    def count_indexed(self, name: str) -> int:
        """Return about how many points of a collection or alias the search index has."""
        return self._indexed_points(name, self._info(name), exact=False)

    def _indexed_points(self, name: str, info: models.CollectionInfo, *, exact: bool = True) -> int:
        """Return how many points the search index has. The server counts sparse vectors among the indexed ones."""
        has_words = models.Filter(must=[models.HasVectorCondition(has_vector=SPARSE)])
        sparse = self._count(name, has_words, exact=exact) if has_sparse(info) else 0
        indexed = (info.indexed_vectors_count or 0) - sparse
        return min(info.points_count or 0, max(0, indexed))

    def optimize(self, name: str) -> None:
        """Wait until the server, by itself, has built the search index and has nothing left to do ("green"). Raises
        StoreUnavailable if nothing changes for 10 minutes, or for 2 hours while the server says that it is at work."""
        link, seen = self._link, (-1, -1)
        since = link.clock()
        while True:
            info = self._info(name)
            if self._is_indexed(name, info) and info.status == models.CollectionStatus.GREEN:
                return
            now = (info.indexed_vectors_count or 0, info.segments_count)
            if now != seen:
                seen, since = now, link.clock()
            busy = info.status == models.CollectionStatus.YELLOW
            waited = link.clock() - since
            if waited > (BUSY_WAIT if busy else IDLE_WAIT):
                raise StoreUnavailable(
                    f"the search index of {name} did not grow for {waited:.0f} s: look at Qdrant's log"
                )
            if info.status == models.CollectionStatus.GREY:  # after a restart it waits for a change to begin
                self._set_threshold(name, info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD)
            link.sleep(INDEX_POLL)
