"""Embedders turn texts into vectors. `open_embedder` opens the one that the settings name."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from rag_index.core.settings.parts import known_prompts
from rag_index.core.settings.plugins import EMBEDDERS, load_plugin
from rag_index.core.settings.sections import EMBEDDER_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.components.hosts.host_pool import RequestStats
    from rag_index.core.settings import EmbedderSettings

__all__ = ["Embedder", "EmbedderIdentity", "identify", "knows_english_alone", "open_embedder", "prefix_warning"]


ENGLISH_ALONE = re.compile(
    r"wordllama|all-minilm|all-mpnet|nomic-embed-text(?!-v2)|mxbai-embed-large|bge-(?:small|base|large)(?:-en|:|$)"
    r"|uae-large|snowflake-arctic-embed(?!2|.*-v2)|gte-(?:small|base|large)(?:-en|:|$)|e5-(?:small|base|large)|multi-qa"
)
"""Models that have learned from English texts alone, by their names."""


@dataclass(frozen=True, slots=True)
class EmbedderIdentity:
    """Everything that determines the vectors: runs with equal identities produce interchangeable vectors."""

    kind: str
    model: str
    digest: str
    dimension: int
    document_prefix: str = ""
    query_prefix: str = ""

    @classmethod
    def of(cls, settings: EmbedderSettings, model: str, digest: str, dimension: int) -> EmbedderIdentity:
        """Return the identity of a model with the prefixes of the settings."""
        prefixes = settings.document_prefix or "", settings.query_prefix or ""
        return cls(settings.kind, model, digest, dimension, *prefixes)

    @property
    def fingerprint(self) -> str:
        """A short hash of all fields (16 hex digits)."""
        canonical = json.dumps(asdict(self), sort_keys=True).encode()
        return hashlib.blake2b(canonical, digest_size=8).hexdigest()

    @classmethod
    def from_metadata(cls, recorded: Any) -> EmbedderIdentity | None:
        """Return the identity that a collection records; None if it records none, or a newer rag-index made it."""
        try:
            return cls(**recorded)
        except TypeError:
            return None

    def same_model(self, other: EmbedderIdentity) -> bool:
        """Return whether both make the same vectors. A digest that is made of a vector is compared with tolerance."""
        from rag_index.core.documents.vectors import same_digest

        return replace(self, digest="") == replace(other, digest="") and same_digest(self.digest, other.digest)

    def __str__(self) -> str:
        named = {"document prefix": self.document_prefix, "query prefix": self.query_prefix}
        prefixes = [f"{name} {prefix!r}" for name, prefix in named.items() if prefix]
        made = ", ".join([self.kind, self.digest[:12], *(prefixes or ["no prefixes"])])
        return f"{self.dimension}-d {self.model} ({made})"


class Embedder(Protocol):
    """The interface of an embedder. An implementation is not safe to share between threads unless it says so."""

    @property
    def stats(self) -> RequestStats:
        """What was asked since the embedder was opened; of one for several threads, what the calling one asked."""

    def identity(self) -> EmbedderIdentity:
        """Return the identity of the model. It embeds one text, so that the dimension is the true one.

        Raises EmbedderUnavailable, ModelMissing, ModelChanged (if hosts differ) and BadVectors.
        """

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order, after putting the document prefix before each text.

        An entry is the vector (float32, shape (dimension,)) or the reason why this text has none (TextTooLong,
        TextRefused, BadVectors). Texts must not be empty. Raises EmbedderUnavailable or RateLimited if the service and
        not a text is the reason, after the embedder's own retries.
        """

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query (float32, shape (dimension,)), after putting the query prefix before it.

        Raises the error that `embed_documents` would return as the entry of a text.
        """

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per query, in order: its vector, or the error that `embed_query` would raise for it.

        Raises as `embed_documents`.
        """

    def close(self) -> None:
        """Release connections and models."""


def open_embedder(
    settings: EmbedderSettings, *, home: int = 0, workers: int = 1, expected: EmbedderIdentity | None = None
) -> Embedder:
    """Open the embedder that the settings name.

    `home` and `workers` spread the workers over several hosts: worker n has hosts n, n + workers, … as its own. If
    `expected` is given, a server with another model is refused (ModelChanged).
    """
    if settings.kind == "local":
        from rag_index.components.embedders.local import LocalEmbedder

        return LocalEmbedder(settings)
    if settings.kind == "sentence-transformers":
        from rag_index.components.embedders.sentence_transformers import SentenceTransformersEmbedder

        return SentenceTransformersEmbedder(settings)
    if settings.on_servers:
        from rag_index.core.connections import tls_context

        tls_context()  # the library of Ollama reads the same certificates on import, and its error names no file
        from rag_index.components.embedders.servers import ServerEmbedder

        return ServerEmbedder(settings, home=home, workers=workers, expected=expected)
    plugin: Embedder = load_plugin(EMBEDDERS, settings.kind, "[embedder] kind", EMBEDDER_KINDS)(settings)
    return plugin


def identify(settings: EmbedderSettings) -> EmbedderIdentity:
    """Return the identity of the embedder that the settings name, without waiting for servers that are down.

    Raises as `Embedder.identity`.
    """
    with closing(open_embedder(settings)) as embedder:
        return embedder.identity()


def knows_english_alone(model: str) -> bool:
    """Return whether a model of this name is known to have learned from English texts alone."""
    return ENGLISH_ALONE.match(model.lower()) is not None


def prefix_warning(settings: EmbedderSettings, identity: EmbedderIdentity) -> str:
    """Return a warning if neither the model nor its name nor the settings tell whether it needs prefixes; else ""."""
    told = settings.model_fields_set & {"document_prefix", "query_prefix"} or known_prompts(settings.model)
    if told or settings.kind == "local" or identity.document_prefix or identity.query_prefix:
        return ""
    return (
        f"it is not known what model {identity.model} was trained to read before documents and queries, so texts are "
        'embedded as they are: set document_prefix and query_prefix as its card says (both to "" for nothing)'
    )
