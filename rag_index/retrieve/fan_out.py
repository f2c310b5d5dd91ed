"""One question to several indexes: find their live collections, embed the question, and search, each in its time."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from rag_index.documents.batches import StoredPoint
from rag_index.errors import BadVectors, FingerprintChanged, StoreBusy, StoreError
from rag_index.retrieve.concurrency import Bulkhead, Deadline, SingleFlight, StoreHolder, result_of
from rag_index.retrieve.fusion import MORE, best_points, compares_scores, count_documents, scorings
from rag_index.retrieve.index_reader import MIN_CANDIDATES, IndexReader, is_hybrid
from rag_index.retrieve.live import LiveCollection, LiveCollections
from rag_index.retrieve.query_model import QueryCache, QueryEmbedders, QueryVectors, query_key
from rag_index.retrieve.question import CHUNKS_PER_DOCUMENT, IndexAnswer, Question
from rag_index.retrieve.soft_match import add_soft_match, idf_of
from rag_index.stores import WordCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from rag_index.embedders import Embedder
    from rag_index.retrieve.access import AccessRules
    from rag_index.retrieve.fusion import Scoring
    from rag_index.retrieve.metrics import Metrics
    from rag_index.settings import Settings
    from rag_index.stores import StoreReader, WordPlaces

T = TypeVar("T")

MAX_LOAD_SECONDS = 300.0
"""How long loading a model into this process may take."""
ALIAS_SECONDS = 1.0
"""How long the aliases of a server are cached."""
COUNT_SHARE = 0.25
"""The share of its time that an index waits for others that count words slower. Their words are then not in the idf."""


class _Counting:
    """The words of a question as the indexes count them, of which all indexes get one idf."""

    def __init__(self, indexes: Sequence[str], idf: Mapping[int, float] | None = None) -> None:
        """`idf` is that of an earlier round, if there was one."""
        self._left, self._counts, self._all = set(indexes), dict[str, WordCounts](), asyncio.Event()
        self._idf = idf

    def end(self, index: str, counts: WordCounts | None = None) -> None:
        """Take what an index counted. Without counts, nobody waits for it any more."""
        if counts is not None:
            self._counts[index] = counts
        self._left.discard(index)
        if not self._left:
            self._all.set()

    async def idf(self, patience: float) -> Mapping[int, float]:
        """Return the idf of each word in all indexes, or after some seconds in those that counted."""
        if not self._idf:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all.wait(), patience)
            self._idf = self._idf or idf_of(self._counts.values())
        return self._idf


@dataclass(slots=True)
class _Round:
    """A question on its way to several indexes.

    `turns` says how many of them are searched at once. It is `late` once half of its time has passed.
    """

    question: Question
    vectors: QueryVectors
    turns: asyncio.Semaphore
    deadline: Deadline
    counting: _Counting
    late: bool = False


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
        retrieve, self._embedded = settings.retrieve, settings.store.url is None
        self._wait, self._index_timeout = settings.run.wait, retrieve.index_timeout
        self._access, self._metrics = access, metrics
        self._live_collections = LiveCollections(settings, 0.0 if self._embedded else ALIAS_SECONDS, pinned=collections)
        self._open_store = open_store
        self._store_holder = StoreHolder(
            self._open_store_afresh, wait=self._wait, idle=retrieve.idle_seconds if self._embedded else None
        )
        self._reader = IndexReader(access, self._store_holder)
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
        deadline = Deadline(question.timeout)
        began = time.monotonic()
        during = " while the store was opened"
        collections = await Deadline(question.timeout).later(self._wait).wait_for(self._live_names(), during)
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
        turns = asyncio.Semaphore(1 if self._embedded else max(1, len(names)))
        asking = _Round(question, QueryVectors(self._embed, question.text), turns, deadline, _Counting(names))
        answering = [asyncio.create_task(self._answer(asking, name, collections.get(name))) for name in names]
        try:
            if answering:
                await self._read_before_late_ones(asking, answering)
            answers = await asyncio.gather(*answering)
        finally:
            for one in answering:
                one.cancel()
            asking.vectors.cancel()
        return answers, asking.vectors.seconds

    async def read(self, index: str, timeout: float, call: Callable[[StoreReader, LiveCollection], T]) -> T:
        """Return what a function returns that gets the store and the index's live collection.

        It runs in a thread of the index. Raises StoreError if the index is empty, SearchTimedOut, and what it raises.
        """
        deadline = Deadline(timeout).later(self._wait)
        collection = (await deadline.wait_for(self._live_names(), " while the store was opened")).get(index)
        live = await self._live_collection(index, collection, deadline)

        def with_store() -> T:
            with self._store_holder.borrow() as store:
                return call(store, live)

        return await deadline.wait_for(result_of(self._bulkhead.submit(index, with_store)))

    async def ask_again(self, question: Question, answer: IndexAnswer) -> None:
        """Ask the index of an answer for whole candidates; the answer gets them, or an error."""
        deadline = Deadline(question.timeout, answer.until)
        whole = replace(question, payloads=True)
        counting = _Counting([answer.index], answer.idf)
        asking = _Round(whole, QueryVectors(self._embed, question.text), asyncio.Semaphore(1), deadline, counting)
        began = time.perf_counter()
        try:
            collection = (await deadline.wait_for(self._live_names(fresh=True))).get(answer.index)
            await self._ask_index(asking, answer, collection)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            answer.error = exc
        finally:
            asking.vectors.cancel()
        answer.seconds = time.perf_counter() - began

    async def payloads(self, question: Question, answer: IndexAnswer, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the payloads of candidates by id. One that is gone, or no longer for the caller, is left out.

        Raises SearchTimedOut, and what the store raises.
        """
        deadline = Deadline(question.timeout, answer.until).capped(self._index_timeout)
        call = self._bulkhead.submit(answer.index, self._reader.payloads, question, answer, ids)
        return await deadline.wait_for(result_of(call))

    async def find_words(self, question: Question, answer: IndexAnswer, words: Sequence[int]) -> WordPlaces:
        """Return which of these words chunks of an index have that the caller may see, with the ids of some.

        Raises SearchTimedOut, and what the store raises.
        """
        deadline = Deadline(question.timeout, answer.until).capped(self._index_timeout)
        call = self._bulkhead.submit(answer.index, self._reader.find_words, question, answer, words)
        return await deadline.wait_for(result_of(call))

    def close(self) -> None:
        """Close the store and the embedders, and start no more calls; those already running finish."""
        self._bulkhead.close()
        self._alias_bulkhead.close()
        self._embedders.close()
        self._store_holder.close()

    async def _read_before_late_ones(self, asking: _Round, answering: Sequence[asyncio.Task[IndexAnswer]]) -> None:
        """If an index takes half of the time, have the others read all their payloads at once.

        That one may take all of it, and then no time would be left to read any.
        """
        _, late = await asyncio.wait(answering, timeout=(asking.deadline.at - time.monotonic()) / 2)
        if late:
            asking.late = True
            done = [one.result() for one in answering if one.done()]
            await asyncio.gather(*(self._read_all(asking.question, answer) for answer in done))

    async def _read_all(self, question: Question, answer: IndexAnswer) -> None:
        """Read the payloads of all candidates, if that has to be done; a fault leaves them to be read again."""
        if not answer.whole:
            with suppress(Exception):
                payloads = await self.payloads(question, answer, [point.id for point in answer.points])
                answer.points = _filled(answer.points, payloads)

    async def _answer(self, asking: _Round, index: str, collection: str | None) -> IndexAnswer:
        answer = IndexAnswer(index, until=asking.deadline.at)
        try:
            await self._ask_index(asking, answer, collection)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            answer.error = exc
        finally:
            asking.counting.end(index)
        if asking.late:
            await self._read_all(asking.question, answer)
        return answer

    async def _ask_index(self, asking: _Round, answer: IndexAnswer, collection: str | None) -> None:
        """Search the index. If that fails and its live collection has changed meanwhile, search the new one once.

        A search of an embedded store takes one of its indexes at a time, and so one of its processes.
        """
        question, deadline = asking.question, asking.deadline
        for last in (False, True):
            live: LiveCollection | None = None
            try:
                live = await self._live_collection(answer.index, collection, deadline.capped(self._index_timeout))
                deadline = await self._after_loading(live, question.text, deadline)
                answer.until = deadline.at
                vector = await deadline.wait_for(asking.vectors.get(live), " while the query was embedded")
                await self._count_words(asking, answer, live, deadline)
                await deadline.wait_for(asking.turns.acquire())
                try:
                    began = time.perf_counter()
                    search = partial(self._reader.candidates, question, live, vector, answer)
                    call = self._bulkhead.submit(answer.index, search)
                    answer.points = await deadline.capped(self._index_timeout).wait_for(result_of(call))
                    answer.seconds, answer.live = time.perf_counter() - began, live
                finally:
                    asking.turns.release()
                answer.hybrid = is_hybrid(question, live)
                answer.whole = question.payloads or all(point.payload for point in answer.points)
            except StoreBusy:
                raise
            except (StoreError, FingerprintChanged, BadVectors):
                if last or not await self._has_changed(answer.index, collection, live, deadline):
                    raise
                collection = self._live_collections.name(answer.index)
            else:
                return

    async def _count_words(self, asking: _Round, answer: IndexAnswer, live: LiveCollection, deadline: Deadline) -> None:
        """Count the words of the question in an index, and give its answer their idf in all indexes."""
        if not is_hybrid(asking.question, live):
            asking.counting.end(answer.index)
            return
        call = self._bulkhead.submit(answer.index, self._reader.word_counts, asking.question, live)
        answer.counts = await deadline.capped(self._index_timeout).wait_for(result_of(call))
        asking.counting.end(answer.index, answer.counts)
        patience = COUNT_SHARE * min(self._index_timeout, asking.question.timeout)
        answer.idf = await asking.counting.idf(patience)

    async def _live_collection(self, index: str, collection: str | None, deadline: Deadline) -> LiveCollection:
        if collection is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        cached = self._live_collections.cached(index, collection)
        if cached is not None:
            return cached
        call = self._bulkhead.submit(index, self._load_live_collection, index, collection)
        return await deadline.wait_for(result_of(call), " while its collection was read")

    async def _after_loading(self, live: LiveCollection, text: str, deadline: Deadline) -> Deadline:
        """Wait until the model is loaded, if it runs in this process, and return the deadline, later by as long.

        It is loaded once, however long that takes; a time limit for it would make every first search fail.
        """
        if self._cache.get(query_key(live.fingerprint, text)) is not None:
            return deadline
        began = time.monotonic()
        loading = self._embedders.load(live)
        if loading is None:
            return deadline
        await Deadline(MAX_LOAD_SECONDS).wait_for(result_of(loading), " while the model was loaded")
        return deadline.later(time.monotonic() - began)

    async def _has_changed(
        self, index: str, collection: str | None, live: LiveCollection | None, deadline: Deadline
    ) -> bool:
        """Return whether the live collection of an index is no longer the one that was searched."""
        now = (await deadline.wait_for(self._live_names(fresh=True))).get(index)
        if now != collection or now is None:
            return now != collection
        self._live_collections.forget(index)
        return live is not None and await self._live_collection(index, now, deadline) != live

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
            store.prepare(collection)
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


Best = dict[str, list["StoredPoint"]]
"""The best candidates by index."""


async def load_payloads(
    fan_out: FanOut, question: Question, answers: Sequence[IndexAnswer], fusion: str
) -> Mapping[str, Scoring]:
    """Reduce the answers to the candidates that can be among the hits, with their payloads, and return the scoring.

    The scoring is that of all candidates, by index. An index whose payloads cannot be read, because its collection
    changed meanwhile, is asked again. One that does not answer then gets an error. Raises SettingsError if scores
    cannot be compared and `fusion` is "score".
    """
    while True:
        asked = [answer for answer in answers if answer.error is None]
        together = compares_scores(asked, fusion)
        scoring = scorings(asked, question)
        if all(answer.whole for answer in asked):
            break
        groups = [asked] if together else [[answer] for answer in asked]
        found = await asyncio.gather(*(_load_best(fan_out, question, group, scoring) for group in groups))
        if None not in found:
            read = {index: points for best in found if best for index, points in best.items()}
            for answer in asked:
                answer.points = read[answer.index]
            break
    await asyncio.to_thread(add_soft_match, question.text, asked)
    return scoring


async def _load_best(
    fan_out: FanOut, question: Question, answers: Sequence[IndexAnswer], scoring: Mapping[str, Scoring]
) -> Best | None:
    """Return the best candidates, read, of indexes whose candidates are in one order; None if one was asked again."""
    count = question.read
    total = sum(len(answer.points) for answer in answers)
    while True:
        best = best_points(answers, scoring, count)
        found = await asyncio.gather(*(_read(fan_out, question, answer, best[answer.index]) for answer in answers))
        if not all(found):
            return None
        read = {answer.index: _with_payload(answer.points, best[answer.index]) for answer in answers}
        if sum(count_documents(points) for points in read.values()) >= question.limit:
            return read
        if count >= total:
            short = [answer for answer in answers if _has_more(answer, question)]
            await asyncio.gather(*(fan_out.ask_again(question, answer) for answer in short))
            return None if short else read
        count *= MORE


async def _read(fan_out: FanOut, question: Question, answer: IndexAnswer, best: Sequence[StoredPoint]) -> bool:
    """Read the payloads that are missing, and drop points that are gone. Return False if the index was asked again."""
    missing = [point.id for point in best if not point.payload] if not answer.whole else []
    if not missing:
        return True
    try:
        payloads = await fan_out.payloads(question, answer, missing)
    except StoreBusy as exc:
        answer.error = exc
    except (StoreError, FingerprintChanged, BadVectors):
        await fan_out.ask_again(question, answer)
    except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
        answer.error = exc
    else:
        wanted = set(missing)
        others = [point for point in answer.points if point.id not in wanted]
        answer.points = others + _filled(best, payloads)
        return True
    return False


def _filled(points: Sequence[StoredPoint], payloads: Mapping[str, dict[str, Any]]) -> list[StoredPoint]:
    """Return the points that have a payload here, with it."""
    return [
        StoredPoint(one.id, payloads[one.id], one.vector, one.score, one.sparse, one.bm25, one.soft)
        for one in points
        if one.id in payloads
    ]


def _with_payload(points: Sequence[StoredPoint], best: Sequence[StoredPoint]) -> list[StoredPoint]:
    ids = {point.id for point in best}
    return [point for point in points if point.id in ids]


def _has_more(answer: IndexAnswer, question: Question) -> bool:
    """Return whether an index may have documents that its candidates, all of them read, leave no room for."""
    asked = max(MIN_CANDIDATES, question.limit * CHUNKS_PER_DOCUMENT)
    few = count_documents(answer.points) < question.limit
    return not answer.whole and few and len(answer.points) >= asked
