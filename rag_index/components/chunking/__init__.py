"""Chunking: how documents become chunks. One protocol; `open_chunker` returns the implementation of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.components.chunking.code import CodeChunker
from rag_index.components.chunking.text_chunker import Chunker, TextChunker
from rag_index.core.settings.index import CODE
from rag_index.core.settings.plugins import CHUNKERS, load_plugin

if TYPE_CHECKING:
    from rag_index.core.settings import IndexSettings, Settings

__all__ = ["Chunker", "open_chunker"]


def open_chunker(settings: Settings, index: IndexSettings, *, contexts: bool = True) -> Chunker:
    """Return the chunker of an index.

    If a model writes contexts for the index, its servers are asked which model they have, unless `contexts` is false.
    Raises SettingsError if there is no plug-in of the name that `chunker` of the index has, EmbedderUnavailable if the
    model's server does not answer, ModelMissing if the server does not have the model, ModelChanged if the hosts have
    different models of this name, and EmbedderError if the model cannot write.
    """
    chunker: Chunker = TextChunker(index.chunk_chars, index.chunk_overlap)
    if index.kind == CODE:
        chunker = CodeChunker(index.chunk_chars)
    if index.chunker is not None:
        chunker = load_plugin(CHUNKERS, index.chunker, f"chunker of index {index.name}")(settings, index)
    if index.context is None or not contexts:
        return chunker
    from rag_index.components.chunking.context import ContextChunker

    return ContextChunker.open(settings, index.context, chunker)
