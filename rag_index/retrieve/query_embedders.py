"""Embedding queries: by the model that made an index, whatever the settings say by now.

A collection says which model its vectors are of. So several indexes of different models can be searched at once, and
while a rebuild with a new model goes on, what is shown is still found with the old one.
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
    """An embedder for each fingerprint that was asked for. Safe from several threads.

    One that cannot be reached, or has another model by now, is closed and opened anew by the next query, so that
    nothing but its coming back is needed.
    """

    def __init__(self, settings: EmbedderSettings, *, opener: Callable[..., Embedder] | None = None) -> None:
        self._settings = settings
        self._opener = opener or open_embedder
        self._lock = threading.Lock()
        self._models: dict[str, _Model] = {}
        self._closed = False

    def start(self, live: LiveCollection, query: str) -> Future[NDArray[np.float32]]:
        """Begin to make the vector of a query for an index, in the model's own thread.

        It is float32, of shape (dimension,), made with the query prefix, and not to be changed. The future raises
        FingerprintChanged where the model that made the index cannot be had; EmbedderUnavailable or EmbedderError
        where it does not answer, refuses the query, or answers nonsense.
        """
        return self._model(live.fingerprint).start(live, query)

    def keep(self, fingerprints: Collection[str]) -> None:
        """Close embedders of other models than these: no index shows their vectors any more."""
        with self._lock:
            gone = [self._models.pop(name) for name in list(self._models) if name not in fingerprints]
        for model in gone:
            model.close()

    def close(self) -> None:
        """Close all of them."""
        self._closed = True
        self.keep(())

    def _model(self, fingerprint: str) -> _Model:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable("the retriever is closed")
            if fingerprint not in self._models:
                self._models[fingerprint] = _Model(self._settings, self._opener)
            return self._models[fingerprint]


class _Model:
    """One model's embedder, in a thread of its own: those in the process need not be thread-safe, and those on a
    server take turns anyway."""

    def __init__(self, settings: EmbedderSettings, opener: Callable[..., Embedder]) -> None:
        self._settings, self._opener = settings, opener
        self._thread = ThreadPoolExecutor(1, "rag-index-embed")
        self._embedder: Embedder | None = None
        self._remote = True
        """On a server: opened anew after a fault, since its own pauses are made for runs, which can wait."""

    def start(self, live: LiveCollection, query: str) -> Future[NDArray[np.float32]]:
        try:
            return self._thread.submit(self._embed, live, query)
        except RuntimeError as exc:
            raise EmbedderUnavailable("the retriever is closed") from exc

    def close(self) -> None:
        """After what is under way; this waits for nothing."""
        with suppress(RuntimeError):
            self._thread.submit(self._close)
        self._thread.shutdown(wait=False)

    def _embed(self, live: LiveCollection, query: str) -> NDArray[np.float32]:
        try:
            if self._embedder is None:
                self._embedder = self._opened(live)
            vector = self._checked(self._embedder.embed_query(query), live)
        except RateLimited:
            raise
        except (ModelChanged, ModelMissing) as exc:
            self._close()
            raise FingerprintChanged(
                f"{live.collection} holds vectors of {live.embedder}, and that model is no longer there ({exc}): "
                "put it back, or `rag-index index --full` makes the index anew"
            ) from exc
        except (EmbedderUnavailable, BadVectors) as exc:
            if self._remote:
                self._close()
            if isinstance(exc, EmbedderUnavailable) and self._of_other_settings(live.identity):
                raise EmbedderUnavailable(
                    f"{exc} ({live.collection} holds vectors of {live.embedder}, settings say "
                    f"{self._settings.model}: `rag-index index --full` makes the index anew)"
                ) from exc
            raise
        vector.setflags(write=False)
        return vector

    def _checked(self, vector: NDArray[np.float32], live: LiveCollection) -> NDArray[np.float32]:
        why = broken_reason(vector, live.identity.dimension if live.identity else None)
        if why is not None:
            raise BadVectors(f"the embedder answers {why} for the query; {live.collection} holds {live.embedder}")
        return vector

    def _close(self) -> None:
        embedder, self._embedder = self._embedder, None
        if embedder is not None:
            embedder.close()

    def _of_other_settings(self, identity: EmbedderIdentity | None) -> bool:
        """Whether the settings name another model than the one that made the index."""
        settings = self._settings
        named = settings.model.removesuffix(":latest")
        return identity is not None and (identity.kind, identity.model) != (settings.kind, named)

    def _opened(self, live: LiveCollection) -> Embedder:
        identity, settings = live.identity, self._settings
        if identity is not None:
            made_by = ("kind", "model", "document_prefix", "query_prefix")
            settings = settings.model_copy(update={name: getattr(identity, name) for name in made_by})
        self._remote = settings.kind != "local"
        embedder = self._opener(settings, expected=identity)
        try:
            found = embedder.identity()
            if found.fingerprint != live.fingerprint:
                raise FingerprintChanged(
                    f"{live.collection} holds vectors of {live.embedder}, settings say {found}: "
                    "put the settings back, or `rag-index index --full` makes it anew"
                )
        except BaseException:
            embedder.close()
            raise
        return embedder
