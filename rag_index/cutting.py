"""Who cuts an index's documents into chunks: `open_cutter` makes the one that its settings ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rag_index.chunk import Chunker
from rag_index.code.cutter import CodeCutter
from rag_index.index_section import CODE

if TYPE_CHECKING:
    from rag_index.chunk import Cutter
    from rag_index.settings import IndexSettings, Settings

__all__ = ["open_cutter"]


def open_cutter(settings: Settings, index: IndexSettings, *, contexts: bool = True) -> Cutter:
    """The cutter of an index.

    Where a model writes contexts it is asked what it is, unless they are not wanted: raises EmbedderUnavailable,
    ModelMissing, ModelChanged, EmbedderError.
    """
    cutter: Cutter = Chunker(index.chunk_chars, index.chunk_overlap)
    if index.kind == CODE:
        cutter = CodeCutter(index.chunk_chars, index.file_timeout)
    if index.context is None or not contexts:
        return cutter
    from rag_index.context import ContextCutter

    return ContextCutter.open(settings, index.context, cutter)
