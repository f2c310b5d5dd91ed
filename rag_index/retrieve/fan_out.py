"""One question to several indexes: what they show, the question's vectors, the answers, each within its time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from rag_index.errors import (
    BadVectors,
    FingerprintChanged,
    SearchTimedOut,
    StoreBusy,
    StoreError,
)
from rag_index.retrieve.bulkhead import Bulkhead
from rag_index.retrieve.fusion import documents_of
from rag_index.retrieve.live import Directory, LiveCollection
from rag_index.retrieve.query_cache import QueryCache, query_key
from rag_index.retrieve.query_embedders import QueryEmbedders
from rag_index.retrieve.single_flight import SingleFlight, outcome
from rag_index.retrieve.store_holder import StoreHolder

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.embedders import Embedder
    from rag_index.retrieve.metrics import Metrics
    from rag_index.retrieve.results import SearchHit
    from rag_index.settings import Settings
    from rag_index.stores import Condition, Store

__all__ = ["Asker", "IndexAnswer", "Question", "SearchTimedOut"]

T = TypeVar("T")

CHUNKS_A_DOCUMENT = 3
"""So many chunks are asked for each document wanted, since several of one document may hit."""
MAX_POINTS = 10_000
"""Where long documents fill the answer with their chunks, it is asked for up to so many."""
LOOK_SECONDS = 1.0
"""How long a server's aliases are remembered."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked. `conditions` are the caller's; each index adds those that it requires."""

    text: str
    limit: int
    conditions: tuple[Condition, ...]
    timeout: float


@dataclass(slots=True)
class IndexAnswer:
    """What one index answered: hits, best first, or an error. `shown` is what was searched, `seconds` how long."""

    index: str
    hits: list[SearchHit] = field(default_factory=list)
    live: LiveCollection | None = None
    seconds: float = 0.0
    error: Exception | None = None


class Asker:
    """Holds the store, the embedders and the threads of a Retriever. Safe from several threads and event loops."""

    def __init__(
        self,
        settings: Settings,
        required: Mapping[str, tuple[Condition, ...]],
        metrics: Metrics,
        *,
        open_store: Callable[[], Store],
        open_embedder: Callable[..., Embedder] | None,
    ) -> None:
        retrieve, embedded = settings.retrieve, settings.store.url is None
        self._wait, self._index_timeout = settings.run.wait, retrieve.index_timeout
        self._required, self._metrics = required, metrics
        self._directory = Directory(settings, 0.0 if embedded else LOOK_SECONDS)
        self._open_store = open_store
        self._holder = StoreHolder(self._opened, wait=self._wait, idle=retrieve.idle_seconds if embedded else None)
        timeout = min(settings.embedder.timeout, retrieve.timeout)
        query_settings = settings.embedder.model_copy(update={"timeout": timeout})
        self._embedders = QueryEmbedders(query_settings, opener=open_embedder)
        self._cache = QueryCache(retrieve.cache_size, retrieve.cache_seconds)
        self._bulkhead = Bulkhead([index.name for index in settings.indexes], retrieve.concurrency)
        self._look_lane = Bulkhead(["look"], 2)
        self._looks: SingleFlight[Mapping[str, str]] = SingleFlight()
        self._embeds: SingleFlight[NDArray[np.float32]] = SingleFlight()

    async def ask(self, question: Question, indexes: Sequence[str] | None) -> tuple[list[IndexAnswer], float]:
        """The answers, in the order asked, and the seconds that embedding took.

        Without `indexes` all that are filled are asked. Raises only where none can be asked: StoreError where nothing
        is indexed, and what keeps the store from answering at all.
        """
        limit = _Limit(question.timeout)
        looked = time.monotonic()
        looking = " while the store was opened"
        collections = await _Limit(question.timeout, extra=self._wait).within(self._look(), looking)
        if self._wait:
            limit.until += time.monotonic() - looked
        if not collections:
            collections = await limit.within(self._look(anew=True), looking)
        if indexes is None and not collections:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        names = list(collections) if indexes is None else indexes
        vectors = _Vectors(self._vector, question.text)
        try:
            answers = await asyncio.gather(
                *(self._answer(question, name, collections.get(name), vectors, limit) for name in names)
            )
        finally:
            vectors.cancel()
        return answers, vectors.seconds

    def close(self) -> None:
        """Give everything back; calls under way come to their end."""
        self._bulkhead.close()
        self._look_lane.close()
        self._embedders.close()
        self._holder.close()

    async def _answer(
        self, question: Question, index: str, collection: str | None, vectors: _Vectors, limit: _Limit
    ) -> IndexAnswer:
        answer = IndexAnswer(index)
        try:
            await self._fill(answer, question, collection, vectors, limit)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            answer.error = exc
        return answer

    async def _fill(
        self, answer: IndexAnswer, question: Question, collection: str | None, vectors: _Vectors, limit: _Limit
    ) -> None:
        """Ask; where what was looked up is no longer true, look again and ask once more."""
        for last in (False, True):
            live: LiveCollection | None = None
            try:
                live = await self._live(answer.index, collection, limit.at_most(self._index_timeout))
                vector = await limit.within(vectors.of(live), " while the query was embedded")
                began = time.perf_counter()
                call = self._bulkhead.submit(answer.index, self._search, question, live, vector)
                answer.hits = await limit.at_most(self._index_timeout).within(outcome(call))
                answer.seconds, answer.live = time.perf_counter() - began, live
            except StoreBusy:
                raise
            except (StoreError, FingerprintChanged, BadVectors):
                if last or not await self._changed(answer.index, collection, live, limit):
                    raise
                collection = self._directory.collection(answer.index)
            else:
                return

    async def _live(self, index: str, collection: str | None, limit: _Limit) -> LiveCollection:
        if collection is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        known = self._directory.described(index, collection)
        if known is not None:
            return known
        call = self._bulkhead.submit(index, self._describe, index, collection)
        return await limit.within(outcome(call), " while its collection was looked at")

    async def _changed(self, index: str, collection: str | None, live: LiveCollection | None, limit: _Limit) -> bool:
        """Whether an index shows something else than what was asked."""
        now = (await limit.within(self._look(anew=True))).get(index)
        if now != collection or now is None:
            return now != collection
        self._directory.forget(index)
        return live is not None and await self._live(index, now, limit) != live

    def _search(self, question: Question, live: LiveCollection, vector: NDArray[np.float32]) -> list[SearchHit]:
        """In a thread: the best documents of an index."""
        conditions = (*self._required[live.index], *question.conditions)
        points = question.limit * CHUNKS_A_DOCUMENT
        with self._holder.store() as store:
            while True:
                found = store.search(live.collection, vector, limit=points, conditions=conditions)
                hits = documents_of(live.index, found)
                if len(hits) >= question.limit or len(found) < points or points >= MAX_POINTS:
                    return hits[: question.limit]
                points = min(points * 4, MAX_POINTS)

    def _opened(self) -> Store:
        store = self._open_store()
        self._directory.forget()  # while another process had it, anything may have become of it
        return store

    async def _look(self, *, anew: bool = False) -> Mapping[str, str]:
        known = None if anew else self._directory.remembered()
        if known is not None:
            return known
        return await outcome(self._looks.join(anew, lambda: self._look_lane.submit("look", self._looked)))

    def _looked(self) -> Mapping[str, str]:
        with self._holder.store() as store:
            return self._directory.look(store)

    def _describe(self, index: str, collection: str) -> LiveCollection:
        with self._holder.store() as store:
            live = self._directory.describe(store, index, collection)
        searched = self._directory.fingerprints()
        if searched is not None:
            self._embedders.keep(searched)
        return live

    async def _vector(self, live: LiveCollection, text: str) -> NDArray[np.float32]:
        key = query_key(live.fingerprint, text)
        vector = self._cache.get(key)
        if vector is None:
            vector = await outcome(self._embeds.join(key, lambda: self._start(live, text)))
            self._cache.put(key, vector)
        self._metrics.asked_vector()
        return vector

    def _start(self, live: LiveCollection, text: str) -> Future[NDArray[np.float32]]:
        self._metrics.made_vector()
        return self._embedders.start(live, text)


class _Vectors:
    """The vectors of one question: each fingerprint's is made once. `seconds` is what the slowest took."""

    def __init__(self, make: Callable[[LiveCollection, str], Awaitable[NDArray[np.float32]]], text: str) -> None:
        self._make, self._text = make, text
        self._tasks: dict[str, asyncio.Task[NDArray[np.float32]]] = {}
        self.seconds = 0.0

    async def of(self, live: LiveCollection) -> NDArray[np.float32]:
        """The vector for what an index shows; several wait for one."""
        task = self._tasks.get(live.fingerprint)
        if task is None:
            task = self._tasks[live.fingerprint] = asyncio.ensure_future(self._made(live))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        """Wait for none any more."""
        for task in self._tasks.values():
            task.cancel()

    async def _made(self, live: LiveCollection) -> NDArray[np.float32]:
        began = time.perf_counter()
        try:
            return await self._make(live, self._text)
        finally:
            self.seconds = max(self.seconds, time.perf_counter() - began)


class _Limit:
    """A time limit, and what to say when it is over."""

    def __init__(self, seconds: float, *, extra: float = 0.0) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds + extra

    def at_most(self, seconds: float) -> _Limit:
        """The stricter of this one, and so many seconds from now."""
        own = _Limit(seconds)
        return own if own.until < self.until else self

    async def within(self, work: Awaitable[T], during: str = "") -> T:
        """What the work gives; raises SearchTimedOut when the time is over."""
        try:
            async with asyncio.timeout(self.until - time.monotonic()):
                return await work
        except TimeoutError:
            raise SearchTimedOut(f"timed out after {self.seconds:g} s{during}") from None
