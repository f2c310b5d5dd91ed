"""The collections of a server: made, configured and carried over as settings and people say, loaded, and indexed."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY
from rag_index.errors import StoreError, StoreMismatch, StoreUnavailable
from rag_index.stores import SPARSE
from rag_index.stores.conditions import index_changes, unquoted
from rag_index.stores.protocol import BULK
from rag_index.stores.server.requests import (
    DEFAULT_THRESHOLD,
    Requests,
    has_sparse,
    indexed_points,
    is_indexed,
    vector_params,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from qdrant_client import QdrantClient

    from rag_index.settings import ServerSettings

M = TypeVar("M", bound=BaseModel)
MIN_TURBO = (1, 18)
"""The first version that has TurboQuant."""
MIN_BINARY = 1000
"""Dimensions from which one bit for each is enough to find the nearest points."""
ENOUGH_OVERSAMPLING = 16.0
"""With fewer dimensions, what finds 93 of the 100 nearest in 51,000 points (256-d); the default of 2 finds 67."""
logger = logging.getLogger("rag_index.stores")
IDLE_WAIT, BUSY_WAIT = 600.0, 7200.0
"""Seconds without progress after which waiting for a search index ends: while the server does nothing, and while it
says that it is at work. A large segment may take an hour in which nothing else changes."""
POLL = 0.5


def carry_over(client: QdrantClient, old: models.CollectionInfo, name: str) -> None:
    """Give a collection what was set by hand on an old one. Repeating it does no harm."""
    new = client.get_collection(name)
    if changes := _changes(old, new):
        client.update_collection(name, **changes)
    for field, schema in _payload_indexes(old, new):
        client.create_payload_index(name, field, field_schema=schema, wait=True)


def _changes(old: models.CollectionInfo, new: models.CollectionInfo) -> dict[str, Any]:
    """Return the arguments of `update_collection` that give the new collection what the old one has."""
    was, now = old.config, new.config
    optimizers, paused = was.optimizer_config, (was.metadata or {}).get(BULK)
    if paused is not None:  # rag-index turned its search index off, nobody by hand
        optimizers = optimizers.model_copy(update={"indexing_threshold": int(paused)})
    found: dict[str, Any] = {
        "hnsw_config": _difference(models.HnswConfigDiff, was.hnsw_config, now.hnsw_config),
        "optimizers_config": _difference(models.OptimizersConfigDiff, optimizers, now.optimizer_config),
        "collection_params": _difference(models.CollectionParamsDiff, was.params, now.params),
        "strict_mode_config": _difference(models.StrictModeConfig, was.strict_mode_config, now.strict_mode_config),
    }
    if was.quantization_config != now.quantization_config:
        found["quantization_config"] = was.quantization_config or models.Disabled.DISABLED
    if vectors := _difference(models.VectorParamsDiff, was.params.vectors, now.params.vectors):
        found["vectors_config"] = {"": vectors}
    return {name: value for name, value in found.items() if value is not None}


def _payload_indexes(
    old: models.CollectionInfo, new: models.CollectionInfo
) -> Iterator[tuple[str, models.PayloadFieldSchema]]:
    """Yield field and schema of the payload indexes that the old collection has and no run made."""
    ours = {unquoted(field) for field in (old.config.metadata or {}).get("payload_indexes") or {}}
    for field, index in old.payload_schema.items():
        ours_or_there = unquoted(field) in ours or field in new.payload_schema
        if not ours_or_there and not field.startswith(f"{RESERVED_KEY}."):
            yield field, index.params or index.data_type


def _difference(kind: type[M], was: object, now: object) -> M | None:
    """Return what was set and is now otherwise, as a change of this kind; None if there is nothing."""
    values = {
        name: value.model_dump() if isinstance(value, BaseModel) else value
        for name in kind.model_fields
        if (value := getattr(was, name, None)) is not None and value != getattr(now, name, None)
    }
    return kind.model_validate(values) if values else None


def check_version(settings: ServerSettings, version: str, url: str) -> None:
    """Raise StoreError if the server is too old for the quantization of the settings."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    if settings.quantization == "turbo" and numbers and (int(numbers[1]), int(numbers[2])) < MIN_TURBO:
        raise StoreError(
            f'Qdrant at {url} is version {version}, and [store.server] quantization = "turbo" needs '
            f'{".".join(map(str, MIN_TURBO))} or newer: upgrade it, or set "scalar" or "binary"'
        )


def new_collection(settings: ServerSettings, dimension: int) -> dict[str, Any]:
    """Return the arguments of `create_collection` that make a collection as the settings say."""
    values: dict[str, Any] = {
        "vectors_config": models.VectorParams(
            size=dimension, distance=models.Distance.COSINE, on_disk=settings.on_disk_vectors
        ),
        "shard_number": settings.shard_number,
        "replication_factor": settings.replication_factor,
        "write_consistency_factor": settings.write_consistency_factor,
        "on_disk_payload": settings.on_disk_payload,
        "hnsw_config": _hnsw(settings),
        "quantization_config": _quantization(settings),
    }
    return {name: value for name, value in values.items() if value is not None}


def changes(settings: ServerSettings, name: str, info: models.CollectionInfo) -> dict[str, Any]:
    """Return the arguments of `update_collection` that give an existing collection what the settings say."""
    config, vectors = info.config, vector_params(name, info)
    payload = config.params.payload
    found: dict[str, Any] = {}
    hnsw = _differing(
        settings,
        {"hnsw_m": ("m", config.hnsw_config.m), "hnsw_ef_construct": ("ef_construct", config.hnsw_config.ef_construct)},
    )
    if hnsw:
        found["hnsw_config"] = models.HnswConfigDiff(**hnsw)
    params = _differing(
        settings,
        {
            "replication_factor": ("replication_factor", config.params.replication_factor),
            "write_consistency_factor": ("write_consistency_factor", config.params.write_consistency_factor),
            "on_disk_payload": (
                "on_disk_payload",
                _on_disk(config.params.on_disk_payload, payload.memory if payload else None),
            ),
        },
    )
    if params:
        found["collection_params"] = models.CollectionParamsDiff(**params)
    if settings.on_disk_vectors not in (None, _on_disk(bool(vectors.on_disk), vectors.memory)):
        found["vectors_config"] = {"": models.VectorParamsDiff(on_disk=settings.on_disk_vectors)}
    if not _quantized_as(settings, config.quantization_config):
        found["quantization_config"] = _quantization(settings) or models.Disabled.DISABLED
    return found


def notes(settings: ServerSettings, name: str, info: models.CollectionInfo) -> str:
    """Return what a person should know of a collection that is as the settings say; "" if there is nothing."""
    return "; ".join(filter(None, [_shards(settings, name, info), _coarse(settings, name, info)]))


def _shards(settings: ServerSettings, name: str, info: models.CollectionInfo) -> str:
    """Return how the collection differs from the settings in what only a rebuild changes; "" if it does not."""
    wanted, found = settings.shard_number, info.config.params.shard_number
    if wanted is None or found is None or wanted == found:
        return ""
    return (
        f"{name} has {found} shard{'s' if found != 1 else ''}, [store.server] shard_number says {wanted}: "
        "`rag-index rebuild` makes a collection with that many"
    )


def _coarse(settings: ServerSettings, name: str, info: models.CollectionInfo) -> str:
    """Return that searches miss some of the nearest points, because one bit of each number says too little."""
    by_hand = settings.quantization is None and isinstance(info.config.quantization_config, models.BinaryQuantization)
    chosen = settings.quantization == "binary" and settings.oversampling < ENOUGH_OVERSAMPLING
    size = vector_params(name, info).size
    if not (by_hand or chosen) or size >= MIN_BINARY:
        return ""
    return (
        f"{name} has {size}-d vectors, too few dimensions for binary quantization, so searches miss some of the "
        f'nearest: set [store.server] quantization to "scalar" or "turbo", or oversampling to {ENOUGH_OVERSAMPLING:g}'
    )


def _hnsw(settings: ServerSettings) -> models.HnswConfigDiff | None:
    if settings.hnsw_m is None and settings.hnsw_ef_construct is None:
        return None
    return models.HnswConfigDiff(m=settings.hnsw_m, ef_construct=settings.hnsw_ef_construct)


def _quantization(settings: ServerSettings) -> models.QuantizationConfig | None:
    in_memory = settings.quantized_in_memory
    match settings.quantization:
        case "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=in_memory)
            return models.ScalarQuantization(scalar=scalar)
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=in_memory))
        case "turbo":
            return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(always_ram=in_memory))
        case _:
            return None


def _quantized_as(settings: ServerSettings, found: models.QuantizationConfig | None) -> bool:
    """Return whether a collection is compressed as the settings say. What else was set by hand is left alone."""
    if settings.quantization is None:
        return True
    if found is None or settings.quantization == "none":
        return found is None and settings.quantization == "none"
    config: Any = getattr(found, settings.quantization, None)
    if config is None:
        return False
    pinned = bool(config.always_ram) or config.memory == models.Memory.PINNED
    return pinned == settings.quantized_in_memory


def _differing(settings: ServerSettings, pairs: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Return the values that are set and differ, under Qdrant's names; `pairs` has Qdrant's name and value by key."""
    return {
        theirs: wanted
        for key, (theirs, found) in pairs.items()
        if (wanted := getattr(settings, key)) is not None and wanted != found
    }


def _on_disk(flag: bool | None, memory: models.Memory | None) -> bool | None:
    """Return whether something is on disk, by the old flag or by the newer placement, which wins; None if not known."""
    return flag if memory is None else memory == models.Memory.COLD


class Collections(Requests):
    """The collections of a server, made and configured as the settings say."""

    def create(
        self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool = False, like: str | None = None
    ) -> None:
        """Create a collection, or keep the existing one of that name and kind and merge its metadata.

        A new one is as the settings say. It gets what was set by hand on the collection `like`.
        """
        given = {key: value for key, value in metadata.items() if value is not None}
        if name not in self.names():
            self._create(name, dimension, given, sparse=sparse)
        info = self._info(name)
        _check_kind(name, info, dimension, sparse=sparse)
        kinds = {"key": models.PayloadSchemaType.KEYWORD, "chunk": models.PayloadSchemaType.INTEGER}
        for field, kind in kinds.items():
            if f"{RESERVED_KEY}.{field}" not in info.payload_schema:
                self._index(name, f"{RESERVED_KEY}.{field}", kind)
        if metadata and (info.config.metadata or {}) != given:
            self._update(name, metadata=metadata)
        if like is not None:
            self._carry_over(like, name)

    def collections(self) -> dict[str, dict[str, Any]]:
        """Return all collections by name, with their metadata."""
        found: dict[str, dict[str, Any]] = {}
        for name in sorted(self.names()):
            try:
                found[name] = dict(self._info(name).config.metadata or {})
            except StoreError:
                if name in self.names():  # else it was dropped meanwhile
                    raise
        return found

    def find(self, name: str) -> dict[str, Any] | None:
        """Return the metadata of a collection or alias, None if the server says that there is none of this name."""
        exists = self._ask(lambda client: client.collection_exists(name))
        return self.metadata(name) if exists else None

    def metadata(self, name: str) -> dict[str, Any]:
        """Return the metadata of a collection or alias."""
        return dict(self._info(name).config.metadata or {})

    def set_metadata(self, name: str, metadata: dict[str, Any]) -> None:
        """Merge into the collection's metadata; a value of None removes the key."""
        self._update(name, metadata=metadata)

    def drop(self, name: str) -> None:
        """Delete a collection and the aliases that point at it."""
        self._ask(lambda client: client.delete_collection(name))

    def aliases(self) -> dict[str, str]:
        """Return the collection that each alias points at."""
        answer = self._ask(lambda client: client.get_aliases())
        return {alias.alias_name: alias.collection_name for alias in answer.aliases}

    def point_alias(self, alias: str, collection: str) -> None:
        """Point the alias at this collection in one step."""
        current = self.aliases().get(alias)
        if current == collection:
            return
        create = models.CreateAlias(collection_name=collection, alias_name=alias)
        changes: list[models.AliasOperations] = [models.CreateAliasOperation(create_alias=create)]
        if current is not None:
            changes.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        self._ask(lambda client: client.update_collection_aliases(changes))

    def dimension(self, name: str) -> int:
        """Return the dimension of the collection's vectors."""
        return vector_params(name, self._info(name)).size

    def has_sparse(self, name: str) -> bool:
        """Return whether the collection's points can have sparse vectors."""
        return has_sparse(self._info(name))

    def configure(self, name: str) -> str:
        """Give a collection what the settings say; return what a person should know of it, "" if there is nothing.

        Raises StoreError if the server is too old for it.
        """
        check_version(self._settings, self._link.version(), self._link.url)
        info = self._info(name)
        if found := changes(self._settings, name, info):
            self._update(name, **found)
            logger.info("%s was changed as [store.server] says: %s", name, ", ".join(sorted(found)))
        return notes(self._settings, name, info)

    def index_fields(self, name: str, fields: Mapping[str, str | None]) -> None:
        """Create payload indexes by field and kind; None removes one."""
        there = {path: found.data_type for path, found in self._info(name).payload_schema.items()}
        for path, kind in index_changes(fields, there, models.PayloadSchemaType):
            self._index(name, path, kind)

    def pause_indexing(self, name: str) -> None:
        """Turn the building of the search index off, and note in the metadata what was set before, in one request."""
        info = self._info(name)
        if BULK not in (info.config.metadata or {}):
            before = info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD
            off = models.OptimizersConfigDiff(indexing_threshold=0)
            self._update(name, optimizers_config=off, metadata={BULK: before})

    def resume_indexing(self, name: str) -> None:
        """Turn the building of the search index on again if `pause_indexing` turned it off."""
        before = (self._info(name).config.metadata or {}).get(BULK)
        if before is not None:
            restored = models.OptimizersConfigDiff(indexing_threshold=int(before))
            self._update(name, optimizers_config=restored, metadata={BULK: None})

    def indexed(self, name: str) -> bool:
        """Return False if the server is still building, or a search scans more vectors than it should."""
        info = self._info(name)
        return is_indexed(name, info, self._sparse_count(name) if has_sparse(info) else 0)

    def count_indexed(self, name: str) -> int:
        """Return about how many points the search index has."""
        info = self._info(name)
        return indexed_points(info, self._sparse_count(name, exact=False) if has_sparse(info) else 0)

    def optimize(self, name: str) -> None:
        """Wait until the server, by itself, has built the search index and has nothing left to do ("green").

        Raises StoreUnavailable if nothing changes for 10 minutes, or for 2 hours while the server says that it is at
        work.
        """
        link, seen = self._link, (-1, -1)
        since = link.clock()
        while True:
            info = self._info(name)
            complete = is_indexed(name, info, self._sparse_count(name) if has_sparse(info) else 0)
            if complete and info.status == models.CollectionStatus.GREEN:
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
                threshold = info.config.optimizer_config.indexing_threshold or DEFAULT_THRESHOLD
                same = models.OptimizersConfigDiff(indexing_threshold=threshold)
                self._update(name, optimizers_config=same)
            link.sleep(POLL)

    def _create(self, name: str, dimension: int, metadata: dict[str, Any], *, sparse: bool) -> None:
        check_version(self._settings, self._link.version(), self._link.url)
        words = {SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)} if sparse else None
        values = new_collection(self._settings, dimension)
        try:
            self._ask(
                lambda client: client.create_collection(name, sparse_vectors_config=words, metadata=metadata, **values)
            )
        except StoreError:
            if name not in self.names():  # else it exists: made by another process, or the answer was lost
                raise

    def _index(self, name: str, path: str, kind: models.PayloadSchemaType | None) -> None:
        """Create a payload index, or remove it (None)."""
        if kind is None:
            self._ask(lambda client: client.delete_payload_index(name, path, wait=True))
        else:
            self._ask(lambda client: client.create_payload_index(name, path, field_schema=kind, wait=True))

    def _carry_over(self, old: str, name: str) -> None:
        """Give a collection what was set by hand on another one. One that cannot be read has nothing to give."""
        try:
            info = self._info(old)
        except StoreError as exc:
            logger.warning("settings of collection %s are not carried over to %s: %s", old, name, exc)
            return
        self._ask(lambda client: carry_over(client, info, name))


def _check_kind(name: str, info: models.CollectionInfo, dimension: int, *, sparse: bool) -> None:
    found = vector_params(name, info)
    if found.size != dimension or found.distance != models.Distance.COSINE:
        raise StoreMismatch(
            f"collection {name} holds {found.size}-d vectors ({found.distance.value}), not {dimension}-d (Cosine): "
            "run `rag-index rebuild`"
        )
    if sparse and not has_sparse(info):
        raise StoreMismatch(f"collection {name} has no sparse vectors: run `rag-index rebuild`")
