"""What embedders that hold a model in this process have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from rag_index.documents.vectors import shorten
from rag_index.embedders import EmbedderIdentity
from rag_index.hosts.pool import RequestStats

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.settings import EmbedderSettings


class InProcessEmbedder(ABC):
    """An Embedder whose model is loaded on first use. Subclasses embed texts, and say what their digest covers."""

    kind: ClassVar[str]

    def __init__(self, settings: EmbedderSettings) -> None:
        self._settings = settings
        self._model: Any = None
        self.stats = RequestStats()

    def identity(self) -> EmbedderIdentity:
        """Return the identity. Its digest covers the bytes of everything that decides the vectors."""
        vector = _vector(self._embed_cut(["rag-index asks for the dimension"])[0])
        return EmbedderIdentity(
            kind=self.kind,
            model=self._settings.model.rstrip("/").rsplit("/", 1)[-1],
            digest=self._digest(),
            dimension=vector.shape[0],
            document_prefix=self._settings.document_prefix or "",
            query_prefix=self._settings.query_prefix or "",
        )

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order: its unit vector, or why it has none."""
        return self._embed_cut(_prefixed(self._settings.document_prefix, texts))

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the unit vector of a query. Raises the error that `embed_documents` would return as its entry."""
        return _vector(self.embed_queries([text])[0])

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per query, in order, as `embed_documents` does for documents."""
        return self._embed_cut(_prefixed(self._settings.query_prefix, texts))

    def close(self) -> None:
        """Release the model."""
        self._model = None

    def __reduce__(self) -> NoReturn:
        raise TypeError("this embedder cannot be sent to another process: send its EmbedderSettings and open it there")

    def _embed_cut(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        entries, dimensions = self._embed(texts), self._settings.dimensions
        if dimensions is None:
            return entries
        return [entry if isinstance(entry, Exception) else shorten(entry, dimensions) for entry in entries]

    @abstractmethod
    def _embed(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order; load the model if it is not loaded."""

    @abstractmethod
    def _digest(self) -> str:
        """Return a hash of the files that decide the vectors."""


def _prefixed(prefix: str | None, texts: Sequence[str]) -> Sequence[str]:
    return [prefix + text for text in texts] if prefix else texts


def _vector(entry: NDArray[np.float32] | Exception) -> NDArray[np.float32]:
    if isinstance(entry, Exception):
        raise entry
    return entry
