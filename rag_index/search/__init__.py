"""Search: one question to any number of indexes at once, their answers fused into one list. See
`Retriever`."""

from __future__ import annotations

from rag_index.errors import SearchFailed
from rag_index.search.access import ALL_GROUPS, Caller
from rag_index.search.results import (
    AsOf,
    ChunkHit,
    Citation,
    Document,
    DocumentChunk,
    SearchHit,
    SearchResult,
    Verified,
)
from rag_index.search.retriever import Retriever

__all__ = [
    "ALL_GROUPS",
    "AsOf",
    "Caller",
    "ChunkHit",
    "Citation",
    "Document",
    "DocumentChunk",
    "Retriever",
    "SearchFailed",
    "SearchHit",
    "SearchResult",
    "Verified",
]
