"""Settings that a person changed on a collection of a server, carried over to the one that takes its place.

Qdrant does not say what was set by hand. So the new collection is made with the server's defaults, and gets what the
old one has otherwise: HNSW, quantization, optimizers, memory or disk, replicas, strict mode, and payload indexes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel
from qdrant_client import models

from rag_index.documents.batches import RESERVED_KEY
from rag_index.stores.conditions import unquoted
from rag_index.stores.metadata import BULK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qdrant_client import QdrantClient

M = TypeVar("M", bound=BaseModel)


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
