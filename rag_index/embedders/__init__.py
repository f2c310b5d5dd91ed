"""Embedders: what turns texts into vectors. `open_embedder` makes the one that the settings name."""

from __future__ import annotations

import hashlib
import json
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.hosts.stats import RequestStats
    from rag_index.settings import EmbedderSettings

__all__ = ["Embedder", "EmbedderIdentity", "identify", "open_embedder"]


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """What decides the vectors: two runs with equal identities make interchangeable vectors."""

    kind: str
    model: str
    digest: str
    dimension: int
    document_prefix: str = ""
    query_prefix: str = ""

    @property
    def fingerprint(self) -> str:
        """A short hash over all fields (16 hex digits)."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.blake2b(canonical, digest_size=8).hexdigest()

    def __str__(self) -> str:
        prefix = f", document prefix {self.document_prefix!r}" if self.document_prefix else ""
        query = f", query prefix {self.query_prefix!r}" if self.query_prefix else ""
        return f"{self.dimension}-d {self.model} ({self.kind}, {self.digest[:12]}{prefix}{query})"


class Embedder(Protocol):
    """What embeds. Not safe to share between threads unless it says so."""

    stats: RequestStats

    def identity(self) -> EmbedderIdentity:
        """Ask what the model is, with a real embed of one text, so that the dimension is the true one.

        Raises EmbedderUnavailable, ModelMissing, ModelChanged (hosts that differ), BadVectors.
        """

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """One entry a text, in order: its vector (float32, shape (dimension,)), or why this text has none
        (TextTooLong, TextRefused, BadVectors). The document prefix is put before each text here.

        Texts must not be empty. Raises EmbedderUnavailable or RateLimited where the service, and not a text, is the
        reason, after the retries that it makes itself.
        """

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """The vector of a query, with the query prefix: float32, shape (dimension,)."""

    def close(self) -> None:
        """Give back connections."""


def open_embedder(
    settings: EmbedderSettings, *, home: int = 0, workers: int = 1, expected: EmbedderIdentity | None = None
) -> Embedder:
    """The embedder that the settings name.

    `home` of `workers` spreads workers over several hosts: worker n has hosts n, n + workers, … as its own. With
    `expected` a server whose model is another one is refused (ModelChanged).
    """
    if settings.kind == "local":
        from rag_index.embedders.local import LocalEmbedder

        return LocalEmbedder(settings)
    if settings.kind == "sentence-transformers":
        from rag_index.embedders.sentence_transformers import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(settings)
    from rag_index.embedders.ollama import OllamaEmbedder

    return OllamaEmbedder(settings, home=home, workers=workers, expected=expected)


def identify(settings: EmbedderSettings) -> EmbedderIdentity:
    """Return what the embedder is, by a real embed of one text, without waiting for servers that are down.

    Raises as `Embedder.identity`.
    """
    with closing(open_embedder(settings.model_copy(update={"wait_for_recovery": 0.0}))) as embedder:
        return embedder.identity()
