"""Embedding queries with the model that made an index, whatever the settings say now.

A collection records which model made its vectors. So indexes of different models can be searched at once, and while
a rebuild with a new model is under way, the live collection is still searched with the old one.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rag_index.embedders import open_embedder
from rag_index.errors import EmbedderUnavailable
from rag_index.retrieve.query_model import QueryModel

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.embedders import Embedder
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import EmbedderSettings


class QueryEmbedders:
    """One embedder for each fingerprint in use. Safe to use from several threads.

    An embedder that cannot be reached, or whose model has changed, is asked afresh for the next query. So it recovers
    by itself.
    """

    def __init__(self, settings: EmbedderSettings, *, opener: Callable[..., Embedder] | None = None) -> None:
        self._settings = settings
        self._opener = opener or open_embedder
        self._lock = threading.Lock()
        self._models: dict[str, QueryModel] = {}
        self._closed = False

    def submit(self, live: LiveCollection, query: str) -> Future[NDArray[np.float32]]:
        """Start embedding a query for a live collection, together with others that wait for the same model.

        The vector is float32, of shape (dimension,), made with the query prefix, and read-only. The future raises
        FingerprintChanged if the model that made the collection is not available; EmbedderUnavailable or
        EmbedderError if the embedder does not answer, refuses the query, or returns a broken vector. A future that is
        cancelled costs nothing more, unless its query is being embedded already.
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

    def _model(self, fingerprint: str) -> QueryModel:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable("the retriever is closed")
            if fingerprint not in self._models:
                self._models[fingerprint] = QueryModel(self._settings, self._opener)
            return self._models[fingerprint]
