"""The table `[store.server]`: how the collections of a Qdrant server are made, written and searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from rag_index.settings.values import Number, PositiveInt, Section, Whole

Port = Annotated[Whole, Field(ge=0, le=65_535)]


class ServerSettings(Section):
    """`[store.server]`: a key that is not set leaves to the server, or to whoever set it by hand, what it is about."""

    grpc_port: Port | None = None
    """The port where the server answers gRPC; 0 for REST alone. By default the URL's port plus one is tried."""
    shard_number: PositiveInt | None = None
    """The number of shards of a collection. Only a rebuild changes it."""
    replication_factor: PositiveInt | None = None
    """The number of replicas of each shard."""
    write_consistency_factor: PositiveInt | None = None
    """The number of replicas that must have taken a write before it counts as done."""
    on_disk_vectors: bool | None = None
    """Whether the vectors are read from disk instead of memory."""
    on_disk_payload: bool | None = None
    """Whether the payloads are read from disk instead of memory."""
    hnsw_m: PositiveInt | None = None
    """The number of edges of a point in the search index."""
    hnsw_ef_construct: Annotated[Whole, Field(ge=4)] | None = None
    """The number of neighbours that are considered when a point is added to the search index."""
    quantization: Literal["none", "scalar", "binary", "turbo"] | None = None
    """The compressed copy of the vectors that searches read first."""
    quantized_in_memory: bool = True
    """Whether the compressed vectors always stay in memory, also where the vectors are on disk."""
    rescore: bool = True
    """Whether a search of compressed vectors scores the best again by the vectors themselves."""
    oversampling: Annotated[Number, Field(ge=1)] = 2.0
    """How many times more candidates than wanted are looked up among compressed vectors before they are scored."""
    bulk: bool = False
    """Whether a collection is loaded without its search index, which is built before the collection is published."""

    @property
    def quantized(self) -> bool:
        """Whether collections get compressed vectors."""
        return self.quantization not in (None, "none")

    @model_validator(mode="after")
    def _check_replicas(self) -> ServerSettings:
        replicas, needed = self.replication_factor, self.write_consistency_factor
        if replicas is not None and needed is not None and needed > replicas:
            raise ValueError(
                f"write_consistency_factor {needed} is more than replication_factor {replicas}; no write could be "
                "completed, lower it"
            )
        return self
