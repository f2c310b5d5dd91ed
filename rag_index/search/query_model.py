"""The vectors of queries: the models that make them, the queries that wait, and what errors mean."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import LRUCache
from prometheus_client import CollectorRegistry, Counter

from rag_index.components.embedders import Embedder, EmbedderIdentity, open_embedder
from rag_index.components.embedders.dispatch import Query
from rag_index.core.documents.vectors import broken_reason
from rag_index.core.machine import in_thread
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    FingerprintChanged,
    ModelChanged,
    ModelMissing,
    RateLimited,
    StoreError,
)
from rag_index.search.concurrency import CLOSED, StoreThreads

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.core.settings import EmbedderSettings, Settings
    from rag_index.search.live_collections import LiveCollection

KEPT_VECTORS = 4000
"""Vectors of queries that are kept: an evaluation asks its queries of one collection after the other."""
MAX_BATCH_QUERIES = 32
"""Queries that a model in the process embeds at a time. They take a few milliseconds, which the next ones wait."""


class QueryVectors:
    """The vectors of queries, by one model for each fingerprint in use. Safe to use from several threads and loops.

    The last vectors are kept. Callers of the same query wait for one vector, and a query is not embedded if no caller
    waits for it any more.
    """

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
        self._asked = Counter("rag_index_query_vectors", "Query vectors that searches needed.", registry=registry)
        self._made = Counter("rag_index_query_embeds", "Query vectors that had to be embedded.", registry=registry)
        self._lock = threading.Lock()
        self._models: dict[str, QueryModel] = {}
        self._queries: LRUCache[tuple[str, str], LiveQuery] = LRUCache(KEPT_VECTORS)
        self._awaited: set[LiveQuery] = set()
        self._closed = False

    def loaded(self, live: LiveCollection) -> bool:
        """Return whether the model that made a collection need not be loaded into this process first."""
        return self._model(live.fingerprint).loaded(live)

    async def get(self, live: LiveCollection, text: str) -> NDArray[np.float32]:
        """Return the vector of a query for a live collection: float32, of shape (dimension,), and read-only.

        Raises FingerprintChanged if the model that made the collection is not available; EmbedderUnavailable or
        EmbedderError if the embedder does not answer, refuses the query, or returns a broken vector.
        """
        model, key = self._model(live.fingerprint), (live.fingerprint, text)
        with self._lock:
            query = known = self._queries.get(key)
            if query is None or query.failed:
                query = LiveQuery(text, live=live, settings=self._settings)
                self._queries[key] = query
            query.waiters += 1
            self._awaited.add(query)
        self._asked.inc()
        if query is not known:
            self._made.inc()
            model.queue.append(query)
            try:
                self._threads.submit(f"embed {live.fingerprint}", model.embed_queue)
            except StoreError:
                query.settle(EmbedderUnavailable(CLOSED))
        try:
            return await asyncio.shield(asyncio.wrap_future(query.future))
        except asyncio.CancelledError:
            if self._closed and query.future.cancelled():
                raise EmbedderUnavailable(CLOSED) from None
            raise
        finally:
            with self._lock:
                query.waiters -= 1
                if not query.waiters:
                    query.future.cancel()
                    self._awaited.discard(query)

    def close(self) -> None:
        """Close all embedders. Callers that wait for a vector get EmbedderUnavailable."""
        with self._lock:
            self._closed = True
            for query in self._awaited:
                query.future.cancel()
            models, self._models = self._models, {}
        for model in models.values():
            model.close()

    def _model(self, fingerprint: str) -> QueryModel:
        with self._lock:
            if self._closed:
                raise EmbedderUnavailable(CLOSED)
            if fingerprint not in self._models:
                self._models[fingerprint] = QueryModel(self._settings, self._opener)
            return self._models[fingerprint]


class QueryModel:
    """One model's embedder, which the first query opens.

    An embedder on servers takes the queries as they come (`take_queries`). One in the process need not be thread-safe,
    so one thread at a time calls it, with all queries that wait by then. An embedder that cannot be reached, or whose
    model has changed, is asked afresh for the next query. So it recovers by itself.
    """

    def __init__(self, settings: EmbedderSettings, opener: Callable[..., Embedder]) -> None:
        self._settings, self._opener = settings, opener
        self._embedder: Embedder | None = None
        self._turn, self._closed = threading.Lock(), False
        self.queue: deque[LiveQuery] = deque()

    def loaded(self, live: LiveCollection) -> bool:
        """Return whether the embedder is open, or is on servers."""
        return self._embedder is not None or self._settings_for(live).on_servers

    def close(self) -> None:
        """Close the embedder after the calls under way, without waiting for them."""
        self._closed = True
        in_thread(self._close_embedder, "rag-index-close")

    # In threads, one at a time

    def embed_queue(self) -> None:
        """Embed the queries that wait, or some of them if there are many; none if an earlier call took them."""
        waiting = [self.queue.popleft() for _ in range(min(MAX_BATCH_QUERIES, len(self.queue)))]
        queries = [query for query in waiting if query.wanted]
        if not queries:
            return
        try:
            with self._turn:
                embedder = self._opened(queries[0].live)
                if take := getattr(embedder, "take_queries", None):
                    take(queries)
                    return
                entries = embedder.embed_queries([query.text for query in queries])
            for query, entry in zip(queries, entries, strict=True):
                query.settle(entry)
        except Exception as exc:  # noqa: BLE001 - those who wait get it
            for query in queries:
                query.settle(exc)

    def _opened(self, live: LiveCollection) -> Embedder:
        if self._closed:
            raise EmbedderUnavailable(CLOSED)
        if self._embedder is None:
            embedder = self._opener(self._settings_for(live), expected=live.identity)
            # one on servers compares the model of each itself, and does not wait for a server that hangs
            if not hasattr(embedder, "take_queries"):
                try:
                    found = embedder.identity()
                    if found.fingerprint != live.fingerprint:
                        raise FingerprintChanged(
                            f"{live.collection} holds vectors of {live.embedder}, settings say {found}: "
                            "put the settings back, or rebuild the index with `rag-index rebuild INDEX`"
                        )
                except BaseException:
                    embedder.close()
                    raise
            self._embedder = embedder
        return self._embedder

    def _close_embedder(self) -> None:
        with self._turn:
            embedder, self._embedder = self._embedder, None
            if embedder is not None:
                embedder.close()

    def _settings_for(self, live: LiveCollection) -> EmbedderSettings:
        recorded = ["kind", "document_prefix", "query_prefix"]
        if _differs(self._settings, live.identity):  # else the settings know the folder too, or who made it
            recorded.append("model")
        return self._settings.model_copy(update={name: getattr(live.identity, name) for name in recorded})


@dataclass(slots=True, eq=False, kw_only=True)
class LiveQuery(Query):
    """A query for a live collection, whose errors name the collection and the remedy."""

    live: LiveCollection
    settings: EmbedderSettings
    waiters: int = 0

    @property
    def failed(self) -> bool:
        """Whether it was given up, or got an error."""
        return self.future.done() and (self.future.cancelled() or self.future.exception() is not None)

    def settle(self, entry: NDArray[np.float32] | Exception) -> None:
        """Give the query its vector, if it fits the collection, or its error."""
        held = f"{self.live.collection} holds vectors of {self.live.embedder}"
        remedy = "rebuild the index with `rag-index rebuild INDEX`"
        settled: NDArray[np.float32] | Exception = entry
        if not isinstance(entry, Exception):
            if reason := broken_reason(entry, self.live.identity.dimension):
                settled = BadVectors(f"the embedder returned {reason} for the query; {held}")
            else:
                settled = entry.copy()  # it may be a row of a matrix, which would stay in memory as long as the vector
                settled.setflags(write=False)
        elif isinstance(entry, ModelChanged | ModelMissing):
            gone = f"and that model is no longer available ({entry}): put it back, or {remedy}"
            settled = FingerprintChanged(f"{held}, {gone}")
            settled.__cause__ = entry
        elif (
            isinstance(entry, EmbedderUnavailable)
            and not isinstance(entry, RateLimited)
            and _differs(self.settings, self.live.identity)
        ):
            settled = EmbedderUnavailable(f"{entry} ({held}, settings say {self.settings.model}: {remedy})")
            settled.__cause__ = entry
        Query.settle(self, settled)


def _differs(settings: EmbedderSettings, identity: EmbedderIdentity) -> bool:
    """Return whether the settings name another model than the one that made the collection."""
    model = settings.model.removesuffix(":latest")
    if settings.kind == "sentence-transformers":  # of a folder or a name on the hub, the last part is recorded
        model = model.rstrip("/").rsplit("/", 1)[-1]
    return (identity.kind, identity.model) != (settings.kind, model)
