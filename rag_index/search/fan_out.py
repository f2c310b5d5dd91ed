"""One question to several indexes, step by step: their live collections, the words of the question,
its vector, and the search itself, which is one request to each index.

All indexes are asked at once. An index that fails or is late gets an error, and the others go on.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rag_index.components.stores.protocol import StoreReader, VectorQuery
from rag_index.core.documents.keys import point_id
from rag_index.errors import (
    BadVectors,
    EmbedderUnavailable,
    EmbedderWithdrawn,
    FingerprintChanged,
    RagIndexError,
    SearchBusy,
    SearchTimedOut,
    StoreBusy,
    StoreError,
    StoreMismatch,
)
from rag_index.search.concurrency import WORDS_LANE, Deadline, StoreThreads
from rag_index.search.fusion import (
    MAX_SHORT_CHUNKS,
    best_candidates,
    document_key,
    scorings,
    with_texts,
)
from rag_index.search.live_collections import LiveCollection, LiveCollections
from rag_index.search.names import SoughtNames
from rag_index.search.options import MAX_HITS
from rag_index.search.query_model import EMBED_LANE, EMBED_REQUESTS, QueryVectors
from rag_index.search.question import Asked, IndexAnswer, Question, add_bm25
from rag_index.search.question_words import QuestionWords
from rag_index.search.relevance import rank

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry

    from rag_index.components.embedders import Embedder
    from rag_index.core.documents.batches import StoredPoint
    from rag_index.core.settings import Settings
    from rag_index.search.access import AccessRules

T = TypeVar("T")

MAX_MODEL_LOAD_SECONDS = 300.0
"""Time limit for loading a model into this process, in seconds. Chosen: a large model may be read
from a slow disk."""
FILLING_SECONDS = 1.0
"""How long a search waits for a vector while an index is being filled, in seconds, because the
embedder is busy with documents. Chosen; the search then goes on by words alone."""
READ_SHARE = 0.2
"""Share of the remaining time that is kept for reading the candidates, if an index takes all the
rest. Chosen."""
MAX_POINTS = 10_000
"""Points that are requested of an index at most. Chosen; each has its payload and its sparse
vector."""
MAX_OF_PHRASE = 2000
"""With phrases in the query, an index is not searched again once this many points were requested.
Chosen; phrases are looked for in this process, so each further point is read for them."""
POINTS_GROWTH = 4
"""Growth of the number of requested points if the chunks of a few long documents fill the answer.
Chosen."""
IDLE_SECONDS = 300.0
"""Seconds after the last search after which an embedded store is closed. Chosen; if a run wants to
write it, `concurrency.QUIET_SECONDS` apply."""
REQUESTS = 32
"""Requests to the store at a time, over all searches. Each index has an equal share, at least one.
Chosen."""
ALIASES = "the aliases"
"""The lane of threads that read aliases. Every index has a lane of its own name."""


@dataclass(frozen=True, slots=True)
class Found:
    """The candidates of one index.

    Attributes:
        points: The candidates, in any order.
        commits: The commit mark of the state that the search read; None if it read the latest one.
        seconds: How long the store was asked.
    """

    points: list[StoredPoint]
    commits: int | None
    seconds: float


class FanOut:
    """The store, embedders and threads of a Retriever. Safe to use from several threads and event
    loops."""

    def __init__(
        self,
        settings: Settings,
        access: AccessRules,
        registry: CollectorRegistry,
        *,
        open_store: Callable[[], StoreReader],
        open_embedder: Callable[..., Embedder] | None,
        collections: Mapping[str, str] | None = None,
    ) -> None:
        is_embedded = settings.store.url is None
        self._wait = settings.run.wait if is_embedded else 0.0
        self._access = access
        self._open_store = open_store
        self._recency = {index.name: index.recency for index in settings.indexes}
        self._live = LiveCollections(settings, pinned=collections)
        share = max(1, REQUESTS // max(1, len(settings.indexes)))
        widths = {index.name: share for index in settings.indexes}
        widths |= {ALIASES: 2, WORDS_LANE: 2, EMBED_LANE: EMBED_REQUESTS}
        idle = IDLE_SECONDS if is_embedded else None
        self._threads = StoreThreads(self._open_afresh, widths, idle=idle)
        self._words = QuestionWords(settings, self._threads)
        self._vectors = QueryVectors(settings, registry, self._threads, opener=open_embedder)

    async def ask(
        self,
        question: Question,
        indexes: Sequence[str] | None,
        problems: Mapping[str, str],
        finish: Callable[[Asked], None] = rank,
    ) -> Asked:
        """Ask indexes, and return their best candidates (all if the question is for `every` one).

        Args:
            question: The question.
            indexes: The names of the indexes; None for all that are not empty. Those that are
                closed to the caller are left out.
            problems: By index: why it must not be asked.
            finish: Computes with the answers of all indexes.

        Raises:
            StoreError: nothing is indexed yet.
            RagIndexError: the aliases cannot be read. An error of one index is in the answer.
        """
        began = time.perf_counter()
        names = await self._names(question.deadline)
        if not names:
            names = await self._names(question.deadline, fresh=True)
        candidates = names if indexes is None else indexes
        wanted = [name for name in candidates if self._access.is_open(name, question.caller)]
        if indexes is None and not wanted:
            raise StoreError("nothing is indexed yet: `rag-index index-all` fills the indexes")
        asked = Asked(question, wanted, clock=began)
        for index in problems.keys() & wanted:
            asked.fail(index, StoreMismatch(problems[index]))

        todo = [index for index in wanted if index not in problems]
        for is_retry in (False, True):
            if not todo:
                break
            await self._open(asked, todo, names)
            await self._words.read(asked)
            answers = [asked.answers[index] for index in todo if index in asked.answers]
            await self._find(asked, answers)
            todo = [] if is_retry else _indexes_to_retry(asked, problems)
            if todo:
                names = await self._forget(asked, todo, names)
        await self._rank(asked, finish)
        return asked

    async def deepen(self, asked: Asked) -> bool:
        """Search deeper, for documents that follow the present hits. Return whether that was
        possible.

        The present hits keep their places, so that the first hits of a search do not depend on its
        depth.
        """
        question = asked.question
        may_follow = asked.deeper or asked.left
        if not may_follow or question.limit >= MAX_HITS:
            return False
        asked.question = replace(question, limit=min(MAX_HITS, question.limit * POINTS_GROWTH))
        await self._find(asked, asked.answered)
        await self._rank(asked, rank)
        return True

    async def read(
        self,
        index: str,
        deadline: Deadline,
        call: Callable[[StoreReader, LiveCollection], T],
        problems: Mapping[str, str],
    ) -> T:
        """Call a function with the store and the index's live collection, in a thread of the index,
        and return its result.

        Raises:
            StoreMismatch: the index has one of the `problems`.
            StoreError: the index is empty, or the store cannot be opened.
            SearchTimedOut: the function was not done before the deadline.
        """
        if index in problems:
            raise StoreMismatch(problems[index])
        names = await self._names(deadline)
        name = names.get(index)

        def read() -> T:
            with self._threads.store() as store:
                live = self._live.cached(index, name)
                if live is None:
                    live = self._load(store, (index, name))
                return call(store, live)

        limit = Deadline(deadline.seconds, deadline.at + self._wait)
        return await self._threads.run(index, limit, read)

    def close(self) -> None:
        """Close the store and the embedders. Calls under way finish, and no more are started."""
        self._vectors.close()
        self._threads.close()
        self._access.close()

    # The steps of a search, in their order

    async def _open(self, asked: Asked, indexes: Sequence[str], names: Mapping[str, str]) -> None:
        """Load the live collections of these indexes, and the conditions for the caller."""
        question = asked.question
        deadline = question.deadline
        began = time.monotonic()
        live = {index: self._live.cached(index, names.get(index)) for index in indexes}
        unknown: dict[str, tuple[str, str | None]] = {}
        for index, collection in live.items():
            if collection is None:
                unknown[index] = index, names.get(index)
        if unknown:
            until = _before_reading(deadline) + self._wait
            loaded = await self._threads.run_each(unknown, self._load, until)
            live |= asked.take_results(unknown, loaded, "being opened")
            # A wait for a writer of the embedded store (`--wait`) does not count.
            if self._wait:
                deadline.at += time.monotonic() - began

        for index, collection in live.items():
            if collection is None:
                continue
            try:
                own = self._access.conditions(collection, question.caller)
            except StoreError as exc:
                asked.fail(index, exc)
                continue
            asked.answers[index] = IndexAnswer(
                index,
                collection,
                own,
                hybrid=collection.encoder is not None and question.dense_weight != 1,
                asks=self._access.asks(index, question.caller),
                recency=self._recency.get(index),
            )
        asked.end_stage("open")

    async def _find(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Search indexes for candidates. An index that was searched before is searched for more.

        Each index is searched as soon as its model has embedded the question. An index whose
        candidates belong to too few documents is searched again. Unless the question is for `every`
        candidate, only the best of all remain in the answers.
        """
        question = asked.question
        before = _requested_seconds(asked)
        most = MAX_OF_PHRASE if question.phrases else MAX_POINTS
        embeddings = self._embed(asked, answers)
        while True:
            await asyncio.gather(*[self._search(asked, answer, embeddings) for answer in answers])
            await self._ask_database(asked, answers)
            answered = asked.answered
            asked.scoring = scorings(answered, question)
            for answer in answered:
                answer.points = [point for point in answer.points if question.admits(point.payload)]
            best, few = best_candidates(answered, question, asked.scoring)
            unfinished = [answer for answer in answered if answer.full and answer.limit < most]
            answers = [answer for answer in unfinished if _is_short(answer, question, few)]
            if not answers:
                break

        has_rest = any(len(best[answer.index]) < len(answer.points) for answer in answered)
        asked.deeper = bool(unfinished) or (has_rest and not question.every)
        # The index has more points than may be requested.
        is_cut_off = not question.phrases and any(answer.full for answer in answered)
        asked.unranked = asked.deeper or is_cut_off
        if not question.every:
            for answer in answered:
                answer.points = best[answer.index]
        asked.end_stage("wait", _requested_seconds(asked) - before)

    def _embed(self, asked: Asked, answers: Iterable[IndexAnswer]) -> dict[str, asyncio.Task[None]]:
        """Start to embed the question with each model that has not done so. Return the tasks by
        fingerprint."""
        by_model: dict[str, list[IndexAnswer]] = {}
        for answer in answers:
            fingerprint = answer.live.fingerprint
            was_searched = answer.limit > 0
            if fingerprint not in asked.vectors and not was_searched:
                by_model.setdefault(fingerprint, []).append(answer)
        embed = self._take_vector if asked.question.model else self._embed_question
        tasks: dict[str, asyncio.Task[None]] = {}
        for fingerprint, answers_of_model in by_model.items():
            tasks[fingerprint] = asyncio.create_task(embed(asked, answers_of_model))
        return tasks

    async def _embed_question(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Embed the question for the indexes of one model. If that fails, the indexes fail, or are
        searched by words alone."""
        live = answers[0].live
        question = asked.question
        began = time.monotonic()
        filling = [answer.index for answer in answers if answer.index in question.filling]
        is_busy = bool(filling) and all(answer.hybrid for answer in answers)
        took = 0.0
        try:
            is_loaded = self._vectors.loaded(live)
            limit = _embed_limit(question.deadline, is_loaded=is_loaded, is_busy=is_busy)
            vector = await self._vectors.get(live, question.text_with_synonyms, limit)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the indexes of other models answer
            _handle_embed_error(asked, answers, exc, filling[0] if is_busy else None)
            if is_busy:
                took = time.monotonic() - began
        else:
            took = time.monotonic() - began
            # Loading a model into this process does not count.
            if not is_loaded:
                question.deadline.at += took
            asked.vectors[live.fingerprint] = vector
        if any(answer.index in asked.answers for answer in answers):
            asked.seconds["embed"] = max(asked.seconds["embed"], took)

    async def _take_vector(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Take the vector of the document in a search for similar documents. Indexes of another
        model are searched by words; those without words fail."""
        model = asked.question.model
        fingerprint = answers[0].live.fingerprint
        if model and model.fingerprint == fingerprint:
            asked.vectors[fingerprint] = model.vector
            return
        for answer in answers:
            if not answer.hybrid:
                message = "has vectors of another model than the document, and no words"
                asked.fail(answer.index, StoreError(message))

    async def _search(
        self, asked: Asked, answer: IndexAnswer, embeddings: Mapping[str, asyncio.Task[None]]
    ) -> None:
        """Search one index for candidates once its vector is there. An error becomes the answer of
        the index."""
        question = asked.question
        fingerprint = answer.live.fingerprint
        if fingerprint in embeddings:
            await embeddings[fingerprint]
        # Its embedder has failed.
        if answer.index not in asked.answers:
            return
        if answer.limit:
            limit = answer.limit * POINTS_GROWTH
        else:
            # The caller may not see some of the candidates if the database decides.
            limit = answer.first_limit(question) * (POINTS_GROWTH if answer.asks else 1)
            # All candidates of a phrase at once: the number of searches would depend on words of
            # hidden documents, which come before the caller's own.
            if answer.asks and question.phrases:
                limit = max(limit, MAX_OF_PHRASE)
        answer.limit = min(MAX_POINTS, limit)
        until = _before_reading(question.deadline)
        deadline = Deadline(until - time.monotonic(), until)
        search = partial(self._candidates, asked, answer, asked.vectors.get(fingerprint))
        try:
            found = await self._threads.run(answer.index, deadline, search)
        except SearchTimedOut:
            asked.fail_late(answer.index, "being searched")
        except Exception as exc:  # noqa: BLE001 - whatever it is, the other indexes answer
            asked.fail(answer.index, exc)
        else:
            answer.points = found.points
            answer.commits = found.commits
            answer.full = len(found.points) >= answer.limit
            answer.seconds += found.seconds

    def _candidates(
        self, asked: Asked, answer: IndexAnswer, vector: NDArray[np.float32] | None
    ) -> Found:
        """Request the candidates of an index: the nearest, the best by words, and those that have a
        name of the query."""
        question = asked.question
        began = time.perf_counter()
        conditions = (*answer.own, *question.conditions)
        names = SoughtNames()
        query = VectorQuery(vector, answer.limit, conditions=conditions, corpus=answer.own)
        weights: dict[int, float] = {}
        if answer.hybrid:
            weights = answer.weigh(asked.counts, asked.idf)
            # A search for similar documents looks up no names.
            if not question.model:
                names = SoughtNames.of(answer, question.text, asked.counts)
            query = replace(query, sparse=answer.query(weights, asked.idf), names=names.sparse)
        with self._threads.store() as store:
            points = store.points(answer.live.collection)
            found = points.search(query)
            commits = points.seen_commits()

        add_bm25(found, weights)
        names.set_matches(found)
        for point in found:
            point.sparse = None  # frees memory; nothing below reads it
            if vector is None:
                point.score = 0.0
        return Found(found, commits, time.perf_counter() - began)

    async def _ask_database(self, asked: Asked, answers: Sequence[IndexAnswer]) -> None:
        """Remove the candidates that the caller may not see, where the database decides. An index
        whose database does not answer fails.

        How many documents the database is asked for, and how often, depends on the meaning of the
        query alone, not on the words of documents. Otherwise, the time of a search would reveal
        words in documents that the caller may not see.
        """
        question = asked.question
        asking: dict[str, IndexAnswer] = {}
        for answer in answers:
            if answer.asks and answer.index in asked.answers:
                asking[answer.index] = answer
        if not asking:
            return
        began = time.perf_counter()
        until = _before_reading(question.deadline)

        def ask(_: StoreReader, answer: IndexAnswer) -> set[str]:
            keys = _documents_to_ask(answer)
            seconds = until - time.monotonic()
            return self._access.permitted(answer.index, question.caller, keys, seconds)

        permitted = await self._threads.run_each(asking, ask, until)
        asked.seconds["access"] += time.perf_counter() - began
        results = asked.take_results(asking, permitted, "waiting for its database")
        for index, keys in results.items():
            _keep_permitted(asking[index], keys, question)

    async def _rank(self, asked: Asked, finish: Callable[[Asked], None]) -> None:
        """Order the candidates, and read the chunks that new hits show."""
        known = len(asked.hits)
        fused = asked.seconds["fuse"]
        await self._threads.compute(asked.question.deadline, finish, asked)
        asked.end_stage("compare", asked.seconds["fuse"] - fused)
        await self._read_shown(asked, known)
        asked.end_stage("show")

    async def _read_shown(self, asked: Asked, known: int) -> None:
        """Read further chunks of the hits that were found by their title alone. Such a hit shows a
        chunk with words of the query, or else the first one.

        The first `known` hits stay as they are, and so do order and scores.
        """
        hits = [hit for hit in asked.hits[known:] if hit.by_title]
        if not hits:
            return
        wanted = {index: asked.answers[index] for index in {hit.index for hit in hits}}

        def read(store: StoreReader, answer: IndexAnswer) -> list[StoredPoint]:
            ids: list[str] = []
            for hit in hits:
                if hit.index == answer.index:
                    numbers = range(min(hit.total_chunks, MAX_SHORT_CHUNKS))
                    ids += [point_id(hit.index, hit.key, number) for number in numbers]
            conditions = (*answer.own, *asked.question.conditions)
            return store.points(answer.live.collection).retrieve(ids, conditions=conditions)

        found = await self._threads.run_each(wanted, read, asked.question.deadline.at)
        for index, points in found.items():
            # If an index fails now, its hits show the chunks that were found.
            if not isinstance(points, Exception):
                admitted = [point for point in points if asked.question.admits(point.payload)]
                asked.hits = with_texts(asked.hits, wanted[index], admitted)

    # Live collections

    async def _names(self, deadline: Deadline, *, fresh: bool = False) -> Mapping[str, str]:
        """Return the name of each index's live collection. If `fresh`, they are read now."""
        since = time.monotonic()
        if not fresh:
            since -= self._live.seconds
        known = self._live.names(since)
        if known is not None:
            return known

        def read() -> Mapping[str, str]:
            with self._threads.store() as store:
                return self._live.read_names(store, since)

        during = " while the store was opened: search again in a moment"
        return await self._threads.run(ALIASES, deadline, read, during=during)

    async def _forget(
        self, asked: Asked, failed: Sequence[str], names: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Prepare to ask failed indexes again, since their live collections may have changed. Return
        the names of the live collections, new ones if they can be read."""
        with suppress(RagIndexError):
            names = await self._names(asked.question.deadline, fresh=True)
        self._live.forget(failed)
        for index in failed:
            del asked.errors[index]
        return names

    def _open_afresh(self) -> StoreReader:
        store = self._open_store()
        # Another process may have changed everything while the store was closed.
        self._live.forget()
        return store

    def _load(self, store: StoreReader, target: tuple[str, str | None]) -> LiveCollection:
        """Load the live collection of an index. The target is the index and the collection's
        name."""
        index, name = target
        if name is None:
            raise StoreError(f"index {index} is empty: `rag-index index {index}` fills it")
        return self._live.load(store, index, name)


def _indexes_to_retry(asked: Asked, problems: Mapping[str, str]) -> list[str]:
    """Return the failed indexes that may answer if their live collection has changed meanwhile."""
    failed: list[str] = []
    for index, error in asked.errors.items():
        may_pass = isinstance(error, StoreError | FingerprintChanged | BadVectors)
        is_busy = isinstance(error, StoreBusy)
        if may_pass and not is_busy and index not in problems:
            failed.append(index)
    return failed


def _requested_seconds(asked: Asked) -> float:
    """Update `asked.searched`, and return how long the embedder, the indexes and the database were
    asked."""
    asked.searched = max([answer.seconds for answer in asked.answers.values()], default=0.0)
    return asked.seconds["embed"] + asked.seconds["access"] + asked.searched


def _embed_limit(deadline: Deadline, *, is_loaded: bool, is_busy: bool) -> Deadline:
    # The model must be loaded into this process first.
    if not is_loaded:
        return Deadline.after(MAX_MODEL_LOAD_SECONDS)
    until = _before_reading(deadline)
    # The embedder is busy with documents, and words alone find something.
    if is_busy:
        return Deadline(FILLING_SECONDS, min(until, time.monotonic() + FILLING_SECONDS))
    return Deadline(deadline.seconds, until)


def _handle_embed_error(
    asked: Asked, answers: Iterable[IndexAnswer], error: Exception, filling: str | None
) -> None:
    """Let indexes be searched by words alone if the error allows that; else they fail.

    `filling` is an index that is being filled with the same model, so that the embedder is busy.
    """
    is_busy = filling is not None
    is_unavailable = isinstance(error, EmbedderUnavailable | SearchTimedOut | SearchBusy)
    is_withdrawn = isinstance(error, EmbedderWithdrawn)
    needs_no_vector = is_busy or asked.question.dense_weight == 0
    by_words = is_withdrawn or (is_unavailable and needs_no_vector)
    if is_busy and isinstance(error, SearchTimedOut | SearchBusy):
        reason = f"its embedder is busy with documents of {filling}"
    elif is_withdrawn:
        reason = str(error)
    else:
        reason = f"its embedder fails: {error}"
    for answer in answers:
        if by_words and answer.hybrid:
            asked.lacking[answer.index] = f"was searched by words alone, since {reason}"
        else:
            asked.fail(answer.index, error)


def _is_short(answer: IndexAnswer, question: Question, few: set[str]) -> bool:
    """Return whether an index should be searched for more candidates, because they belong to too few
    documents.

    `few` are the indexes of which that is true together with those that they are compared with.
    """
    # The database decides what the caller may see.
    if answer.asks:
        return not answer.enough
    if question.every or answer.index in few:
        return len(set(map(document_key, answer.points))) < question.limit
    return False


def _keep_permitted(answer: IndexAnswer, keys: set[str], question: Question) -> None:
    """Keep the candidates of these documents, and note whether they are enough."""
    always_asked = [document_key(point) for point in _nearest(answer, _always_asked(answer))]
    visible = [key for key in always_asked if key in keys]
    has_enough_points = len(visible) >= answer.first_limit(question)
    answer.enough = has_enough_points and len(set(visible)) >= question.limit
    permitted = [point for point in answer.points if document_key(point) in keys]
    answer.points = [point for point in permitted if question.admits(point.payload)]


def _nearest(answer: IndexAnswer, count: int) -> list[StoredPoint]:
    return sorted(answer.points, key=lambda point: -point.score)[:count]


def _always_asked(answer: IndexAnswer) -> int:
    """Return how many of the nearest candidates the database is asked for in any case."""
    return answer.limit * 3 // 4


def _documents_to_ask(answer: IndexAnswer) -> list[str]:
    """Return the typed keys of the documents that the database is asked for: as many as the nearest
    candidates belong to, so that the number does not depend on words.

    Three quarters of the nearest candidates come first, then the best by words, then the rest.
    """
    near = _nearest(answer, answer.limit)
    with_words = [point for point in answer.points if point.exact or point.bm25 > 0]
    with_words.sort(key=lambda point: (-point.exact, -point.bm25))
    ordered = [*near[: _always_asked(answer)], *with_words, *near]
    keys = dict.fromkeys(map(document_key, ordered))
    count = len(set(map(document_key, near)))
    return list(keys)[:count]


def _before_reading(deadline: Deadline) -> float:
    """Return the time by which the candidates must be there, so that they can still be read."""
    return deadline.at - READ_SHARE * deadline.left
