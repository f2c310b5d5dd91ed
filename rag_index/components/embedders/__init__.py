"""Embedders turn texts into vectors: dense ones by a model, sparse ones of their words by BM25.

`open_embedder` opens the one that the settings name: `local` (wordllama) and `fastembed` run in the
process, `servers` calls Ollama and OpenAI's API, and plug-ins may bring others. `tokenizer` decides
what a word is, and `bm25` makes its dimension. This package imports `components.hosts` and `core`.

Orders that must hold, and the test in tests/components/embedders that fails if one does not:
- A server's model is compared with the expected one before any of its vectors is kept:
  test_ollama_faults.py; and before it gets a query: test_server_calls.py.
- A model in the process is compared by its files, and the processor by a fixed sentence, before
  anything is written or searched: test_model_in_process.py.
- The vector of a text does not depend on the texts beside it: test_local.py.
- Words keep their dimensions, or `BM25_VERSION` is raised: test_token_ids.py. Texts, queries and
  highlights find words by the same rules: test_tokenizer.py.
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Protocol

from rag_index.components.embedders.identity import (
    EmbedderIdentity,
    knows_english_alone,
    prefix_warning,
)
from rag_index.core.settings.plugins import EMBEDDERS, load_plugin
from rag_index.core.settings.sections import EMBEDDER_KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.documents.work import Work
    from rag_index.core.settings import EmbedderSettings

__all__ = [
    "Embedder",
    "EmbedderIdentity",
    "identify",
    "knows_english_alone",
    "open_embedder",
    "prefix_warning",
]


class Embedder(Protocol):
    """The interface of an embedder. An implementation is not safe to share between threads unless
    it says so."""

    @property
    def stats(self) -> Work:
        """The work since the embedder was opened. An embedder for several threads returns the work
        of the calling thread."""

    def identity(self) -> EmbedderIdentity:
        """Return the identity of the model. It embeds one text, so that the dimension is the true
        one.

        Raises EmbedderUnavailable, ModelMissing, ModelChanged (if hosts differ) and BadVectors.
        """

    def embed_documents(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per text, in order, after putting the document prefix before each text.

        An entry is the vector (float32, shape (dimension,)) or the reason why this text has none
        (TextTooLong, TextRefused, BadVectors). Texts must not be empty. Raises EmbedderUnavailable
        or RateLimited if the service and not a text is the reason, after the embedder's own
        retries.
        """

    def embed_query(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a query (float32, shape (dimension,)), after putting the query
        prefix of the settings before it. The text must not be empty, and comes without a prefix.

        Raises:
            EmbedderUnavailable, RateLimited: The service and not the query is the reason. A search
                does not wait until it recovers.
            ModelMissing, ModelChanged: The model is not the one that made the vectors of the
                collection.
            TextTooLong, TextRefused, BadVectors: The query has no vector. A query is not split.
        """

    def embed_queries(self, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
        """Return one entry per query, in order: its vector, or the error that `embed_query` would
        raise for it.

        Raises as `embed_documents`.
        """

    def close(self) -> None:
        """Release connections and models."""


def open_embedder(
    settings: EmbedderSettings,
    *,
    home: int = 0,
    workers: int = 1,
    expected: EmbedderIdentity | None = None,
    revision: str = "",
) -> Embedder:
    """Open the embedder that the settings name.

    Args:
        home: The number of this worker, from 0. Worker n has hosts n, n + `workers`, … as its own.
        workers: The number of workers that share the hosts.
        expected: The identity of the model. A server with another model is refused (ModelChanged).
        revision: The commit of the hub of a model that is downloaded.
    """
    if settings.kind == "local":
        from rag_index.components.embedders.local import LocalEmbedder

        return LocalEmbedder(settings)
    if settings.kind == "fastembed":
        from rag_index.components.embedders.fastembed import FastEmbedEmbedder

        return FastEmbedEmbedder(settings, expected, revision=revision)
    if settings.on_servers:
        from rag_index.core.connections import tls_context

        # the library of Ollama reads the same certificates on import, and its error names no file
        tls_context()
        from rag_index.components.embedders.servers import ServerEmbedder

        return ServerEmbedder(settings, home=home, workers=workers, expected=expected)
    make = load_plugin(EMBEDDERS, settings.kind, "[embedder] kind", EMBEDDER_KINDS)
    plugin: Embedder = make(settings)
    return plugin


def identify(settings: EmbedderSettings, *, revision: str = "") -> EmbedderIdentity:
    """Return the identity of the embedder that the settings name, without waiting for servers that
    are down.

    `revision` is as in `open_embedder`. Raises as `Embedder.identity`.
    """
    with closing(open_embedder(settings, revision=revision)) as embedder:
        return embedder.identity()
