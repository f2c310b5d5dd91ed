"""Retrievers for other frameworks: LangChain, LlamaIndex and Haystack. Each module needs its framework installed.

All take a `Retriever`, which the caller closes, and options: the arguments of `Retriever.search`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rag_index.retrieve.question import SearchOptions

if TYPE_CHECKING:
    from rag_index.retrieve import SearchHit

__all__ = ["SearchOptions", "parts_of"]


def parts_of(hit: SearchHit) -> tuple[str, str, dict[str, Any]]:
    """Return a name that no other document has, the text, and the metadata of a hit.

    The text is that of its best chunks in the order in which they stand in the document. The metadata are its payload,
    with `index`, `document_id`, `chunks` (their numbers) and `score` beside it.
    """
    chunks = sorted(hit.chunks, key=lambda chunk: chunk.chunk)
    text = "\n\n".join(chunk.text for chunk in chunks) or hit.text
    numbers = [chunk.chunk for chunk in chunks]
    own = {"index": hit.index, "document_id": hit.document_id, "chunks": numbers, "score": hit.score}
    return f"{hit.index}/{hit.document_id}", text, {**hit.payload, **own}
