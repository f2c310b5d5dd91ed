"""Context for chunks: a generating model says of each chunk where in its document it stands.

cutter   the cutter that adds contexts to the chunks of another
writer   asks for contexts, or takes them from the cache
asking   one call for many contexts, over several hosts
prompt   the question for one chunk: document and chunk as data in a frame
answer   what of an answer can be used
cache    contexts that were written before
service  which servers and model, and what decides the contexts
"""

from __future__ import annotations

from rag_index.chunking.context.chunker import ContextChunker
from rag_index.chunking.context.service import Recipe, Servers

__all__ = ["ContextChunker", "Recipe", "Servers"]
