"""The vectors of queries: the models that make them, and the errors of these."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cachetools import LRUCache
from prometheus_client import CollectorRegistry, Counter

from rag_index.components.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.components.embedders.identity import IN_PROCESS
from rag_index.core.documents.vectors import broken_reason
from rag_index.core.machine import in_thread
from rag_index.core.settings.plugins import EMBEDDERS, installed
from rag_index.core.settings.sections import EMBEDDER_KINDS
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    EmbedderWithdrawn,
    FingerprintChanged,
    ModelChanged,
    ModelMissing,
    ProcessorDiffers,
    RateLimited,
)
from rag_index.search.concurrency import CLOSED, Deadline, StoreThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings, Settings
    from rag_index.search.live_collections import LiveCollection

KEPT_VECTORS = 4000
"""Vectors of queries that are cached. Chosen: an evaluation asks the same queries of one collection
after the other."""
EMBED_LANE = "embed"
"""The lane of threads for queries that servers embed. Each model in this process has a lane of its
own."""
EMBED_REQUESTS = 32
"""Queries that servers embed at a time. Chosen."""


class QueryVectors:
    """The vectors of queries, and one model for each fingerprint in use. Safe to use from several
    threads and event loops."""

    def __init__(
        self,
        settings: Settings,
        registry: CollectorRegistry,
        threads: StoreThreads,
        *,
        opener: Callable[..., Embedder] | None = None,
    ) -> None:
        timeout = min(settings.embedder.timeout, settings.retrieve.timeout)
        self._settings = settings.embedder.model_copy(update={"timeout": timeout})
        self._threads, self._opener = threads, opener or open_embedder
        self._asked = Counter(
            "rag_index_query_vectors", "Query vectors that searches needed.", registry=registry
        )
        self._made = Counter(
            "rag_index_query_embeds", "Query vectors that had to be embedded.", registry=registry
        )
        self._lock = threading.Lock()
        self._models: dict[str, QueryModel] = {}
        self._kept: LRUCache[tuple[str, str], NDArray[np.float32]] = LRUCache(KEPT_VECTORS)
        self._closed = False

    def loaded(self, live: LiveCollection) -> bool:
        """Return whether the model of a collection is loaded, or needs no loading since it is on
        servers."""
        return self._model(live).loaded

    async def get(self, live: LiveCollection, text: str, deadline: Deadline) -> NDArray[np.float32]:
        """Return the vector of a query for a live collection: float32, of shape (dimension,), and
        read-only.

        Raises:
            FingerprintChanged: the model that made the collection is not available.
            EmbedderUnavailable: the embedder does not answer.
            EmbedderError: the embedder refuses the query, or returns a broken vector.
            SearchTimedOut, SearchBusy: as `StoreThreads.run`.
        """
        model = self._model(live)
        key = live.fingerprint, text
        self._asked.inc()
        with self._lock:
            vector = self._kept.get(key)
        if vector is None:
            self._made.inc()
            lane = EMBED_LANE if model.on_servers else f"{EMBED_LANE} {live.fingerprint}"
            during = " while the query was embedded"
            vector = await self._threads.run(lane, deadline, model.embed, live, text, during=during)
            with self._lock:
                self._kept[key] = vector
        return vector

    def close(self) -> None:
        """Close all embedders. Callers that wait for a vector get EmbedderUnavailable."""
        with self._lock:
            self._closed = True
            models = self._models
            self._models = {}
        for model in models.values():
            model.close()

    def _model(self, live: LiveCollection) -> QueryModel:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable(CLOSED)
            if live.fingerprint not in self._models:
                self._models[live.fingerprint] = QueryModel(
                    self._settings, live.identity, self._opener
                )
            return self._models[live.fingerprint]


class QueryModel:
    """The embedder of one model, which the first query opens. An embedder in this process is called
    by one thread at a time.

    After an error, the next query tries again, so that it recovers by itself.
    """

    def __init__(
        self,
        settings: EmbedderSettings,
        identity: EmbedderIdentity,
        opener: Callable[..., Embedder],
    ) -> None:
        recorded = ["kind", "document_prefix", "query_prefix"]
        self._differs = _differs(settings, identity)
        in_process = settings.kind == identity.kind == IN_PROCESS
        # For a model in this process, the collection records where it was. The settings may name
        # where it is now.
        if self._differs and not in_process:
            recorded.append("model")
        used = {name: getattr(identity, name) for name in recorded}
        # The settings shorten the vectors of another model.
        if self._differs and in_process:
            used["dimensions"] = identity.dimension
        self._named = settings.model
        self._settings = settings.model_copy(update=used)
        # Several threads may call servers at once.
        self.on_servers = self._settings.on_servers
        self._identity = identity
        self._opener = opener
        self._embedder: Embedder | None = None
        self._turn = threading.Lock()
        self._closed = False

    @property
    def loaded(self) -> bool:
        """Whether the embedder is open, or is on servers."""
        return self._embedder is not None or self.on_servers

    def close(self) -> None:
        """Close the embedder without waiting. One in this process is closed when its call ends."""
        self._closed = True
        in_thread(self._close_embedder, "rag-index-close")

    def embed(self, live: LiveCollection, text: str) -> NDArray[np.float32]:
        """Return the vector of a query, read-only. Raises as `QueryVectors.get`."""
        with self._errors(live):
            with self._turn:
                embedder = self._opened(live)
                if not self.on_servers:
                    entry = embedder.embed_queries([text])[0]
            if self.on_servers:
                entry = embedder.embed_queries([text])[0]
            if isinstance(entry, Exception):
                raise entry
        reason = broken_reason(entry, self._identity.dimension)
        if reason:
            raise BadVectors(f"the embedder returned {reason} for the query; {_held(live)}")
        # It may be a row of a matrix, which would stay in memory as long as the row.
        vector = entry.copy()
        vector.setflags(write=False)
        return vector

    def _opened(self, live: LiveCollection) -> Embedder:
        if self._closed:
            raise EmbedderUnavailable(CLOSED)
        if self._embedder is None:
            self._require_kind(live)
            embedder = self._opener(self._settings, expected=self._identity)
            # An embedder on servers compares the model of each server itself, and does not wait for
            # one that hangs.
            if not self.on_servers:
                try:
                    self._require_fingerprint(embedder, live)
                except BaseException:
                    embedder.close()
                    raise
            self._embedder = embedder
        return self._embedder

    def _require_fingerprint(self, embedder: Embedder, live: LiveCollection) -> None:
        """Raise FingerprintChanged if the embedder is not the one that made the collection."""
        found = embedder.identity()
        if found.fingerprint != live.fingerprint:
            raise FingerprintChanged(
                f"{_held(live)}, settings say {found}: put the settings back, or"
                " rebuild the index with `rag-index rebuild INDEX`"
            )

    def _require_kind(self, live: LiveCollection) -> None:
        """Raise EmbedderWithdrawn if there is no embedder of the collection's kind, neither ours nor
        a plug-in's."""
        kind = self._identity.kind
        if kind not in EMBEDDER_KINDS and kind not in installed(EMBEDDERS):
            raise EmbedderWithdrawn(
                f"{_held(live)}, and there is no embedder of kind {kind!r} any more: "
                f"run `rag-index rebuild {live.index}`"
            )

    def _close_embedder(self) -> None:
        with self._turn:
            embedder = self._embedder
            self._embedder = None
        if embedder is not None:
            embedder.close()

    @contextmanager
    def _errors(self, live: LiveCollection) -> Iterator[None]:
        """Raise errors of the block that the model causes as ours, with the collection and the
        remedy."""
        remedy = "rebuild the index with `rag-index rebuild INDEX`"
        try:
            yield
        except CancelledError:
            raise EmbedderUnavailable(CLOSED) from None
        except ProcessorDiffers as exc:
            raise FingerprintChanged(str(exc)) from exc
        except (ModelChanged, ModelMissing) as exc:
            gone = f"and that model is no longer available ({exc}): put it back, or {remedy}"
            raise FingerprintChanged(f"{_held(live)}, {gone}") from exc
        except EmbedderUnavailable as exc:
            if isinstance(exc, RateLimited) or not self._differs:
                raise
            raise EmbedderUnavailable(
                f"{exc} ({_held(live)}, settings say {self._named}: {remedy})"
            ) from exc


def _held(live: LiveCollection) -> str:
    return f"{live.collection} holds vectors of {live.embedder}"


def _differs(settings: EmbedderSettings, identity: EmbedderIdentity) -> bool:
    """Return whether the settings name another model than the one that made the collection."""
    model = settings.model.removesuffix(":latest")
    # Of a folder or a name on the hub, collections record the last part.
    if settings.kind == "fastembed":
        model = model.rstrip("/").rsplit("/", 1)[-1]
    return (identity.kind, identity.model) != (settings.kind, model)
