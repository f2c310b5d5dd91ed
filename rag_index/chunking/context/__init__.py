"""Contexts for chunks: a generating model says of each chunk where it stands in its document.

chunker   the chunker that adds contexts to the chunks of another
writer    takes contexts from the cache, or requests them
requests  requests many contexts at once, over several hosts
prompt    the question for one chunk: document and chunk as data in a frame
answer    extracts the context from a model's answer
cache     contexts that were written before
service   the servers and their model, and everything that decides the contexts
"""

from __future__ import annotations

from rag_index.chunking.context.chunker import ContextChunker
from rag_index.chunking.context.service import Recipe, Servers

__all__ = ["ContextChunker", "Recipe", "Servers"]
