"""The table `[retrieve]` of a settings file."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from rag_index.settings.values import Number, PositiveInt, Section, Whole

__all__ = ["RetrieveSettings"]


class RetrieveSettings(Section):
    """`[retrieve]`: how several indexes are searched at once."""

    timeout: Number = Field(default=10.0, gt=0)
    """Seconds for a whole search."""
    index_timeout: Number = Field(default=5.0, gt=0)
    """Seconds for each index within it."""
    concurrency: PositiveInt = 32
    """Requests to the store at once, over all searches and indexes."""
    fusion: Literal["auto", "rank", "score"] = "auto"
    """How the hits of several indexes are put in one order: auto is score where all are of one model, else rank."""
    cache_size: Whole = Field(default=1000, ge=0)
    """Vectors of queries that are remembered; 0 is none."""
    cache_seconds: Number = Field(default=3600.0, gt=0)
    """How long they are."""
    idle_seconds: Number = Field(default=10.0, gt=0)
    """Without a search for so long, an embedded store is given back to whoever wants it."""
