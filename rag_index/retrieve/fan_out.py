"""One question to several indexes: find their live collections, embed the question, and search, each in its time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from rag_index.documents.sparse import SparseVector
from rag_index.embedders.bm25 import Bm25Encoder
from rag_index.errors import (
    BadVectors,
    FingerprintChanged,
    SearchTimedOut,
    StoreBusy,
    StoreError,
)
from rag_index.retrieve.bulkhead import Bulkhead
from rag_index.retrieve.fusion import count_documents
from rag_index.retrieve.live import LiveCollection, LiveCollections
from rag_index.retrieve.query_cache import QueryCache, query_key
from rag_index.retrieve.query_embedders import QueryEmbedders
from rag_index.retrieve.single_flight import SingleFlight, result_of
from rag_index.retrieve.store_holder import StoreHolder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.documents.batches import StoredPoint
    from rag_index.embedders import Embedder
    from rag_index.retrieve.access import AccessRules, CallerGroups
    from rag_index.retrieve.metrics import Metrics
    from rag_index.settings import Settings
    from rag_index.stores import Condition, StoreReader

__all__ = ["FanOut", "IndexAnswer", "Question"]

T = TypeVar("T")

CHUNKS_PER_DOCUMENT = 3
"""Chunks requested for each document wanted, since several chunks of one document may match."""
MIN_CANDIDATES = 50
"""Chunks requested at least by each vector of a hybrid search: the best of both together may be far down in each."""
MAX_POINTS = 10_000
"""Points requested at most, when the chunks of long documents fill the answer."""
MAX_LOAD_SECONDS = 300.0
"""How long loading a model into this process may take."""
NO_WORDS = SparseVector((), ())
ALIAS_SECONDS = 1.0
"""How long the aliases of a server are cached."""


@dataclass(frozen=True, slots=True)
class Question:
    """A validated search. `conditions` are the caller's; each index adds its own, by the caller's groups.

    With a `dense_weight` of 1, words are not searched for.
    """

    text: str
    limit: int
    conditions: tuple[Condition, ...]
    timeout: float
    dense_weight: float = 1.0
    groups: CallerGroups = frozenset()


@dataclass(slots=True)
class IndexAnswer:
    """The answer of one index: its candidates in any order, or an error.

    `live` is the collection that was searched, `seconds` how long that took. If it was searched by words too
    (`hybrid`), every candidate has both scores. `until` is the moment by which the whole search has to end, of
    time.monotonic().
    """

    index: str
    points: list[StoredPoint] = field(default_factory=list)
    hybrid: bool = False
    live: LiveCollection | None = None
    seconds: float = 0.0
    until: float = 0.0
    error: Exception | None = None


class FanOut:
    """The store, embedders and threads of a Retriever. Safe to use from several threads and event loops."""

    def __init__(
        self,
        settings: Settings,
        access: AccessRules,
        metrics: Metrics,
        *,
        open_store: Callable[[], StoreReader],
        open_embedder: Callable[..., Embedder] | None,
        collections: Mapping[str, str] | None = None,
    ) -> None:
        retrieve, embedded = settings.retrieve, settings.store.url is None
        self._wait, self._index_timeout = settings.run.wait, retrieve.index_timeout
        self._access, self._metrics = access, metrics
        self._live_collections = LiveCollections(settings, 0.0 if embedded else ALIAS_SECONDS, pinned=collections)
        self._open_store = open_store
        self._store_holder = StoreHolder(
            self._open_store_afresh, wait=self._wait, idle=retrieve.idle_seconds if embedded else None
        )
        timeout = min(settings.embedder.timeout, retrieve.timeout)
        query_settings = settings.embedder.model_copy(update={"timeout": timeout})
        self._embedders = QueryEmbedders(query_settings, opener=open_embedder)
        self._cache = QueryCache(retrieve.cache_size, retrieve.cache_seconds)
        self._bulkhead = Bulkhead([index.name for index in settings.indexes], retrieve.concurrency)
        self._alias_bulkhead = Bulkhead(["aliases"], 2)
        self._alias_lookups: SingleFlight[Mapping[str, str]] = SingleFlight()
        self._embeddings: SingleFlight[NDArray[np.float32]] = SingleFlight()

    async def ask(self, question: Question, indexes: Sequence[str] | None) -> tuple[list[IndexAnswer], float]:
        """Return the answers in the order of `indexes`, and the seconds that embedding took.

        If `indexes` is None, all indexes that hold something are asked. Those that are closed to the caller's groups
        are left out. Raises only if none can be asked: StoreError if nothing is indexed yet, and whatever error the
        store raises instead of answering.
        """
        deadline = _Deadline(question.timeout)
        began = time.monotonic()
        during = " while the store was opened"
        collections = await _Deadline(question.timeout, extra=self._wait).wait_for(self._live_names(), during)
        if self._wait:
            deadline.at += time.monotonic() - began
        if not collections:
            collections = await deadline.wait_for(self._live_names(fresh=True), during)
        names = [
            name
            for name in (collections if indexes is None else indexes)
            if self._access.is_open(name, question.groups)
        ]
        if indexes is None and not names:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        vectors = _QueryVectors(self._embed, question.text)
        try:
            answers = await asyncio.gather(
                *(self._answer(question, name, collections.get(name), vectors, deadline) for name in names)
            )
        finally:
            vectors.cancel()
        return answers, vectors.seconds

    async def read(self, index: str, timeout: float, call: Callable[[StoreReader, str], T]) -> T:
        """Return what a function returns that gets the store and the name of the index's live collection.

        It runs in a thread of the index. Raises StoreError if the index is empty, SearchTimedOut, and what it raises.
        """
        deadline = _Deadline(timeout, extra=self._wait)
        collection = (await deadline.wait_for(self._live_names(), " while the store was opened")).get(index)
        if collection is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")

        def with_store() -> T:
            with self._store_holder.borrow() as store:
                return call(store, collection)

        return await deadline.wait_for(result_of(self._bulkhead.submit(index, with_store)))

    def close(self) -> None:
        """Close the store and the embedders, and start no more calls; those already running finish."""
        self._bulkhead.close()
        self._alias_bulkhead.close()
        self._embedders.close()
        self._store_holder.close()

    async def _answer(
        self, question: Question, index: str, collection: str | None, vectors: _QueryVectors, deadline: _Deadline
    ) -> IndexAnswer:
        answer = IndexAnswer(index, until=deadline.at)
        try:
            await self._ask_index(answer, question, collection, vectors, deadline)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            answer.error = exc
        return answer

    async def _ask_index(
        self,
        answer: IndexAnswer,
        question: Question,
        collection: str | None,
        vectors: _QueryVectors,
        deadline: _Deadline,
    ) -> None:
        """Search the index. If that fails and its live collection has changed meanwhile, search the new one once."""
        for last in (False, True):
            live: LiveCollection | None = None
            try:
                live = await self._live_collection(answer.index, collection, deadline.capped(self._index_timeout))
                deadline = await self._after_loading(live, question.text, deadline)
                answer.until = deadline.at
                vector = await deadline.wait_for(vectors.get(live), " while the query was embedded")
                began = time.perf_counter()
                call = self._bulkhead.submit(answer.index, self._search, question, live, vector)
                answer.points = await deadline.capped(self._index_timeout).wait_for(result_of(call))
                answer.seconds, answer.live = time.perf_counter() - began, live
                answer.hybrid = _is_hybrid(question, live)
            except StoreBusy:
                raise
            except (StoreError, FingerprintChanged, BadVectors):
                if last or not await self._has_changed(answer.index, collection, live, deadline):
                    raise
                collection = self._live_collections.name(answer.index)
            else:
                return

    async def _live_collection(self, index: str, collection: str | None, deadline: _Deadline) -> LiveCollection:
        if collection is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        cached = self._live_collections.cached(index, collection)
        if cached is not None:
            return cached
        call = self._bulkhead.submit(index, self._load_live_collection, index, collection)
        return await deadline.wait_for(result_of(call), " while its collection was read")

    async def _after_loading(self, live: LiveCollection, text: str, deadline: _Deadline) -> _Deadline:
        """Wait until the model is loaded, if it runs in this process, and return the deadline, later by as long.

        It is loaded once, however long that takes; a time limit for it would make every first search fail.
        """
        if self._cache.get(query_key(live.fingerprint, text)) is not None:
            return deadline
        began = time.monotonic()
        loading = self._embedders.load(live)
        if loading is None:
            return deadline
        await _Deadline(MAX_LOAD_SECONDS).wait_for(result_of(loading), " while the model was loaded")
        return deadline.later(time.monotonic() - began)

    async def _has_changed(
        self, index: str, collection: str | None, live: LiveCollection | None, deadline: _Deadline
    ) -> bool:
        """Return whether the live collection of an index is no longer the one that was searched."""
        now = (await deadline.wait_for(self._live_names(fresh=True))).get(index)
        if now != collection or now is None:
            return now != collection
        self._live_collections.forget(index)
        return live is not None and await self._live_collection(index, now, deadline) != live

    def _search(self, question: Question, live: LiveCollection, vector: NDArray[np.float32]) -> list[StoredPoint]:
        """Return the candidates of an index: chunks of at least as many documents as wanted. Runs in a thread."""
        own = self._access.conditions(live.index, question.groups)
        if own is None:
            return []
        conditions = (*own, *question.conditions)
        limit = question.limit * CHUNKS_PER_DOCUMENT
        sparse = NO_WORDS
        if _is_hybrid(question, live) and live.bm25:
            sparse = Bm25Encoder(live.bm25).query(question.text)
            limit = max(limit, MIN_CANDIDATES)
        with self._store_holder.borrow() as store:
            while True:
                if sparse:
                    points = store.search_hybrid(live.collection, vector, sparse, limit=limit, conditions=conditions)
                else:
                    points = store.search(live.collection, vector, limit=limit, conditions=conditions)
                if count_documents(points) >= question.limit or len(points) < limit or limit >= MAX_POINTS:
                    return points
                limit = min(limit * 4, MAX_POINTS)

    def _open_store_afresh(self) -> StoreReader:
        store = self._open_store()
        self._live_collections.forget()  # another process may have changed anything while it held the store
        return store

    async def _live_names(self, *, fresh: bool = False) -> Mapping[str, str]:
        """Return the name of each index's live collection, from the cache unless `fresh`."""
        cached = None if fresh else self._live_collections.cached_names()
        if cached is not None:
            return cached
        return await result_of(
            self._alias_lookups.join(fresh, lambda: self._alias_bulkhead.submit("aliases", self._look_up_names))
        )

    def _look_up_names(self) -> Mapping[str, str]:
        with self._store_holder.borrow() as store:
            return self._live_collections.look_up_names(store)

    def _load_live_collection(self, index: str, collection: str) -> LiveCollection:
        with self._store_holder.borrow() as store:
            live = self._live_collections.load(store, index, collection)
        fingerprints = self._live_collections.fingerprints()
        if fingerprints is not None:
            self._embedders.close_all_but(fingerprints)
        return live

    async def _embed(self, live: LiveCollection, text: str) -> NDArray[np.float32]:
        key = query_key(live.fingerprint, text)
        vector = self._cache.get(key)
        if vector is None:
            vector = await result_of(self._embeddings.join(key, lambda: self._start_embedding(live, text)))
            self._cache.put(key, vector)
        self._metrics.count_vector_asked()
        return vector

    def _start_embedding(self, live: LiveCollection, text: str) -> Future[NDArray[np.float32]]:
        self._metrics.count_vector_made()
        return self._embedders.submit(live, text)


def _is_hybrid(question: Question, live: LiveCollection) -> bool:
    return live.bm25 is not None and question.dense_weight < 1


class _QueryVectors:
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


class _Deadline:
    """A moment (`at`, monotonic time) by which work must be done, and the time limit that set it."""

    def __init__(self, seconds: float, *, extra: float = 0.0) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds + extra

    def capped(self, seconds: float) -> _Deadline:
        """Return the earlier of this deadline and one in `seconds` from now."""
        own = _Deadline(seconds)
        return own if own.at < self.at else self

    def later(self, seconds: float) -> _Deadline:
        """Return the deadline moved by so many seconds, which do not count."""
        moved = _Deadline(self.seconds)
        moved.at = self.at + seconds
        return moved

    async def wait_for(self, work: Awaitable[T], during: str = "") -> T:
        """Return the result of the work. Raises SearchTimedOut if the deadline passes first."""
        try:
            async with asyncio.timeout(self.at - time.monotonic()):
                return await work
        except TimeoutError:
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}") from None
