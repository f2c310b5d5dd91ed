"""Limits that the strict mode of a collection sets on a request, so that requests can be made small enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import StoreRefused

if TYPE_CHECKING:
    from collections.abc import Callable

    from qdrant_client import models

T = TypeVar("T")

NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may ask for."""

    page: int = NO_LIMIT
    """Points that a scroll or a search may return."""
    values: int = NO_LIMIT
    """Values of one condition of a filter."""
    ids: int = NO_LIMIT
    """Points that may be read by their ids: each is a read for the rate limit."""
    writes: int = NO_LIMIT
    """Points that may be written: each is a write for the rate limit."""
    hnsw_ef: int = NO_LIMIT
    oversampling: float = NO_LIMIT

    @classmethod
    def of(cls, info: models.CollectionInfo) -> Limits:
        """Return the limits of a collection."""
        strict = info.config.strict_mode_config
        if strict is None or not strict.enabled:
            return UNLIMITED
        return cls(
            page=strict.max_query_limit or NO_LIMIT,
            values=strict.condition_max_size or NO_LIMIT,
            ids=strict.read_rate_limit or NO_LIMIT,
            writes=min(strict.upsert_max_batchsize or NO_LIMIT, strict.write_rate_limit or NO_LIMIT),
            hnsw_ef=strict.search_max_hnsw_ef or NO_LIMIT,
            oversampling=strict.search_max_oversampling or NO_LIMIT,
        )


UNLIMITED = Limits()


class KnownLimits:
    """The limits of collections, each read when a request is refused for the first time: few have any."""

    def __init__(self, read: Callable[[str], models.CollectionInfo]) -> None:
        self._read = read
        self._known: dict[str, Limits] = {}

    def within(self, name: str, ask: Callable[[Limits], T]) -> T:
        """Return what `ask` returns, called with the limits that are known. If it is refused, read them and try again.

        Raises StoreRefused if the limits are not the reason.
        """
        known = self._known.get(name, UNLIMITED)
        try:
            return ask(known)
        except StoreRefused:
            limits = Limits.of(self._read(name))
            if limits == known:
                raise
            self._known[name] = limits
            return ask(limits)
