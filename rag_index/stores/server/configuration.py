"""The configuration of a server's collection: what `[store.server]` says, and what the collection has."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from qdrant_client import models

from rag_index.errors import StoreError
from rag_index.stores.server.info import vector_params

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rag_index.settings import ServerSettings

MIN_TURBO = (1, 18)
"""The first version that has TurboQuant."""
MIN_BINARY = 1000
"""Dimensions from which one bit for each is enough to find the nearest points."""
ENOUGH_OVERSAMPLING = 16.0
"""With fewer dimensions, what finds 93 of the 100 nearest in 51,000 points (256-d); the default of 2 finds 67."""


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


def search_quantization(settings: ServerSettings, max_oversampling: float) -> models.QuantizationSearchParams | None:
    """Return how a search uses compressed vectors; None leaves it to the server."""
    if not settings.quantized:
        return None
    return models.QuantizationSearchParams(
        rescore=settings.rescore, oversampling=min(settings.oversampling, max_oversampling)
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
