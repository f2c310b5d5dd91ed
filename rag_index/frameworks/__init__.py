"""Retrievers for other frameworks: LangChain, LlamaIndex and Haystack. Each module needs its framework installed.

All take a `Retriever`, which the caller closes, and options: the arguments of `Retriever.search`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rag_index.retrieve import SearchHit
    from rag_index.retrieve.access import Groups
    from rag_index.retrieve.filters import Filter
    from rag_index.retrieve.retriever import Fusion

__all__ = ["metadata_of", "point_name", "SearchOptions", "text_of"]


class SearchOptions(TypedDict, total=False):
    """The arguments of `Retriever.search` besides the query: what each of them means is said there."""

    indexes: Sequence[str] | None
    limit: int
    filter: Filter | None
    groups: Groups
    timeout: float | None
    fusion: Fusion
    dense_weight: float | None
    rerank: bool | None
    min_score: float | None
    collapse: str | None


def text_of(hit: SearchHit) -> str:
    """Return the text of a hit: its best chunks in the order in which they stand in the document."""
    return "\n\n".join(chunk.text for chunk in sorted(hit.chunks, key=lambda chunk: chunk.chunk)) or hit.text


def metadata_of(hit: SearchHit) -> dict[str, Any]:
    """Return the payload of a hit, with `index`, `document_id`, `chunks` (their numbers) and `score` beside it."""
    chunks = sorted(chunk.chunk for chunk in hit.chunks)
    own = {"index": hit.index, "document_id": hit.document_id, "chunks": chunks, "score": hit.score}
    return {**hit.payload, **own}


def point_name(hit: SearchHit) -> str:
    """Return a name of a hit that no other document has."""
    return f"{hit.index}/{hit.document_id}"
