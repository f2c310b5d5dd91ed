"""The table `[retrieve]` of a settings file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rag_index.settings.values import Number, PositiveInt, Section, Whole


class RetrieveSettings(Section):
    """`[retrieve]`: how several indexes are searched together."""

    timeout: Number = Field(default=10.0, gt=0)
    """The time limit of a whole search, in seconds."""
    index_timeout: Number = Field(default=5.0, gt=0)
    """The time limit of each index within a search, in seconds."""
    concurrency: PositiveInt = 32
    """The maximum number of concurrent requests to the store, over all searches; each index has at least one."""
    fusion: Literal["auto", "rank", "score"] = "auto"
    """How the hits of several indexes are merged. `auto` means `score` if all indexes have one model, else `rank`."""
    dense_weight: Number = Field(default=0.4, ge=0, le=1)
    """The weight of meaning against words in a hybrid search, from 0 (words alone) to 1 (meaning alone)."""
    reranker: str | None = Field(default=None, min_length=1)
    """The CrossEncoder of sentence-transformers that orders the best hits: a folder, or a name on the model hub."""
    rerank_top: PositiveInt = Field(default=50, le=1000)
    """The number of documents that the reranker reads."""
    cache_size: Whole = Field(default=1000, ge=0)
    """The number of query vectors to cache; 0 switches the cache off."""
    cache_seconds: Number = Field(default=3600.0, gt=0)
    """How long a query vector stays in the cache, in seconds."""
    idle_seconds: Number = Field(default=10.0, gt=0)
    """The seconds without a search after which an embedded store is closed, so that a run need not copy it."""
