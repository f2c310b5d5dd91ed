"""Chunking: how documents become chunks. One protocol; `open_chunker` returns the implementation of an index."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from rag_index.chunking.code.chunker import CodeCutter
from rag_index.chunking.text import Chunker
from rag_index.settings.index import CODE

if TYPE_CHECKING:
    from rag_index.documents.batches import Cut, Page
    from rag_index.errors import RagIndexError
    from rag_index.settings import IndexSettings, Settings

__all__ = ["Cutter", "open_cutter"]


class Cutter(Protocol):
    """Splits documents into chunks. It travels to the workers, so it pickles and is small."""

    @property
    def fingerprint(self) -> str:
        """What decides the chunks: when it changes, the index has to be rebuilt."""

    def cut(self, documents: Page) -> list[Cut | RagIndexError]:
        """Return the chunks of each document, or why it has none. Equal documents give equal chunks.

        Raises what the services it asks raise (transient kinds of RagIndexError), for the shard as a whole.
        """

    def halved(self, cut: Cut, number: int) -> Cut | None:
        """Return the document with chunk `number` in two, because the embedder finds it too long.

        None where the chunk cannot be split.
        """


def open_cutter(settings: Settings, index: IndexSettings, *, contexts: bool = True) -> Cutter:
    """Return the chunker of an index.

    Where a model writes contexts, it is asked what it is, unless `contexts` is false.

    Raises:
        EmbedderUnavailable: the model's server does not answer.
        ModelMissing: the server does not have the model.
        ModelChanged: the hosts have different models of this name.
        EmbedderError: the model cannot write.
    """
    chunker: Cutter = Chunker(index.chunk_chars, index.chunk_overlap)
    if index.kind == CODE:
        chunker = CodeCutter(index.chunk_chars, index.file_timeout)
    if index.context is None or not contexts:
        return chunker
    from rag_index.chunking.context.chunker import ContextCutter

    return ContextCutter.open(settings, index.context, chunker)
