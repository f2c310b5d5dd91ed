"""The vectors of queries: the models that make them, the queries that wait, their cache, and what errors mean."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachetools import TTLCache

from rag_index.documents.canonical import hash_text
from rag_index.documents.vectors import broken_reason
from rag_index.embedders import open_embedder
from rag_index.embedders.query_stream import Query, TakesQueries
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
    from collections.abc import Awaitable, Callable, Collection, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.embedders import Embedder, EmbedderIdentity
    from rag_index.retrieve.live import LiveCollection
    from rag_index.settings import EmbedderSettings

MAX_QUERIES = 32
"""Queries that a model in the process embeds at a time. They take a few milliseconds, which the next ones wait."""

UNAVAILABLE = (EmbedderUnavailable, ModelChanged, ModelMissing)
"""Errors of which no query can be the reason."""


class QueryModel:
    """One model's embedder, and a thread that opens it.

    An embedder on servers takes the queries as they come (`TakesQueries`). One in the process need not be thread-safe,
    so the thread calls it, with all queries that wait by then.
    """

    def __init__(self, settings: EmbedderSettings, opener: Callable[..., Embedder]) -> None:
        self._settings, self._opener = settings, opener
        self._thread = ThreadPoolExecutor(1, "rag-index-embed")
        self._embedder: Embedder | None = None
        self._queue: deque[_LiveQuery] = deque()

    def submit(self, live: LiveCollection, text: str) -> Future[NDArray[np.float32]]:
        """Start embedding a query, as `QueryEmbedders.submit` says."""
        query = _LiveQuery(text, live=live, settings=self._settings)
        self._queue.append(query)
        try:
            self._thread.submit(self._embed_queue)
        except RuntimeError as exc:
            raise EmbedderUnavailable("the retriever is closed") from exc
        return query.future

    def load(self, live: LiveCollection) -> Future[None] | None:
        """Start loading the model, as `QueryEmbedders.load` says."""
        if self._embedder is not None or self._settings_for(live).on_servers:
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

    # In the thread

    def _load(self, live: LiveCollection) -> None:
        with suppress(RagIndexError):
            self._opened(live)

    def _embed_queue(self) -> None:
        """Embed the queries that wait, or some of them if there are many; none if an earlier call took them."""
        queries = [query for query in self._take() if query.wanted]
        if not queries:
            return
        try:
            embedder = self._opened(queries[0].live)
            if isinstance(embedder, TakesQueries):
                embedder.take_queries(queries)
            else:
                self._embed_here(embedder, queries)
        except Exception as exc:  # noqa: BLE001 - whoever waits has it
            for query in queries:
                query.settle(exc)

    def _take(self) -> list[_LiveQuery]:
        return [self._queue.popleft() for _ in range(min(MAX_QUERIES, len(self._queue)))]

    def _embed_here(self, embedder: Embedder, queries: Sequence[_LiveQuery]) -> None:
        entries = _embed_together(embedder, [query.text for query in queries])
        for query, entry in zip(queries, entries, strict=True):
            query.settle(entry)

    def _opened(self, live: LiveCollection) -> Embedder:
        if self._embedder is None:
            self._embedder = self._open_embedder(live)
        return self._embedder

    def _open_embedder(self, live: LiveCollection) -> Embedder:
        embedder = self._opener(self._settings_for(live), expected=live.identity)
        if live.identity is not None and isinstance(embedder, TakesQueries):
            return embedder  # it compares the model of each server itself, and does not wait for one that hangs
        try:
            found = embedder.identity()
            if found.fingerprint != live.fingerprint:
                raise FingerprintChanged(
                    f"{live.collection} holds vectors of {live.embedder}, settings say {found}: "
                    "put the settings back, or rebuild the index with `rag-index rebuild NAME`"
                )
        except BaseException:
            embedder.close()
            raise
        return embedder

    def _close_embedder(self) -> None:
        embedder, self._embedder = self._embedder, None
        if embedder is not None:
            embedder.close()

    def _settings_for(self, live: LiveCollection) -> EmbedderSettings:
        """Return the settings of the embedder that made a live collection."""
        identity = live.identity
        if identity is None:
            return self._settings
        recorded = ["kind", "document_prefix", "query_prefix"]
        if _differs(self._settings, identity):  # else the settings know the folder too, or who made it
            recorded.append("model")
        return self._settings.model_copy(update={name: getattr(identity, name) for name in recorded})


@dataclass(slots=True, eq=False, kw_only=True)
class _LiveQuery(Query):
    """A query for a live collection, whose errors name the collection and the remedy."""

    live: LiveCollection
    settings: EmbedderSettings

    def settle(self, entry: NDArray[np.float32] | Exception) -> None:
        """Give the query its vector, if it fits the collection, or its error."""
        if isinstance(entry, Exception):
            Query.settle(self, self._explained(entry))
            return
        live = self.live
        reason = broken_reason(entry, live.identity.dimension if live.identity else None)
        if reason is not None:
            wrong = f"the embedder returned {reason} for the query"
            Query.settle(self, BadVectors(f"{wrong}; {live.collection} holds vectors of {live.embedder}"))
            return
        vector = entry.copy()  # it may be a row of a matrix, which would stay in memory as long as the vector
        vector.setflags(write=False)
        Query.settle(self, vector)

    def _explained(self, error: Exception) -> Exception:
        live, explained = self.live, error
        if isinstance(error, ModelChanged | ModelMissing):
            explained = FingerprintChanged(
                f"{live.collection} holds vectors of {live.embedder}, and that model is no longer available ({error}): "
                "put it back, or rebuild the index with `rag-index rebuild NAME`"
            )
        elif (
            isinstance(error, EmbedderUnavailable)
            and not isinstance(error, RateLimited)
            and _differs(self.settings, live.identity)
        ):
            explained = EmbedderUnavailable(
                f"{error} ({live.collection} holds vectors of {live.embedder}, settings say "
                f"{self.settings.model}: rebuild the index with `rag-index rebuild NAME`)"
            )
        if explained is not error:
            explained.__cause__ = error
        return explained


def _differs(settings: EmbedderSettings, identity: EmbedderIdentity | None) -> bool:
    """Return whether the settings name another model than the one that made the collection."""
    model = settings.model.removesuffix(":latest")
    if settings.kind == "sentence-transformers":  # of a folder or a name on the hub, the last part is recorded
        model = model.rstrip("/").rsplit("/", 1)[-1]
    return identity is not None and (identity.kind, identity.model) != (settings.kind, model)


def _embed_together(embedder: Embedder, texts: Sequence[str]) -> list[NDArray[np.float32] | Exception]:
    """Return one entry per query. If the embedder raises, it gets them one by one."""
    try:
        return embedder.embed_queries(texts)
    except UNAVAILABLE as exc:
        return [exc] * len(texts)
    except Exception as exc:  # noqa: BLE001 - a query may be at fault, and must not fail the others
        if len(texts) == 1:
            return [exc]
    return [entry for text in texts for entry in _embed_together(embedder, [text])]


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


class QueryVectors:
    """The vectors of one question, made once for each fingerprint. `seconds` is how long the slowest took."""

    def __init__(self, embed: Callable[[LiveCollection, str], Awaitable[NDArray[np.float32]]], text: str) -> None:
        self._embed, self._text = embed, text
        self._tasks: dict[str, asyncio.Task[NDArray[np.float32]]] = {}
        self.seconds = 0.0

    async def get(self, live: LiveCollection) -> NDArray[np.float32]:
        """Return the vector that fits a live collection; indexes of one model wait for the same vector."""
        task = self._tasks.get(live.fingerprint)
        if task is None:
            task = self._tasks[live.fingerprint] = asyncio.ensure_future(self._embed_timed(live))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        """Stop waiting for any vector that is still being made."""
        for task in self._tasks.values():
            task.cancel()

    async def _embed_timed(self, live: LiveCollection) -> NDArray[np.float32]:
        began = time.perf_counter()
        try:
            return await self._embed(live, self._text)
        finally:
            self.seconds = max(self.seconds, time.perf_counter() - began)


def query_key(fingerprint: str, query: str) -> tuple[str, bytes]:
    """Return what a query's vector depends on: the model's fingerprint (prefix included) and a hash of the text."""
    return fingerprint, hash_text(query)


class QueryCache:
    """The `size` most recently used vectors, each younger than `seconds`. A size of 0 turns the cache off.

    Safe to use from several threads.
    """

    def __init__(self, size: int, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._vectors: TTLCache[tuple[str, bytes], NDArray[np.float32]] = TTLCache(size, seconds, timer=clock)

    def __len__(self) -> int:
        with self._lock:
            return len(self._vectors)

    def get(self, key: tuple[str, bytes]) -> NDArray[np.float32] | None:
        """Return the vector, or None if there is none that is young enough."""
        with self._lock:
            return self._vectors.get(key)

    def put(self, key: tuple[str, bytes], vector: NDArray[np.float32]) -> None:
        """Keep a vector. The caller must not change it afterwards."""
        if self._vectors.maxsize:
            with self._lock:
                self._vectors[key] = vector
