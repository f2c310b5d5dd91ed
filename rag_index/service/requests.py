"""What a service is asked, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rag_index.retrieve.filters import Filter


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks: the name of their token, and the groups that it carries.

    A caller without a token has no name and no groups, and sees nothing of an index that has access rights.
    """

    name: str = ""
    groups: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search as `Retriever.search` takes it; None for `indexes` means all that hold something."""

    query: str
    indexes: tuple[str, ...] | None = None
    limit: int = 10
    filter: Filter | None = None
    timeout: float | None = None
    fusion: Literal["auto", "rank", "score"] | None = None
    dense_weight: float | None = None
    rerank: bool | None = None
