"""Embedding queries with the model that made an index, whatever the settings say now.

A collection records which model made its vectors. So indexes of different models can be searched at once, and while
a rebuild with a new model is under way, the live collection is still searched with the old one.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

from rag_index.documents.vectors import broken_reason
from rag_index.embedders import open_embedder
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    FingerprintChanged,
    ModelChanged,
    ModelMissing,
    RagIndexError,
    RateLimited,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import EmbedderSettings

__all__ = ["QueryEmbedders"]


class QueryEmbedders:
    """One embedder for each fingerprint in use. Safe to use from several threads.

    An embedder that cannot be reached, or whose model has changed, is closed, and the next query opens it again. So
    it recovers by itself.
    """

    def __init__(self, settings: EmbedderSettings, *, opener: Callable[..., Embedder] | None = None) -> None:
        self._settings = settings
        self._opener = opener or open_embedder
        self._lock = threading.Lock()
        self._models: dict[str, _ModelThread] = {}
        self._closed = False

    def submit(self, live: LiveCollection, query: str) -> Future[NDArray[np.float32]]:
        """Start embedding a query for a live collection, in the model's own thread.

        The vector is float32, of shape (dimension,), made with the query prefix, and read-only. The future raises
        FingerprintChanged if the model that made the collection is not available; EmbedderUnavailable or
        EmbedderError if the embedder does not answer, refuses the query, or returns a broken vector.
        """
        return self._model(live.fingerprint).submit(live, query)

    def load(self, live: LiveCollection) -> Future[None] | None:
        """Start loading the model of a live collection into this process; None if it is loaded, or is on a server.

        The future never raises: embedding with the model raises the error.
        """
        return self._model(live.fingerprint).load(live)

    def close_all_but(self, fingerprints: Collection[str]) -> None:
        """Close the embedders of all other models: no live collection holds their vectors any more."""
        with self._lock:
            unused = [self._models.pop(name) for name in list(self._models) if name not in fingerprints]
        for model in unused:
            model.close()

    def close(self) -> None:
        """Close all embedders."""
        self._closed = True
        self.close_all_but(())

    def _model(self, fingerprint: str) -> _ModelThread:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable("the retriever is closed")
            if fingerprint not in self._models:
                self._models[fingerprint] = _ModelThread(self._settings, self._opener)
            return self._models[fingerprint]


class _ModelThread:
    """One model's embedder in a thread of its own.

    An embedder in the process need not be thread-safe, and requests to a server take turns anyway.
    """

    def __init__(self, settings: EmbedderSettings, opener: Callable[..., Embedder]) -> None:
        self._settings, self._opener = settings, opener
        self._thread = ThreadPoolExecutor(1, "rag-index-embed")
        self._embedder: Embedder | None = None
        self._remote = True
        """The embedder is on a server. Then a fault closes it, because its own pauses suit runs, which can wait."""

    def submit(self, live: LiveCollection, query: str) -> Future[NDArray[np.float32]]:
        try:
            return self._thread.submit(self._embed, live, query)
        except RuntimeError as exc:
            raise EmbedderUnavailable("the retriever is closed") from exc

    def load(self, live: LiveCollection) -> Future[None] | None:
        if self._embedder is not None or self._settings_for(live).kind == "ollama":
            return None
        try:
            return self._thread.submit(self._load, live)
        except RuntimeError as exc:
            raise EmbedderUnavailable("the retriever is closed") from exc

    def close(self) -> None:
        """Close the embedder after the calls under way, without waiting for them."""
        with suppress(RuntimeError):
            self._thread.submit(self._close_embedder)
        self._thread.shutdown(wait=False)

    def _load(self, live: LiveCollection) -> None:
        with suppress(RagIndexError):
            if self._embedder is None:
                self._embedder = self._open_embedder(live)

    def _embed(self, live: LiveCollection, query: str) -> NDArray[np.float32]:
        try:
            if self._embedder is None:
                self._embedder = self._open_embedder(live)
            vector = self._embedder.embed_query(query)
            _check_vector(vector, live)
        except RateLimited:
            raise
        except (ModelChanged, ModelMissing) as exc:
            self._close_embedder()
            raise FingerprintChanged(
                f"{live.collection} holds vectors of {live.embedder}, and that model is no longer available ({exc}): "
                "put it back, or rebuild the index with `rag-index index --full`"
            ) from exc
        except (EmbedderUnavailable, BadVectors) as exc:
            if self._remote:
                self._close_embedder()
            if isinstance(exc, EmbedderUnavailable) and self._differs_from_settings(live.identity):
                raise EmbedderUnavailable(
                    f"{exc} ({live.collection} holds vectors of {live.embedder}, settings say "
                    f"{self._settings.model}: rebuild the index with `rag-index index --full`)"
                ) from exc
            raise
        vector.setflags(write=False)
        return vector

    def _close_embedder(self) -> None:
        embedder, self._embedder = self._embedder, None
        if embedder is not None:
            embedder.close()

    def _differs_from_settings(self, identity: EmbedderIdentity | None) -> bool:
        """Return whether the settings name another model than the one that made the collection."""
        settings = self._settings
        model = settings.model.removesuffix(":latest")
        return identity is not None and (identity.kind, identity.model) != (settings.kind, model)

    def _settings_for(self, live: LiveCollection) -> EmbedderSettings:
        """Return the settings of the embedder that made a live collection."""
        identity = live.identity
        if identity is None:
            return self._settings
        recorded = ("kind", "model", "document_prefix", "query_prefix")
        return self._settings.model_copy(update={name: getattr(identity, name) for name in recorded})

    def _open_embedder(self, live: LiveCollection) -> Embedder:
        settings = self._settings_for(live)
        self._remote = settings.kind != "local"
        embedder = self._opener(settings, expected=live.identity)
        try:
            found = embedder.identity()
            if found.fingerprint != live.fingerprint:
                raise FingerprintChanged(
                    f"{live.collection} holds vectors of {live.embedder}, settings say {found}: "
                    "put the settings back, or rebuild the index with `rag-index index --full`"
                )
        except BaseException:
            embedder.close()
            raise
        return embedder


def _check_vector(vector: NDArray[np.float32], live: LiveCollection) -> None:
    reason = broken_reason(vector, live.identity.dimension if live.identity else None)
    if reason is not None:
        raise BadVectors(
            f"the embedder returned {reason} for the query; {live.collection} holds vectors of {live.embedder}"
        )
